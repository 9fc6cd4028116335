"""Accuracy against the number of references: what is measured is what a search among them alone would answer."""

import itertools

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.diagnostics import AT_RANDOM, REFERENCE_SIZE, Diagnostics
from geoloc.evaluation.measures import reference_size
from geoloc.evaluation.measures.reference_size import (
    COLUMNS,
    OTHERS,
    OWN,
    Queries,
    accuracy_by_references,
    some_queries,
)
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, locate_among_fewer
from geoloc.reports.reference_figures import reference_group
from geoloc.retrieval.index import ReferenceIndex
from geoloc.sphere import distance_km
from tests.unit.indexed import clustered

LEVELS = {"near": 500.0, "far": 5000.0}


def world(count=130, asked=60, sources=None):
    embeddings, rows = clustered(count)
    queries, where = clustered(asked, seed=5)
    vectors = queries.vectors.copy()
    vectors[3] = np.nan  # an unreadable photo
    index = ReferenceIndex.build(embeddings, rows)
    latitude, longitude = where["latitude"].to_numpy(), where["longitude"].to_numpy()
    owners = pd.factorize(where["photographer"])[0]
    of_queries, of_references = sources or (None, None)
    return index, Queries(vectors, latitude, longitude, owners, of_queries, of_references)


def nearest_hits(index, queries, allowed, km):
    """Which queries have their nearest allowed reference within `km`, by one search each."""
    hits = []
    for i, vector in enumerate(queries.vectors):
        if np.isnan(vector).any():
            hits.append(False)
            continue
        found = index.search(vector[None], 1, among=allowed)
        here = queries.latitude[i], queries.longitude[i]
        hits.append(bool(distance_km(found.latitude[0, 0], found.longitude[0, 0], *here) <= km))
    return np.array(hits)


def test_subsets_are_nested_and_the_whole_is_the_plain_answer():
    index, queries = world()
    seen = []
    plain = index.search

    def search(vectors, k, among=None, **others):
        seen.append(np.ones(len(index), dtype=bool) if among is None else among)
        return plain(vectors, k, among=among, **others)

    index.search = search
    table = accuracy_by_references(index, [NearestLocalizer(index)], queries, 3, 1, levels_km=LEVELS)
    del index.search
    assert list(table.columns) == list(COLUMNS)
    assert table["references"].unique().tolist() == [16, 32, 65, 130]
    assert table["share"].max() == 1
    assert (table["n"] == 60).all()
    assert [int(one.sum()) for one in seen] == [16, 32, 65, 130]
    assert all((small <= large).all() for small, large in itertools.pairwise(seen))
    for allowed in seen:
        for level, km in LEVELS.items():
            row = table[(table["references"] == allowed.sum()) & (table["level"] == level)]
            assert row["accuracy"].item() == pytest.approx(nearest_hits(index, queries, allowed, km).mean())


def test_equal_seeds_give_equal_tables_and_only_allowed_references_are_drawn():
    index, queries = world()
    localizers = [NearestLocalizer(index), DensityLocalizer(index, k=20)]
    among = np.arange(len(index)) < 50
    once, again, other = (
        accuracy_by_references(index, localizers, queries, 2, seed, among, LEVELS) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(once, again)
    assert not once.equals(other)
    assert set(once["method"]) == {"[L]NN", "[L]kNN σ=4 k=20"}
    assert once["references"].unique().tolist() == [12, 25, 50]
    whole = once[(once["references"] == 50) & (once["method"] == "[L]NN") & (once["level"] == "far")]
    assert whole["accuracy"].item() == pytest.approx(nearest_hits(index, queries, among, 5000).mean())


def test_answers_of_fewer_references_are_a_point_of_the_table():
    index, queries = world()
    readable = np.isfinite(queries.vectors).all(axis=1)
    among = np.arange(len(index)) < 100
    table = accuracy_by_references(index, [NearestLocalizer(index)], queries, 2, 1, among, LEVELS)
    name, answers, described = locate_among_fewer(index, queries.vectors[readable], "R", 0.25, 1, among)
    assert name == "[R]NN of 0.25 of the references"
    assert described.startswith("nearest of 25 references")
    error = distance_km(
        queries.latitude[readable], queries.longitude[readable], answers.latitude, answers.longitude
    )
    row = table[(table["references"] == 25) & (table["level"] == "far")]
    assert row["accuracy"].item() == pytest.approx((error <= LEVELS["far"]).sum() / len(readable))


def test_as_many_references_of_the_querys_own_source_and_of_others_are_compared():
    of_queries = np.array(["street"] * 40 + ["tourist"] * 15 + ["alone"] * 5, dtype=object)
    of_references = np.array(["street"] * 100 + ["tourist"] * 30, dtype=object)
    index, queries = world(sources=(of_queries, of_references))
    table = accuracy_by_references(index, [NearestLocalizer(index)], queries, 0, 1, levels_km=LEVELS)
    compared = table[table["drawn"] != AT_RANDOM]
    sizes = compared.groupby(["source", "drawn"])[["references", "n"]].first()
    assert sizes.loc[("street", OWN)].tolist() == sizes.loc[("street", OTHERS)].tolist() == [30, 40]
    assert sizes.loc[("tourist", OWN)].tolist() == sizes.loc[("tourist", OTHERS)].tolist() == [30, 15]
    assert set(compared["source"]) == {"street", "tourist"}  # no reference is of the third
    own = (compared["source"] == "tourist") & (compared["drawn"] == OWN) & (compared["level"] == "far")
    tourists = queries.take(np.flatnonzero(of_queries == "tourist"))
    expected = nearest_hits(index, tourists, of_references == "tourist", 5000).mean()
    assert compared.loc[own, "accuracy"].item() == pytest.approx(expected)


def test_of_very_many_queries_some_are_asked(monkeypatch):
    monkeypatch.setattr(reference_size, "MOST_QUERIES", 20)
    assert some_queries(20, 1).tolist() == list(range(20))
    some = some_queries(60, 1)
    assert len(set(some)) == 20
    assert (some == some_queries(60, 1)).all()
    assert (some != some_queries(60, 2)).any()


def test_the_table_is_shown_to_people_and_drawn(tmp_path):
    index, queries = world()
    table = accuracy_by_references(index, [NearestLocalizer(index)], queries, 2, 1, levels_km=LEVELS)
    Diagnostics("[L]9C", {REFERENCE_SIZE: table}).save(tmp_path)
    loaded = Diagnostics.load(tmp_path)
    shown = loaded.overview()["reference size"]
    assert shown.columns.tolist() == ["method", "drawn", "references", "near", "far"]
    assert shown["references"].tolist() == [32, 65, 130]
    (group,) = reference_group(loaded.tables[REFERENCE_SIZE])
    assert group.figures[0].data.startswith(b"\x89PNG")
    assert reference_group(None) == reference_group(table[table["references"] == 130]) == ()
