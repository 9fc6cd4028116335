"""Which photos an epoch has and in which order: plain functions of (seed, epoch, cells), with no state to save."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.training.settings import CurriculumSettings, TrainingSettings


def epoch_order(
    cells: NDArray[np.int64], settings: TrainingSettings, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The photos of an epoch (from 1) in order, int64 positions in `cells` (N,), the main partition's, -1 where none.

    Each photo once, in random order; or what `settings.curriculum` draws. In fine-tuning one photo is left out where
    the last batch would have it alone: batch norm has no statistics of one photo.
    """
    bias = None if settings.curriculum is None else curriculum_bias(settings.curriculum, epoch)
    if settings.curriculum is None or bias is None:
        order = _numbers(seed, epoch).permutation(len(cells))
    else:
        order = biased_draw(cells, _wanted(cells, settings.curriculum, epoch), bias, seed, epoch)
    return order[: _without_single(len(order), settings)]


def epoch_starts(cells: NDArray[np.int64], settings: TrainingSettings) -> list[int]:
    """The number of steps before each epoch, from the first (0), and after the last."""
    starts, curriculum = [0], settings.curriculum
    for epoch in range(1, settings.epochs + 1):
        biased = curriculum is not None and curriculum_bias(curriculum, epoch) is not None
        photos = _wanted(cells, curriculum, epoch) if biased and curriculum is not None else len(cells)
        starts.append(starts[-1] + -(-_without_single(photos, settings) // settings.batch_size))
    return starts


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


def _wanted(cells: NDArray[np.int64], curriculum: CurriculumSettings, epoch: int) -> int:
    """How many photos an epoch of a biased cycle has: never more than there are in cells."""
    inside = cells[cells >= 0]
    within = (epoch - 1) % curriculum.cycle_epochs
    wanted = curriculum.examples_per_cell * len(np.unique(inside)) * (1 + curriculum.growth) ** within
    return min(round(wanted), len(inside))


def _without_single(photos: int, settings: TrainingSettings) -> int:
    lonely = photos > 1 and photos % settings.batch_size == 1 and settings.batch_size > 1
    return photos - 1 if settings.mode == "fine_tune" and lonely else photos


def _numbers(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), epoch]))
