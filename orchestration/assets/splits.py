"""Stage splits: the split of each photo (train, validation, a test set, or unused) and the reason, the use of each
validation photo, and the facts of each photo that later stages use, so that they need not read the pool."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.duplicates import large_groups
from geoloc.photos.splits import FACTS, VALIDATION, make_splits, unit_keys
from geoloc.photos.trips import are_trips
from geoloc.photos.validation_parts import LEAST_PHOTOGRAPHERS, SHARED, validation_parts
from orchestration.assets.inputs import SOURCE
from orchestration.plan.chain import SPLITS_FILE
from orchestration.run.stage import StageResult, StageRun

LARGE_GROUPS_SHOWN = 20


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
    if catalog["source"].nunique() > 1:  # of one source it says nothing
        photos[SOURCE] = catalog[SOURCE]
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
    most = run.settings.splits.max_group
    large = large_groups(photos["near_duplicates"], most)
    if len(large):
        run.log(
            f"near-duplicates: {len(large)} groups have more than {most} photos, the largest {large.iloc[0]} (as "
            f"{large.index[0]}): they only train; splits.max_hamming may be too large for these photos"
        )
    return StageResult(
        {
            "large groups of near-duplicates": large.head(LARGE_GROUPS_SHOWN)
            .rename_axis("such as")
            .reset_index(),
            "sizes": sizes,
            "validation by use": parts.value_counts().rename_axis("use").reset_index(name="photos"),
            "unused by reason": unused.rename_axis("reason").reset_index(name="photos"),
            **{f"photos/{row.split}": int(row.photos) for row in sizes.itertuples()},
        }
    )
