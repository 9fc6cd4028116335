"""Stage index: the training photos as references, one FAISS index a model."""

from __future__ import annotations

from typing import Any

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from orchestration.assets.inputs import photos_with_split
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    photos = photos_with_split(run.workspace.pool, run.input("splits"))
    references = photos[(photos["split"] == "train") & photos["shard"].notna()]
    facts: dict[str, Any] = {}
    for folder in sorted(path for path in run.input("embeddings").iterdir() if path.is_dir()):
        index = ReferenceIndex.build(
            Embeddings.load(folder), references, run.settings.index, run.settings.seed
        )
        index.save(run.output / folder.name)
        run.log(f"{folder.name}: {index!r}")
        facts |= {
            f"{folder.name}/references": len(index),
            f"{folder.name}/factory": index.factory,
            f"{folder.name}/without embedding": index.without_embedding,
        }
    return StageResult(facts)
