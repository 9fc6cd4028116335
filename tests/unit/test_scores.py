"""GeoScore, country, region and log-likelihood, against loops and formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.scores import geoscore
from geoloc.evaluation.result import Evaluation
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.files import read_json, write_json
from geoloc.localizers.base import Answers
from geoloc.localizers.confidence.kept import CellFacts
from geoloc.sphere import distance_km

PARIS, LYON, BERLIN, SEA = (48.8566, 2.3522), (45.7640, 4.8357), (52.52, 13.405), (0.0, -30.0)
NOWHERE = (float("nan"), float("nan"))
FAST = EvaluationSettings(resamples=200, curve_points=11)


def measured(truth, answers, unreadable=(), photographers=None, **options):
    """An evaluation of one method, `m`."""
    latitude, longitude = (np.array(x, float) for x in zip(*truth, strict=True))
    lat, lon = (np.array(x, float) for x in zip(*answers, strict=True))
    queries = pd.DataFrame(
        {
            "photo_id": [f"q{i}" for i in range(len(truth))],
            "latitude": latitude,
            "longitude": longitude,
            "photographer": photographers or [f"p{i}" for i in range(len(truth))],
        }
    )
    found = Answers(lat, lon, np.full(len(lat), 0.5, np.float32))
    return evaluate({"m": found}, queries, settings=FAST, seed=0, unreadable=unreadable, **options)


def row(evaluation, measure):
    return evaluation.scores.set_index("measure").loc[measure]


@given(st.floats(0, 20_100), st.floats(0, 20_100))
def test_geoscore_is_the_formula_and_falls_with_the_error(near, far):
    near, far = sorted([near, far])
    points = geoscore([near, far, math.inf, math.nan]).tolist()
    assert points == pytest.approx([5000 * math.exp(-near / 1492.7), 5000 * math.exp(-far / 1492.7), 0, 0])
    assert 5000 >= points[0] >= points[1] > 0


def test_every_photo_counts_in_every_score():
    """Two right places, one in another region, one in another country, one without an answer, one unreadable photo
    with the right answer, and one at sea that is answered exactly."""
    truth = [PARIS, PARIS, PARIS, BERLIN, LYON, SEA]
    answers = [PARIS, LYON, BERLIN, NOWHERE, LYON, SEA]
    made = measured(truth, answers, unreadable=["q4"])
    errors = [0, float(distance_km(*PARIS, *LYON)), float(distance_km(*PARIS, *BERLIN))]
    points = sum(5000 * math.exp(-km / 1492.7) for km in errors) + 5000
    assert row(made, "GeoScore")["value"] == pytest.approx(points / 6)
    assert row(made, "right country")["value"] == pytest.approx(2 / 6)
    assert row(made, "right region")["value"] == pytest.approx(1 / 6)
    assert row(made, "right country")["unknown"] == row(made, "right region")["unknown"] == 1
    assert (made.scores["n"] == 6).all()
    assert (made.scores["low"] <= made.scores["value"]).all()
    assert (made.scores["value"] <= made.scores["high"]).all()
    assert "NLL" not in set(made.scores["measure"])


def test_intervals_are_by_photographer():
    """Photographers who are all right or all wrong know less than their photos would alone."""
    truth, answers = [PARIS] * 40, [PARIS] * 20 + [BERLIN] * 20
    alone = measured(truth, answers)
    few = measured(truth, answers, photographers=[f"p{i // 10}" for i in range(40)])
    one = measured(truth, answers, photographers=["p"] * 40)
    for measure in ("GeoScore", "right country", "right region"):
        wide, narrow = row(few, measure), row(alone, measure)
        assert wide["value"] == narrow["value"]
        assert wide["low"] < narrow["low"] < narrow["value"] < narrow["high"] < wide["high"]
        assert math.isnan(row(one, measure)["low"])


def test_log_likelihood_is_of_the_photos_that_have_a_probability():
    told = np.log([0.5, 0.25, np.nan, 1.0])
    made = row(measured([PARIS] * 4, [PARIS] * 4, log_probabilities={"m": told}), "NLL")
    assert made["value"] == pytest.approx((math.log(2) + math.log(4) + 0) / 3)
    assert (made["n"], made["unknown"]) == (3, 1)
    assert made["low"] <= made["value"] <= made["high"]
    with pytest.raises(ValueError, match=r"must be at most 0, got 0\.5"):
        measured([PARIS], [PARIS], log_probabilities={"m": [0.5]})
    with pytest.raises(ValueError, match="m: 2 log probabilities for 1 photos"):
        measured([PARIS], [PARIS], log_probabilities={"m": [-1.0, -2.0]})
    with pytest.raises(ValueError, match="of a method without answers: other"):
        measured([PARIS], [PARIS], log_probabilities={"other": [-1.0]})


def test_the_probability_is_that_of_the_true_cell():
    p = np.array([[0.2, 0.8], [0.6, 0.4], [np.nan, np.nan], [0.5, 0.5], [1, 0]], np.float32)
    found = CellFacts.of(p, p, np.array([1, 0, 1, -1, 1])).log_true
    assert np.exp(found[:2]).tolist() == pytest.approx([0.8, 0.6])
    assert np.isnan(found[2:4]).all()
    assert found[4] == pytest.approx(
        math.log(np.finfo(np.float32).tiny)
    )  # what float32 calls 0 is no infinity


def test_evaluations_of_earlier_versions_load_without_scores(tmp_path):
    made = measured([PARIS, LYON], [PARIS, PARIS])
    made.save(tmp_path)
    assert Evaluation.load(tmp_path).scores.equals(made.scores)
    values = read_json(tmp_path / "evaluation.json")
    del values["scores"]
    write_json(tmp_path / "evaluation.json", values)
    assert Evaluation.load(tmp_path).scores.empty


def test_baselines_have_scores_too():
    """The best constant point is found by trying every reference; the country and the region are those of most."""
    rng = np.random.default_rng(0)
    homes = np.array([PARIS, LYON, BERLIN, BERLIN, BERLIN, SEA])
    known = pd.DataFrame(
        homes[rng.integers(0, 6, 60)] + rng.normal(0, 0.05, (60, 2)), columns=["latitude", "longitude"]
    )
    truth = [PARIS, PARIS, BERLIN, SEA]
    made = measured(truth, truth, references=known.assign(photographer="someone"))
    points = [
        geoscore(distance_km(*place, known["latitude"], known["longitude"])).sum()
        for place in known.to_numpy()
    ]
    best = known.to_numpy()[int(np.argmax(points))]
    scores = made.scores.set_index(["method", "measure"])["value"]
    expected = np.mean([geoscore([float(distance_km(*best, *place))])[0] for place in truth])
    assert scores["best constant point", "GeoScore"] == pytest.approx(expected)
    countries = {"DE": 1 / 4, "FR": 2 / 4}
    most = "DE" if (known["longitude"] > 10).sum() >= (known["longitude"].between(0, 10)).sum() else "FR"
    assert scores["best constant point", "right country"] == countries[most]
    assert "random reference" not in scores
