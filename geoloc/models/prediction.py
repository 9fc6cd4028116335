"""Running a network over stored or decoded photos: the only place that does, so that all answers are the same.

`run_network` is the inner loop. The others use it: probabilities of cells, for localizers by class, and embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from geoloc.memory import freed_memory_kept
from geoloc.models.batches import Batch, batches_of_pixels, iter_batches
from geoloc.models.engine import ExportedNetwork
from geoloc.models.preprocess import CROPS
from geoloc.photos.shards import ShardReader

if TYPE_CHECKING:  # so that the code version of embeddings does not include the classifier
    from geoloc.models.classifier import Classifier

Probabilities = dict[str, NDArray[np.float32]]
"""Probabilities of N photos by head, float32 [N, C of the head]; a row of NaN for an unreadable photo."""


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """A block in which layers run in `precision` where that is numerically safe; float32 is a no-op."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def run_network(
    model: nn.Module,
    forward: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    batches: Iterable[Batch],
    channels_last: bool = True,
) -> Iterator[tuple[Batch, dict[str, NDArray[Any]] | None]]:
    """Yields each batch, in order, with the outputs of `forward` for its images, as arrays by name; None if no photo of
    the batch is readable.

    `forward` takes images uint8 [B, 3, S, S] on the model's device and calls the model. The model stays on its device
    and runs in eval mode, without gradients; its mode is restored at the end. `channels_last` sets the memory layout of
    images and filters (the filters keep it). It is much faster on a CPU and changes the last digits, so results that
    must be equal to the last digit need one layout and equal batches.
    """
    parameter = next(model.parameters(), None)  # an exported network has none, and runs on the CPU
    device = torch.device("cpu") if parameter is None else parameter.device
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    was_training = model.training
    model.eval()
    try:
        with freed_memory_kept():
            # The outputs of a batch are fetched after the next one has started, so that an accelerator never idles.
            waiting: tuple[Batch, Mapping[str, torch.Tensor] | None] | None = None
            for batch in batches:
                outputs = None
                if len(batch.row_indices):
                    # Not around the yields: the caller must not be in inference mode.
                    with torch.inference_mode():
                        images = batch.images.contiguous(memory_format=layout)
                        outputs = forward(images.to(device, non_blocking=True))
                if waiting is not None:
                    yield waiting[0], _fetched(waiting[1])
                waiting = batch, outputs
            if waiting is not None:
                yield waiting[0], _fetched(waiting[1])
    finally:
        model.train(was_training)


def _fetched(outputs: Mapping[str, torch.Tensor] | None) -> dict[str, NDArray[Any]] | None:
    return None if outputs is None else {name: value.cpu().numpy() for name, value in outputs.items()}


def predict_probabilities(
    model: Classifier | ExportedNetwork,
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    batch_size: int,
    workers: int = 0,
    crops: int = 1,
) -> tuple[Probabilities, NDArray[np.int64]]:
    """Probabilities of cells for N stored photos (columns shard, offset, length), by head.

    They are means over the first `crops` of preprocess.CROPS: 1 is the centre, 5 adds the corners (Krizhevsky et al.,
    ImageNet classification, 2012, section 4.1, without its mirrored crops: mirrored streets keep to the wrong side).

    A photo that is unreadable or not stored in the pool has a row of NaN; the second result holds the positions of
    those photos, int64, in order. The model runs as in `run_network`. Raises the errors of `iter_batches`.
    """
    return _mean_over_crops(
        model,
        len(rows),
        lambda crop: iter_batches(pool, rows, model.preprocess, batch_size, workers, crop=crop),
        crops,
    )


def predict_probabilities_of_pixels(
    model: Classifier | ExportedNetwork, photos: Sequence[NDArray[np.uint8]], batch_size: int, crops: int = 1
) -> Probabilities:
    """As predict_probabilities, for decoded photos, uint8 [H, W, 3] each. Equal photos in equal batches give
    bit-identical results."""
    return _mean_over_crops(
        model,
        len(photos),
        lambda crop: batches_of_pixels(photos, model.preprocess, batch_size, crop=crop),
        crops,
    )[0]


def _mean_over_crops(
    model: Classifier | ExportedNetwork, count: int, batches_of: Callable[[str], Iterable[Batch]], crops: int
) -> tuple[Probabilities, NDArray[np.int64]]:
    """Probabilities of `count` photos and the positions of unreadable ones; `batches_of(crop)` gives the batches."""

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        if isinstance(model, ExportedNetwork):  # by NumPy, as where there is no torch: equal to the last bit
            return model.probabilities(images)
        scores = model.split(model(images).float())
        return {name: of_head.softmax(dim=1) for name, of_head in scores.items()}

    mean = {name: np.full((count, cells), np.nan, dtype=np.float32) for name, cells in model.heads.items()}
    unreadable = [np.empty(0, np.int64)]
    with freed_memory_kept():
        for crop in CROPS[:crops]:
            for batch, found in run_network(model, forward, batches_of(crop)):
                if crop == CROPS[0]:
                    unreadable.append(batch.unreadable_indices)
                for name, p in (found or {}).items():
                    if crop == CROPS[0]:
                        mean[name][batch.row_indices] = p / np.float32(crops)
                    else:
                        mean[name][batch.row_indices] += p / np.float32(crops)
    return mean, np.sort(np.concatenate(unreadable))


def unit_embeddings(
    model: nn.Module, batches: Iterable[Batch], precision: str = "float32"
) -> Iterator[tuple[Batch, dict[str, NDArray[np.float32]] | None]]:
    """Yields each batch with the embeddings of its B photos: `vectors` float32 [B, D], L2-normalised, and their `norms`
    [B] before that.

    `model` has `.embed(images) -> [B, D]` and `.preprocess`, and runs as in `run_network`. If the norm is 0, the vector
    is 0; if it is not finite, neither is the vector.
    """
    network: Any = model  # nn.Module does not declare embed and preprocess

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        if isinstance(model, ExportedNetwork):
            vectors, norms = model.unit_embeddings(images)
            return {"vectors": vectors, "norms": norms}
        with mixed_precision(images.device, precision):
            features = network.embed(network.preprocess.normalise(images))
        features = features.float()
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        return {"vectors": features / norms.clamp_min(1e-12), "norms": norms[:, 0]}

    return run_network(model, forward, batches)


def unit_embeddings_of_pixels(
    model: Any, photos: Sequence[NDArray[np.uint8]], batch_size: int
) -> NDArray[np.float32]:
    """Embeddings of N decoded photos, uint8 [H, W, 3] each: float32 [N, D], as in `unit_embeddings`."""
    found = unit_embeddings(model, batches_of_pixels(photos, model.preprocess, batch_size))
    return np.concatenate([outputs["vectors"] for _, outputs in found if outputs is not None])
