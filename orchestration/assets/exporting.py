"""The graph of a stage's network, for ONNX Runtime: shared by the stages classifier, features and metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from geoloc.models.batches import iter_batches
from geoloc.models.embedder import Embedder
from geoloc.models.export import ExportError, export_network
from orchestration.plan.chain import GRAPH_FILE
from orchestration.run.stage import StageRun

_PHOTOS = 32
"""Photos on which torch and the graph must agree."""


def export_to_output(
    run: StageRun, model: Embedder, photos: pd.DataFrame, weights: str = ""
) -> dict[str, str]:
    """Write the graph of `model` to the stage's output. Some of `photos`, stored in the pool, check it.

    Returns facts for people. A network that cannot be exported has no graph, and torch runs it: a warning says why.
    """
    return {"exported graph": export_to(run, model, photos, run.output / GRAPH_FILE, weights)}


def export_to(run: StageRun, model: Embedder, photos: pd.DataFrame, file: Path, weights: str = "") -> str:
    """As `export_to_output`, to any file. Returns what became of it, for people."""
    try:
        off = export_network(model, file, _some_images(run, model, photos), weights)
    except ExportError as error:
        run.log(f"warning: torch runs this network, because it cannot be exported to ONNX: {error}")
        return f"none: {error}"
    summary = f"{file.name}, outputs within {off:.1e} of torch's"
    run.log(f"exported to {summary}")
    return summary


def _some_images(run: StageRun, model: Embedder, photos: pd.DataFrame) -> torch.Tensor:
    """Some of the photos as the network gets them, uint8 [N, 3, S, S]; a black one if none is readable."""
    spread = np.unique(np.linspace(0, max(len(photos) - 1, 0), _PHOTOS).astype(int))
    rows = photos.iloc[spread[: len(photos)]]
    for batch in iter_batches(run.workspace.pool, rows, model.preprocess, _PHOTOS):
        if len(batch.row_indices):
            return batch.images
    size = model.preprocess.image_size
    return torch.zeros((1, 3, size, size), dtype=torch.uint8)
