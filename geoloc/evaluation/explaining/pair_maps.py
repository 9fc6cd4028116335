"""Where a cross-view network looks: spatial attention, and the importance of each part, for a photo and its own tile
(dissertation, figures 3.17 and 3.18).

Attention is the length of the last feature map's vector at each place: the part of the place in the pooled feature.
Importance is how much farther the photo is from its tile while a window covers the part of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional

from geoloc.evaluation.explaining.occlusion import map_of_windows
from geoloc.models.cross_view import PHOTO, TILE, CrossViewNetwork
from geoloc.models.embedder import Embedder
from geoloc.models.tiles import seen_tiles
from geoloc.training.cross_view_pairs import PairSource

PHOTO_VIEW, TILE_VIEW = "photo", "tile"
ATTENTION, IMPORTANCE = "attention", "importance"
COLUMNS = {
    "pair_id": "str", "view": "str", "map": "str", "row": "int64", "column": "int64", "value": "float64",
    "distance": "float64", "up": "float64", "seen": "float64",
}  # fmt: skip
SIDE = 24
"""Importance, and attention on polar tiles, are maps of this many values each way."""
_WINDOWS = 4
"""A window is this part of a side and moves by half of itself. The dissertation does not give its size."""
_AT_ONCE = 64


def maps_of_pairs(source: PairSource, positions: NDArray[np.int64]) -> pd.DataFrame:
    """The maps of the pairs at some positions, a row a value (COLUMNS); none of a pair that cannot be read.

    Photos are the network's square crop, `seen` of their short side (NaN: of a panorama). Tiles have the bearing `up`
    at the top: the photo's heading, or north if that is unknown. `distance` is the squared distance of the pair with
    nothing covered. The network is of kind embedding.
    """
    model = source.model
    panorama = model.shape.field_of_view is not None
    seen = np.nan if panorama else model.preprocess.image_size / model.preprocess.resize_short_side
    was_training = model.training
    model.eval()
    parts = []
    try:
        with torch.inference_mode():
            for at in positions.tolist():
                images = _images(source, at)
                if images is None:
                    continue
                up = float(np.nan_to_num(source.pairs.heading[at]))
                distance, maps = _maps_of(model, *images, up)
                parts += [
                    _rows(values).assign(
                        pair_id=source.pairs.rows["pair_id"].iloc[at], view=view, map=kind,
                        distance=distance, up=up, seen=seen,
                    )
                    for (view, kind), values in maps.items()
                ]  # fmt: skip
    finally:
        model.train(was_training)
    empty = pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts or [empty], ignore_index=True)[list(COLUMNS)].astype(COLUMNS)


def map_of_rows(rows: pd.DataFrame) -> NDArray[np.float64]:
    """The values of one map, float64 [h, w], from its rows."""
    return rows.pivot(index="row", columns="column", values="value").to_numpy(np.float64)


def _images(source: PairSource, at: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The normalised photo and tile [1, 3, S, S] of a pair, north up; None if one cannot be read."""
    model, found = source.model, []
    device = next(model.parameters()).device
    for batches in (source.photos(np.array([at]), 1, 0), source.tiles(np.array([at]), 1)):
        (batch,) = batches
        if not len(batch.row_indices):
            return None
        found.append(model.preprocess.normalise(batch.images.to(device)))
    return found[0], found[1]


def _maps_of(
    model: CrossViewNetwork, photo: torch.Tensor, tile: torch.Tensor, up: float
) -> tuple[float, dict[tuple[str, str], NDArray[np.float64]]]:
    """The squared distance of a pair, and its maps by view and kind."""
    polar = model.shape.polar
    tile = seen_tiles(tile, torch.tensor([up], device=tile.device))

    def embed_tiles(turned: torch.Tensor) -> torch.Tensor:
        none = torch.zeros(len(turned), device=turned.device)
        return model.embed_seen(seen_tiles(turned, none, polar=True) if polar else turned)

    of_photo, photo_map = _with_attention(model, PHOTO, lambda: model.photos(photo))
    of_tile, tile_map = _with_attention(model, TILE, lambda: embed_tiles(tile))
    whole = float((of_photo - of_tile).square().sum())
    return whole, {
        (PHOTO_VIEW, ATTENTION): photo_map,
        (TILE_VIEW, ATTENTION): _on_the_tile(tile_map) if polar else tile_map,
        (PHOTO_VIEW, IMPORTANCE): _importance(photo, model.photos, of_tile, whole),
        (TILE_VIEW, IMPORTANCE): _importance(tile, embed_tiles, of_photo, whole),
    }


def _with_attention(
    model: CrossViewNetwork, view: int, embed: Callable[[], torch.Tensor]
) -> tuple[torch.Tensor, NDArray[np.float64]]:
    """The embedding [1, D], and the length of the last feature map's vectors, float64 [h, w], in the pass that makes
    it."""
    kept: list[torch.Tensor] = []
    tower = model.towers[min(view, len(model.towers) - 1)]
    assert isinstance(tower, Embedder)
    hook = tower.backbone.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        embedded = embed()
    finally:
        hook.remove()
    lengths = torch.linalg.vector_norm(kept[-1][0].double(), dim=0)
    return embedded, lengths.cpu().numpy()


def _on_the_tile(polar: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map of a polar tile [h, w] as a map of the tile, float64 [SIDE, SIDE]; NaN outside of its circle."""
    steps = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    east, south = np.meshgrid(steps, steps)
    radius, bearing = np.hypot(east, south), np.arctan2(east, -south)
    row = np.clip(((1 - radius) * polar.shape[0]).astype(np.int64), 0, polar.shape[0] - 1)
    column = np.clip(((bearing / np.pi + 1) / 2 * polar.shape[1]).astype(np.int64), 0, polar.shape[1] - 1)
    return np.where(radius <= 1, polar[row, column], np.nan)


def _importance(
    image: torch.Tensor, embed: Callable[[torch.Tensor], torch.Tensor], other: torch.Tensor, whole: float
) -> NDArray[np.float64]:
    """How much the squared distance to `other` [1, D] grows while a window of the mean colour covers a part of an image
    [1, 3, S, S]: at each pixel the mean over all windows that cover it, in SIDE x SIDE values."""
    size = image.shape[-1]
    window = max(1, size // _WINDOWS)
    places = np.unique(np.append(np.arange(0, size - window + 1, max(1, window // 2)), size - window))
    apart = [(embed(some) - other).square().sum(dim=1) for some in _covered(image, places, window)]
    grid = torch.cat(apart).double().cpu().numpy() - whole
    pixels = map_of_windows(0, 0.0, window, size, places, grid).pixels
    return functional.adaptive_avg_pool2d(torch.from_numpy(pixels)[None], SIDE)[0].numpy()


def _covered(image: torch.Tensor, places: NDArray[np.int64], window: int) -> Iterator[torch.Tensor]:
    """The image [B, 3, S, S] with a window at each place, row by row, in batches."""
    corners = [(top, left) for top in places.tolist() for left in places.tolist()]
    for start in range(0, len(corners), _AT_ONCE):
        some = corners[start : start + _AT_ONCE]
        images = image.repeat(len(some), 1, 1, 1)
        for one, (top, left) in zip(images, some, strict=True):
            one[:, top : top + window, left : left + window] = 0
        yield images


def _rows(values: NDArray[np.float64]) -> pd.DataFrame:
    row, column = np.indices(values.shape)
    # Rounded, so that the order of a sum does not decide the bytes.
    return pd.DataFrame({"row": row.ravel(), "column": column.ravel(), "value": values.ravel().round(6)})
