"""Settings of networks and of how photos enter them. No heavy imports: the command line reads these."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.settings import SettingsError, setting

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "minus_one_to_one": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of RGB in [0, 1]; minus_one_to_one is x / 127.5 - 1, as TensorFlow models want."""

RECIPE = "recipe:"
"""What `weights` starts with where it names a recipe whose trained backbone is taken."""

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training photo, a function of (seed, epoch, photo index) alone."""

    minimum_area: float = setting(
        0.35, minimum=0.01, maximum=1.0, help="a random crop covers this share to all of the photo"
    )
    maximum_aspect: float = setting(4 / 3, minimum=1.0, help="aspect of the crop, and 1 / it; 1: square")
    flip: bool = setting(True, help="mirror every other photo left to right")


@dataclass(frozen=True)
class ModelSettings:
    """A network over cells: backbone, pooling, where its weights start, and the photo that it takes."""

    backbone: str = setting(
        "mobilenet_v2", help="a torchvision classification network, or timm/NAME for one of timm's"
    )
    pooling: str = setting("average", choices=("average", "max", "gem"), help="of the last feature map")
    gem_power: float = setting(3.0, minimum=1.0, help="where GeM's learnt power starts; 1 is the average")
    dropout: float = setting(0.0, minimum=0.0, maximum=0.95, help="of the pooled features, in training")
    softmax: str = setting(
        "flat",
        choices=("flat", "hierarchical"),
        help="hierarchical: of nested partitions, the finest first, a cell's probability is a share of its parent's",
    )
    weights: str = setting(
        "none",
        help="none (random), registry (torchvision's or timm's own), recipe:NAME (the backbone of the classifier that "
        "was built by that recipe) or a path to a .safetensors file",
    )
    normalisation: str = setting(
        "auto",
        choices=("auto", *NORMALISATIONS),
        help="auto: what the registry says of its weights, imagenet otherwise",
    )
    padding: str = setting(
        "torch",
        choices=("torch", "tensorflow_same"),
        help="of strided convolutions: as built, or TensorFlow's SAME, which weights from TensorFlow need",
    )
    batch_norm: str = setting(
        "train",
        choices=("train", "eval"),
        help="eval keeps running statistics fixed in training, as weights with folded batch norm need",
    )
    resize_short_side: int = setting(256, minimum=8, help="pixels; a photo's short side before the crop")
    image_size: int = setting(224, minimum=8, help="pixels; side of the square that the network sees")
    interpolation: str = setting("bilinear", choices=INTERPOLATIONS)

    def validate(self, key: str) -> None:
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
