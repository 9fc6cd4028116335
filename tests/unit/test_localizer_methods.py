"""The localizers that settings ask for, and what validation photos teach them."""

from __future__ import annotations

import numpy as np
import pytest

from geoloc.files import read_json
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.by_class.methods import class_methods
from geoloc.localizers.by_class.overlay import OverlayLocalizer
from geoloc.localizers.by_class.product import HierarchyLocalizer
from geoloc.localizers.by_class.within_level import WithinLevelLocalizer
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.localizers.confidence.kept import cell_facts
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.localizers.settings import LocalizerSettings
from geoloc.partitions.kmeans import KMeansPartition
from geoloc.partitions.settings import KMeansSettings
from geoloc.settings import SettingsError
from geoloc.sphere import LEVELS_KM
from tests.unit.localizer_world import nested, photos, probabilities

LAT, LON = photos()
PARTITIONS = dict(zip(("fine", "coarse", "middle"), nested(LAT, LON), strict=True))
ALL = LocalizerSettings(
    combine=("overlay", "product"), within_levels=True, calibrate=True, coverages=(0.5, 0.9)
)


def given(by_name: dict[str, np.ndarray]):
    """What predicts: the probabilities of photos by position."""
    return lambda rows: {name: p[rows] for name, p in by_name.items()}


def facts_of(made: Calibration, p: dict[str, np.ndarray], lat: np.ndarray, lon: np.ndarray):
    truth = {name: one.assign(lat, lon) for name, one in PARTITIONS.items()}
    areas = {name: one.areas_km2() for name, one in PARTITIONS.items()}
    return cell_facts(made, p, made.scaled(p), truth, areas)


def said(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {
        name: probabilities(count, p.cell_count, seed + i) for i, (name, p) in enumerate(PARTITIONS.items())
    }


def test_defaults_are_one_localizer_a_partition():
    made = class_methods(PARTITIONS, LocalizerSettings(), LAT, LON, model_name="M")
    assert [method.partitions for method in made] == [("fine",), ("coarse",), ("middle",)]
    assert all(type(method.localizer) is ClassLocalizer for method in made)


def test_each_method_answers_as_its_localizer_does_by_itself():
    made = class_methods(PARTITIONS, ALL, LAT, LON, model_name="M", seed=3)
    fine, every = PARTITIONS["fine"], list(PARTITIONS.values())
    expected = [
        *(ClassLocalizer(p, model_name="M") for p in every),
        HierarchyLocalizer(every),
        OverlayLocalizer(every).fit(LAT, LON),
        *(WithinLevelLocalizer(fine, km, seed=3, model_name="M").fit(LAT, LON) for km in LEVELS_KM.values()),
    ]
    assert [method.localizer.name for method in made] == [one.name for one in expected]
    assert len({method.localizer.name for method in made}) == 10
    p = said(40)
    own = [*p.values(), list(p.values()), list(p.values()), *[p["fine"]] * 5]
    for method, localizer, given in zip(made, expected, own, strict=True):
        answers, alone = method.locate(p), localizer.locate(given)
        np.testing.assert_array_equal(answers.latitude, alone.latitude)
        np.testing.assert_array_equal(answers.longitude, alone.longitude)


def test_the_product_is_made_for_each_kind_of_answer():
    settings = LocalizerSettings(answers=("centroid", "centre"), combine=("product",))
    names = [method.localizer.name for method in class_methods(PARTITIONS, settings, LAT, LON)]
    assert len(set(names)) == len(names) == 8


def test_partitions_that_do_not_nest_have_no_product():
    loose = {name: KMeansPartition(KMeansSettings(cells=n)).fit(LAT, LON) for name, n in (("a", 5), ("b", 9))}
    with pytest.raises(
        SettingsError, match=r"localizers\.combine product cannot be made of the partitions a, b"
    ):
        class_methods(loose, LocalizerSettings(combine=("product",)), LAT, LON)
    class_methods(loose, LocalizerSettings(combine=("overlay",)), LAT, LON)


def test_a_calibration_is_of_scaled_probabilities_and_says_what_it_holds(tmp_path):
    validation, lat, lon = said(200), LAT[:200], LON[:200]
    made = Calibration.fit(PARTITIONS, given(validation), lat, lon, ALL)
    queries = said(100, seed=50)
    scaled = made.scaled(queries)
    table = made.region_table(facts_of(made, queries, LAT[200:300], LON[200:300]))
    assert list(table["partition"]) == ["fine", "fine", "coarse", "coarse", "middle", "middle"]
    for name, partition in PARTITIONS.items():
        truth = partition.assign(lat, lon)
        alone = TemperatureScaling().fit(validation[name], truth)
        np.testing.assert_array_equal(scaled[name], alone.predict(queries[name]))
        assert TemperatureScaling.load(
            tmp_path_of(made, tmp_path, f"temperature-{name}.json")
        ).temperature == (alone.temperature)
        region = ConformalRegions(0.9).fit(alone.predict(validation[name]), truth)
        assert read_json(tmp_path / f"conformal-{name}-0.9.json")["threshold"] == region.threshold
        found = region.predict(scaled[name], partition.areas_km2())
        row = table[(table["partition"] == name) & (table["coverage"] == 0.9)].iloc[0]
        assert row["covered"] == found.covered(partition.assign(LAT[200:300], LON[200:300])).mean()
        assert row["median_area_km2"] == pytest.approx(np.median(found.area_km2))
        assert (row["n"], row["fitted_on"]) == (100, 200)


def tmp_path_of(made: Calibration, folder, name: str):
    made.save(folder)
    return folder / name


def test_without_calibration_probabilities_stay_and_nothing_is_written(tmp_path):
    assert not Calibration.wanted(LocalizerSettings())
    p = said(10)
    assert all(value is p[name] for name, value in Calibration.none().scaled(p).items())
    assert Calibration.none().save(tmp_path) == []
    only = Calibration.fit(
        PARTITIONS, given(said(50)), LAT[:50], LON[:50], LocalizerSettings(coverages=(0.5,))
    )
    assert not only.temperatures
    assert only.regions["fine"][0].threshold == (
        ConformalRegions(0.5).fit(said(50)["fine"], PARTITIONS["fine"].assign(LAT[:50], LON[:50])).threshold
    )


def test_no_validation_photo_is_an_error_that_names_the_setting():
    with pytest.raises(SettingsError, match=r"localizers\.coverages needs photos in the validation split"):
        Calibration.fit(PARTITIONS, given(said(0)), [], [], LocalizerSettings(coverages=(0.5,)))
    unread = {name: np.full_like(p, np.nan) for name, p in said(5).items()}
    with pytest.raises(
        SettingsError, match=r"localizers\.calibrate cannot be done for partition fine: .* none"
    ):
        Calibration.fit(PARTITIONS, given(unread), LAT[:5], LON[:5], LocalizerSettings(calibrate=True))
