"""An index through its life: filled in shards, grown, mapped, and never half written."""

import numpy as np
import pandas as pd
import pytest

from geoloc.files import content_hash, write_json, write_parquet
from geoloc.retrieval import stored
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.exact import ExactSearch
from geoloc.retrieval.gpu import GpuSearch
from geoloc.retrieval.growth import grow
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.settings import IndexSettings
from tests.unit.indexed import clustered, true_nearest

KINDS = ["Flat", "IVF16,Flat", "IVF16,PQ8x4fs,Refine(SQfp16)", "IVF16,PQ16x4fs", "HNSW8"]
ALL_LISTS = {"nprobe": 16, "k_factor": 100}


def found(index, queries, k=10, **more):
    return index.search(queries, k, **more).photo_ids()


@pytest.mark.parametrize(
    "factory", ["IVF16,Flat", "IVF16,PQ4np,Refine(SQfp16)", "IVF16,PQ8x4fs,Refine(SQfp16)", "IVF16,PQ16x4fs"]
)
def test_filled_in_shards_it_answers_as_if_filled_in_one_go(factory, tmp_path):
    embeddings, rows = clustered(1500)
    queries = clustered(50, seed=2)[0].vectors
    whole, sharded, alone = (
        ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory, nprobe=4, **more))
        for more in ({}, {"shard_rows": 400, "workers": 3}, {"shard_rows": 400, "workers": 1})
    )
    a, b = whole.search(queries, 20), sharded.search(queries, 20)
    np.testing.assert_array_equal(a.id, b.id)
    np.testing.assert_array_equal(a.similarity, b.similarity)
    for index, name in ((sharded, "a"), (alone, "b")):
        index.save(tmp_path / name / "index")
    assert content_hash(tmp_path / "a" / "index") == content_hash(tmp_path / "b" / "index")
    # Further life: what was merged can forget and grow.
    sharded.remove(rows["photo_id"].iloc[:700].tolist())
    sharded.add(embeddings, rows.iloc[:10])
    assert set(found(sharded, queries, 30).ravel()) <= {
        *rows["photo_id"].iloc[700:],
        *rows["photo_id"].iloc[:10],
    }


@pytest.mark.parametrize("factory", KINDS)
def test_mapped_from_its_file_it_answers_the_same_and_cannot_be_changed(factory, tmp_path):
    embeddings, rows = clustered(800)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory))
    index.save(tmp_path / "index")
    mapped = ReferenceIndex.load(tmp_path / "index", mapped=True)
    queries = clustered(30, seed=2)[0].vectors
    excluded = ["u3"] * 30
    a, b = index.search(queries, 15, excluded), mapped.search(queries, 15, excluded)
    np.testing.assert_array_equal(a.id, b.id)
    np.testing.assert_array_equal(a.similarity, b.similarity)
    for change in (lambda: mapped.remove(["p1"]), lambda: mapped.add(*clustered(5, prefix="n"))):
        with pytest.raises(ValueError, match="load it without mapped=True"):
            change()


@pytest.mark.parametrize("factory", KINDS)
def test_it_goes_deeper_until_k_remain(factory, monkeypatch):
    """One photographer has nine tenths of what is near; a subset leaves a tenth of the rest."""
    embeddings, rows = clustered(1200)
    rows["photographer"] = np.where(np.arange(1200) % 10 == 0, rows["photographer"], "most")
    monkeypatch.setattr("geoloc.retrieval.index._OVERFETCH_LIMIT", 100)
    index = ReferenceIndex.build(
        embeddings, rows, IndexSettings(factory=factory, tune_queries=20, recall=0.5)
    )
    queries = clustered(25, seed=4)[0].vectors
    left = (rows["photographer"] != "most").to_numpy()
    result = index.search(queries, 60, exclude_photographers=["most"] * 25)
    assert (result.row >= 0).all()
    assert left[result.row].all()
    assert result.left_out == ("the query's photographer",)
    among = np.arange(1200) % 4 == 1
    result = index.search(queries, 60, exclude_near_duplicates=[None] * 25, among=among)
    assert (result.row >= 0).all()
    assert among[result.row].all()
    assert result.left_out == ("its near-duplicates", "references outside the subset")
    # As many as there are, and no more: 120 by others, of which none is in the subset.
    assert ((index.search(queries, 200, ["most"] * 25).row >= 0).sum(axis=1) == left.sum()).all()
    assert (index.search(queries, 5, ["most"] * 25, among=among).row == -1).all()
    assert index.search(queries, 5).left_out == ()


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,PQ8x4fs,Refine(SQfp16)"])
def test_a_subset_is_searched_as_if_the_others_were_not_there(factory):
    embeddings, rows = clustered(1000)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory, **ALL_LISTS))
    queries = clustered(20, seed=4)[0].vectors
    for among in (
        np.arange(1000) % 3 == 0,
        np.arange(1000) % 3 != 0,
        rows["photo_id"].isin(["p5", "p7"]).to_numpy(),
    ):
        owners = np.array([f"u{q % 7}" for q in range(20)], dtype=object)
        left = among[None] & (rows["photographer"].to_numpy()[None] != owners[:, None])
        k = min(8, int(left.sum(axis=1).min()))
        expected = true_nearest(queries, embeddings.vectors, rows, k, left)
        hits = found(index, queries, k, exclude_photographers=owners, among=among) == expected
        assert hits.mean() > (0.97 if "PQ" in factory else 0.999)  # 16-bit numbers change places of near-ties


def test_growing_is_from_the_index_before_and_says_when_to_train_again(tmp_path):
    embeddings, rows = clustered(1000, model="m1")
    settings = IndexSettings(factory="IVF16,Flat", grow=True)
    ReferenceIndex.build(embeddings, rows, settings).save(tmp_path / "index")
    more, more_rows = clustered(300, seed=1, prefix="n", model="m1")
    both = Embeddings(
        np.concatenate([embeddings.photo_ids, more.photo_ids]), np.concatenate([embeddings.vectors, more.vectors]),
        model="m1",
    )  # fmt: skip
    wanted = rows.iloc[100:].copy()
    wanted.loc[wanted["photo_id"] == "p500", "latitude"] = 1.5
    wanted = pd.concat([wanted, more_rows])
    index, history = grow(tmp_path / "index", both, wanted, settings)
    assert history == "grown from 1,000 references: 301 added, 101 removed"
    assert set(index.references["photo_id"]) == set(wanted["photo_id"])
    assert index.references.set_index("photo_id").loc["p500", "latitude"] == 1.5
    queries = clustered(20, seed=4)[0].vectors
    expected = true_nearest(queries, both.subset(wanted["photo_id"]).vectors, wanted, 10)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found(index, queries), expected, strict=True)]) > 9
    assert index.retraining == ""
    assert index.trained == ReferenceIndex.load(tmp_path / "index").trained  # trained no second time

    # A crowd in one place: the lists are no longer those that this collection would have.
    crowd, crowd_rows = clustered(1500, seed=2, clusters=1, prefix="c", model="m1")
    index.add(crowd, crowd_rows)
    assert (
        "times as uneven as after training for 1,000 references, index.drift allows 1.5" in index.retraining
    )
    many, many_rows = clustered(3000, seed=3, prefix="m", model="m1")
    even = ReferenceIndex.load(tmp_path / "index")
    even.add(many, many_rows)
    assert even.retraining.startswith("it has 4,000 references and was trained for 1,000")


@pytest.mark.parametrize(
    ("model", "dimension", "factory", "why"),
    [
        ("another", 16, "auto", "the index holds embeddings by the model m1, these are by another"),
        ("m1", 8, "auto", "embeddings have 8 numbers, the index 16"),
        ("m1", 16, "IVF4,Flat", "it was Flat, index.factory is IVF4,Flat"),
    ],
)
def test_what_cannot_grow_is_built_anew_and_says_why(model, dimension, factory, why, tmp_path):
    ReferenceIndex.build(*clustered(200, model="m1")).save(tmp_path / "index")
    embeddings, rows = clustered(210, dimension=dimension, model=model)
    index, history = grow(tmp_path / "index", embeddings, rows, IndexSettings(factory=factory))
    assert history == f"built anew: {why}"
    assert (len(index), index.model, index.dimension) == (210, model, dimension)


def test_growing_from_nothing_is_building(tmp_path):
    index, history = grow(tmp_path / "absent", *clustered(20))
    assert (len(index), history) == (20, "built anew: there was none")


@pytest.mark.parametrize("step", ["write_parquet", "write_json"])
def test_a_crash_while_adding_leaves_the_old_index_whole(step, tmp_path, monkeypatch):
    embeddings, rows = clustered(100)
    ReferenceIndex.build(embeddings, rows).save(tmp_path / "index")
    index = ReferenceIndex.load(tmp_path / "index")
    index.add(*clustered(50, seed=1, prefix="n"))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stored, step, killed)
    with pytest.raises(KeyboardInterrupt):
        index.save(tmp_path / "index")
    assert len(ReferenceIndex.load(tmp_path / "index")) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_embeddings_that_do_not_fit_are_named_with_both_sides():
    index = ReferenceIndex.build(*clustered(50, model="a" * 64))
    for embeddings, words in (
        (clustered(5, prefix="n", model="b" * 64), "by the model aaaaaaaaaaaa, these are by bbbbbbbbbbbb"),
        (clustered(5, prefix="n", dimension=8, model="a" * 64), "embeddings have 8 numbers, the index 16"),
    ):
        with pytest.raises(ValueError, match=words):
            index.add(*embeddings)
    assert len(index) == 50
    unknown, rows = clustered(5, prefix="n")  # of before models were recorded
    assert index.add(unknown, rows) == 5


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN or infinite"), (np.inf, "NaN"), (0.0, "only zeros")]
)
def test_vectors_without_a_direction_are_refused_by_photo(value, words):
    embeddings, rows = clustered(60)
    embeddings.vectors[41] = value
    with pytest.raises(ValueError, match=f"the embedding of photo 'p41' has {words}"):
        ReferenceIndex.build(embeddings, rows)
    index = ReferenceIndex.build(embeddings, rows.iloc[:40])
    with pytest.raises(ValueError, match="'p41'"):
        index.add(embeddings, rows.iloc[40:])
    assert len(index) == 40
    with pytest.raises(ValueError, match="finite" if value else "all zero: number 41 is"):
        index.search(embeddings.vectors, 1)


def test_a_part_of_the_embeddings_that_is_missing_is_named(tmp_path):
    embeddings, rows = clustered(30)
    for part in range(3):
        ids = rows["photo_id"].iloc[part * 10 : part * 10 + 10]
        write_parquet(
            tmp_path / f"photos-0000{part}.parquet",
            ids.to_frame().assign(readable=True, reason=None, content=""),
        )
        np.save(tmp_path / f"vectors-0000{part}.npy", embeddings.vectors[part * 10 : part * 10 + 10])
    write_parquet(tmp_path / "unreadable.parquet", embeddings.unreadable)
    meta = {"format": 1, "finished": True, "readable": 30, "dimension": 16, "parts": 3, "model": "m1",
            "settings": {"dtype": "float32"}}  # fmt: skip
    write_json(tmp_path / "meta.json", meta)
    assert Embeddings.load(tmp_path).model == "m1"
    (tmp_path / "vectors-00001.npy").unlink()
    with pytest.raises(ValueError, match=r"vectors-00001\.npy is missing, meta\.json says 3 parts"):
        Embeddings.load(tmp_path)


def test_on_a_gpu_a_flat_index_is_searched_whole_by_torch(monkeypatch):
    """The path of a GPU with torch's processor in its place: same answers, also without some."""
    embeddings, rows = clustered(300)
    monkeypatch.setattr(
        "geoloc.retrieval.index.gpu_search",
        lambda index: GpuSearch(ExactSearch(index.index.reconstruct_n(0, index.ntotal)), gives_rows=True),
    )
    plain, there = (ReferenceIndex.build(embeddings, rows, IndexSettings(device=d)) for d in ("cpu", "auto"))
    queries = clustered(20, seed=3)[0].vectors
    for index in (plain, there):
        index.remove(["p3"])
    for more in ({}, {"exclude_photographers": ["u1"] * 20, "among": np.arange(299) % 2 == 0}):
        assert (found(plain, queries, **more) == found(there, queries, **more)).all()
