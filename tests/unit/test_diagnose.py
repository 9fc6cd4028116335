"""Diagnostics of an evaluation: each table is the measure of its name on the right photos, and survives saving."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.diagnostics import Diagnostics, diagnose
from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.files import read_json
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.by_neighbour import Answers
from geoloc.sphere import LEVELS_KM, distance_km
from tests.unit.localizer_world import nested, photos, probabilities

LAT, LON = photos()
FINE = nested(LAT, LON)[0]
UNREAD = 7
# Thirty photos in the middle of France, so that one country is large enough to stand by itself.
FRANCE = np.random.default_rng(5).uniform([46, 1], [48, 4], (30, 2))
WHERE = np.concatenate([FRANCE, np.stack([LAT[:90], LON[:90]], axis=1)])


@pytest.fixture(scope="module")
def world():
    """120 queries, one of them unreadable, and 280 references; a method by class and one that always says Paris."""
    queries = pd.DataFrame(
        {
            "photo_id": [f"p{i:03}" for i in range(120)],
            "latitude": WHERE[:, 0],
            "longitude": WHERE[:, 1],
            "photographer": [f"u{i % 9}" for i in range(120)],
            "prob_indoor": np.where(np.arange(120) % 4 == 0, np.nan, (np.arange(120) % 10) / 10),
        }
    )
    references = pd.DataFrame(
        {"latitude": LAT[120:], "longitude": LON[120:], "photographer": [f"r{i}" for i in range(280)]}
    )
    p = probabilities(120, FINE.cell_count, 1)
    truth = np.maximum(FINE.assign(WHERE[:, 0], WHERE[:, 1]), 0)
    p[np.arange(120), truth] += np.where(np.arange(120) % 2, 0.3, 0.0)
    p /= p.sum(axis=1, keepdims=True)
    p[UNREAD] = np.nan
    by_class = ClassLocalizer(FINE).locate(p)
    paris = Answers(np.full(120, 48.86), np.full(120, 2.35), np.full(120, 0.5, dtype=np.float32))
    unread = [queries["photo_id"][UNREAD]]
    evaluation = evaluate(
        {"class": by_class, "Paris": paris},
        queries,
        references,
        {"fine": FINE},
        EvaluationSettings(resamples=30),
        seed=1,
        unreadable=unread,
    )
    cells = np.where(np.isnan(p).any(axis=1), -1, np.nan_to_num(p).argmax(axis=1))
    found = diagnose(
        evaluation,
        {"class": by_class.alternatives},
        {"fine": cells},
        queries,
        references,
        {"fine": FINE},
        unreadable=unread,
    )
    return queries, references, evaluation, by_class, cells, found


def test_the_first_of_the_top_k_is_the_accuracy_and_more_are_no_worse(world):
    *_, evaluation, _, _, found = world
    table = found.tables["top_k"]
    assert set(table["method"]) == {"class"}
    own = evaluation.accuracy[evaluation.accuracy["method"] == "class"]
    first = table[table["k"] == 1]
    for column in ("accuracy", "low", "high"):
        np.testing.assert_allclose(first[column], own[column])
    assert (table[table["k"] == 5]["accuracy"].to_numpy() >= first["accuracy"].to_numpy()).all()
    assert table[table["k"] == 5]["accuracy"].max() < 1  # one photo cannot be read


def test_class_bias_counts_true_and_answered_cells(world):
    queries, _, _, _, cells, found = world
    row = found.tables["class_bias"].iloc[0]
    truth = FINE.assign(queries["latitude"], queries["longitude"])
    p = np.bincount(truth[truth >= 0], minlength=FINE.cell_count) + 1
    q = np.bincount(cells[cells >= 0], minlength=FINE.cell_count) + 1
    p, q = p / p.sum(), q / q.sum()
    assert row["kl_divergence"] == pytest.approx((p * np.log(p / q)).sum())
    assert (row["partition"], row["cells"], row["silent"]) == ("fine", FINE.cell_count, 1)


@pytest.mark.parametrize("name", ["continent", "country", "density", "indoor"])
def test_groups_add_up_to_the_whole(world, name):
    evaluation, found = world[2], world[-1]
    table = found.tables[f"accuracy_by_{name}"]
    for method in ("class", "Paris"):
        for level in LEVELS_KM:
            rows = table[(table["method"] == method) & (table["level"] == level)]
            whole = evaluation.accuracy.query("method == @method and level == @level")["accuracy"].item()
            assert rows["n"].sum() == 120
            assert (rows["accuracy"] * rows["n"]).sum() / 120 == pytest.approx(whole)


def test_groups_are_those_of_their_photos(world):
    queries, references, evaluation, _, _, found = world
    errors = evaluation.per_photo.query("method == 'class'")["error_km"].fillna(np.inf).to_numpy()
    indoor = found.tables["accuracy_by_indoor"].query("method == 'class' and level == 'continent'")
    for row in indoor.itertuples():
        mask = {
            "prob_indoor below 0.5": queries["prob_indoor"] < 0.5,
            "prob_indoor at least 0.5": queries["prob_indoor"] >= 0.5,
            "unknown": queries["prob_indoor"].isna(),
        }[row.group]
        assert row.accuracy == pytest.approx((errors[mask] <= 2500).mean())
    near = [
        int((distance_km(a, b, references["latitude"], references["longitude"]) <= 25).sum())
        for a, b in zip(queries["latitude"], queries["longitude"], strict=True)
    ]
    densest = found.tables["accuracy_by_density"]["group"].iloc[-1]
    assert densest.startswith(f"{max(near)} ") or f"to {max(near)} " in densest
    countries = found.tables["accuracy_by_country"].query("method == 'Paris' and level == 'continent'")
    assert list(countries["group"]) == ["France", "others"]
    assert list(countries["n"]) == [30, 90]
    assert countries["accuracy"].iloc[0] == pytest.approx(29 / 30)  # one cannot be read


def test_risk_is_the_share_of_wrong_answers_of_the_main_method(world):
    evaluation, by_class, found = world[2], world[3], world[-1]
    errors = evaluation.per_photo.query("method == 'class'")["error_km"].fillna(np.inf).to_numpy()
    curve = found.tables["risk_coverage"].query("level == 'region'")
    order = np.argsort(-by_class.confidence.astype(float), kind="stable")
    kept = order[:30]
    assert curve["risk"].iloc[29] == pytest.approx((errors[kept] > 200).mean())
    row = found.tables["selective"].query("level == 'region'").iloc[0]
    assert row["area"] == pytest.approx(curve["risk"].mean())
    assert row["least_area"] <= row["area"]
    assert row["risk_of_all"] == pytest.approx((errors > 200).mean())


def test_what_is_saved_is_read_back_and_people_see_the_main_method(world, tmp_path):
    found = world[-1]
    found.save(tmp_path)
    assert "risk_coverage" not in [one["name"] for one in read_json(tmp_path / "diagnostics.json")["tables"]]
    again = Diagnostics.load(tmp_path)
    assert again.method == "class"
    for name, table in found.tables.items():
        read = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=True)
        assert list(read.columns) == list(table.columns)
        assert len(read) == len(table)
        if name != "risk_coverage":
            pd.testing.assert_frame_equal(again.tables[name], table, check_dtype=False)
    seen = again.overview()
    assert list(seen) == [
        "top k", "class bias", "accuracy by continent", "accuracy by country", "accuracy by density",
        "accuracy by indoor", "selective",
    ]  # fmt: skip
    assert list(seen["accuracy by continent"].columns) == ["group", "photos", *LEVELS_KM]
    assert seen["accuracy by continent"]["photos"].sum() == 120
    best = found.tables["top_k"].query("k == 5 and level == 'country'")["accuracy"].item()
    assert seen["top k"].set_index("k").loc[5, "country"] == pytest.approx(100 * best, abs=0.051)


def test_what_is_not_known_has_no_table(world):
    queries, references, evaluation, *_ = world
    found = diagnose(evaluation, {}, {}, queries.drop(columns="prob_indoor"), references.iloc[:0], {})
    assert list(found.tables) == [
        "accuracy_by_continent", "accuracy_by_country", "selective", "risk_coverage"
    ]  # fmt: skip
