"""Calibrated confidences, conformal regions, abstention and areas of cells, against definitions written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import s2sphere
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax

from geoloc.evaluation.measures.calibration import calibration_error, calibration_table
from geoloc.evaluation.measures.selective import area_under_risk_coverage, best_possible_area, risk_coverage
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.confidence.abstention import abstain_below
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.partitions.areas import polygon_area_km2
from geoloc.sphere import EARTH_RADIUS_KM, destination
from tests.unit.localizer_world import nested, photos, probabilities, softmax

EARTH_KM2 = 4 * math.pi * EARTH_RADIUS_KM**2


def drawn_cells(true_probabilities: np.ndarray, seed: int) -> np.ndarray:
    u = np.random.default_rng(seed).random((len(true_probabilities), 1))
    return np.minimum(
        (np.cumsum(true_probabilities, axis=1) < u).sum(axis=1), true_probabilities.shape[1] - 1
    )


# Temperature


def test_the_temperature_that_spoilt_the_probabilities_is_found():
    logits = np.random.default_rng(0).normal(0, 2, (20_000, 8))
    truth = drawn_cells(softmax(logits), 1)
    sharp = softmax(logits * 3)
    scaling = TemperatureScaling().fit(sharp, truth)
    assert scaling.temperature == pytest.approx(3, rel=0.03)
    found = scaling.predict(sharp)
    np.testing.assert_allclose(found, softmax(logits * 3 / scaling.temperature), atol=1e-5)
    right = found.argmax(axis=1) == truth
    before = calibration_error(calibration_table(sharp.max(axis=1), right))
    after = calibration_error(calibration_table(found.max(axis=1), right))
    assert after < 0.02 < 0.15 < before
    np.testing.assert_array_equal(found.argmax(axis=1), sharp.argmax(axis=1))


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_no_temperature_on_a_grid_is_likelier(seed):
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(0, rng.uniform(0.5, 3), (40, 5)), rng.integers(0, 5, 40)
    fitted = TemperatureScaling().fit(softmax(logits), truth).temperature

    def likelihood(t):
        return log_softmax(logits / t, axis=1)[np.arange(40), truth].mean()

    assert likelihood(fitted) >= max(likelihood(t) for t in np.geomspace(0.01, 100, 200)) - 1e-5


def test_photos_without_a_cell_or_unread_do_not_fit_a_temperature(tmp_path):
    p, truth = probabilities(50, 4, 0), np.random.default_rng(1).integers(0, 4, 50)
    p[3], truth[5] = np.nan, -1
    kept = np.delete(np.arange(50), [3, 5])
    scaling = TemperatureScaling().fit(p, truth)
    assert (scaling.photos, scaling.left_out) == (48, 2)
    assert scaling.temperature == TemperatureScaling().fit(p[kept], truth[kept]).temperature
    assert np.isnan(scaling.predict(p)[3]).all()
    assert np.isfinite(scaling.predict(p)[kept]).all()
    scaling.save(tmp_path / "temperature.json")
    loaded = TemperatureScaling.load(tmp_path / "temperature.json")
    assert repr(loaded) == repr(scaling)
    np.testing.assert_array_equal(loaded.predict(p), scaling.predict(p))
    with pytest.raises(ValueError, match="call fit"):
        TemperatureScaling().predict(p)
    with pytest.raises(ValueError, match="got none among 50"):
        TemperatureScaling().fit(p, np.full(50, -1))
    with pytest.raises(ValueError, match=r"from -1 \(in none\) to 3, got -1 to 4"):
        TemperatureScaling().fit(p, np.where(truth == 3, 4, truth))
    with pytest.raises(ValueError, match="softmax"):
        TemperatureScaling().fit(np.log(p[kept]), truth[kept])


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_a_classifier_that_is_always_right_on_validation_photos_is_not_made_certain(seed, count, cells):
    """Before, the temperature fell to the bound of the search, 0.01, where every confidence is 1."""
    p = softmax(np.random.default_rng(seed).normal(0, 1, (count, cells)))
    scaling = TemperatureScaling().fit(p, p.argmax(axis=1))
    assert 0.011 < scaling.temperature < 99
    sure = scaling.predict(p).max(axis=1)
    # One photo more might have been wrong: the mean confidence is about (N + 1) / (N + 2), and none is 1.
    assert sure.mean() < 1 - 0.2 / (count + 2)
    assert (scaling.predict(p).argmax(axis=1) == p.argmax(axis=1)).all()


# Calibration


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_the_calibration_error_is_a_loop_over_bins(photos_seen, bins):
    sure, right = np.array([s for s, _ in photos_seen]), np.array([r for _, r in photos_seen])
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for i in range(bins):
        held = [(s, r) for s, r in photos_seen if edges[i] < s <= edges[i + 1] or (i == 0 and s == 0)]
        if held:
            gap = abs(sum(s for s, _ in held) / len(held) - sum(r for _, r in held) / len(held))
            expected += gap * len(held) / len(photos_seen)
    table = calibration_table(sure, right, bins)
    assert calibration_error(table) == pytest.approx(expected, abs=1e-9)
    assert table["n"].sum() == len(sure)


def test_confidences_that_are_none_are_refused():
    for sure, right, bins, text in (
        ([1.2], [True], 5, "from 0 to 1"),
        ([np.nan], [True], 5, "from 0 to 1"),
        ([], [], 5, "at least one photo"),
        ([0.5], [True, False], 5, "at least one photo"),
        ([0.5], [True], 0, "bins must be at least 1"),
    ):
        with pytest.raises(ValueError, match=text):
            calibration_table(sure, right, bins)


# Conformal regions


def naive_score(row, cell, score):
    return 1 - row[cell] if score == "lac" else sum(x for x in row if x >= row[cell])


@pytest.mark.parametrize("score", ["aps", "lac"])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_regions_are_a_loop_over_cells(score, coverage):
    rng = np.random.default_rng(3)
    validation = rng.integers(1, 6, (39, 6)) / 1.0  # many equal probabilities
    validation /= validation.sum(axis=1, keepdims=True)
    truth = rng.integers(0, 6, 39)
    regions = ConformalRegions(coverage, score).fit(validation, truth)
    scores = sorted(naive_score(row, cell, score) for row, cell in zip(validation, truth, strict=True))
    assert regions.threshold == pytest.approx(scores[math.ceil(40 * coverage) - 1])
    areas = rng.uniform(1, 9, 6)
    found = regions.predict(validation[:10], areas)
    for row in range(10):
        expected = [c for c in range(6) if naive_score(validation[row], c, score) <= regions.threshold + 1e-9]
        expected = sorted({*expected, int(validation[row].argmax())})
        assert np.flatnonzero(found.cells[row]).tolist() == expected
        assert found.size[row] == len(expected)
        assert found.area_km2[row] == pytest.approx(areas[expected].sum())


@pytest.mark.parametrize("score", ["aps", "lac"])
def test_the_promised_coverage_is_kept_even_by_a_classifier_that_is_wrong(score):
    rng = np.random.default_rng(0)
    covered, few = [], []
    for seed in range(150):
        logits = rng.normal(0, 2, (300, 12))
        truth = drawn_cells(softmax(logits), seed)
        said = softmax(4 * logits + rng.normal(0, 1, logits.shape))  # far too sure
        regions = ConformalRegions(0.9, score).fit(said[:100], truth[:100])
        found = regions.predict(said[100:])
        covered.append(found.covered(truth[100:]).mean())
        few.append(found.size.mean())
    # 100 validation photos: between 0.9 and 0.9 + 1/101 for lac, more for aps without its random number.
    assert 0.895 < np.mean(covered) < (0.96 if score == "aps" else 0.918)
    assert np.mean(few) < 11  # not by giving all cells


def test_photos_that_fit_no_cell_make_the_regions_larger_and_too_many_make_them_everything(tmp_path):
    p, truth = probabilities(99, 5, 0), np.random.default_rng(0).integers(0, 5, 99)
    plain = ConformalRegions(0.8, "lac").fit(p, truth)
    some = truth.copy()
    some[:10] = -1
    larger = ConformalRegions(0.8, "lac").fit(p, some)
    assert larger.threshold > plain.threshold
    many = truth.copy()
    many[:25] = -1
    everything = ConformalRegions(0.8, "lac").fit(p, many)
    assert everything.threshold == np.inf
    assert (everything.predict(p).size == 5).all()
    assert not everything.predict(p).covered(np.full(99, -1)).any()
    # 3 photos cannot promise 0.8: the 4 * 0.8-th of them does not exist.
    assert ConformalRegions(0.8).fit(p[:3], truth[:3]).threshold == np.inf
    assert ConformalRegions(0.75).fit(p[:3], truth[:3]).threshold < np.inf
    for regions in (plain, everything):
        regions.save(tmp_path / "regions.json")
        loaded = ConformalRegions.load(tmp_path / "regions.json")
        assert repr(loaded) == repr(regions)
        np.testing.assert_array_equal(loaded.predict(p).cells, regions.predict(p).cells)


def test_every_photographer_counts_once_and_too_few_promise_nothing(tmp_path):
    """Against the weighted quantile by a loop: photographers of 1 to 30 photos, all of a photographer equally hard."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 30, 24)
    owners = np.repeat(np.arange(24), sizes).astype(str)
    p = rng.dirichlet(np.ones(5), len(owners))
    truth = rng.integers(0, 5, len(owners))
    for coverage in (0.5, 0.8, 0.95):
        regions = ConformalRegions(coverage, "lac").fit(p, truth, owners)
        scores = 1 - p[np.arange(len(p)), truth]
        for threshold in sorted(scores):
            mass = sum(np.mean(scores[owners == one] <= threshold) for one in np.unique(owners)) / 25
            if mass >= coverage - 1e-12:
                break
        assert regions.threshold == pytest.approx(threshold)
        assert (regions.photos, regions.photographers) == (len(p), 24)
    # 24 photographers cannot promise 0.97, 9 nothing.
    assert ConformalRegions(0.97).fit(p, truth, owners).threshold == np.inf
    few = owners.astype(int) < 9
    nothing = ConformalRegions(0.5).fit(p[few], truth[few], owners[few])
    assert (nothing.threshold, nothing.too_few, nothing.plausible()) == (np.inf, True, (0.0, 1.0))
    low, high = regions.plausible()
    assert low < 0.95 < high
    assert (low, high) == pytest.approx(stats.beta(24, 1).ppf([0.025, 0.975]))
    regions.save(tmp_path / "regions.json")
    assert ConformalRegions.load(tmp_path / "regions.json").plausible() == (low, high)


@pytest.mark.slow
def test_new_photographers_are_covered_although_some_took_most_of_the_validation_photos():
    """Those with many photos are easy here. Photo by photo, the threshold is theirs, and others are missed."""
    rng = np.random.default_rng(0)

    def drawn(people):
        sizes = np.where(rng.random(people) < 0.2, 60, 3)
        owners = np.repeat(np.arange(people), sizes)
        logits = rng.normal(0, 2, (len(owners), 8))
        hard = np.where(sizes[owners] > 3, 3.0, 0.3)[:, None]
        return softmax(logits), drawn_cells(softmax(hard * logits), int(rng.integers(1_000_000))), owners

    by_photographer, by_photo = [], []
    for _ in range(60):
        p, truth, owners = drawn(30)
        new, where, theirs = drawn(60)
        for found, who in ((by_photographer, owners), (by_photo, None)):
            covered = ConformalRegions(0.8, "lac").fit(p, truth, who).predict(new).covered(where)
            found.append(np.mean([covered[theirs == one].mean() for one in range(60)]))
    assert np.mean(by_photographer) > 0.79
    assert np.mean(by_photo) < 0.72


def test_no_region_is_empty():
    sure = np.tile([0.9, 0.06, 0.04], (20, 1))
    regions = ConformalRegions(0.5, "lac").fit(sure, np.zeros(20))
    unsure = np.array([[0.3, 0.36, 0.34]])  # no cell is as probable as the true ones were
    assert regions.predict(unsure).cells.tolist() == [[False, True, False]]


def test_an_unread_photo_has_every_cell():
    p, truth = probabilities(60, 5, 0), np.random.default_rng(0).integers(0, 5, 60)
    regions = ConformalRegions(0.6, "lac").fit(p, truth)
    p[1] = np.nan
    found = regions.predict(p[:3], np.ones(5))
    assert found.size[1] == 5
    assert found.area_km2[1] == 5
    assert np.isnan(regions.predict(p[:3]).area_km2).all()
    with pytest.raises(ValueError, match="areas_km2 must be 5 numbers"):
        regions.predict(p, np.ones(4))
    with pytest.raises(ValueError, match="call fit"):
        ConformalRegions().predict(p)
    with pytest.raises(ValueError, match="score must be one of aps, lac; got 'raps'"):
        ConformalRegions(score="raps")
    with pytest.raises(ValueError, match="above 0 and below 1, got 1"):
        ConformalRegions(1)


# Areas


def test_areas_of_s2_cells_are_those_of_s2():
    lat, lon = photos(3000)
    for partition in nested(lat, lon):
        areas = partition.areas_km2()
        expected = [
            s2sphere.Cell(s2sphere.CellId.from_token(token)).exact_area() * EARTH_RADIUS_KM**2
            for token in partition.tokens()
        ]
        np.testing.assert_allclose(areas, expected, rtol=1e-6)
    regions = ConformalRegions(0.5).fit(probabilities(20, partition.cell_count, 0), np.zeros(20))
    found = regions.predict(probabilities(4, partition.cell_count, 1), areas)
    np.testing.assert_allclose(found.area_km2, found.cells @ areas)


def test_areas_of_known_outlines():
    octant = np.array([[0.0, 0.0], [0.0, 90.0], [90.0, 0.0]])
    assert polygon_area_km2(octant) == pytest.approx(EARTH_KM2 / 8)
    assert polygon_area_km2(octant[::-1]) == pytest.approx(EARTH_KM2 * 7 / 8)  # the other side of the outline
    half = np.array([[0.0, x] for x in range(-180, 180, 45)])
    assert polygon_area_km2(half) == pytest.approx(EARTH_KM2 / 2)
    lat, lon = destination(
        -17.0, 179.99, -np.arange(0, 360, 0.5), 100.0
    )  # over the antimeridian, anticlockwise
    cap = 2 * math.pi * EARTH_RADIUS_KM**2 * (1 - math.cos(100 / EARTH_RADIUS_KM))
    assert polygon_area_km2(np.stack([lat, lon], axis=-1)) == pytest.approx(cap, rel=1e-4)
    street = np.array([[48.0, 11.0], [48.0, 11.001], [48.001, 11.001], [48.001, 11.0]])
    flat = (math.radians(0.001) * EARTH_RADIUS_KM) ** 2 * math.cos(math.radians(48.0005))
    assert polygon_area_km2(street) == pytest.approx(flat, rel=1e-6)
    outline_of_the_map = np.array([[-90.0, -180.0], [-90.0, 180.0], [90.0, 180.0], [90.0, -180.0]])
    assert polygon_area_km2(outline_of_the_map) == pytest.approx(EARTH_KM2)
    with pytest.raises(ValueError, match="three vertices"):
        polygon_area_km2(octant[:2])


# Abstention


def test_abstaining_silences_the_answers_that_are_not_sure():
    partition = nested(*photos())[1]
    answers = ClassLocalizer(partition).locate(probabilities(30, partition.cell_count, 0))
    threshold = float(np.sort(answers.confidence)[15])  # one answer is exactly as sure, and is kept
    found = abstain_below(answers, threshold)
    silent = answers.confidence < threshold
    assert 5 < silent.sum() < 25
    np.testing.assert_array_equal(found.abstained, silent)
    np.testing.assert_array_equal(found.latitude[~silent], answers.latitude[~silent])
    assert (found.confidence[silent] == 0).all()
    assert np.isnan(found.alternatives.weight[silent]).all()
    np.testing.assert_array_equal(found.alternatives.weight[~silent], answers.alternatives.weight[~silent])
    np.testing.assert_array_equal(found.cells.cell, answers.cells.cell)
    assert found.confidence.dtype == np.float32
    assert abstain_below(found, 0.0).abstained.sum() == silent.sum()
    assert abstain_below(answers, np.inf).abstained.all()


# Risk and coverage


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1.0, 30.0, np.inf])), min_size=1, max_size=6))
@settings(deadline=None)
def test_the_curve_is_the_mean_over_all_orders_of_equals(photos_seen):
    sure, error = (np.array(x, dtype=float) for x in zip(*photos_seen, strict=True))
    shown = np.where(np.isinf(error), -1, sure)  # no answer comes last
    curves = []
    for order in itertools.permutations(range(len(sure))):
        if all(shown[a] >= shown[b] for a, b in itertools.pairwise(order)):
            wrong = error[list(order)] > 25
            curves.append(np.cumsum(wrong) / np.arange(1, len(sure) + 1))
    curve = risk_coverage(sure, error, 25.0)
    np.testing.assert_allclose(curve["risk"], np.mean(curves, axis=0))
    assert area_under_risk_coverage(curve) == pytest.approx(np.mean(curves))
    assert curve["coverage"].iloc[-1] == 1
    assert best_possible_area(error, 25.0) <= area_under_risk_coverage(curve) + 1e-12


def test_known_areas_under_the_curve():
    error = np.array([1.0, 1.0, 99.0, np.nan])
    assert best_possible_area(error, 25.0) == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert area_under_risk_coverage(risk_coverage([1, 1, 1, 1], error, 25.0)) == pytest.approx(
        (1 / 3 + 1 / 3 + 1 / 3 + 2 / 4) / 4
    )
    worst = risk_coverage([0.1, 0.2, 0.9, 1.0], error, 25.0)
    assert worst["risk"].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4])
    assert worst["threshold"].tolist() == [0.9, 0.2, 0.1, -np.inf]
    with pytest.raises(ValueError, match="at least one photo"):
        risk_coverage([], [], 25.0)
