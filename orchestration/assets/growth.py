"""Stage growth: the photos that came after the splits were made and wait for the next training; some are references."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.growth import REFERENCE, newcomers
from orchestration.assets.inputs import SOURCE, read_photos
from orchestration.plan.chain import SPLITS_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog, splits = read_catalog(run.workspace.pool), read_photos(run.input("splits"))
    found = newcomers(catalog, splits, run.settings.splits, run.settings.seed)
    if catalog["source"].nunique() > 1:
        found[SOURCE] = catalog.set_index("photo_id")[SOURCE].reindex(found["photo_id"]).to_numpy()
    write_parquet(run.output / SPLITS_FILE, found)
    references = int((found["split"] == REFERENCE).sum())
    run.log(f"{len(found)} photos wait for the next training, {references} of them are references already")
    return StageResult({"photos that wait": len(found), "of them references": references})
