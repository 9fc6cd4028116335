"""Backbones by name, from torchvision or timm, cut off after their last feature map [B, D, h, w]."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional

from geoloc.settings import SettingsError

TIMM = "timm/"

_TRUNKS = (
    ("features",),  # alexnet, convnext, densenet, efficientnet, mobilenet, squeezenet, swin, vgg
    ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),  # resnet, resnext
    ("stem", "trunk_output"),  # regnet
    ("layers",),  # mnasnet
    ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),  # shufflenet
    (
        *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3"),
        *("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4"),
        *("inception5a", "inception5b"),
    ),  # googlenet
)
"""The children of torchvision's networks that compute the last feature map, in order; one entry per family."""


class Backbone(nn.Module):
    """A network without its head: float32 [B, 3, H, W] to a feature map [B, D, h, w].

    `blocks` are its parts from input to output; fine-tuning may train the last few. `head_prefixes` are the prefixes of
    the names of the head's weights in a file of the whole network.
    """

    feature_count: int
    head_prefixes: tuple[str, ...]

    @property
    def blocks(self) -> list[nn.Module]:
        """The children from input to output; plain sequences are replaced by their members. Parts without weights
        are left out."""
        parts: list[nn.Module] = []
        for child in self._trunk():
            parts.extend(child.children() if isinstance(child, nn.Sequential | nn.ModuleList) else [child])
        return [part for part in parts if any(True for _ in part.parameters())]

    def _trunk(self) -> Sequence[nn.Module]:
        return list(self.children())


class TorchvisionBackbone(Backbone):
    """A torchvision classification network; its weights keep torchvision's names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        # GoogLeNet warns unless it is given init_weights; True initialises it as its authors did.
        start = {"init_weights": True} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, weights=None, **start)
        children = dict(network.named_children())
        trunk = next((t for t in _TRUNKS if all(part in children for part in t)), None)
        if trunk is None:
            raise SettingsError(
                f"model.backbone: backbone {name!r} has no single last feature map that can be pooled; "
                f"timm/{name} may have one"
            )
        for part in trunk:
            self.add_module(part, children[part])
        # The forward methods of densenet and swin have a last step outside of `features`.
        self._final_relu = name.startswith("densenet")
        self._channels_last = name.startswith("swin")
        if self._channels_last:
            self.add_module("norm", children["norm"])
        self.head_prefixes = tuple(f"{part}." for part in children if part not in dict(self.named_children()))
        self.feature_count = _count_features(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The last feature map."""
        features = images
        for part in self.children():
            features = part(features)
        if self._channels_last:
            features = features.permute(0, 3, 1, 2)
        return functional.relu(features) if self._final_relu else features


class TimmBackbone(Backbone):
    """A timm network without head and pooling; the patches of a transformer become a map [B, D, N, 1]."""

    network: Any  # nn.Module with timm's own attributes

    def __init__(self, name: str, pretrained: bool = False, image_size: int | None = None) -> None:
        super().__init__()
        import timm  # seconds to import, and most builds use torchvision

        self.image_size = image_size
        known = timm.list_models(name) or timm.list_models(name.split(".")[0])
        if not known:
            raise _unknown(TIMM + name, [TIMM + other for other in timm.list_models()])
        make: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
        try:
            # Transformers have position embeddings for one size; convolutional networks do not have this argument.
            self.network = timm.create_model(name, img_size=image_size, **make)
        except TypeError:
            self.network = timm.create_model(name, **make)
        config = self.network.pretrained_cfg
        classifier = config.get("classifier") or ()
        classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        self.head_prefixes = tuple(f"{part}." for part in classifier)
        self.normalisation = (tuple(config["mean"]), tuple(config["std"]))
        self.feature_count = _count_features(self, image_size or 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The last feature map."""
        features: torch.Tensor = self.network.forward_features(images)
        if features.ndim == 3:  # without class and register tokens, which are not positions of the photo
            features = features[:, getattr(self.network, "num_prefix_tokens", 0) :].transpose(1, 2)[..., None]
        elif getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        return features

    def _trunk(self) -> Sequence[nn.Module]:
        return list(self.network.children())


def make_backbone(name: str, image_size: int = 224) -> Backbone:
    """The backbone called `name` with random weights from torch's current generator.

    Raises SettingsError, a ValueError, for an unknown name; the message lists the nearest known ones.
    """
    if name.startswith(TIMM):
        return TimmBackbone(name.removeprefix(TIMM), image_size=image_size)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown(name, known)
    return TorchvisionBackbone(name)


def _unknown(name: str, known: list[str]) -> SettingsError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    return SettingsError(
        "model.backbone must be a classification network of torchvision, or timm/NAME for one of timm's: "
        f"{name!r} is unknown; the nearest known: {', '.join(near) or 'none'}"
    )


def _count_features(backbone: Backbone, size: int = 64) -> int:
    """D, found by a forward pass of one black image."""
    training = backbone.training
    backbone.eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, size, size))
    backbone.train(training)
    if features.ndim != 4:
        raise ValueError(f"the backbone's features have shape {tuple(features.shape)}, expected [B, D, h, w]")
    return int(features.shape[1])
