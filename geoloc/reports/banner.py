"""The warnings at the top of a page: the note from the settings, and that photos are of the sample planet."""

from __future__ import annotations

import re
from collections.abc import Mapping

SAMPLE_SOURCE = "sample-planet"
"""A copy of `geoloc.sample.SOURCE` (a test compares them): importing it would make every report depend on the code that
draws the photos."""

SAMPLE_BANNER = (
    "Built on the sample planet: generated photos of a made-up Earth. "
    "No figure here is comparable with a paper's."
)


def banners(note: str, sources: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the warnings of a page, most important first: of the sample planet if photos come from it, then `note`.

    `sources` is the number of photos by source. The note is left out if it repeats the other warning; it never replaces
    it, unless it contains it.
    """
    generated, photos = sources.get(SAMPLE_SOURCE, 0), sum(sources.values())
    if not generated:
        return (note.strip(),) if note.strip() else ()
    told = SAMPLE_BANNER
    if generated < photos:
        told = (
            f"Partly built on the sample planet: {generated:,} of {photos:,} photos are generated photos of a made-up"
            " Earth. No figure here is comparable with a paper's."
        )
    mine = _plain(note)
    if not mine or f" {mine} " in f" {_plain(told)} ":
        return (told,)
    return (note.strip(),) if f" {_plain(told)} " in f" {mine} " else (told, note.strip())


def _plain(text: str) -> str:
    """Returns the words only: texts that differ in case, spaces and punctuation compare equal."""
    return " ".join(re.findall(r"\w+", text.casefold()))
