"""The network of metric learning: an embedder with a linear projection; built from settings, saved, loaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from geoloc.files import atomic_path, one_line
from geoloc.models.backbones import Backbone
from geoloc.models.embedder import Embedder, build_backbone, name_of_weights
from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import NAMED_WEIGHTS, ModelSettings
from geoloc.models.weights import METADATA_KEY, WeightsError, read_safetensors
from geoloc.settings import parse, replace, to_dict, used

FORMAT = 1


class MetricNetwork(Embedder):
    """Embeddings of photos that are compared by distance (dissertation 4.4.2: NetA has a projection, fc6).

    `projected_to` is the number of dimensions after a linear layer; None: no such layer, the pooled features are the
    embedding. `scale` is the learnt factor of the embeddings in the loss (losses.metric), None if it is not learnt. It
    is no part of the embedding, whose direction alone is compared in retrieval.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: ModelSettings,
        preprocess: Preprocess,
        projected_to: int | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__(backbone, settings, preprocess)
        self.projected_to = projected_to
        self.dropout = nn.Dropout(settings.dropout)
        self.projection: nn.Module = nn.Identity()
        if projected_to is not None:
            self.projection = nn.Linear(self.embedding_size, projected_to)
            self.embedding_size = projected_to
        self.scale = None if scale is None else nn.Parameter(torch.tensor(float(scale)))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, D] of images [B, 3, S, S]; not normalised."""
        projected: torch.Tensor = self.projection(self.dropout(super().embed(images)))
        return projected

    def __repr__(self) -> str:
        s = self.settings
        return (
            f"MetricNetwork({s.backbone}, {s.pooling} pooling, {self.embedding_size} dimensions, "
            f"{self.preprocess.image_size} px)"
        )


class ServedEmbeddings(nn.Module):
    """A metric network for serving: pixels uint8 [B, 3, S, S] to embeddings [B, D] of length 1, as the index has
    them."""

    def __init__(self, model: MetricNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """L2-normalised embeddings."""
        return nn.functional.normalize(self.model.embed(images))


def build_metric_network(
    settings: ModelSettings, seed: int, projected_to: int | None = None, scale: float | None = None
) -> MetricNetwork:
    """A network with the settings' initial weights, which may be another model's backbone, and a random projection. If
    they are of a metric network whose projection has as many dimensions, that is taken too.

    Equal arguments give equal weights. Raises the errors of build_backbone.
    """
    backbone, preprocess = build_backbone(settings, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # not the backbone's seed
        model = MetricNetwork(backbone, settings, preprocess, projected_to, scale)
    model.initial_weights = name_of_weights(settings.weights)
    if projected_to is not None and settings.weights not in NAMED_WEIGHTS:
        _, metadata = read_safetensors(settings.weights)
        if metadata and (metadata.get("kind"), metadata.get("projected_to")) == ("metric", projected_to):
            model.projection.load_state_dict(load_metric_network(settings.weights).projection.state_dict())
    return model


def save_metric_network(path: Path | str, model: MetricNetwork) -> None:
    """Write a network to one safetensors file, atomically; equal networks give equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "kind": "metric",
        "settings": used(replace(model.settings, weights="none")),
        "preprocess": to_dict(model.preprocess),
        "projected_to": model.projected_to,
        "initial_weights": model.initial_weights,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_metric_network(path: Path | str) -> MetricNetwork:
    """The network that save_metric_network wrote, in eval mode on the CPU. Raises WeightsError for a damaged file or
    one without such a network."""
    tensors, metadata = read_safetensors(path)
    if metadata is None or metadata.get("kind") != "metric":
        raise WeightsError(f"{path} is not a geoloc metric network: its header does not describe one")
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} has format {metadata.get('format')}, this code reads format {FORMAT}")
    try:
        model = build_metric_network(
            parse(ModelSettings, metadata["settings"], "model"),
            0,
            metadata["projected_to"],
            1.0 if "scale" in tensors else None,
        )
        model.preprocess = parse(Preprocess, metadata["preprocess"], "preprocess")
        model.initial_weights = metadata["initial_weights"]
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise WeightsError(
            f"{path} does not have the weights that its header describes: {one_line(error)}"
        ) from error
    return model.eval()
