"""Principal components: equal to scikit-learn's, stored beside the embeddings, and refused where there are too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from geoloc.files import DamagedFile
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.retrieval.settings import PcaSettings
from geoloc.settings import SettingsError
from tests.unit.indexed import clustered
from tests.unit.test_index_stage import write_embeddings


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(12, 60), st.integers(2, 9), st.booleans())
def test_it_is_scikit_learns(seed: int, count: int, size: int, whiten: bool) -> None:
    numbers = np.random.default_rng(seed)
    x = (numbers.normal(size=(count, size)) * numbers.uniform(0.5, 3, size) + 1).astype(np.float32)
    kept = int(numbers.integers(1, size + 1))
    ours = Pca.fit(x, PcaSettings(dimensions=kept, whiten=whiten))
    theirs = PCA(kept, whiten=whiten, svd_solver="full").fit(x.astype(np.float64))
    wanted = theirs.transform(x)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = ours.transform(x)
    # Their signs depend on the solver.
    signs = np.sign((found * wanted).sum(axis=0))
    np.testing.assert_allclose(found, wanted * signs, atol=2e-3)
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_, rtol=1e-3)
    assert (ours.components[np.arange(kept), np.abs(ours.components).argmax(axis=1)] > 0).all()


def test_a_sample_of_the_photos_by_the_seed():
    x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    first, same, other = (
        Pca.fit(x, PcaSettings(dimensions=3, max_photos=50, seed=seed)).components for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01


def test_embeddings_with_components_beside_them_are_those(tmp_path):
    embeddings, _ = clustered(200, model="m")
    write_embeddings(tmp_path, embeddings)
    pca = Pca.fit(embeddings.vectors, PcaSettings(dimensions=4))
    pca.save(tmp_path / PCA_FILE)
    found = Embeddings.load(tmp_path)
    np.testing.assert_array_equal(found.vectors, pca.transform(embeddings.vectors))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    assert found.model not in ("m", "")
    assert found.model != Pca(pca.mean + 1, pca.components, pca.explained).model_of("m")
    for damage in (b"no tensors", (tmp_path / PCA_FILE).read_bytes()[:-8]):
        (tmp_path / PCA_FILE).write_bytes(damage)
        with pytest.raises(DamagedFile, match=r"pca\.safetensors"):
            Embeddings.load(tmp_path)
    Pca.fit(embeddings.vectors[:, :8], PcaSettings(dimensions=4)).save(tmp_path / PCA_FILE)
    with pytest.raises(DamagedFile, match="it is of 8 dimensions, the embeddings have 16"):
        Embeddings.load(tmp_path)


def test_more_components_than_there_are():
    x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    for vectors, most in ((x, 5), (x[:4], 3), (x[:1], 0), (np.concatenate([x[:, :3], x[:, :2]], axis=1), 3)):
        with pytest.raises(SettingsError, match=f"embeddings.pca.dimensions must be at most {most}"):
            Pca.fit(vectors, PcaSettings(dimensions=most + 1 if most != 3 or len(vectors) == 4 else 5))
