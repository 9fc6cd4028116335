"""Classifiers on frozen features, against loops and scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.frozen.knn import FrozenKnn
from geoloc.localizers.frozen.svm import FrozenSvm

KINDS = [FrozenKnn, FrozenSvm]


def photos(count=240, cells=5, seed=0, spread=0.5):
    """Unit vectors around a direction a cell, some photos in no cell; cell 3 of 0..5 has none."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(cells, 16))
    own = rng.choice([0, 1, 2, 4], count)
    vectors = directions[own] + rng.normal(0, spread, (count, 16)) * 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16), np.where(rng.random(count) < 0.1, -1, own)


def test_knn_votes_by_a_loop():
    vectors, cells = photos()
    asked, _ = photos(30, seed=1)
    model = FrozenKnn(5, k=7).fit(vectors, cells)
    found = model.predict_probabilities(asked)
    kept = np.flatnonzero(cells >= 0)
    for row in range(30):
        distance = [float(np.linalg.norm(asked[row].astype(float) - vectors[i].astype(float))) for i in kept]
        near = kept[np.argsort(distance)[:7]]
        assert found[row].tolist() == pytest.approx([(cells[near] == c).mean() for c in range(5)])
    other = KNeighborsClassifier(7).fit(vectors[kept], cells[kept])
    np.testing.assert_allclose(found[:, other.classes_], other.predict_proba(asked), atol=1e-6)
    assert model.outside == len(cells) - len(kept) == (cells < 0).sum()
    assert FrozenKnn(5, k=1000).fit(vectors[:20], cells[:20]).predict_probabilities(
        asked
    ).sum() == pytest.approx(30)


def test_svm_is_scikit_learns():
    vectors, cells = photos()
    asked, truth = photos(200, seed=1)
    model = FrozenSvm(5, c=0.7, seed=3).fit(vectors, cells)
    kept = cells >= 0
    other = LinearSVC(C=0.7, random_state=3).fit(vectors[kept].astype(float), cells[kept])
    scores = model.scores(asked)
    np.testing.assert_allclose(
        scores[:, other.classes_], other.decision_function(asked.astype(float)), atol=1e-4
    )
    assert (scores[:, 3] == -np.inf).all()
    p = model.predict_probabilities(asked)
    assert (p[:, 3] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(p.argmax(axis=1), other.predict(asked.astype(float)))
    assert (p.argmax(axis=1) == truth)[truth >= 0].mean() > 0.6
    assert model.converged


def test_two_cells_are_each_against_the_other():
    vectors, cells = photos()
    two = np.where(np.isin(cells, [1, 4]), cells, -1)
    model = FrozenSvm(5).fit(vectors, two)
    scores = model.scores(vectors)
    np.testing.assert_allclose(scores[:, 1], -scores[:, 4])
    own = two >= 0
    other = LinearSVC(random_state=0).fit(vectors[own].astype(float), two[own])
    np.testing.assert_array_equal(
        model.predict_probabilities(vectors).argmax(axis=1), other.predict(vectors.astype(float))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_are_equal_and_so_are_their_bytes(kind, tmp_path):
    vectors, cells = photos()
    asked, _ = photos(20, seed=1)
    model = kind(5).fit(vectors, cells)
    model.save(tmp_path / "a.safetensors")
    kind(5).fit(vectors, cells).save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = kind.load(tmp_path / "a.safetensors")
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded.scores(asked), model.scores(asked))
    np.testing.assert_array_equal(loaded.predict_probabilities(asked), model.predict_probabilities(asked))
    loaded.save(tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"its header has kind 'frozen {kind.kind}'"):
        (FrozenKnn if kind is FrozenSvm else FrozenSvm).load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        kind.load(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="is missing"):
        kind.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unread_photo_stays_unread(kind):
    vectors, cells = photos()
    asked = vectors[:4].copy()
    asked[2] = np.nan
    found = kind(5).fit(vectors, cells).predict_probabilities(asked)
    assert np.isnan(found).any(axis=1).tolist() == [False, False, True, False]

    class Partition:
        kind, cell_count = "made", 5

        def centres(self):
            return np.stack([np.arange(5.0), np.arange(5.0)], axis=-1)

        centroids = centres

    answers = ClassLocalizer(Partition(), model_name="frozen").locate(found)
    assert answers.abstained.tolist() == [False, False, True, False]
    assert len(kind(5).fit(vectors, cells).scores(vectors[:0])) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_learned_from_is_refused(kind, tmp_path):
    vectors, cells = photos()
    for arguments, text in (
        ((vectors, np.where(cells > 1, 1, 1)), "photos in at least 2 cells, got 1 in 240 photos"),
        ((vectors, np.full(240, -1)), "at least 2 cells, got 0"),
        ((vectors, cells + 1), r"from -1 \(in none\) to 4, got 0 to 5"),
        ((vectors[:9], cells), "must fit"),
        ((np.full_like(vectors, np.nan), cells), "must be finite"),
    ):
        with pytest.raises(ValueError, match=text):
            kind(5).fit(*arguments)
    with pytest.raises(ValueError, match="call fit"):
        kind(5).scores(vectors)
    with pytest.raises(ValueError, match="nothing to save"):
        kind(5).save(tmp_path / "x")
    with pytest.raises(ValueError, match=r"shape \(N, 16\), got \(240, 8\)"):
        kind(5).fit(vectors, cells).scores(vectors[:, :8])
    with pytest.raises(ValueError, match="cell_count must be at least 1"):
        kind(0)
    assert "not fitted" in repr(kind(5))


def test_settings_are_checked_and_convergence_is_told():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        FrozenKnn(5, k=0)
    with pytest.raises(ValueError, match="c must be above 0"):
        FrozenSvm(5, c=0)
    with pytest.raises(ValueError, match="max_iterations must be at least 1"):
        FrozenSvm(5, max_iterations=0)
    vectors, cells = photos()
    hasty = FrozenSvm(5, c=1e4, max_iterations=1).fit(vectors, cells)
    assert not hasty.converged
    assert "not converged" in repr(hasty)
