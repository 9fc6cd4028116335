"""What is in a tar of samples: which members belong together, which are images, and which are turned away."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from geoloc.files import open_regular
from geoloc.photos.formats import PHOTO_SUFFIXES, SIGNATURE_BYTES, known_format
from geoloc.photos.quarantine import Reason
from geoloc.photos.sources.candidates import fault

_LONGEST_HEADER = 1024 * 1024
_MAC = "files that macOS added"


@dataclass(frozen=True)
class Member:
    """A file in the tar. offset: of its first byte."""

    name: str
    offset: int
    size: int


@dataclass
class Sample:
    """The members of one key: its images (the first is the one that counts), its JSON, and names of the others."""

    key: str
    images: list[Member] = field(default_factory=list)
    record: Member | None = None
    others: list[str] = field(default_factory=list)

    def named(self) -> str:
        """The names of its members, shortened."""
        return ", ".join(self.names())[:200]

    def names(self) -> list[str]:
        """The names of its members: images, JSON, others."""
        record = [] if self.record is None else [self.record.name]
        return [*(image.name for image in self.images), *record, *self.others]


@dataclass
class Index:
    """Samples in the order of their first member. faults: rows of `fault`. notes: what was left out by design."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[dict[str, str | None]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def read_index(path: Path) -> Index:
    """Read the headers of a tar, to its end or up to where it is damaged.

    The key of a member is its name without the last suffix, so `2019.07.01.jpg` goes with `2019.07.01.json`. An image
    without such a JSON goes with that of its whole name (`a.jpg.json`), else with that of a shorter key, as WebDataset
    counts (`a.seg.png` with `a.json`). Members of a key need not follow each other. A member is an image by its suffix,
    or by its first bytes where the suffix says nothing.
    """
    index = Index()
    images: list[Member] = []
    records: dict[str, Member] = {}
    others: list[Member] = []
    order: dict[str, int] = {}
    try:
        with open_regular(path) as file:
            for member in _members(path, file, index):
                order.setdefault(member.name, len(order))
                stem, suffix = _split(member.name)
                if suffix == ".json":
                    if stem in records:
                        index.notes["second JSON files of a key"] += 1
                    records.setdefault(stem, member)
                elif suffix in PHOTO_SUFFIXES or _is_image(file, member):
                    images.append(member)
                else:
                    others.append(member)
    except OSError as error:
        index.faults.append(
            fault(f"{path.name}: its beginning", Reason.UNREADABLE_FILE, str(error.strerror or error))
        )
    samples: dict[str, Sample] = {}
    for key, record in records.items():
        samples[key] = Sample(key, record=record)
    for image in images:
        key = next((key for key in _keys(image.name) if key in records), _split(image.name)[0])
        samples.setdefault(key, Sample(key)).images.append(image)
    for other in others:
        stem = _split(other.name)[0]
        key = next((key for key in _keys(other.name) if key in samples), stem)
        samples.setdefault(key, Sample(key)).others.append(other.name)
    for sample in samples.values():
        _own_first(sample)
    index.samples = sorted(samples.values(), key=lambda sample: min(order[name] for name in sample.names()))
    return index


def _own_first(sample: Sample) -> None:
    """The image named as the key counts, before `key.seg.png`."""
    sample.images.sort(key=lambda image: _split(image.name)[0] != sample.key)


def _members(path: Path, file: BinaryIO, index: Index) -> Iterator[Member]:
    """Regular files with safe names; the others are counted or turned away."""
    last = "its beginning"

    def broken(why: str) -> None:
        index.faults.append(fault(f"{path.name}: {last}", Reason.UNREADABLE_ARCHIVE, why[:300], content=why))

    try:
        tar = tarfile.open(fileobj=_Bounded(file), mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        at = -1
        while (found := tar.next()) is not None:
            tar.members.clear()  # the list would grow with the archive
            if found.offset <= at or found.size < 0:
                raise tarfile.ReadError("a header that points backwards")
            at = found.offset
            name = _printable(found.name).removeprefix("./")
            last = f"after {name}"
            if found.isdir():
                continue
            parts = PurePosixPath(name).parts
            if parts and (parts[-1].startswith("._") or parts[-1] == ".DS_Store" or "__MACOSX" in parts):
                index.notes[_MAC] += 1
                continue
            unsafe = _unsafe(found)
            if unsafe:
                index.faults.append(
                    fault(
                        f"{path.name}: {name}", Reason.UNSAFE_ARCHIVE_MEMBER, unsafe, content=f"{name} {at}"
                    )
                )
                continue
            yield Member(name, found.offset_data, found.size)
    except Exception as error:  # tarfile raises whatever a damaged header leads to
        broken(f"{type(error).__name__}: {error}")


class _Bounded:
    """A file of which no single read is larger than a header may be: a hostile one would fill memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _is_image(file: BinaryIO, member: Member) -> bool:
    return known_format(os.pread(file.fileno(), min(SIGNATURE_BYTES, member.size), member.offset)) is not None


def _keys(name: str) -> Iterator[str]:
    """Keys of which the member may be a part, the likeliest first."""
    stem = _split(name)[0]
    yield stem
    yield name
    folder, slash, last = stem.rpartition("/")
    while "." in last:
        last = last.rpartition(".")[0]
        yield folder + slash + last


def _split(name: str) -> tuple[str, str]:
    """The name without its last suffix, and that suffix in lower case; '' where it has none."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    return (folder + slash + stem, f".{suffix.lower()}") if dot and stem else (name, "")


def _unsafe(member: tarfile.TarInfo) -> str | None:
    name = PurePosixPath(member.name)
    if member.issym() or member.islnk():
        return f"a link to {_printable(member.linkname)[:200]}"
    if not member.isreg() or member.issparse():
        return "no plain file"
    if name.is_absolute() or "\\" in member.name:
        return "an absolute name" if name.is_absolute() else "a name with a backslash"
    return "points outside the archive" if ".." in name.parts else None


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
