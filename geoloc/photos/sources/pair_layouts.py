"""Layouts of published cross-view collections: which street photo belongs to which overhead tile, where, how turned.

Each reader returns a `PairLayout` of names only; no picture is opened. A picture or a position that is missing is not
an error here: `ingest` finds it and says so in quarantine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from geoloc.files import one_line
from geoloc.photos.addresses import SourceError
from geoloc.photos.sources.candidates import shown
from geoloc.photos.sources.utm import from_utm
from geoloc.photos.sources.web_mercator import metres_per_pixel

KINDS = ("cvusa", "cvact", "vigor", "gtcrossview", "pairs")


@dataclass(frozen=True)
class PairLayout:
    """A collection of pairs. Paths are relative to `root`; ids are names in the collection, not yet in the pool.

    photos: photo_id, file, latitude, longitude, photographer, taken_at. tiles: photo_id, file, latitude, longitude.
    pairs: photo_id, overhead_id, heading, heading_reference, city, tile_metres. Unknown is null. notes: what the
    layout itself leaves out, by reason.
    """

    root: Path
    photos: pd.DataFrame
    tiles: pd.DataFrame
    pairs: pd.DataFrame
    notes: dict[str, int]


def read_layout(kind: str, path: Path | str, table: Path | str | None = None) -> PairLayout:
    """The pairs of a collection of one of KINDS in the folder (of `pairs`: the table) `path`.

    `table`: coordinates by file, for `gtcrossview`; the folder of the pictures, for `pairs`. Raises SourceError for an
    unknown kind, and for what is no such layout; the message names the file that is missing.
    """
    readers: dict[str, Callable[[], PairLayout]] = {
        "cvusa": lambda: read_cvusa(_folder(path)),
        "cvact": lambda: read_cvact(_folder(path)),
        "vigor": lambda: read_vigor(_folder(path)),
        "gtcrossview": lambda: read_gtcrossview(_folder(path), None if table is None else Path(table)),
        "pairs": lambda: read_pair_table(Path(path), None if table is None else _folder(table)),
    }
    if kind not in readers:
        raise SourceError(f"a collection of pairs is one of {', '.join(KINDS)}; got {kind!r}")
    layout = readers[kind]()
    if layout.pairs.empty:
        raise SourceError(f"{path} lists no pairs of a street photo and an overhead tile")
    return layout


def read_cvusa(root: Path) -> PairLayout:
    """CVUSA as Zhai et al. (2017) distribute it: splits/{train,val}-19zl.csv with a row (tile, panorama, annotation) a
    pair, and split_locations/all.csv, whose row n (latitude and longitude of tile n, then of panorama n) places them.

    The centre of a panorama is north. Tiles are of zoom level 19, 750 pixels wide as they were made.
    """
    lists = [root / folder / f"{part}-19zl.csv" for part in ("train", "val") for folder in ("splits", "")]
    found = [file for file in lists if file.is_file()]
    if not found:
        raise SourceError(f"{root} has no splits/train-19zl.csv or splits/val-19zl.csv, as CVUSA has")
    rows = pd.concat([_csv(file, header=None) for file in found], ignore_index=True)
    if rows.shape[1] < 2:
        raise SourceError(f"{found[0]} must have the columns tile and panorama, got one column")
    places = _one_of(root, "split_locations/all.csv", "all.csv")
    where = _csv(places, header=None).apply(pd.to_numeric, errors="coerce")
    if where.shape[1] < 4:
        raise SourceError(
            f"{places} must have latitude and longitude of tile and panorama, got {where.shape[1]} columns"
        )
    number = pd.to_numeric(rows[0].str.extract(r"(\d+)\.[^./]*$")[0], errors="coerce")
    at = where.reindex(number - 1)
    return _layout(
        root,
        pd.DataFrame(
            {
                "photo_file": rows[1],
                "tile_file": rows[0],
                "latitude": at[2].to_numpy(),
                "longitude": at[3].to_numpy(),
                "tile_latitude": at[0].to_numpy(),
                "tile_longitude": at[1].to_numpy(),
                "heading": 0.0,
                "tile_metres": 750 * metres_per_pixel(at[0].to_numpy(np.float64), 19),
            }
        ),
    )


def read_cvact(root: Path) -> PairLayout:
    """CVACT as Liu and Li (2019) distribute it: ACT_data.mat (panoIds, utm in zone 55 south), and the pictures in
    ANU_data_small and ANU_data_test, each with streetview and satview_polish.

    The centre of a panorama is north. Tiles are 1200 pixels of 0.12 m as they were made. All are in Canberra, so they
    have no city: a split is by blocks (cross_view.splits.block_level 12: 2.2 km).
    """
    from scipy.io import loadmat  # imported here: scipy.io takes long, and no other source needs it
    from scipy.io.matlab import MatReadError

    file = _one_of(root, "ACT_data.mat")
    try:
        data = loadmat(file, variable_names=["panoIds", "utm"], chars_as_strings=True)
    except (
        MatReadError, ValueError, TypeError, LookupError, NotImplementedError, OSError, EOFError, zlib.error,
    ) as error:  # fmt: skip
        raise SourceError(f"{file} is not a MATLAB file that can be read: {one_line(error)}") from None
    if not {"panoIds", "utm"} <= set(data):
        raise SourceError(
            f"{file} must have panoIds and utm; it has {shown([n for n in data if n[0] != '_']) or 'none'}"
        )
    ids = [
        str(np.asarray(one).item()).strip() if np.asarray(one).size == 1 else ""
        for one in data["panoIds"].ravel()
    ]
    utm = np.asarray(data["utm"])
    if utm.dtype.kind not in "fiu":
        raise SourceError(f"{file} must have numbers in utm, got {utm.dtype}")
    if utm.shape != (len(ids), 2):
        raise SourceError(
            f"{file} must have two coordinates in utm for each of {len(ids)} panoIds, got {utm.shape}"
        )
    latitude, longitude = from_utm(utm[:, 0], utm[:, 1], zone=55, south=True)
    folders = [name for name in ("ANU_data_small", "ANU_data_test") if (root / name / "streetview").is_dir()]
    if not folders:
        raise SourceError(
            f"{root} has neither ANU_data_small/streetview nor ANU_data_test/streetview, as CVACT has"
        )
    there = {name: {one.name for one in (root / name / "streetview").iterdir()} for name in folders}
    place = [next((n for n in folders if f"{one}_grdView.jpg" in there[n]), folders[0]) for one in ids]
    return _layout(
        root,
        pd.DataFrame(
            {
                "photo_file": [f"{a}/streetview/{b}_grdView.jpg" for a, b in zip(place, ids, strict=True)],
                "tile_file": [
                    f"{a}/satview_polish/{b}_satView_polish.jpg" for a, b in zip(place, ids, strict=True)
                ],
                "latitude": latitude,
                "longitude": longitude,
                "heading": 0.0,
                "tile_metres": 1200 * 0.12,
            }
        ),
    )


def read_vigor(root: Path) -> PairLayout:
    """VIGOR as Zhu et al. (2021) distribute it: a folder per city with panorama/ and satellite/, whose names end in
    latitude and longitude, and splits/CITY/pano_label_balanced.txt (or splits__corrected, see Lentsch et al., 2023).

    A line names a panorama, its tile, and three tiles that only touch it, which are left out. The centre of a panorama
    is north. Tiles are of zoom level 20, 640 pixels wide.
    """
    lists = sorted(root.glob("splits*/*/pano_label_balanced*.txt"))
    corrected = [file for file in lists if "corrected" in file.as_posix().removeprefix(root.as_posix())]
    lists = corrected or lists
    if not lists:
        raise SourceError(f"{root} has no splits/CITY/pano_label_balanced.txt, as VIGOR has")
    parts, touching = [], 0
    for file in lists:
        city = file.parent.name
        for number, line in enumerate(_lines(file), start=1):
            cells = line.split()
            if len(cells) < 2:
                raise SourceError(f"{file}:{number} must name a panorama and its tile, got {line[:80]!r}")
            touching += sum(len(cells) > at for at in (4, 7, 10))
            parts.append((f"{city}/panorama/{cells[0]}", f"{city}/satellite/{cells[1]}", city))
    rows = pd.DataFrame(parts, columns=["photo_file", "tile_file", "city"])
    here, centre = (_in_name(rows[name]) for name in ("photo_file", "tile_file"))
    rows = rows.assign(
        latitude=here[0],
        longitude=here[1],
        tile_latitude=centre[0],
        tile_longitude=centre[1],
        heading=0.0,
        tile_metres=640 * metres_per_pixel(centre[0], 20),
    )
    return _layout(root, rows, {"tiles that only touch a panorama": touching})


def read_gtcrossview(root: Path, table: Path | None = None) -> PairLayout:
    """Vo and Hays (2016), GT-CrossView: NAME.streetview.txt and NAME.overhead.txt, whose lines (a path and a label) go
    together. The city is the first folder of a path, else NAME.

    Positions come from `table` (CSV: file, latitude, longitude; heading, city and tile_metres where known), by the path
    of the photo or of its tile, else from two decimal numbers in the file names. Headings that it lacks are unknown.
    """
    lists = sorted(root.glob("*.streetview.txt"))
    if not lists:
        raise SourceError(f"{root} has no NAME.streetview.txt, as GT-CrossView has")
    parts = []
    for file in lists:
        name = file.name.removesuffix(".streetview.txt")
        other = _one_of(root, f"{name}.overhead.txt")
        street, above = ([line.split()[0] for line in _lines(one)] for one in (file, other))
        if len(street) != len(above):
            raise SourceError(
                f"{file} has {len(street)} lines and {other.name} {len(above)}: they must go together"
            )
        parts += [(a, b, a.split("/")[0] if "/" in a else name) for a, b in zip(street, above, strict=True)]
    rows = pd.DataFrame(parts, columns=["photo_file", "tile_file", "city"]).drop_duplicates(ignore_index=True)
    if table is None:
        for prefix, column in (("", "photo_file"), ("tile_", "tile_file")):
            rows[f"{prefix}latitude"], rows[f"{prefix}longitude"] = _in_name(rows[column])
        if rows["latitude"].isna().all() and rows["tile_latitude"].isna().all():
            raise SourceError(
                f"{root}: neither lists nor file names have coordinates; give --table CSV with the columns file, "
                "latitude and longitude"
            )
        return _layout(root, rows)
    known = _csv(table)
    if missing := [name for name in ("file", "latitude", "longitude") if name not in known.columns]:
        raise SourceError(f"{table} has no column {', '.join(missing)}; it has {shown(list(known.columns))}")
    known = known.drop_duplicates("file").set_index("file")
    for name in ("latitude", "longitude", "heading", "city", "tile_metres"):
        if name in known.columns:
            of_photo, of_tile = (rows[column].map(known[name]) for column in ("photo_file", "tile_file"))
            rows[name] = of_photo.fillna(of_tile).fillna(rows[name] if name == "city" else np.nan)
            if name in ("latitude", "longitude"):
                rows[f"tile_{name}"] = of_tile.fillna(of_photo)
    return _layout(root, rows)


def read_pair_table(table: Path, root: Path | None = None) -> PairLayout:
    """A CSV table with a row a pair: file, overhead_file, latitude, longitude; and where known tile_latitude,
    tile_longitude, heading, heading_reference, city, photographer, taken_at, tile_metres. Files are below `root`
    (default: the table's folder)."""
    rows = _csv(table)
    needed = ("file", "overhead_file", "latitude", "longitude")
    if missing := [name for name in needed if name not in rows.columns]:
        raise SourceError(f"{table} has no column {', '.join(missing)}; it has {shown(list(rows.columns))}")
    return _layout(
        root or table.parent, rows.rename(columns={"file": "photo_file", "overhead_file": "tile_file"})
    )


_OPTIONAL = ("heading", "heading_reference", "city", "tile_metres", "photographer", "taken_at")


def _layout(root: Path, rows: pd.DataFrame, notes: dict[str, int] | None = None) -> PairLayout:
    """The layout of rows with photo_file, tile_file, latitude, longitude and, where known, tile_latitude,
    tile_longitude and _OPTIONAL. Pictures are called as their paths; one in several rows is listed once. Rows that
    place a picture elsewhere than a row before are left out."""
    told = dict(notes or {})
    for what, file, prefix in (("photo", "photo_file", ""), ("tile", "tile_file", "tile_")):
        elsewhere = _elsewhere(rows, file, prefix)
        if elsewhere.any():
            told[f"the same {what} at another place"] = int(elsewhere.sum())
            rows = rows[~elsewhere]
    rows = rows.copy()
    for name in ("latitude", "longitude"):
        own = rows[f"tile_{name}"] if f"tile_{name}" in rows else rows[name]
        rows[f"tile_{name}"] = own.where(own.notna(), rows[name])
    for name in _OPTIONAL:
        if name not in rows:
            rows[name] = None
    if rows["heading"].notna().any():
        rows["heading_reference"] = rows["heading_reference"].where(rows["heading_reference"].notna(), "true")
    rows["heading_reference"] = rows["heading_reference"].where(rows["heading"].notna(), None)
    photos = rows.rename(columns={"photo_file": "file"}).assign(photo_id=rows["photo_file"])
    above = {"tile_file": "file", "tile_latitude": "latitude", "tile_longitude": "longitude"}
    tiles = rows[list(above)].rename(columns=above).assign(photo_id=rows["tile_file"])
    pairs = rows.assign(photo_id=rows["photo_file"], overhead_id=rows["tile_file"])
    places = ["photo_id", "file", "latitude", "longitude"]
    again = pairs.duplicated(["photo_id", "overhead_id"])
    if again.any():
        told["the same pair again"] = int(again.sum())
    return PairLayout(
        root,
        photos[[*places, "photographer", "taken_at"]].drop_duplicates("photo_id", ignore_index=True),
        tiles[places].drop_duplicates("photo_id", ignore_index=True),
        pairs.loc[~again, ["photo_id", "overhead_id", "heading", "heading_reference", "city", "tile_metres"]],
        told,
    )


def _elsewhere(rows: pd.DataFrame, file: str, prefix: str) -> pd.Series:
    """Whether each row places its picture elsewhere than the first row that places it, bool."""
    found = pd.Series(False, index=rows.index)
    for name in (f"{prefix}latitude", f"{prefix}longitude"):
        if name in rows:
            degrees = pd.to_numeric(rows[name], errors="coerce")
            found |= degrees.notna() & (degrees != degrees.groupby(rows[file]).transform("first"))
    return found & rows[file].notna()


_DECIMALS = re.compile(r"(?<![\d.])(-?\d{1,3}\.\d+)[,_ ]+(-?\d{1,3}\.\d+)(?![\d.]*\d)")


def _in_name(files: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude in file names: their last two decimal numbers; NaN where there are none."""
    found = (
        files.str.rsplit("/", n=1).str[-1].map(lambda name: (_DECIMALS.findall(name) or [("nan", "nan")])[-1])
    )
    return tuple(found.str[at].astype(np.float64).to_numpy() for at in (0, 1))


def _csv(file: Path, **options: object) -> pd.DataFrame:
    """A CSV file, all of it text: an empty cell is missing, and NA is Namibia."""
    if not file.is_file():
        raise SourceError(f"{file} is not a file")
    try:
        return pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""], **options)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' ParserError and EmptyDataError are such
        raise SourceError(f"{file} is not a CSV table: {str(error).splitlines()[0]}") from None


def _lines(file: Path) -> Iterator[str]:
    """The lines of a text file that are not empty."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    return (line for line in text.splitlines() if line.strip())


def _one_of(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise SourceError(f"{root} has no {' or '.join(names)}")


def _folder(path: Path | str) -> Path:
    if not Path(path).is_dir():
        raise SourceError(f"{path} is not a folder")
    return Path(path)
