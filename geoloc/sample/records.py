"""The tables of the sample planet: what cameras and people record, and the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.sample.dirt import WRONG_PLACE, spoil_records
from geoloc.sample.hashing import uniform
from geoloc.sample.normal import normal
from geoloc.sample.people import SUBJECTS
from geoloc.sample.positions import whole_circle
from geoloc.sphere import destination

PHOTO_COLUMNS = (
    "photo_id", "file", "latitude", "longitude", "photographer", "taken_at", "posted_at", "album", "heading",
    "prob_indoor",
)  # fmt: skip
TILE_COLUMNS = ("photo_id", "file", "latitude", "longitude")
PAIR_COLUMNS = ("photo_id", "overhead_id", "heading", "city")
TRUTH_COLUMNS = (
    "photo_id", "kind", "true_latitude", "true_longitude", "true_heading", "subject", "near_duplicate_of",
    "copy_of", "city", "east_m", "north_m", "sun_elevation",
)  # fmt: skip

GPS_M = 4.0
"""Standard deviation of recorded positions, metres each way."""

HEADING_DEGREES = 5.0
"""Standard deviation of recorded headings."""

_INDOOR_LOGIT = {"outdoor": -2.6, "indoor": 2.0, "food": 1.8, "pet": 0.0, "portrait": -1.2}
_INDOOR_SPREAD = 1.0
_DECIMALS = {
    "latitude": 6, "longitude": 6, "heading": 1, "prob_indoor": 4, "true_latitude": 6, "true_longitude": 6,
    "true_heading": 1, "east_m": 1, "north_m": 1, "sun_elevation": 2,
}  # fmt: skip


def photo_records(table: pd.DataFrame, heading_share: float) -> pd.DataFrame:
    """Returns photos.csv: PHOTO_COLUMNS, one row per row of `dirt.soiled`'s table.

    Errors are drawn per scene, so that a copy has its original's values and a burst has one position. `heading_share`
    of the scenes have a recorded heading. taken_at is the local clock, posted_at UTC.
    """
    scene = table["scene"].to_numpy()
    metres = GPS_M * np.sqrt(-2.0 * np.log1p(-uniform(scene, 101)))  # Rayleigh: normal both ways
    latitude, longitude = destination(
        table["latitude"], table["longitude"], 360.0 * uniform(scene, 102), metres / 1000.0
    )
    heading = whole_circle(table["heading"].to_numpy() + HEADING_DEGREES * normal(scene, 103))
    right = pd.DataFrame(
        {
            "photo_id": table["photo_id"],
            "file": table["file"],
            "latitude": latitude.round(6),
            "longitude": longitude.round(6),
            "photographer": table["photographer"],
            "taken_at": table["taken_at"],
            "posted_at": table["posted_at"],
            "album": table["album"],
            "heading": np.where(uniform(scene, 104) < heading_share, heading, np.nan),
            "prob_indoor": prob_indoor(table["subject"], scene),
        }
    )
    return spoil_records(right, table)


def prob_indoor(subject: pd.Series, scene: NDArray[np.int64]) -> NDArray[np.float64]:
    """The output of a noisy indoor classifier, 0 to 1: high for indoor and food, medium for pets, else low."""
    logit = subject.map(_INDOOR_LOGIT).to_numpy(np.float64) + _INDOOR_SPREAD * normal(scene, 105)
    return (1.0 / (1.0 + np.exp(-logit))).round(4)


def tile_records(table: pd.DataFrame) -> pd.DataFrame:
    """Returns overhead.csv and pairs.csv in one: a row per tile, with TILE_COLUMNS and overhead_id, heading and city.

    `photo_id` is that of the photo; the tile's own is `overhead_id`. A photo with a wrong recorded place has no tile:
    real tiles are fetched by the recorded place, so the two would not be a pair.
    """
    paired = table["overhead"].to_numpy(bool) & ~table["kind"].isin(WRONG_PLACE).to_numpy()
    rows = table.loc[paired, ["photo_id", "latitude", "longitude", "heading", "city_name"]]
    made = rows.rename(columns={"city_name": "city"})
    made["overhead_id"] = "o-" + made["photo_id"]
    made["file"] = [
        f"overhead/{row // 1000:03d}/o-{i}.jpg" for row, i in zip(rows.index, rows["photo_id"], strict=True)
    ]
    return made


def truth_records(table: pd.DataFrame) -> pd.DataFrame:
    """Returns truth.csv: TRUTH_COLUMNS, one row per row of photos.csv, in its order.

    near_duplicate_of: the first photo of the burst, or the original of a near copy. copy_of: the photo with the same
    bytes. city: its name and country code.
    """
    ids = table["photo_id"].to_numpy(object)
    near = table["kind"].to_numpy(object) == "near copy"
    exact = table["kind"].to_numpy(object) == "exact copy"
    burst, _ = pd.factorize(table["scene"])
    later = table["scene"].duplicated().to_numpy()
    first = ids[~later][burst]
    again = later & ~near & ~exact
    original = np.where(near | exact, ids[table["copy_of"].to_numpy()], "")
    return pd.DataFrame(
        {
            "photo_id": ids,
            "kind": table["kind"],
            "true_latitude": table["latitude"],
            "true_longitude": table["longitude"],
            "true_heading": table["heading"],
            "subject": table["subject"],
            "near_duplicate_of": np.where(near, original, np.where(again, first, "")),
            "copy_of": np.where(exact, original, ""),
            "city": table["city_name"],
            "east_m": table["east_m"],
            "north_m": table["north_m"],
            "sun_elevation": table["sun_elevation"],
        }
    )


def subjects_of(table: pd.DataFrame) -> dict[str, int]:
    """Returns the number of photos by subject, in the order of SUBJECTS."""
    counts = table["subject"].value_counts()
    return {subject: int(counts.get(subject, 0)) for subject in SUBJECTS}


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Returns CSV with missing values as empty cells. Fixed decimals, so that the bytes do not depend on the writer."""
    made = rows.copy()
    for name in made.columns:
        if name in _DECIMALS:
            form = f"%.{_DECIMALS[name]}f"
            made[name] = [None if value != value else form % value for value in made[name].tolist()]
        elif pd.api.types.is_datetime64_any_dtype(made[name]):
            text = np.datetime_as_string(made[name].to_numpy("datetime64[s]"))
            made[name] = pd.Series(text, made.index).str.replace("T", " ").mask(made[name].isna())
    made.to_csv(path, index=False, lineterminator="\n", na_rep="")
