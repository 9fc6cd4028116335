"""The way through a folder of photos: which files are read, and what is passed by on the way, to the last folder."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from geoloc.photos.formats import PHOTO_SUFFIXES
from geoloc.photos.quarantine import Reason
from geoloc.photos.sources.candidates import fault

Faults: TypeAlias = list[dict[str, str | None]]

NAMED = 20
"""How many of the folders that are not entered are named on the screen; quarantine has them all."""


class Walk:
    """The way through a folder: which files to read, and what is passed by on the way."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self._follow = root, follow_links
        self.notes: Counter[str] = Counter()
        self.not_entered = 0
        self._faults: Faults = []
        self._inside = root.resolve()

    def take_faults(self) -> Faults:
        """What was passed by since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def photo_files(self) -> Iterator[str]:
        """Paths below root, `/` between folders, in an order that does not depend on the file system."""
        entered: set[tuple[int, int]] = set()
        links: deque[str] = deque()
        waiting = [""]
        while waiting or links:  # links last: a folder is best known by its own name
            linked = not waiting
            folder = waiting.pop() if waiting else links.popleft()
            try:
                found = (self.root / folder).stat()
                if (found.st_dev, found.st_ino) in entered:
                    self._pass_by(
                        folder, Reason.LINKED_FOLDER, "a link to a folder that is read under another name"
                    )
                    continue
                entered.add((found.st_dev, found.st_ino))
                with os.scandir(self.root / folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                why = str(error.strerror) if not linked else f"a link: {error.strerror}"
                self._pass_by(folder, Reason.UNREADABLE_FOLDER, why)
                continue
            folders = []
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not _is_folder(entry):
                    if self._is_photo(name, entry):
                        yield name
                elif entry.name.startswith("."):
                    self._pass_by(name, Reason.HIDDEN_FOLDER, "a hidden folder is not entered")
                elif not entry.is_symlink():
                    folders.append(name)
                elif self._follow:
                    links.append(name)
                else:
                    why = "a link to a folder is entered with --follow-links only"
                    self._pass_by(name, Reason.LINKED_FOLDER, why)
            waiting.extend(reversed(folders))

    def _is_photo(self, name: str, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith("."):
            self.notes["hidden files passed by"] += 1
            return False
        if Path(entry.name).suffix.lower() not in PHOTO_SUFFIXES:
            self.notes["files that are no photos by their suffix"] += 1
            return False
        if entry.is_symlink() and not self._follow:
            path = self.root / name
            if path.exists() and not path.resolve().is_relative_to(self._inside):
                shown = printable(name)
                why = "a link out of the folder is followed with --follow-links only"
                self._faults.append(fault(shown, Reason.LINK_OUTSIDE, why, photo_id=shown))
                return False
        return True

    def _pass_by(self, folder: str, reason: Reason, why: str) -> None:
        shown = printable(folder) + "/"
        self._faults.append(fault(shown, reason, why))
        self.not_entered += 1
        if self.not_entered <= NAMED:  # by its own name: this is for the screen, and never stored
            self.notes[f"folder not entered: {shown} ({why})"] += 1


def printable(name: str) -> str:
    """A file name as UTF-8 text, also where its bytes are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
