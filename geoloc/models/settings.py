"""Settings of networks and of how photos enter them. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, setting

RECIPE = "recipe:"
"""What `weights` starts with where it names a recipe whose trained backbone is taken."""

Interpolation = Literal["bilinear", "bicubic"]


class Augmentation(Settings):
    """Random changes of a training photo, a function of (seed, epoch, photo index) alone."""

    minimum_area: Number = setting(
        0.35, minimum=0.01, maximum=1.0, help="a random crop covers this share to all of the photo"
    )
    maximum_aspect: Number = setting(4 / 3, minimum=1.0, help="aspect of the crop, and 1 / it; 1: square")
    flip: bool = setting(True, help="mirror every other photo left to right")


class ModelSettings(Settings):
    """A network over cells: backbone, pooling, where its weights start, and the photo that it takes."""

    backbone: str = setting(
        "mobilenet_v2", help="a torchvision classification network, or timm/NAME for one of timm's"
    )
    pooling: Literal["average", "max", "gem"] = setting("average", help="of the last feature map")
    gem_power: Number = setting(
        3.0, minimum=1.0, when=("pooling", ("gem",)), help="where GeM's learnt power starts; 1 is the average"
    )
    dropout: Number = setting(0.0, minimum=0.0, maximum=0.95, help="of the pooled features, in training")
    softmax: Literal["flat", "hierarchical"] = setting(
        "flat",
        help="hierarchical: of nested partitions, the finest first, a cell's probability is a share of its parent's",
    )
    weights: str = setting(
        "none",
        help="none (random), registry (torchvision's or timm's own), recipe:NAME (the backbone of the classifier that "
        "was built by that recipe) or a path to a .safetensors file",
    )
    normalisation: Literal["auto", "imagenet", "minus_one_to_one"] = setting(
        "auto",
        help="auto: what the registry says of its weights, imagenet otherwise",
    )
    padding: Literal["torch", "tensorflow_same"] = setting(
        "torch",
        help="of strided convolutions: as built, or TensorFlow's SAME, which weights from TensorFlow need",
    )
    batch_norm: Literal["train", "eval"] = setting(
        "train",
        help="eval keeps running statistics fixed in training, as weights with folded batch norm need",
    )
    resize_short_side: int = setting(256, minimum=8, help="pixels; a photo's short side before the crop")
    image_size: int = setting(224, minimum=8, help="pixels; side of the square that the network sees")
    interpolation: Interpolation = setting("bilinear", help="of the resizing")

    def check(self, key: str) -> None:
        """Raise SettingsError where fields do not fit each other."""
        if self.resize_short_side < self.image_size:
            raise SettingsError(
                f"{key}.resize_short_side must be at least image_size ({self.image_size}), "
                f"got {self.resize_short_side}"
            )
        named = self.weights in ("none", "registry") or self.weights.startswith(RECIPE)
        if not named and not self.weights.endswith(".safetensors"):
            raise SettingsError(
                f"{key}.weights must be none, registry, recipe:NAME or a path that ends in .safetensors (no pickle is "
                f"read); got {self.weights!r}"
            )
