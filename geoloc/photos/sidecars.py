"""All that is known of a photo in a folder: its EXIF, the XMP in it, and the sidecar files beside it, in that order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import ImageFile

from geoloc.files import open_regular
from geoloc.photos.decoding import Limits, open_image
from geoloc.photos.exif import read_exif
from geoloc.photos.facts import PhotoFacts
from geoloc.photos.quarantine import Reason
from geoloc.photos.takeout import TakeoutError, read_takeout, takeout_name
from geoloc.photos.xmp import XmpError, embedded_xmp, read_xmp, read_xmp_file

EXIF, XMP, XMP_SIDECAR, TAKEOUT = "exif", "xmp", "xmp sidecar", "takeout"
SIDECAR_SUFFIXES = (".xmp", ".json")


@dataclass(frozen=True)
class Gathered:
    """What is known of a photo. place_source, time_source: EXIF, XMP, XMP_SIDECAR, TAKEOUT; None: nothing known.

    unread: what is wrong with each sidecar that cannot be read, with its name.
    """

    facts: PhotoFacts
    place_source: str | None
    time_source: str | None
    unread: tuple[str, ...] = ()


def gather(path: Path, names: Collection[str], most_bytes: int | None = None) -> Gathered:
    """What the photo at `path` and its sidecars among the `names` of its folder say.

    The place, the time and the heading are each from the first that knows it. Sidecars are opened only if something is
    still unknown. Raises UnreadablePhoto for what is no photo, FileTooLargeError for a photo above `most_bytes`, before
    it is read, or OSError.
    """
    told: list[tuple[str, PhotoFacts]] = []
    unread: list[str] = []
    for source, where, read in _readers(path, names, most_bytes):
        try:
            facts = read()
        except (XmpError, TakeoutError) as error:
            unread.append(f"{where}: {error}")
        except OSError as error:
            if source == EXIF:
                raise
            unread.append(f"{where}: {error.strerror or error}")
        else:
            if facts is not None:
                told.append((source, facts))
        if told and any(facts.placed for _, facts in told) and any(facts.taken for _, facts in told):
            break
    return _merged(told, tuple(unread))


def _readers(
    path: Path, names: Collection[str], most_bytes: int | None
) -> Iterator[tuple[str, str, Callable[[], PhotoFacts | None]]]:
    """Source, what to call it, and what reads it; in order of trust."""
    packet: bytes | None = None

    def own() -> PhotoFacts:
        nonlocal packet
        with open_regular(path, most_bytes) as stream:
            image = open_image(stream)
            packet = embedded_xmp(image)
            return PhotoFacts() if _would_be_decoded(image) else read_exif(image)

    yield EXIF, path.name, own
    if packet is not None:
        inside = packet
        yield XMP, f"XMP in {path.name}", lambda: read_xmp(inside)
    beside, takeout = sidecar_names(path.name, names)
    if beside is not None:
        yield XMP_SIDECAR, beside, lambda: read_xmp_file(path.with_name(beside))
    if takeout is not None:
        yield TAKEOUT, takeout, lambda: read_takeout(path.with_name(takeout))


def sidecar_names(photo: str, names: Collection[str]) -> tuple[str | None, str | None]:
    """Which of the `names` of a folder are the XMP sidecar and the Takeout JSON of a photo in it; None for none."""
    stem = Path(photo).stem
    xmp_names = (f"{photo}.xmp", f"{photo}.XMP", f"{stem}.xmp", f"{stem}.XMP")
    return next((name for name in xmp_names if name in names), None), takeout_name(photo, names)


def _would_be_decoded(image: ImageFile.ImageFile) -> bool:
    """Whether reading the EXIF would decode a picture beyond the limits: PNG may have it behind the pixels."""
    pixels = image.size[0] * image.size[1]
    return image.format == "PNG" and "exif" not in image.info and pixels > Limits().max_pixels


def _merged(told: list[tuple[str, PhotoFacts]], unread: tuple[str, ...]) -> Gathered:
    place_source, place = next(((s, f) for s, f in told if f.placed), (None, None))
    if place is None:  # the first that says anything is told to people
        place = next(
            (f for _, f in told if f.problem or f.latitude is not None or f.longitude is not None), None
        )
    if place is None:
        place = PhotoFacts()
        if unread:
            place = replace(place, problem=(Reason.MISSING_COORDINATES, "; ".join(unread)[:300]))
    time_source, timed = next(((s, f) for s, f in told if f.taken), (None, PhotoFacts()))
    looking = next((f for _, f in told if f.heading is not None), PhotoFacts())
    facts = replace(
        place, taken=timed.taken, heading=looking.heading, heading_reference=looking.heading_reference
    )
    return Gathered(facts, place_source, time_source, unread)
