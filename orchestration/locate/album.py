"""`geoloc locate --album`: all photos of a folder together, in order of their EXIF times."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.localizers.by_album.hmm import HMM_FILE, Transitions
from geoloc.localizers.by_album.together import SPREAD, in_order, spread_km, together
from geoloc.localizers.settings import HMMSettings
from geoloc.photos.screening import EARLIEST, LATEST
from geoloc.photos.settings import SequenceSettings
from geoloc.photos.sources.fields import times
from geoloc.places import nearest_places
from geoloc.sphere import distance_km
from orchestration.lineage.build import Build
from orchestration.locate.by_class import ByClass
from orchestration.locate.locate import verified
from orchestration.locate.photos import photo_files, read_photo
from orchestration.locate.question import Question
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.photos.facts import PhotoFacts

AT_ONCE = 64
"""Photos whose pixels are held at once."""
_IN_NO_CELL = "its place is in no cell of the partition, so it says nothing of the others"


@dataclass(frozen=True)
class Spot:
    """A place: degrees, its name, and the confidence, in [0, 1]."""

    latitude: float
    longitude: float
    place: str
    confidence: float


@dataclass(frozen=True)
class AlbumPhoto:
    """One photo of an album. `answer` is that of all photos together, `alone` that of the photo by itself, None where
    there is none. `spread_km`: with 80 % probability the photo is from cells that lie so near to the answer. `anchor`:
    its EXIF place was used, and is its answer. `changed`: the others changed its answer. `reason`: why it was answered
    alone; `error`: why it was not answered. `taken_at` is the camera's clock, `utc_offset_hours` its zone, where
    recorded."""

    photo: str
    answer: Spot | None = None
    alone: Spot | None = None
    spread_km: float | None = None
    taken_at: str | None = None
    utc_offset_hours: float | None = None
    anchor: bool = False
    changed: bool = False
    moved_km: float | None = None
    reason: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        time = f"  {self.taken_at}" if self.taken_at else ""
        if self.answer is None:
            return f"{self.photo}{time}\n  no answer: {self.error or 'nothing to go by'}"
        a = self.answer
        how = "anchor: its EXIF place" if self.anchor else f"confidence {a.confidence:.2f}"
        around = f", 80 % within {self.spread_km:,.0f} km" if self.spread_km is not None else ""
        lines = [
            f"{self.photo}{time}",
            f"  {a.latitude:.5f}, {a.longitude:.5f}  {a.place}  ({how}{around})",
        ]
        if self.changed and self.alone is not None:
            lines.append(
                f"  changed by the others: alone {self.alone.latitude:.5f}, {self.alone.longitude:.5f}  "
                f"{self.alone.place}  (confidence {self.alone.confidence:.2f}), {self.moved_km:,.0f} km away"
            )
        if self.reason:
            lines.append(f"  answered alone: {self.reason}")
        return "\n".join(lines)


@dataclass(frozen=True)
class LocatedAlbum:
    """The photos of a folder, those of one sequence after each other in order of time. `track` are the positions of the
    answered photos of each sequence."""

    folder: str
    method: str
    photos: tuple[AlbumPhoto, ...]
    track: tuple[tuple[int, ...], ...] = field(default=())

    @property
    def answered(self) -> bool:
        """Whether any photo was located."""
        return any(one.answer is not None for one in self.photos)

    @property
    def summary(self) -> str:
        """How many photos there are of each kind."""
        counts = {
            "answered": sum(one.answer is not None for one in self.photos),
            "changed by the others": sum(one.changed for one in self.photos),
            "answered alone": sum(one.reason is not None for one in self.photos),
            "anchors": sum(one.anchor for one in self.photos),
        }
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "answered")
        return f"{len(self.photos)} photos of {self.folder} by {self.method}: {told}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.photos), self.summary])


def locate_album(
    build: Build, folder: Path, *, anchors: bool = False, say: Callable[[str], None] = lambda line: None
) -> LocatedAlbum:
    """Locate all photos of a folder together, by what a build saved: its Markov model, where it has a section albums
    with one, else the mean.

    `anchors`: photos whose EXIF has a place are answered with it, and tell of the others; else no EXIF place is used.
    A file that is no photo has no answer and says why. Raises UsageError for a folder without files, WorkspaceError
    where the build lacks something or is not what its records say.
    """
    files = photo_files(folder)
    albums = build.settings.albums
    hmm = albums.hmm if albums is not None else None
    loaded = ["partition", "classifier", *(["album_models"] if hmm is not None else [])]
    if missing := [name for name in loaded if not build.folder(name).is_dir()]:
        raise WorkspaceError(
            f"{build.recipe} has no {', '.join(missing)} yet; build it with: {build.command()}"
        )
    verified(build, Question(), loaded, say)
    by_class = ByClass.open(build, Question(), say)
    table, single = _read(by_class, files, hmm is None)
    if inside := sum(one.is_dir() and not one.name.startswith(".") for one in folder.iterdir()):
        say(f"{inside} folders in {folder} are not looked into: an album is the files of one folder")
    if bad := int(table["error"].notna().sum()):
        say(f"{bad} of {len(files)} files are no readable photos; each says why")
    nowhere = table[table["no_place"].notna()]
    if anchors and len(nowhere):
        one = nowhere.iloc[0]
        say(
            f"{len(nowhere)} of the photos are no anchors: their EXIF has a place that cannot be, such as "
            f"{Path(one['photo_id']).name}: {one['no_place']}"
        )
    if not anchors and (placed := int(table["latitude"].notna().sum())):
        say(f"{placed} of the photos have a place in their EXIF, which is not used; use it with --anchors")
    transitions = None if hmm is None else Transitions.load(build.folder("album_models") / HMM_FILE)
    if hmm is None:
        say(
            f"{build.recipe} has no Markov model of albums (section albums, as in planet_albums): answered by the mean"
        )
    sequences = albums.sequences if albums is not None else SequenceSettings()
    return _answered(by_class, folder, table, single, transitions, hmm, sequences, anchors)


def _read(by_class: ByClass, files: list[Path], scaled: bool) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """The facts of the files, and their probabilities over the main partition, float32 [N, C], scaled for means; few
    photos are held at once."""
    main = next(iter(by_class.partitions))
    rows: list[dict[str, Any]] = []
    parts = []
    for start in range(0, len(files), AT_ONCE):
        some = files[start : start + AT_ONCE]
        read = [read_photo(file) for file in some]
        p = np.full((len(some), by_class.partitions[main].cell_count), np.nan, dtype=np.float32)
        readable = [row for row, one in enumerate(read) if one.pixels is not None]
        if readable:
            pixels = [one.pixels for one in read if one.pixels is not None]
            p[readable] = by_class.probabilities(pixels, scaled=scaled)[main]
        parts.append(p)
        for file, one in zip(some, read, strict=True):
            data = file.read_bytes() if one.error is None else None
            facts = {} if data is None else _facts(_exif_of(data)) | {"content": sha256_bytes(data)}
            rows.append({"photo_id": one.name, "error": one.error, **facts})
    columns = [
        "content",
        "photo_id",
        "error",
        "taken_at",
        "utc_offset_hours",
        "latitude",
        "longitude",
        "no_place",
    ]
    table = pd.DataFrame(rows, columns=columns)
    written = pa.array(table["taken_at"].astype(object).where(table["taken_at"].notna(), None), pa.string())
    clock = times(written, len(table))[0].to_numpy(zero_copy_only=False).astype("M8[us]")
    # A year that no photo is of is no time.
    table["taken_at"] = np.where((clock >= EARLIEST) & (clock < LATEST), clock, np.datetime64("NaT", "us"))
    for name in ("utc_offset_hours", "latitude", "longitude"):
        table[name] = table[name].astype("float64")
    return table, np.concatenate(parts)


def _exif_of(data: bytes) -> PhotoFacts | None:
    from PIL import Image

    from geoloc.photos.exif import read_exif

    try:
        with Image.open(io.BytesIO(data)) as image:
            return read_exif(image)
    except Exception:  # Pillow raises whatever a damaged file leads to; its pixels were read
        return None


def _facts(facts: PhotoFacts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    placed, nowhere = facts.placed, None
    if facts.problem is not None:
        nowhere = facts.problem[1]
    elif not placed and facts.latitude is not None and facts.longitude is not None:
        nowhere = f"{facts.latitude:g}, {facts.longitude:g}"
    return {
        "taken_at": facts.taken,
        "utc_offset_hours": facts.utc_offset_hours,
        "latitude": facts.latitude if placed else None,
        "longitude": facts.longitude if placed else None,
        "no_place": nowhere,
    }


def _answered(
    by_class: ByClass,
    folder: Path,
    table: pd.DataFrame,
    single: NDArray[np.float32],
    transitions: Transitions | None,
    hmm: HMMSettings | None,
    order: SequenceSettings,
    anchors: bool,
) -> LocatedAlbum:
    partition = next(iter(by_class.partitions.values()))
    points = partition.answers()
    known = np.full(len(table), -1, dtype=np.int64)
    placed = (table["latitude"].notna() & table["error"].isna()).to_numpy() & anchors
    known[placed] = partition.assign(table["latitude"][placed], table["longitude"][placed])
    now = pd.Timestamp(datetime.now(UTC).replace(tzinfo=None))
    contents = table["content"].astype(object).where(table["content"].notna(), None).to_numpy()
    heard, nowhere = single, placed & (known < 0)
    if nowhere.any():
        heard = single.copy()
        heard[nowhere] = np.nan  # known to be elsewhere than any cell
    found = together(heard, in_order(table, now, order), partition, transitions, hmm, known, contents)
    spread = spread_km(found.probabilities, found.cells, points, partition.areas_km2())
    unread = np.isnan(single).any(axis=1)
    own = np.where(unread, -1, np.nan_to_num(single).argmax(axis=1))
    where = np.full((len(table), 2), np.nan)
    where[found.cells >= 0] = points[found.cells[found.cells >= 0]]
    where[placed] = table.loc[placed, ["latitude", "longitude"]]
    alone = np.where((own >= 0)[:, None], points[own], np.nan)
    names = _named(np.concatenate([where, alone]))
    moved = distance_km(where[:, 0], where[:, 1], alone[:, 0], alone[:, 1])
    reason = found.reason.copy()
    reason[nowhere] = _IN_NO_CELL
    reason[placed & (known >= 0)] = None
    photos = []
    for i, row in enumerate(table.itertuples()):
        cell, anchor = found.cells[i], bool(placed[i])
        sure = 1.0 if anchor else float(found.probabilities[i, cell]) if cell >= 0 else 0.0
        answer = (
            None if np.isnan(where[i, 0]) else Spot(float(where[i, 0]), float(where[i, 1]), names[i], sure)
        )
        by_itself = (
            None
            if own[i] < 0
            else Spot(float(alone[i, 0]), float(alone[i, 1]), names[len(table) + i], float(single[i, own[i]]))
        )
        changed = bool(answer is not None and not anchor and cell != own[i])
        photos.append(
            AlbumPhoto(
                str(row.photo_id),
                answer,
                by_itself,
                0.0 if anchor else None if np.isnan(spread[i]) else float(spread[i]),
                None if pd.isna(row.taken_at) else str(row.taken_at),
                None if pd.isna(row.utc_offset_hours) else float(row.utc_offset_hours),
                anchor,
                changed,
                float(moved[i]) if changed else None,
                None if answer is None else reason[i],
                row.error if isinstance(row.error, str) else None,
            )
        )
    # In order of sequences, the longest first.
    numbers = sorted(range(len(found.sequences)), key=lambda n: (-int(found.sequences.lengths[n]), n))
    rows = [found.sequences.of(number) for number in numbers]
    placeof = {int(row): at for at, row in enumerate(np.concatenate(rows))}
    track = tuple(
        tuple(placeof[int(row)] for row in some if photos[int(row)].answer is not None) for some in rows
    )
    method = f"[L]{'HMM' if hmm is not None else 'album average'} {partition.cell_count}C"
    return LocatedAlbum(
        str(folder),
        method,
        tuple(photos[int(row)] for row in np.concatenate(rows)),
        tuple(one for one in track if len(one) > 1),
    )


def _named(places: NDArray[np.float64]) -> list[str]:
    """The name of each place, "" for none."""
    names = [""] * len(places)
    known = np.flatnonzero(~np.isnan(places[:, 0]))
    for row, place in zip(known, nearest_places(places[known, 0], places[known, 1]), strict=True):
        names[row] = str(place)
    return names


def album_page(album: LocatedAlbum) -> str:
    """One offline HTML page with the album's track on the world map, each answer with its uncertainty."""
    from geoloc.reports.album_map import album_map_html

    return album_map_html(album.to_dict(), album.summary, SPREAD)
