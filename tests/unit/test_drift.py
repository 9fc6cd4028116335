"""Drift is found where there is some, is not found where there is none, and people count, not photos."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from geoloc.evaluation.drift import drifts, energy, ks, psi
from geoloc.evaluation.health_settings import HealthSettings
from geoloc.evaluation.over_time import falls
from orchestration.cli import main
from tests.unit.pretended import bare_workspace

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=20)


@given(COUNTS)
def test_psi_is_zero_for_equal_counts(counts):
    assert psi(counts, counts) == pytest.approx(0)


@given(COUNTS, st.data())
def test_psi_is_never_negative_and_has_no_direction(counts, data):
    other = data.draw(st.lists(st.integers(0, 1000), min_size=len(counts), max_size=len(counts)))
    assert psi(counts, other) >= 0
    assert psi(counts, other) == pytest.approx(psi(other, counts))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_ks_is_that_of_scipy_with_ties_too(rows):
    values, new = np.array([v for v, _ in rows], float), np.array([n for _, n in rows])
    if new.all() or not new.any():
        return
    assert ks(values)(new) == pytest.approx(ks_2samp(values[new], values[~new]).statistic)


def test_energy_is_zero_for_the_same_points_and_near_one_for_points_far_apart():
    points = np.random.default_rng(1).normal(size=(40, 3))
    new = np.arange(80) < 40
    assert energy(np.concatenate([points, points]))(new) == pytest.approx(0, abs=1e-6)
    assert energy(np.concatenate([points, points + 1000]))(new) > 0.99


def people(generator, count, photos, latitude):
    """Photos by `count` photographers, each around a home of their own."""
    homes = generator.normal(latitude, 8, count)
    owner = np.repeat(np.arange(count), photos)
    return homes[owner] + generator.normal(0, 0.1, count * photos), owner


def one_place(seed, shift):
    generator = np.random.default_rng(seed)
    old, owners = people(generator, 40, 10, 45.0)
    new, others = people(generator, 12, 10, 45.0 + shift)
    latitude = np.concatenate([old, new])
    is_new = np.arange(len(latitude)) >= len(old)
    facts = {"latitude": latitude, "longitude": np.zeros(len(latitude)), "year": latitude}
    return drifts(facts, is_new, np.concatenate([owners, others + 100]), HealthSettings(), seed)


def test_photos_from_elsewhere_are_drift():
    assert [one.drifted for one in one_place(3, -70.0)] == [True, True]


def test_new_photographers_from_the_same_places_are_no_drift():
    found = [one for seed in range(20) for one in one_place(seed, 0.0)]
    assert sum(one.drifted for one in found) <= 0.15 * len(found)
    assert max(one.value for one in found) > 0.2  # photo by photo they would look like drift


def test_few_photos_and_unknown_values_are_said_and_are_no_drift():
    new = np.arange(100) >= 80
    (one,) = drifts({"year": np.where(new, 3000.0, 2000.0)}, new, np.arange(100), HealthSettings(), 0)
    assert not one.drifted
    assert "fewer than 30 photos" in one.detail
    new = np.arange(100) >= 50
    (one,) = drifts(
        {"year": np.where(np.arange(100) % 2, np.nan, 1.0)}, new, np.arange(100), HealthSettings(), 0
    )
    assert (one.new, one.trained) == (25, 25)


def test_a_region_falls_by_more_than_the_bound_and_beyond_its_interval():
    rows = [
        ("a", "Europe", 0.50, 0.45, 0.55), ("a", "Asia", 0.50, 0.30, 0.70), ("a", "Africa", 0.50, 0.49, 0.51),
        ("b", "Europe", 0.30, 0.25, 0.35), ("b", "Asia", 0.30, 0.10, 0.60), ("b", "Africa", 0.48, 0.47, 0.485),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["made", "group", "accuracy", "low", "high"]).assign(level="city")
    found = falls(table, 0.05)
    assert found[["group", "before", "now"]].values.tolist() == [["Europe", 0.5, 0.3]]
    assert falls(table[table["made"] == "a"], 0.05).empty


def reports(tmp_path, confidence, right, name="one"):
    """An evaluation's folder whose only method has these confidences, and is right within a kilometre or far off."""
    from geoloc.evaluation.evaluate import evaluate
    from geoloc.evaluation.over_time import Dated
    from geoloc.evaluation.settings import EvaluationSettings
    from geoloc.localizers.base import Answers

    count = len(right)
    queries = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(count)],
            "latitude": np.zeros(count),
            "longitude": np.zeros(count),
            "photographer": [f"a{i % 9}" for i in range(count)],
        }
    )
    answers = Answers(np.where(right, 0.0, 80.0), np.zeros(count), np.asarray(confidence, dtype=float))
    evaluation = evaluate({"[L]": answers}, queries, settings=EvaluationSettings(resamples=20), seed=1)
    evaluation.save(tmp_path / name)
    return Dated(tmp_path / name, "2026-01-01", "v1")


def test_overconfidence_is_told_from_the_luck_of_few_photos(tmp_path):
    from geoloc.evaluation.over_time import calibration_over_time

    generator = np.random.default_rng(4)
    sure = generator.uniform(0.2, 0.9, 40)
    honest = calibration_over_time([reports(tmp_path, sure, generator.random(40) < sure, "few")]).iloc[0]
    assert honest["error"] > 0.05  # few photos look badly calibrated
    assert honest["p"] > 0.05
    boasting = calibration_over_time(
        [reports(tmp_path, np.full(400, 0.9), np.arange(400) % 2 == 0, "many")]
    ).iloc[0]
    assert boasting["error"] == pytest.approx(0.4)
    assert boasting["p"] == pytest.approx(0.01)


def test_the_json_of_what_was_not_measured_is_json(tmp_path, monkeypatch, capsys):
    from orchestration.operations import health

    workspace = bare_workspace(tmp_path / "w", {})
    table = [{"value": float("nan"), "bound": np.float64(0.25), "most": float("inf"), "new": np.int64(3)}]
    monkeypatch.setattr(health, "health", lambda build: [health.Finding("drift", True, "few", table)])
    assert main(["--workspace", str(workspace.root), "health", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["table"] == [{"value": None, "bound": 0.25, "most": None, "new": 3}]
