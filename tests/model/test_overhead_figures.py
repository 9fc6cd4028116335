"""The report's section of cross-view matching."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from geoloc.evaluation.cross_view import MAPS_FILE, CrossViewEvaluation, evaluate_cross_view
from geoloc.evaluation.measures.overhead import TOP_PERCENT
from geoloc.reports.overhead_figures import cross_view_group, score_table
from geoloc.settings import replace
from tests.model.test_cross_view_evaluation import SETTINGS, network, sources


def jpeg(name: str) -> bytes | None:
    """A picture for every name but one."""
    if name.endswith("-5"):
        return None
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def test_the_section_has_a_figure_for_each_thing_that_was_measured(tmp_path: Path) -> None:
    found = evaluate_cross_view(*sources(network()), SETTINGS, 3)
    (group,) = cross_view_group(found, jpeg, jpeg)
    assert [figure.name for figure in group.figures] == [
        f"cross-view-{name}" for name in ("distances", "headings", "ranked", "map", "alignments", "attention")
    ]
    assert all(figure.data.startswith(b"\x89PNG") for figure in group.figures)
    table = score_table(found)
    assert (
        table[(table["method"] == "4 rotations") & table["measure"].str.startswith(TOP_PERCENT)][
            "pairs"
        ].item()
        == 14
    )
    found.save(tmp_path)
    again = CrossViewEvaluation.load(tmp_path)
    pd.testing.assert_frame_equal(again.maps, found.maps)
    (tmp_path / MAPS_FILE).unlink()
    (earlier,) = cross_view_group(CrossViewEvaluation.load(tmp_path), jpeg, jpeg)
    assert [figure.name for figure in earlier.figures] == [f.name for f in group.figures[:-1]], (
        "it had no maps"
    )
    settings = replace(SETTINGS, kind="hybrid", select_by="last")
    scoring = evaluate_cross_view(*sources(network(settings)), settings, 3)
    (group,) = cross_view_group(scoring, jpeg, jpeg)
    assert [figure.name for figure in group.figures] == ["cross-view-distances"], "it ranks nothing"
