"""Sequences as padded batches, and a network's answers for all photos of all sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.models.context_inputs import ContextInputs
from geoloc.models.sequence_network import SequenceNetwork
from geoloc.photos.sequences import Sequences

PHOTOS_AT_ONCE = 4096
"""Padded photos of a batch when a network answers."""


@dataclass(frozen=True)
class PaddedSequences:
    """B sequences: `inputs` float32 [B, T, D] and `hours` float32 [B, T], 0 beyond the end, and 0 for a photo that
    could not be read; `lengths` int64 [B]; `photos` int64 (M,), the rows of their photos, sequence after sequence."""

    inputs: torch.Tensor
    hours: torch.Tensor
    lengths: torch.Tensor
    photos: NDArray[np.int64]


def padded(inputs: ContextInputs, sequences: Sequences, numbers: NDArray[np.int64]) -> PaddedSequences:
    """The sequences `numbers` int64 (B,), at least one, as a batch."""
    lengths = sequences.lengths[numbers]
    place = np.repeat(sequences.starts[numbers], lengths)
    place += np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    photos = sequences.rows[place]
    valid = torch.from_numpy(np.arange(lengths.max())[None, :] < lengths[:, None])
    found = torch.zeros((*valid.shape, inputs.size))
    found[valid] = torch.nan_to_num(inputs.rows(photos))
    hours = torch.zeros(valid.shape)
    hours[valid] = torch.nan_to_num(torch.from_numpy(sequences.hours[place].astype(np.float32)))
    return PaddedSequences(found, hours, torch.from_numpy(lengths), photos)


def sequence_probabilities(
    model: SequenceNetwork, inputs: ContextInputs, sequences: Sequences
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yields probabilities of cells, float32 [P, C], and of which P rows they are, until each photo had its turn; a row
    of NaN for a photo that could not be read.

    Short sequences come first. The model runs in eval mode on its device; its mode is restored.
    """
    device, was_training = next(model.parameters()).device, model.training
    readable = inputs.readable
    model.eval()
    try:
        for numbers in _batches(sequences.lengths):
            batch = padded(inputs, sequences, numbers)
            with torch.inference_mode():
                scores = model(batch.inputs.to(device), batch.hours.to(device), batch.lengths)
                found = scores.softmax(dim=1).cpu().numpy()
            found[~readable[batch.photos]] = np.nan
            yield batch.photos, found
    finally:
        model.train(was_training)


def all_probabilities(
    model: SequenceNetwork, inputs: ContextInputs, sequences: Sequences
) -> NDArray[np.float32]:
    """As sequence_probabilities, in one table float32 [N, C] by row."""
    found = np.empty((len(sequences.rows), model.cells), dtype=np.float32)
    for photos, probabilities in sequence_probabilities(model, inputs, sequences):
        found[photos] = probabilities
    return found


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Sequences of like lengths together, each batch of at most PHOTOS_AT_ONCE padded photos, or one sequence."""
    order = np.argsort(lengths, kind="stable")
    begin = 0
    while begin < len(order):
        size = lengths[order[begin:]] * np.arange(1, len(order) - begin + 1)
        count = max(1, int(np.searchsorted(size, PHOTOS_AT_ONCE, side="right")))
        yield order[begin : begin + count]
        begin += count
