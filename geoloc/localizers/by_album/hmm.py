"""A hidden Markov model over the photos of an album: the state is the cell, a photo is what the state emits.

As PlaNet, section 4 ("PlaNet HMM"): priors and transitions are counted on training albums, and emissions are the
classifier's probabilities divided by its prior (Bayes' rule). Neither time nor distance enters. PlaNet divides by the
counted prior. A classifier that is not calibrated answers a rare cell more often than it is true; divided by the rare
cell's small count, photo after photo, it then wins whole albums. So we divide by the mean of its own probabilities.

Most pairs of cells never follow each other in any album, so a row of the transition matrix is stored as

    p(j | i) = jump_i · prior_j + counted_ij,    counted sparse

with the jump from smoothing. A step of any algorithm here then costs as much as there are cells and counted pairs,
not their square, and is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix

from geoloc.files import atomic_path
from geoloc.localizers.by_class.probabilities import log_probabilities
from geoloc.localizers.settings import HMMSettings
from geoloc.photos.sequences import Sequences

FloatArray = NDArray[np.float64]
HMM_FILE = "hmm.safetensors"
"""The counted transitions, in the output of the stage album_models."""
_BLOCK = 128
"""Steps of Viterbi whose scores are held at once: memory grows with the root of a long album, not with it."""


@dataclass(frozen=True, eq=False)
class Transitions:
    """How albums move over C cells: `prior` float64 (C,), above 0, sums to 1; `expected` float64 (C,), above 0, what
    the classifier's probabilities are divided by; `jump` float64 (C,), above 0, the chance of going anywhere, by the
    prior; `counted` (C, C), what is added for pairs that were counted, with an entry for each diagonal element. Row i
    sums to 1 - jump_i."""

    prior: FloatArray
    expected: FloatArray
    jump: FloatArray
    counted: csc_matrix

    def dense(self) -> FloatArray:
        """The matrix p(j | i), float64 (C, C), for small C."""
        return np.asarray(self.jump[:, None] * self.prior + self.counted.toarray())

    def save(self, path: Path | str) -> None:
        """Write the counts to one safetensors file, atomically."""
        arrays = {
            "prior": self.prior,
            "expected": self.expected,
            "jump": self.jump,
            "data": self.counted.data,
            "indices": self.counted.indices.astype(np.int64),
            "indptr": self.counted.indptr.astype(np.int64),
        }
        with atomic_path(path) as temporary:
            save_file(arrays, temporary)

    @classmethod
    def load(cls, path: Path | str) -> Transitions:
        """The transitions that `save` wrote."""
        found = load_file(path)
        size = len(found["prior"])
        counted = csc_matrix((found["data"], found["indices"], found["indptr"]), shape=(size, size))
        return cls(found["prior"], found["expected"], found["jump"], counted)


def count_transitions(
    cells: NDArray[Any],
    sequences: Sequences,
    cell_count: int,
    settings: HMMSettings,
    probabilities: NDArray[Any] | None = None,
) -> Transitions:
    """Count priors and transitions on training albums: `cells` int (N,), -1 for none, of the rows of `sequences`.

    prior_i = (n_i + s) / sum; p(j | i) = (n_ij + a prior_j + b [i = j]) / (n_i. + a + b), with s
    settings.prior_smoothing, a settings.smoothing and b settings.stay. A photo in no cell breaks its album in two.
    `probabilities` float [M, C] are the classifier's for these or other photos that it was not trained on: their mean
    is what settings.divide_by predicted asks for. Raises ValueError without them, and for cells that do not fit.
    """
    cells = np.asarray(cells, dtype=np.int64)
    if cells.shape != sequences.rows.shape or (
        len(cells) and (cells.min() < -1 or cells.max() >= cell_count)
    ):
        raise ValueError(
            f"cells must be from -1 to {cell_count - 1}, one for each of {len(sequences.rows)} photos, "
            f"got {cells.shape}"
        )
    counts = np.bincount(cells[cells >= 0], minlength=cell_count) + settings.prior_smoothing
    prior = np.asarray(counts / counts.sum(), dtype=np.float64)
    expected = prior
    if settings.divide_by == "predicted":
        if probabilities is None or np.shape(probabilities)[1:] != (cell_count,):
            raise ValueError(
                f"divide_by predicted needs the probabilities of {cell_count} cells for some photos, got "
                f"{np.shape(probabilities) if probabilities is not None else 'none'}"
            )
        expected = np.maximum(np.nanmean(probabilities, axis=0, dtype=np.float64), np.finfo(np.float32).tiny)
    in_order = cells[sequences.rows]
    follows = np.ones(len(in_order), dtype=bool)
    follows[sequences.starts[:-1]] = False
    follows[1:] &= (in_order[1:] >= 0) & (in_order[:-1] >= 0)
    second = np.flatnonzero(follows)
    one, two = in_order[second - 1], in_order[second]
    every = np.arange(cell_count)
    weights = np.concatenate([np.ones(len(one)), np.full(cell_count, float(settings.stay))])
    pairs = (np.concatenate([one, every]), np.concatenate([two, every]))
    # Sums equal pairs; the diagonal has an entry even where `stay` is 0, so that no column is empty.
    summed = csr_matrix(coo_matrix((weights, pairs), shape=(cell_count, cell_count)))
    total = np.bincount(one, minlength=cell_count) + settings.stay + settings.smoothing
    summed.data /= np.repeat(total, np.diff(summed.indptr))
    counted = summed.tocsc()
    counted.sort_indices()
    return Transitions(prior, expected, np.asarray(settings.smoothing / total, dtype=np.float64), counted)


class HiddenMarkovModel:
    """Viterbi and forward-backward for one album at a time, from the classifier's probabilities float [T, C].

    `trust` is the power of the emissions: below 1, photos of one album that resemble each other count as fewer. A row
    with a NaN is a photo that could not be read: it says nothing, and its cell follows from the others. An album of T
    photos costs T steps over cells and counted pairs.
    """

    def __init__(self, transitions: Transitions, trust: float = 1.0) -> None:
        self.transitions, self.trust = transitions, trust
        counted = transitions.counted
        self._from = counted.indices
        self._begins = counted.indptr[:-1]
        self._into = csr_matrix(counted.T)
        self._out = csr_matrix(counted)
        width = np.diff(counted.indptr)
        jumps = transitions.jump[self._from] * np.repeat(transitions.prior, width)
        self._log_pair = np.log(counted.data + jumps)
        self._log_prior, self._log_jump = np.log(transitions.prior), np.log(transitions.jump)
        self._log_expected = np.log(transitions.expected)

    def log_emissions(self, probabilities: NDArray[Any]) -> FloatArray:
        """Returns trust · log(p(cell | photo) / expected), float64 [T, C]; 0 for a photo that could not be read."""
        p = np.asarray(probabilities)
        if p.ndim != 2 or p.shape[1] != len(self._log_prior):
            raise ValueError(f"probabilities must have shape (T, {len(self._log_prior)}), got {p.shape}")
        unread = np.isnan(p).any(axis=1)
        scores = self.trust * (log_probabilities(np.where(unread[:, None], 1, p)) - self._log_expected)
        scores[unread] = 0
        return scores

    def viterbi(self, probabilities: NDArray[Any]) -> tuple[NDArray[np.int64], float]:
        """The most probable sequence of cells, int64 (T,), and the logarithm of its joint probability with the photos
        (up to the probability of the photos alone)."""
        p = np.asarray(probabilities)
        cells = np.empty(len(p), dtype=np.int64)
        if not len(p):
            return cells, 0.0
        begins = range(0, len(p), _BLOCK)
        kept = [np.empty(0)]  # the scores before each block, from which all of its scores are computed again
        for begin in begins[:-1]:
            kept.append(self._scores(p[begin : begin + _BLOCK], kept[-1])[-1])
        for begin in reversed(begins):
            within = self._scores(p[begin : begin + _BLOCK], kept.pop())
            if begin == begins[-1]:
                best, cell = float(within[-1].max()), int(within[-1].argmax())
            for t in range(len(within) - 1, -1, -1):
                if begin + t + 1 < len(p):
                    cell = self._before(within[t], cell)
                cells[begin + t] = cell
        return cells, best

    def _scores(self, probabilities: NDArray[Any], before: FloatArray) -> FloatArray:
        """Viterbi's scores of the last photo by its cell, for each photo, float64 [T, C]; `before` are those of the
        photo before the first, empty if there is none."""
        scores = self.log_emissions(probabilities)
        for t in range(len(scores)):
            if len(before):
                counted = np.maximum.reduceat(before[self._from] + self._log_pair, self._begins)
                scores[t] += np.maximum(counted, (before + self._log_jump).max() + self._log_prior)
            else:
                scores[t] += self._log_prior
            before = scores[t]
        return scores

    def _before(self, scores: FloatArray, cell: int) -> int:
        """The best cell of the photo before one in `cell`, given the scores of the former."""
        column = slice(self._begins[cell], self.transitions.counted.indptr[cell + 1])
        rows = self._from[column]
        counted = scores[rows] + self._log_pair[column]
        jumped = scores + self._log_jump
        farther = int(jumped.argmax())
        if jumped[farther] + self._log_prior[cell] > counted.max():
            return farther
        return int(rows[counted.argmax()])

    def posteriors(self, probabilities: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
        """The probability of each cell at each photo given all photos, float32 [T, C] (forward-backward), and the
        evidence: the log-likelihood ratio of this album under the model to that of photos that have nothing to do with
        each other. Below 0, their order makes no sense to the model.
        """
        p = np.asarray(probabilities)
        found = np.empty(p.shape, dtype=np.float32)
        prior, jump = self.transitions.prior, self.transitions.jump
        blocks = range(0, len(p), _BLOCK)
        ratio, message = 0.0, prior
        for begin in blocks:
            emitted = self._emitted(p[begin : begin + _BLOCK])
            alone = emitted @ prior
            for t, of_photo in enumerate(emitted, start=begin):
                if t:
                    message = self._into @ message + (jump @ message) * prior
                message = message * of_photo
                total = message.sum()
                ratio += float(np.log(total / alone[t - begin]))
                message /= total
                found[t] = message
        backward = np.ones(len(prior))
        for begin in reversed(blocks):
            emitted = self._emitted(p[begin : begin + _BLOCK])
            for t in range(begin + len(emitted) - 1, max(begin, 1) - 1, -1):  # photo t tells of t - 1
                backward *= emitted[t - begin]
                backward = self._out @ backward + jump * (prior @ backward)
                backward /= backward.max()
                both = found[t - 1] * backward
                found[t - 1] = both / both.sum()
        return found, ratio

    def _emitted(self, probabilities: NDArray[Any]) -> FloatArray:
        """Emissions float64 [T, C], each photo's scaled so that the largest is 1."""
        scores = self.log_emissions(probabilities)
        return np.asarray(np.exp(scores - scores.max(axis=1, keepdims=True)))
