"""Running a cross-view network over photos and tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.models.batches import Batch
from geoloc.models.cross_view import CrossViewNetwork
from geoloc.models.prediction import mixed_precision, run_network


def embed_photos(
    model: CrossViewNetwork, batches: Iterable[Batch], count: int, precision: str = "float32"
) -> NDArray[np.float32]:
    """Embeddings of `count` photos, float32 (N, D); NaN for an unreadable photo. The model runs as in run_network."""
    found = np.full((count, model.embedding_size), np.nan, dtype=np.float32)

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        with mixed_precision(images.device, precision):
            return {"vectors": model.photos(images)}

    for batch, outputs in run_network(model, forward, batches):
        if outputs is not None:
            found[batch.row_indices] = outputs["vectors"]
    return found


def embed_tiles(
    model: CrossViewNetwork,
    batches: Iterable[Batch],
    count: int,
    up: NDArray[np.float64],
    precision: str = "float32",
) -> NDArray[np.float32]:
    """Embeddings of `count` tiles, north up, seen with each of R bearings at the top: float32 (N, R, D); NaN for an
    unreadable tile. `up` are degrees, (R,) for all tiles or (N, R). The rotations are made on the model's device."""
    up = np.broadcast_to(up, (count, up.shape[-1])).astype(np.float32)
    found = np.full((*up.shape, model.embedding_size), np.nan, dtype=np.float32)
    rows = np.empty(0, dtype=np.int64)

    def asked(batches: Iterable[Batch]) -> Iterator[Batch]:
        nonlocal rows
        for batch in batches:
            rows = batch.row_indices
            yield batch

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        normal = model.preprocess.normalise(images)
        turns = torch.from_numpy(up[rows]).to(images.device)
        with mixed_precision(images.device, precision):
            parts = [model.tiles(normal, turn) for turn in turns.T]
        return {"vectors": torch.stack(parts, dim=1)}

    for batch, outputs in run_network(model, forward, asked(batches)):
        if outputs is not None:
            found[batch.row_indices] = outputs["vectors"]
    return found


def headings_of(
    model: CrossViewNetwork,
    photos: NDArray[np.float32],
    tiles: NDArray[np.float32],
    up: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where each of N photos looks, degrees clockwise from north in [0, 360), float64 (N,): from embeddings (N, D) of
    photos and of the tile of each, seen with the bearing `up` (N,) at the top. NaN where an embedding is.

    Without an orientation head this is `up` itself.
    """
    if not model.tells_orientation:
        return np.where(np.isnan(photos).any(axis=1), np.nan, up % 360)
    device = next(model.parameters()).device
    with torch.inference_mode():
        both = model.orientation(torch.from_numpy(photos).to(device), torch.from_numpy(tiles).to(device))
    sine, cosine = both.double().cpu().numpy().T
    return np.asarray((up + np.degrees(np.arctan2(sine, cosine))) % 360)
