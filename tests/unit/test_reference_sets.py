"""Several sources in one index: who answers from where, subsets of it, and neighbours that say only their cell."""

import numpy as np
import pandas as pd
import pytest

from geoloc.partitions.latlon import LatLonPartition
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.quantised import in_cells
from geoloc.retrieval.reference_sets import Subset, joined, source_shares
from tests.unit.indexed import clustered


def two_sources():
    """300 references of `street` and 100 of `tourist` in one index, with their facts; two facts are unknown."""
    parts = [clustered(300, model="m"), clustered(100, seed=1, prefix="t", model="m")]
    rows = pd.concat([rows for _, rows in parts], ignore_index=True)
    facts = rows[["photo_id"]].assign(
        source=["street"] * 300 + ["tourist"] * 100,
        taken_at=pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(np.arange(400), unit="D"),
    )
    facts.loc[5, ["source", "taken_at"]] = None
    return joined([embeddings for embeddings, _ in parts]), rows, facts


def test_the_share_of_each_source_is_counted_among_the_nearest_and_in_the_index():
    embeddings, rows, facts = two_sources()
    neighbours = ReferenceIndex.build(embeddings, rows).search(clustered(30, seed=7)[0].vectors, 100)
    table = source_shares(neighbours, facts)
    source = facts.set_index("photo_id")["source"].fillna("unknown")
    assert sorted(table["top"].unique()) == [1, 10, 100]  # 1000 were not asked for
    for top, part in table.groupby("top"):
        found = pd.Series(neighbours.photo_ids(top).ravel()).map(source)
        for row in part.itertuples():
            assert row.share == pytest.approx((found == row.source).mean())
    assert table.set_index("source")["index_share"].to_dict() == {
        "street": 299 / 400, "tourist": 0.25, "unknown": 1 / 400,
    }  # fmt: skip
    few = ReferenceIndex.build(embeddings, rows.iloc[-3:]).search(embeddings.vectors[:2], 10)
    assert source_shares(few, facts, (10,))["share"].tolist() == [1.0]  # of those found


def test_a_subset_is_by_source_time_or_version_and_never_by_what_is_unknown():
    embeddings, rows, facts = two_sources()
    index = ReferenceIndex.build(embeddings, rows)
    day = pd.Timestamp("2020-01-11")
    cases = {
        Subset(sources=("tourist",)): range(300, 400),
        Subset(sources=("street", "tourist")): [i for i in range(400) if i != 5],
        Subset(taken_until=day): [i for i in range(10) if i != 5],
        Subset(taken_from=day, taken_until=day + pd.Timedelta(days=2)): [10, 11],
        Subset(photo_ids=frozenset(["p3", "t9", "gone"])): [3, 309],
        Subset(sources=("street",), photo_ids=frozenset(["p3", "t9"])): [3],
    }
    for subset, expected in cases.items():
        among = subset.among(index.references, facts)
        assert np.flatnonzero(among).tolist() == list(expected)
        found = index.search(embeddings.vectors[:3], 10, among=among)
        assert set(found.row[found.row >= 0]) <= set(expected)
    for subset, words in (
        (Subset(sources=("strete",)), "no reference is of the source 'strete'; sources: street, tourist"),
        (
            Subset(taken_from=pd.Timestamp("2030-01-01")),
            "none of the 400 references is one of: photos taken from 2030-01-01 00:00 on",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            subset.among(index.references, facts)
    with pytest.raises(ValueError, match="need the column source"):
        Subset(sources=("street",)).among(index.references, facts[["photo_id"]])


def test_sources_that_cannot_be_in_one_index_are_named_with_both_sides():
    embeddings, _ = clustered(5, model="a")
    for other, words in (
        (clustered(5, prefix="n", model="b"), "by the model a and by b"),
        (clustered(5, prefix="n", dimension=8, model="a"), "have 16 and 8 numbers"),
        (clustered(5, model="a"), "photo 'p0' has an embedding in two sources"),
    ):
        with pytest.raises(ValueError, match=words):
            joined([embeddings, other[0]])
    with pytest.raises(ValueError, match="no embeddings"):
        joined([])


def test_a_neighbour_in_a_cell_says_only_which():
    embeddings, rows = clustered(200)
    partition = LatLonPartition().fit(rows["latitude"], rows["longitude"])
    neighbours = ReferenceIndex.build(embeddings, rows.iloc[:6]).search(embeddings.vectors[:4], 8)
    for answer in ("centroid", "centre"):
        quantised = in_cells(neighbours, partition, answer)
        cells = partition.assign(neighbours.latitude[:, :6].ravel(), neighbours.longitude[:, :6].ravel())
        places = np.stack([quantised.latitude[:, :6].ravel(), quantised.longitude[:, :6].ravel()], axis=1)
        np.testing.assert_array_equal(places, partition.answers(answer)[cells])
        assert np.isnan(quantised.latitude[:, 6:]).all()  # there are six
        np.testing.assert_array_equal(quantised.id, neighbours.id)
