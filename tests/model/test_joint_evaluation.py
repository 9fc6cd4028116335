"""Photo classifier and overhead tiles together: which photos are asked about, and who beats whom."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.joint import (
    AMONG_TILES,
    CITY_COLUMNS,
    CLASSIFIER,
    JOINT,
    OVERHEAD,
    evaluate_joint,
    joint_answers,
    known_of_cities,
    unknown_to_classifier,
)
from geoloc.localizers.base import Answers
from geoloc.localizers.by_overhead.calibration import Calibration
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex
from orchestration.assets.joint_evaluation import _why_not
from tests.model.test_cross_view_evaluation import network

SPLITS = pd.DataFrame(
    {
        "photo_id": ["a", "b", "c", "d", "e"],
        "split": ["test", "train", "validation", "unused", "train"],
        "photographer": ["x", "y", "z", "x", "y"],
        "latitude": [50.0, 50.01, 50.0, 50.0, 60.0],
        "longitude": 0.0,
    }
)
TILES = pd.DataFrame(
    {
        "overhead_id": ["t0", "t1", "t2", "t3"], "city": ["A", "A", "B", "B"],
        "latitude": [50.0, 50.02, 10.0, 10.02], "longitude": 0.0, "metres_per_pixel": 1.0,
    }
)  # fmt: skip


class ByHemisphere:
    """Cell 0 is north of 30 degrees, cell 1 is the rest."""

    def assign(self, latitude, longitude):
        return np.where(np.asarray(latitude) > 30, 0, 1)


CALIBRATION = Calibration(1.0, 1.9, 0.5, None, None, 9)


def index_of(tiles=TILES, calibration=CALIBRATION):
    """Tiles whose embeddings are the first axes."""
    vectors = np.eye(12, dtype=np.float32)[: len(tiles), None]
    return OverheadIndex(tiles, vectors, np.zeros(1), None, "hash", calibration)


def answered(photos, probabilities):
    """The answers of all methods; a classifier's answer is 1 degree north of the city."""
    embedder = CrossViewEmbedder(network(), "hash")
    far = np.array([51.0, 11.0])[np.argmax(probabilities, axis=1)]
    classifier = Answers(far, np.zeros(len(far)), np.ones(len(far), dtype=np.float32))
    return joint_answers(index_of(), embedder, photos, np.array(probabilities), ByHemisphere(), classifier)


def test_only_test_photos_of_the_classifier_are_asked_about():
    photos = pd.DataFrame({"photo_id": ["e", "a", "c", "d", "of another pool"]})
    assert unknown_to_classifier(photos, SPLITS).tolist() == [False, True, False, False, False]


def test_what_the_classifier_learnt_in_each_city_is_told():
    pairs = pd.DataFrame({"city": ["A", "A", "B"]})
    told = known_of_cities(pairs, np.array([True, False, True]), TILES, SPLITS)
    assert list(told.columns) == list(CITY_COLUMNS)
    assert told.to_numpy().tolist() == [["A", 1, 1, 2, 1, 1], ["B", 1, 0, 2, 0, 0]]


def test_the_classifier_tells_cities_apart_and_the_tiles_tell_places():
    # Each photo is like a tile of the right city, and a little more like one of the other city.
    photos = np.zeros((4, 12), dtype=np.float32)
    for row, (right, wrong) in enumerate([(0, 2), (1, 3), (2, 0), (3, 1)]):
        photos[row, right], photos[row, wrong] = 0.6, 0.7
    found = answered(photos, [[0.95, 0.05], [0.95, 0.05], [0.05, 0.95], [0.05, 0.95]])
    assert found[JOINT].latitude.tolist() == TILES["latitude"].tolist()
    assert found[OVERHEAD].latitude.tolist() == [10.0, 10.02, 50.0, 50.02]
    among = found[AMONG_TILES].latitude
    assert among.tolist() == pytest.approx([50.0, 50.0, 10.0, 10.0], abs=0.021), "a tile of the right city"

    asked = TILES.assign(photo_id=["p0", "p1", "p2", "p3"], photographer=["v", "w", "x", "y"])
    made = evaluate_joint(found, asked, resamples=50, confidence=0.95, seed=1)
    at = made.accuracy.set_index(["method", "level"])["accuracy"]
    assert (at[JOINT, "25 m"], at[OVERHEAD, "25 m"], at[CLASSIFIER, "25 m"]) == (1, 0, 0)
    assert (at[OVERHEAD, "continent"], at[CLASSIFIER, "region"]) == (0, 1)
    compared = made.comparisons[made.comparisons["level"] == "25 m"].set_index("other")
    assert compared["difference"].to_dict() == {OVERHEAD: 1.0, CLASSIFIER: 1.0, AMONG_TILES: 0.5}
    assert (compared["low"] <= compared["difference"]).all()
    assert (compared["difference"] <= compared["high"]).all()
    assert set(made.comparisons["method"]) == {JOINT}
    at_continent = made.comparisons.set_index(["level", "other"]).loc[("continent", OVERHEAD)]
    assert at_continent["difference"] == 1.0
    assert at_continent["verdict"] in ("better", "undecided")


def test_a_photo_without_answer_is_counted_as_wrong():
    photos = np.full((1, 12), np.nan, dtype=np.float32)
    found = answered(photos, [[np.nan, np.nan]])
    assert found[JOINT].abstained.all()
    assert found[OVERHEAD].abstained.all()
    assert found[AMONG_TILES].abstained.all()


def test_why_nothing_can_be_measured_is_told():
    assert _why_not(3, index_of()) is None
    assert "no photo" in _why_not(0, index_of())
    assert "no tile" in _why_not(3, index_of(TILES[:0]))
    assert "not calibrated" in _why_not(3, index_of(calibration=None))
