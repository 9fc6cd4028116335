"""Measures against what scikit-learn, the standard library and exact theorems say of the same numbers."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import top_k_accuracy_score
from sklearn.metrics.pairwise import haversine_distances

from geoloc.evaluation.measures.accuracy import accuracy, error_km, summarise_errors
from geoloc.evaluation.measures.calibration import calibration_table
from geoloc.evaluation.measures.top_k import top_k_accuracy
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.partitions.balance import effective_classes
from geoloc.sphere import EARTH_RADIUS_KM, LEVELS_KM
from tests.unit.localizer_world import softmax


class Lattice:
    """Twelve cells whose points are 3000 km or more apart: within 25 km of the truth is the true cell and no other."""

    kind, cell_count = "lattice", 12

    def centroids(self):
        return np.array([[lat, lon] for lat in (-30.0, 0.0, 30.0) for lon in (-135.0, -45.0, 45.0, 135.0)])

    centres = centroids


@pytest.mark.parametrize("seed", [0, 1])
def test_top_k_accuracy_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    scores, truth = softmax(rng.normal(0, 2, (300, 12))), rng.integers(0, 12, 300)
    found = ClassLocalizer(Lattice(), alternatives=5).locate(scores)
    at = Lattice().centroids()[truth]
    asked = pd.DataFrame(
        {
            "photo_id": [str(i) for i in range(300)],
            "latitude": at[:, 0],
            "longitude": at[:, 1],
            "photographer": rng.integers(0, 9, 300).astype(str),
        }
    )
    table = top_k_accuracy(found.alternatives, asked, ks=(1, 2, 5))
    for k in (1, 2, 5):
        expected = top_k_accuracy_score(truth, scores, k=k, labels=np.arange(12))
        rows = table[
            (table["k"] == k) & table["level"].isin(["street", "city", "region", "country", "continent"])
        ]
        assert rows["accuracy"].tolist() == pytest.approx([expected] * 5)


@given(
    st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=2, max_size=80).filter(
        lambda seen: len({right for _, right in seen}) == 2
    ),
    st.sampled_from([2, 4, 8]),
)
@settings(deadline=None)
def test_the_calibration_table_is_scikit_learns_curve(seen, bins):
    sure, right = np.array([s / 64 for s, _ in seen]), np.array([r for _, r in seen])
    table = calibration_table(sure, right, bins)
    held = table[table["n"] > 0]
    was_right, was_sure = calibration_curve(right, sure, n_bins=bins, strategy="uniform")
    np.testing.assert_allclose(held["accuracy"], was_right)
    np.testing.assert_allclose(held["confidence"], was_sure)


PLACE = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(st.lists(st.tuples(PLACE, PLACE), min_size=1, max_size=12))
@settings(deadline=None)
def test_mean_and_median_errors_are_the_standard_librarys_of_scikit_learns_distances(pairs):
    truth, answer = (np.array(places) for places in zip(*pairs, strict=True))
    km = [
        float(haversine_distances([np.radians(a)], [np.radians(b)])[0, 0]) * EARTH_RADIUS_KM
        for a, b in zip(truth, answer, strict=True)
    ]
    errors = error_km(truth[:, 0], truth[:, 1], answer[:, 0], answer[:, 1])
    found = summarise_errors(errors)
    # The haversine loses digits near the antipode, where half a millimetre becomes some metres.
    assert found.mean_km == pytest.approx(statistics.fmean(km), abs=0.05)
    assert found.median_km == pytest.approx(statistics.median(km), abs=0.05)
    assert found.median_answered_km == found.median_km
    assert (found.answered, found.abstained, found.unreadable) == (len(km), 0, 0)
    for share, limit in zip(accuracy(errors), LEVELS_KM.values(), strict=True):
        hits = round(share * len(km))
        assert sum(d <= limit - 0.05 for d in km) <= hits <= sum(d <= limit + 0.05 for d in km)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_effective_classes_are_scipys_entropy(counts):
    assert effective_classes(counts) == pytest.approx(math.exp(stats.entropy(counts)))


@given(
    st.integers(0, 10_000),
    st.integers(5, 40),
    st.sampled_from([0.3, 0.5, 0.8, 0.9]),
    st.sampled_from(["aps", "lac"]),
)
@settings(max_examples=25, deadline=None)
def test_each_photo_in_turn_left_out_of_calibration_is_covered_as_often_as_promised(seed, n, coverage, score):
    """The theorem behind conformal prediction, without chance: of n + 1 photos, each tried with the n others as
    validation, at least ceil((n + 1) coverage) are in their regions (Vovk et al. 2005, proposition 2.3)."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, rng.uniform(0.2, 4), (n + 1, 5)))
    truth = rng.integers(0, 5, n + 1)  # by a classifier that knows nothing of them
    covered = 0
    for left in range(n + 1):
        others = np.arange(n + 1) != left
        regions = ConformalRegions(coverage, score).fit(p[others], truth[others])
        covered += int(regions.predict(p[left : left + 1]).covered(truth[left : left + 1])[0])
    assert covered >= math.ceil((n + 1) * coverage - 1e-9)
    if score == "lac":  # and no more, but for regions that hold one cell only because none may be empty
        forced = 0
        for left in range(n + 1):
            others = np.arange(n + 1) != left
            threshold = ConformalRegions(coverage, score).fit(p[others], truth[others]).threshold
            right = p[left].argmax() == truth[left]
            forced += int(right and 1 - p[left, truth[left]] > threshold + 1e-9)
        assert covered - forced == math.ceil((n + 1) * coverage - 1e-9)
