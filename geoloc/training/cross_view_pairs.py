"""Pairs of a street photo and an overhead tile for training: the table, its batches, and which pairs are negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.losses.relations import Relations
from geoloc.models.batches import Batch, iter_batches
from geoloc.models.cross_view import CrossViewNetwork
from geoloc.models.settings import Augmentation
from geoloc.photos.shards import ShardReader
from geoloc.sphere import EARTH_RADIUS_KM, unit_vectors
from geoloc.training.source import Inputs, TrainingError

Pool = Path | str | ShardReader
COLUMNS = ("pair_id", "photo_id", "overhead_id", "tile_latitude", "tile_longitude", "heading")
STORED = ("shard", "offset", "length")


@dataclass(frozen=True)
class CrossViewPairs:
    """N pairs: `rows` (COLUMNS), `photos` and `tiles` (STORED, sha256 if known) in the same order, `heading` float64
    (N,) in degrees (NaN: unknown), `place` float64 (N, 3), unit vectors of the tiles' centres, and `photo` and `tile`
    int64 (N,), equal where two pairs have the same image."""

    rows: pd.DataFrame
    photos: pd.DataFrame
    tiles: pd.DataFrame
    heading: NDArray[np.float64]
    place: NDArray[np.float64]
    photo: NDArray[np.int64]
    tile: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: NDArray[np.int64]) -> CrossViewPairs:
        """The pairs at these positions."""
        rows, photos, tiles = (
            one.iloc[kept].reset_index(drop=True) for one in (self.rows, self.photos, self.tiles)
        )
        return CrossViewPairs(
            rows,
            photos,
            tiles,
            self.heading[kept],
            self.place[kept],
            self.photo[kept],
            self.tile[kept],
        )

    @property
    def without_heading(self) -> int:
        """The number of pairs whose heading is unknown."""
        return int(np.isnan(self.heading).sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that training uses of the pairs, in order."""
        parts = [self.rows[list(COLUMNS)], self.photos, self.tiles]
        hashes = [pd.util.hash_pandas_object(part.astype("str"), index=False).to_numpy() for part in parts]
        return sha256_bytes(b"".join(one.tobytes() for one in hashes))

    def related(
        self, anchors: NDArray[np.int64], others: NDArray[np.int64], negative_km: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether the photos of pairs `anchors` match the tiles of pairs `others`, and whether they are negatives of
        each other, bool (A, O) each. A tile nearer than `negative_km` to the photo's own is neither."""
        same = self.tile[anchors, None] == self.tile[others]
        same |= self.photo[anchors, None] == self.photo[others]
        squared = np.maximum(2 - 2 * self.place[anchors] @ self.place[others].T, 0)
        limit = 4 * np.sin(min(negative_km / EARTH_RADIUS_KM, np.pi) / 2) ** 2
        return same, ~same & (squared >= limit)

    def relations(self, positions: NDArray[np.int64], negative_km: float, negatives: str) -> Relations:
        """The relations of a batch of B pairs at `positions`, for its photos and then its tiles, [2B, 2B].

        Only photos and tiles are compared. With `negatives` all, both views are anchors; with one, only photos are,
        each with one random negative, drawn by torch's generator.
        """
        count = len(positions)
        same, far = (torch.from_numpy(one) for one in self.related(positions, positions, negative_km))
        positive, negative = (torch.zeros((2 * count, 2 * count), dtype=torch.bool) for _ in range(2))
        if negatives == "one":
            drawn = torch.rand(count, count).masked_fill(~far, -1).argmax(dim=1)
            one = torch.zeros_like(far).scatter_(1, drawn[:, None], True) & far
            positive[:count, count:], negative[:count, count:] = torch.eye(count, dtype=torch.bool), one
            return Relations(positive, negative)
        positive[:count, count:], positive[count:, :count] = same, same.T
        negative[:count, count:], negative[count:, :count] = far, far.T
        return Relations(positive, negative)

    def unmatched(self, negative_km: float, seed: int) -> NDArray[np.int64]:
        """For each photo the position of one random tile that does not match it, int64 (N,); -1 if there is none."""
        numbers = np.random.default_rng(seed)
        found = np.full(len(self), -1, dtype=np.int64)
        for pair in range(len(self)):
            # Few are too near: a handful of draws nearly always has one.
            for tried in (numbers.integers(len(self), size=8), numbers.permutation(len(self))):
                good = self.related(np.array([pair]), tried, negative_km)[1][0]
                if good.any():
                    found[pair] = tried[good.argmax()]
                    break
        return found


def cross_view_pairs(
    pairs: pd.DataFrame, photos: pd.DataFrame, tiles: pd.DataFrame, name: str
) -> CrossViewPairs:
    """The pairs of a table (COLUMNS) whose images are in `photos` and `tiles` (photo_id and STORED).

    Raises TrainingError for missing columns, or an image that its table lacks.
    """
    rows = pairs.reset_index(drop=True)
    absent = [column for column in COLUMNS if column not in rows.columns]
    if absent:
        raise TrainingError(f"the {name} pairs need the columns {', '.join(absent)}")
    stored = []
    for which, table, key in (("photo", photos, "photo_id"), ("tile", tiles, "overhead_id")):
        kept = [*STORED, *(["sha256"] if "sha256" in table.columns else [])]
        found = table.drop_duplicates("photo_id").set_index("photo_id")[kept].reindex(rows[key])
        if found["shard"].isna().any():
            lost = rows.loc[found["shard"].isna().to_numpy(), key].iloc[0]
            raise TrainingError(
                f"the {name} pairs need their images: {which} {lost} is not stored in the pool"
            )
        stored.append(found.reset_index(drop=True))
    photo, tile = (pd.factorize(rows[key])[0].astype(np.int64) for key in ("photo_id", "overhead_id"))
    return CrossViewPairs(
        rows,
        stored[0],
        stored[1],
        rows["heading"].to_numpy(dtype=np.float64, na_value=np.nan),
        unit_vectors(rows["tile_latitude"], rows["tile_longitude"]),
        photo,
        tile,
    )


@dataclass(frozen=True)
class PairSource:
    """Batches of pairs, decoded on demand. Tensors: photos and tiles uint8 [B, 3, S, S], the bearing at the top of each
    tile float32 [B] (degrees), its scale float32 [B], and the angle from there to where the photo looks float32 [B]
    (radians; NaN: unknown).

    With `rotation_range` tiles are turned at random around the photo's heading, by seed, epoch and position, and scaled
    by up to `jitter`; a tile of unknown heading is turned to any side. None: tiles stay north up.
    """

    pool: Pool
    tile_pool: Pool
    pairs: CrossViewPairs
    model: CrossViewNetwork
    augmentation: Augmentation | None
    rotation_range: int | None
    jitter: float
    seed: int
    workers: int
    channels_last: bool

    def __len__(self) -> int:
        return len(self.pairs)

    def photos(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Batch]:
        """Decoded photos, augmented if the source has an augmentation."""
        preprocess = self.model.photo_preprocess
        return iter_batches(
            self.pool, self.pairs.photos, preprocess, batch_size, self.workers,
            order=order, augmentation=self.augmentation, seed=self.seed, epoch=epoch,
        )  # fmt: skip

    def tiles(self, order: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Decoded tiles, north up."""
        preprocess = self.model.tile_preprocess
        return iter_batches(
            self.tile_pool, self.pairs.tiles, preprocess, batch_size, self.workers, order=order
        )

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """Batches of pairs of which both images are readable."""
        photos = self.photos(order, batch_size, epoch)
        for photo, tile in zip(photos, self.tiles(order, batch_size), strict=True):
            bad = np.union1d(photo.unreadable_indices, tile.unreadable_indices)
            images = []
            for batch in (photo, tile):
                some = batch.images
                if len(bad):
                    some = some[torch.from_numpy(~np.isin(batch.row_indices, bad))]
                images.append(some if self.channels_last else some.contiguous())
            positions = photo.row_indices[~np.isin(photo.row_indices, bad)]
            yield Inputs((*images, *self._turned(positions, epoch)), positions, bad)

    def _turned(self, positions: NDArray[np.int64], epoch: int) -> tuple[torch.Tensor, ...]:
        heading = self.pairs.heading[positions]
        up, scale = np.zeros(len(positions)), np.ones(len(positions))
        if self.rotation_range is not None:
            draws = np.array([_draws(self.seed, epoch, at) for at in positions.tolist()]).reshape(-1, 2)
            unknown = np.isnan(heading)
            turn = (draws[:, 0] - 0.5) * np.where(unknown, 360, self.rotation_range)
            up = np.where(unknown, 0, heading) + turn
            scale = (1 + self.jitter) ** (2 * draws[:, 1] - 1)
        angle = np.radians(heading - up)
        return tuple(torch.from_numpy(one.astype(np.float32)) for one in (up, scale, angle))


def _draws(seed: int, epoch: int, position: int) -> Any:
    """Two numbers in [0, 1) by seed, epoch and position, other than those of augmentation."""
    key = [seed & (2**64 - 1), epoch]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 1, position])).random(2)
