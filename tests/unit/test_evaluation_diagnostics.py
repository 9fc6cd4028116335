"""Top-k accuracy, class bias and accuracy by group, against loops and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.accuracy import error_km
from geoloc.evaluation.measures.class_bias import class_bias
from geoloc.evaluation.measures.groups import (
    accuracy_by_group,
    column_groups,
    continent_groups,
    country_groups,
    density_groups,
    errors_by_method,
)
from geoloc.evaluation.measures.top_k import best_of_k_errors, top_k_accuracy
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Alternatives, Answers
from geoloc.sphere import LEVELS_KM, destination, distance_km


def queries(count, seed=0, photographers=6):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(count)],
            "latitude": rng.uniform(-70, 70, count),
            "longitude": rng.uniform(-180, 180, count),
            "photographer": [f"u{i}" for i in rng.integers(0, photographers, count)],
        }
    )


def alternatives(asked, count, seed=1):
    """Places at distances of every level around the truth, some missing at the end."""
    rng = np.random.default_rng(seed)
    km = 10 ** rng.uniform(-1, 4, (len(asked), count))
    lat, lon = destination(
        asked["latitude"].to_numpy()[:, None],
        asked["longitude"].to_numpy()[:, None],
        rng.uniform(0, 360, km.shape),
        km,
    )
    missing = np.arange(count) >= rng.integers(0, count + 1, (len(asked), 1))
    lat, lon = np.where(missing, np.nan, lat), np.where(missing, np.nan, lon)
    return Alternatives(lat, lon, np.zeros(lat.shape, np.float32))


def test_top_k_is_the_best_of_the_first_k_by_a_loop():
    asked = queries(40)
    found = alternatives(asked, 5)
    readable = np.arange(40) != 7
    errors = best_of_k_errors(found, asked["latitude"], asked["longitude"], readable)
    table = top_k_accuracy(found, asked, readable=readable)
    assert table["k"].tolist() == [k for k in range(1, 6) for _ in range(5)]
    for k in (1, 2, 5):
        best = []
        for row in range(40):
            d = [
                float(distance_km(asked["latitude"][row], asked["longitude"][row], a, b))
                for a, b in zip(found.latitude[row, :k], found.longitude[row, :k], strict=True)
            ]
            d = [x for x in d if not math.isnan(x)]
            best.append(min(d) if d and row != 7 else math.inf)
        np.testing.assert_allclose(errors[:, k - 1], best)
        for level, km in LEVELS_KM.items():
            share = sum(e <= km for e in best) / 40
            row = table[(table["k"] == k) & (table["level"] == level)].iloc[0]
            assert row["accuracy"] == pytest.approx(share)
            assert row["low"] <= row["accuracy"] <= row["high"]
    assert table["n"].eq(40).all()
    accuracies = table.pivot(index="k", columns="level", values="accuracy").to_numpy()
    assert (np.diff(accuracies, axis=0) >= 0).all()


def test_top_k_says_what_k_may_be():
    asked = queries(4)
    with pytest.raises(ValueError, match=r"k must be from 1 to 3, .* got \[1, 4\]"):
        top_k_accuracy(alternatives(asked, 3), asked, ks=(1, 4))
    with pytest.raises(ValueError, match="of no queries"):
        top_k_accuracy(alternatives(asked[:0], 3), asked[:0], ks=(1,))
    alone = top_k_accuracy(alternatives(asked, 3), asked.assign(photographer="u"), ks=(2,))
    assert alone["low"].isna().all()


# Class bias


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=50))
@settings(deadline=None)
def test_class_bias_is_that_of_scipy_with_one_added(pairs):
    truth, answered = (np.array(x) for x in zip(*pairs, strict=True))
    found = class_bias(truth, answered, 5)
    p = np.array([1 + (truth == c).sum() for c in range(5)], dtype=float)
    q = np.array([1 + (answered == c).sum() for c in range(5)], dtype=float)
    p, q = p / p.sum(), q / q.sum()
    assert found.kl_divergence == pytest.approx(stats.entropy(p, q), abs=1e-12)
    assert found.entropy_true == pytest.approx(stats.entropy(p))
    assert found.entropy_answered == pytest.approx(stats.entropy(q))
    assert (found.outside, found.silent) == ((truth < 0).sum(), (answered < 0).sum())


def test_class_bias_of_known_frequencies():
    truth = np.array([0, 0, 1, 1])
    assert class_bias(truth, truth[::-1], 2).kl_divergence == 0
    all_one = class_bias(truth, np.zeros(4), 2)
    assert all_one.kl_divergence == pytest.approx(
        0.5 * math.log(0.5 / (5 / 6)) + 0.5 * math.log(0.5 / (1 / 6))
    )
    assert all_one.never_answered == 1
    assert all_one.entropy_true == pytest.approx(math.log(2))
    # The direction: p is the truth, so what is never answered costs, and what is answered in vain costs less.
    assert class_bias(truth, np.zeros(4), 2, added=0).kl_divergence == math.inf
    assert class_bias(np.zeros(4), truth, 2, added=0).kl_divergence == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match=r"answered_cells must be from -1 \(none\) to 1, got 0 to 2"):
        class_bias(truth, [0, 1, 2, 0], 2)
    with pytest.raises(ValueError, match="at least one photo"):
        class_bias([], [], 2)
    with pytest.raises(ValueError, match="added must be at least 0, got -1"):
        class_bias(truth, truth, 2, added=-1)
    with pytest.raises(ValueError, match="none an answer"):
        class_bias(truth, [-1] * 4, 2, added=0)


# Groups


def test_groups_are_measured_as_evaluations_of_their_photos():
    asked = queries(60)
    rng = np.random.default_rng(0)
    errors = {"[L]a": 10 ** rng.uniform(-1, 4, 60), "[L]b": np.where(rng.random(60) < 0.2, np.inf, 50.0)}
    errors["[L]a"][3] = np.nan
    group = pd.Series(rng.choice(["east", "west", None], 60, p=[0.5, 0.3, 0.2]), dtype=object)
    table = accuracy_by_group(errors, group, asked["photographer"])
    assert list(dict.fromkeys(table["group"])) == ["east", "west", "unknown"]
    assert list(dict.fromkeys(table["method"])) == ["[L]a", "[L]b"]
    for name, mask in (("east", group == "east"), ("west", group == "west"), ("unknown", group.isna())):
        mine = asked[mask].reset_index(drop=True)
        answers = {}
        for method, error in errors.items():
            e = error[mask.to_numpy()]
            none = ~np.isfinite(e)
            lat, lon = destination(mine["latitude"], mine["longitude"], 10.0, np.where(none, 0, e))
            answers[method] = Answers(
                np.where(none, np.nan, lat), np.where(none, np.nan, lon), np.zeros(len(e), np.float32)
            )
        whole = evaluate(answers, mine, settings=EvaluationSettings(resamples=100), seed=5)
        got = table[table["group"] == name].reset_index(drop=True)
        for column in ("method", "level", "accuracy", "low", "high", "n"):
            assert got[column].tolist() == whole.accuracy[column].tolist()
        assert got["photographers"].eq(whole.query_photographers).all()
        if name == "east":
            found = errors_by_method(whole, mine[::-1])
            np.testing.assert_allclose(found["[L]b"], errors["[L]b"][mask.to_numpy()][::-1], rtol=1e-6)
            with pytest.raises(ValueError, match="'elsewhere' is not in the evaluation"):
                errors_by_method(whole, pd.DataFrame({"photo_id": ["elsewhere"]}))


def test_small_groups_are_put_together_and_one_photographer_has_no_interval():
    errors = {"m": np.array([0.5, 0.5, 30.0, 9.0, 9.0, 9.0])}
    group = ["b", "b", "a", "c", "d", None]
    photographer = ["x", "x", "y", "z", "z", "w"]
    table = accuracy_by_group(errors, group, photographer, smallest=2)
    at_city = table[table["level"] == "city"].set_index("group")
    assert at_city.index.tolist() == ["b", "others", "unknown"]
    assert at_city["accuracy"].tolist() == pytest.approx([1, 2 / 3, 1])
    assert at_city["n"].tolist() == [2, 3, 1]
    assert at_city["low"].isna().tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"of one length above 0, got \[5, 6\]"):
        accuracy_by_group(errors, group[:5], photographer)


def test_intervals_are_by_photographer_not_by_photo():
    hits = np.repeat([1.0, 9000.0], 50)

    def city(photographers):
        table = accuracy_by_group({"m": hits}, ["g"] * 100, photographers)
        return table[table["level"] == "city"].iloc[0]

    two = city(np.repeat(["x", "y"], 50))
    assert two["low"] < 0.05
    assert two["high"] > 0.95
    hundred = city([str(i) for i in range(100)])
    assert hundred["low"] == pytest.approx(0.40, abs=0.01)
    assert hundred["high"] == pytest.approx(0.60, abs=0.01)


def test_density_groups_count_references_by_a_loop():
    rng = np.random.default_rng(2)
    asked = queries(50, 3)
    towns = asked.iloc[rng.integers(0, 25, 300)]
    lat, lon = destination(
        towns["latitude"], towns["longitude"], rng.uniform(0, 360, 300), rng.exponential(30, 300)
    )
    groups = density_groups(asked["latitude"], asked["longitude"], lat, lon, km=25.0)
    count = [
        (distance_km(a, b, lat, lon) <= 25).sum()
        for a, b in zip(asked["latitude"], asked["longitude"], strict=True)
    ]
    for label, n in zip(groups, count, strict=True):
        numbers = [int(x) for x in label.split(" within ")[0].split(" to ")]
        assert numbers[0] <= n <= numbers[-1]
    assert str(groups.categories[0]).startswith("0")
    assert (groups == groups.categories[0]).sum() == sum(n == 0 for n in count) >= 25  # equals stay together
    order = np.argsort(count, kind="stable")
    assert (np.diff(groups.codes[order]) >= 0).all()
    even = density_groups(
        np.zeros(100),
        np.arange(100) * 0.3,
        np.zeros(5050),
        np.repeat(np.arange(100), np.arange(1, 101)) * 0.3,
        km=1.0,
    )
    assert pd.Series(even).value_counts().tolist() == [10] * 10
    with pytest.raises(ValueError, match="at least 2, got 1"):
        density_groups([0], [0], [0], [0], groups=1)


def test_columns_are_cut_at_edges_and_unknown_stays_unknown():
    values = pd.Series([0.1, 0.5, None, 0.49, 0.9], dtype="Float64")
    groups = column_groups(values, [0.5], "prob_indoor")
    low, high = "prob_indoor below 0.5", "prob_indoor at least 0.5"
    assert [None if pd.isna(g) else g for g in groups] == [low, high, None, low, high]
    table = accuracy_by_group({"m": np.array([1.0, 99, 1, 99, 1])}, groups, list("abcde"))
    assert list(dict.fromkeys(table["group"])) == [low, high, "unknown"]
    assert table[table["level"] == "city"]["accuracy"].tolist() == [0.5, 0.5, 1.0]
    three = column_groups([1, 2, 3], [2, 3], "x")
    assert list(three) == ["x below 2", "x 2 to 3", "x at least 3"]
    with pytest.raises(ValueError, match=r"edges must rise, .* got \[3, 2\]"):
        column_groups(values, [3, 2], "x")


def test_places_are_grouped_by_what_they_are_called():
    lat, lon = [48.85, 35.68, -33.87], [2.35, 139.69, 151.2]
    assert continent_groups(lat, lon).tolist() == ["Europe", "Asia", "Oceania"]
    assert country_groups(lat, lon).tolist() == ["France", "Japan", "Australia"]
    error = error_km(lat, lon, lat, lon)
    table = accuracy_by_group({"m": error}, continent_groups(lat, lon), ["a", "b", "c"])
    assert table["accuracy"].eq(1).all()
    assert list(dict.fromkeys(table["group"])) == ["Asia", "Europe", "Oceania"]  # equals by name
