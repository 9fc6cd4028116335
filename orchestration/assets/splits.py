"""Stage splits: the split of each photo (train, validation, a test set, or unused) and the reason, with the facts of
each photo that later stages use, so that they need not read the pool."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.owners import photographer_keys
from geoloc.photos.splits import FACTS, make_splits
from orchestration.assets.inputs import SPLITS_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog = read_catalog(run.workspace.pool)
    splits = make_splits(catalog, run.settings.splits, run.settings.seed)
    # In the order of the catalog, so that new photos come last.
    photos = catalog[["photo_id", *FACTS]].merge(splits, on="photo_id", validate="1:1")
    # Whom a photo without photographer counts for is decided once, here: later stages see no albums.
    photos["photographer"] = photos["photographer"].fillna(photographer_keys(catalog))
    write_parquet(run.output / SPLITS_FILE, photos)
    sizes = (
        photos.groupby("split")
        .agg(photos=("photo_id", "size"), photographers=("photographer", "nunique"))
        .reset_index()
    )
    unused = photos.loc[photos["split"] == "unused", "reason"].value_counts().sort_index()
    run.log(", ".join(f"{row.photos} {row.split}" for row in sizes.itertuples()))
    return StageResult(
        {
            "sizes": sizes,
            "unused by reason": unused.rename_axis("reason").reset_index(name="photos"),
            **{f"photos/{row.split}": int(row.photos) for row in sizes.itertuples()},
        }
    )
