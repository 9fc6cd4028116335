"""Training photos of metric learning, and which pairs of them are positives or negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.losses.relations import Relations
from geoloc.partitions.base import Partition
from geoloc.sphere import EARTH_RADIUS_KM, unit_vectors
from geoloc.training.metric_settings import PositivesSettings
from geoloc.training.photo_data import LabelledPhotos, label
from geoloc.training.source import TrainingError

NEAR_DUPLICATES = "near_duplicates"
"""Optional column: the group of near-duplicates (photos.duplicates.near_duplicate_groups) of a photo."""
_COLUMNS = ("photo_id", "shard", "offset", "length", "latitude", "longitude", "photographer")


@dataclass(frozen=True)
class MetricPhotos:
    """N photos: `labelled`, with cells int64 (N, 1); `photographer` and `copy` int64 (N,), equal for photos by one
    photographer and for near-duplicates; `place` float64 (N, 3), unit vectors."""

    labelled: LabelledPhotos
    photographer: NDArray[np.int64]
    copy: NDArray[np.int64]
    place: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labelled)

    @property
    def cell(self) -> NDArray[np.int64]:
        """The cell of each photo, int64 (N,); -1 for none, and for all if cells do not count."""
        return self.labelled.cells[:, 0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that training uses of the photos, in order."""
        return sha256_bytes(
            self.labelled.fingerprint.encode() + self.photographer.tobytes() + self.copy.tobytes()
        )

    def only(self, kept: NDArray[np.bool_]) -> MetricPhotos:
        """The photos for which `kept` is true."""
        return MetricPhotos(
            self.labelled.only(kept), self.photographer[kept], self.copy[kept], self.place[kept]
        )

    def related(
        self, anchors: NDArray[np.int64], others: NDArray[np.int64], settings: PositivesSettings
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The pairs of photos that are positives and those that are negatives, bool (A, O) each; `anchors` and `others`
        are positions.

        With closest_in_radius, all photos within the radius are positives here: which of them are the closest is up to
        their embeddings.
        """
        if settings.kind == "cell":
            cell = self.cell[anchors, None]
            positive = (cell == self.cell[others]) & (cell >= 0)
        else:
            positive = self._squared_chords(anchors, others) <= _squared_chord(settings.radius_km)
        negative = ~positive
        if settings.negative_km:
            negative &= self._squared_chords(anchors, others) >= _squared_chord(settings.negative_km)
        distinct = self.copy[anchors, None] != self.copy[others]
        if settings.other_photographers:
            positive &= self.photographer[anchors, None] != self.photographer[others]
        return positive & distinct, negative & distinct

    def _squared_chords(self, anchors: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        """Squared straight distances on the unit sphere (A, O); exact to a decimetre."""
        squared: NDArray[np.float64] = 2 - 2 * self.place[anchors] @ self.place[others].T
        return squared

    def relations(self, positions: NDArray[np.int64], settings: PositivesSettings) -> Relations:
        """The relations of a batch, the photos at `positions`."""
        positive, negative = self.related(positions, positions, settings)
        return Relations(torch.from_numpy(positive), torch.from_numpy(negative))


def _squared_chord(km: float) -> float:
    """The squared straight distance of two points of the unit sphere that are `km` apart on the Earth."""
    return float(4 * np.sin(min(km / EARTH_RADIUS_KM, np.pi) / 2) ** 2)


def metric_photos(
    frame: pd.DataFrame, partitions: Mapping[str, Partition], settings: PositivesSettings, name: str
) -> MetricPhotos:
    """Photos of `frame` (columns of photo_data.label, and photographer) for metric learning.

    A photo without a photographer counts as by one of its own. Near-duplicates are photos with one value in the column
    near_duplicates; without that column, or where it is null, those with equal sha256. Raises TrainingError for missing
    columns or an unknown partition.
    """
    rows = frame.reset_index(drop=True)
    absent = [column for column in _COLUMNS if column not in rows.columns]
    if absent:
        raise TrainingError(f"the {name} photos need the columns {', '.join(absent)}")
    if settings.kind == "cell":
        wanted = settings.partition or next(iter(partitions), "none")
        if wanted not in partitions:
            raise TrainingError(
                f"metric.positives.partition must be one of {', '.join(partitions) or '(none)'}; got {wanted}"
            )
        labelled = label(rows, {wanted: partitions[wanted]}, name)
    else:
        labelled = LabelledPhotos(rows, np.full((len(rows), 1), -1, dtype=np.int64))
    copies = pd.Series([None] * len(rows), dtype=object)
    for column in ("sha256", NEAR_DUPLICATES):
        if column in rows.columns:
            copies = (column + ":" + rows[column].astype("string")).astype(object).fillna(copies)
    return MetricPhotos(
        labelled,
        _codes(rows["photographer"]),
        _codes(copies),
        unit_vectors(rows["latitude"], rows["longitude"]),
    )


def _codes(values: pd.Series) -> NDArray[np.int64]:
    """A number for each value; each null has one of its own."""
    codes, known = pd.factorize(values)
    alone = codes < 0
    codes = codes.astype(np.int64)
    codes[alone] = len(known) + np.arange(alone.sum())
    return codes
