"""One offline HTML page with the photos of an album on a world map: their track, how uncertain each is, and which
changed their answer because of the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from geoloc.reports.pages import kilometres, place, render, script
from geoloc.reports.world import land_path
from geoloc.sphere import EARTH_RADIUS_KM

_KM_PER_DEGREE = math.pi * EARTH_RADIUS_KM / 180


def album_map_html(album: Mapping[str, Any], summary: str, spread: float) -> str:
    """The page as text; it needs no network.

    `album` has `folder`, `photos` (mappings of `photo`, `answer` and `alone`, mappings of latitude, longitude, place
    and confidence, or None, `spread_km`, `taken_at`, `anchor`, `changed`, `moved_km`, `reason`, `error`) and `track`,
    lists of positions of photos that are joined by a line. `spread` is the probability that `spread_km` is about. All
    text is escaped.
    """
    photos = [_photo(one) for one in album["photos"]]
    lines = []
    for track in album["track"]:
        spots = [photos[at]["spot"] for at in track]
        lines += [
            f"M{one['x']:.4f} {one['y']:.4f}L{other['x']:.4f} {other['y']:.4f}"
            for one, other in itertools.pairwise(spots)
            if abs(one["x"] - other["x"]) <= 180  # not across the map where the way is over the date line
        ]
    first = next((one["spot"] for one in photos if one["spot"]), {"x": 0.0, "y": 0.0})
    text, digest = script("answer_map.js")
    return render(
        "album_map.html.j2",
        title=f"The album {album['folder']}",
        summary=summary,
        photos=photos,
        track="".join(lines),
        first=first,
        spread=f"{100 * spread:.0f} %",
        land=land_path(),
        script=text,
        script_hash=digest,
    )


def _photo(one: Mapping[str, Any]) -> dict[str, Any]:
    spot = None
    if one["answer"] is not None:
        latitude, longitude = one["answer"]["latitude"], one["answer"]["longitude"]
        height = min((one["spread_km"] or 0.0) / _KM_PER_DEGREE, 90.0)
        width = min(height / max(math.cos(math.radians(latitude)), 0.01), 180.0)
        spot = {"x": longitude, "y": -latitude, "rx": f"{width:.3f}", "ry": f"{height:.3f}"}
    said = []
    if one["anchor"]:
        said.append("anchor: the place in its EXIF")
    elif one["answer"] is not None:
        said.append(f"confidence {one['answer']['confidence']:.2f}")
        if one["spread_km"] is not None:
            said.append(f"within {kilometres(one['spread_km'])} km")
    if one["changed"] and one["alone"] is not None:
        alone = one["alone"]
        said.append(
            f"changed by the others: alone {alone['place'] or place(alone['latitude'], alone['longitude'])}, "
            f"{kilometres(one['moved_km'])} km away"
        )
    if one["reason"]:
        said.append(f"answered alone: {one['reason']}")
    if one["answer"] is None:
        said.append(f"no answer: {one['error'] or 'nothing to go by'}")
    return {
        "photo": one["photo"],
        "taken_at": one["taken_at"] or "",
        "spot": spot,
        "place": "" if one["answer"] is None else one["answer"]["place"],
        "kind": "anchor" if one["anchor"] else "changed" if one["changed"] else "kept",
        "said": " · ".join(said),
    }
