"""Stage splits: the split of each photo (train, validation, a test set, or unused) and the reason, with the facts of
each photo that later stages use, so that they need not read the pool."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.splits import FACTS, make_splits, unit_keys
from geoloc.photos.trips import are_trips
from orchestration.plan.chain import SPLITS_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog = read_catalog(run.workspace.pool)
    splits = make_splits(catalog, run.settings.splits, run.settings.seed)
    # In the order of the catalog, so that new photos come last.
    photos = catalog[["photo_id", *FACTS]].merge(splits, on="photo_id", validate="1:1")
    units = unit_keys(catalog, run.settings.splits)
    owners = "trips" if are_trips(units) else "photographers"
    if are_trips(units):
        # Later stages see trips in place of photographers: what they resample, and leave out.
        photos["photographer"] = units
        run.log(f"held out by trip ({units.nunique()} trips), which says nothing of other people's photos")
    write_parquet(run.output / SPLITS_FILE, photos)
    sizes = (
        photos.groupby("split")
        .agg(photos=("photo_id", "size"), **{owners: ("photographer", "nunique")})
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
