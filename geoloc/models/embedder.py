"""The embedder: backbone and global pooling, from photos to features; the base of every family of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from geoloc.files import sha256_bytes
from geoloc.models.backbones import Backbone, make_backbone
from geoloc.models.padding import use_same_padding
from geoloc.models.pooling import make_pooling
from geoloc.models.preprocess import NORMALISATIONS, Preprocess
from geoloc.models.settings import NAMED_WEIGHTS, ModelSettings
from geoloc.models.weights import (
    Normalisation,
    load_packaged_weights,
    load_registry_weights,
    load_weights_file,
)
from geoloc.settings import SettingsError, parse


class Embedder(nn.Module):
    """Pooled features of photos: convolutional layers and global pooling (Revisiting IM2GPS, figure 3).

    Takes float32 [B, 3, S, S] normalised by `preprocess`, or uint8 [B, 3, S, S], which it normalises itself.
    `embedding_size` is D.
    """

    def __init__(self, backbone: Backbone, settings: ModelSettings, preprocess: Preprocess) -> None:
        super().__init__()
        self.settings, self.preprocess = settings, preprocess
        self.initial_weights = "none"
        self.embedding_size = backbone.feature_count
        self.backbone = backbone
        self.pooling = make_pooling(settings.pooling, settings.gem_power)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features [B, D] of images [B, 3, S, S]; not normalised."""
        if images.dtype == torch.uint8:
            images = self.preprocess.normalise(images)
        pooled: torch.Tensor = self.pooling(self.backbone(images))
        return pooled

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As `embed`."""
        return self.embed(images)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for parts that must not change: frozen blocks, and batch norm if
        settings.batch_norm is eval."""
        super().train(mode)
        if mode:
            for block in self.backbone.blocks:
                if not any(parameter.requires_grad for parameter in block.parameters()):
                    block.eval()
            if self.settings.batch_norm == "eval":
                for module in self.backbone.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def freeze_backbone(self, trainable_blocks: int | None = 0) -> int:
        """Let only the last `trainable_blocks` blocks of the backbone learn (None: all); pooling and head always
        learn. Returns the number of weights that learn. Raises ValueError for more blocks than there are."""
        blocks = self.backbone.blocks
        if trainable_blocks is not None and not 0 <= trainable_blocks <= len(blocks):
            raise ValueError(f"trainable_blocks must be 0 to {len(blocks)}, got {trainable_blocks}")
        self.backbone.requires_grad_(trainable_blocks is None)
        for block in blocks[len(blocks) - (trainable_blocks or 0) :]:
            block.requires_grad_(True)
        self.train(self.training)
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def __repr__(self) -> str:
        s = self.settings
        return (
            f"Embedder({s.backbone}, {s.pooling} pooling, {self.embedding_size} features, "
            f"{self.preprocess.image_size} px)"
        )


def build_embedder(settings: ModelSettings, seed: int) -> Embedder:
    """An embedder with the settings' initial weights. Equal arguments give equal weights. Raises the errors of
    build_backbone."""
    backbone, preprocess = build_backbone(settings, seed)
    model = Embedder(backbone, settings, preprocess)
    model.initial_weights = name_of_weights(settings.weights)
    return model


def build_backbone(settings: ModelSettings, seed: int) -> tuple[Backbone, Preprocess]:
    """A backbone with its initial weights and padding, and the preprocessing for it.

    Random weights come from `seed`; the state of torch's generator is restored. Raises ValueError for an unknown
    backbone, WeightsError for weights that are missing or do not fit.
    """
    settings.check("model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = make_backbone(settings.backbone, settings.image_size)
    normalisation: Normalisation = NORMALISATIONS["imagenet"]
    if settings.weights == "registry":
        normalisation = _rgb(load_registry_weights(backbone, settings.backbone))
    elif settings.weights == "package":
        normalisation = _rgb(load_packaged_weights(backbone, settings.backbone))
    elif settings.weights != "none":
        metadata = load_weights_file(backbone, settings.weights)
        if metadata is not None:
            normalisation = _rgb((metadata["preprocess"]["mean"], metadata["preprocess"]["std"]))
            _check_same_rules(settings, metadata)
    if settings.normalisation != "auto":
        normalisation = NORMALISATIONS[settings.normalisation]
    if settings.padding == "tensorflow_same":
        use_same_padding(backbone)
    return backbone, Preprocess(
        resize_short_side=settings.resize_short_side,
        image_size=settings.image_size,
        mean=normalisation[0],
        std=normalisation[1],
        interpolation=settings.interpolation,
    )


def name_of_weights(weights: str) -> str:
    """The source of initial weights, for `initial_weights`: one of NAMED_WEIGHTS, or a file by its hash."""
    return weights if weights in NAMED_WEIGHTS else f"sha256:{sha256_bytes(Path(weights).read_bytes())}"


def example_input(model: Embedder, batch_size: int = 2) -> torch.Tensor:
    """A batch of random pixels, uint8 [B, 3, S, S], always the same, for tracing or exporting the model."""
    size = model.preprocess.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8, generator=generator)


def _check_same_rules(settings: ModelSettings, metadata: dict[str, Any]) -> None:
    """Raise SettingsError if settings differ from those that a saved model's weights were trained with."""
    stored = parse(ModelSettings, metadata["settings"], "model")
    for name in ("backbone", "padding"):
        if getattr(settings, name) != getattr(stored, name):
            raise SettingsError(
                f"model.{name} must be {getattr(stored, name)}, as in the model that model.weights names; "
                f"got {getattr(settings, name)}"
            )


def _rgb(normalisation: Normalisation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = normalisation
    return tuple(float(x) for x in mean), tuple(float(x) for x in std)
