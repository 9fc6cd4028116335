"""Networks that match street photos with overhead tiles: built, saved, loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from geoloc.files import atomic_path, one_line
from geoloc.models.embedder import Embedder, build_embedder
from geoloc.models.panorama import PanoramaPreprocess
from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import ModelSettings
from geoloc.models.tiles import seen_tiles
from geoloc.models.weights import METADATA_KEY, WeightsError, read_safetensors
from geoloc.settings import Number, Settings, parse, replace, setting, to_dict, used

FORMAT = 1
PHOTO, TILE = 0, 1
"""The two views."""


class CrossViewShape(Settings):
    """What a cross-view network is built from, beside its backbone. The fields are those of CrossViewSettings;
    `orientation_hidden` and `scale` are null without an orientation head and a learnt scale."""

    kind: str = setting("embedding")
    towers: str = setting("separate")
    embedding_size: int | None = setting(None)
    grid: int = setting(1)
    hidden: int = setting(512)
    orientation_hidden: int | None = setting(None)
    scale: Number | None = setting(None)
    normalise: bool = setting(True)
    polar: bool = setting(False)
    rotation_range: int = setting(360)
    field_of_view: Number | None = setting(None)


class CrossViewNetwork(nn.Module):
    """Street photos and overhead tiles in one space, or scored pair by pair (dissertation 3.3, figure 3.4).

    Of kind embedding: `photos` and `tiles` give embeddings that are compared by distance, and `orientation` the angle
    between them. Of kind classification or hybrid: `match` scores pairs. `scale` is the learnt factor of embeddings in
    the loss, as in MetricNetwork.
    """

    def __init__(self, towers: list[Embedder], shape: CrossViewShape, settings: ModelSettings) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape
        self.towers = nn.ModuleList(towers)
        self.preprocess = towers[0].preprocess
        size = towers[0].embedding_size
        self.initial_weights = towers[0].initial_weights
        self.dropout = nn.Dropout(settings.dropout)
        self.projections = nn.ModuleList()
        self.orientation_head: nn.Module = nn.Identity()
        self.matcher: nn.Module = nn.Identity()
        if shape.kind == "embedding":
            if shape.embedding_size is not None:
                count = 2 if shape.towers == "separate" else 1
                self.projections.extend(nn.Linear(size, shape.embedding_size) for _ in range(count))
                size = shape.embedding_size
            if shape.orientation_hidden is not None:
                self.orientation_head = _two_layers(2 * size, shape.orientation_hidden, 2)
        elif shape.kind == "hybrid":
            self.matcher = _two_layers(2 * size, shape.hidden, 1)
        else:
            self.matcher = nn.Linear(size, 1)
        self.embedding_size = size
        self.scale = None if shape.scale is None else nn.Parameter(torch.tensor(float(shape.scale)))

    @property
    def photo_preprocess(self) -> Preprocess:
        """The preprocessing of photos: that of panoramas if shape.field_of_view is given."""
        if self.shape.field_of_view is None:
            return self.preprocess
        return PanoramaPreprocess(**to_dict(self.preprocess), field_of_view=self.shape.field_of_view)

    @property
    def tile_preprocess(self) -> Preprocess:
        """The preprocessing of tiles: as that of photos, without a crop, so that the whole tile is seen."""
        return replace(self.preprocess, resize_short_side=self.preprocess.image_size)

    @property
    def tells_orientation(self) -> bool:
        """Whether the network has an orientation head."""
        return self.shape.orientation_hidden is not None

    def photos(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, D] of photos uint8 or normalised [B, 3, S, S], as they are compared: of length 1 if
        shape.normalise."""
        return self._embed(self._normalised(images), PHOTO)

    def tiles(
        self, images: torch.Tensor, up: torch.Tensor, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeddings [B, D] of tiles [B, 3, S, S], seen with the bearings `up` [B] at the top (see models.tiles)."""
        return self.embed_seen(self.seen(images, up, scale))

    def embed_seen(self, seen: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, D] of tiles that `seen` has made."""
        return self._embed(seen, TILE)

    def seen(self, images: torch.Tensor, up: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """Tiles uint8 or normalised [B, 3, S, S] as the network sees them, float32."""
        return seen_tiles(self._normalised(images), up, self.shape.polar, scale)

    def orientation(self, photos: torch.Tensor, tiles: torch.Tensor) -> torch.Tensor:
        """Sine and cosine [B, 2], not normalised, of the angle from the top of the tile clockwise to where the photo
        looks; from embeddings [B, D] of both."""
        both = torch.cat([photos, tiles], dim=1)
        if self.shape.normalise:
            both = both * self.embedding_size**0.5  # numbers of ordinary size
        found: torch.Tensor = self.orientation_head(both)
        return found

    def match(self, photos: torch.Tensor, tiles: torch.Tensor) -> torch.Tensor:
        """Logits [B] of a match of photos [B, 3, S, S] with tiles [B, 3, S, S] that are already seen."""
        photos = self._normalised(photos)
        if self.shape.kind == "classification":
            features = self.towers[0](torch.cat([photos, tiles], dim=1))
        else:
            features = torch.cat([self._features(photos, PHOTO), self._features(tiles, TILE)], dim=1)
        logits: torch.Tensor = self.matcher(self.dropout(features))
        return logits[:, 0]

    def freeze_backbones(self, trainable_blocks: int | None) -> None:
        """As Embedder.freeze_backbone, for each tower."""
        for tower in self.towers:
            assert isinstance(tower, Embedder)
            tower.freeze_backbone(trainable_blocks)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        return self.preprocess.normalise(images) if images.dtype == torch.uint8 else images

    def _embed(self, images: torch.Tensor, view: int) -> torch.Tensor:
        features = self.dropout(self._features(images, view))
        if len(self.projections):
            features = self.projections[min(view, len(self.projections) - 1)](features)
        return functional.normalize(features.float()) if self.shape.normalise else features.float()

    def _features(self, images: torch.Tensor, view: int) -> torch.Tensor:
        tower = self.towers[min(view, len(self.towers) - 1)]
        if self.shape.towers == "shared_but_batch_norm":
            for module in tower.modules():
                if isinstance(module, NormByView):
                    module.view = view
        features: torch.Tensor = tower(images)
        return features

    def __repr__(self) -> str:
        s = self.shape
        towers = "" if s.kind == "classification" else f", towers {s.towers}"
        return (
            f"CrossViewNetwork({s.kind}, {self.settings.backbone}{towers}, {self.embedding_size} dimensions, "
            f"{self.preprocess.image_size} px{', polar tiles' if s.polar else ''})"
        )


class ServedPhotos(nn.Module):
    """The tower of photos for serving: pixels uint8 [B, 3, S, S] to embeddings [B, D], which an overhead index is asked
    with."""

    def __init__(self, model: CrossViewNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings of photos."""
        return self.model.photos(images)


class GridPooling(nn.Module):
    """The mean over each part of a grid: [B, D, h, w] to [B, D·G²]. Where things are in the picture stays known, as by
    the fully connected layers of AlexNet.

    The parts are those of adaptive_avg_pool2d, whose gradient has no deterministic form on a GPU.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool."""
        rows = self._means(features, 2)
        return self._means(rows, 3).flatten(1)

    def _means(self, features: torch.Tensor, dim: int) -> torch.Tensor:
        size = features.shape[dim]
        starts = [i * size // self.grid for i in range(self.grid)]
        ends = [-(-(i + 1) * size // self.grid) for i in range(self.grid)]
        parts = zip(starts, ends, strict=True)
        return torch.stack([features.narrow(dim, start, end - start).mean(dim) for start, end in parts], dim)


class NormByView(nn.Module):
    """Two batch norms in the place of one, for photos and for tiles: their statistics differ where weights are
    shared. `view` says which one is next."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm, copy.deepcopy(norm)])
        self.view = PHOTO

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The batch norm of the view."""
        normalised: torch.Tensor = self.norms[self.view](features)
        return normalised


def build_cross_view(settings: ModelSettings, shape: CrossViewShape, seed: int) -> CrossViewNetwork:
    """A network with the settings' initial weights in each tower, and random layers after them.

    Equal arguments give equal weights. Raises the errors of build_backbone; ValueError for a backbone that cannot take
    six channels, or has no batch norm to keep apart.
    """
    towers = [build_embedder(settings, seed)]
    if shape.kind == "classification":
        _take_six_channels(towers[0])
    elif shape.towers in ("separate", "shared_last_layer"):
        towers.append(build_embedder(settings, seed + 1))
    elif shape.towers == "shared_but_batch_norm":
        _norms_by_view(towers[0])
    if shape.grid > 1:
        for tower in towers:
            tower.pooling = GridPooling(shape.grid)
            tower.embedding_size *= shape.grid**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)  # not the backbones' seeds
        return CrossViewNetwork(towers, shape, settings)


def save_cross_view(path: Path | str, model: CrossViewNetwork) -> None:
    """Write a network to one safetensors file, atomically; equal networks give equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "kind": "cross_view",
        "settings": used(replace(model.settings, weights="none")),
        "preprocess": to_dict(model.preprocess),
        "shape": to_dict(model.shape),
        "initial_weights": model.initial_weights,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_cross_view(path: Path | str) -> CrossViewNetwork:
    """The network that save_cross_view wrote, in eval mode on the CPU. Raises WeightsError for a damaged file or one
    without such a network."""
    tensors, metadata = read_safetensors(path)
    if metadata is None or metadata.get("kind") != "cross_view":
        raise WeightsError(f"{path} is not a geoloc cross-view network: its header does not describe one")
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} has format {metadata.get('format')}, this code reads format {FORMAT}")
    try:
        model = build_cross_view(
            parse(ModelSettings, metadata["settings"], "model"),
            parse(CrossViewShape, metadata["shape"], "shape"),
            0,
        )
        model.preprocess = parse(Preprocess, metadata["preprocess"], "preprocess")
        model.initial_weights = metadata["initial_weights"]
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise WeightsError(
            f"{path} does not have the weights that its header describes: {one_line(error)}"
        ) from error
    return model.eval()


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _take_six_channels(tower: Embedder) -> None:
    """Replace the first convolution by one over six channels with twice the filters (dissertation 3.3.1), and a mix of
    these to the number that the next layer expects, so that any backbone can follow.

    At first the filters are those of the backbone on the photo and on the tile, and the mix is their mean. Raises
    ValueError if the first layer with weights is no convolution of three channels.
    """
    found = [(name, one) for name, one in tower.backbone.named_modules() if isinstance(one, nn.Conv2d)]
    if not found or found[0][1].in_channels != 3 or found[0][1].groups != 1:
        raise ValueError(
            f"kind classification needs a backbone whose first layer is a convolution of three channels; "
            f"{tower.settings.backbone} has none"
        )
    name, first = found[0]
    wide = copy.deepcopy(first)  # with its own padding rule
    filters = first.out_channels
    wide.in_channels, wide.out_channels = 6, 2 * filters
    none = torch.zeros_like(first.weight)
    wide.weight = nn.Parameter(
        torch.cat([torch.cat([first.weight, none], dim=1), torch.cat([none, first.weight], dim=1)])
        .detach()
        .clone()
    )
    if first.bias is not None:
        wide.bias = nn.Parameter(torch.cat([first.bias, first.bias]).detach().clone())
    mix = nn.Conv2d(2 * filters, filters, 1, bias=False)
    half = torch.eye(filters) / 2
    mix.weight = nn.Parameter(torch.cat([half, half], dim=1)[:, :, None, None].clone())
    _put(tower.backbone, name, nn.Sequential(wide, mix))


def _norms_by_view(tower: Embedder) -> None:
    names = [name for name, one in tower.backbone.named_modules() if isinstance(one, _BatchNorm)]
    if not names:
        raise ValueError(
            f"towers shared_but_batch_norm needs a backbone with batch norm; {tower.settings.backbone} has none"
        )
    for name in names:
        _put(tower.backbone, name, NormByView(tower.backbone.get_submodule(name)))


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(network.get_submodule(above), last, module)
