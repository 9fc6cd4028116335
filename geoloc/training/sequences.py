"""Train a network over albums or people; a killed run is resumed. It reads stored inputs and never a pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.losses.classification import cross_entropy
from geoloc.models.prediction import mixed_precision
from geoloc.models.sequence_network import SequenceNetwork
from geoloc.models.sequence_prediction import all_probabilities, padded
from geoloc.photos.sequences import Sequences
from geoloc.settings import settings_hash
from geoloc.training import loop
from geoloc.training.context import ContextPhotos, check_cells, measures
from geoloc.training.context_settings import SequenceModelSettings
from geoloc.training.loop import OnProgress, Task, TrainingResult, loop_fingerprint
from geoloc.training.samplers import epoch_starts
from geoloc.training.source import Inputs, TrainingError

_BATCHES_BY_LENGTH = 8
"""Batches whose sequences are sorted by length together: padding is little, and batches still differ by epoch."""
_STANDARD_ROWS = 10_000


@dataclass(frozen=True, eq=False)
class SequencePhotos:
    """Photos and their sequences; whole ones: settings.length cuts them. Raises TrainingError for different photos."""

    photos: ContextPhotos
    sequences: Sequences

    def __post_init__(self) -> None:
        if len(self.photos) != len(self.sequences.rows):
            raise TrainingError(
                f"the sequences are of {len(self.sequences.rows)} photos, got {len(self.photos)}"
            )

    def cut(self, length: int | None) -> SequencePhotos:
        """The same in pieces of at most `length` photos; None: whole."""
        return self if length is None else SequencePhotos(self.photos, self.sequences.cut(length))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that training uses, in order."""
        s = self.sequences
        own = s.rows.tobytes() + s.starts.tobytes() + s.hours.tobytes() + s.group.tobytes()
        return sha256_bytes(self.photos.fingerprint.encode() + own)


@dataclass(frozen=True, eq=False)
class SequenceSource:
    """Batches of sequences, by number: inputs float32 [B, T, D] and hours [B, T]."""

    of: SequencePhotos

    def __len__(self) -> int:
        return len(self.of.sequences)

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """One padded batch per `batch_size` numbers."""
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = padded(self.of.photos.inputs, self.of.sequences, numbers)
            yield Inputs((batch.inputs, batch.hours), numbers, np.empty(0, dtype=np.int64))


def train_sequences(
    model: SequenceNetwork,
    train: SequencePhotos,
    validation: SequencePhotos | None,
    points: NDArray[np.float64],
    settings: SequenceModelSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: OnProgress = lambda event: None,
) -> TrainingResult:
    """Train `model` in place; it ends in eval mode with the weights of the best epoch.

    The inputs of `train` are standardised first (SequenceNetwork.standardise). A photo without inputs or cell is in its
    sequence, and nothing is learnt from it. `points` float64 (C, 2) is where each cell answers. `checkpoint_folder`
    makes the training resumable, see loop.train.

    Raises TrainingError if photos and network do not fit each other, or if no photo can be learnt from.
    """
    settings.check("sequences")
    for name, given in (("training", train), ("validation", validation)):
        if given is not None:
            check_cells(given.photos, model.cells, name)
            if given.photos.inputs.size != model.inputs:
                raise TrainingError(
                    f"the {name} photos have {given.photos.inputs.size} inputs, the network has {model.inputs}"
                )
    pieces = train.cut(settings.length)
    held_out = None if validation is None else validation.cut(settings.length)
    labels = np.where(train.photos.usable, train.photos.cells, -1)
    chosen = _learnt_from(pieces.sequences, labels >= 0, settings.one_per_group)
    if not len(chosen):
        raise TrainingError(
            f"none of the {len(pieces.sequences)} sequences has a photo with inputs and a cell"
            + (" and belongs to an album or person" if settings.one_per_group else "")
        )
    rows = np.flatnonzero(train.photos.inputs.readable)
    rows = rows[:: -(-len(rows) // _STANDARD_ROWS)]
    model.standardise(train.photos.inputs.rows(rows))
    fingerprint = loop_fingerprint(model, settings, seed) | {
        "network settings": settings_hash(model.settings),
        "training photos": pieces.fingerprint,
        "validation photos": "none" if held_out is None else held_out.fingerprint,
    }
    lengths, group = pieces.sequences.lengths, pieces.sequences.group
    examples = len(np.unique(group[chosen])) if settings.one_per_group else len(chosen)

    def order(epoch: int) -> NDArray[np.int64]:
        numbers = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), epoch]))
        shuffled = numbers.permutation(chosen)
        if settings.one_per_group:
            shuffled = numbers.permutation(shuffled[np.unique(group[shuffled], return_index=True)[1]])
        return by_length(shuffled, lengths, settings.batch_size, numbers)

    def prepare(device: torch.device) -> Task:
        def loss_of(batch: Inputs) -> torch.Tensor:
            inputs, hours = batch.tensors
            own = lengths[batch.positions]
            with mixed_precision(device, settings.precision):
                scores = model(inputs, hours, torch.from_numpy(own))
            photos = np.concatenate([pieces.sequences.of(int(number)) for number in batch.positions])
            known = labels[photos] >= 0
            of_known = scores[torch.from_numpy(known).to(device)]
            return cross_entropy(of_known, torch.from_numpy(labels[photos[known]]).to(device))

        def validate() -> dict[str, Any]:
            assert held_out is not None
            found = all_probabilities(model, held_out.photos.inputs, held_out.sequences)
            return measures(found, held_out.photos, points)

        return Task(
            SequenceSource(pieces),
            order,
            epoch_starts([examples] * settings.epochs, settings.batch_size),
            loss_of,
            validate if held_out is not None and len(held_out.photos) else None,
        )

    result = loop.train(model, prepare, settings, seed, Path(checkpoint_folder), fingerprint, on_progress)
    left_out = {"training_unusable": int((labels < 0).sum())}
    return dataclasses.replace(result, left_out=left_out | result.left_out)


def _learnt_from(sequences: Sequences, labelled: NDArray[np.bool_], one_per_group: bool) -> NDArray[np.int64]:
    """The sequences with at least one labelled photo, int64; of an album or person if one of each is drawn."""
    counts = np.bincount(sequences.numbers()[labelled], minlength=len(sequences))
    usable = counts > 0
    if one_per_group:
        usable &= sequences.group >= 0
    return np.flatnonzero(usable)


def by_length(
    order: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int, numbers: np.random.Generator
) -> NDArray[np.int64]:
    """`order` (K,), with sequences of like lengths in one batch of `batch_size`: some batches at a time are sorted by
    length. Whole batches come in random order, a rest of fewer sequences last."""
    several = batch_size * _BATCHES_BY_LENGTH
    parts = [order[start : start + several] for start in range(0, len(order), several)]
    ordered = np.concatenate([part[np.argsort(-lengths[part], kind="stable")] for part in parts])
    whole = len(ordered) // batch_size
    batches = ordered[: whole * batch_size].reshape(whole, batch_size)
    return np.concatenate([batches[numbers.permutation(whole)].ravel(), ordered[whole * batch_size :]])
