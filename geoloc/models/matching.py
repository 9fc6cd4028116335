"""Matching embeddings of street photos with embeddings of rotated overhead tiles: distances, ranks, thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_AT_ONCE, _PHOTOS = 2**24, 1024
"""Distances in memory at a time; photos of a block."""


def bearings(rotations: int) -> NDArray[np.float64]:
    """The bearings at the top of a tile in its rotations, degrees float64 (R,), the first north."""
    return np.asarray(np.arange(rotations) * (360.0 / rotations))


def indexed_rotations(
    tiles: NDArray[np.float32], matching: str, rotation_range: int, unit: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What an index holds of embeddings float32 (N, R, D) of N tiles in R rotations: (N, R', D), and the bearing at the
    top of each, degrees float64 (R',).

    With `matching` best, the embeddings themselves; with sequence, the mean of each run of neighbouring rotations that
    is as long as `rotation_range`, with its middle; with average, the mean of all, whose bearing is NaN (dissertation
    3.4.1, multi-orientation feature averaging). With `unit` means have length 1 again.
    """
    count = tiles.shape[1]
    length = {"best": 1, "sequence": max(1, count * rotation_range // 360), "average": count}[matching]
    starts = [0] if length == count and matching == "average" else list(range(count))
    runs = [(start + np.arange(length)) % count for start in starts]
    means = np.stack([tiles[:, run].mean(axis=1, dtype=np.float32) for run in runs], axis=1)
    if unit:
        means /= np.maximum(np.linalg.norm(means, axis=2, keepdims=True), 1e-12)
    middles = (np.array(starts) + (length - 1) / 2) * (360.0 / count) % 360
    return means, np.full(1, np.nan) if matching == "average" else middles


def distance_blocks(
    photos: NDArray[np.float32], tiles: NDArray[np.float32], device: torch.device | None = None
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yields a slice of Q photos float32 (Q, D), their squared distances [A, N] to N tiles (N, R, D) in their best
    rotations, and those rotations int64 [A, N]. A photo or tile with NaN is infinitely far from all.

    Exact; `tiles` may be a memory map, of which a bounded part is read at a time.
    """
    device = device or torch.device("cpu")
    count, rotations, dimensions = tiles.shape
    together = max(1, _AT_ONCE // (_PHOTOS * rotations))
    for start in range(0, len(photos), _PHOTOS):
        some = torch.tensor(photos[start : start + _PHOTOS], device=device)
        lengths = some.square().sum(dim=1)[:, None]
        apart = torch.empty((len(some), count), device=device)
        turned = torch.empty((len(some), count), dtype=torch.int64, device=device)
        for first in range(0, count, together):
            block = torch.tensor(tiles[first : first + together], device=device).reshape(-1, dimensions)
            squared = torch.addmm(block.square().sum(dim=1)[None, :], some, block.T, alpha=-2).add_(lengths)
            squared = squared.clamp_min_(0).nan_to_num_(nan=torch.inf).view(len(some), -1, rotations)
            nearest = squared.min(dim=2)
            apart[:, first : first + together] = nearest.values
            turned[:, first : first + together] = nearest.indices
        yield slice(start, start + len(some)), apart, turned


def distances(
    photos: NDArray[np.float32], tiles: NDArray[np.float32], device: torch.device | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Squared distances float32 (Q, N) of photos (Q, D) to tiles (N, R, D) in their best rotations, and those rotations
    int64 (Q, N)."""
    apart = np.empty((len(photos), len(tiles)), dtype=np.float32)
    turned = np.empty((len(photos), len(tiles)), dtype=np.int64)
    for rows, values, indices in distance_blocks(photos, tiles, device):
        apart[rows], turned[rows] = values.cpu().numpy(), indices.cpu().numpy()
    return apart, turned


def ranks(apart: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank, from 1, of the true tile among N tiles by distances (Q, N); `truth` int64 (Q,) is its position.

    Ties count against the model: a tile as far as the true one is before it, so equal embeddings rank last. So does a
    photo whose distances are not finite.
    """
    own = np.take_along_axis(apart, truth[:, None], axis=1)
    found = (apart <= own).sum(axis=1)
    return np.where(np.isfinite(own[:, 0]), found, apart.shape[1]).astype(np.int64)


@dataclass(frozen=True)
class Ranking:
    """Of Q photos among N tiles: `rank` of the true tile as `ranks` has it, its squared `distance` and best `rotation`,
    and `best` int64, the nearest tile: -1 where several are equally near, or none has a distance."""

    rank: NDArray[np.int64]
    distance: NDArray[np.float32]
    rotation: NDArray[np.int64]
    best: NDArray[np.int64]


def ranking(
    photos: NDArray[np.float32],
    tiles: NDArray[np.float32],
    truth: NDArray[np.int64],
    device: torch.device | None = None,
) -> Ranking:
    """Where the true tile of each of Q photos (Q, D), at `truth` int64 (Q,), is among N tiles (N, R, D). A part of the
    photos is in memory at a time."""
    parts = []
    for rows, values, indices in distance_blocks(photos, tiles, device):
        apart, turned, own = values.cpu().numpy(), indices.cpu().numpy(), truth[rows]
        each, nearest = np.arange(len(apart)), apart.min(axis=1, keepdims=True)
        alone = ((apart <= nearest).sum(axis=1) == 1) & np.isfinite(nearest[:, 0])
        best = np.where(alone, apart.argmin(axis=1), -1)
        parts.append((ranks(apart, own), apart[each, own], turned[each, own], best))
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return Ranking(none, none.astype(np.float32), none, none)
    return Ranking(*(np.concatenate([part[i] for part in parts]) for i in range(4)))


def pair_distances(
    photos: NDArray[np.float32], tiles: NDArray[np.float32], tile_of: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Squared distances float32 (Q,) of photos (Q, D) to one of N tiles (N, R, D) each, at `tile_of`, in its best
    rotation; NaN where `tile_of` is -1 or an embedding is not known."""
    found = np.full(len(photos), np.nan, dtype=np.float32)
    rows = max(1, _AT_ONCE // max(1, tiles.shape[1] * tiles.shape[2]))
    for start in range(0, len(photos), rows):
        some = slice(start, start + rows)
        apart = np.square(photos[some, None] - tiles[np.maximum(tile_of[some], 0)]).sum(axis=2).min(axis=1)
        found[some] = np.where(tile_of[some] >= 0, apart, np.nan)
    return found


def best_threshold(matched: NDArray[np.floating], unmatched: NDArray[np.floating]) -> tuple[float, float]:
    """The threshold of distances, below or at which a pair counts as a match, with the highest accuracy over matched
    (M,) and unmatched (U,) pairs, each kind weighing half; and that accuracy. The lowest of equal ones. NaN counts as
    infinitely far."""
    matched, unmatched = (
        np.nan_to_num(np.asarray(values, np.float64), nan=np.inf) for values in (matched, unmatched)
    )
    candidates = np.concatenate([[-np.inf], np.unique(np.concatenate([matched, unmatched]))])
    candidates = candidates[candidates < np.inf]
    accepted = np.searchsorted(np.sort(matched), candidates, side="right") / max(1, len(matched))
    wrong = np.searchsorted(np.sort(unmatched), candidates, side="right") / max(1, len(unmatched))
    accuracy = (accepted + 1 - wrong) / 2
    best = int(accuracy.argmax())
    # Between two distances rather than on one, so that rounding does not decide.
    after = candidates[best + 1] if best + 1 < len(candidates) else candidates[best]
    threshold = candidates[best] if not np.isfinite(candidates[best]) else (candidates[best] + after) / 2
    return float(threshold), float(accuracy[best])
