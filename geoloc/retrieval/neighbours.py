"""The result of a search (Neighbours), and the stable integer ids of references."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEFT_OUT = (
    "the query's photographer",
    "the query itself",
    "its near-duplicates",
    "references outside the subset",
)
"""What a search can leave out, in words."""


@dataclass(frozen=True)
class Neighbours:
    """The references nearest to Q queries, most similar first. Missing ones (fewer than k) have row and id -1,
    similarity and coordinates NaN. Do not index with -1."""

    row: NDArray[np.int64]  # [Q, k] row in the index's `references`
    id: NDArray[np.int64]  # [Q, k] the index's id of the reference: `stable_ids` of its photo_id
    similarity: NDArray[np.float32]  # [Q, k] inner product of L2-normalised vectors
    latitude: NDArray[np.float64]  # [Q, k] degrees
    longitude: NDArray[np.float64]  # [Q, k]
    reference_photo_ids: NDArray[np.object_] = field(repr=False)  # [R] photo_id of each row, shared
    left_out: tuple[str, ...] = ()  # what the search left out: words of LEFT_OUT; empty if nothing

    def __len__(self) -> int:
        return len(self.row)

    def photo_ids(self, count: int | None = None) -> NDArray[np.object_]:
        """Returns the photo_id of the first `count` neighbours (default all), [Q, count]; None for a missing one."""
        row = self.row[:, :count]
        found = np.full(row.shape, None, dtype=object)
        found[row >= 0] = self.reference_photo_ids[row[row >= 0]]
        return found

    def take(self, queries: ArrayLike) -> Neighbours:
        """Returns the neighbours of some queries, by position or mask."""
        q = np.asarray(queries)
        return Neighbours(
            self.row[q], self.id[q], self.similarity[q], self.latitude[q], self.longitude[q],
            self.reference_photo_ids, self.left_out,
        )  # fmt: skip


def stable_ids(photo_ids: Sequence[str] | NDArray[np.object_]) -> NDArray[np.int64]:
    """Returns a 63-bit id for each photo id, int64 >= 0: BLAKE2b of the UTF-8 text, equal in every process and index.

    Among a million photos two share an id with probability 5e-8; the index checks and refuses that.
    """
    digests = b"".join(hashlib.blake2b(str(p).encode(), digest_size=8).digest() for p in photo_ids)
    return (np.frombuffer(digests, dtype="<u8") & np.uint64(2**63 - 1)).astype(np.int64)
