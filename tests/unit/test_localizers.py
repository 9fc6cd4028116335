"""Localizers: answers by class and by neighbour, against loops and the definitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.by_class.probabilities import largest
from geoloc.localizers.by_neighbour import (
    DensityLocalizer,
    NearestLocalizer,
    locate_by_neighbours,
    neighbour_table,
)
from geoloc.localizers.settings import LocalizerSettings
from geoloc.retrieval.density import DensitySettings, densest
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.settings import SettingsError
from geoloc.sphere import distance_km


class ThreeCells:
    """A partition of three cells, the last without photos."""

    kind = "s2"
    cell_count = 3

    def centres(self):
        return np.array([[0.0, 0.0], [10.0, 20.0], [-30.0, 40.0]])

    def centroids(self):
        return np.array([[1.0, 2.0], [11.0, 21.0], [np.nan, np.nan]])

    def tokens(self):
        return ["1", "3", "5"]


PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [np.nan] * 3, [0.4, 0.4, 0.2]], dtype=np.float32)


def test_by_class_answers_with_the_centroid_of_the_likeliest_cell():
    found = ClassLocalizer(ThreeCells()).locate(PROBABILITIES)
    # The second falls in the cell without photos, which has no centroid: its centre. The third is unreadable.
    np.testing.assert_array_equal(found.latitude, [11.0, -30.0, np.nan, 1.0])
    np.testing.assert_array_equal(found.longitude, [21.0, 40.0, np.nan, 2.0])
    np.testing.assert_allclose(found.confidence, [0.5, 0.8, 0.0, 0.4])
    assert found.abstained.tolist() == [False, False, True, False]
    assert found.cells.cell.tolist() == [[1, 2, 0], [2, 0, 1], [-1, -1, -1], [0, 1, 2]]
    np.testing.assert_allclose(found.cells.probability[0], [0.5, 0.3, 0.2])
    np.testing.assert_array_equal(found.alternatives.latitude[0], [11.0, -30.0, 1.0])
    assert np.isnan(found.alternatives.latitude[2]).all()
    centre = ClassLocalizer(ThreeCells(), answer="centre").locate(PROBABILITIES)
    np.testing.assert_array_equal(centre.latitude, [10.0, -30.0, np.nan, 0.0])


def test_by_class_refuses_what_are_not_probabilities():
    localizer = ClassLocalizer(ThreeCells())
    with pytest.raises(ValueError, match="apply a softmax"):
        localizer.locate(np.array([[-1.0, 3.0, 0.5]]))
    with pytest.raises(ValueError, match="apply a softmax"):
        localizer.locate(np.array([[0.5, 3.0, 0.5]]))
    with pytest.raises(ValueError, match=r"shape \(N, 3\), got \(1, 2\)"):
        localizer.locate(np.array([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="answer must be one of centroid, centre; got 'mean'"):
        ClassLocalizer(ThreeCells(), answer="mean")
    assert len(localizer.locate(np.empty((0, 3)))) == 0


def test_the_probability_map_is_all_cells_best_first():
    found = ClassLocalizer(ThreeCells()).probability_map(PROBABILITIES[0])
    assert found["cell"].tolist() == [1, 2, 0]
    assert found["token"].tolist() == ["3", "5", "1"]
    assert found["latitude"].tolist() == [11.0, -30.0, 1.0]
    np.testing.assert_allclose(found["probability"], [0.5, 0.3, 0.2])
    assert ClassLocalizer(ThreeCells()).probability_map(PROBABILITIES[0], smallest=0.25)["cell"].tolist() == [
        1,
        2,
    ]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
@settings(deadline=None)
def test_the_largest_values_are_those_of_a_stable_sort(columns, count, seed):
    values = np.random.default_rng(seed).integers(0, 4, (6, columns)) / 4
    expected = [sorted(range(columns), key=lambda c: (-row[c], c))[:count] for row in values]
    assert largest(values, min(count, columns)).tolist() == expected


def made_index(count=120, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(count)],
            "latitude": rng.uniform(-80, 80, count),
            "longitude": rng.uniform(-180, 180, count),
            "photographer": [f"u{i % 4}" for i in range(count)],
        }
    )
    embeddings = Embeddings(rows["photo_id"].to_numpy(dtype=object), vectors)
    return ReferenceIndex.build(embeddings, rows), vectors, rows


def test_the_nearest_localizer_answers_with_the_most_similar_photo_of_another_photographer():
    index, vectors, rows = made_index()
    found = NearestLocalizer(index).locate(vectors, exclude_photographers=rows["photographer"].to_numpy())
    for i in range(0, 120, 7):
        others = rows.index[rows["photographer"] != rows["photographer"][i]]
        best = max(others, key=lambda j: float(vectors[i] @ vectors[j]))
        assert (found.latitude[i], found.longitude[i]) == (rows["latitude"][best], rows["longitude"][best])
        assert found.neighbours.photo_ids(1)[i, 0] == rows["photo_id"][best]
        assert found.confidence[i] == pytest.approx(max(0, float(vectors[i] @ vectors[best])), abs=1e-6)
    self_match = NearestLocalizer(index).locate(vectors)
    np.testing.assert_array_equal(self_match.latitude, rows["latitude"])
    without_self = NearestLocalizer(index).locate(vectors, exclude_photos=rows["photo_id"].to_numpy())
    assert not (without_self.latitude == rows["latitude"].to_numpy()).any()


def test_the_density_localizer_is_the_density_of_its_neighbours():
    index, vectors, _ = made_index()
    localizer = DensityLocalizer(index, k=30, sigma=8.0)
    found = localizer.locate(vectors[:10])
    near = index.search(vectors[:10], 30)
    expected = densest(near.latitude, near.longitude, near.similarity, DensitySettings(k=30, sigma=8.0))
    np.testing.assert_array_equal(found.latitude, expected.latitude)
    np.testing.assert_array_equal(found.confidence, expected.share.astype(np.float32))
    assert found.neighbours.row.shape == (10, 30)
    # One search for 100 serves any k and σ.
    shared = localizer.locate_neighbours(index.search(vectors[:10], 100))
    np.testing.assert_array_equal(shared.longitude, found.longitude)
    narrow = DensityLocalizer(index, k=30, sigma=1e-6).locate(vectors[:10], exclude_photos=["p0"] * 10)
    nearest = NearestLocalizer(index).locate(vectors[:10], exclude_photos=["p0"] * 10)
    assert distance_km(narrow.latitude, narrow.longitude, nearest.latitude, nearest.longitude).max() == 0


@pytest.mark.parametrize("kind", [NearestLocalizer, DensityLocalizer])
def test_unreadable_queries_and_those_without_neighbours_abstain(kind):
    index, vectors, _ = made_index()
    queries = vectors[:5].copy()
    queries[2] = np.nan
    owners = ["u9"] * 5
    whole = kind(index).locate(vectors[:5], exclude_photographers=owners)
    found = kind(index).locate(queries, exclude_photographers=owners)
    assert found.abstained.tolist() == [False, False, True, False, False]
    assert found.confidence[2] == 0
    read = [0, 1, 3, 4]
    np.testing.assert_array_equal(found.latitude[read], whole.latitude[read])
    np.testing.assert_array_equal(found.neighbours.row[read], whole.neighbours.row[read])
    assert (found.neighbours.row[2] == -1).all()
    index.remove([f"p{i}" for i in range(120) if i % 4])  # all that is left is by u0
    lonely = kind(index).locate(vectors[:5], exclude_photographers=["u0", "u1", "u0", None, "u0"])
    assert lonely.abstained.tolist() == [True, False, True, False, True]
    assert lonely.confidence[0] == 0


def test_one_search_answers_for_every_localizer_of_the_settings():
    index, vectors, rows = made_index()
    settings = LocalizerSettings(k=20, sigmas=(2.0, 8.0), geometries=("sphere", "flat"))
    owners = rows["photographer"].to_numpy()
    answers, told, neighbours = locate_by_neighbours(index, vectors, "L", settings, owners)
    alone = [NearestLocalizer(index, "L")]
    alone += [
        DensityLocalizer(index, 20, 10.0, s, flat=f, model_name="L")
        for f in (False, True)
        for s in (2.0, 8.0)
    ]
    assert list(answers) == list(told) == [one.name for one in alone]
    for one in alone:
        np.testing.assert_array_equal(
            answers[one.name].latitude, one.locate(vectors, exclude_photographers=owners).latitude
        )
    assert neighbours.row.shape == (120, 20)


def test_the_table_of_neighbours_leaves_out_those_that_are_not_there():
    index, vectors, rows = made_index()
    index.remove([f"p{i}" for i in range(120) if i not in (4, 7, 9)])
    found = index.search(vectors[:2], 5, exclude_photos=["p0", "p7"])
    table = neighbour_table(pd.Series(["a", "b"]), found, 5)
    assert table["photo_id"].tolist() == ["a", "a", "a", "b", "b"]
    assert table["rank"].tolist() == [1, 2, 3, 1, 2]
    assert set(table.loc[table["photo_id"] == "b", "neighbour"]) == {"p4", "p9"}
    for row in table.itertuples():
        query, reference = (0 if row.photo_id == "a" else 1), int(row.neighbour[1:])
        assert row.similarity == pytest.approx(float(vectors[query] @ vectors[reference]), abs=1e-6)
        assert (row.latitude, row.longitude) == tuple(rows.loc[reference, ["latitude", "longitude"]])
    assert table.groupby("photo_id")["similarity"].apply(lambda s: s.is_monotonic_decreasing).all()


def test_names_are_the_literatures():
    index, _, _ = made_index(10)
    names = [
        ClassLocalizer(ThreeCells()).name,
        ClassLocalizer(ThreeCells(), "centre", model_name="M").name,
        NearestLocalizer(index, "R2").name,
        DensityLocalizer(index).name,
        DensityLocalizer(index, sigma=0.5, flat=True).name,
        DensityLocalizer(index, k=20, m=4).name,
    ]
    assert names == [
        "[L]3C", "[M]3C centre", "[R2]NN", "[L]kNN σ=4", "[L]kNN σ=0.5 flat", "[L]kNN σ=4 k=20 m=4",
    ]  # fmt: skip
    assert repr(DensityLocalizer(index)) == (
        "DensityLocalizer([L]kNN σ=4: densest of 100 nearest of 10 references on the sphere, m = 10, σ = 4°)"
    )
    with pytest.raises(SettingsError, match=r"density\.k must be at least 1, got 0"):
        DensityLocalizer(index, k=0)


def test_answers_are_checked_spread_and_taken():
    found = ClassLocalizer(ThreeCells()).locate(PROBABILITIES)
    spread = found.spread([5, 1, 0, 3], 6)
    np.testing.assert_array_equal(spread.latitude, [np.nan, -30.0, np.nan, 1.0, np.nan, 11.0])
    assert spread.cells.cell[2].tolist() == [-1, -1, -1]
    assert np.isnan(spread.alternatives.weight[4]).all()
    back = spread.take([5, 1, 0, 3])
    np.testing.assert_array_equal(back.latitude, found.latitude)
    np.testing.assert_array_equal(back.cells.cell, found.cells.cell)
    np.testing.assert_array_equal(back.alternatives.weight, found.alternatives.weight)
    assert repr(spread) == "Answers(6 photos, 3 abstained)"
    assert Answers.none(3).abstained.all()
    with pytest.raises(ValueError, match="different numbers"):
        found.spread([1, 1, 2, 3], 6)
    with pytest.raises(ValueError, match="from 0 to 3"):
        found.spread([1, 2, 3, 4], 4)
    one, two = np.zeros(1), np.zeros(2)
    with pytest.raises(ValueError, match="'longitude': 2"):
        Answers(one, two, one.astype(np.float32))
    with pytest.raises(ValueError, match="both coordinates"):
        Answers(one, one * np.nan, one.astype(np.float32))
