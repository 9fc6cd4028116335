"""Part planet of cuda.py: more pairs of the sample planet than the committed sample has, drawn by all processors."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from geoloc.files import write_parquet
from geoloc.photos.pair_settings import PairSplitSettings
from geoloc.photos.pair_splits import split_pairs
from geoloc.photos.shards import ShardWriter
from geoloc.photos.splits import UNUSED
from geoloc.processors import processors
from geoloc.sample.generate import photo_jpegs, tile_jpegs
from geoloc.sample.records import tile_records
from geoloc.sample.settings import NO_DIRT, SampleSettings

SEED, SIZE = 7, 128
SETTINGS = SampleSettings(
    overhead_share=0.9, no_cue_share=0.0, burst_share=0.0, exact_copy_share=0.0, near_copy_share=0.0,
    rural_share=0.0, dirt=NO_DIRT,
)  # fmt: skip
"""Outdoor photos of cities, nearly all with a tile. The committed sample has pairs of a quarter of the outdoor ones."""
SHARD, PAIRS = "photos-000000.tar", "pairs.parquet"
_CHUNK = 16


def shots(photos: int) -> pd.DataFrame:
    """The shots with a tile among `photos` photos, as geoloc.sample draws them."""
    from geoloc.sample.dirt import soiled
    from geoloc.sample.people import make_shots

    table = soiled(make_shots(photos, SEED, SETTINGS), SETTINGS.dirt, SEED, 1)
    return table.loc[tile_records(table).index].reset_index(drop=True)


def split(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs of shots, split by city. All pictures differ, so that ids stand for their hashes."""
    ids = table["photo_id"].astype("str")
    made = pd.DataFrame(
        {
            "pair_id": ids + "+o-" + ids, "photo_id": "s-" + ids, "overhead_id": "o-" + ids,
            "photographer": table["photographer"], "latitude": table["latitude"], "longitude": table["longitude"],
            "tile_latitude": table["latitude"], "tile_longitude": table["longitude"], "metres_per_pixel": 1.0,
            "heading": table["heading"], "heading_reference": "true", "city": table["city_name"].astype("str"),
            "sha256": ids, "tile_sha256": ids, "phash": None, "tile_width": SIZE, "tile_height": SIZE, "stored": True,
        }
    )  # fmt: skip
    settings = PairSplitSettings(test=10, validation=4, least_pairs=max(5, len(table) // 200))
    return split_pairs(made, settings, SEED).drop(columns="phash")


def draw(options: argparse.Namespace) -> str:
    """Draw those of --pairs pairs of --shots that have a split into the folder --planet: pools street/ and overhead/,
    and PAIRS."""
    folder: Path = options.planet
    table = shots(int(options.pairs * 1.2)) if options.shots is None else pd.read_parquet(options.shots)
    table = table.sample(min(options.pairs, len(table)), random_state=0).reset_index(drop=True)
    made = split(table)
    used = made["split"] != UNUSED
    table, made = table[used], made[used].reset_index(drop=True)
    chunks = [table.iloc[start : start + _CHUNK] for start in range(0, len(table), _CHUNK)]
    views = {
        "street": partial(photo_jpegs, size=SIZE),
        "overhead": partial(tile_jpegs, seed=SEED, size=SIZE, metres_per_pixel=1.0),
    }
    with ProcessPoolExecutor(processors(), mp_context=get_context("spawn")) as pool:
        drawn = {view: pool.map(make, chunks) for view, make in views.items()}
        for view, pictures in drawn.items():
            with ShardWriter(folder / view, SHARD) as shard:
                every = (one for chunk in pictures for one in chunk)
                places = [shard.add(str(i), data) for i, data in enumerate(every)]
            made[[f"{view}_offset", f"{view}_length"]] = places
    write_parquet(folder / PAIRS, made)
    counts = made.groupby("split").agg(pairs=("pair_id", "size"), cities=("city", "nunique"))
    mb = float(made[["street_length", "overhead_length"]].to_numpy().sum()) / 1e6
    text = ", ".join(f"{row.pairs:,} {row.Index} in {row.cities} cities" for row in counts.itertuples())
    return f"{text}; {mb:.0f} MB"
