"""Running a network over photos: stored or decoded the same bits, and the network is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from geoloc.models.batches import batches_of_pixels, decode, iter_batches
from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.prediction import (
    predict_probabilities,
    predict_probabilities_of_pixels,
    run_network,
    unit_embeddings,
    unit_embeddings_of_pixels,
)
from tests.model.training_world import TINY, tiny_model, world

HEADS = {"fine": 4, "coarse": 3}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_heads() -> Classifier:
    return build_classifier(TINY, HEADS, seed=3)


@pytest.mark.parametrize("crops", [1, 5])
def test_stored_and_decoded_photos_give_the_same_bits(crops: int) -> None:
    """As the evaluation has them and as `geoloc locate` has them, whatever the layout that the model came in."""
    pool, _, rows = world()
    stored, unreadable = predict_probabilities(
        two_heads().to(memory_format=torch.channels_last), pool, rows, 3, crops=crops
    )
    assert not len(unreadable)
    photos = [decode(pool.photos[position]) for position in rows["offset"]]
    found = predict_probabilities_of_pixels(two_heads(), photos, 3, crops)
    assert list(found) == list(HEADS)
    for name, p in found.items():
        assert p.dtype == np.float32
        assert p.tobytes() == stored[name].tobytes()
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    vectors = unit_embeddings_of_pixels(two_heads(), photos, 3)
    from_pool = unit_embeddings(two_heads(), iter_batches(pool, rows, two_heads().preprocess, 3))
    assert vectors.tobytes() == b"".join(found["vectors"].tobytes() for _, found in from_pool if found)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert predict_probabilities_of_pixels(two_heads(), [], 3)["coarse"].shape == (0, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        predict_probabilities_of_pixels(two_heads(), photos, 0)


def test_the_network_is_left_as_it_was_and_batches_come_in_order() -> None:
    pool, _, rows = world()
    for position in (0, 1, 5):
        pool.photos[int(rows["offset"].iloc[position])] = b"not a photo"
    model = tiny_model().train()

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        assert not model.training
        assert torch.is_inference_mode_enabled()
        assert images.is_contiguous(memory_format=torch.channels_last)
        return {"count": torch.ones(len(images))}

    seen = []
    for batch, found in run_network(model, forward, iter_batches(pool, rows, model.preprocess, 2)):
        assert not torch.is_inference_mode_enabled()
        assert (found is None) == (len(batch.row_indices) == 0)
        if found is not None:
            assert len(found["count"]) == len(batch.row_indices)
        seen.append((batch.row_indices.tolist(), batch.unreadable_indices.tolist()))
    assert seen == [([], [0, 1]), ([2, 3], []), ([4], [5]), ([6, 7], [])]
    assert model.training

    # Left early, by an error or a caller that has seen enough.
    def fails(images: torch.Tensor) -> dict[str, torch.Tensor]:
        raise KeyError("no")

    photos = [np.zeros((40, 40, 3), np.uint8)] * 3
    with pytest.raises(KeyError):
        list(run_network(model, fails, batches_of_pixels(photos, model.preprocess, 1)))
    assert model.training
    some = run_network(model, forward, batches_of_pixels(photos, model.preprocess, 1))
    next(some)
    some.close()
    assert model.training


def test_filters_are_in_the_layout_that_is_asked_for() -> None:
    model = tiny_model()
    photos = [np.zeros((40, 40, 3), np.uint8)] * 2
    weight = model.backbone.get_parameter("conv1.0.weight")
    for channels_last in (True, False):

        def forward(images: torch.Tensor, wanted: bool = channels_last) -> dict[str, torch.Tensor]:
            layout = torch.channels_last if wanted else torch.contiguous_format
            assert images.is_contiguous(memory_format=layout)
            assert weight.is_contiguous(memory_format=layout)
            return {"features": model.embed(images)}

        list(run_network(model, forward, batches_of_pixels(photos, model.preprocess, 2), channels_last))


def test_an_embedding_of_zeros_stays_zero_and_its_norm_says_so() -> None:
    class Zeros(torch.nn.Module):
        preprocess = tiny_model().preprocess

        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.zeros(1))

        def embed(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3)) * self.factor

    model = Zeros()
    photos = [np.full((40, 40, 3), 200, np.uint8)] * 2
    ((_, found),) = unit_embeddings(model, batches_of_pixels(photos, model.preprocess, 2))
    assert found is not None
    assert not found["vectors"].any()
    assert not found["norms"].any()
