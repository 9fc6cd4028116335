"""Occlusion maps: the probability of a cell while a grey window slides over the photo.

PlaNet, figure 10: "an activation map where the value of each pixel is the classifier's confidence in the ground truth
geolocation if the corresponding part of the image is occluded by a gray box", after Zeiler and Fergus, Visualizing and
Understanding Convolutional Networks, ECCV 2014, section 4.2. Where the probability falls, the covered part spoke
for the cell; where it rises, against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from geoloc.models.batches import Batch
from geoloc.models.prediction import run_network

GREY = 128


@dataclass(frozen=True)
class OcclusionMap:
    """The probability of one cell for each position of the window over a photo of S by S pixels.

    `probability` float64 [R, K] is by the window's top (`tops` [R]) and left (`lefts` [K]), in pixels. `pixels` float64
    [S, S] is the mean over all windows that cover a pixel. `whole` is the probability with nothing covered.
    """

    cell: int
    whole: float
    window: int
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    probability: NDArray[np.float64]
    pixels: NDArray[np.float64]

    def __repr__(self) -> str:
        return (
            f"OcclusionMap(cell {self.cell}: {self.whole:.3f} whole, {self.probability.min():.3f} to "
            f"{self.probability.max():.3f} with a window of {self.window} px at {self.probability.size} places)"
        )


def occlusion_maps(
    model: nn.Module,
    photo: ArrayLike | torch.Tensor,
    cells: Sequence[int],
    window: int,
    stride: int,
    *,
    batch_size: int = 64,
    head: Any = 0,
    temperature: float = 1.0,
) -> list[OcclusionMap]:
    """Slide a grey window over a photo. Returns an occlusion map for each of `cells`, in order.

    - `model` maps uint8 [B, 3, S, S] to scores (logits) [B, C], as Classifier does; if it returns a sequence or mapping
      of scores, `head` selects one.
    - `photo` is uint8 [S, S, 3], as `Preprocess.apply_uint8` returns it.
    - The window is `window` pixels square and moves by `stride`. The last position of a row or column is at the edge,
      so every pixel is covered. `batch_size` windows are run at once.
    - Scores are divided by `temperature`, as for answers (see localizers/confidence/temperature.py).

    The model runs as in models.prediction.run_network. Raises ValueError for a photo that is not uint8
    [S, S, 3], a window larger than the photo, a stride above the window (which would leave gaps), a temperature that is
    not above 0, and an unknown cell.
    """
    pixels = torch.as_tensor(np.array(photo)).permute(2, 0, 1) if np.ndim(photo) == 3 else torch.empty(0)
    if (
        pixels.ndim != 3
        or pixels.dtype != torch.uint8
        or pixels.shape[0] != 3
        or pixels.shape[1] != pixels.shape[2]
    ):
        raise ValueError(
            f"photo must be uint8 of shape (S, S, 3), got {np.asarray(photo).dtype} {np.shape(photo)}"
        )
    size = pixels.shape[1]
    for key, value, most in (("window", window, size), ("stride", stride, window)):
        if not 1 <= value <= most:
            raise ValueError(f"{key} must be from 1 to {most}, got {value}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    places = _places(size, window, stride)
    corners = [(int(top), int(left)) for top in places for left in places]
    found = np.empty((1 + len(corners), len(cells)))
    none = np.empty(0, dtype=np.int64)

    def covered() -> Iterator[Batch]:
        """The photo as it is, then with the window at each place."""
        yield Batch(pixels[None], np.arange(1), none, ())
        for start in range(0, len(corners), batch_size):
            some = corners[start : start + batch_size]
            images = pixels.repeat(len(some), 1, 1, 1)
            for image, (top, left) in zip(images, some, strict=True):
                image[:, top : top + window, left : left + window] = GREY
            yield Batch(images, np.arange(1 + start, 1 + start + len(some)), none, ())

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"probability": _probability(model, images, cells, head, temperature)}

    for batch, outputs in run_network(model, forward, covered()):
        if outputs is not None:
            found[batch.row_indices] = outputs["probability"]
    return [
        map_of_windows(int(cell), float(of_cell[0]), window, size, places, of_cell[1:])
        for cell, of_cell in zip(cells, found.T, strict=True)
    ]


def map_of_windows(
    cell: int, whole: float, window: int, size: int, places: NDArray[np.int64], probability: ArrayLike
) -> OcclusionMap:
    """Returns the map of a photo of `size` pixels from the probabilities of R by R windows, row by row, whose tops and
    lefts are both `places` [R]."""
    grid = np.asarray(probability, dtype=np.float64).reshape(len(places), len(places))
    return OcclusionMap(
        cell, whole, window, places, places, grid, _mean_over_pixels(grid, places, window, size)
    )


def _places(size: int, window: int, stride: int) -> NDArray[np.int64]:
    """Returns where the window starts along one side; the last position is at the edge."""
    return np.unique(np.append(np.arange(0, size - window + 1, stride), size - window)).astype(np.int64)


def _probability(
    model: nn.Module, images: torch.Tensor, cells: Sequence[int], head: Any, temperature: float
) -> torch.Tensor:
    """Probabilities of `cells` for each image, float32 [B, cells]."""
    scores = model(images)
    if not isinstance(scores, torch.Tensor):
        scores = scores[head]
    for cell in cells:
        if not 0 <= cell < scores.shape[1]:
            raise ValueError(f"cell must be from 0 to {scores.shape[1] - 1}, got {cell}")
    return (scores.float() / temperature).softmax(dim=1)[:, list(cells)]


def _mean_over_pixels(
    probability: NDArray[np.float64], places: NDArray[np.int64], window: int, size: int
) -> NDArray[np.float64]:
    """For each pixel the mean over the windows that cover it, from [R, K] to [S, S]."""
    # Which pixels of a side each place covers: the sum over windows is a product of two such tables.
    pixel = np.arange(size)
    covers = ((places[:, None] <= pixel) & (pixel < places[:, None] + window)).astype(np.float64)
    return np.asarray((covers.T @ probability @ covers) / np.outer(covers.sum(axis=0), covers.sum(axis=0)))
