"""Stage pairs: the split of each pair of a street photo and an overhead tile, and the facts of both that later stages
use, so that they need not read the pool."""

from __future__ import annotations

from geoloc.files import write_parquet
from geoloc.photos.pair_splits import PAIR_COLUMNS, joined_pairs, pictures_of, split_pairs
from geoloc.photos.quarantine import PAIR, read_quarantine
from geoloc.photos.splits import UNUSED
from orchestration.assets.inputs import cross_view_settings
from orchestration.plan.chain import LEFT_OUT_FILE, PAIRS_FILE, PICTURES_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    table = split_pairs(
        joined_pairs(run.workspace.pool), cross_view_settings(run.build).splits, run.settings.seed
    )
    used = table[table["split"] != UNUSED].reset_index(drop=True)
    left_out = table[table["split"] == UNUSED]
    write_parquet(run.output / PAIRS_FILE, used[list(PAIR_COLUMNS)])
    write_parquet(run.output / PICTURES_FILE, pictures_of(used))
    columns = ["pair_id", "photo_id", "overhead_id", "city", "reason"]
    write_parquet(run.output / LEFT_OUT_FILE, left_out[columns].reset_index(drop=True))
    sizes = (
        used.groupby("split")
        .agg(
            pairs=("pair_id", "size"),
            cities=("city", "nunique"),
            photographers=("photographer", "nunique"),
            without_heading=("heading", lambda heading: int(heading.isna().sum())),
        )
        .reset_index()
    )
    cities = used.groupby(["split", "city"]).size().rename("pairs").reset_index()
    away = read_quarantine(run.workspace.pool)
    turned_away = away.loc[away["severity"] == PAIR, "reason"].value_counts().sort_index()
    run.log(", ".join(f"{row.pairs} {row.split} pairs in {row.cities} cities" for row in sizes.itertuples()))
    if len(left_out):
        run.log(f"{len(left_out)} of {len(table)} pairs are left out")
    if unknown := int(used["heading"].isna().sum()):
        run.log(f"{unknown} pairs have no heading: they do not train the orientation")
    return StageResult(
        {
            "sizes": sizes,
            "cities": cities.sort_values(["split", "pairs"], ascending=[True, False], ignore_index=True),
            "left out by reason": left_out["reason"]
            .value_counts()
            .rename_axis("reason")
            .reset_index(name="pairs"),
            "quarantined by reason": turned_away.rename_axis("reason").reset_index(name="pairs"),
            "pairs/without heading": unknown,
            "pairs/without size of the tile": int(used["metres_per_pixel"].isna().sum()),
            **{f"pairs/{row.split}": int(row.pairs) for row in sizes.itertuples()},
        }
    )
