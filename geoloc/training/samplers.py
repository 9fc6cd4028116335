"""The examples of an epoch and their order: plain functions of (seed, epoch, cells), with no state to save."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # settings of one family of models; this module serves all
    from geoloc.training.settings import CurriculumSettings


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The positions 0 to `count` - 1 in random order, int64; a different order in each epoch (from 1)."""
    return _numbers(seed, epoch).permutation(count)


def epoch_starts(lengths: Iterable[int], batch_size: int) -> list[int]:
    """The number of steps before each epoch, from the first (0), and after the last; `lengths` are the epochs'
    numbers of examples."""
    starts = [0]
    for examples in lengths:
        starts.append(starts[-1] + -(-examples // batch_size))
    return starts


def without_lonely(examples: int, batch_size: int) -> int:
    """How many of an epoch's examples to use so that the last batch does not have a single one: batch norm needs at
    least two. All if the epoch has only one, or if the batch size is 1."""
    return examples - 1 if batch_size > 1 and examples > 1 and examples % batch_size == 1 else examples


def curriculum_order(
    cells: NDArray[np.int64], curriculum: CurriculumSettings | None, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The photos of an epoch (from 1) in order, as int64 positions in `cells` (N,): cells of the main partition, -1 for
    none.

    Each photo once, in random order; with `curriculum`, what it draws.
    """
    bias = None if curriculum is None else curriculum_bias(curriculum, epoch)
    if curriculum is None or bias is None:
        return shuffled(len(cells), seed, epoch)
    return biased_draw(cells, curriculum_length(cells, curriculum, epoch), bias, seed, epoch)


def curriculum_length(cells: NDArray[np.int64], curriculum: CurriculumSettings | None, epoch: int) -> int:
    """The number of photos in an epoch (from 1): all, or what its cycle has, at most the number that are in cells."""
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
    """`count` positions in `cells` (N,) in random order; a cell of n photos is drawn in proportion to n^(1 - bias).

    Bias 1 draws each cell equally often, whatever its number of photos; bias 0 draws in proportion to it. Within a cell
    the numbers of draws of two photos differ by at most one. Photos in no cell (-1) are not drawn. Raises ValueError if
    no photo is in a cell.

    Multi-modal Geolocation, section A.1, oversamples minority classes, at first to equal shares, and then reduces the
    bias. It does not say how: the power is ours (as Mikolov et al., Distributed Representations, 2013, smooth the
    frequencies of words).
    """
    inside = np.flatnonzero(cells >= 0)
    if not len(inside):
        raise ValueError("a biased draw needs at least one photo in a cell, got none")
    _, of, photos = np.unique(cells[inside], return_inverse=True, return_counts=True)
    shares = photos ** (1.0 - bias)
    numbers = _numbers(seed, epoch)
    # One random number rounds all cells to integers that sum to `count`; each equals its share on average.
    bounds = np.floor(np.cumsum(shares) / shares.sum() * count + numbers.random())
    bounds[-1] = count
    wanted = np.diff(np.concatenate([[0], np.minimum(bounds, count)])).astype(np.int64)
    order = np.lexsort((numbers.permutation(len(inside)), of))  # by cell, in random order within each
    rank = np.arange(len(inside)) - np.repeat(np.cumsum(photos) - photos, photos)
    each, rest = np.repeat(wanted // photos, photos), np.repeat(wanted % photos, photos)
    return numbers.permutation(np.repeat(inside[order], each + (rank < rest)))


def _numbers(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), epoch]))
