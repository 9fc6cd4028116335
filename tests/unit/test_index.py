"""The reference index against brute force, through growth, removal, exclusion and a trip to disk."""

import hashlib
import json

import faiss
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.files import content_hash
from geoloc.retrieval import index as index_module
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.factory import choose_factory
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.neighbours import stable_ids
from geoloc.retrieval.settings import IndexSettings
from geoloc.settings import SettingsError, parse

REFINED = "IVF16,PQ4x4fs,Refine(SQfp16)"


def made_references(count, dimension=16, seed=0, photographers=7, prefix="p"):
    """Random unit vectors and their table; photographer 0 owns half of everything, some are unknown."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    owner = np.where(rng.random(count) < 0.5, 0, rng.integers(1, photographers + 1, count))
    rows = pd.DataFrame(
        {
            "photo_id": [f"{prefix}{i}" for i in range(count)],
            "latitude": rng.uniform(-90, 90, count),
            "longitude": rng.uniform(-180, 180, count),
            "photographer": [None if o == photographers else f"u{o}" for o in owner],
        }
    )
    return Embeddings(rows["photo_id"].to_numpy(dtype=object), vectors), rows


def by_brute_force(query, vectors, rows, k, photographer=None, photo=None):
    """photo_ids of the k most similar by a loop over all references."""
    scored = []
    for vector, (_, row) in zip(vectors, rows.iterrows(), strict=True):
        if photographer is not None and row["photographer"] == photographer:
            continue
        if photo is not None and row["photo_id"] == photo:
            continue
        scored.append((-float(np.dot(query.astype(np.float64), vector.astype(np.float64))), row["photo_id"]))
    return [photo_id for _, photo_id in sorted(scored)[:k]]


def test_search_is_brute_force_and_says_where_the_neighbours_are():
    embeddings, rows = made_references(150)
    index = ReferenceIndex.build(embeddings, rows)
    queries = made_references(9, seed=1)[0].vectors
    found = index.search(queries, 12)
    assert found.similarity.dtype == np.float32
    by_id = rows.set_index("photo_id")
    for q in range(9):
        expected = by_brute_force(queries[q], embeddings.vectors, rows, 12)
        assert found.photo_ids()[q].tolist() == expected
        np.testing.assert_array_equal(found.latitude[q], by_id.loc[expected, "latitude"])
        np.testing.assert_array_equal(found.longitude[q], by_id.loc[expected, "longitude"])
        np.testing.assert_array_equal(found.id[q], stable_ids(expected))
        own = embeddings.subset(expected).vectors @ queries[q]
        np.testing.assert_allclose(found.similarity[q], own, atol=1e-6)
    assert index.references["photo_id"].to_numpy()[found.row[0]].tolist() == found.photo_ids()[0].tolist()


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat"])
@pytest.mark.parametrize("limit", [0, 10_000])
def test_excluding_a_photographer_who_owns_half_of_everything(factory, limit, monkeypatch):
    """Both ways of leaving out (fetching more, and FAISS skipping) equal brute force; all lists are probed."""
    monkeypatch.setattr(index_module, "_OVERFETCH_LIMIT", limit)
    embeddings, rows = made_references(400)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory, nprobe=16))
    queries = made_references(12, seed=2)[0].vectors.copy()
    queries[[1, 2, 6, 11]] = embeddings.vectors[[7, 8, 9, 3]]  # photos of the index, to be left out below
    owners = ["u0", "u0", None, "u1", "u2", "stranger", "u3", "u4", "u5", "u6", "u0", np.nan]
    photos = [None, "p7", "p8", None, "absent", None, "p9", None, None, None, None, "p3"]
    found = index.search(queries, 20, exclude_photographers=owners, exclude_photos=photos)
    for q in range(12):
        owner = None if pd.isna(owners[q]) else owners[q]
        expected = by_brute_force(queries[q], embeddings.vectors, rows, 20, owner, photos[q])
        assert found.photo_ids()[q].tolist() == expected

    # Near-duplicates by others too: every seventh photo is of one group, others of none.
    rows["near_duplicates"] = np.where(np.arange(400) % 7 == 0, "p0", None)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory, nprobe=16))
    groups = ["p0", None, "p0", "absent", "p0", "p0", None, "p0", "p0", "p0", "p0", "p0"]
    found = index.search(queries, 20, owners, photos, groups)
    for q in range(12):
        owner = None if pd.isna(owners[q]) else owners[q]
        left = (rows["near_duplicates"] != "p0").to_numpy() if groups[q] == "p0" else np.ones(400, dtype=bool)
        expected = by_brute_force(
            queries[q], embeddings.vectors[left], rows[left].reset_index(drop=True), 20, owner, photos[q]
        )
        assert found.photo_ids()[q].tolist() == expected


@pytest.mark.slow
def test_excluding_from_a_refined_index_leaves_out_exactly_those(monkeypatch):
    monkeypatch.setattr(index_module, "_OVERFETCH_LIMIT", 50)
    embeddings, rows = made_references(2000)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory=REFINED, nprobe=16, k_factor=100))
    index.remove([f"p{i}" for i in range(0, 2000, 3)])  # positions and rows must go on agreeing
    left = rows[rows.index % 3 != 0]
    found = index.search(embeddings.vectors[:40], 5, exclude_photographers=["u0"] * 40)
    hits = 0
    for q in range(40):
        expected = by_brute_force(
            embeddings.vectors[q], embeddings.subset(left["photo_id"]).vectors, left, 5, "u0"
        )
        names = found.photo_ids()[q].tolist()
        assert not set(left.loc[left["photographer"] == "u0", "photo_id"]) & set(names)
        hits += len(set(names) & set(expected))
    assert hits / 200 > 0.9


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None)
def test_where_there_are_fewer_than_k_the_rest_is_marked_absent(references, k, seed):
    embeddings, rows = made_references(references, seed=seed)
    index = ReferenceIndex.build(embeddings, rows)
    found = index.search(embeddings.vectors[:1], k, exclude_photographers=["u0"])
    left = int((rows["photographer"] != "u0").sum())
    present = min(k, left)
    assert found.row.shape == found.similarity.shape == found.latitude.shape == (1, k)
    assert (found.row[0, :present] >= 0).all()
    for values in (found.row, found.id):
        assert (values[0, present:] == -1).all()
    for values in (found.similarity, found.latitude, found.longitude):
        assert np.isfinite(values[0, :present]).all()
        assert np.isnan(values[0, present:]).all()
    assert found.photo_ids()[0, present:].tolist() == [None] * (k - present)
    assert found.photo_ids()[0, :present].tolist() == by_brute_force(
        embeddings.vectors[0], embeddings.vectors, rows, present, "u0"
    )


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", REFINED, "IVF8,SQ8,RFlat", "HNSW8"])
def test_ids_survive_growth_and_removal(factory):
    old, old_rows = made_references(600, seed=0)
    new, new_rows = made_references(300, seed=1, prefix="n")
    index = ReferenceIndex.build(old, old_rows, IndexSettings(factory=factory, nprobe=16))
    before = dict(zip(index.references["photo_id"], index.references["id"], strict=True))
    assert index.add(new, new_rows) == 300
    gone = [f"p{i}" for i in range(0, 600, 2)] + [f"n{i}" for i in range(0, 300, 5)]
    assert index.remove([*gone, "never there"]) == len(gone)
    assert index.remove(gone) == 0
    assert len(index) == 900 - len(gone)
    after = dict(zip(index.references["photo_id"], index.references["id"], strict=True))
    assert all(before[p] == i for p, i in after.items() if p in before)
    assert not set(gone) & set(after)
    # Each photo that is left finds itself, under its own id and at its own place; none that left is found.
    everything = pd.concat([old_rows, new_rows])
    left = everything[~everything["photo_id"].isin(gone)].set_index("photo_id")
    vectors = {
        **dict(zip(old.photo_ids, old.vectors, strict=True)),
        **dict(zip(new.photo_ids, new.vectors, strict=True)),
    }
    found = index.search(np.stack([vectors[p] for p in left.index]), 1)
    names = found.photo_ids()[:, 0]
    assert (names == left.index.to_numpy(dtype=object)).mean() > 0.98
    assert set(names) <= set(left.index)
    np.testing.assert_array_equal(found.latitude[:, 0], left.loc[names, "latitude"])
    np.testing.assert_array_equal(found.id[:, 0], stable_ids(names))
    assert index.search(np.stack([vectors[p] for p in gone]), 5).row.max() < len(index)
    index.remove(list(left.index))
    assert (index.search(old.vectors[:2], 3).row == -1).all()


def test_an_empty_index_finds_nothing_where_faiss_would_crash():
    embeddings, rows = made_references(300)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory="PQ4x4fs,Refine(SQfp16)"))
    index.remove(list(rows["photo_id"]))
    assert (index.search(embeddings.vectors[:2], 3).row == -1).all()


def test_growing_is_the_same_as_building_at_once():
    embeddings, rows = made_references(200)
    whole = ReferenceIndex.build(embeddings, rows)
    grown = ReferenceIndex.build(embeddings, rows.iloc[:50])
    grown.add(embeddings, rows.iloc[50:])
    a, b = whole.search(embeddings.vectors, 10), grown.search(embeddings.vectors, 10)
    np.testing.assert_array_equal(a.row, b.row)
    np.testing.assert_array_equal(a.similarity, b.similarity)


def test_a_removed_vector_is_gone_from_the_file(tmp_path):
    embeddings, rows = made_references(50)
    index = ReferenceIndex.build(embeddings, rows)
    secret = embeddings.vectors[7].tobytes()
    index.save(tmp_path / "before")
    assert secret in (tmp_path / "before" / "index.faiss").read_bytes()
    index.remove(["p7"])
    index.save(tmp_path / "after")
    assert secret not in (tmp_path / "after" / "index.faiss").read_bytes()
    assert b"p7" not in (tmp_path / "after" / "references.parquet").read_bytes()


def test_photos_without_embedding_are_counted_and_other_embeddings_ignored():
    embeddings, rows = made_references(20)
    some = embeddings.subset([f"p{i}" for i in range(5, 20)])
    index = ReferenceIndex.build(some, rows.iloc[:10])
    assert index.references["photo_id"].tolist() == ["p5", "p6", "p7", "p8", "p9"]
    assert index.without_embedding == 5
    index.add(some, rows.iloc[10:])
    assert len(index) == 15
    assert index.without_embedding == 5


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", REFINED])
def test_saved_and_loaded_it_answers_the_same_and_seeds_give_the_same_bytes(tmp_path, factory):
    embeddings, rows = made_references(1500)
    chosen = IndexSettings(factory=factory, nprobe=3, k_factor=7)
    for name in ("one", "two"):
        ReferenceIndex.build(embeddings, rows, chosen, seed=5).save(tmp_path / name)
    index = ReferenceIndex.build(embeddings, rows, chosen, seed=5)
    loaded = ReferenceIndex.load(tmp_path / "one")
    queries = made_references(30, seed=3)[0].vectors
    for exclude in (None, ["u0"] * 30):
        a, b = index.search(queries, 8, exclude), loaded.search(queries, 8, exclude)
        for name in ("row", "id", "similarity", "latitude", "longitude"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert loaded.settings == chosen
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "index.faiss",
        "meta.json",
        "references.parquet",
    ]
    for name in ("index.faiss", "meta.json", "references.parquet"):
        assert content_hash(tmp_path / "one" / name) == content_hash(tmp_path / "two" / name)
    if "IVF" in factory:
        ReferenceIndex.build(embeddings, rows, chosen, seed=6).save(tmp_path / "three")
        assert content_hash(tmp_path / "three/index.faiss") != content_hash(tmp_path / "one/index.faiss")


def test_a_damaged_or_mixed_folder_is_refused(tmp_path):
    embeddings, rows = made_references(30)
    folder = tmp_path / "index"
    ReferenceIndex.build(embeddings, rows).save(folder)
    path = folder / "index.faiss"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="bytes, expected"):
        ReferenceIndex.load(folder)
    path.write_bytes(whole)
    references = pd.read_parquet(folder / "references.parquet")
    references.iloc[::-1].to_parquet(folder / "references.parquet", index=False)
    with pytest.raises(ValueError, match="different ids"):
        ReferenceIndex.load(folder)
    references.iloc[:-1].to_parquet(folder / "references.parquet", index=False)
    with pytest.raises(ValueError, match="inconsistent"):
        ReferenceIndex.load(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        ReferenceIndex.load(folder)
    with pytest.raises(FileNotFoundError):
        ReferenceIndex.load(tmp_path / "nothing")


def test_ids_are_63_bits_of_blake2b_and_collisions_are_refused(monkeypatch):
    assert stable_ids(["a"]).tolist() == [
        3405396810240292928
    ]  # the same in every version, or saved indexes could not grow
    for name in ("a", "photo/1", "Zürich"):
        number = int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "little")
        assert stable_ids([name]).tolist() == [number % 2**63]
    assert stable_ids([]).shape == (0,)
    monkeypatch.setattr(
        index_module, "stable_ids", lambda ids: np.array([len(i) for i in ids], dtype=np.int64)
    )
    embeddings, rows = made_references(11)
    with pytest.raises(ValueError, match=r"photo ids \['p0', 'p1'\] have the same 63-bit id"):
        ReferenceIndex.build(embeddings, rows)
    index = ReferenceIndex.build(embeddings, rows.iloc[9:])
    with pytest.raises(ValueError, match="same 63-bit id"):
        index.add(embeddings, rows.iloc[:1])
    assert len(index) == 2


def test_wrong_input_is_named():
    embeddings, rows = made_references(10)
    index = ReferenceIndex.build(embeddings, rows)
    with pytest.raises(ValueError, match="already in the index"):
        index.add(embeddings, rows.iloc[:1])
    assert len(index) == 10
    with pytest.raises(ValueError, match="in the references twice"):
        ReferenceIndex.build(embeddings, pd.concat([rows, rows]))
    with pytest.raises(ValueError, match=r"'p3' has no valid latitude and longitude \(1 such rows\)"):
        ReferenceIndex.build(
            embeddings, rows.assign(latitude=rows["latitude"].where(rows.index != 3, np.nan))
        )
    with pytest.raises(ValueError, match="missing: photographer"):
        ReferenceIndex.build(embeddings, rows.drop(columns="photographer"))
    with pytest.raises(ValueError, match="nothing to index"):
        ReferenceIndex.build(embeddings, rows.assign(photo_id=rows["photo_id"] + "x"))
    with pytest.raises(ValueError, match="'Nonsense' is not one that FAISS takes"):
        ReferenceIndex.build(embeddings, rows, IndexSettings(factory="Nonsense"))
    with pytest.raises(ValueError, match="cannot be trained"):
        ReferenceIndex.build(embeddings, rows, IndexSettings(factory="IVF64,Flat"))
    with pytest.raises(ValueError, match="could not forget"):
        ReferenceIndex.build(embeddings, rows, IndexSettings(factory="PCA8,IVF2,Flat"))
    for factory, told in (
        ("IDMap,Flat", "must be without IDMap"),
        ("IVF0,Flat", "must have at least one list"),
    ):
        with pytest.raises(SettingsError, match=told):
            ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory))
    with pytest.raises(ValueError, match=r"shape \(Q, 16\), got \(2, 5\)"):
        index.search(np.zeros((2, 5)), 1)
    with pytest.raises(ValueError, match="finite"):
        index.search(np.full((1, 16), np.nan), 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.search(embeddings.vectors, 0)
    with pytest.raises(ValueError, match=r"exclude_photographers must have shape \(10,\), got \(1,\)"):
        index.search(embeddings.vectors, 1, exclude_photographers=["u0"])
    with pytest.raises(SettingsError, match=r"index\.k_factor must be at least 1, got 0"):
        parse(IndexSettings, {"k_factor": 0}, "index")


def test_the_factory_follows_the_size():
    assert choose_factory(99_999, 512) == "Flat"
    assert choose_factory(100_000, 512) == "IVF1024,Flat"
    assert choose_factory(1_000_000, 512) == "IVF4096,PQ256x4fs,Refine(SQfp16)"
    assert choose_factory(2_000_000, 511) == "IVF4096,Flat"  # no quarter of 511


def test_what_few_probed_lists_do_not_hold_is_absent():
    embeddings, rows = made_references(400)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory="IVF16,Flat", nprobe=1))
    found = index.search(embeddings.vectors[:20], 300, exclude_photographers=["u1"] * 20)
    assert (found.row[:, 0] >= 0).all()
    assert (found.row[:, 200:] == -1).all()
    assert np.isnan(found.latitude[found.row < 0]).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in found.row)


def test_searching_leaves_faiss_as_it_was():
    embeddings, rows = made_references(10)
    before = faiss.cvar.distance_compute_blas_threshold
    seen = []
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(blas_threshold=77))
    original = index._fetch
    index._fetch = lambda *a: (seen.append(faiss.cvar.distance_compute_blas_threshold), original(*a))[1]
    index.search(embeddings.vectors, 2)
    assert seen == [77]
    assert faiss.cvar.distance_compute_blas_threshold == before


def test_float16_embeddings_find_what_float32_ones_find():
    embeddings, rows = made_references(300, dimension=64)
    half = Embeddings(embeddings.photo_ids, embeddings.vectors.astype(np.float16))
    a = ReferenceIndex.build(embeddings, rows).search(embeddings.vectors, 1)
    b = ReferenceIndex.build(half, rows).search(half.vectors, 1)
    np.testing.assert_array_equal(a.row, b.row)
    np.testing.assert_allclose(a.similarity, b.similarity, atol=2e-3)
