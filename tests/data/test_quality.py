"""Frames that suites look at, and how results read; nothing here needs Great Expectations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.photos.split_checks import CheckResult
from orchestration.quality.frames import (
    ExpectationOutcome,
    QualityError,
    SuiteResult,
    catalog_frame,
    embeddings_frame,
    partition_frame,
    run_suite,
    splits_frame,
)
from tests.data.quality_frames import FakePartition, good_catalog, good_splits, good_vectors

SAMPLE = ("p: 1\n", "q")
EXPECTATIONS = Path(__file__).parents[2] / "expectations"


def test_catalog_frame_helpers() -> None:
    catalog = good_catalog(8)
    catalog.loc[1, ["latitude", "longitude"]] = 0.0
    catalog.loc[2, "latitude"] = 0.0
    catalog.loc[3, ["taken_at", "posted_at"]] = [
        pd.Timestamp("2010-03-04 12:00"),
        pd.Timestamp("2010-03-04 06:30"),
    ]
    catalog.loc[5, "taken_at"] = None
    catalog.loc[6, "width"] = None
    frame = catalog_frame(catalog)
    assert frame["coordinates_are_zero"].tolist() == [i == 1 for i in range(8)]
    assert frame.loc[3, "hours_from_taken_to_posted"] == -5.5
    assert frame.loc[3, "taken_year"] == 2010
    assert frame.loc[5, ["hours_from_taken_to_posted", "taken_year"]].isna().all()
    whole, none = "stored", "metadata"
    assert frame["storage"].tolist() == [none, whole, whole, whole, none, whole, "partial", whole]


@pytest.mark.parametrize("backend", ["numpy", "arrow", "nullable", "object"])
def test_catalog_frame_is_the_same_from_any_dtypes(backend: str) -> None:
    catalog = good_catalog()
    wanted = catalog_frame(catalog)
    if backend == "arrow":
        catalog = pa.Table.from_pandas(catalog).to_pandas(types_mapper=pd.ArrowDtype)
    elif backend == "nullable":
        catalog = catalog.convert_dtypes(dtype_backend="numpy_nullable")
    elif backend == "object":
        catalog = catalog.astype(object)
    pd.testing.assert_frame_equal(catalog_frame(catalog), wanted, check_column_type=False)


def test_catalog_frame_without_photos_or_columns() -> None:
    assert len(catalog_frame(good_catalog().iloc[:0])) == 0
    with pytest.raises(QualityError, match="the catalog lacks the columns phash, latitude"):
        catalog_frame(good_catalog().drop(columns=["phash", "latitude"]))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 12), st.integers(1, 4)),
        min_size=1,
        max_size=9,
    )
)
def test_bytes_overlap_agrees_with_a_map_of_bytes(photos: list[tuple[str | None, int, int]]) -> None:
    catalog = good_catalog(len(photos))
    for column, values in zip(("shard", "offset", "length"), zip(*photos, strict=True), strict=True):
        catalog[column] = pd.array(values, dtype="str" if column == "shard" else "Int64")
    used: set[tuple[str, int]] = set()
    clash = False
    for shard, offset, length in photos:
        taken = {(shard, byte) for byte in range(offset, offset + length)} if shard else set()
        clash |= bool(taken & used)
        used |= taken
    assert catalog_frame(catalog)["bytes_overlap"].any() == clash


def test_splits_frame_rows_and_checks() -> None:
    catalog = good_catalog(10)
    splits = good_splits(catalog).iloc[2:]
    extra = pd.DataFrame({"photo_id": ["q"], "split": ["unused"], "reason": ["told"]})
    checks = [
        CheckResult("a", False, 7, "seven"),
        CheckResult("b", False, 0, "odd"),
        CheckResult("c", True, 3, "fine"),
    ]
    frame = splits_frame(catalog, pd.concat([splits, extra]), checks)
    assert frame["photo_id"].tolist() == [*(f"p{i:03}" for i in range(2, 10)), "q", "p000", "p001"]
    assert frame["split"].isna().tolist() == [False] * 9 + [True] * 2
    assert frame["in_catalog"].tolist() == [True] * 8 + [False] + [True] * 2
    assert frame["used"].tolist() == [True] * 8 + [False] * 3
    # A failed check is never 0, a passed one always is.
    assert frame[["check_a", "check_b", "check_c"]].drop_duplicates().to_numpy().tolist() == [[7, 1, 0]]
    assert frame.attrs["details"] == {"check_a": "seven", "check_b": "odd", "check_c": "fine"}


def test_partition_frame() -> None:
    partition = FakePartition()
    partition.points = np.array([[-40.0, 10.0], [10.0, 10.0], [np.nan, 16.4], [60.0, 200.0]])
    frame = partition_frame(partition)
    assert frame["token"].tolist() == partition.names
    assert frame["photo_share"].tolist() == [5 / 16, 1 / 16, 7 / 16, 3 / 16]
    assert frame["centroid_place"].tolist()[:2] == ["inside", "outside"]
    assert frame["centroid_place"].isna().tolist() == [False, False, True, True]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_embeddings_frame_agrees_with_a_plain_computation(dtype: type) -> None:
    vectors = (good_vectors(70_000, 3) * 200).astype(dtype)  # more than a block; squares overflow float16
    vectors[5, 1], vectors[66_000, 0] = np.nan, np.inf
    ids = [f"p{i}" for i in range(len(vectors))]
    frame = embeddings_frame(ids, vectors, np.array(ids[:10]))
    good = np.isfinite(vectors).all(axis=1)
    exact = vectors.astype(np.float64)
    assert np.flatnonzero(~good).tolist() == [5, 66_000]
    assert (frame["finite"] == good).all()
    assert frame["known"].tolist() == [True] * 10 + [False] * 69_990
    np.testing.assert_allclose(frame["norm"][good], np.linalg.norm(exact[good], axis=1), rtol=1e-6)
    distance = np.linalg.norm(exact[good] - exact[good].mean(axis=0), axis=1)
    np.testing.assert_allclose(frame["distance_from_mean"][good], distance, rtol=1e-4)
    assert frame.loc[~good, ["norm", "distance_from_mean"]].isna().all(axis=None)


def test_embeddings_frame_wants_a_vector_for_each_id() -> None:
    with pytest.raises(QualityError, match=r"29 photo ids cannot go with vectors of shape \(30, 16\)"):
        embeddings_frame(["p"] * 29, good_vectors(), ["p"])


def test_results_read_well() -> None:
    fine = ExpectationOutcome("expect_x", ("a",), True, "critical", "All is fine", "0 of 9 rows", 0, ())
    bad = ExpectationOutcome(
        "expect_y", ("b", "c"), False, "warning", "Pairs | agree", "2 of 9 rows", 2, ("p: 1\n", "q")
    )
    result = SuiteResult("mine", False, 0, 1, (fine, bad))
    head, line, first, second = result.markdown().split("\n")
    assert head.count("|") == line.count("|") == second.count("|")
    first, second = (re.sub(r" +", " ", line) for line in (first, second))
    assert first == r"| **FAILS** | Pairs \| agree | b, c | warning | 2 of 9 rows | p: 1 ; q |"
    assert second.startswith("| ok | All is fine |")
    assert (
        result.summary()
        == "mine: 1 of 2 expectations fail: warning: not true that pairs | agree (2 of 9 rows)"
    )
    assert SuiteResult("mine", True, 0, 0, (fine,)).summary() == "mine: all 1 expectations hold"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no suite .*mine.json"),
        ("{", "mine.json is not JSON"),
        ("[]", "is not a suite"),
        ('{"expectations": []}', "is not a suite"),
        ('{"name": "mine", "expectations": []}', "suite mine has no expectations"),
        ('{"name": "mine", "expectations": [{}]}', "suite mine: expectation 0 has no type"),
    ],
)
def test_unusable_suite_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QualityError, match=message):
        run_suite(path, pd.DataFrame({"x": [1]}))


def test_unknown_parameters_are_named() -> None:
    with pytest.raises(
        QualityError, match="suite partition has no parameter x; it has: minimum_cells, minimum_photos"
    ):
        run_suite(EXPECTATIONS / "partition.json", pd.DataFrame({"x": [1]}), {"x": 1})


@pytest.mark.parametrize("path", sorted(EXPECTATIONS.glob("*.json")), ids=lambda path: path.stem)
def test_suites_are_written_for_people(path: Path) -> None:
    suite = json.loads(path.read_text())
    assert suite["name"] == path.stem
    assert suite["notes"]
    for expectation in suite["expectations"]:
        assert expectation["severity"] in ("critical", "warning", "info")
        assert expectation["description"]
        assert expectation["notes"].endswith(".")
    descriptions = [expectation["description"] for expectation in suite["expectations"]]
    assert len(set(descriptions)) == len(descriptions)
