"""Which examples an epoch has and in which order: plain functions of (seed, epoch, cells), with no state to save."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # settings of one family of models, and this module is for all
    from geoloc.training.settings import CurriculumSettings


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Each of `count` positions once, int64, in random order, another one each epoch (from 1)."""
    return _numbers(seed, epoch).permutation(count)


def epoch_starts(lengths: Iterable[int], batch_size: int) -> list[int]:
    """The number of steps before each epoch, from the first (0), and after the last; `lengths` are their examples."""
    starts = [0]
    for examples in lengths:
        starts.append(starts[-1] + -(-examples // batch_size))
    return starts


def without_lonely(examples: int, batch_size: int) -> int:
    """How many of an epoch's examples to take so that the last batch does not have one alone: batch norm has no
    statistics of one. All where the epoch, or each batch, has one only."""
    return examples - 1 if batch_size > 1 and examples > 1 and examples % batch_size == 1 else examples


def curriculum_order(
    cells: NDArray[np.int64], curriculum: CurriculumSettings | None, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The photos of an epoch (from 1) in order, int64 positions in `cells` (N,), the main partition's, -1 where none.

    Each photo once, in random order; or what `curriculum` draws.
    """
    bias = None if curriculum is None else curriculum_bias(curriculum, epoch)
    if curriculum is None or bias is None:
        return shuffled(len(cells), seed, epoch)
    return biased_draw(cells, curriculum_length(cells, curriculum, epoch), bias, seed, epoch)


def curriculum_length(cells: NDArray[np.int64], curriculum: CurriculumSettings | None, epoch: int) -> int:
    """How many photos an epoch (from 1) has: all, or as many as its cycle wants, never more than are in cells."""
    if curriculum is None or curriculum_bias(curriculum, epoch) is None:
        return len(cells)
    inside = cells[cells >= 0]
    within = (epoch - 1) % curriculum.cycle_epochs
    wanted = curriculum.examples_per_cell * len(np.unique(inside)) * (1 + curriculum.growth) ** within
    return min(round(wanted), len(inside))


def curriculum_bias(curriculum: CurriculumSettings, epoch: int) -> float | None:
    """The bias of an epoch (from 1); None after the cycles."""
    cycle = (epoch - 1) // curriculum.cycle_epochs
    return curriculum.biases[cycle] if cycle < len(curriculum.biases) else None


def biased_draw(
    cells: NDArray[np.int64], count: int, bias: float, seed: int, epoch: int
) -> NDArray[np.int64]:
    """`count` positions in `cells` (N,), in random order; a cell of n photos is drawn in proportion to n^(1 - bias).

    Bias 1 gives each cell the same, whatever its photos; bias 0 gives them as they are. Within a cell all photos come
    equally often, but for one. Photos in no cell (-1) are not drawn. Raises ValueError where none is in a cell.

    Multi-modal Geolocation, section A.1, says that minority classes are oversampled, at first to equal shares, and the
    bias then reduced, but not how: the power is ours (as Mikolov et al., Distributed Representations, 2013, smooth the
    frequencies of words).
    """
    inside = np.flatnonzero(cells >= 0)
    if not len(inside):
        raise ValueError("a biased draw needs at least one photo in a cell, got none")
    _, of, photos = np.unique(cells[inside], return_inverse=True, return_counts=True)
    shares = photos ** (1.0 - bias)
    numbers = _numbers(seed, epoch)
    # One random number rounds all cells: whole numbers that sum to count, each the share it should be on average.
    bounds = np.floor(np.cumsum(shares) / shares.sum() * count + numbers.random())
    bounds[-1] = count
    wanted = np.diff(np.concatenate([[0], np.minimum(bounds, count)])).astype(np.int64)
    order = np.lexsort((numbers.permutation(len(inside)), of))  # by cell, and at random within it
    rank = np.arange(len(inside)) - np.repeat(np.cumsum(photos) - photos, photos)
    each, rest = np.repeat(wanted // photos, photos), np.repeat(wanted % photos, photos)
    return numbers.permutation(np.repeat(inside[order], each + (rank < rest)))


def _numbers(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), epoch]))
