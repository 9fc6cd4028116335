"""Part planet of cuda.py: more pairs of the sample planet than the committed sample has, drawn by all processors."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from geoloc.files import write_parquet
from geoloc.photos.pair_settings import PairSplitSettings
from geoloc.photos.pair_splits import split_pairs
from geoloc.photos.shards import ShardWriter
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
SPLITS = PairSplitSettings(test=10, validation=4, least_pairs=40)
SHARD, PAIRS = "photos-000000.tar", "pairs.parquet"
_CHUNK = 16


def shots(photos: int) -> pd.DataFrame:
    """The shots with a tile among `photos` photos, as geoloc.sample draws them."""
    from geoloc.sample.dirt import soiled
    from geoloc.sample.people import make_shots

    table = soiled(make_shots(photos, SEED, SETTINGS), SETTINGS.dirt, SEED, 1)
    return table.loc[tile_records(table).index].reset_index(drop=True)


def draw(options: argparse.Namespace) -> str:
    """Draw --pairs pairs of --shots into the folder --planet: pools street/ and overhead/, and PAIRS."""
    folder: Path = options.planet
    table = shots(int(options.pairs * 1.2)) if options.shots is None else pd.read_parquet(options.shots)
    table = table.sample(min(options.pairs, len(table)), random_state=0).reset_index(drop=True)
    chunks = [table.iloc[start : start + _CHUNK] for start in range(0, len(table), _CHUNK)]
    views = {
        "street": partial(photo_jpegs, size=SIZE),
        "overhead": partial(tile_jpegs, seed=SEED, size=SIZE, metres_per_pixel=1.0),
    }
    stored = {}
    with ProcessPoolExecutor(processors(), mp_context=get_context("spawn")) as pool:
        drawn = {view: list(pool.map(make, chunks)) for view, make in views.items()}
    for view, pictures in drawn.items():
        with ShardWriter(folder / view, SHARD) as shard:
            places = []
            for name, data in zip(
                table["photo_id"], (one for chunk in pictures for one in chunk), strict=True
            ):
                places.append((*shard.add(f"{view[0]}-{name}", data), sha256(data).hexdigest()))
        stored[view] = pd.DataFrame(places, columns=["offset", "length", "sha256"])
    ids = table["photo_id"].astype("str")
    made = pd.DataFrame(
        {
            "pair_id": ids + "+o-" + ids, "photo_id": "s-" + ids, "overhead_id": "o-" + ids,
            "photographer": table["photographer"], "latitude": table["latitude"], "longitude": table["longitude"],
            "tile_latitude": table["latitude"], "tile_longitude": table["longitude"], "metres_per_pixel": 1.0,
            "heading": table["heading"], "heading_reference": "true", "city": table["city_name"].astype("str"),
            "sha256": stored["street"]["sha256"], "tile_sha256": stored["overhead"]["sha256"], "phash": None,
            "tile_width": SIZE, "tile_height": SIZE, "stored": True,
        }
    )  # fmt: skip
    split = split_pairs(made, SPLITS, SEED)
    for view, places in stored.items():
        split = split.assign(**{f"{view}_{name}": places[name] for name in ("offset", "length")})
    write_parquet(folder / PAIRS, split.drop(columns="phash"))
    counts = split.groupby("split").agg(pairs=("pair_id", "size"), cities=("city", "nunique"))
    mb = sum(float(np.sum(places["length"])) for places in stored.values()) / 1e6
    text = ", ".join(f"{row.pairs:,} {row.Index} in {row.cities} cities" for row in counts.itertuples())
    return f"{text}; {mb:.0f} MB"
