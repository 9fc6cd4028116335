"""Which prediction is of which photo: ids that several programs write in several ways, matched by one rule a table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_EXTENSION = re.compile(r"\.(jpe?g|png|webp|tiff?|gif|bmp|heic|heif|avif)$", re.I)
_WHOLE = re.compile(r"^(\d+)\.0+$", re.ASCII)


def _as_written(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _whole_number(name: str) -> str:
    return _WHOLE.sub(r"\1", _as_written(name))


def _file_name(name: str) -> str:
    return re.split(r"[/\\]", _whole_number(name))[-1]


def _stem(name: str) -> str:
    return _EXTENSION.sub("", _file_name(name))


RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("as written", _as_written),
    ("as whole numbers (12.0 is 12)", _whole_number),
    ("by file name, without folders", _file_name),
    ("by file name, without folders and extension", _stem),
)
"""From strict to lax. A rule that makes two true photos one is not used."""


@dataclass(frozen=True, eq=False)
class Match:
    """`position` int64 (N,) is the true photo of each prediction, -1 for none; `rule` says how ids were compared."""

    position: NDArray[np.int64]
    rule: str


def match(predicted: Sequence[str | None], true: Sequence[str]) -> Match:
    """Returns the true photo of each prediction, by the strictest rule of RULES with the most matches.

    `true` ids are unique. One rule holds for all ids; of equal matches the strictest wins. An id that is None has no
    photo.
    """
    best = Match(np.full(len(predicted), -1, np.int64), RULES[0][0])
    for rule, form in RULES:
        known = pd.Index([form(one) for one in true], dtype=object)
        if not known.is_unique:
            continue
        asked = pd.Index([None if one is None else form(one) for one in predicted], dtype=object)
        position = known.get_indexer(asked).astype(np.int64) if len(asked) else best.position
        if (position >= 0).sum() > (best.position >= 0).sum():
            best = Match(position, rule)
    return best
