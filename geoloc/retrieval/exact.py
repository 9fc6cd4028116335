"""The true k nearest of a whole database by torch: on a GPU the fastest exact search, anywhere the truth to measure by.

Similarities are float32 inner products; nothing is rounded to 16 bits, also where vectors are stored so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

_BLOCK_CELLS = 1 << 26  # similarities of one step: 256 MB
_QUERIES = 4_096


class ExactSearch:
    """Vectors [N, D], float16 or float32, searched in whole on a device ("cpu", "cuda", ...).

    They stay where they are, so on another device than the processor they are copied there once.
    """

    def __init__(self, vectors: NDArray[Any] | torch.Tensor, device: str = "cpu") -> None:
        if vectors.ndim != 2 or not len(vectors):
            raise ValueError(f"vectors must have shape (N, D) with N at least 1, got {tuple(vectors.shape)}")
        if isinstance(vectors, np.ndarray):
            vectors = torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())
        made = vectors
        self._vectors, self.device = made.to(device), device

    def search(
        self, queries: ArrayLike, k: int, among: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows and similarities [Q, min(k, N)] of the k nearest to each query [Q, D], most similar first.

        `among` [N] limits them to some rows; where it leaves fewer than k, the rest is -1 and NaN. Of equally similar
        ones at the end of the list, any may be in it.
        """
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        if asked.ndim != 2 or asked.shape[1] != self._vectors.shape[1]:
            raise ValueError(f"queries must have shape (Q, {self._vectors.shape[1]}), got {asked.shape}")
        parts = [
            self._search(torch.as_tensor(asked[start : start + _QUERIES]).to(self.device), k, among)
            for start in range(0, len(asked), _QUERIES)
        ]
        if not parts:
            width = min(k, len(self._vectors))
            return np.empty((0, width), np.int64), np.empty((0, width), np.float32)
        rows, similarity = (np.concatenate(values) for values in zip(*parts, strict=True))
        none = np.isneginf(similarity)
        return np.where(none, -1, rows), np.where(none, np.float32(np.nan), similarity)

    def _search(
        self, queries: torch.Tensor, k: int, among: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        k = min(k, len(self._vectors))
        hidden = None if among is None else torch.as_tensor(~among).to(self.device)
        best = torch.full((len(queries), 0), -torch.inf, device=self.device)
        rows = torch.zeros((len(queries), 0), dtype=torch.int64, device=self.device)
        step = max(1, _BLOCK_CELLS // max(1, len(queries)))
        for start in range(0, len(self._vectors), step):
            block = self._vectors[start : start + step].float()
            similar = queries @ block.T
            if hidden is not None:
                similar[:, hidden[start : start + step]] = -torch.inf
            found, place = similar.topk(min(k, len(block)), dim=1)
            both, where = torch.cat([best, found], dim=1), torch.cat([rows, place + start], dim=1)
            # Stable, so that of equal ones the earlier row comes first.
            best, order = both.sort(dim=1, descending=True, stable=True)
            best, rows = best[:, :k], where.gather(1, order)[:, :k]
        return rows.cpu().numpy(), best.cpu().numpy()
