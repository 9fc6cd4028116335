"""Picks the photos that a report shows (best and worst), and makes thumbnails."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pandas as pd
from PIL import Image

from geoloc.evaluation.explaining.choice import varied
from geoloc.evaluation.result import Evaluation


@dataclass(frozen=True)
class ExampleNeighbour:
    """A reference photo behind an answer. `thumbnail` is JPEG or PNG bytes, or None."""

    photo_id: str
    thumbnail: bytes | None
    latitude: float
    longitude: float
    similarity: float
    place: str = ""


@dataclass(frozen=True)
class Example:
    """One query: where it was taken, where it was placed, and the evidence. The answer is NaN if there is none."""

    photo_id: str
    thumbnail: bytes | None
    latitude: float
    longitude: float
    answer_latitude: float
    answer_longitude: float
    error_km: float
    confidence: float = float("nan")
    place: str = ""
    answer_place: str = ""
    neighbours: tuple[ExampleNeighbour, ...] = ()


@dataclass(frozen=True)
class ExampleSet:
    """The best and the worst answers of one method."""

    method: str
    best: tuple[Example, ...]
    worst: tuple[Example, ...]


def pick_examples(
    evaluation: Evaluation, method: str, count: int = 6, photographer: pd.Series | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the rows of `per_photo` of the `count` best answers, best first, and the `count` worst, worst first.

    Abstentions and unreadable photos are left out. With `photographer` (indexed by photo_id) each side shows
    at most one photo of a photographer while there are enough of them: ten views of one street teach little.
    Ties go by photo_id. Raises ValueError for an unknown method.
    """
    if method not in evaluation.methods:
        raise ValueError(f"method must be one of {', '.join(evaluation.methods)}; got {method!r}")
    rows = evaluation.per_photo
    rows = rows[(rows["method"] == method) & (rows["status"] == "answered")]
    best = varied(rows.sort_values(["error_km", "photo_id"]), count, photographer)
    rest = rows[~rows["photo_id"].isin(best["photo_id"])]
    worst = varied(rest.sort_values(["error_km", "photo_id"], ascending=[False, True]), count, photographer)
    return best, worst


def thumbnail(data: bytes, side: int = 200, quality: int = 80) -> bytes:
    """Returns a JPEG thumbnail, at most `side` pixels each way, without EXIF, of a stored photo's bytes.

    Raises OSError (for example PIL.UnidentifiedImageError) for bytes that are not an image.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (side, side))  # lets the JPEG decoder skip most of a large picture
        small = image.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, format="jpeg", quality=quality)
    return stream.getvalue()
