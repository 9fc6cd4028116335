"""The data frames that the suites under expectations/ check: one for each kind of data, with helper columns.

Run a suite on its frame: `run_suite(folder / "catalog.json", catalog_frame(catalog))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.photos.consistency import CHECKS
from geoloc.photos.pair_splits import OVERHEAD, PAIR_COLUMNS, PICTURE_COLUMNS, STREET
from geoloc.photos.sequences import EARLIEST_ZONE_HOURS
from geoloc.sphere import bearing, distance_km
from orchestration.quality.suites import ExpectationOutcome, QualityError, SuiteResult, run_suite

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition
    from geoloc.photos.split_checks import CheckResult

__all__ = [
    "ExpectationOutcome",
    "QualityError",
    "SuiteResult",
    "catalog_frame",
    "embeddings_frame",
    "pairs_frame",
    "partition_frame",
    "probabilities_frame",
    "run_suite",
    "splits_frame",
]

CHECK_PREFIX = "check_"  # splits_frame has one such column for each check of geoloc.photos.split_checks

_STORED = ("shard", "offset", "length", "sha256", "phash", "width", "height")  # all known, or none
_TEXT = ("photo_id", "source", "photographer", "licence", "sha256", "phash", "shard")
_NUMBERS = ("latitude", "longitude", "heading", "prob_indoor", "width", "height", "offset", "length")
_BLOCK = 65_536  # vectors looked at together, so that memory stays small beside the embeddings


def catalog_frame(catalog: pd.DataFrame) -> pd.DataFrame:
    """Returns the frame for expectations/catalog.json: a row per photo, in plain dtypes, with helper columns.

    `coordinates_are_zero` (bool); `taken_year`; `hours_from_taken_to_posted`; `storage` ("stored": everything
    about the stored bytes is known, "metadata": nothing is, "partial": neither); `bytes_overlap` (bool: the
    photo begins before the one in front of it in its shard ends); and for each check of geoloc.photos.consistency
    a column of its name: what contradicts the photo's coordinates or times, null where nothing does.
    Raises QualityError for missing columns.
    """
    needed = [*_TEXT, *_NUMBERS, "taken_at", "posted_at", "album"]
    absent = [column for column in needed if column not in catalog.columns]
    if absent:
        raise QualityError(f"the catalog lacks the columns {', '.join(absent)}")
    # Great Expectations computes on numpy dtypes; Arrow-backed and nullable ones raise in some metrics.
    frame = pd.DataFrame({column: catalog[column].astype("str") for column in _TEXT})
    for column in _NUMBERS:
        frame[column] = catalog[column].to_numpy(dtype=np.float64, na_value=np.nan)
    taken, posted = pd.to_datetime(catalog["taken_at"]), pd.to_datetime(catalog["posted_at"])
    frame["taken_year"] = taken.dt.year.to_numpy(dtype=np.float64, na_value=np.nan)
    hours = (posted - taken) / pd.Timedelta(hours=1)
    frame["hours_from_taken_to_posted"] = hours.to_numpy(dtype=np.float64, na_value=np.nan)
    frame["coordinates_are_zero"] = (frame["latitude"] == 0) & (frame["longitude"] == 0)
    unknown = frame[list(_STORED)].isna().sum(axis=1).to_numpy()
    frame["storage"] = np.select(
        [unknown == 0, unknown == len(_STORED)], ["stored", "metadata"], default="partial"
    )
    frame["bytes_overlap"] = _bytes_overlap(frame)
    for name, check in CHECKS.items():
        found = check(catalog, None)
        details = pd.Series(found["detail"].to_numpy(object), index=found["photo_id"].to_numpy(object))
        details = details[~details.index.duplicated()]  # repeated ids are the matter of another rule
        frame[name] = frame["photo_id"].astype(object).map(details).astype("str")
    return frame


def _bytes_overlap(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Returns whether each photo starts before the previous photo in its shard ends."""
    shard, _ = pd.factorize(frame["shard"])  # -1 where null
    offset, length = frame["offset"].to_numpy(), frame["length"].to_numpy()
    order = np.lexsort((offset, shard))
    before, after = order[:-1], order[1:]
    overlap = np.zeros(len(frame), np.bool_)
    # Comparisons with the NaN of an unknown offset are False.
    overlap[after] = (
        (shard[after] >= 0)
        & (shard[after] == shard[before])
        & (offset[after] < offset[before] + length[before])
    )
    return overlap


def splits_frame(catalog: pd.DataFrame, splits: pd.DataFrame, checks: Sequence[CheckResult]) -> pd.DataFrame:
    """Returns the frame for expectations/splits.json: a row per row of the split and per photo missing from it.

    Columns photo_id, split (null if missing), `in_catalog` and `used` (bool), and for each of `checks`
    (from geoloc.photos.split_checks.check_splits) a column `check_<name>`, the same on every row: how many
    photos break it. The suite has a rule for each; one that was not run is an error there, not a pass.
    """
    ids, wanted = splits["photo_id"].astype("str"), catalog["photo_id"].astype("str")
    lacking = wanted[~_among(wanted, ids)].drop_duplicates()
    frame = pd.DataFrame(
        {
            "photo_id": pd.concat([ids, lacking], ignore_index=True),
            "split": pd.concat(
                [splits["split"].astype("str"), lacking.where(lacking.isna())], ignore_index=True
            ),
        }
    )
    frame["in_catalog"] = _among(frame["photo_id"], wanted)
    frame["used"] = frame["split"].ne("unused") & frame["split"].notna()
    for check in checks:
        # A failed check counts at least one, whatever its count is.
        frame[CHECK_PREFIX + check.name] = 0 if check.passed else max(int(check.count), 1)
    frame.attrs["details"] = {CHECK_PREFIX + check.name: check.detail for check in checks}
    return frame


def _among(ids: pd.Series, wanted: pd.Series) -> pd.Series:
    """Returns whether each id is among `wanted`."""
    # As objects: `isin` on the Arrow-backed text of pandas 3.1 takes 10 s for a million, this 1 s.
    return ids.astype(object).isin(wanted.astype(object))


def partition_frame(partition: Partition) -> pd.DataFrame:
    """Returns the frame for expectations/partition.json: a row per cell.

    Columns kind, token, photo_count, photo_share, centroid_latitude, centroid_longitude, `centroid_place`
    ("inside" or "outside" its own cell as the partition assigns it; null where the centroid is no place).
    """
    counts = np.asarray(partition.photo_counts(), dtype=np.float64)
    centroids = np.asarray(partition.centroids(), dtype=np.float64)
    latitude, longitude = centroids[:, 0], centroids[:, 1]
    place = np.full(len(counts), None, dtype=object)
    real = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)  # False for NaN
    inside = np.asarray(partition.assign(latitude[real], longitude[real])) == np.flatnonzero(real)
    place[real] = np.where(inside, "inside", "outside")
    return pd.DataFrame(
        {
            "kind": partition.kind,
            "token": pd.Series(list(partition.tokens()), dtype="str"),
            "photo_count": counts,
            "photo_share": counts / max(counts.sum(), 1.0),
            "centroid_latitude": latitude,
            "centroid_longitude": longitude,
            "centroid_place": pd.Series(place, dtype="str"),
        }
    )


def pairs_frame(
    pairs: pd.DataFrame, pictures: pd.DataFrame, street: pd.DataFrame, tiles: pd.DataFrame
) -> pd.DataFrame:
    """Returns the frame for expectations/pairs.json: a row per pair of the stage pairs.

    pair_id, split, heading, heading_reference ("unknown" where only the heading is known), `from_true_north`
    (bool; null where there is no heading), metres_per_pixel;
    `photo_stored`, `tile_stored` (bool: the catalog of street photos or of tiles has the picture with these bytes);
    `tile_covers_photo` (the photo's position is on the tile, north up; null where the tile's size is unknown),
    `metres_apart` (of the photo and the tile's centre; null where the size is known); and
    `city_sides`, `photographer_sides`, `photo_sides`, `tile_sides`: on how many sides the pair's city, photographer,
    street photo and tile are, by bytes. Raises QualityError for missing columns.
    """
    for name, given, needed in (("pairs", pairs, PAIR_COLUMNS), ("pictures", pictures, PICTURE_COLUMNS)):
        absent = [column for column in needed if column not in given.columns]
        if absent:
            raise QualityError(f"the {name} lack the columns {', '.join(absent)}")
    frame = pairs[["pair_id", "split", "heading_reference"]].astype("str")
    frame["heading"] = pairs["heading"].to_numpy(np.float64, na_value=np.nan)
    # A rule skips nulls: a reference that is missing though there is a heading must not be one.
    silent = frame["heading"].notna() & frame["heading_reference"].isna()
    frame["heading_reference"] = frame["heading_reference"].mask(silent, "unknown")
    known = frame["heading_reference"].notna()
    frame["from_true_north"] = (frame["heading_reference"] == "true").astype(object).where(known, None)
    frame["metres_per_pixel"] = pairs["metres_per_pixel"].to_numpy(np.float64, na_value=np.nan)
    bytes_of = {}
    for view, column, catalog in ((STREET, "photo_id", street), (OVERHEAD, "overhead_id", tiles)):
        own = pictures[pictures["view"] == view].drop_duplicates("photo_id").set_index("photo_id")
        ids = pairs[column].astype(object)
        bytes_of[view] = ids.map(own["sha256"].astype(object))
        there = catalog.drop_duplicates("photo_id").set_index("photo_id")["sha256"].astype(object)
        now = ids.map(there)
        frame["photo_stored" if view == STREET else "tile_stored"] = now.notna() & (now == bytes_of[view])
        if view == OVERHEAD:
            width = ids.map(own["width"].astype(object)).to_numpy(np.float64, na_value=np.nan)
    here = pairs[["latitude", "longitude"]].to_numpy(np.float64)
    centre = pairs[["tile_latitude", "tile_longitude"]].to_numpy(np.float64)
    metres = 1000 * distance_km(*centre.T, *here.T)
    towards = np.radians(bearing(*centre.T, *here.T))
    furthest = metres * np.maximum(np.abs(np.sin(towards)), np.abs(np.cos(towards)))
    half = width * frame["metres_per_pixel"] / 2
    covers = (furthest <= half + 0.01).astype(object)  # coordinates are rounded to a centimetre or so
    frame["tile_covers_photo"] = covers.where(half.notna(), None)
    frame["metres_apart"] = np.where(half.notna(), np.nan, metres)
    for name, keys in (
        ("city_sides", pairs["city"]),
        ("photographer_sides", pairs["photographer"]),
        ("photo_sides", bytes_of[STREET]),
        ("tile_sides", bytes_of[OVERHEAD]),
    ):
        frame[name] = pairs["split"].groupby(keys.to_numpy(object)).transform("nunique")
    return frame


def embeddings_frame(
    photo_ids: ArrayLike, vectors: NDArray[np.floating], known_ids: ArrayLike
) -> pd.DataFrame:
    """Returns the frame for expectations/embeddings.json: a row for each of the N vectors (N, D) of any float type.

    Columns photo_id, `known` (among known_ids), `finite`, `norm` (L2), `distance_from_mean` (L2 distance to
    the mean vector: near 0 for most photos when the network has collapsed). The last two are null for vectors
    that are not finite. Memory beside the embeddings: some 100 bytes a photo.
    Raises QualityError when ids and vectors differ in number.
    """
    ids = pd.Series(np.asarray(photo_ids, dtype=object), dtype="str", name="photo_id")
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise QualityError(f"{len(ids)} photo ids cannot go with vectors of shape {vectors.shape}")
    finite = np.empty(len(ids), np.bool_)
    norm, distance = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(ids), _BLOCK)]
    total = np.zeros(vectors.shape[1])
    for block in blocks:
        part = vectors[block].astype(np.float32)  # float16 would overflow and round in the sums
        finite[block] = np.isfinite(part).all(axis=1)
        good = part[finite[block]]
        norm[block][finite[block]] = np.sqrt(np.einsum("nd,nd->n", good, good, dtype=np.float64))
        total += good.sum(axis=0, dtype=np.float64)
    mean = (total / max(int(finite.sum()), 1)).astype(np.float32)
    for block in blocks:
        apart = vectors[block][finite[block]].astype(np.float32) - mean
        distance[block][finite[block]] = np.sqrt(np.einsum("nd,nd->n", apart, apart, dtype=np.float64))
    known = _among(ids, pd.Series(np.asarray(known_ids, dtype=object), dtype="str"))
    return pd.DataFrame(
        {"photo_id": ids, "known": known, "finite": finite, "norm": norm, "distance_from_mean": distance}
    )


def probabilities_frame(
    photos: pd.DataFrame, values: NDArray[np.floating], known_ids: ArrayLike
) -> pd.DataFrame:
    """Returns the frame for expectations/class_probabilities.json: a row for each of `photos` (photo_id, split,
    photographer, source, album, taken_at, posted_at, row), whose probabilities are row `row` of `values` [M, C].

    Columns photo_id, `known` (among known_ids), `readable`, `sum` and `smallest` of
    the probabilities (null for a photo without, or unreadable), `album_splits` (the number of splits of its album's
    photos, null without an album), `clock` ("posted first" where the photo was taken after it was posted by more than
    any zone allows, else "plausible"; null where a time is unknown) and `has_time`.
    """
    row = photos["row"].to_numpy(dtype=np.int64)
    total, smallest = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for start in range(0, len(values), _BLOCK):
        part = np.asarray(values[start : start + _BLOCK])
        total[start : start + _BLOCK] = part.sum(axis=1, dtype=np.float64)
        smallest[start : start + _BLOCK] = part.min(axis=1)
    has = row >= 0
    sums, least = np.full(len(row), np.nan), np.full(len(row), np.nan)
    sums[has], least[has] = total[row[has]], smallest[row[has]]
    owner, source = (photos[name].astype("str").fillna("") for name in ("photographer", "source"))
    album = (owner + "\0" + source + "\0" + photos["album"].astype("str")).where(photos["album"].notna())
    taken, posted = pd.to_datetime(photos["taken_at"]), pd.to_datetime(photos["posted_at"])
    early = (taken - posted) / pd.Timedelta(hours=1) > EARLIEST_ZONE_HOURS
    both = taken.notna() & posted.notna()
    return pd.DataFrame(
        {
            "photo_id": photos["photo_id"].astype("str"),
            "known": _among(
                photos["photo_id"].astype("str"), pd.Series(np.asarray(known_ids, dtype=object), dtype="str")
            ),
            "readable": ~has | np.isfinite(sums),
            "sum": sums,
            "smallest": least,
            "album_splits": photos["split"].groupby(album).transform("nunique").to_numpy(dtype=np.float64),
            "clock": pd.Series(np.where(early, "posted first", "plausible"), photos.index).where(both),
            "has_time": (taken.notna() | posted.notna()).to_numpy(),
        }
    )
