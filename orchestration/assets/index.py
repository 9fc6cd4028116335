"""Stage index: one FAISS index per model, with the training photos as references."""

from __future__ import annotations

from typing import Any

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import NEAR_DUPLICATES, ReferenceIndex
from orchestration.assets.inputs import embedding_folders, read_photos, stored
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    photos = stored(read_photos(run.input("splits")))
    # Queries are no near-duplicates of references: the splits saw to it.
    references = photos[photos["split"] == "train"].drop(columns=NEAR_DUPLICATES)
    facts: dict[str, Any] = {}
    for model, folder in embedding_folders(run.build).items():
        index = ReferenceIndex.build(
            Embeddings.load(folder), references, run.settings.index, run.settings.seed
        )
        index.save(run.output / model)
        run.log(f"{model}: {index!r}")
        facts |= {
            f"{model}/references": len(index),
            f"{model}/factory": index.factory,
            f"{model}/without embedding": index.without_embedding,
        }
    return StageResult(facts)
