"""Probabilities of cells for stored photos: what localizers by class work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.memory import freed_memory_kept
from geoloc.models.batches import PhotoReader, iter_batches
from geoloc.models.classifier import Classifier
from geoloc.models.preprocess import CROPS


def predict_probabilities(
    model: Classifier,
    pool: Path | str | PhotoReader,
    rows: pd.DataFrame,
    batch_size: int,
    workers: int = 0,
    crops: int = 1,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """Probabilities of cells by head, float32 [N, C of the head], for N photos (columns shard, offset, length).

    They are means over the first `crops` of preprocess.CROPS: 1 is the centre, 5 the corners too (Krizhevsky et al.,
    ImageNet classification, 2012, section 4.1, without its mirrored crops: mirrored streets keep to the wrong side).

    A photo that cannot be read, or has no bytes in the pool, has a row of NaN; the second result holds the
    positions of those photos, int64, in order. The model is used where it is, in eval mode. Raises as
    `iter_batches` does.
    """
    device = next(model.parameters()).device
    probabilities = {
        name: np.full((len(rows), count), np.nan, dtype=np.float32) for name, count in model.heads.items()
    }
    unreadable: list[NDArray[np.int64]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), freed_memory_kept():
            for crop in CROPS[:crops]:
                for batch in iter_batches(pool, rows, model.preprocess, batch_size, workers, crop=crop):
                    if crop == CROPS[0]:
                        unreadable.append(batch.unreadable_indices)
                    if not len(batch.row_indices):
                        continue
                    scores = model.split(model(batch.images.to(device)).float())
                    for name, of_head in scores.items():
                        p = of_head.softmax(dim=1).cpu().numpy() / np.float32(crops)
                        if crop == CROPS[0]:
                            probabilities[name][batch.row_indices] = p
                        else:
                            probabilities[name][batch.row_indices] += p
    finally:
        model.train(was_training)
    return probabilities, np.sort(np.concatenate(unreadable)) if unreadable else np.empty(0, np.int64)
