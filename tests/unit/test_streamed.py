"""Evaluation by class at any size: photos in parts give what all at once give, and no matrix of all is made."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from geoloc.localizers.by_class import probabilities as probabilities_module
from geoloc.localizers.by_class.methods import class_methods
from geoloc.localizers.by_class.probabilities import photo_parts
from geoloc.localizers.confidence import calibration as calibration_module
from geoloc.localizers.confidence.calibration import Calibration, sample_of_photographers
from geoloc.localizers.settings import LocalizerSettings
from orchestration.assets.answers import ByClass, ClassAnswers
from tests.unit.localizer_world import nested, photos, probabilities

LAT, LON = photos()
PARTITIONS = dict(zip(("fine", "coarse", "middle"), nested(LAT, LON), strict=True))
ALL = LocalizerSettings(
    combine=("overlay", "product"), within_levels=True, calibrate=True, coverages=(0.5, 0.9), batch_size=1
)
QUERIES = pd.DataFrame({"row": np.arange(100), "latitude": LAT[:100], "longitude": LON[:100]})


class Told(ByClass):
    """Answers by class whose network is replaced by given probabilities; counts what it is asked for at a time."""

    def predict(self, photos: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rows = photos["row"].to_numpy()
        asked.append(len(rows))
        found = {name: p[rows] for name, p in given.items()}
        return found, np.flatnonzero(np.isnan(found["fine"]).any(axis=1))


asked: list[int] = []
given = {name: probabilities(400, p.cell_count, i) for i, (name, p) in enumerate(PARTITIONS.items())}
for _p in given.values():
    _p[[3, 4, 60]] = np.nan
RUN: Any = SimpleNamespace(log=lambda line: None, settings=SimpleNamespace(localizers=ALL))


def fitted(**use: Any) -> Calibration:
    owners = np.arange(400) // 8
    return Calibration.fit(
        PARTITIONS, lambda rows: {n: p[rows] for n, p in given.items()}, LAT, LON, ALL, owners, **use
    )


def answered() -> ClassAnswers:
    methods = class_methods(PARTITIONS, ALL, LAT, LON)
    return Told(RUN, PARTITIONS, methods, None, fitted()).answer("test", QUERIES)  # type: ignore[arg-type]


def assert_equal(one: Any, other: Any) -> None:
    if one is None or other is None:
        assert one is other
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, np.ndarray):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    else:
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))


def test_answers_and_facts_of_parts_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answered()
    asked.clear()
    monkeypatch.setattr(
        probabilities_module, "CELLS_AT_ONCE", 7 * sum(p.cell_count for p in PARTITIONS.values())
    )
    parts = answered()
    assert max(asked) == 7
    assert list(parts.answers) == list(whole.answers)
    assert parts.unreadable.tolist() == whole.unreadable.tolist() == [3, 4, 60]
    for name in whole.answers:
        assert_equal(parts.answers[name], whole.answers[name])
    for name, facts in whole.facts.items():
        assert_equal(parts.facts[name], facts)
        assert len(facts.regions) == 2


def test_facts_are_what_the_probabilities_say() -> None:
    found, scaled = answered(), fitted().scaled({name: p[:100] for name, p in given.items()})
    for name, facts in found.facts.items():
        truth = PARTITIONS[name].assign(LAT[:100], LON[:100])
        for i in range(100):
            p = scaled[name][i]
            if np.isnan(p).any():
                assert facts.cell[i] == -1
                assert np.isnan([facts.probability[i], facts.uncalibrated[i], facts.log_true[i]]).all()
                continue
            assert facts.cell[i] == p.argmax()
            assert facts.probability[i] == pytest.approx(p.max())
            assert facts.uncalibrated[i] == pytest.approx(given[name][i, p.argmax()])
            assert np.isnan(facts.log_true[i]) == (truth[i] < 0)
            if truth[i] >= 0:
                assert facts.log_true[i] == pytest.approx(np.log(p[truth[i]]), rel=1e-5)


def test_a_calibration_in_parts_is_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.arange(400) % 2 == 0
    use = {"for_temperature": half, "for_regions": ~half}
    whole = fitted(**use)
    monkeypatch.setattr(probabilities_module, "CELLS_AT_ONCE", 500)
    parts = fitted(**use)
    for name in PARTITIONS:
        assert parts.temperatures[name].temperature == pytest.approx(whole.temperatures[name].temperature)
        for a, b in zip(parts.regions[name], whole.regions[name], strict=True):
            assert a.threshold == pytest.approx(b.threshold)
            assert (a.photos, a.photographers) == (200, 50)


def test_temperatures_of_very_many_photos_are_fitted_on_some_photographers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cells = sum(p.cell_count for p in PARTITIONS.values())
    monkeypatch.setattr(calibration_module, "TEMPERATURE_CELLS", 100 * cells)
    made, other = fitted(seed=1), fitted(seed=2)
    for name in PARTITIONS:
        scaling = made.temperatures[name]
        assert scaling.photos + scaling.left_out == 100
        assert scaling.temperature != other.temperatures[name].temperature
        assert all(one.photos == 400 for one in made.regions[name])
    owners = np.arange(400) // 8
    some = sample_of_photographers(owners, 100, 1)
    assert len(some) == 100
    assert len(np.unique(owners[some])) == 13  # twelve whole ones and a half
    assert sample_of_photographers(owners, 400, 1).tolist() == list(range(400))


@pytest.mark.parametrize(("photos", "cells", "batch"), [(0, 5, 4), (1, 5, 4), (23, 5, 4), (23, 9999, 4)])
def test_parts_hold_whole_batches_and_every_photo_once(
    monkeypatch: pytest.MonkeyPatch, photos: int, cells: int, batch: int
) -> None:
    monkeypatch.setattr(probabilities_module, "CELLS_AT_ONCE", 45)
    parts = list(photo_parts(photos, cells, batch))
    assert [row for part in parts for row in range(photos)[part]] == list(range(photos))
    assert all(
        part.start % batch == 0 and part.stop - part.start <= max(45 // cells, batch) for part in parts
    )


class Grid:
    """5,000 cells of the whole Earth, by longitude."""

    kind, cell_count = "grid", 5000

    def assign(self, latitude: Any, longitude: Any) -> np.ndarray:
        return ((np.asarray(longitude) + 180) / 360 * self.cell_count).astype(np.int64) % self.cell_count

    def centres(self) -> np.ndarray:
        return np.stack([np.zeros(self.cell_count), np.linspace(-180, 179.9, self.cell_count)], axis=1)

    centroids = centres

    def areas_km2(self) -> np.ndarray:
        return np.full(self.cell_count, 1e5)


def test_no_matrix_of_all_photos_and_cells_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """800 photos of 5,000 cells are 16 MB in float32, and were 200 MB at the peak of an evaluation."""
    count, grid = 800, Grid()
    queries = pd.DataFrame(
        {
            "latitude": 0.0,
            "longitude": np.random.default_rng(0).uniform(-180, 180, count),
            "row": range(count),
        }
    )

    class Network(ByClass):
        def predict(self, photos: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
            raw = np.random.default_rng(int(photos["row"].iloc[0])).exponential(
                size=(len(photos), grid.cell_count)
            )
            raw = raw.astype(np.float32)
            return {"grid": raw / raw.sum(axis=1, keepdims=True)}, np.empty(0, np.int64)

    wanted = LocalizerSettings(calibrate=True, coverages=(0.5,), batch_size=16)
    run: Any = SimpleNamespace(log=lambda line: None, settings=SimpleNamespace(localizers=wanted))
    partitions: Any = {"grid": grid}
    methods = class_methods(partitions, wanted, [], [])
    network = Network(run, partitions, methods, None, Calibration.none())  # type: ignore[arg-type]
    monkeypatch.setattr(probabilities_module, "CELLS_AT_ONCE", 16 * grid.cell_count)
    monkeypatch.setattr(calibration_module, "TEMPERATURE_CELLS", 16 * grid.cell_count)
    tracemalloc.start()
    made = Calibration.fit(
        partitions, lambda rows: network.predict(queries.iloc[rows])[0], queries["latitude"],
        queries["longitude"], wanted, np.arange(count) // 2,
    )  # fmt: skip
    network = Network(run, partitions, methods, None, made)  # type: ignore[arg-type]
    found = network.answer("test", queries)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.facts["grid"]) == count
    assert peak < 12e6
