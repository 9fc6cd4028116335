"""Principal components of a stage's embeddings: shared by the stages that make some."""

from __future__ import annotations

import pandas as pd

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.retrieval.settings import PcaSettings
from orchestration.run.stage import StageResult, StageRun


def reduced(
    run: StageRun, photos: pd.DataFrame, settings: PcaSettings | None, key: str = "embeddings.pca"
) -> StageResult:
    """Fit the principal components that `settings`, named `key`, ask for to the output's embeddings of training photos,
    and store them beside these; no-op for None. Returns facts of the embeddings."""
    facts = {}
    embeddings = Embeddings.load(run.output)
    if settings is not None:
        train = photos.loc[photos["split"] == "train", "photo_id"]
        position = embeddings.positions(train)
        size = embeddings.vectors.shape[1]
        pca = Pca.fit(embeddings.vectors[position[position >= 0]], settings, key)
        pca.save(run.output / PCA_FILE)
        embeddings = Embeddings.load(run.output)
        share = float(pca.explained.sum())
        facts = {"principal components": f"{pca.dimensions} of {size}, {share:.1%} of the variance"}
        run.log(f"principal components: {facts['principal components']}")
    run.log(repr(embeddings))
    return StageResult(
        {
            "photos": len(embeddings),
            "dimensions": int(embeddings.vectors.shape[1]),
            **facts,
            "unreadable": len(embeddings.unreadable),
        }
    )
