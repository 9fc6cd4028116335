"""Localizers over several partitions, and for a wanted level, against loops over the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.by_class.overlay import OverlayLocalizer
from geoloc.localizers.by_class.product import HierarchyLocalizer
from geoloc.localizers.by_class.within_level import WithinLevelLocalizer
from geoloc.sphere import LEVELS_KM, destination, distance_km, group_means
from tests.unit.localizer_world import nested, photos, probabilities, softmax

LAT, LON = photos()
PARTITIONS = nested(LAT, LON)


class Nested:
    """A partition with given parents in a coarser one."""

    kind = "s2"

    def __init__(self, cells, parents=None):
        self.cell_count, self.parents = cells, parents

    def centres(self):
        return np.stack([np.arange(self.cell_count) * 1.0, np.zeros(self.cell_count)], axis=-1)

    centroids = centres

    def parent_cells(self, coarser):
        return self.parents


def test_a_hierarchy_answers_with_the_largest_product_of_probabilities():
    given_p = [probabilities(30, partition.cell_count, seed) for seed, partition in enumerate(PARTITIONS)]
    localizer = HierarchyLocalizer(PARTITIONS)
    fine, coarse, middle = PARTITIONS
    assert localizer.finest is fine
    assert localizer.orphans == 0
    up, further = fine.parent_cells(middle), fine.parent_cells(coarse)
    combined = localizer.combine(given_p)
    for row in range(30):
        products = [
            float(given_p[0][row, c]) * float(given_p[1][row, further[c]]) * float(given_p[2][row, up[c]])
            for c in range(fine.cell_count)
        ]
        np.testing.assert_allclose(combined[row], np.array(products) / sum(products), rtol=1e-5)
        answer = localizer.locate([p[row : row + 1] for p in given_p])
        assert answer.cells.cell[0, 0] == int(np.argmax(products))
        np.testing.assert_array_equal(
            [answer.latitude[0], answer.longitude[0]], fine.centroids()[int(np.argmax(products))]
        )
    # It matters: the finest partition by itself says something else somewhere.
    alone = ClassLocalizer(fine).locate(given_p[0])
    assert (alone.cells.cell[:, 0] != localizer.locate(given_p).cells.cell[:, 0]).any()


def test_two_negative_logits_do_not_make_a_large_product():
    fine, coarse = Nested(3, np.array([0, 0, 1])), Nested(2)
    fine_logits, coarse_logits = np.array([[2.0, 0.0, -5.0]]), np.array([[1.0, -5.0]])
    naive = fine_logits[0] * coarse_logits[0][fine.parents]
    assert int(np.argmax(naive)) == 2  # -5 times -5: what two public code bases answer
    localizer = HierarchyLocalizer([fine, coarse])
    with pytest.raises(ValueError, match="apply a softmax to logits"):
        localizer.locate([fine_logits, coarse_logits])
    found = localizer.locate([softmax(fine_logits), softmax(coarse_logits)])
    assert found.cells.cell[0, 0] == 0
    assert found.cells.probability[0, 2] < 1e-3


def test_a_cell_in_no_coarser_cell_is_counted_and_never_answered():
    fine = Nested(3, np.array([-1, 0, 1]))
    localizer = HierarchyLocalizer([Nested(2), fine])
    assert localizer.orphans == 1
    assert "1 finest cells lie in no coarser one" in repr(localizer)
    # All the probability is where no answer can be: the rest is scaled up, without a NaN.
    combined = localizer.combine([np.array([[0.5, 0.5]]), np.array([[1.0, 0.0, 0.0]])])
    np.testing.assert_allclose(combined, [[0, 0.5, 0.5]])
    with pytest.raises(ValueError, match="do not nest"):
        HierarchyLocalizer([Nested(2), Nested(3, np.array([-1, -1, -1]))])
    with pytest.raises(ValueError, match="OverlayLocalizer"):
        HierarchyLocalizer([Nested(2), Nested(3, None)])
    with pytest.raises(ValueError, match="at least 2 partitions, got 1"):
        HierarchyLocalizer([Nested(2)])


def test_an_underflowed_probability_does_not_veto():
    localizer = HierarchyLocalizer([Nested(2), Nested(3, np.array([0, 0, 1]))])
    found = localizer.combine([np.array([[0.0, 1.0]]), np.array([[0.6, 0.4, 0.0]])])
    assert np.isfinite(found).all()
    assert found.argmax() in (0, 2)


@pytest.mark.parametrize("kind", [HierarchyLocalizer, OverlayLocalizer])
def test_several_partitions_need_probabilities_of_each_for_the_same_photos(kind):
    localizer = kind(PARTITIONS[:2])
    if kind is OverlayLocalizer:
        with pytest.raises(ValueError, match="call fit"):
            localizer.locate([])
        localizer.fit(LAT, LON)
    counts = [p.cell_count for p in PARTITIONS]
    one, two = probabilities(4, counts[0], 0), probabilities(4, counts[1], 1)
    with pytest.raises(ValueError, match="for 2 partitions, got 1"):
        localizer.locate([one])
    with pytest.raises(ValueError, match=r"the same photos in every partition, got \[3, 4\]"):
        localizer.locate([one, two[:3]])
    with pytest.raises(ValueError, match="must have shape"):
        localizer.locate([two, one])
    one[1], two[3] = np.nan, np.nan
    found = localizer.locate([one, two])
    assert found.abstained.tolist() == [False, True, False, True]
    assert found.confidence[[1, 3]].tolist() == [0, 0]
    assert np.isnan(found.alternatives.latitude[[1, 3]]).all()
    assert len(localizer.locate([one[:0], two[:0]])) == 0


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_an_overlay_is_a_loop_over_places_that_hold_photos(seed, alternatives):
    lat, lon = photos(120, seed)
    # Not nested: the second is cut by photos that lie elsewhere.
    shifted = nested(*destination(lat, lon, 45.0, 900.0))[2]
    partitions = [nested(lat, lon)[2], shifted]
    localizer = OverlayLocalizer(partitions, alternatives=alternatives)
    assigned = np.stack([p.assign(lat, lon) for p in partitions], axis=1)
    held = sorted({tuple(int(c) for c in row) for row in assigned if (row >= 0).all()})
    if not held:
        with pytest.raises(ValueError, match="no overlay cell is left"):
            localizer.fit(lat, lon)
        return
    localizer.fit(lat, lon)
    assert [tuple(row) for row in localizer.cells.tolist()] == held
    assert localizer.left_out == sum((row < 0).any() for row in assigned)
    assert localizer.photo_counts.sum() + localizer.left_out == len(lat)
    p = [probabilities(3, partition.cell_count, seed + i) for i, partition in enumerate(partitions)]
    found = localizer.locate(p)
    for row in range(3):
        scores = [math.log(p[0][row, a]) + math.log(p[1][row, b]) for a, b in held]
        np.testing.assert_allclose(localizer.scores(p)[row], scores, rtol=1e-5)
        best = max(range(len(held)), key=lambda k: scores[k])
        inside = (assigned == held[best]).all(axis=1)
        expected = group_means(lat, lon, np.where(inside, 0, -1), 1)
        assert distance_km(*expected, found.latitude[row], found.longitude[row])[0] < 1e-6
        total = sum(math.exp(s) for s in scores)
        assert found.confidence[row] == pytest.approx(math.exp(scores[best]) / total, rel=1e-4)
        weight = found.alternatives.weight[row]
        assert (np.diff(weight) <= 0).all()
        assert len(weight) == min(alternatives, len(held))


def test_an_overlay_is_finer_than_its_partitions():
    class Halves:
        kind, cell_count = "halves", 2

        def __init__(self, axis):
            self.axis = axis

        def assign(self, latitude, longitude):
            return (np.asarray((latitude, longitude)[self.axis]) > 0).astype(np.int32)

    localizer = OverlayLocalizer([Halves(0), Halves(1)]).fit([10, 10, -10, -30], [20, -20, 20, 20])
    found = localizer.locate([np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])])
    assert localizer.cells.tolist() == [[0, 1], [1, 0], [1, 1]]  # no photo in the south-west: no candidate
    np.testing.assert_allclose([found.latitude[0], found.longitude[0]], [-20, 20])
    assert found.confidence[0] == pytest.approx(0.72 / (0.72 + 0.02 + 0.08))
    assert found.cells is None
    assert localizer.name == "[M]2+2C"


def test_photos_that_cancel_out_are_stood_for_by_the_first():
    class Two:
        kind, cell_count = "two", 2

        def assign(self, latitude, longitude):
            lat = np.asarray(latitude)
            return np.select([lat > 80, lat < -80], [-1, 0], 1).astype(np.int32)

    localizer = OverlayLocalizer([Two(), Two()]).fit([85, -85, 10, -10], [0, 0, 20, -160])
    np.testing.assert_allclose(localizer.points(), [[-85, 0], [10, 20]])
    assert localizer.left_out == 1


@pytest.mark.parametrize("km", LEVELS_KM.values())
def test_the_point_for_a_level_is_that_of_brute_force(km):
    partition = PARTITIONS[2]
    p = probabilities(12, partition.cell_count, 5)
    localizer = WithinLevelLocalizer(partition, km, candidates_per_cell=5, photos_per_cell=10_000, seed=3)
    localizer.fit(LAT, LON)
    candidates = localizer.candidates()
    np.testing.assert_allclose(candidates[: partition.cell_count], partition.centroids(), atol=1e-9)
    cells = partition.assign(LAT, LON)
    kept = cells >= 0
    near = distance_km(candidates[:, 0, None], candidates[:, 1, None], LAT[kept], LON[kept]) <= km
    sizes = np.bincount(cells[kept], minlength=partition.cell_count)
    for row in range(12):
        # Each photo of a cell carries the same part of the cell's probability.
        expected = near @ (p[row].astype(float)[cells[kept]] / sizes[cells[kept]])
        np.testing.assert_allclose(localizer.within(p)[row], expected, atol=1e-9)
        found = localizer.locate(p[row : row + 1])
        assert found.confidence[0] == pytest.approx(expected.max(), abs=1e-6)
        chosen = np.flatnonzero((candidates == [found.latitude[0], found.longitude[0]]).all(axis=1))
        assert expected[chosen].max() >= expected.max() - 2e-6
        assert (np.diff(found.alternatives.weight[0]) <= 0).all()
    # No other candidate does better than what it says of itself: it beats the argmax at its own level.
    answered = ClassLocalizer(partition).locate(p)
    rows = np.arange(12)
    by_class = localizer.within(p)[rows, answered.cells.cell[:, 0]]
    assert (localizer.locate(p).confidence >= by_class - 2e-6).all()


def test_which_street_and_which_country_get_different_answers():
    class Three:
        """A town alone, and two that are 400 km apart from each other."""

        kind, cell_count = "three", 3

        def assign(self, latitude, longitude):
            return np.select([np.asarray(longitude) < -50, np.asarray(longitude) < 2], [0, 1], 2).astype(
                np.int32
            )

        def centroids(self):
            return np.array([[40.0, -100.0], [48.0, 0.0], [48.0, 5.0]])

    lat = np.array([40.0, 40.0, 48.0, 48.3, 48.0, 48.3])
    lon = np.array([-100.0, -100.0, 0.0, 0.0, 5.0, 5.0])
    p = np.array([[0.4, 0.35, 0.25]])
    street = WithinLevelLocalizer(Three(), 1.0).fit(lat, lon).locate(p)
    country = WithinLevelLocalizer(Three(), 750.0).fit(lat, lon).locate(p)
    assert (street.latitude[0], street.longitude[0]) == (40.0, -100.0)
    assert street.confidence[0] == pytest.approx(0.4)
    # Two towns together are likelier than the one: the answer is in the likelier of them.
    assert country.confidence[0] == pytest.approx(0.6)
    assert distance_km(country.latitude[0], country.longitude[0], 48.15, 0.0) < 1
    assert country.cells.cell[0].tolist() == [0, 1, 2]


def test_of_equal_points_the_centroid_of_the_likeliest_cell_wins():
    partition = PARTITIONS[2]
    p = np.zeros((1, partition.cell_count), dtype=np.float32)
    p[0, 5], p[0, 6] = 0.5, 0.5
    found = WithinLevelLocalizer(partition, 20_100.0).fit(LAT, LON).locate(p)  # every point has probability 1
    np.testing.assert_allclose([found.latitude[0], found.longitude[0]], partition.centroids()[5], atol=1e-9)
    assert found.confidence[0] == pytest.approx(1)


def test_the_sample_of_photos_is_the_same_for_the_same_seed_and_close_to_all_of_them():
    partition = PARTITIONS[1]
    p = probabilities(5, partition.cell_count, 1)

    def made(seed, photos_per_cell=60):
        return WithinLevelLocalizer(partition, 750.0, 0, photos_per_cell, seed).fit(LAT, LON).within(p)

    np.testing.assert_array_equal(made(1), made(1))
    assert (made(1) != made(2)).any()
    assert np.abs(made(1) - made(0, 10_000)).max() < 0.15


def test_a_cell_without_photos_and_an_unread_photo():
    partition = PARTITIONS[2]
    few = partition.assign(LAT, LON) < 3  # cells 0 to 2 and the photos in none
    localizer = WithinLevelLocalizer(partition, 25.0).fit(LAT[few], LON[few])
    p = np.zeros((2, partition.cell_count))
    p[0, 7], p[1] = 1.0, np.nan
    found = localizer.locate(p)
    np.testing.assert_allclose([found.latitude[0], found.longitude[0]], partition.centroids()[7], atol=1e-9)
    assert found.abstained.tolist() == [False, True]
    assert found.confidence.tolist() == [1.0, 0.0]
    assert np.isnan(localizer.within(p)[1]).all()
    assert found.cells.cell[1].tolist() == [-1] * 5


def test_settings_of_a_level_are_checked():
    for wrong, text in (
        ({"km": 0}, "km must be above 0"),
        ({"km": 1, "photos_per_cell": 0}, "photos_per_cell must be at least 1, got 0"),
        ({"km": 1, "candidates_per_cell": -1}, "candidates_per_cell must be at least 0, got -1"),
        ({"km": 1, "alternatives": 0}, "alternatives must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            WithinLevelLocalizer(PARTITIONS[2], **wrong)
    localizer = WithinLevelLocalizer(PARTITIONS[2], 25)
    with pytest.raises(ValueError, match="call fit"):
        localizer.locate(probabilities(1, PARTITIONS[2].cell_count, 0))
    assert localizer.name == f"[L]{PARTITIONS[2].cell_count}C for 25 km"
    assert "within 25 km" in repr(localizer)


def test_how_much_is_worked_on_at_once_changes_nothing(monkeypatch):
    p = [probabilities(9, partition.cell_count, i) for i, partition in enumerate(PARTITIONS)]

    def answered():
        by_overlay = OverlayLocalizer(PARTITIONS).fit(LAT, LON).locate(p)
        by_level = WithinLevelLocalizer(PARTITIONS[0], 200.0).fit(LAT, LON).locate(p[0])
        return [x for found in (by_overlay, by_level) for x in (found.latitude, found.alternatives.weight)]

    whole = answered()
    for module in ("overlay", "within_level"):
        monkeypatch.setattr(f"geoloc.localizers.by_class.{module}._CHUNK", 700)
    for one, other in zip(whole, answered(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_overlay_of_nested_partitions_is_their_hierarchy():
    p = [probabilities(40, partition.cell_count, 7 + i) for i, partition in enumerate(PARTITIONS)]
    by_product = HierarchyLocalizer(PARTITIONS).locate(p)
    by_overlay = OverlayLocalizer(PARTITIONS).fit(LAT, LON).locate(p)
    np.testing.assert_allclose(by_overlay.confidence, by_product.confidence, rtol=1e-4)
    apart = distance_km(by_overlay.latitude, by_overlay.longitude, by_product.latitude, by_product.longitude)
    assert apart.max() < 1e-6
