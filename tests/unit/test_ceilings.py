"""Ceilings compared on the same photos: against loops, the partition's own ceiling and intervals known beforehand."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.partition_panels import partition_panels
from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.ceilings import ceiling_differences, ceiling_errors_km
from geoloc.partitions import CitiesSettings, KMeansSettings, S2Settings, partition_of
from geoloc.sphere import LEVELS_KM, distance_km
from tests.unit.partition_points import skewed_points

FIT_ON, MEASURE_ON = skewed_points(4000, 1), skewed_points(900, 2)


@pytest.mark.parametrize("answer", ["centroid", "centre"])
def test_errors_are_to_the_answer_of_the_photos_own_cell(answer):
    fitted = partition_of(S2Settings(max_photos=150, min_photos=12)).fit(*FIT_ON)
    errors = ceiling_errors_km(fitted, *MEASURE_ON, answer)
    cells = fitted.assign(*MEASURE_ON)
    assert 0 < (cells < 0).sum() < 900
    for lat, lon, cell, error in zip(*MEASURE_ON, cells, errors, strict=True):
        expected = np.inf if cell < 0 else float(distance_km(lat, lon, *fitted.answers(answer)[cell]))
        assert error == pytest.approx(expected)
    shares = within(errors).mean(axis=0)
    assert shares == pytest.approx(list(fitted.ceiling(*MEASURE_ON, answer=answer).values()))


@pytest.mark.slow
def test_differences_are_those_of_the_ceilings_and_intervals_hold_them():
    kinds = {
        "s2": S2Settings(max_photos=150, min_photos=12),
        "kmeans": KMeansSettings(cells=60, min_photos=12),
        "cities": CitiesSettings(radius_km=50.0, min_photos=1),
    }
    fitted = {name: partition_of(settings).fit(*FIT_ON) for name, settings in kinds.items()}
    hits = {name: within(ceiling_errors_km(one, *MEASURE_ON)) for name, one in fitted.items()}
    clusters = photographer_clusters(np.random.default_rng(0).integers(0, 40, 900).astype(str))
    found = ceiling_differences(hits, "s2", clusters)
    assert list(found) == ["kmeans", "cities"]
    base = list(fitted["s2"].ceiling(*MEASURE_ON).values())
    for name, one in found.items():
        expected = np.array(list(fitted[name].ceiling(*MEASURE_ON).values())) - base
        np.testing.assert_allclose(one.difference, expected, atol=1e-12)
        assert one.difference.shape == (len(LEVELS_KM),)
        assert (one.low <= one.difference + 1e-12).all()
        assert (one.difference <= one.high + 1e-12).all()
    alone = ceiling_differences({k: hits[k] for k in ("s2", "cities")}, "s2", clusters)
    np.testing.assert_allclose(
        alone["cities"].low, found["cities"].low
    )  # what else is compared changes nothing


def test_two_photographers_who_disagree_leave_it_all_open_however_many_photos_they_have():
    """400 photos, but two photographers."""
    left, right = np.repeat([True, False], 200)[:, None], np.repeat([False, True], 200)[:, None]
    clusters = np.repeat([0, 1], 200)
    found = ceiling_differences({"a": left, "b": right}, "a", clusters)["b"]
    assert found.difference[0] == 0
    assert found.low[0] < -0.9
    assert found.high[0] > 0.9
    # The same photos by 400 photographers: a mean of 400 values of -1 or 1, so 2 / sqrt(400) either way.
    many = ceiling_differences({"a": left, "b": right}, "a", np.arange(400))["b"]
    assert many.high[0] == pytest.approx(1.96 / 20, rel=0.1)
    assert many.low[0] == pytest.approx(-1.96 / 20, rel=0.1)


def test_equal_photos_cancel_out_because_the_difference_is_paired():
    hits = np.random.default_rng(0).random((300, 2)) < 0.5
    better = hits.copy()
    better[:, 0] = True
    clusters = np.arange(300) % 30
    found = ceiling_differences({"a": hits, "twin": hits.copy(), "b": better}, "a", clusters)
    twin = found["twin"]
    assert twin.difference.tolist() == [0.0, 0.0]
    assert (twin.low > -0.2).all()  # not [0, 0]: that 300 photos never differ is not that none does
    assert (twin.low < 0).all()
    assert (twin.high > 0).all()
    assert found["b"].low[0] > 0.3
    assert (found["b"].low[1], found["b"].high[1]) == (twin.low[1], twin.high[1])


def test_what_cannot_be_compared():
    hits = np.ones((4, 1), dtype=bool)
    with pytest.raises(ValueError, match="base must be one of a; got 'b'"):
        ceiling_differences({"a": hits}, "b", [0, 1, 2, 3])
    with pytest.raises(ValueError, match="of the same photos, got 3, 4"):
        ceiling_differences({"a": hits, "b": hits[:3]}, "a", [0, 1, 2, 3])
    assert ceiling_differences({"a": hits}, "a", [0, 1, 2, 3]) == {}


def test_panels_show_each_partition():
    kinds = {
        "s2": S2Settings(max_photos=400, min_photos=12),
        "kmeans": KMeansSettings(cells=20, min_photos=12),
        "more": KMeansSettings(cells=40, min_photos=12),
    }
    fitted = {name: partition_of(settings).fit(*FIT_ON) for name, settings in kinds.items()}
    data = partition_panels(fitted)
    three, two = (
        np.asarray(Image.open(io.BytesIO(x)).convert("RGB"))
        for x in (data, partition_panels({name: fitted[name] for name in ("s2", "kmeans")}))
    )
    assert three.shape[1] == two.shape[1]
    assert three.shape[0] > 1.5 * two.shape[0]  # a second row
    sea = np.array([0xF3, 0xF6, 0xF9])
    left, right = np.array_split(two[: two.shape[0] * 3 // 4], 2, axis=1)
    for panel in (left, right):  # cells cover much of either map
        assert (np.abs(panel.astype(int) - sea).sum(axis=2) > 60).mean() > 0.3
    with pytest.raises(ValueError, match="at least one partition, got none"):
        partition_panels({})
