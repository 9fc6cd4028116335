"""Averages over albums or people: every photo gets the mean of the confidences of all (PlaNet, section 4, "PlaNet avg";
Multi-modal Geolocation, section 3.3, "User-Averaging")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.photos.sequences import Sequences


def averaged(probabilities: NDArray[Any], sequences: Sequences) -> NDArray[np.float32]:
    """Returns the mean of the probabilities of each photo's sequence, float32 [N, C], for each of N photos.

    `probabilities` float [N, C] are those of single photos, of the rows that `sequences` numbers. A photo that could
    not be read (a row with a NaN) stays NaN, and counts in no mean. Raises ValueError for another number of photos.
    """
    p = np.asarray(probabilities)
    check_rows(p, sequences)
    means = np.full(p.shape, np.nan, dtype=np.float32)
    unread = np.isnan(p).any(axis=1)
    for number in range(len(sequences)):
        rows = sequences.of(number)
        rows = rows[~unread[rows]]
        if len(rows):
            means[rows] = p[rows].mean(axis=0, dtype=np.float64)
    return means


def check_rows(probabilities: NDArray[Any], sequences: Sequences) -> None:
    """Raise ValueError where probabilities are not one row for each photo of the sequences."""
    if probabilities.ndim != 2 or len(probabilities) != len(sequences.rows):
        raise ValueError(
            f"probabilities must have a row for each of {len(sequences.rows)} photos of the sequences, "
            f"got {probabilities.shape}"
        )
