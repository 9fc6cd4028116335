"""Image files that belong to the rows of a table: by the path that a row gives, or by the photo's id."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import SourceError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")


def safe_path(folder: Path, name: str) -> Path:
    """The file `name` in `folder`. Raises Rejected for an absolute name or one that leads out of the folder."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or "\0" in name:
        raise Rejected(Reason.UNSAFE_PATH, f"{name[:200]!r} is not a path below the folder of photos")
    if ".." in posix.parts or ".." in windows.parts:
        raise Rejected(Reason.UNSAFE_PATH, f"{name[:200]!r} points outside the folder of photos")
    return folder / posix


def files_by_id(folder: Path) -> dict[str, str]:
    """Image files anywhere below a folder, by file name without suffix; of equal names the first in order of paths.

    Values are paths below the folder. Raises SourceError where it is no folder.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder of photos")
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of millions is slow
            if suffix.lower() in SUFFIXES:
                found.setdefault(stem, os.path.relpath(os.path.join(place, name), folder))  # noqa: PTH118
    return found
