"""Splits of street and overhead pairs: by city, with no photographer and no near-duplicate on two sides.

How a pair gets its split, highest priority first:
1. Cities are held out for test and for validation, by name or drawn from those with enough pairs; all others train. A
   pair without a city counts for a block of the Earth.
2. Test keeps all pairs of its cities. Validation leaves out what is too near to test, train what is too near to either:
   pairs by a photographer of the other side, near-duplicates of its street photos, equal bytes of its tiles, and pairs
   within apart_km.
What is left out has a reason. So has a pair whose pictures the pool no longer stores, one that repeats another pair
byte by byte, and one whose tile is no square.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.photos.catalog import CATALOG_FILE, empty_catalog, read_catalog
from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.photos.owners import photographer_keys
from geoloc.photos.pair_settings import PairSplitSettings
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.splits import TEST, TRAIN, UNUSED, VALIDATION, keyed_fractions, strata
from geoloc.settings import SettingsError
from geoloc.sphere import EARTH_RADIUS_KM, distance_km, unit_vectors

STREET, OVERHEAD = "street", "overhead"
PAIR_COLUMNS = (
    "pair_id", "photo_id", "overhead_id", "photographer", "latitude", "longitude", "tile_latitude", "tile_longitude",
    "metres_per_pixel", "heading", "heading_reference", "city", "split",
)  # fmt: skip
"""pair_id: both ids. latitude, longitude: of the street photo; tile_latitude, tile_longitude: of the tile's centre.
metres_per_pixel: of the tile as it is stored, NaN: unknown. heading: degrees clockwise from north in [0, 360), NaN:
unknown. heading_reference: true or magnetic, where the heading is known. city: the city or block that is held out
together. split: train, validation or test."""

PICTURE_COLUMNS = (
    "photo_id", "view", "photographer", "latitude", "longitude", "prob_indoor", "sha256", "width", "height",
)  # fmt: skip
"""view: street or overhead. The others are as the catalog has them, but the photographer of a street photo is whom it
counts for."""

_KEY = "cross_view.splits"
_FACTS = ("photo_id", "latitude", "longitude", "sha256", "phash", "width", "height", "prob_indoor")
_NAMED = 20  # cities that an error names


def joined_pairs(pool: Path) -> pd.DataFrame:
    """The pairs of a pool with the facts of both pictures, in the order of the pool.

    PAIR_COLUMNS without split, and sha256, phash, width, height, prob_indoor of the street photo, the same of the tile
    after `tile_`; `stored`: whether the pool stores both pictures. `city` is null where the pool has none.
    """
    pairs = read_pairs(pool)
    street = _pictures(pool, (*_FACTS, "source", "photographer", "album"))
    street["photographer"] = photographer_keys(street)
    street = street[[*_FACTS, "photographer"]]
    tiles = (
        _pictures(overhead_pool(pool), _FACTS)
        .add_prefix("tile_")
        .rename(columns={"tile_photo_id": "overhead_id"})
    )
    table = pairs.merge(street, on="photo_id", how="left", validate="m:1")
    table = table.merge(tiles, on="overhead_id", how="left", validate="m:1")
    known = table["heading"].notna()
    table["heading_reference"] = table["heading_reference"].astype("str").fillna("true").where(known)
    table["metres_per_pixel"] = table["tile_metres"] / table["tile_width"].to_numpy(
        np.float64, na_value=np.nan
    )
    table["pair_id"] = table["photo_id"].astype("str") + "+" + table["overhead_id"].astype("str")
    table["city"] = table["split_city"].astype("str")
    table["stored"] = table["sha256"].notna() & table["tile_sha256"].notna()
    return table.drop(columns=["split_city", "tile_metres"])


def split_pairs(table: pd.DataFrame, settings: PairSplitSettings, seed: int) -> pd.DataFrame:
    """The pairs of `joined_pairs` with `city` (a block where it was null), `split` and `reason`, in their order.

    `split` is train, validation, test or unused; `reason` says why a pair is unused and is null otherwise. The answer
    depends on the pairs, settings and seed, not on the order of rows.

    Raises SettingsError where a split that was asked for cannot be filled.
    """
    if table.empty:
        raise SettingsError(
            "cross_view needs pairs of street photos and overhead tiles, and the pool has none: add some with "
            "geoloc ingest pairs, cvusa, cvact, vigor or gtcrossview"
        )
    plan = _Plan(table.reset_index(drop=True), settings)
    plan.leave_out_faulty()
    plan.hold_out(seed if settings.seed is None else settings.seed)
    plan.keep_apart(VALIDATION, [TEST])
    plan.keep_apart(TRAIN, [TEST, VALIDATION])
    return plan.result()


def pictures_of(table: pd.DataFrame) -> pd.DataFrame:
    """The pictures of some pairs, PICTURE_COLUMNS, each once: street photos, then tiles, in the order of the pairs."""
    street = table.assign(view=STREET)[list(PICTURE_COLUMNS)].drop_duplicates("photo_id")
    ours = {"overhead_id": "photo_id"} | {
        f"tile_{name}": name for name in PICTURE_COLUMNS if name not in ("photo_id", "view", "photographer")
    }
    tiles = table[list(ours)].rename(columns=ours).assign(view=OVERHEAD, photographer=None)
    both = pd.concat([street, tiles.drop_duplicates("photo_id")[list(PICTURE_COLUMNS)]], ignore_index=True)
    return both.astype({"photographer": "str"})


class _Plan:
    """The state of one split as it is made: per pair its split and its reason."""

    def __init__(self, table: pd.DataFrame, settings: PairSplitSettings) -> None:
        self.table, self.settings = table, settings
        self.split = np.full(len(table), None, dtype=object)
        self.reason = np.full(len(table), None, dtype=object)
        self.city = table["city"].to_numpy(dtype=object, na_value=None).copy()

    def leave_out_faulty(self) -> None:
        """Pairs that no side can use."""
        table = self.table
        stored = table["stored"].to_numpy(bool)
        self._leave_out(~stored, "the pool no longer stores both pictures")
        square = (table["tile_width"] == table["tile_height"]).fillna(False).to_numpy(bool)
        self._leave_out(stored & ~square, "its tile is not square")
        order = table["pair_id"].argsort(kind="stable").to_numpy()
        again = np.zeros(len(table), np.bool_)
        again[order] = table.loc[order, ["sha256", "tile_sha256"]].duplicated().to_numpy()
        self._leave_out(self._undecided() & again, "another pair has the same two pictures")
        if not self._undecided().any():
            raise SettingsError(
                f"cross_view needs pairs, and none of {len(table)} can be used: {self._told()}"
            )

    def hold_out(self, seed: int) -> None:
        """Give each city its side."""
        rows = np.flatnonzero(self._undecided())
        used = self.table.iloc[rows]
        blocks = strata(used["latitude"], used["longitude"], self.settings.block_level)
        self.city[rows] = [
            f"block {b}" if n is None else n for n, b in zip(self.city[rows], blocks, strict=True)
        ]
        sizes = pd.Series(self.city[rows]).value_counts()
        test = self._chosen("test", sizes, set(), seed)
        validation = self._chosen("validation", sizes, test, seed)
        if not set(sizes.index) - test - validation:
            raise SettingsError(
                f"{_KEY} holds out all {len(sizes)} cities with pairs, and none is left to train on: hold out fewer"
            )
        for name, cities in ((TEST, test), (VALIDATION, validation)):
            self.split[rows[np.isin(self.city[rows].astype(str), list(cities))]] = name
        self.split[self._undecided()] = TRAIN

    def _chosen(self, side: str, sizes: pd.Series, taken: set[str], seed: int) -> set[str]:
        wanted: int | tuple[str, ...] = getattr(self.settings, side)
        if isinstance(wanted, tuple):
            for city in wanted:
                if city not in sizes.index:
                    known = ", ".join(map(str, sizes.index[:_NAMED])) + (
                        ", ..." if len(sizes) > _NAMED else ""
                    )
                    raise SettingsError(f"{_KEY}.{side} must name cities with pairs: {known}; got {city!r}")
            return set(wanted)
        named = self.settings.validation if isinstance(self.settings.validation, tuple) else ()
        large = sorted(set(sizes.index[sizes >= self.settings.least_pairs]) - taken - set(named))
        if wanted > len(large):
            raise SettingsError(
                f"{_KEY}.{side} must be at most the number of cities with {self.settings.least_pairs} pairs that are "
                f"left, {len(large)}; got {wanted}: hold out fewer, name them, or lower {_KEY}.least_pairs"
            )
        drawn = np.argsort(keyed_fractions(large, seed, "pair city"), kind="stable")[:wanted]
        return {large[i] for i in drawn}

    def keep_apart(self, side: str, others: list[str]) -> None:
        """Leave out the pairs of a side that are too near to pairs of others."""
        table = self.table
        held = np.isin(self.split.astype(str), others)
        name = " or ".join(others)

        def shared(keys: pd.Series) -> NDArray[np.bool_]:
            return keys.isin(set(keys[held])).to_numpy(bool)

        def leave_out(rows: NDArray[np.bool_], reason: str) -> None:
            self._leave_out((self.split == side) & rows, reason)

        leave_out(shared(table["photographer"]), f"its photographer has pairs in {name}")
        leave_out(shared(table["tile_sha256"]), f"its tile is one of {name}")
        some = np.flatnonzero(held | (self.split == side))
        groups = near_duplicate_groups(
            table["phash"].iloc[some].reset_index(drop=True),
            table["sha256"].iloc[some].reset_index(drop=True),
            self.settings.max_hamming,
        )
        near = np.zeros(len(table), np.bool_)
        near[some] = np.isin(groups, groups[held[some]])
        leave_out(near, f"its street photo is a near-duplicate of one of {name}")
        leave_out(self._near(held, side), f"within {self.settings.apart_km:g} km of a pair of {name}")
        if not (self.split == side).any():
            raise SettingsError(f"{_KEY} leaves no pair for {side}: {self._told()}; hold out other cities")

    def _near(self, held: NDArray[np.bool_], side: str) -> NDArray[np.bool_]:
        """Which pairs of a side are within apart_km (<=) of a pair that is held."""
        from scipy.spatial import cKDTree  # imported here, as in splits: scipy takes 0.2 s

        near = np.zeros(len(self.table), np.bool_)
        radius = self.settings.apart_km
        rows, there = np.flatnonzero(self.split == side), np.flatnonzero(held)
        if radius == 0 or not len(rows) or not len(there):
            return near
        latitude, longitude = (self.table[name].to_numpy(np.float64) for name in ("latitude", "longitude"))
        chord = 2 * np.sin(min(radius / EARTH_RADIUS_KM, np.pi) / 2)
        tree = cKDTree(unit_vectors(latitude[there], longitude[there]))
        _, nearest = tree.query(
            unit_vectors(latitude[rows], longitude[rows]), distance_upper_bound=chord * (1 + 1e-9) + 1e-9
        )
        found = nearest < len(there)
        rows, there = rows[found], there[nearest[found]]
        km = distance_km(latitude[rows], longitude[rows], latitude[there], longitude[there])
        near[rows[km <= radius]] = True
        return near

    def result(self) -> pd.DataFrame:
        """The pairs with city, split and reason."""
        told = {"city": self.city, "split": self.split, "reason": self.reason}
        return self.table.assign(**{name: pd.Series(values).astype("str") for name, values in told.items()})

    def _told(self) -> str:
        """Why pairs were left out, the most frequent reason first."""
        why = pd.Series(self.reason, dtype=object).dropna().value_counts()
        return ", ".join(f"{reason} ({count})" for reason, count in why.items())

    def _undecided(self) -> NDArray[np.bool_]:
        return np.asarray(pd.isna(self.split))

    def _leave_out(self, rows: NDArray[np.bool_], reason: str) -> None:
        self.split[rows] = UNUSED
        self.reason[rows] = reason


def _pictures(pool: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """The stored pictures of a pool; none for a pool without a catalog."""
    there = (pool / CATALOG_FILE).is_file()
    catalog = read_catalog(pool, columns) if there else empty_catalog()[list(columns)]
    return catalog[catalog["sha256"].notna()].reset_index(drop=True)
