"""Stage splits: which photo is for training, validation, testing, or none of them, and why."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.splits import make_splits
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog = read_catalog(run.workspace.pool)
    splits = make_splits(catalog, run.settings.splits, run.settings.seed)
    write_parquet(run.output / "splits.parquet", splits)
    sizes = (
        splits.merge(catalog[["photo_id", "photographer"]], on="photo_id")
        .groupby("split")
        .agg(photos=("photo_id", "size"), photographers=("photographer", "nunique"))
        .reset_index()
    )
    unused = splits.loc[splits["split"] == "unused", "reason"].value_counts().sort_index()
    run.log(", ".join(f"{row.photos} {row.split}" for row in sizes.itertuples()))
    return StageResult(
        {
            "sizes": sizes,
            "unused by reason": unused.rename_axis("reason").reset_index(name="photos"),
            **{f"photos/{row.split}": int(row.photos) for row in sizes.itertuples()},
        }
    )
