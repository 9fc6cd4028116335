"""From the text of a source to typed columns: numbers and times parsed a column at a time, and what is damaged kept
apart from what is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_plus

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geoloc.photos.facts import MAGNETIC_NORTH, TRUE_NORTH
from geoloc.photos.quarantine import FIELD, PHOTO, Reason
from geoloc.photos.sources.candidates import FAULTS, SCHEMA

BoolArray = NDArray[np.bool_]

_ZONE = r"(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?"
_TIME = (
    r"^(?P<year>\d{4})[-:/](?P<month>\d{1,2})[-:/](?P<day>\d{1,2})"
    r"(?:[ T](?P<hour>\d{1,2}):(?P<rest>\d{2}(?::\d{2}(?:\.\d{1,9})?)?)\s*" + _ZONE + r")?$"
)
_COMPACT_DAY = r"^(\d{4})(\d{2})(\d{2})$"
_COMPACT = r"^(\d{4})(\d{2})(\d{2})[T ]?(\d{2})(\d{2})(\d{2})(Z|[+-]\d{4})?$"
_UNIX_SECONDS = r"^\d{9,10}(\.\d+)?$"
"""From 1973 on. Shorter numbers are years, days of a spreadsheet, or nothing: `2013`, `41456.5`, `0`."""

_DAY_AND_HOUR = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])(\.\d+)?$"
"""`2013070112` may be Unix seconds or a day with its hour: nobody knows."""

_UNKNOWN_TIME = r"^0000[-:/]00[-:/]00([ T]00:00:00)?$|^[:\s]*$"
"""EXIF 2.32, DateTime: zeros or blanks for an unknown time."""


def text(values: pa.Array | pa.ChunkedArray | None, count: int) -> pa.Array:
    """A column as text, trimmed, empty as null; null where there is no column. Bytes that are no UTF-8 stay apart from
    each other, as `\\xfc` (see `undecodable`)."""
    if values is None:
        return pa.nulls(count, pa.string())
    array = _plain(values)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            decoded = [
                None if v is None else v.decode("utf-8", "backslashreplace") for v in array.to_pylist()
            ]
            array = pa.array(decoded, pa.string())
    elif pa.types.is_floating(array.type):  # an id read as 12.0 by what wrote the table
        array = array.cast(pa.float64())
        whole = pc.and_kleene(pc.equal(array, pc.floor(array)), pc.less(pc.abs(array), 2.0**53))
        array = pc.if_else(
            pc.fill_null(whole, False),
            pc.if_else(whole, array, 0.0).cast(pa.int64(), safe=False).cast(pa.string()),
            array.cast(pa.string()),
        )
    try:
        array = array.cast(pa.string())
    except (
        pa.ArrowInvalid,
        pa.ArrowNotImplementedError,
    ):  # lists, structs: shown, and refused by what reads them
        array = pa.array([None if v is None else repr(v) for v in array.to_pylist()], pa.string())
    trimmed = pc.utf8_trim_whitespace(array)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def undecodable(values: pa.Array | pa.ChunkedArray | None, count: int) -> BoolArray:
    """Where a column of text is no UTF-8, or holds the sign U+FFFD, by which another program replaced what it could not
    read: two such texts may be equal and mean two people."""
    if values is None:
        return np.zeros(count, bool)
    array = _plain(values)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            return np.array([value is not None and not _is_utf8(value) for value in array.to_pylist()], bool)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return np.zeros(count, bool)
    found = pc.fill_null(pc.match_substring(array, "\ufffd"), False)
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _is_utf8(value: bytes) -> bool:
    try:
        return "\ufffd" not in value.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def numbers(values: pa.Array | pa.ChunkedArray | None, count: int) -> tuple[pa.Array, BoolArray]:
    """A column as float64, and where it holds what is no number (null there). `nan` and `inf` are numbers here."""
    if values is None:
        return pa.nulls(count, pa.float64()), np.zeros(count, bool)
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        return array.cast(pa.float64(), safe=False), np.zeros(count, bool)
    strings = text(array, count)
    try:
        return strings.cast(pa.float64()), np.zeros(count, bool)
    except pa.ArrowInvalid:
        parsed = [_number(value) for value in strings.to_pylist()]
    made = pa.array([None if isinstance(v, str) else v for v in parsed], pa.float64())
    return made, np.array([isinstance(v, str) for v in parsed], bool)


def times(values: pa.Array | pa.ChunkedArray | None, count: int) -> tuple[pa.Array, pa.Array, BoolArray]:
    """A column as the clock that it shows and as UTC, both timestamp[us] without zone, and where it is damaged.

    Read: ISO 8601 (`2013-07-01T12:00:00+02:00`, `20130701T120000Z`), EXIF (`2013:07:01 12:00:00`), a date alone
    (`20130701`), Unix seconds of 9 or 10 digits, and timestamp columns. Without zone, both are what is written. A clock
    of zeros is unknown, as EXIF has it. Other numbers are damaged: a year or a day of a spreadsheet is no time.
    """
    if values is None:
        none = pa.nulls(count, pa.timestamp("us"))
        return none, none, np.zeros(count, bool)
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        utc = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)), safe=False)
        clock = pc.local_timestamp(utc) if utc.type.tz else utc
        return clock, pa.array(utc.cast(pa.int64())).cast(pa.timestamp("us")), np.zeros(count, bool)
    strings = text(array, count)
    unknown = pc.fill_null(pc.match_substring_regex(strings, _UNKNOWN_TIME), True)
    strings = pc.if_else(unknown, pa.scalar(None, pa.string()), strings)
    dashed = pc.replace_substring_regex(strings, _COMPACT_DAY, r"\1-\2-\3")
    dashed = pc.replace_substring_regex(dashed, _COMPACT, r"\1-\2-\3T\4:\5:\6\7")
    parts = pc.extract_regex(dashed, _TIME)
    written = _written(parts, count)
    seconds = pc.and_not(
        pc.fill_null(pc.match_substring_regex(strings, _UNIX_SECONDS), False),
        pc.fill_null(pc.match_substring_regex(strings, _DAY_AND_HOUR), False),
    )
    unix = _from_seconds(pc.if_else(seconds, strings, pa.scalar(None, pa.string())).cast(pa.float64()))
    clock = pc.coalesce(written, unix)
    zone = _zone_minutes(parts, count)
    utc = (np.asarray(clock.to_numpy(zero_copy_only=False), "M8[us]") - zone).astype("M8[us]")
    damaged = np.asarray(pc.and_(pc.is_valid(strings), pc.is_null(clock)).to_numpy(zero_copy_only=False))
    return clock, pa.array(utc, pa.timestamp("us"), from_pandas=True), damaged


def unquoted(values: pa.Array) -> pa.Array:
    """URL-encoded text decoded (`+` is a blank); each different value once."""
    encoded = pc.dictionary_encode(values)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    decoded = pa.array([unquote_plus(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return decoded.take(encoded.indices)


def typed(
    reference: pa.Array, raw: Mapping[str, pa.Array | pa.ChunkedArray | None]
) -> tuple[pa.Table, pa.Table, NDArray[np.int64]]:
    """Raw columns of N rows as a table of candidates.

    `raw` has text or typed columns by the names of SCHEMA; missing ones are unknown. Returns the table, the faults
    (FAULTS), and the row numbers, of the N, that the table keeps: rows whose coordinates are no numbers are left out
    as faults, other damaged fields are nulled as faults of the field.
    """
    count = len(reference)
    photo_id = text(raw.get("photo_id"), count)
    faults: list[pa.Table] = []

    def blame(bad: BoolArray, column: str, reason: Reason, severity: str, why: str | None = None) -> None:
        if bad.any():
            rows = np.flatnonzero(bad)
            if why is None:
                shown = text(raw[column], count).take(rows).to_pylist()
                details = pa.array([f"{column} is {value[:80]!r}" for value in shown], pa.string())
            else:
                details = pa.repeat(f"{column} {why}", len(rows))
            faults.append(
                pa.table(
                    [
                        reference.take(rows),
                        photo_id.take(rows),
                        pa.repeat(str(reason), len(rows)),
                        details,
                        pa.repeat(severity, len(rows)),
                        _shown(raw, rows),
                    ],
                    schema=FAULTS,
                )
            )

    kept = np.ones(count, bool)
    for name in ("photo_id", "photographer", "url"):
        bad = undecodable(raw.get(name), count) & kept
        blame(bad, name, Reason.UNDECODABLE_TEXT, PHOTO, _NO_UTF8)
        kept &= ~bad
    texts = {}
    for name in ("album", "licence"):
        bad = undecodable(raw.get(name), count)
        texts[name] = _nulled(text(raw.get(name), count), bad)
        blame(bad & kept, name, Reason.UNDECODABLE_TEXT, FIELD, _NO_UTF8)
    latitude, bad_latitude = numbers(raw.get("latitude"), count)
    longitude, bad_longitude = numbers(raw.get("longitude"), count)
    blame(bad_latitude & kept, "latitude", Reason.MALFORMED_COORDINATES, PHOTO)
    blame(bad_longitude & ~bad_latitude & kept, "longitude", Reason.MALFORMED_COORDINATES, PHOTO)
    kept &= ~(bad_latitude | bad_longitude)
    taken_at, _, bad = times(raw.get("taken_at"), count)
    blame(bad & kept, "taken_at", Reason.BAD_TIME, FIELD)
    _, posted_at, bad = times(raw.get("posted_at"), count)
    blame(bad & kept, "posted_at", Reason.BAD_TIME, FIELD)
    heading, bad = numbers(raw.get("heading"), count)
    blame(bad & kept, "heading", Reason.BAD_HEADING, FIELD)
    prob_indoor, bad = numbers(raw.get("prob_indoor"), count)
    blame(bad & kept, "prob_indoor", Reason.BAD_PROBABILITY, FIELD)
    north, bad = _norths(text(raw.get("heading_reference"), count))
    blame(bad & kept, "heading_reference", Reason.BAD_HEADING, FIELD)
    table = pa.table(
        [
            reference,
            photo_id,
            text(raw.get("photographer"), count),
            latitude,
            longitude,
            taken_at,
            posted_at,
            texts["album"],
            heading,
            prob_indoor,
            texts["licence"],
            north,
            text(raw.get("place_source"), count),
            text(raw.get("time_source"), count),
            text(raw.get("url"), count),
        ],
        schema=SCHEMA,
    )
    rows = np.flatnonzero(kept)
    table = table if kept.all() else table.take(rows)
    return table, pa.concat_tables(faults) if faults else FAULTS.empty_table(), rows


_NO_UTF8 = "is no text in UTF-8: save the table in that encoding"


def _nulled(values: pa.Array, gone: BoolArray) -> pa.Array:
    return pc.if_else(pa.array(gone), pa.scalar(None, values.type), values)


def _norths(values: pa.Array) -> tuple[pa.Array, BoolArray]:
    """T, true, M or magnetic in either case as facts.TRUE_NORTH and MAGNETIC_NORTH, and where it is something else."""
    first = pc.utf8_lower(values)
    true = pc.is_in(first, value_set=pa.array(["t", TRUE_NORTH]))
    magnetic = pc.is_in(first, value_set=pa.array(["m", MAGNETIC_NORTH]))
    none = pa.scalar(None, pa.string())
    made = pc.if_else(true, TRUE_NORTH, pc.if_else(magnetic, MAGNETIC_NORTH, none))
    bad = pc.and_(pc.is_valid(values), pc.is_null(made))
    return made, np.asarray(bad.to_numpy(zero_copy_only=False), bool)


def _shown(raw: Mapping[str, pa.Array | pa.ChunkedArray | None], rows: NDArray[np.int64]) -> pa.Array:
    """All that the source gives of some rows, as text."""
    cells = [column.take(pa.array(rows)).to_pylist() for column in raw.values() if column is not None]
    return pa.array([repr(row) for row in zip(*cells, strict=True)], pa.string())


def strings(values: list[object]) -> pa.Array:
    """Values of JSON or msgpack as a column of bytes, as a text table has them; what is no scalar becomes its repr, for
    the parsers to refuse."""
    return pa.array([_as_bytes(value) for value in values], pa.binary())


def _as_bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    # half of a surrogate pair, which JSON can hold, ends as bytes that are no UTF-8
    return (value if isinstance(value, str) else repr(value)).encode("utf-8", "surrogatepass")


def _number(value: str | None) -> float | str | None:
    """A number, None for none, or the text itself where it is no number."""
    if value is None:
        return None
    # float() would also take 1_000 and the digits of other scripts
    return float(value) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf(inity)?)", value, re.I
    | re.A) else value  # fmt: skip


def _written(parts: pa.StructArray, count: int) -> pa.Array:
    """The clock written in matches of _TIME; null where there is none or no such day or hour exists."""
    month, day, hour = (pc.utf8_lpad(parts.field(name), 2, "0") for name in ("month", "day", "hour"))
    rest = pc.if_else(pc.equal(parts.field("rest"), ""), "00:00", parts.field("rest"))
    date = pc.binary_join_element_wise(parts.field("year"), month, day, "-")
    iso = pc.binary_join_element_wise(date, pc.binary_join_element_wise(hour, rest, ":"), "T")
    iso = pc.if_else(parts.is_valid(), iso, pa.scalar(None, pa.string()))
    parsed = pd.to_datetime(
        pd.Series(iso.to_pandas(), dtype="str"), errors="coerce", format="ISO8601", cache=False
    )
    return pa.array(parsed.to_numpy("M8[us]"), pa.timestamp("us"), from_pandas=True)


def _zone_minutes(parts: pa.StructArray, count: int) -> NDArray[np.timedelta64]:
    """Minutes east of Greenwich that are written; 0 where there are none."""
    zones = pc.dictionary_encode(pc.fill_null(parts.field("zone"), ""))
    minutes = [0 if z in ("", "Z", "UTC", "GMT") else _minutes(z) for z in zones.dictionary.to_pylist()]
    if not minutes:
        return np.zeros(count, "m8[m]")
    return np.array(minutes, "m8[m]")[zones.indices.to_numpy()]


def _minutes(zone: str) -> int:
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return -minutes if zone[0] == "-" else minutes


def _from_seconds(seconds: pa.Array) -> pa.Array:
    micros = pc.round(pc.multiply(seconds, 1e6)).cast(pa.int64(), safe=False)
    return micros.cast(pa.timestamp("us"))
