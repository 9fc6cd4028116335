"""The embeddings of another recipe that a training distils.

Apart from the stage, so that a change in how embeddings are extracted is no change of the training: what they hold is
an input, and counts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.retrieval.embeddings import Embeddings
from orchestration.plan.chain import output_folder
from orchestration.run.stage import StageRun
from orchestration.workspace import WorkspaceError


def teacher_embeddings(run: StageRun, photos: pd.DataFrame) -> NDArray[np.float32] | None:
    """The embeddings of the photos that training.distillation names, [N, D], NaN where a photo has none."""
    chosen = run.settings.training.distillation
    if chosen is None:
        return None
    folder = output_folder(run.workspace, chosen.recipe, "embeddings") / chosen.model
    if not folder.is_dir():
        raise WorkspaceError(
            f"{chosen.recipe} has no embeddings by its {chosen.model}: see its embeddings.models"
        )
    embeddings = Embeddings.load(folder)
    position = embeddings.positions(photos["photo_id"])
    taught = np.full((len(photos), embeddings.vectors.shape[1]), np.nan, dtype=np.float32)
    taught[position >= 0] = embeddings.vectors[position[position >= 0]]
    return taught
