"""Which photos of a collection a gallery shows, a few of every kind by seed; and the counts of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.places import NEAR_KM, place_table
from geoloc.reports.banner import SAMPLE_SOURCE
from geoloc.reports.examples import thumbnail
from geoloc.reports.gallery import GalleryGroup, GalleryInput, GalleryPair, GalleryPhoto

SAMPLE_ABOUT = (
    "The sample planet is drawn by a program (geoloc sample). Its land, its cities and the course of its sun are those "
    "of the Earth; its streets, houses and people are made up. Where each photo was taken is known exactly, and some "
    "dirt (wrong places, wrong times, copies) is there on purpose."
)

Picture = Callable[[str, int, int], bytes]
"""Bytes of a picture at (shard, offset, length), as ShardReader.read."""

CONTINENT_PHOTOS, ALBUMS, ALBUM_PHOTOS, PAIRS, GROUPS, GROUP_PHOTOS, NO_CUE = 8, 4, 8, 9, 4, 4, 8
BURST_SECONDS = 60
_SIDE, _QUALITY = 144, 74
_LEAST_INDOOR = 0.5
_MAX_HAMMING = 6


def gather_gallery(
    data_version: str,
    banners: tuple[str, ...],
    photos: pd.DataFrame,
    pairs: pd.DataFrame,
    tiles: pd.DataFrame,
    read_photo: Picture,
    read_tile: Picture,
    *,
    seed: int = 0,
    turned_away: int = 0,
) -> GalleryInput:
    """What gallery.html shows of a pool.

    `photos` and `tiles` are catalogs (geoloc.photos.catalog; of tiles an empty frame will do), `pairs` has the columns
    of geoloc.photos.pairs. Photos known by metadata only are on the map and in the counts, and are not shown. The
    same arguments give the same gallery. Memory and time grow with the photos as those of the splits do.
    """
    photos = photos.reset_index(drop=True)
    named = place_table(photos["latitude"], photos["longitude"])
    photos = photos.assign(**{name: named[name].to_numpy() for name in ("city", "country", "continent")})
    photos["far_km"] = named["distance_km"].to_numpy()
    photos["nobody"] = photos["photographer"].isna()
    # Who took it, for "one a photographer": an unknown photographer is somebody else each time.
    photos["who"] = photos["photographer"].astype(object).where(~photos["nobody"], photos["photo_id"])
    shown = photos[photos["shard"].notna()]
    rng = np.random.default_rng([seed, 1])
    shown = shown.iloc[rng.permutation(len(shown))]  # every choice below takes the first that fit

    def show(row: Any, about: str = "") -> GalleryPhoto:
        data = thumbnail(read_photo(row.shard, int(row.offset), int(row.length)), _SIDE, _QUALITY)
        return GalleryPhoto(row.photo_id, data, _place(row), _when(row.taken_at), about)

    def group(title: str, about: str, rows: pd.DataFrame) -> GalleryGroup:
        return GalleryGroup(title, about, tuple(show(row) for row in rows.itertuples()))

    kinds = _alike(shown)
    return GalleryInput(
        data_version=data_version,
        banners=banners,
        about=_about(photos),
        latitude=photos["latitude"].to_numpy(np.float64),
        longitude=photos["longitude"].to_numpy(np.float64),
        facts=_facts(photos, len(tiles), len(pairs), turned_away),
        continents_table=_by_continent(photos),
        sources=photos["source"].value_counts().sort_index().rename_axis("source").reset_index(name="photos"),
        continents=tuple(group(*chosen) for chosen in _continents(shown)),
        albums=tuple(group(*chosen) for chosen in _albums(shown)),
        pairs=tuple(_pairs(shown, pairs, tiles, show, read_tile)),
        duplicates=tuple(group(*chosen) for chosen in kinds["duplicates"]),
        bursts=tuple(group(*chosen) for chosen in kinds["bursts"]),
        no_cue=tuple(
            show(row, f"indoors {100 * row.prob_indoor:.0f} %") for row in _no_cue(shown).itertuples()
        ),
    )


Chosen = tuple[str, str, pd.DataFrame]
"""Title, what there is to say, and the photos, in the order of the page."""


def _continents(shown: pd.DataFrame) -> list[Chosen]:
    """Of each continent some photos, outdoors where there are any, one a photographer, and cities varied."""
    chosen = []
    for name, rows in shown.groupby("continent", sort=True):
        rows = rows[rows["prob_indoor"].fillna(0) < _LEAST_INDOOR]
        rows = rows.drop_duplicates("who")
        # Far from every city stands a photo of the wild, or of a wrong place: these come last.
        far, repeated = (rows["far_km"] > 2 * NEAR_KM).to_numpy(), rows["city"].duplicated().to_numpy()
        rows = rows.iloc[np.lexsort((repeated, far))].head(CONTINENT_PHOTOS)
        if len(rows):
            chosen.append((str(name), "", rows.sort_values(["country", "photo_id"])))
    return chosen


def _albums(shown: pd.DataFrame) -> list[Chosen]:
    """A few albums of different photographers, the long ones first, each as photos spread over its time."""
    rows = shown[shown["album"].notna() & shown["taken_at"].notna()]
    size = rows.groupby(["who", "album"])["photo_id"].transform("size")
    rows = rows.assign(size=np.minimum(size, 2 * ALBUM_PHOTOS))[size >= 3]
    order = rows.drop_duplicates(["who", "album"]).sort_values("size", ascending=False, kind="stable")
    chosen = []
    for who, album in order.drop_duplicates("who")[["who", "album"]].head(ALBUMS).itertuples(index=False):
        whole = rows[(rows["who"] == who) & (rows["album"] == album)].sort_values(["taken_at", "photo_id"])
        apart = whole[~(whole["taken_at"].diff().dt.total_seconds() <= BURST_SECONDS)]  # of a burst the first
        some = np.unique(np.linspace(0, len(apart) - 1, ALBUM_PHOTOS).round().astype(int))
        first, last = _day(whole["taken_at"].iloc[0]), _day(whole["taken_at"].iloc[-1])
        about = f"{len(whole):,} photos, {first}" + (f" to {last}" if last != first else "")
        chosen.append((" · ".join(whole["country"].unique()[:4]), about, apart.iloc[some]))
    return chosen


def _pairs(
    shown: pd.DataFrame,
    pairs: pd.DataFrame,
    tiles: pd.DataFrame,
    show: Callable[..., GalleryPhoto],
    read_tile: Picture,
) -> list[GalleryPair]:
    if not len(pairs) or not len(tiles):
        return []
    places = tiles[tiles["shard"].notna()].set_index("photo_id")[["shard", "offset", "length"]]
    looked = pairs[["photo_id", "overhead_id", "heading"]].rename(columns={"heading": "looked"})
    rows = shown.merge(looked, on="photo_id")
    rows = rows[rows["overhead_id"].isin(places.index)]
    rows = rows.iloc[np.argsort(rows["looked"].isna(), kind="stable")].drop_duplicates("who")
    unknown, repeated = rows["looked"].isna().to_numpy(), rows["city"].duplicated().to_numpy()
    rows = rows.iloc[np.lexsort((repeated, unknown))].head(PAIRS)
    made = []
    for row in rows.itertuples():
        shard, offset, length = places.loc[row.overhead_id]
        tile = thumbnail(read_tile(shard, int(offset), int(length)), _SIDE + 32, _QUALITY)
        made.append(GalleryPair(show(row), row.overhead_id, tile, float(row.looked)))
    return made


def _alike(shown: pd.DataFrame) -> dict[str, list[Chosen]]:
    """Groups of near-duplicates of different photographers, and bursts of one."""
    label = near_duplicate_groups(
        shown["phash"].reset_index(drop=True), shown["sha256"].reset_index(drop=True), _MAX_HAMMING
    )
    rows = shown.assign(label=label)
    people = rows.groupby("label")["who"].transform("nunique")
    several = rows[people > 1]
    duplicates = []
    # Small groups first: a large one is mostly pictures with nothing on them.
    size = several.groupby("label")["photo_id"].transform("size")
    for name in several.assign(size=size).sort_values("size", kind="stable")["label"].unique()[:GROUPS]:
        whole = several[several["label"] == name].sort_values(["taken_at", "photo_id"])
        some = whole.drop_duplicates("who").head(GROUP_PHOTOS)
        about = f"{len(whole):,} photos by {whole['who'].nunique():,} photographers"
        duplicates.append(("", about, some))

    timed = rows[~rows["nobody"] & rows["taken_at"].notna()].sort_values(["who", "taken_at", "photo_id"])
    soon = timed["taken_at"].diff().dt.total_seconds().le(BURST_SECONDS) & timed["who"].eq(
        timed["who"].shift()
    )
    timed = timed.assign(burst=(~soon).cumsum())
    length = timed.groupby("burst")["photo_id"].transform("size")
    timed = timed.assign(size=np.minimum(length, GROUP_PHOTOS))[length > 1]
    order = (
        shown[["photo_id"]].merge(timed, on="photo_id").sort_values("size", ascending=False, kind="stable")
    )
    bursts = []
    for name in order.drop_duplicates("who")["burst"].head(GROUPS):
        whole = timed[timed["burst"] == name]
        seconds = (whole["taken_at"].iloc[-1] - whole["taken_at"].iloc[0]).total_seconds()
        bursts.append(("", f"{len(whole):,} photos in {seconds:,.0f} s", whole.head(GROUP_PHOTOS)))
    return {"duplicates": duplicates, "bursts": bursts}


def _no_cue(shown: pd.DataFrame) -> pd.DataFrame:
    """The photos that are most surely indoors, one a photographer."""
    rows = shown[shown["prob_indoor"] >= _LEAST_INDOOR]
    rows = rows.sort_values(["prob_indoor", "photo_id"], ascending=[False, True], kind="stable")
    return rows.drop_duplicates("who").head(NO_CUE)


def _about(photos: pd.DataFrame) -> tuple[str, ...]:
    """What the collection is, in a sentence or two."""
    countries, times = photos["country"].nunique(), photos["taken_at"].dropna()
    told = f"{_several(len(photos), 'photo', 'photos')} in {_several(countries, 'country', 'countries')}"
    if not photos["nobody"].all():
        told += f", by {_several(photos['photographer'].nunique(), 'photographer', 'photographers')}"
    if len(times):
        told += f", taken from {times.min().year} to {times.max().year}"
    return (f"{told}.", SAMPLE_ABOUT) if (photos["source"] == SAMPLE_SOURCE).any() else (f"{told}.",)


def _several(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _facts(photos: pd.DataFrame, tiles: int, pairs: int, turned_away: int) -> dict[str, str]:
    """What there is to say about the whole collection, by its label; what it has not is left out."""
    by_who = photos["photographer"].value_counts()
    times = photos["taken_at"].dropna()
    facts: dict[str, str] = {"photos": f"{len(photos):,}"}
    counts: Mapping[str, int] = {
        "photographers": len(by_who),
        "countries": photos["country"].nunique(),
        "albums": len(photos.loc[photos["album"].notna(), ["who", "album"]].drop_duplicates()),
        "overhead tiles": tiles,
        "street and overhead pairs": pairs,
        "inputs turned away": turned_away,
    }
    facts |= {name: f"{count:,}" for name, count in counts.items() if count}
    if len(by_who):
        facts["photos of the most active photographer"] = f"{by_who.iloc[0]:,}"
        facts["photos of the median photographer"] = f"{by_who.median():,.0f}"
    if len(times):
        facts["taken from"] = _day(times.min())
        facts["taken until"] = _day(times.max())
    return facts


def _by_continent(photos: pd.DataFrame) -> pd.DataFrame:
    grouped = photos.groupby("continent", sort=True).agg(
        photos=("photo_id", "size"),
        photographers=("photographer", "nunique"),
        countries=("country", "nunique"),
        cities=("city", "nunique"),
    )
    grouped["share"] = (grouped["photos"] / max(len(photos), 1)).map("{:.1%}".format)
    return grouped.reset_index()


def _place(row: Any) -> str:
    near = f"{row.city}, {row.country}"
    return near if row.far_km <= NEAR_KM else f"{row.far_km:,.0f} km from {near}"


def _when(time: pd.Timestamp) -> str:
    return "time unknown" if pd.isna(time) else f"{_day(time)}, {time:%H:%M}"


def _day(time: pd.Timestamp) -> str:
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}"


_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
