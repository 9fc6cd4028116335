"""Hard negatives and close positives among all training photos, from the embeddings of the network as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.models.embedder import Embedder
from geoloc.models.prediction import unit_embeddings
from geoloc.models.weights import WeightsError, read_safetensors
from geoloc.training.checkpoints import save_state
from geoloc.training.groups import Mined
from geoloc.training.metric_photos import MetricPhotos
from geoloc.training.metric_settings import MetricSettings
from geoloc.training.photo_data import PhotoSource

MINED = "mined.safetensors"
"""In the checkpoint folder, what was mined last."""
_PAIRS_AT_ONCE = 2**23


def embed_all(model: Embedder, source: PhotoSource, batch_size: int, precision: str) -> NDArray[np.float32]:
    """Embeddings of all N photos of `source`, float32 (N, D), L2-normalised; NaN for an unreadable photo. The model
    runs in eval mode; its mode is restored."""
    vectors = np.full((len(source), model.embedding_size), np.nan, dtype=np.float32)
    batches = source.decoded(np.arange(len(source)), batch_size, 0)
    for batch, found in unit_embeddings(model, batches, precision):
        if found is not None:
            vectors[batch.row_indices] = found["vectors"]
    return vectors


def similarity_blocks(
    vectors: NDArray[np.float32], device: torch.device
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    """Yields positions, int64 (A,), and the similarities of those photos with all N, float32 [A, N] on the CPU, in
    blocks of bounded size; a photo whose vector is not finite has similarity -inf with each."""
    every = torch.from_numpy(vectors).to(device)
    good = torch.isfinite(every).all(dim=1)
    every = torch.where(good[:, None], every, torch.zeros_like(every))
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(vectors)))
    for start in range(0, len(vectors), rows):
        block = every[start : start + rows] @ every.T
        block.masked_fill_(~(good[start : start + rows, None] & good), -torch.inf)
        yield np.arange(start, start + len(block)), block.cpu()


def mine(
    vectors: NDArray[np.float32], photos: MetricPhotos, settings: MetricSettings, device: torch.device
) -> Mined:
    """The most similar negatives and positives of each photo, by embeddings (N, D): exact, against all N photos."""
    wrong = settings.mining.nearest if settings.mining is not None else 0
    close = settings.images_per_group - 1 if settings.positives.kind == "closest_in_radius" else 0
    found = Mined(
        np.full((len(photos), wrong), -1, dtype=np.int64), np.full((len(photos), close), -1, dtype=np.int64)
    )
    for rows, similarities in similarity_blocks(vectors, device):
        positive, negative = photos.related(rows, np.arange(len(photos)), settings.positives)
        for table, valid in ((found.wrong, negative), (found.close, positive)):
            if table.shape[1]:
                masked = similarities.masked_fill(~torch.from_numpy(valid), -torch.inf)
                best = masked.topk(min(table.shape[1], len(photos)), dim=1)
                taken = torch.where(best.values > -torch.inf, best.indices, -1).numpy()
                table[rows, : taken.shape[1]] = taken
    return found


def mined_at(
    folder: Path, epoch: int, every_epochs: int, fingerprint: str, compute: Callable[[], Mined]
) -> Mined:
    """What was mined for `epoch`: from the file of `folder` if it was written for it, else computed and written.

    It must be first called at the start of an epoch, with the weights of that moment. A killed training finds the file
    when it goes on in the middle of the epoch, so it ends with the same bytes.
    """
    mined_for = epoch - (epoch - 1) % every_epochs
    wanted = {"kind": "mined", "fingerprint": fingerprint, "epoch": mined_for}
    try:
        tensors, metadata = read_safetensors(folder / MINED)
        if metadata == wanted:
            return Mined(tensors["wrong"].numpy(), tensors["close"].numpy())
    except WeightsError:
        pass  # missing, or damaged: computed again
    found = compute()
    save_state(
        folder / MINED,
        {"wrong": torch.from_numpy(found.wrong), "close": torch.from_numpy(found.close)},
        wanted,
    )
    return found
