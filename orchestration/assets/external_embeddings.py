"""Stage external_embeddings: embeddings that another program made, matched with the photos by id."""

from __future__ import annotations

from geoloc.files import content_hash
from geoloc.retrieval.embeddings import write_embeddings
from geoloc.retrieval.external import FeaturesError, read_features
from geoloc.settings import SettingsError
from orchestration.assets.inputs import read_photos, stored
from orchestration.assets.reducing import reduced
from orchestration.plan.settings import external_files
from orchestration.run.stage import StageResult, StageRun

NAMED = 3
"""Missing photos that are named."""


def build(run: StageRun) -> StageResult:
    files, settings = external_files(run.workspace, run.settings), run.settings.embeddings.external
    if settings is None:
        raise SettingsError(f"embeddings.external must be a section, which {run.build.recipe} does not have")
    features = read_features(*files)
    photos = stored(read_photos(run.input("splits")))
    position = features.positions(photos["photo_id"])
    missing = photos.loc[position < 0, "photo_id"]
    if len(missing) == len(photos):
        theirs, ours = (", ".join(ids[:NAMED]) for ids in (features.ids, photos["photo_id"]))
        raise FeaturesError(
            f"{features.name} has none of the {len(photos)} photos: its ids are such as {theirs}, theirs such as {ours}"
        )
    summary = f"{len(missing)} of {len(photos)} photos"
    if len(missing):
        summary += f", such as {', '.join(missing[:NAMED])}"
        run.log(
            f"warning: {features.name} lacks {summary}; they are no references, and as queries have no answer"
        )
    write_embeddings(
        run.output,
        photos.assign(shard="", offset=0, length=0),
        lambda rows: features.units(position[rows]),
        [None if at >= 0 else f"not in {features.name}" for at in position],
        run.settings.embeddings,
        content_hash(*files),
    )
    return StageResult(
        {
            **reduced(run, photos, settings.pca, "embeddings.external.pca").metadata,
            "missing in the file": summary,
            "not in the pool": len(features.ids) - int((position >= 0).sum()),
        }
    )
