"""The preprocessing of panoramas, of which a limited field of view is used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import Augmentation
from geoloc.settings import Number, setting


class PanoramaPreprocess(Preprocess):
    """As Preprocess, for panoramas of 360 degrees that are centred on their heading: the middle `field_of_view` degrees
    are squeezed to a square first, so that no crop decides how much of the horizon is seen."""

    field_of_view: Number = setting(360.0, minimum=1.0, maximum=360.0)

    def apply_uint8(self, photo: NDArray[np.uint8], crop: str = "centre") -> NDArray[np.uint8]:
        """As Preprocess.apply_uint8."""
        return super().apply_uint8(self._seen(photo), crop)

    def augment_uint8(
        self, photo: NDArray[np.uint8], augmentation: Augmentation, *, seed: int, epoch: int, index: int
    ) -> NDArray[np.uint8]:
        """As Preprocess.augment_uint8."""
        return super().augment_uint8(self._seen(photo), augmentation, seed=seed, epoch=epoch, index=index)

    def _seen(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = photo.shape[:2]
        kept = max(1, round(width * self.field_of_view / 360))
        left, side = (width - kept) // 2, self.resize_short_side
        box = (left, 0, left + kept, height)
        return np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.BILINEAR, box=box))
