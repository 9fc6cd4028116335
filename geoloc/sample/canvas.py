"""A canvas with a depth buffer: each pixel keeps the nearest thing drawn there, and its label."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SKY, GROUND, HOUSE, TREE, MONUMENT, SIGN, TOWER, RIDGE = range(8)
"""Kinds of things. A label is 100,000 x kind + the thing's number within its kind."""


class Canvas:
    """Colour (index into a palette), shade (256 is 1.0), depth (metres ahead) and label of each pixel.

    Colours are looked up once, at the end, so that drawing only writes four small numbers per pixel.
    """

    def __init__(self, height: int, width: int) -> None:
        self.colour = np.zeros((height, width), np.int16)
        self.shade = np.full((height, width), 256, np.int16)
        self.depth = np.full((height, width), np.inf)
        self.label = np.zeros((height, width), np.int32)
        self._palette: list[tuple[int, int, int]] = []
        self._shining: list[bool] = []

    def add(self, colour: ArrayLike, shining: bool = False) -> int:
        """Add a colour to the palette and return its index. A shining colour is not dimmed at night."""
        red, green, blue = np.asarray(colour).tolist()
        self._palette.append((int(red), int(green), int(blue)))
        self._shining.append(shining)
        return len(self._palette) - 1

    def draw(
        self,
        top: int,
        left: int,
        inside: NDArray[np.bool_],
        colour: NDArray[np.int16] | int,
        shade: NDArray[np.int16] | int,
        depth: NDArray[np.float64] | float,
        label: int,
    ) -> None:
        """Draw a patch [h, w] with its upper left pixel at (top, left), where `inside` holds and nothing is nearer."""
        height, width = inside.shape
        at = (slice(top, top + height), slice(left, left + width))
        seen = inside & (depth < self.depth[at])
        np.copyto(self.colour[at], np.int16(colour) if isinstance(colour, int) else colour, where=seen)
        np.copyto(self.shade[at], np.int16(shade) if isinstance(shade, int) else shade, where=seen)
        np.copyto(self.depth[at], depth, where=seen)
        np.copyto(self.label[at], np.int32(label), where=seen)

    def lit(self, light: NDArray[np.int32]) -> NDArray[np.int32]:
        """Returns the colours under a light (three factors, 256 is 1.0), int32 [height, width, 3], not clipped."""
        palette = np.array(self._palette, np.int32)
        lit = np.where(np.array(self._shining)[:, None], palette, palette * light >> 8)
        return np.asarray(lit[self.colour] * self.shade[:, :, None].astype(np.int32) >> 8)
