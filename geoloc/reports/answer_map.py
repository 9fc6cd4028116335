"""One offline HTML page with answers and their alternatives on a world map: `geoloc locate --map out.html`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from geoloc.reports.pages import image_uri, place, render, script
from geoloc.reports.world import land_path


def answer_map_html(
    answers: Sequence[Mapping[str, Any]], *, title: str = "Where were these photos taken?"
) -> str:
    """The page as text. It needs no network and runs one small script of its own to zoom and pan.

    Each answer is a mapping: `photo` (its name), `method`, `latitude` and `longitude` in degrees (None or NaN: no
    answer), `place` (a name or None), `confidence` in [0, 1]; `alternatives`, mappings of `latitude`, `longitude`,
    `place`, `weight` and `why`, best first; and where there are any, `error` (why there is no answer),
    `thumbnail` (JPEG or PNG bytes), `outline` (the answer's cell: a list of rings of latitude, longitude), `nearby`
    (a mapping of `neighbours` and `modes`, mappings with latitude and longitude, and for a mode its `mass`) and
    `nearby_lines` (what is said of these).
    All text is escaped. Raises ValueError where there are no answers or a place lies outside the map.
    """
    if not answers:
        raise ValueError("answer_map_html needs at least one answer, got none")
    cards = [_card(answer) for answer in answers]
    text, digest = script("answer_map.js")
    return render(
        "answer_map.html.j2", title=title, cards=cards, land=land_path(), script=text, script_hash=digest
    )


def _card(answer: Mapping[str, Any]) -> dict[str, Any]:
    best = _spot(answer)
    alternatives = [_spot(other) for other in answer.get("alternatives") or ()]
    known = [other for other in alternatives if other is not None]
    top = max((other["weight"] for other in known), default=0.0)
    for other in known:
        # Areas, not radii, are in proportion to weights; the smallest is still to be seen.
        other["size"] = 6 + 12 * math.sqrt(other["weight"] / top) if top > 0 else 8
    outline = answer.get("outline") or ()
    thumbnail = answer.get("thumbnail")
    return {
        "photo": answer["photo"],
        "method": answer.get("method") or "",
        "error": answer.get("error"),
        "confidence": float(answer.get("confidence") or 0.0),
        "best": best,
        "alternatives": known,
        "outline": " ".join(
            "M" + "L".join(f"{lon:.3f} {-lat:.3f}" for lat, lon in ring) + "z" for ring in outline
        ),
        "thumbnail": None if thumbnail is None else image_uri(thumbnail),
        "neighbours": "".join(f"M{spot['x']} {spot['y']}h0" for spot in _spots(answer, "neighbours")),
        # Areas are in proportion to masses.
        "modes": [
            spot | {"size": 44 * math.sqrt(min(mode["mass"], 1.0)), "mass": mode["mass"]}
            for spot, mode in zip(_spots(answer, "modes"), _nearby(answer, "modes"), strict=True)
        ],
        "nearby_lines": answer.get("nearby_lines") or (),
    }


def _nearby(answer: Mapping[str, Any], what: str) -> Sequence[Mapping[str, Any]]:
    return (answer.get("nearby") or {}).get(what) or ()


def _spots(answer: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    spots = [_spot(one) for one in _nearby(answer, what)]
    return [spot for spot in spots if spot is not None]


def _spot(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """A place on the map, or None where the entry has none."""
    latitude, longitude = entry.get("latitude"), entry.get("longitude")
    if latitude is None or longitude is None or math.isnan(latitude) or math.isnan(longitude):
        return None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError(f"latitude {latitude}, longitude {longitude} is outside the map")
    return {
        "x": f"{longitude:.5f}",
        "y": f"{-latitude:.5f}",
        "coordinates": place(latitude, longitude),
        "place": entry.get("place") or "",
        "why": entry.get("why") or "",
        "weight": max(float(entry.get("weight") or 0.0), 0.0),
    }
