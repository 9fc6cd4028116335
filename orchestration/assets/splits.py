"""Stage splits: the split of each photo (train, validation, a test set, or unused) and the reason, the use of each
validation photo, and the facts of each photo that later stages use, so that they need not read the pool."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.splits import FACTS, VALIDATION, make_splits, unit_keys
from geoloc.photos.trips import are_trips
from geoloc.photos.validation_parts import LEAST_PHOTOGRAPHERS, SHARED, validation_parts
from orchestration.plan.chain import SPLITS_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog = read_catalog(run.workspace.pool)
    splits = make_splits(catalog, run.settings.splits, run.settings.seed)
    # In the order of the catalog, so that new photos come last.
    photos = catalog[["photo_id", *FACTS]].merge(splits, on="photo_id", validate="1:1")
    # Whom a photo counts for is decided once, here: later stages see no albums, and trips in place of photographers.
    units = unit_keys(catalog, run.settings.splits)
    by_trip = are_trips(units)
    photos["photographer"] = units if by_trip else photos["photographer"].fillna(units)
    if by_trip:
        run.log(f"held out by trip ({units.nunique()} trips), which says nothing of other people's photos")
    held_out = (photos["split"] == VALIDATION) & photos["sha256"].notna()
    parts = validation_parts(photos[held_out], run.settings.seed)
    photos["validation_part"] = parts.reindex(photos.index)
    write_parquet(run.output / SPLITS_FILE, photos)
    sizes = (
        photos.groupby("split")
        .agg(
            photos=("photo_id", "size"),
            **{"trips" if by_trip else "photographers": ("photographer", "nunique")},
        )
        .reset_index()
    )
    unused = photos.loc[photos["split"] == "unused", "reason"].value_counts().sort_index()
    run.log(", ".join(f"{row.photos} {row.split}" for row in sizes.itertuples()))
    if (parts == SHARED).any():
        run.log(
            f"fewer than {LEAST_PHOTOGRAPHERS} validation photographers: the same photos choose the epoch, the "
            "temperatures and the regions"
        )
    return StageResult(
        {
            "sizes": sizes,
            "validation by use": parts.value_counts().rename_axis("use").reset_index(name="photos"),
            "unused by reason": unused.rename_axis("reason").reset_index(name="photos"),
            **{f"photos/{row.split}": int(row.photos) for row in sizes.itertuples()},
        }
    )
