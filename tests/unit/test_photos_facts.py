"""Facts of a photo: EXIF, XMP and Takeout as they are really written; never the wrong half of the Earth."""

import contextlib
import io
import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoloc.photos.exif import read_exif
from geoloc.photos.facts import PhotoFacts
from geoloc.photos.quarantine import Reason
from geoloc.photos.sidecars import gather
from geoloc.photos.takeout import TakeoutError, parse_takeout, takeout_name
from geoloc.photos.xmp import XmpError, read_xmp
from tests.limits import under_limits
from tests.photo_fixtures import jpeg
from tests.raw_exif import ASCII, RATIONAL, SIGNED, angle, dms, photo, taken, tiff, xmp


def facts(gps=None, exif=None) -> PhotoFacts:
    image = Image.open(io.BytesIO(photo(1, **{"gps": gps or {}, "exif": exif or {}})))
    return read_exif(image)


def why(gps) -> tuple[Reason, str]:
    found = facts(gps)
    assert found.latitude is None or found.longitude is None
    assert found.problem is not None
    return found.problem


@given(
    st.integers(0, 89), st.integers(0, 59), st.integers(0, 5999),
    st.sampled_from(["N", "S"]), st.sampled_from(["E", "W"]), st.sampled_from([RATIONAL, SIGNED]),
    st.sampled_from(["{}", " {}", "{}\0\0", "{} "]), st.booleans(),
)  # fmt: skip
def test_angles(degrees, minutes, hundredths, north, east, kind, form, lower):
    parts = angle(degrees, minutes, hundredths / 100)
    refs = [form.format(ref.lower() if lower else ref) for ref in (north, east)]
    found = facts(dms(refs[0], parts, refs[1], parts, kind))
    size = degrees + minutes / 60 + hundredths / 360_000
    assert found.latitude == pytest.approx(size if north == "N" else -size)
    assert found.longitude == pytest.approx(size if east == "E" else -size)


@pytest.mark.parametrize("ref", ["N", "S"])
@pytest.mark.parametrize(
    "parts",
    [
        [(-37, 1), (48, 1), (20, 1)],
        [(-37, 1), (-48, 1), (-20, 1)],
        [(37, 1), (-48, 1), (20, 1)],
        [(37, 1), (48, 1), (-20, 1)],
        [(37, -1), (48, 1), (20, 1)],
        [(48, 1), (1234, 1), (0, 1)],
        [(48, 1), (60, 1), (0, 1)],
        [(48, 1), (8, 1), (61, 1)],
        [(485, 10), (30, 1), (0, 1)],
        [(48, 1), (85, 10), (30, 1)],
    ],
)
def test_parts_that_contradict_each_other_are_no_place(ref, parts):
    reason, detail = why(dms(ref, parts, "E", angle(11), SIGNED))
    assert reason == Reason.MALFORMED_COORDINATES
    assert "GPSLatitude is" in detail


def test_seconds_rounded_up_to_sixty_are_a_minute():
    assert facts(dms("N", angle(48, 7, 60), "E", angle(11))).latitude == pytest.approx(48 + 8 / 60)


@pytest.mark.parametrize(("latitude_ref", "longitude_ref"), [(None, "E"), ("N", None), ("E", "N"), ("\0", "E"),
                                                             ("X", "E"), ("NS", "E"), ("-", "E")])  # fmt: skip
def test_a_hemisphere_is_never_guessed(latitude_ref, longitude_ref):
    reason, detail = why(dms(latitude_ref, angle(48), longitude_ref, angle(11)))
    assert reason == Reason.MALFORMED_COORDINATES
    assert "Ref is" in detail


def test_zero_denominators_are_no_number():
    assert math.isnan(facts(dms("N", [(1, 0), (6, 0), (36, 1)], "E", angle(11))).latitude)


def test_wrapped_negative_degrees_are_no_place():
    assert why(dms("S", [(-37, 1), (-48, 1), (-20, 1)], "E", angle(145)))[0] == Reason.MALFORMED_COORDINATES


@pytest.mark.parametrize("status", ["V", "v", "V\0"])
def test_void_coordinates_are_none(status):
    gps = {**dms("N", angle(48), "E", angle(11)), 9: (ASCII, status)}
    assert why(gps) == (Reason.MISSING_COORDINATES, "GPSStatus is V: the coordinates are void")
    gps[9] = (ASCII, "A")
    assert facts(gps).latitude == 48


@pytest.mark.parametrize(("ref", "north"), [("T", "true"), ("m", "magnetic"), (None, None), ("X", None)])
def test_a_heading_keeps_its_reference(ref, north):
    gps = {17: (RATIONAL, [(1234, 10)])} | ({} if ref is None else {16: (ASCII, ref)})
    found = facts(gps)
    assert (found.heading, found.heading_reference) == (pytest.approx(123.4), north)


def test_times_in_order_of_trust():
    satellites = {29: (ASCII, "2019:04:09"), 7: (RATIONAL, angle(23, 30, 5))}
    digitized = {0x9004: (ASCII, "2018:01:01 00:00:01")}
    unset = taken("0000:00:00 00:00:00")
    assert facts(satellites, taken("2019:04:09 16:19:13") | digitized).taken == "2019:04:09 16:19:13"
    assert facts(satellites, unset | digitized).taken == "2018:01:01 00:00:01"
    assert facts(satellites, unset).taken == "2019-04-09 23:30:05"
    # the satellites tell UTC, and the photo's zone makes its clock of it
    assert facts(satellites, {0x9011: (ASCII, "+02:00")}).taken == "2019-04-10 01:30:05"
    assert facts({29: (ASCII, "2019:13:09"), 7: (RATIONAL, angle(1))}).taken is None


def test_a_clock_keeps_its_own_offset_from_utc():
    original, digitized = taken("2019:04:09 16:19:13"), {0x9004: (ASCII, "2018:01:01 00:00:01")}
    zones = {0x9011: (ASCII, "-03:30"), 0x9012: (ASCII, "+09:00")}
    satellites = {29: (ASCII, "2019:04:09"), 7: (RATIONAL, angle(23, 30, 5))}
    assert facts({}, original | digitized | zones).utc_offset_hours == -3.5
    assert facts({}, digitized | zones).utc_offset_hours == 9
    assert facts(satellites, zones).utc_offset_hours == -3.5
    assert facts(satellites).utc_offset_hours == 0
    assert facts({}, original | {0x9011: (ASCII, "+00:00")}).utc_offset_hours == 0
    for unknown in ({}, {0x9011: (ASCII, "+99:00")}, {0x9011: (ASCII, "Z")}, {0x9012: (ASCII, "+01:00")}):
        assert facts({}, original | unknown).utc_offset_hours is None
    assert facts({}, zones).utc_offset_hours is None


@under_limits()
@given(st.binary(max_size=200))
def test_damaged_exif_counts_as_none_or_is_read(damage):
    data = photo(1, gps=dms("N", angle(48), "E", angle(11)), exif=taken("2019:04:09 16:19:13"))
    header = tiff(gps={}, exif={})
    at = data.index(b"Exif\0\0") + 6 + min(8, len(header))
    read_exif(Image.open(io.BytesIO(data[:at] + damage + data[at + len(damage) :])))


# XMP


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        ("48,8.5N", "11,34.2E", (48 + 8.5 / 60, 11.57)),
        ("48,8,30N", "11,34,12W", (48 + 8.5 / 60, -11.57)),
        ("33,51.4s", "151,12.9e", (-(33 + 51.4 / 60), 151.215)),
        ("-33.85", "+151.215", (-33.85, 151.215)),
        ("48.5N", "11.25W", (48.5, -11.25)),
    ],
)
@pytest.mark.parametrize("as_attributes", [True, False])
def test_xmp_coordinates(latitude, longitude, expected, as_attributes):
    if as_attributes:
        packet = xmp(f'exif:GPSLatitude="{latitude}" exif:GPSLongitude="{longitude}"')
    else:
        packet = xmp(
            inside=f"<exif:GPSLatitude>{latitude}</exif:GPSLatitude>"
            f"<exif:GPSLongitude> {longitude}\n</exif:GPSLongitude>"
        )
    found = read_xmp(packet)
    assert (found.latitude, found.longitude) == pytest.approx(expected)


@pytest.mark.parametrize(
    "latitude", ["48,8.5", "48,1234N", "-48,8.5N", "48,8.5E", "north", "48,8,30,5N", "-48.5N"]
)
def test_xmp_coordinates_that_are_none(latitude):
    found = read_xmp(xmp(f'exif:GPSLatitude="{latitude}" exif:GPSLongitude="11,34.2E"'))
    assert found.problem is not None
    assert found.problem[0] == Reason.MALFORMED_COORDINATES


def test_xmp_time_heading_and_void():
    found = read_xmp(
        xmp(
            'exif:GPSImgDirection="2705/10" exif:GPSImgDirectionRef="M" exif:GPSStatus="V"'
            ' exif:GPSLatitude="48,8.5N" exif:GPSLongitude="11,34.2E"'
            ' photoshop:DateCreated="2019-04-09T16:19:13"'
        )
    )
    assert (found.heading, found.heading_reference, found.taken) == (270.5, "magnetic", "2019-04-09T16:19:13")
    assert not found.placed


def test_a_place_that_is_shown_is_not_where_the_camera_was():
    inside = (
        '<Shown xmlns="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><rdf:Bag><rdf:li rdf:parseType="Resource">'
        "<exif:GPSLatitude>1,0N</exif:GPSLatitude><exif:GPSLongitude>2,0E</exif:GPSLongitude>"
        "</rdf:li></rdf:Bag></Shown>"
    )
    assert read_xmp(xmp(inside=inside)) == PhotoFacts()


@pytest.mark.parametrize(
    "packet",
    [
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + xmp(),
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>" * 10_000,
        b"<a",
        b"",
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
    ],
)
def test_xmp_that_is_not_safe_is_refused(packet):
    with pytest.raises(XmpError):
        read_xmp(packet)


@under_limits()
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: xmp(inside=text)))
def test_xmp_raises_only_its_own_error(packet):
    with contextlib.suppress(XmpError):
        read_xmp(packet)


@given(st.text("0123456789,.+-NSEW /", max_size=20))
def test_no_text_of_a_coordinate_is_off_the_earth_in_silence(text):
    found = read_xmp(xmp(f'exif:GPSLatitude="{text}" exif:GPSLongitude="1,0E"'))
    assert found.problem or found.latitude is None or not found.placed or abs(found.latitude) <= 90


# Takeout


def sidecar(latitude=0.0, longitude=0.0, *, exif=(0.0, 0.0), seconds="1554826753") -> bytes:
    place = lambda lat, lon: {"latitude": lat, "longitude": lon, "altitude": 0.0}  # noqa: E731
    return json.dumps({
        "title": "IMG.jpg", "photoTakenTime": {"timestamp": seconds, "formatted": "9 Apr 2019"},
        "geoData": place(latitude, longitude), "geoDataExif": place(*exif),
    }).encode()  # fmt: skip


def test_takeout_facts():
    found = parse_takeout(sidecar(48.1, 11.5))
    assert (found.latitude, found.longitude) == (48.1, 11.5)
    assert datetime.fromisoformat(found.taken) == datetime.fromtimestamp(1554826753, UTC)
    assert parse_takeout(sidecar(exif=(1.5, 2.5))).latitude == 1.5
    assert not parse_takeout(sidecar()).placed
    assert parse_takeout(sidecar(seconds="0")).taken is None
    assert parse_takeout(b'{"title": "of another program"}') is None
    assert parse_takeout(b"[1]") is None


@under_limits()
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))  # fmt: skip
def test_takeout_of_any_shape(value):
    for name in ("geoData", "photoTakenTime"):
        for inner in (value, {"latitude": value, "longitude": value, "timestamp": value}):
            parse_takeout(json.dumps({name: inner}).encode())


@under_limits()
@given(st.binary(max_size=100))
def test_takeout_raises_only_its_own_error(data):
    for damaged in (data, sidecar()[: len(data)], b"[" * 100_000):
        with contextlib.suppress(TakeoutError):
            parse_takeout(damaged)


LONG = "PXL_20230101_123456789.PORTRAIT-01.COVER-extra-long.jpg"


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("IMG.jpg", "IMG.jpg.json"),
        ("IMG.jpg", "IMG.jpg.supplemental-metadata.json"),
        ("PXL_20230101_123456789.jpg", "PXL_20230101_123456789.jpg.supplemental-metad.json"),
        ("PXL_20230101_1234567890_long_name_ab.jpg", "PXL_20230101_1234567890_long_name_ab.jpg.suppl.json"),
        (LONG, LONG[:46] + ".json"),
        ("IMG(1).jpg", "IMG.jpg(1).json"),
        ("IMG(2).jpg", "IMG.jpg.supplemental-metadata(2).json"),
        ("IMG-edited.jpg", "IMG.jpg.json"),
    ],
)
def test_takeout_names(name, beside):
    assert takeout_name(name, {beside, "other.json"}) == beside
    assert takeout_name("IMG_2.jpg", {beside}) is None


def test_a_number_is_not_taken_for_another():
    assert takeout_name("IMG.jpg", {"IMG.jpg(1).json"}) is None
    assert takeout_name("IMG(1).jpg", {"IMG.jpg.json"}) is None


# All of a photo


def test_the_first_that_knows_is_believed(tmp_path):
    here, there = dms("N", angle(48), "E", angle(11)), xmp('exif:GPSLatitude="1,0N" exif:GPSLongitude="2,0E"')
    path = tmp_path / "a.jpg"
    (tmp_path / "a.jpg.xmp").write_bytes(xmp('exif:GPSLatitude="3,0N" exif:GPSLongitude="4,0E"'))
    (tmp_path / "a.jpg.json").write_bytes(sidecar(5.5, 6.5))
    names = {"a.jpg.xmp", "a.jpg.json"}
    for data, beside, latitude, source in [
        (photo(1, gps=here, xmp=there), names, 48, "exif"),
        (photo(1, xmp=there), names, 1, "xmp"),
        (photo(1), names, 3, "xmp sidecar"),
        (photo(1), {"a.jpg.json"}, 5.5, "takeout"),
        (photo(1, gps=dms("N", angle(0), "E", angle(0))), {"a.jpg.json"}, 5.5, "takeout"),
        (photo(1, gps=dms(None, angle(48), None, angle(11))), {"a.jpg.json"}, 5.5, "takeout"),
    ]:
        path.write_bytes(data)
        found = gather(path, beside)
        assert (found.facts.latitude, found.place_source) == (latitude, source)
        assert found.time_source == ("takeout" if "a.jpg.json" in beside else None)


def test_a_damaged_sidecar_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    (tmp_path / "a.xmp").write_text("<!DOCTYPE a><a/>")
    found = gather(path, {"a.xmp"})
    assert found.unread == ("a.xmp: XMP with a document type is not read",)
    assert found.facts.problem == (Reason.MISSING_COORDINATES, found.unread[0])
