"""Albums in the report and on the map of `geoloc locate`: which are shown, and that all text is escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.explaining.tracks import pick_tracks
from geoloc.photos.sequences import make_sequences
from geoloc.photos.settings import SequenceSettings
from geoloc.reports.album_map import album_map_html
from geoloc.reports.track_figures import posting_figure, posting_group, track_group

TIMES = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(16), "h")


def world():
    """Albums of four photos: helped by 50 km, misled by 30, not moved; the last one with a photo without an answer."""
    gain = np.repeat([50.0, -30.0, 0.0, 99.0], 4)
    table = pd.DataFrame({"photo_id": [f"p{i:02}" for i in range(16)], "taken_at": TIMES.astype(str)})
    for name in ("true", "alone", ""):
        for i, axis in enumerate(("latitude", "longitude")):
            table[f"{name}_{axis}".lstrip("_")] = np.linspace(1, 9, 16) + i
    table["alone_km"], table["error_km"] = 100.0, 100.0 - gain
    table.loc[15, "error_km"] = np.inf
    photos = table[["photo_id"]].assign(source="s", photographer="a", taken_at=TIMES[::-1])
    photos["album"] = [f"album {i // 4}" for i in range(16)]
    return table, make_sequences(photos, SequenceSettings())


def test_albums_that_the_others_helped_and_misled_are_shown_in_order_of_time():
    found = pick_tracks(*world())
    assert list(dict.fromkeys(found["side"])) == ["helped", "misled"]
    assert found["photo_id"].tolist() == ["p03", "p02", "p01", "p00", "p07", "p06", "p05", "p04"]
    (group,) = track_group(found, "[L]LSTM 9C")
    assert group.figures[0].data[:2] == b"\xff\xd8"
    assert "1 helped, 1 misled" in group.figures[0].caption
    assert track_group(pick_tracks(world()[0].assign(error_km=100.0), world()[1]), "x") == ()


def test_hours_of_posting_are_drawn_and_missing_ones_are_not():
    assert posting_figure([10.0] * 16, pd.Series(TIMES))[:4] == b"\x89PNG"
    assert posting_group([1.0], pd.Series([pd.NaT], dtype="datetime64[us]")) == ()
    with pytest.raises(ValueError, match="no photo has a time of posting"):
        posting_figure([1.0], pd.Series([pd.NaT], dtype="datetime64[us]"))


def test_the_map_of_an_album_escapes_text_and_draws_no_line_across_the_date_line():
    def photo(name, longitude, **more):
        answer = {"latitude": 10.0, "longitude": longitude, "place": "<i>Suva</i>", "confidence": 0.5}
        return {
            "photo": name, "answer": answer, "alone": answer, "spread_km": 111.0, "taken_at": None, "anchor": False,
            "changed": False, "moved_km": None, "reason": None, "error": None, **more,
        }  # fmt: skip

    photos = [photo("<b>.jpg", 170.0), photo("b.jpg", 175.0), photo("c.jpg", -175.0)]
    photos.append({**photo("d.txt", 0.0), "answer": None, "error": "no photo"})
    page = album_map_html({"folder": "<x>", "photos": photos, "track": [[0, 1, 2]]}, "4 photos", 0.8)
    assert "<b>" not in page.split("<header>")[1].replace("<body>", "")
    assert "&lt;i&gt;Suva" in page
    assert page.count("L175.0000") == 1
    assert "L-175.0000" not in page
    assert "no answer: no photo" in page
