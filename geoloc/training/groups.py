"""Batches of metric learning: groups of photos that are positive to each other, as a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoloc.sphere import EARTH_RADIUS_KM
from geoloc.training.metric_photos import MetricPhotos
from geoloc.training.metric_settings import MetricSettings
from geoloc.training.source import TrainingError

_NEAREST, _AT_ONCE = 16, 65536
"""Photos around a photo that are looked at first for a positive; photos looked up at a time."""


@dataclass(frozen=True)
class Mined:
    """What the embeddings of all N photos tell: `wrong` int64 (N, K), the most similar negatives of each photo, most
    similar first, and `close` int64 (N, C), its most similar positives; -1 where there are fewer."""

    wrong: NDArray[np.int64]
    close: NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Draws the batches of an epoch.

    A group is a random photo and `images_per_group` - 1 of its positives, each by another photographer if there are
    enough. For positives by cell, the cell is drawn first, each equally often (dissertation 5.3.1). No photo is twice
    in a batch. Where a place has fewer photos, its group is smaller and others follow.
    """

    photos: MetricPhotos
    settings: MetricSettings

    def __post_init__(self) -> None:
        if len(self._seeds) < self.settings.batch_size:
            raise TrainingError(
                f"metric.batch_size must be at most {len(self._seeds)}, the number of training photos that have a "
                f"positive; got {self.settings.batch_size}"
            )

    @property
    def without_positive(self) -> int:
        """The number of photos that have no positive."""
        return len(self.photos) - len(self._seeds)

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return self.settings.steps_per_epoch or max(1, len(self._seeds) // self.settings.batch_size)

    def order(self, seed: int, epoch: int, mined: Mined | None = None) -> NDArray[np.int64]:
        """The photos of an epoch (from 1), int64 [steps × batch_size], batch after batch.

        With `mined`, settings.mining.share of the groups are around a hard negative of the photo of an earlier group.
        """
        numbers = np.random.default_rng([seed, epoch])
        return np.concatenate([self._batch(numbers, mined) for _ in range(self.steps)])

    def _batch(self, numbers: np.random.Generator, mined: Mined | None) -> NDArray[np.int64]:
        size, batch = self.settings.batch_size, dict[int, None]()
        mining = self.settings.mining
        share = 0.0 if mined is None or mining is None else mining.share
        owed = 0.0  # groups around hard negatives
        for photo in self._random(numbers):
            self._add_group(photo, batch, numbers, mined)
            owed += share / (1 - share)
            while mined is not None and owed >= 1 and len(batch) < size:
                owed -= 1
                wrong = mined.wrong[photo]
                fresh = [int(one) for one in wrong[wrong >= 0] if int(one) not in batch]
                if fresh:
                    self._add_group(fresh[int(numbers.integers(len(fresh)))], batch, numbers, mined)
            if len(batch) >= size:
                break
        return np.fromiter(batch, dtype=np.int64)[:size]

    def _random(self, numbers: np.random.Generator) -> Iterator[int]:
        """Yields random photos that have a positive, enough to fill a batch."""
        if self.settings.positives.kind == "cell":
            for _ in range(self.settings.batch_size // len(self._seeds_by_cell) + 1):
                for cell in numbers.permutation(len(self._seeds_by_cell)):
                    yield int(numbers.choice(self._seeds_by_cell[cell]))
        yield from map(int, self._seeds[numbers.permutation(len(self._seeds))])

    def _add_group(
        self, photo: int, batch: dict[int, None], numbers: np.random.Generator, mined: Mined | None
    ) -> None:
        """Adds `photo` and positives of it to the batch, `images_per_group` photos that are not there yet."""
        wanted = self.settings.images_per_group
        close = np.empty(0, np.int64)
        if mined is not None and self.settings.positives.kind == "closest_in_radius":
            close = mined.close[photo][mined.close[photo] >= 0]
        near = self._by_photographer(close)[0] if len(close) else self._drawn(photo, numbers)
        for one in [photo, *near.tolist()]:
            if one not in batch:
                batch[one] = None
                wanted -= 1
                if not wanted:
                    return

    def _drawn(self, photo: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Positives of a photo in random order, at least as many as a group needs if it has so many."""
        candidates, enough = self._candidates(photo), self.settings.images_per_group
        few = np.unique(numbers.integers(max(1, len(candidates)), size=4 * enough))
        if 2 * len(few) < len(candidates):  # a large cell: do not look at all of its photos for each group
            near, distinct = self._by_photographer(self._near(photo, numbers.permutation(candidates[few])))
            if distinct >= enough:
                return near
        return self._by_photographer(self._near(photo, numbers.permutation(candidates)))[0]

    def _by_photographer(self, near: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """The photos, the first one by each photographer before the others, and the number of photographers. The photos
        as they are, and their number, if photographers do not matter."""
        if not self.settings.positives.other_photographers:
            return near, len(near)
        _, first = np.unique(self.photos.photographer[near], return_index=True)
        first.sort()
        return np.concatenate([near[first], np.delete(near, first)]), len(first)

    def _near(self, photo: int, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """The candidates that are positives of a photo."""
        return candidates[self.photos.related(np.array([photo]), candidates, self.settings.positives)[0][0]]

    def _candidates(self, photo: int) -> NDArray[np.int64]:
        """The photos of the cell or within the radius, in fixed order."""
        if self.settings.positives.kind == "cell":
            return self._members.get(int(self.photos.cell[photo]), np.empty(0, np.int64))
        found = self._tree.query_ball_point(self.photos.place[photo], self._chord)
        return np.sort(np.asarray(found, dtype=np.int64))

    @cached_property
    def _members(self) -> dict[int, NDArray[np.int64]]:
        """The photos of each cell."""
        return _by_value(self.photos.cell, np.arange(len(self.photos)))

    @cached_property
    def _seeds_by_cell(self) -> list[NDArray[np.int64]]:
        return list(_by_value(self.photos.cell[self._seeds], self._seeds).values())

    @cached_property
    def _seeds(self) -> NDArray[np.int64]:
        """The photos that have a positive."""
        photos, positives = self.photos, self.settings.positives
        if positives.kind == "cell":
            # Photos of the cell, less those by the photographer, less near-duplicates; those that are both count once.
            others = _same(photos.cell) - _same(photos.cell, photos.copy)
            if positives.other_photographers:
                others += _same(photos.cell, photos.copy, photos.photographer)
                others -= _same(photos.cell, photos.photographer)
            return np.flatnonzero((others > 0) & (photos.cell >= 0))
        found = np.zeros(len(photos), dtype=bool)
        for start in range(0, len(photos), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(photos)))
            apart, near = self._tree.query(photos.place[rows], _NEAREST, distance_upper_bound=self._chord)
            within, near = np.isfinite(apart), np.minimum(near, len(photos) - 1)
            valid = within & (photos.copy[near] != photos.copy[rows, None])
            if positives.other_photographers:
                valid &= photos.photographer[near] != photos.photographer[rows, None]
            found[rows] = valid.any(axis=1)
            for photo in rows[~found[rows] & within.all(axis=1)].tolist():  # look beyond the nearest
                found[photo] = len(self._near(photo, self._candidates(photo))) > 0
        return np.flatnonzero(found)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.photos.place)

    @property
    def _chord(self) -> float:
        """The radius as a straight distance on the unit sphere, with slack for rounding."""
        angle = min(self.settings.positives.radius_km / EARTH_RADIUS_KM, np.pi)
        return float(2 * np.sin(angle / 2) * (1 + 1e-9) + 1e-10)


def _by_value(values: NDArray[np.int64], photos: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The photos that have each value (N,), by value, in order; not those with -1."""
    order = np.argsort(values, kind="stable")
    order = order[values[order] >= 0]
    found, starts = np.unique(values[order], return_index=True)
    return dict(zip(found.tolist(), np.split(photos[order], starts[1:]), strict=True)) if len(found) else {}


def _same(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of photos with the same values in all columns (N,), int64 (N,)."""
    _, group, counts = np.unique(np.stack(columns), axis=1, return_inverse=True, return_counts=True)
    return counts[group.reshape(-1)].astype(np.int64)
