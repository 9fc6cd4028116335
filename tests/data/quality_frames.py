"""Small good data of every stage, from which the tests of quality spoil one thing at a time."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from geoloc.photos.split_checks import CheckResult

CHECKS = (
    "every_photo_once",
    "no_empty_split",
    "sizes_as_asked",
    "photographer_disjoint",
    "no_exact_duplicate_straddles",
    "no_near_duplicate_straddles",
    "external_sets_apart",
    "radius_respected",
    "strata_cap",
)


def good_catalog(photos: int = 40) -> pd.DataFrame:
    """A catalog without fault; every fourth photo is metadata only, the rest lie end to end in two shards."""
    rng = np.random.default_rng(7)
    i = np.arange(photos)
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(photos)]
    taken = pd.Timestamp("2012-05-01") + pd.to_timedelta(i, unit="h")
    length = rng.integers(900, 1100, photos)
    frame = pd.DataFrame(
        {
            "photo_id": [f"p{n:03}" for n in range(photos)],
            "source": "folder",
            "photographer": [f"who{n % 8}" for n in range(photos)],
            # all within a day's walk, so that nobody travels too fast, whoever took them
            "latitude": np.linspace(48.1, 48.3, photos),
            "longitude": rng.uniform(16.2, 16.5, photos),
            "taken_at": taken.astype("datetime64[us]"),
            "posted_at": (taken + pd.Timedelta(days=2)).astype("datetime64[us]"),
            "album": [f"album{n % 10}" for n in range(photos)],
            "heading": np.where(i % 3 == 0, np.nan, (i * 37) % 360).astype(np.float32),
            "prob_indoor": (i / photos).astype(np.float32),
            "licence": "CC-BY-2.0",
            "width": pd.array([640] * photos, dtype="Int32"),
            "height": pd.array([480] * photos, dtype="Int32"),
            "sha256": digests,
            "phash": [digest[:16] for digest in digests],
            "shard": [f"shards/00000{n % 2}.tar" for n in range(photos)],
            "offset": pd.array(512 + 1100 * (i // 2), dtype="Int64"),
            "length": pd.array(length, dtype="Int64"),
        }
    )
    frame.loc[::4, ["width", "height", "sha256", "phash", "shard", "offset", "length"]] = None
    return frame


def good_splits(catalog: pd.DataFrame) -> pd.DataFrame:
    """Photographers who6 validate, who7 test, the rest train."""
    number = catalog["photographer"].str[3:].astype(int)
    split = np.select([number == 6, number == 7], ["validation", "test"], default="train")
    reason = pd.Series([None] * len(catalog), dtype="str")
    return pd.DataFrame({"photo_id": catalog["photo_id"], "split": split, "reason": reason})


def good_checks() -> list[CheckResult]:
    return [CheckResult(name, True, 0, "fine") for name in CHECKS]


PLACES = np.array([[-40.0, 10.0], [0.0, 0.0], [48.2, 16.4], [60.0, -170.0]])


class FakePartition:
    """A partition into cells of one degree around given points; the interface of geoloc.partitions.base."""

    def __init__(self) -> None:
        self.kind = "s2"
        self.points = PLACES.copy()
        self.names = ["1", "89c25c", "476d04", "b4"]
        self.counts = np.array([5, 1, 7, 3])

    def tokens(self) -> list[str]:
        return self.names

    def photo_counts(self) -> np.ndarray:
        return self.counts

    def centroids(self) -> np.ndarray:
        return self.points

    def assign(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        near = (np.abs(latitude[:, None] - PLACES[:, 0]) < 1) & (
            np.abs(longitude[:, None] - PLACES[:, 1]) < 1
        )
        return np.where(near.any(axis=1), near.argmax(axis=1), -1).astype(np.int32)


def good_vectors(photos: int = 30, size: int = 16) -> np.ndarray:
    """L2-normalised float16 vectors that differ."""
    vectors = np.random.default_rng(5).normal(size=(photos, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def good_pairs(pairs: int = 30) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Pairs in three cities, one for each side, their pictures, and the catalogs of street photos and of tiles."""
    i = np.arange(pairs)
    side = i % 3
    table = pd.DataFrame(
        {
            "pair_id": [f"p{n:03}+o{n:03}" for n in i],
            "photo_id": [f"p{n:03}" for n in i],
            "overhead_id": [f"o{n:03}" for n in i],
            "photographer": [f"who{n % 6}" for n in i],  # two a side
            "latitude": 48.1 + 0.01 * i,
            "longitude": 16.2 + side,
            "tile_latitude": 48.1 + 0.01 * i + 0.0003,  # 33 m north
            "tile_longitude": 16.2 + side,
            "metres_per_pixel": np.where(i < 20, 1.0, np.nan),
            "heading": np.where(i % 4 == 0, np.nan, (i * 37) % 360),
            "heading_reference": np.where(i % 4 == 0, None, "true"),
            "city": [f"city{n}" for n in side],
            "split": np.array(["train", "validation", "test"])[side],
        }
    )
    views = {"street": table["photo_id"], "overhead": table["overhead_id"]}
    pictures = pd.concat(
        [
            pd.DataFrame({"photo_id": ids, "view": view, "photographer": table["photographer"]})
            for view, ids in views.items()
        ],
        ignore_index=True,
    )
    pictures["sha256"] = [hashlib.sha256(one.encode()).hexdigest() for one in pictures["photo_id"]]
    pictures = pictures.assign(latitude=48.1, longitude=16.2, prob_indoor=0.1, width=128, height=128)
    catalogs = (pictures.loc[pictures["view"] == view, ["photo_id", "sha256"]] for view in views)
    return table, pictures, *catalogs
