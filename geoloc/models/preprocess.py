"""From a decoded photo to the input of a network: resize, crop, augment, normalise; stored with the weights.

Pixels stay uint8 [H, W, 3] until a batch is complete; the batch is converted to float32 at once, on the model's device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoloc.models.settings import Augmentation, Interpolation
from geoloc.settings import Number, Settings, SettingsError, setting

if TYPE_CHECKING:
    import torch

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "minus_one_to_one": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of RGB in [0, 1]; minus_one_to_one is x / 127.5 - 1, which TensorFlow models expect."""

CROPS = ("centre", "top left", "top right", "bottom left", "bottom right")
"""Positions of a crop in the resized photo; five-crop evaluation uses all."""
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocess(Settings):
    """How a photo becomes the input of a network.

    The short side is resized to `resize_short_side` (antialiased; unchanged if it already is), the centre `image_size`
    x `image_size` is cropped, and RGB in [0, 1] is normalised by `mean` and `std`.
    """

    resize_short_side: int = setting(256, minimum=1)
    image_size: int = setting(224, minimum=1)
    mean: tuple[Number, ...] = setting(NORMALISATIONS["imagenet"][0])
    std: tuple[Number, ...] = setting(NORMALISATIONS["imagenet"][1])
    interpolation: Interpolation = setting("bilinear")

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        if self.resize_short_side < self.image_size:
            raise SettingsError(
                f"{key}.resize_short_side must be at least image_size ({self.image_size}), "
                f"got {self.resize_short_side}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise SettingsError(f"{key}.mean and std must be three numbers each, std above 0")

    def resized(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A photo uint8 [H, W, 3] with the short side `resize_short_side`; the photo itself if it has it already.
        `apply_uint8` of the result is that of the photo."""
        height, width = photo.shape[:2]
        short = self.resize_short_side
        if min(height, width) == short:
            return photo
        if height <= width:
            height, width = short, int(short * width / height)
        else:
            height, width = int(short * height / width), short
        return np.asarray(Image.fromarray(photo).resize((width, height), _FILTERS[self.interpolation]))

    def apply_uint8(self, photo: NDArray[np.uint8], crop: str = "centre") -> NDArray[np.uint8]:
        """The centre crop of a photo, or another of CROPS: uint8 [H, W, 3] to uint8 [S, S, 3], S = image_size.

        The long side after resizing and both offsets of the centre are rounded down.
        """
        photo, size = self.resized(photo), self.image_size
        height, width = photo.shape[:2]
        top, left = (height - size) // 2, (width - size) // 2
        if crop != "centre":
            top = 0 if crop.startswith("top") else height - size
            left = 0 if crop.endswith("left") else width - size
        return photo[top : top + size, left : left + size]

    def augment_uint8(
        self, photo: NDArray[np.uint8], augmentation: Augmentation, *, seed: int, epoch: int, index: int
    ) -> NDArray[np.uint8]:
        """A random crop of a photo, possibly mirrored: uint8 [H, W, 3] to uint8 [S, S, 3].

        Area and aspect as in Going deeper with convolutions, section 6 (log-uniform aspect); a crop longer than the
        photo is cut to it. Depends on (seed, epoch, index) only, not on order or threads.
        """
        draws = np.random.Generator(
            np.random.Philox(key=[seed & (2**64 - 1), epoch], counter=[0, 0, 0, index])
        ).random(5)
        height, width = photo.shape[:2]
        area = height * width * (augmentation.minimum_area + (1 - augmentation.minimum_area) * draws[0])
        aspect = math.exp((2 * draws[1] - 1) * math.log(augmentation.maximum_aspect))
        crop_width = min(float(width), max(1.0, math.sqrt(area * aspect)))
        crop_height = min(float(height), max(1.0, math.sqrt(area / aspect)))
        left, top = (width - crop_width) * draws[2], (height - crop_height) * draws[3]
        box = (left, top, min(left + crop_width, width), min(top + crop_height, height))
        size = (self.image_size, self.image_size)
        cut = np.asarray(Image.fromarray(photo).resize(size, _FILTERS[self.interpolation], box=box))
        return cut[:, ::-1] if augmentation.flip and draws[4] < 0.5 else cut

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise a batch uint8 [B, 3, H, W] to float32: (x / 255 - mean) / std, in the batch's memory layout."""
        import torch  # seconds to import, and graphs (models/graph.py) normalise without it

        if images.dtype != torch.uint8:
            raise TypeError(f"normalise takes uint8 images in 0..255, got {images.dtype}")
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device).reshape(shape)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device).reshape(shape)
        # One multiply and one add per pixel: half the memory traffic of the textbook form.
        return images.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)
