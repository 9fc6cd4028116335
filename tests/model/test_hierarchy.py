"""Hierarchical softmax against products of conditionals, one cell at a time; and a training with it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoloc.models.classifier import build_classifier, load_model, save_model
from geoloc.models.embedder import example_input
from geoloc.models.hierarchy import HierarchicalSoftmax, nested_parents
from geoloc.models.prediction import predict_probabilities
from geoloc.partitions.s2 import S2Partition
from geoloc.partitions.settings import S2Settings
from geoloc.settings import replace
from geoloc.training.classification import train_classifier
from geoloc.training.settings import TrainingSettings
from tests.model.training_world import PLAIN, FourCells, world

NESTED = replace(PLAIN, softmax="hierarchical")


def product_of_conditionals(
    scores: dict[str, list[float]], parents: dict[str, list[int]]
) -> dict[str, list[float]]:
    """Probabilities, from the coarsest head down, in the plainest way."""
    names = list(scores)
    top = [math.exp(score) for score in scores[names[-1]]]
    found = {names[-1]: [value / sum(top) for value in top]}
    for name, above in reversed(list(itertools.pairwise(names))):
        found[name] = []
        for cell, score in enumerate(scores[name]):
            siblings = [
                s for s, p in zip(scores[name], parents[name], strict=True) if p == parents[name][cell]
            ]
            share = math.exp(score) / sum(math.exp(s) for s in siblings)
            found[name].append(found[above][parents[name][cell]] * share)
    return found


@given(st.integers(1, 4), st.data())
def test_it_is_the_product_of_conditionals(coarse: int, data: st.DataObject) -> None:
    middle = data.draw(st.lists(st.integers(0, coarse - 1), min_size=1, max_size=6))
    fine = data.draw(st.lists(st.integers(0, len(middle) - 1), min_size=1, max_size=8))
    numbers = st.floats(-20, 20)
    counts = {"fine": len(fine), "middle": len(middle), "coarse": coarse}
    scores = {name: data.draw(st.lists(numbers, min_size=n, max_size=n)) for name, n in counts.items()}
    parents = {"fine": fine, "middle": middle}
    row = torch.tensor([[*scores["fine"], *scores["middle"], *scores["coarse"]]], requires_grad=True)
    logs = HierarchicalSoftmax(counts, parents)(row)
    expected = product_of_conditionals(scores, parents)
    wanted = [*expected["fine"], *expected["middle"], *expected["coarse"]]
    np.testing.assert_allclose(logs.exp().detach()[0], wanted, rtol=1e-4, atol=1e-9)
    if set(fine) == set(range(len(middle))) and set(middle) == set(range(coarse)):  # no parent is childless
        assert sum(expected["fine"]) == pytest.approx(1)
    logs.sum().backward()
    assert row.grad is not None
    assert torch.isfinite(row.grad).all()


class Halves:
    """Two cells, each of which encloses two of FourCells."""

    cell_count = 2

    def assign(self, latitude: Any, longitude: Any) -> np.ndarray:
        return (np.asarray(longitude) > 5).astype(np.int32)

    def centroids(self) -> np.ndarray:
        return np.array([[0.0, 0.05], [0.0, 55.0]])

    def tokens(self) -> list[str]:
        return ["west", "east"]


HEADS = {"fine": 4, "coarse": 2}
PARENTS = {"fine": np.array([0, 0, 1, 1])}


def test_a_training_learns_both_and_a_saved_model_says_the_same(tmp_path: Path) -> None:
    pool, training, validation = world()
    model = build_classifier(NESTED, HEADS, seed=3, parents=PARENTS)
    settings = TrainingSettings(epochs=12, batch_size=4, learning_rate=0.02, device="cpu")
    partitions = {"fine": FourCells(), "coarse": Halves()}
    result = train_classifier(model, pool, training, validation, partitions, settings, 1, tmp_path / "work")
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    found, _ = predict_probabilities(model, pool, validation, 4)
    np.testing.assert_allclose(found["fine"].sum(axis=1), 1, atol=1e-5)
    # What flat heads do not promise: the parts sum to the whole.
    np.testing.assert_allclose(found["fine"][:, :2].sum(axis=1), found["coarse"][:, 0], atol=1e-5)
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors")
    pixels = example_input(model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels), model(pixels), atol=1e-4, rtol=1e-4)
        exported = torch.export.export(model, (pixels,)).module()
        torch.testing.assert_close(exported(pixels), model(pixels), atol=1e-4, rtol=1e-4)
    save_model(tmp_path / "again.safetensors", loaded)
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_parents_are_those_of_the_partitions_or_a_clear_error() -> None:
    rng = np.random.default_rng(2)
    latitude, longitude = rng.normal(45, 8, 800), rng.normal(10, 12, 800)
    fine, coarse = (
        S2Partition(S2Settings(max_photos=most, min_photos=8)).fit(latitude, longitude) for most in (40, 200)
    )
    (parents,) = nested_parents({"fine": fine, "coarse": coarse}).values()
    for photo in range(0, 800, 7):
        cell, wider = (
            int(p.assign(latitude[photo : photo + 1], longitude[photo : photo + 1])[0])
            for p in (fine, coarse)
        )
        if cell >= 0:
            assert parents[cell] == wider
    with pytest.raises(
        ValueError, match=r"each cell of coarse within one of fine: \d+ of \d+ are not; name the fin"
    ):
        nested_parents({"coarse": coarse, "fine": fine})
    with pytest.raises(ValueError, match="at least two partitions"):
        nested_parents({"fine": fine})
    with pytest.raises(ValueError, match="needs the parents of the cells"):
        build_classifier(NESTED, HEADS, seed=0)
    with pytest.raises(
        ValueError, match=r"parents of fine must be 4 cells of coarse, from 0 to 1, got .* 0 to 7"
    ):
        build_classifier(NESTED, HEADS, seed=0, parents={"fine": np.array([0, 1, 7, 0])})
