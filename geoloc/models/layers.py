"""The output of any layer of a network as embedding: found by name, pooled to one vector a photo."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from geoloc.models.backbones import TimmBackbone
from geoloc.models.embedder import Embedder
from geoloc.models.pooling import AveragePooling, make_pooling
from geoloc.models.settings import LayerSettings
from geoloc.settings import SettingsError

OWN_LAYERS = ("pooling", "projection")
"""Layers after the backbone that an embedder may have, by their names in it."""


class LayerEmbedder(nn.Module):
    """A network whose embedding is the output of one of its layers.

    Takes images as `model` does, and shares its weights. A module that runs several times in a pass counts with its
    last output. `embedding_size` is D. Raises SettingsError for a layer that the network does not have or run, or whose
    output cannot be pooled; the message lists the layers.
    """

    def __init__(self, model: Embedder, layer: LayerSettings, key: str = "embeddings.layer") -> None:
        super().__init__()
        self.model, self.layer, self.preprocess = model, layer, model.preprocess
        self.path = _path_of(model, layer.name, key)
        self.layer_pooling = make_pooling(layer.pooling, layer.gem_power).to(next(model.parameters()).device)
        self.embedding_size = self._try_out(key)
        self.train(model.training)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Features [B, D] of images [B, 3, S, S]; not normalised."""
        return pooled_layers(self.model, images, [self])[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As `embed`."""
        return self.embed(images)

    def _try_out(self, key: str) -> int:
        """D, found by a pass of two black images."""
        outputs = _of_black_images(self.model, [self.path])
        if self.path not in outputs:
            raise SettingsError(
                f"{key}.name must be a layer that gives features; {self.layer.name!r} does not run; "
                f"{_layers_told(self.model)}"
            )
        try:
            features = _pooled(self.model, self.path, outputs[self.path], self.layer_pooling, 2)
        except ValueError as error:
            raise SettingsError(
                f"{key}.name must be a layer whose output can be pooled; {self.layer.name!r} gives {error}; "
                f"{_layers_told(self.model)}"
            ) from None
        return int(features.shape[1])

    def __repr__(self) -> str:
        return f"LayerEmbedder({self.model!r}, {self.layer.name}, {self.embedding_size} dimensions)"


def at_layer(model: Embedder, layer: LayerSettings | None, key: str = "embeddings.layer") -> Any:
    """The network whose embedding is that layer's output; `model` itself for None. Raises the errors of
    LayerEmbedder."""
    return model if layer is None else LayerEmbedder(model, layer, key)


def layer_outputs(model: Embedder, images: torch.Tensor, paths: list[str]) -> dict[str, Any]:
    """The outputs of modules of `model`, by path, in one pass of `embed`; those that do not run are left out."""
    found: dict[str, Any] = {}

    def keeper(path: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            found[path] = output

        return keep

    hooks = [model.get_submodule(path).register_forward_hook(keeper(path)) for path in paths]
    try:
        model.embed(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def pooled_layers(model: Embedder, images: torch.Tensor, layers: list[LayerEmbedder]) -> list[torch.Tensor]:
    """Features [B, D] of images by each of several layers of one network, in one pass."""
    outputs = layer_outputs(model, images, [one.path for one in layers])
    # Not len(): an export would take it for a constant, and its graph only batches of the example's size.
    return [_pooled(model, one.path, outputs[one.path], one.layer_pooling, images.shape[0]) for one in layers]


def layer_names(model: Embedder) -> list[str]:
    """The layers of a network from input to output, one level deep: the parts of its trunk, sequences replaced by their
    members, then its own last layers. Modules inside of these can be named too. Runs the network once, because a
    network has parts that do not run, such as its classifier."""
    inner, prefix = _inner(model)
    paths: dict[str, str] = {}
    for name, child in inner.named_children():
        inside = list(child.named_children()) if isinstance(child, nn.Sequential | nn.ModuleList) else []
        names = [f"{name}.{part}" for part, _ in inside] or [name]
        paths |= {one: prefix + one for one in names}
    paths |= {name: name for name in OWN_LAYERS if hasattr(model, name)}
    outputs = _of_black_images(model, list(paths.values()))
    return [
        name for name, path in paths.items() if path in outputs and _can_be_pooled(model, path, outputs[path])
    ]


def _of_black_images(model: Embedder, paths: list[str]) -> dict[str, Any]:
    """The outputs of modules for two black images; the model's mode is restored."""
    size, was_training = model.preprocess.image_size, model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad():
            return layer_outputs(
                model, torch.zeros((2, 3, size, size), dtype=torch.uint8, device=device), paths
            )
    finally:
        model.train(was_training)


def _can_be_pooled(model: Embedder, path: str, output: Any) -> bool:
    try:
        _pooled(model, path, output, AveragePooling(), 2)
    except ValueError:
        return False
    return True


def _inner(model: Embedder) -> tuple[nn.Module, str]:
    """The network whose modules have torchvision's or timm's names, and the prefix of its names in `model`."""
    if isinstance(model.backbone, TimmBackbone):
        return model.backbone.network, "backbone.network."
    return model.backbone, "backbone."


def _path_of(model: Embedder, name: str, key: str) -> str:
    """The path in `model` of the layer `name`. Raises SettingsError."""
    inner, prefix = _inner(model)
    if name.split(".")[0] in OWN_LAYERS and name in dict(model.named_modules()):
        return name
    known = dict(inner.named_modules())
    if name and name in known:
        return prefix + name
    near = difflib.get_close_matches(name, [one for one in known if one], n=3, cutoff=0.6)
    nearest = f"; the nearest: {', '.join(near)}" if near else ""
    raise SettingsError(
        f"{key}.name must be a layer of {model.settings.backbone}, got {name!r}; {_layers_told(model)}{nearest}"
    )


def _layers_told(model: Embedder) -> str:
    return f"its layers are {', '.join(layer_names(model))}, and the modules inside of these"


def _pooled(model: Embedder, path: str, output: Any, pooling: nn.Module, photos: int) -> torch.Tensor:
    """A layer's output for B `photos` as features [B, D]. Raises ValueError, which says what it is, for an output that
    cannot be pooled."""
    if not isinstance(output, torch.Tensor):
        raise ValueError(f"a {type(output).__name__}, not one tensor")
    if output.ndim not in (2, 3, 4) or output.shape[0] != photos:
        raise ValueError(f"the shape {tuple(output.shape)} for {photos} photos")
    if output.ndim == 2:
        return output
    if output.ndim == 3:  # tokens of a transformer, without those that are not positions of the photo
        tokens = getattr(_inner(model)[0], "num_prefix_tokens", 0)
        output = output[:, tokens:].transpose(1, 2)[..., None]
    elif _channels_last(model, path):
        output = output.permute(0, 3, 1, 2)
    features: torch.Tensor = pooling(output)
    return features


def _channels_last(model: Embedder, path: str) -> bool:
    """Whether a layer's maps are [B, h, w, D]. Networks that compute so have a few layers that do not."""
    layer, backbone = model.get_submodule(path), model.backbone
    if isinstance(layer, nn.Linear):
        return True
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
        return False
    if isinstance(backbone, TimmBackbone):
        return getattr(backbone.network, "output_fmt", "NCHW") == "NHWC"
    return model.settings.backbone.startswith("swin")
