"""The suites under expectations/: good data pass, and each planted fault is found by its rule and no other.

All tests that run Great Expectations are here: importing it takes more than 5 s.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import s2sphere

from geoloc.photos.settings import SplitSettings
from geoloc.photos.split_checks import CheckResult, check_splits
from orchestration.quality.frames import (
    QualityError,
    SuiteResult,
    catalog_frame,
    embeddings_frame,
    pairs_frame,
    partition_frame,
    probabilities_frame,
    run_suite,
    splits_frame,
)
from tests.data.quality_frames import (
    FakePartition,
    good_catalog,
    good_checks,
    good_pairs,
    good_splits,
    good_vectors,
)

FOLDER = Path(__file__).parents[2] / "expectations"
SUITES = ("catalog", "splits", "pairs", "partition", "embeddings", "class_probabilities")
Rule = tuple[str, str]  # expectation type without "expect_", column


def run(suite: str, frame: pd.DataFrame, **parameters: Any) -> SuiteResult:
    return run_suite(FOLDER / f"{suite}.json", frame, parameters)


def run_on_changed(suite: str, frame: pd.DataFrame, folder: Path) -> SuiteResult:
    """Run the expectations on columns that differ from those of good data, which pass all: half of the time."""
    before = good_before(suite)
    if len(frame) != len(before):
        return run(suite, frame)
    changed = {column for column in frame if not frame[column].equals(before[column])}
    written = json.loads((FOLDER / f"{suite}.json").read_text())
    written["expectations"] = [
        one
        for one in written["expectations"]
        if "column" not in one["kwargs"]
        or one["kwargs"]["column"] in changed
        or "row_condition" in one["kwargs"]
    ]
    (folder / "changed.json").write_text(json.dumps(written))
    return run_suite(folder / "changed.json", frame, {})


def failures(result: SuiteResult) -> dict[Rule, str]:
    return {
        (row.expectation.removeprefix("expect_"), "+".join(row.columns)): row.severity
        for row in result.rows
        if not row.passed
    }


def put(frame: pd.DataFrame, rows: Any, column: str, value: Any) -> pd.DataFrame:
    changed = frame.copy()
    changed.loc[rows, column] = value
    return changed


def moved(frame: pd.DataFrame, rows: Any, latitude: float, longitude: float) -> pd.DataFrame:
    return put(put(frame, rows, "latitude", latitude), rows, "longitude", longitude)


UNIQUE, NULL, ALL_NULL, BETWEEN = (
    "column_values_to_be_unique",
    "column_values_to_not_be_null",
    "column_values_to_be_null",
    "column_values_to_be_between",
)
IN_SET, REGEX, ROWS = (
    "column_values_to_be_in_set",
    "column_values_to_match_regex",
    "table_row_count_to_be_between",
)

# Each fault: what is planted -> (how, the one rule that must fail, its severity). Row 1 is a stored photo.
CATALOG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Rule, str]] = {
    "no id": (lambda c: put(c, 1, "photo_id", None), (NULL, "photo_id"), "critical"),
    "empty id": (
        lambda c: put(c, 1, "photo_id", ""),
        ("column_value_lengths_to_be_between", "photo_id"),
        "critical",
    ),
    "doubled id": (lambda c: put(c, 1, "photo_id", "p007"), (UNIQUE, "photo_id"), "critical"),
    "no source": (lambda c: put(c, 1, "source", None), (NULL, "source"), "critical"),
    "no latitude": (lambda c: put(c, 1, "latitude", np.nan), (NULL, "latitude"), "critical"),
    "no longitude": (lambda c: put(c, 1, "longitude", np.nan), (NULL, "longitude"), "critical"),
    "latitude too large": (lambda c: put(c, 1, "latitude", 90.001), (BETWEEN, "latitude"), "critical"),
    "latitude infinite": (lambda c: put(c, 1, "latitude", -np.inf), (BETWEEN, "latitude"), "critical"),
    "longitude too small": (lambda c: put(c, 1, "longitude", -180.1), (BETWEEN, "longitude"), "critical"),
    "at (0, 0)": (
        lambda c: put(c, 1, ["latitude", "longitude"], -0.0),
        (IN_SET, "coordinates_are_zero"),
        "critical",
    ),
    "heading signed": (lambda c: put(c, 1, "heading", -90), (BETWEEN, "heading"), "critical"),
    "heading too large": (lambda c: put(c, 1, "heading", 361), (BETWEEN, "heading"), "critical"),
    "indoor in per cent": (lambda c: put(c, 1, "prob_indoor", 55), (BETWEEN, "prob_indoor"), "critical"),
    "taken too early": (
        lambda c: put(c, 1, "taken_at", pd.Timestamp("1800-01-01")),
        (BETWEEN, "taken_year"),
        "warning",
    ),
    "one posted before taken": (
        lambda c: put(c, 1, "posted_at", pd.Timestamp("2012-04-01")),
        (ALL_NULL, "posted_before_taken"),
        "info",
    ),
    "at sea": (
        # a photographer of its own: to go there takes no time then
        lambda c: put(moved(c, 1, 30.0, -45.0), 1, "photographer", "sailor"),
        (ALL_NULL, "at_sea"),
        "warning",
    ),
    "too fast": (lambda c: moved(c, 17, -41.3, 174.8), (ALL_NULL, "impossible_journey"), "warning"),
    "swapped": (
        lambda c: put(
            moved(c, 9, c["longitude"][9], c["latitude"][9]), 9, ["taken_at", "posted_at"], pd.NaT
        ).assign(album="one"),
        (ALL_NULL, "swapped_coordinates"),
        "warning",
    ),
    "near-duplicate elsewhere": (
        lambda c: put(put(moved(c, 1, 45.0, 7.0), 1, "photographer", "other"), 1, "phash", c["phash"][2]),
        (ALL_NULL, "duplicate_apart"),
        "info",
    ),
    "bytes without hash": (lambda c: put(c, 1, "sha256", None), (IN_SET, "storage"), "critical"),
    "hash without bytes": (lambda c: put(c, 0, "phash", "0" * 16), (IN_SET, "storage"), "critical"),
    "sha256 in capitals": (lambda c: put(c, 1, "sha256", "A" * 64), (REGEX, "sha256"), "critical"),
    "sha256 with a line end": (lambda c: put(c, 1, "sha256", "a" * 64 + "\n"), (REGEX, "sha256"), "critical"),
    "phash too short": (lambda c: put(c, 1, "phash", "abc"), (REGEX, "phash"), "critical"),
    "offset negative": (lambda c: put(c, 1, "offset", -1100), (BETWEEN, "offset"), "critical"),
    "no bytes": (lambda c: put(c, 1, "length", 0), (BETWEEN, "length"), "critical"),
    "overlap": (lambda c: put(c, 1, "length", 1101), (IN_SET, "bytes_overlap"), "critical"),
    "no width": (lambda c: put(c, 1, "width", 0), (BETWEEN, "width"), "critical"),
    "no height": (lambda c: put(c, 1, "height", -5), (BETWEEN, "height"), "critical"),
    "one photographer": (
        lambda c: c.assign(photographer="who"),
        ("column_unique_value_count_to_be_between", "photographer"),
        "warning",
    ),
    "photographers unknown": (
        lambda c: put(c, range(4), "photographer", None),
        (NULL, "photographer"),
        "warning",
    ),
    "same bytes twice": (lambda c: put(c, 1, "sha256", c["sha256"][2]), (UNIQUE, "sha256"), "info"),
    "licence unknown": (lambda c: put(c, 1, "licence", None), (NULL, "licence"), "info"),
}

SPLITS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Rule, str]] = {
    "on two sides": (
        lambda s: pd.concat([s, s.iloc[[3]].assign(split="test")]),
        (UNIQUE, "photo_id"),
        "critical",
    ),
    "left out": (lambda s: s.drop(index=3), (NULL, "split"), "critical"),
    "no split": (lambda s: put(s, 3, "split", None), (NULL, "split"), "critical"),
    "of another catalog": (
        lambda s: pd.concat([s, s.iloc[[3]].assign(photo_id="q")]),
        (IN_SET, "in_catalog"),
        "critical",
    ),
    "no train": (
        lambda s: s.assign(split="test"),
        ("column_distinct_values_to_contain_set", "split"),
        "critical",
    ),
    "mostly unused": (lambda s: put(s, range(8, 40), "split", "unused"), (IN_SET, "used"), "info"),
}
SPLIT_CHECKS = {check.name: "critical" for check in good_checks()}
SPLIT_CHECKS |= {"sizes_as_asked": "warning", "strata_cap": "warning"}

PARTITION: dict[str, tuple[Callable[[FakePartition], None], Rule, str]] = {
    "no token": (lambda p: p.names.__setitem__(1, None), (NULL, "token"), "critical"),
    "doubled token": (lambda p: p.names.__setitem__(1, "b4"), (UNIQUE, "token"), "critical"),
    "token with trailing zero": (lambda p: p.names.__setitem__(1, "b40"), (REGEX, "token"), "critical"),
    "token of a seventh face": (lambda p: p.names.__setitem__(1, "c4"), (REGEX, "token"), "critical"),
    "empty cell": (lambda p: p.counts.__setitem__(1, 0), (BETWEEN, "photo_count"), "critical"),
    "count unknown": (
        lambda p: setattr(p, "counts", np.array([5, np.nan, 7, 6])),
        (NULL, "photo_count"),
        "critical",
    ),
    "one cell has most": (lambda p: p.counts.__setitem__(1, 900), (BETWEEN, "photo_share"), "warning"),
    "no centroid latitude": (
        lambda p: p.points.__setitem__((1, 0), np.nan),
        (NULL, "centroid_latitude"),
        "critical",
    ),
    "no centroid longitude": (
        lambda p: p.points.__setitem__((1, 1), np.nan),
        (NULL, "centroid_longitude"),
        "critical",
    ),
    "centroid latitude too small": (
        lambda p: p.points.__setitem__((1, 0), -91),
        (BETWEEN, "centroid_latitude"),
        "critical",
    ),
    "centroid longitude too large": (
        lambda p: p.points.__setitem__((1, 1), 190),
        (BETWEEN, "centroid_longitude"),
        "critical",
    ),
    "coordinates swapped": (
        lambda p: setattr(p, "points", p.points[:, ::-1][[0, 1, 2, 0]]),
        (IN_SET, "centroid_place"),
        "warning",
    ),
}

EMBEDDINGS: dict[str, tuple[Callable[[list[Any], np.ndarray], Any], Rule, str]] = {
    "no id": (lambda ids, v: ids.__setitem__(3, None), (NULL, "photo_id"), "critical"),
    "doubled": (lambda ids, v: ids.__setitem__(3, "p004"), (UNIQUE, "photo_id"), "critical"),
    "unknown photo": (lambda ids, v: ids.__setitem__(3, "gone"), (IN_SET, "known"), "critical"),
    "NaN": (lambda ids, v: v.__setitem__((3, 0), np.nan), (IN_SET, "finite"), "critical"),
    "infinity": (lambda ids, v: v.__setitem__((3, 0), -np.inf), (IN_SET, "finite"), "critical"),
    "too long": (lambda ids, v: v.__setitem__(3, v[3] * 1.02), (BETWEEN, "norm"), "critical"),
    "zero": (lambda ids, v: v.__setitem__(3, 0), (BETWEEN, "norm"), "critical"),
    "all alike": (
        lambda ids, v: v.__setitem__(slice(None), v[0]),
        (BETWEEN, "distance_from_mean"),
        "critical",
    ),
}


PAIRS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Rule, str]] = {
    "a pair twice": (lambda p: put(p, 1, "pair_id", "p002+o002"), (UNIQUE, "pair_id"), "critical"),
    "another split": (
        lambda p: put(put(put(p, 29, "split", "unused"), 29, "city", "alone"), 29, "photographer", "alone"),
        (IN_SET, "split"),
        "critical",
    ),
    "no validation": (
        lambda p: p[p["split"] != "validation"].reset_index(drop=True),
        ("column_distinct_values_to_contain_set", "split"),
        "critical",
    ),
    "a photo that is not stored": (
        lambda p: put(p, 1, "photo_id", "p999"),
        (IN_SET, "photo_stored"),
        "critical",
    ),
    "a tile that is not stored": (
        lambda p: put(p, 1, "overhead_id", "o999"),
        (IN_SET, "tile_stored"),
        "critical",
    ),
    "a full turn": (lambda p: put(p, 1, "heading", 360.0), (BETWEEN, "heading"), "critical"),
    "signed degrees": (lambda p: put(p, 1, "heading", -10.0), (BETWEEN, "heading"), "critical"),
    "a heading without north": (
        lambda p: put(p, 1, "heading_reference", None),
        (IN_SET, "heading_reference"),
        "critical",
    ),
    "magnetic north": (
        lambda p: put(p, range(1, 12), "heading_reference", "magnetic"),
        (IN_SET, "from_true_north"),
        "warning",
    ),
    "a photo beside its tile": (
        lambda p: put(p, 1, "tile_longitude", 17.201),
        (IN_SET, "tile_covers_photo"),
        "critical",
    ),
    "a tile of another place": (
        lambda p: put(p, 25, "tile_latitude", 48.0),
        (BETWEEN, "metres_apart"),
        "critical",
    ),
    "a city on two sides": (lambda p: put(p, 1, "city", "city0"), (BETWEEN, "city_sides"), "critical"),
    "a photographer on two sides": (
        lambda p: put(p, 1, "photographer", "who0"),
        (BETWEEN, "photographer_sides"),
        "critical",
    ),
    "a photo on two sides": (lambda p: put(p, 1, "photo_id", "p000"), (BETWEEN, "photo_sides"), "critical"),
    "a tile on two sides": (lambda p: put(p, 1, "overhead_id", "o000"), (BETWEEN, "tile_sides"), "critical"),
    "tiles of unknown size": (
        lambda p: p.assign(metres_per_pixel=np.nan),
        (NULL, "metres_per_pixel"),
        "info",
    ),
}


def pairs(plant: Callable[[pd.DataFrame], pd.DataFrame] = lambda p: p) -> pd.DataFrame:
    table, *others = good_pairs()
    return pairs_frame(plant(table), *others)


def embeddings(plant: Callable[[list[Any], np.ndarray], Any] | None = None) -> pd.DataFrame:
    ids, vectors = [f"p{n:03}" for n in range(30)], good_vectors()
    if plant:
        plant(ids, vectors)
    return embeddings_frame(ids, vectors, [*(f"p{n:03}" for n in range(40)), None])


PROBABILITIES: dict[str, tuple[Callable[[pd.DataFrame, np.ndarray], Any], Rule, str]] = {
    "no id": (lambda p, v: p.loc.__setitem__((3, "photo_id"), None), (NULL, "photo_id"), "critical"),
    "doubled": (lambda p, v: p.loc.__setitem__((3, "photo_id"), "p004"), (UNIQUE, "photo_id"), "critical"),
    "unknown photo": (lambda p, v: p.loc.__setitem__((3, "photo_id"), "gone"), (IN_SET, "known"), "critical"),
    "unreadable": (lambda p, v: v.__setitem__(slice(0, 5), np.nan), (IN_SET, "readable"), "warning"),
    "scores": (lambda p, v: v.__setitem__(3, v[3] * 2), (BETWEEN, "sum"), "critical"),
    "negative": (
        lambda p, v: v.__setitem__((3, slice(0, 2)), [-0.25, 0.75]),
        (BETWEEN, "smallest"),
        "critical",
    ),
    "album cut": (
        lambda p, v: p.loc.__setitem__((29, "split"), "validation"),
        (BETWEEN, "album_splits"),
        "warning",
    ),
    "clocks ahead": (
        lambda p, v: p.loc.__setitem__((slice(0, 3), "taken_at"), pd.Timestamp("2030-01-01")),
        (IN_SET, "clock"),
        "info",
    ),
    "no times": (
        lambda p, v: p.loc.__setitem__((slice(0, 20), ["taken_at", "posted_at"]), pd.NaT),
        (IN_SET, "has_time"),
        "info",
    ),
}


def probabilities(plant: Callable[[pd.DataFrame, np.ndarray], Any] | None = None) -> pd.DataFrame:
    """Thirty photos in albums of five; the first ten are of train and have no probabilities."""
    at = np.arange(30)
    taken = pd.Series(pd.Timestamp("2012-05-01") + pd.to_timedelta(at, "h")).astype("datetime64[us]")
    photos = pd.DataFrame({"photo_id": [f"p{n:03}" for n in at], "split": ["train"] * 10 + ["test"] * 20})
    photos = photos.assign(
        photographer=[f"who{n // 10}" for n in at], source="s", album=[f"a{n // 5}" for n in at], taken_at=taken,
        posted_at=taken + pd.Timedelta(days=1), row=[-1] * 10 + list(range(20)),
    )  # fmt: skip
    photos[["photo_id", "split"]] = photos[["photo_id", "split"]].astype(object)
    values = np.full((20, 4), 0.25)
    if plant:
        plant(photos, values)
    return probabilities_frame(photos, values, [*(f"p{n:03}" for n in range(40)), None])


def good(suite: str) -> pd.DataFrame:
    catalog = good_catalog()
    return {
        "catalog": lambda: catalog_frame(catalog),
        "splits": lambda: splits_frame(catalog, good_splits(catalog), good_checks()),
        "pairs": pairs,
        "partition": lambda: partition_frame(FakePartition()),
        "embeddings": embeddings,
        "class_probabilities": probabilities,
    }[suite]()


good_before = functools.cache(good)


@pytest.mark.parametrize("suite", SUITES)
def test_good_data_pass(suite: str) -> None:
    result = run(suite, good(suite))
    assert failures(result) == {}
    assert (result.suite, result.passed, result.critical_failures, result.warnings) == (suite, True, 0, 0)
    written = json.loads((FOLDER / f"{suite}.json").read_text())["expectations"]
    assert [row.expectation for row in result.rows] == [e["type"] for e in written]
    assert [row.description for row in result.rows] == [e["description"] for e in written]


@pytest.mark.parametrize("fault", CATALOG)
def test_catalog_faults(fault: str, tmp_path: Path) -> None:
    plant, rule, severity = CATALOG[fault]
    expect_one(run_on_changed("catalog", catalog_frame(plant(good_catalog())), tmp_path), rule, severity)


def test_many_posted_before_taken_are_told_twice() -> None:
    planted = put(good_catalog(), range(4), "posted_at", pd.Timestamp("2012-04-01"))
    result = run("catalog", catalog_frame(planted))
    both = {(BETWEEN, "hours_from_taken_to_posted"): "warning", (ALL_NULL, "posted_before_taken"): "info"}
    assert failures(result) == both
    told = next(row for row in result.rows if row.columns == ("posted_before_taken",))
    assert (told.unexpected_count, told.observed) == (4, "4 of 40 rows")
    assert told.sample[0] == "p000: posted 720.0 h before it was taken"


def test_consistency_never_blocks() -> None:
    rng = np.random.default_rng(1)
    wild = good_catalog().assign(latitude=rng.uniform(-60, 60, 40), longitude=rng.uniform(-180, 180, 40))
    result = run("catalog", catalog_frame(wild))
    assert result.critical_failures == 0
    assert {rule[1] for rule in failures(result)} >= {"at_sea", "impossible_journey"}


@pytest.mark.parametrize("fault", SPLITS)
def test_split_faults(fault: str, tmp_path: Path) -> None:
    plant, rule, severity = SPLITS[fault]
    catalog = good_catalog()
    frame = splits_frame(catalog, plant(good_splits(catalog)), good_checks())
    expect_one(run_on_changed("splits", frame, tmp_path), rule, severity)


@pytest.mark.parametrize("name", SPLIT_CHECKS)
def test_split_check_failures(name: str, tmp_path: Path) -> None:
    catalog = good_catalog()
    checks = [
        CheckResult(name, False, 12, "12 photos, such as p1") if c.name == name else c for c in good_checks()
    ]
    result = run_on_changed("splits", splits_frame(catalog, good_splits(catalog), checks), tmp_path)
    expect_one(result, ("column_max_to_be_between", f"check_{name}"), SPLIT_CHECKS[name])
    assert "12: 12 photos, such as p1" in [row.observed for row in result.rows]


@pytest.mark.parametrize("fault", PAIRS)
def test_pair_faults(fault: str, tmp_path: Path) -> None:
    plant, rule, severity = PAIRS[fault]
    expect_one(run_on_changed("pairs", pairs(plant), tmp_path), rule, severity)


@pytest.mark.parametrize("fault", PARTITION)
def test_partition_faults(fault: str, tmp_path: Path) -> None:
    plant, rule, severity = PARTITION[fault]
    partition = FakePartition()
    plant(partition)
    expect_one(run_on_changed("partition", partition_frame(partition), tmp_path), rule, severity)


@pytest.mark.parametrize("fault", EMBEDDINGS)
def test_embedding_faults(fault: str, tmp_path: Path) -> None:
    plant, rule, severity = EMBEDDINGS[fault]
    expect_one(run_on_changed("embeddings", embeddings(plant), tmp_path), rule, severity)


@pytest.mark.parametrize("fault", PROBABILITIES)
def test_probability_faults(fault: str, tmp_path: Path) -> None:
    plant, rule, severity = PROBABILITIES[fault]
    expect_one(run_on_changed("class_probabilities", probabilities(plant), tmp_path), rule, severity)


def expect_one(result: SuiteResult, rule: Rule, severity: str) -> None:
    assert failures(result) == {rule: severity}
    counts = (result.passed, result.critical_failures, result.warnings)
    assert counts == {"critical": (False, 1, 0), "warning": (False, 0, 1), "info": (True, 0, 0)}[severity]


@pytest.mark.parametrize(
    ("suite", "parameter", "rule"),
    [
        ("catalog", {"minimum_photos": 41}, (ROWS, "")),
        ("pairs", {"minimum_pairs": 31}, (ROWS, "")),
        ("partition", {"minimum_cells": 5}, (ROWS, "")),
        ("partition", {"minimum_photos": 2}, (BETWEEN, "photo_count")),
        ("embeddings", {"minimum_photos": 31}, (ROWS, "")),
    ],
)
def test_parameters(suite: str, parameter: dict[str, int], rule: Rule) -> None:
    expect_one(run(suite, good(suite), **parameter), rule, "critical")
    (name, value), *_ = parameter.items()
    assert run(suite, good(suite), **{name: value - 1}).passed


def test_every_rule_has_a_fault() -> None:
    tested = {
        "catalog": [rule for _, rule, _ in CATALOG.values()]
        + [(ROWS, ""), (BETWEEN, "hours_from_taken_to_posted")],
        "splits": [rule for _, rule, _ in SPLITS.values()]
        + [("column_max_to_be_between", f"check_{name}") for name in SPLIT_CHECKS],
        "pairs": [rule for _, rule, _ in PAIRS.values()] + [(ROWS, "")],
        "partition": [rule for _, rule, _ in PARTITION.values()] + [(ROWS, "")],
        "embeddings": [rule for _, rule, _ in EMBEDDINGS.values()] + [(ROWS, "")],
        "class_probabilities": [rule for _, rule, _ in PROBABILITIES.values()] + [(ROWS, "")],
    }
    for suite in SUITES:
        rules = [
            (row.expectation.removeprefix("expect_"), "+".join(row.columns))
            for row in run(suite, good(suite)).rows
        ]
        assert len(set(rules)) == len(rules)
        assert set(rules) == set(tested[suite])


def test_splits_suite_has_a_rule_for_every_split_check() -> None:
    catalog = good_catalog()
    checks = check_splits(catalog, good_splits(catalog), SplitSettings())
    rules = {row.columns[0] for row in run("splits", good("splits")).rows}
    assert {f"check_{check.name}" for check in checks} == {
        name for name in rules if name.startswith("check_")
    }


def test_a_photographer_on_two_sides_is_found_through_the_real_checks() -> None:
    catalog = good_catalog()
    splits = put(good_splits(catalog), 5, "split", "test")  # of who5, whose other photos are in train
    result = run("splits", splits_frame(catalog, splits, check_splits(catalog, splits, SplitSettings())))
    assert failures(result) == {("column_max_to_be_between", "check_photographer_disjoint"): "critical"}
    assert "who5" in result.summary()


def test_a_check_that_was_not_run_is_an_error() -> None:
    catalog = good_catalog()
    with pytest.raises(QualityError, match=r"splits.*check_strata_cap"):
        run("splits", splits_frame(catalog, good_splits(catalog), good_checks()[:-1]))


def test_token_pattern_agrees_with_s2sphere() -> None:
    rng = np.random.default_rng(2)
    cells = [
        s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(*point)).parent(int(level))
        for point, level in zip(
            rng.uniform((-90, -180), (90, 180), (600, 2)), rng.integers(0, 31, 600), strict=True
        )
    ]
    frame = (
        good("partition")
        .iloc[[0]]
        .merge(pd.DataFrame({"other": sorted({c.to_token() for c in cells})}), "cross")
    )
    frame = frame.assign(token=frame["other"], photo_share=0.0)
    assert failures(run("partition", frame)) == {}


def test_tokens_of_other_kinds_are_free() -> None:
    partition = FakePartition()
    partition.kind, partition.names = "cities", ["Wien", "Graz", "Linz", "Salzburg"]
    assert run("partition", partition_frame(partition)).passed


@pytest.mark.parametrize("suite", SUITES)
def test_json_round_trip(suite: str) -> None:
    from great_expectations import ExpectationSuite

    written = json.loads((FOLDER / f"{suite}.json").read_text())
    loaded = ExpectationSuite(**json.loads(json.dumps(written))).to_json_dict()
    again = ExpectationSuite(**json.loads(json.dumps(loaded))).to_json_dict()
    assert again == loaded
    # What Great Expectations adds, taken away; nothing of ours lost.
    del loaded["id"], loaded["meta"]["great_expectations_version"]
    for expectation in loaded["expectations"]:
        assert expectation.pop("meta") == {}
    assert loaded == written


def suite_file(folder: Path, *expectations: dict[str, Any], **more: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps({"name": "mine", "expectations": expectations, **more}))
    return path


def rule(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs}


NUMBERS = pd.DataFrame(
    {"name": [f"n{i}" for i in range(100)], "x": np.arange(100.0)}, index=range(1000, 1100)
)


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        (rule(NULL, column="absent"), r"suite mine: expect_column_values_to_not_be_null\(absent\) could not"),
        (
            rule(REGEX, column="name", regex="("),
            r"suite mine: expect_column_values_to_match_regex\(name\) could not",
        ),
        (rule("nothing", column="x"), r"suite mine: expect_nothing\(x\) is malformed: .*not found"),
        (rule(UNIQUE, column="x", odd=1), r"suite mine: expect_column_values_to_be_unique\(x\) is malformed"),
        (
            {**rule(UNIQUE, column="x"), "severity": "awful"},
            r"suite mine: expect_column_values_to_be_unique\(x\) is malformed",
        ),
        (rule(ROWS, min_value={"$PARAMETER": "least"}), r"suite mine: .*least"),
    ],
)
def test_what_cannot_be_computed_is_an_error_and_not_a_finding(
    tmp_path: Path, expectation: dict[str, Any], message: str
) -> None:
    with pytest.raises(QualityError, match=message):
        run_suite(suite_file(tmp_path, rule(UNIQUE, column="x"), expectation), NUMBERS)


def test_outcome_counts_and_samples(tmp_path: Path) -> None:
    path = suite_file(
        tmp_path,
        {**rule(BETWEEN, column="x", max_value=84), "description": "Small", "severity": "warning"},
        rule(BETWEEN, column="x", max_value=96, mostly=0.95),
        rule("column_mean_to_be_between", column="x", max_value=10),
        rule("column_pair_values_to_be_equal", column_A="x", column_B="name"),
        meta={"id_column": "name"},
    )
    result = run_suite(path, NUMBERS)
    assert [row.passed for row in result.rows] == [False, True, False, False]
    assert (result.critical_failures, result.warnings) == (2, 1)
    small, mostly, mean, pair = result.rows
    assert (small.severity, small.description, small.columns) == ("warning", "Small", ("x",))
    assert small.unexpected_count == 15
    assert small.observed == "15 of 100 rows"
    assert small.sample == tuple(f"n{i}: {i}.0" for i in range(85, 95))  # ten of the fifteen
    assert (mostly.unexpected_count, mostly.severity) == (3, "critical")  # critical unless said
    assert (mean.observed, mean.unexpected_count, mean.sample) == ("49.5", 0, ())
    assert pair.columns == ("x", "name")


def test_nulls_are_told_apart(tmp_path: Path) -> None:
    frame = NUMBERS.assign(x=NUMBERS["x"].where(NUMBERS["x"] > 1))
    path = suite_file(tmp_path, rule(BETWEEN, column="x", max_value=98), rule(NULL, column="x"))
    between, null = run_suite(path, frame).rows
    assert between.observed == "1 of 98 rows (2 null)"
    assert (null.observed, null.unexpected_count) == ("2 of 100 rows", 2)


def gx_log_levels() -> dict[str, int]:
    names = [name for name in logging.root.manager.loggerDict if name.startswith("great_expectations")]
    return {name: logging.getLogger(name).level for name in names}


def test_nothing_is_printed_logged_sent_or_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or [])
    bad = suite_file(tmp_path, rule(REGEX, column="name", regex="("))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: pytest.fail("a temporary folder is made"))
    levels = gx_log_levels()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run("partition", good("partition"))  # its pattern has groups, of which pandas warns
        with pytest.raises(QualityError):
            run_suite(bad, NUMBERS)
    assert warned == []
    assert asked == []
    assert list(home.rglob("*")) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert gx_log_levels() == levels
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_frame_is_not_changed() -> None:
    frame = good("catalog")
    before = frame.copy(deep=True)
    run("catalog", frame)
    pd.testing.assert_frame_equal(frame, before)
