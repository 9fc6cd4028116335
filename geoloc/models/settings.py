"""Settings of networks and of their input photos. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, setting

RECIPE = "recipe:"
"""Prefix of `weights` that name a recipe, to start from its trained backbone."""

OF_METRIC, OF_CLASSIFIER = "/metric", "/classifier"
"""Suffixes of such a name: which of the recipe's networks; without one, its classifier."""

NAMED_WEIGHTS = ("none", "package", "registry")
"""The values of `weights` that name neither a file nor a recipe."""

Interpolation = Literal["bilinear", "bicubic"]


class Augmentation(Settings):
    """Random changes of a training photo; a function of (seed, epoch, photo index) only."""

    minimum_area: Number = setting(
        0.35, minimum=0.01, maximum=1.0, help="smallest share of the photo that a random crop covers"
    )
    maximum_aspect: Number = setting(
        4 / 3, minimum=1.0, help="largest aspect ratio of the crop; the smallest is 1 / it; 1: square"
    )
    flip: bool = setting(True, help="mirror half of the photos left to right")


class LayerSettings(Settings):
    """A layer of a network whose output, pooled, is the embedding (dissertation, chapter 4)."""

    name: str = setting(
        help="path of a module in the backbone, as torchvision or timm names it (features.12, layer3.1, blocks.5), or "
        "pooling or projection, the last layers of ours"
    )
    pooling: Literal["average", "max", "gem"] = setting(
        "max", help="pooling of the layer's map; a layer that gives vectors is not pooled"
    )
    gem_power: Number = setting(
        3.0, minimum=1.0, when=("pooling", ("gem",)), help="power of GeM; 1: average pooling"
    )


class ModelSettings(Settings):
    """A network over cells: backbone, pooling, initial weights, and the size of its input."""

    backbone: str = setting(
        "mobilenet_v2", help="a torchvision classification network, or timm/NAME for one of timm's"
    )
    pooling: Literal["average", "max", "gem"] = setting("average", help="pooling of the last feature map")
    gem_power: Number = setting(
        3.0,
        minimum=1.0,
        when=("pooling", ("gem",)),
        help="initial value of GeM's learnt power; 1: average pooling",
    )
    dropout: Number = setting(
        0.0, minimum=0.0, maximum=0.95, help="dropout of the pooled features in training"
    )
    softmax: Literal["flat", "hierarchical"] = setting(
        "flat",
        help="hierarchical: a cell's probability is a share of its parent's; needs nested partitions, the finest first",
    )
    weights: str = setting(
        "none",
        help="initial weights: none (random), package (ImageNet weights from an installed package, of "
        "timm/tf_efficientnet_lite0 only), registry (torchvision's or timm's own, downloaded once), recipe:NAME "
        "(the backbone of that recipe's trained classifier), recipe:NAME/metric (of its metric network) or a path to a "
        ".safetensors file",
    )
    normalisation: Literal["auto", "imagenet", "minus_one_to_one"] = setting(
        "auto",
        help="normalisation of pixels; auto: that of the registry's or package's weights, else imagenet",
    )
    padding: Literal["torch", "tensorflow_same"] = setting(
        "torch",
        help="padding of strided convolutions: as built, or TensorFlow's SAME, which weights from TensorFlow need",
    )
    batch_norm: Literal["train", "eval"] = setting(
        "train",
        help="eval: running statistics stay fixed in training, as weights with folded batch norm need",
    )
    resize_short_side: int = setting(256, minimum=8, help="short side of a photo before the crop, in pixels")
    image_size: int = setting(224, minimum=8, help="side of the network's square input, in pixels")
    interpolation: Interpolation = setting("bilinear", help="interpolation of the resizing")

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        if self.resize_short_side < self.image_size:
            raise SettingsError(
                f"{key}.resize_short_side must be at least image_size ({self.image_size}), "
                f"got {self.resize_short_side}"
            )
        named = self.weights in NAMED_WEIGHTS or self.weights.startswith(RECIPE)
        if not named and not self.weights.endswith(".safetensors"):
            raise SettingsError(
                f"{key}.weights must be {', '.join(NAMED_WEIGHTS)}, recipe:NAME or a path that ends in .safetensors "
                f"(no pickle is read); got {self.weights!r}"
            )
