"""Screening: which candidates of a batch may be photos of the pool, by their coordinates, ids, times and numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.photos import quarantine
from geoloc.photos.photographers import photographer_id, photographer_ids
from geoloc.photos.quarantine import FIELD, PHOTO, Reason, Rejected
from geoloc.photos.sources.candidates import Candidates

EARLIEST, LATEST = np.datetime64("1839-01-01", "us"), np.datetime64("2100-01-01", "us")
"""No photo is older than photography. The latest time is no clock's, as the same input must give the same catalog."""

EARLIEST_POSTED = np.datetime64("1990-01-01", "us")
"""Nobody posted photos before; a time of 0 Unix seconds is a damaged one."""

_POSTED_AFTER_TAKEN = np.timedelta64(1, "D")
"""A photo is taken before it is posted; a day is left for cameras on another zone's clock."""


@dataclass(frozen=True)
class Screened:
    """What of a batch may go on.

    `table` has the columns of a source's candidates, with final ids, hashed photographers and damaged fields nulled;
    `rows` int64 are the batch's rows that it holds. `turned_away` has the schema of quarantine; `field_faults` too:
    they stand for what the pool keeps without a field, so those of a photo that is turned away later are void.
    """

    table: pa.Table
    rows: NDArray[np.int64]
    turned_away: pa.Table
    field_faults: pa.Table


def screen(
    batch: Candidates, source: str, key: bytes, origin: str | None = None, max_file_bytes: int = 0
) -> Screened:
    """Check a batch of N candidates, a column at a time.

    `origin`: as quarantine has it, of what is turned away. The image of what is turned away is read, up to
    `max_file_bytes`, to know it from another that is once found in its place.
    """
    look = _Look(batch, key, max_file_bytes)
    table, faults = _named(batch.table, batch, source, key), _named(batch.faults, batch, source, key)
    told = _told(faults, source, key, origin)
    # a list of tables, each of one reason
    away = [told.filter(pc.equal(told["severity"], PHOTO))]
    fields = [told.filter(pc.equal(told["severity"], FIELD))]

    reasons = _photo_faults(table)
    good = np.ones(table.num_rows, bool)
    for reason, bad in reasons.items():
        bad &= good
        good &= ~bad
        if bad.any():
            detail = _coordinates(table, bad, reason)
            away.append(_rows(source, table, bad, reason, PHOTO, detail, origin, look.at(table, bad)))
    rows = np.flatnonzero(good)
    if not good.all():
        table = table.take(rows)

    for column, bad, reason in _field_faults(table):
        if bad.any():
            shown = table[column].filter(bad).cast(pa.string())
            detail = pc.binary_join_element_wise(f"{column} is ", shown, "")
            content = look.at(table, bad, rows)
            fields.append(_rows(source, table, bad, reason, FIELD, detail, origin, content))
            position = table.schema.get_field_index(column)
            values = pc.if_else(
                pa.array(bad), pa.scalar(None, table.schema.field(column).type), table[column]
            )
            table = table.set_column(position, table.schema.field(column), values)
    heading = pc.if_else(pc.equal(table["heading"], 360.0), 0.0, table["heading"])
    table = table.set_column(table.schema.get_field_index("heading"), "heading", heading)
    return Screened(_hashed(table, key), rows, pa.concat_tables(away), pa.concat_tables(fields))


@dataclass(frozen=True)
class _Look:
    """What is at a row of a batch: all that is known of it, and its image."""

    batch: Candidates
    key: bytes
    max_file_bytes: int

    def at(self, table: pa.Table, bad: NDArray[np.bool_], rows: NDArray[np.int64] | None = None) -> pa.Array:
        """Digests of the bad rows of a table; `rows`: which rows of the batch it holds (default: all)."""
        places = np.flatnonzero(bad) if rows is None else rows[bad]
        found = table.filter(pa.array(bad)).drop_columns(["reference", "url"])
        images = pa.array([self._image(int(row)) for row in places], pa.string())
        return quarantine.digests(found.append_column("image", images), self.key)

    def _image(self, row: int) -> str | None:
        batch = self.batch
        if batch.load is None or (batch.pictured is not None and not batch.pictured[row]):
            return None
        try:
            return sha256_bytes(batch.load(row, self.max_file_bytes))
        except Rejected as error:
            return error.input_sha256 or str(error)
        except OSError:
            return None


def _told(faults: pa.Table, source: str, key: bytes, origin: str | None) -> pa.Table:
    """What a source itself could not read, as rows of quarantine."""
    count = faults.num_rows
    columns = {name: faults[name] for name in ("reference", "photo_id", "reason", "detail", "severity")}
    columns["source"] = pa.repeat(source, count)
    columns["origin"] = pa.array([origin] * count, pa.string())
    # a host that fails in another way each day tells of one photo all the same: the last way replaces the others
    passing = pc.equal(faults["reason"], str(Reason.HTTP_UNAVAILABLE))
    detail = pc.if_else(passing, "", faults["detail"])
    there = pa.table({"photo_id": faults["photo_id"], "detail": detail, "content": faults["content"]})
    columns["content"] = quarantine.digests(there, key)
    columns["mended_by"] = pa.nulls(count, pa.string())
    return pa.table(columns).select(quarantine.SCHEMA.names).cast(quarantine.SCHEMA)


def _photo_faults(table: pa.Table) -> dict[Reason, NDArray[np.bool_]]:
    """Reason -> rows (bool [N]), in the order in which they are told."""
    missing_id = _nulls(table["photo_id"])
    missing = _nulls(table["latitude"]) | _nulls(table["longitude"])
    latitude, longitude = _floats(table["latitude"]), _floats(table["longitude"])
    infinite = ~(np.isfinite(latitude) & np.isfinite(longitude))
    with np.errstate(invalid="ignore"):
        outside = (np.abs(latitude) > 90) | (np.abs(longitude) > 180)
    zero = (latitude == 0) & (longitude == 0)
    return {
        Reason.MISSING_ID: missing_id,
        Reason.MISSING_COORDINATES: missing,
        Reason.NON_FINITE_COORDINATES: infinite,
        Reason.OUT_OF_RANGE_COORDINATES: outside,
        Reason.ZERO_COORDINATES: zero,
    }


def _field_faults(table: pa.Table) -> list[tuple[str, NDArray[np.bool_], Reason]]:
    """Column, rows, reason."""
    taken, posted = (table[name].to_numpy().astype("M8[us]") for name in ("taken_at", "posted_at"))
    heading, indoor = _floats(table["heading"]), _floats(table["prob_indoor"])
    with np.errstate(invalid="ignore"):
        bad_heading = ~_nulls(table["heading"]) & ~((heading >= 0) & (heading <= 360))
        bad_indoor = ~_nulls(table["prob_indoor"]) & ~((indoor >= 0) & (indoor <= 1))
    bad_posted = (posted < EARLIEST_POSTED) | (posted >= LATEST)
    bad_taken = (taken < EARLIEST) | (taken >= LATEST)
    bad_taken |= ~bad_posted & (taken > posted + _POSTED_AFTER_TAKEN)  # false where either is unknown
    return [
        ("taken_at", bad_taken, Reason.BAD_TIME),
        ("posted_at", bad_posted, Reason.BAD_TIME),
        ("heading", bad_heading, Reason.BAD_HEADING),
        ("prob_indoor", bad_indoor, Reason.BAD_PROBABILITY),
    ]


def _named(table: pa.Table, batch: Candidates, source: str, key: bytes) -> pa.Table:
    """References, ids and albums as the pool may keep them (see `Candidates`)."""
    if batch.photographer_folder:
        for name in ("reference", "photo_id", "album"):
            if name in table.column_names:
                hidden = pa.array([_hide_folder(v, key, name) for v in table[name].to_pylist()], pa.string())
                table = table.set_column(table.schema.get_field_index(name), name, hidden)
    if batch.local_ids:
        local = pc.binary_join_element_wise(source, table["photo_id"], "/")
        table = table.set_column(table.schema.get_field_index("photo_id"), "photo_id", local)
    return table


def _hide_folder(value: str | None, key: bytes, name: str) -> str | None:
    """`anna/rome/1.jpg` with the keyed hash in place of anna; an album may be `anna` alone."""
    if value is None:
        return None
    first, slash, rest = value.partition("/")
    if first.startswith("."):
        return value  # a hidden folder is not entered and so is nobody's
    return value if not slash and name != "album" else photographer_id(first, key) + slash + rest


def _hashed(table: pa.Table, key: bytes) -> pa.Table:
    position = table.schema.get_field_index("photographer")
    return table.set_column(position, "photographer", photographer_ids(table["photographer"], key))


def _rows(
    source: str,
    table: pa.Table,
    bad: NDArray[np.bool_],
    reason: Reason,
    severity: str,
    detail: pa.ChunkedArray | pa.Array | str,
    origin: str | None,
    content: pa.Array,
) -> pa.Table:
    found = table.select(["reference", "photo_id"]).filter(pa.array(bad))
    return quarantine.rows(
        source, found["reference"], found["photo_id"], reason, detail, severity, origin, content
    )


def _coordinates(table: pa.Table, bad: NDArray[np.bool_], reason: Reason) -> pa.ChunkedArray | str:
    if reason == Reason.MISSING_ID:
        return "no photo_id"
    mask = pa.array(bad)
    told = [
        pc.fill_null(table[name].filter(mask).cast(pa.string()), "unknown")
        for name in ("latitude", "longitude")
    ]
    return pc.binary_join_element_wise(
        pc.binary_join_element_wise("latitude", told[0], " "),
        pc.binary_join_element_wise("longitude", told[1], " "),
        ", ",
    )


def _nulls(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy())


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(), np.float64)  # null as NaN
