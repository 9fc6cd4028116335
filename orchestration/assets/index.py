"""Stage index: one FAISS index per model, with the training photos as references."""

from __future__ import annotations

from typing import Any

import pandas as pd

from geoloc.photos.growth import REFERENCE
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.growth import grow
from geoloc.retrieval.index import NEAR_DUPLICATES, ReferenceIndex
from orchestration.assets.inputs import embedding_folders, stored, with_newcomers
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    photos = stored(with_newcomers(run))
    # Queries are no near-duplicates of references: the splits saw to it.
    references = photos[photos["split"].isin(["train", REFERENCE])].drop(columns=NEAR_DUPLICATES)
    facts: dict[str, Any] = {}
    for model, folder in embedding_folders(run.build).items():
        index, history = _made(run, model, Embeddings.load(folder), references)
        index.save(run.output / model)
        run.log(f"{model}: {index!r}; search: {index.tuned}")
        facts |= {
            f"{model}/references": len(index),
            f"{model}/factory": index.factory,
            f"{model}/reason": index.reason,
            f"{model}/search": str(index.tuned),
            f"{model}/without embedding": index.without_embedding,
        }
        if history:
            run.log(f"{model}: {history}")
            facts[f"{model}/history"] = history
        if index.retraining:
            run.log(f"{model}: train the index again: {index.retraining}")
            facts[f"{model}/retraining"] = index.retraining
        recall, wanted = index.tuned.recall, run.settings.index.recall
        if recall is not None and recall < wanted:
            run.log(f"{model}: no search tried reaches index.recall {wanted:g}; the best has {recall:.3f}")
    return StageResult(facts)


def _made(
    run: StageRun, model: str, embeddings: Embeddings, references: pd.DataFrame
) -> tuple[ReferenceIndex, str]:
    """An index of the references, and how it grew if the settings let it."""
    settings, seed = run.settings.index, run.settings.seed
    if not settings.grow:
        return ReferenceIndex.build(embeddings, references, settings, seed), ""
    # The output before this one: no input, and the only stage that looks at one. `index.grow` says that it counts.
    return grow(run.build.folder("index") / model, embeddings, references, settings, seed)
