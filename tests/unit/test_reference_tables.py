"""Who answers from which source, answers by the cell of a neighbour, and how many neighbours may vote."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.diagnostics import AT_RANDOM, REFERENCE_SIZE
from geoloc.evaluation.measures.reference_size import OTHERS, OWN
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.by_neighbour import NearestLocalizer, locate_by_neighbours, votes
from geoloc.localizers.quantised import QuantisedLocalizer
from geoloc.localizers.settings import LocalizerSettings
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.references import RetrievalError
from geoloc.retrieval.settings import ReferenceSettings
from geoloc.settings import SettingsError, parse
from orchestration.assets import splits as splits_stage
from orchestration.assets.inputs import SOURCE, read_photos
from orchestration.assets.subsets import SOURCE_SHARES, reference_tables
from tests.unit.indexed import clustered
from tests.unit.test_splits import make_catalog, settings_of


def two_sources():
    """120 references of a street source and 40 of tourists, 30 queries of tourists, and the source of each photo."""
    references, rows = clustered(160)
    queries, where = clustered(30, seed=3, prefix="q")
    sources = pd.Series(
        ["street"] * 120 + ["tourist"] * 70, index=[*rows["photo_id"], *where["photo_id"]], name=SOURCE
    )
    both = Embeddings(
        np.concatenate([references.photo_ids, queries.photo_ids[1:]]),  # the first is unreadable
        np.concatenate([references.vectors, queries.vectors[1:]]),
    )
    return ReferenceIndex.build(references, rows), both, where, sources


def tables(sources, halvings=1, **localizers):
    index, both, where, known = two_sources()
    settings = SimpleNamespace(
        localizers=LocalizerSettings(**localizers),
        evaluation=EvaluationSettings(reference_halvings=halvings),
        seed=1,
    )
    run = SimpleNamespace(settings=settings)
    return reference_tables(run, "L", index, both, where, None, known if sources else None)


def test_with_several_sources_the_evaluation_says_who_is_near_and_whose_references_help():
    found = tables(True)
    shares = found[SOURCE_SHARES]
    assert shares["top"].unique().tolist() == [1, 10, 100, 1000]
    of_index = shares.drop_duplicates("source").set_index("source")["index_share"]
    assert of_index.to_dict() == {"street": 0.75, "tourist": 0.25}
    assert shares.groupby("top")["share"].sum().round(9).eq(1).all()
    whole = shares[shares["top"] == 1000].set_index("source")["share"]  # all there are
    assert whole.to_dict() == {"street": 0.75, "tourist": 0.25}
    sizes = found[REFERENCE_SIZE]
    assert set(sizes["drawn"]) == {AT_RANDOM, OWN, OTHERS}
    assert set(sizes["method"]) == {"[L]NN", "[L]kNN σ=4"}
    assert set(sizes["n"]) == {30}
    assert set(sizes.loc[sizes["drawn"] != AT_RANDOM, "references"]) == {40}


def test_of_one_source_nothing_is_said_and_without_halvings_nothing_is_measured():
    assert set(tables(False)) == {REFERENCE_SIZE}
    assert set(tables(False)[REFERENCE_SIZE]["drawn"]) == {AT_RANDOM}
    assert tables(False, halvings=0) == {}
    assert set(tables(False, sigmas=())[REFERENCE_SIZE]["method"]) == {"[L]NN"}


@pytest.mark.parametrize("sources", [2, 1])
def test_the_splits_name_sources_where_there_are_several(sources, monkeypatch, tmp_path):
    catalog = make_catalog(400, 60).assign(prob_indoor=np.nan)
    catalog = catalog if sources == 2 else catalog.assign(source="own")
    monkeypatch.setattr(splits_stage, "read_catalog", lambda pool: catalog)
    settings = SimpleNamespace(splits=settings_of(), seed=1)
    log: list[str] = []
    splits_stage.build(
        SimpleNamespace(
            workspace=SimpleNamespace(pool=None), settings=settings, output=tmp_path, log=log.append
        )
    )
    photos = read_photos(tmp_path)
    assert (SOURCE in photos) == (sources == 2)
    if sources == 2:
        assert photos.set_index("photo_id")[SOURCE].equals(catalog.set_index("photo_id")[SOURCE])


def test_a_quantised_answer_is_the_centroid_of_the_neighbours_cell_and_none_outside_of_all():
    index, both, _, _ = two_sources()
    latitude, longitude = (index.references[name].to_numpy() for name in ("latitude", "longitude"))
    partition = S2Partition(S2Settings(max_photos=12, min_photos=6)).fit(latitude, longitude)
    localizer = QuantisedLocalizer(index, partition)
    assert localizer.name == f"[L]NN in {partition.cell_count}C"
    answers, nearest = localizer.locate(both.vectors), NearestLocalizer(index).locate(both.vectors)
    cell = partition.assign(nearest.latitude, nearest.longitude)
    assert 0 < (cell < 0).sum() < len(cell)
    assert (answers.abstained == (cell < 0)).all()
    assert (answers.confidence == np.where(cell < 0, 0, nearest.confidence)).all()
    inside = cell >= 0
    expected = partition.centroids()[cell[inside]]
    np.testing.assert_array_equal(answers.latitude[inside], expected[:, 0])
    np.testing.assert_array_equal(answers.longitude[inside], expected[:, 1])


def test_only_the_default_number_of_neighbours_is_a_most():
    assert votes(LocalizerSettings(), 7) == 100
    assert votes(LocalizerSettings(k=7), 7) == 7
    with pytest.raises(RetrievalError, match=r"localizers\.k must be at most 7, .*; got 8"):
        votes(LocalizerSettings(k=8), 7)
    with pytest.raises(RetrievalError, match="the index holds no references"):
        votes(LocalizerSettings(), 0)
    index, both, _, _ = two_sources()
    among = np.arange(len(index)) < 20
    with pytest.raises(RetrievalError, match=r"at most 20, .*; got 30"):
        locate_by_neighbours(index, both.vectors, "L", LocalizerSettings(k=30), among=among)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "x must give at least one of sources, taken_from, taken_until, data_version; got none"),
        ({"taken_from": "June"}, "x.taken_from must be a date or time such as 2012-05-31, got 'June'"),
        ({"taken_from": "2013-01-01", "taken_until": "2012-01-01"}, "must be before taken_until, 2012-01-01; got 2013"),
        ({"origin": "a"}, "x.origin is unknown; allowed here: data_version, sources, taken_from, taken_until"),
    ],
)  # fmt: skip
def test_limits_that_mean_nothing_are_refused_and_dates_of_yaml_taken(values, words):
    with pytest.raises(SettingsError, match=words):
        parse(ReferenceSettings, values, "x")
    assert parse(ReferenceSettings, {"taken_from": pd.Timestamp("2012-05-31").date()}, "x").taken_from == (
        "2012-05-31"
    )
