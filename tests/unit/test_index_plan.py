"""Which index is chosen and why, and how thoroughly it then searches."""

from dataclasses import replace as changed

import numpy as np
import pytest

from geoloc.retrieval.exact import ExactSearch
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.plan import index_bytes, plan_index
from geoloc.retrieval.settings import IndexSettings
from geoloc.retrieval.tuning import Tuned
from tests.unit.indexed import clustered, true_nearest

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("references", "settings", "factory", "words"),
    [
        (99_999, {}, "Flat", "exact, and fast enough"),
        (300_000, {}, "IVF2048,Flat", "tuning"),
        (300_000, {"recall": 0.99}, "HNSW32", "one thread"),
        (300_000, {"recall": 0.99, "memory_gb": 0.65}, "IVF2048,Flat", "not HNSW32"),
        (MILLION, {}, "IVF4096,PQ256x4fs,Refine(SQfp16)", "ranks the best again"),
        (MILLION, {"recall": 1.0}, "Flat", "index.recall 1 needs the exact one"),
        (MILLION, {"memory_gb": 1.0}, "IVF4096,PQ256x4fs,Refine(SQ8)", "over index.memory_gb 1"),
        (MILLION, {"memory_gb": 0.2}, "IVF4096,PQ256x4fs", "may stay below 0.95"),
        (MILLION, {"factory": "HNSW16"}, "HNSW16", "as index.factory says"),
    ],
)
def test_size_memory_and_recall_choose_the_index_and_it_says_why(references, settings, factory, words):
    plan = plan_index(references, 512, IndexSettings(**settings))
    assert plan.factory == factory
    assert words in plan.reason
    assert plan.bytes == index_bytes(factory, references, 512)
    assert not settings.get("memory_gb") or plan.bytes <= settings["memory_gb"] * 1e9


def test_too_little_memory_names_what_the_smallest_needs():
    with pytest.raises(
        ValueError, match=r"memory_gb 0\.01 is too small for 1,000,000 references × 512 .* needs 0\.0"
    ):
        plan_index(MILLION, 512, IndexSettings(memory_gb=0.01))
    with pytest.raises(ValueError, match=r"recall 1: the smallest index needs 2\.06 GB"):
        plan_index(MILLION, 512, IndexSettings(memory_gb=2, recall=1.0))


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF16,Flat", "IVF16,SQfp16", "IVF16,PQ16x4fs,Refine(SQfp16)", "IVF16,PQ16x4fs,Refine(SQ8)",
                "IVF16,PQ16x4fs", "HNSW8"],
)  # fmt: skip
def test_an_index_is_as_large_as_its_plan_says(factory, tmp_path):
    embeddings, rows = clustered(4000, dimension=64)
    ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory, tune_queries=0)).save(
        tmp_path / "i"
    )
    found = (tmp_path / "i" / "index.faiss").stat().st_size
    assert index_bytes(factory, 4000, 64) == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("factory", ["IVF32,Flat", "IVF32,PQ8x4fs,Refine(SQfp16)", "HNSW8"])
def test_the_search_is_tuned_to_the_wanted_recall_which_is_what_brute_force_finds(
    factory, tmp_path, monkeypatch
):
    monkeypatch.setattr("geoloc.retrieval.tuning._BLOCK_ROWS", 700)
    embeddings, rows = clustered(3000)
    made = {
        recall: ReferenceIndex.build(embeddings, rows, IndexSettings(factory=factory, recall=recall), seed=1)
        for recall in (0.6, 0.95)
    }
    work = [max(made[r].tuned.nprobe, made[r].tuned.ef_search) for r in (0.6, 0.95)]
    assert work[0] < work[1]
    queries, _ = clustered(100, seed=5)
    for recall, index in made.items():
        assert index.tuned.recall >= recall
        assert (index.tuned.at, index.tuned.queries) == (100, 200)
        expected = true_nearest(queries.vectors, embeddings.vectors, rows, 100)
        found = index.search(queries.vectors, 100).photo_ids()
        measured = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found, expected, strict=True)])
        # Above it where two lists hold fewer than 100 references: a search then goes deeper.
        assert index.tuned.recall - 0.05 < measured < index.tuned.recall + (0.25 if recall == 0.6 else 0.05)
    made[0.95].save(tmp_path / "index")
    loaded = ReferenceIndex.load(tmp_path / "index")
    assert (loaded.tuned, loaded.reason) == (made[0.95].tuned, made[0.95].reason)
    again = loaded.search(queries.vectors, 20), made[0.95].search(queries.vectors, 20)
    np.testing.assert_array_equal(again[0].id, again[1].id)


def test_more_lists_are_scanned_before_more_is_ranked_again():
    """The least work of all that reaches the recall; a byte that is ranked costs four that are scanned."""
    embeddings, rows = clustered(3000)

    def tuned(**settings) -> Tuned:
        fixed = IndexSettings(factory="IVF32,PQ4x4fs,Refine(SQfp16)", tune_queries=200, **settings)
        return ReferenceIndex.build(embeddings, rows, fixed, seed=1).tuned

    work = {}
    for lists in (1, 2, 4, 8, 16, 32):
        for factor in (1, 2, 3, 4, 6, 8):
            scanned = lists / 32 * 3000 * 2
            work[scanned + 4 * factor * 100 * 2 * 16] = tuned(nprobe=lists, k_factor=factor)
    for recall in (0.8, 0.9, 0.973):
        least = min(bytes_read for bytes_read, one in work.items() if one.recall >= recall)
        assert tuned(recall=recall, k_factor=2) == work[least]
    assert tuned(recall=0.5, k_factor=1).k_factor == 1


def test_what_the_settings_fix_is_measured_and_not_changed():
    embeddings, rows = clustered(2000)
    index = ReferenceIndex.build(embeddings, rows, IndexSettings(factory="IVF32,Flat", nprobe=1))
    assert index.tuned.nprobe == 1
    assert 0.1 < index.tuned.recall < 0.95
    untuned = ReferenceIndex.build(embeddings, rows, IndexSettings(factory="IVF32,Flat", tune_queries=0))
    assert untuned.tuned == changed(untuned.tuned, nprobe=2, recall=None)
    exact = ReferenceIndex.build(embeddings, rows)
    assert str(exact.tuned) == "exact"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_exact_search_by_torch_is_brute_force_in_blocks_and_in_subsets(dtype, monkeypatch):
    monkeypatch.setattr("geoloc.retrieval.exact._BLOCK_CELLS", 700)
    monkeypatch.setattr("geoloc.retrieval.exact._QUERIES", 7)
    embeddings, rows = clustered(500)
    vectors = embeddings.vectors.astype(dtype)
    queries = clustered(20, seed=3)[0].vectors
    search = ExactSearch(vectors)
    found, similarity = search.search(queries, 150)
    assert (rows["photo_id"].to_numpy()[found] == true_nearest(queries, vectors, rows, 150)).all()
    np.testing.assert_allclose(
        similarity, np.take_along_axis(queries @ vectors.astype(np.float32).T, found, axis=1), atol=1e-5
    )
    among = np.arange(500) % 50 == 0  # 10 of them
    found, similarity = search.search(queries, 12, among)
    assert (found[:, :10] % 50 == 0).all()
    assert (found[:, 10:] == -1).all()
    assert np.isnan(similarity[:, 10:]).all()
    with pytest.raises(ValueError, match=r"shape \(Q, 16\), got \(2, 3\)"):
        search.search(np.zeros((2, 3)), 1)
