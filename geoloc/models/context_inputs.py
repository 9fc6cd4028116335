"""What models of time, albums and people see of N photos: stored embeddings, or the most probable cells and the time.

Nothing here reads a pixel. Inputs of a batch are made from compact arrays, so a million photos need no table of
photos × cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.posting_time import time_features


class ContextInputs(Protocol):
    """Inputs of N photos, each a vector of `size` numbers; `readable` bool (N,) says which photos have one."""

    @property
    def size(self) -> int: ...

    @property
    def readable(self) -> NDArray[np.bool_]: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all inputs, in order."""
        ...

    def rows(self, photos: NDArray[np.int64]) -> torch.Tensor:
        """The vectors of some photos, float32 [P, size]."""
        ...


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Stored embeddings, float16 or float32 (N, D), which may be memory-mapped; a row with a NaN is no photo."""

    vectors: NDArray[Any]

    @property
    def size(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def readable(self) -> NDArray[np.bool_]:
        return np.isfinite(self.vectors).all(axis=1)

    @property
    def fingerprint(self) -> str:
        return sha256_bytes(np.ascontiguousarray(self.vectors).tobytes())

    def rows(self, photos: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.vectors[photos], dtype=np.float32))


@dataclass(frozen=True, eq=False)
class TopCells:
    """Multi-modal Geolocation, section 3.2: of C cells the most probable ones, renormalised, their sum before that, and
    the time of posting: (p1, |p0|, T), cells + 4 numbers a photo.

    `cell` int32 (N, K), `share` float32 (N, K), which sum to 1; `mass` float32 (N,), the sum; `time` float32 (N, 3). A
    photo that could not be read, or has no time, has a NaN in mass or time.
    """

    cells: int
    cell: NDArray[np.int32]
    share: NDArray[np.float32]
    mass: NDArray[np.float32]
    time: NDArray[np.float32]

    @property
    def size(self) -> int:
        return self.cells + 4

    @property
    def readable(self) -> NDArray[np.bool_]:
        return np.isfinite(self.mass) & np.isfinite(self.time).all(axis=1)

    @property
    def fingerprint(self) -> str:
        arrays = (self.cell, self.share, self.mass, self.time)
        return sha256_bytes(b"".join(array.tobytes() for array in arrays) + str(self.cells).encode())

    def rows(self, photos: NDArray[np.int64]) -> torch.Tensor:
        found = torch.zeros((len(photos), self.size))
        found.scatter_(
            1, torch.from_numpy(self.cell[photos].astype(np.int64)), torch.from_numpy(self.share[photos])
        )
        found[:, self.cells] = torch.from_numpy(self.mass[photos])
        found[:, self.cells + 1 :] = torch.from_numpy(self.time[photos])
        return found


def top_cells(probabilities: NDArray[Any], posted_at: pd.Series, count: int = 10) -> TopCells:
    """The `count` most probable cells of N photos from probabilities, float [N, C], and their times of posting (N,).

    Raises ValueError for another number of times.
    """
    p = np.asarray(probabilities, dtype=np.float32)
    if len(posted_at) != len(p):
        raise ValueError(f"posted_at must have a time for each of {len(p)} photos, got {len(posted_at)}")
    unread = np.asarray(np.isnan(p).any(axis=1))
    p = np.where(unread[:, None], 0, p)
    count = min(count, p.shape[1])
    cell = np.argpartition(-p, count - 1, axis=1)[:, :count]
    cell.sort(axis=1)
    values = np.take_along_axis(p, cell, axis=1)
    mass = values.sum(axis=1)
    share = np.divide(values, mass[:, None], out=np.zeros_like(values), where=mass[:, None] > 0)
    return TopCells(
        p.shape[1],
        cell.astype(np.int32),
        share,
        np.where(unread, np.nan, mass).astype(np.float32),
        time_features(posted_at),
    )
