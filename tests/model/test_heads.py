"""Several partitions: a head each, their losses added up, photos that are in no cell of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoloc.localizers.by_class.cells import class_localizers
from geoloc.losses.heads import HeadLoss, sum_of_heads
from geoloc.models.batches import decode
from geoloc.models.classifier import (
    Classifier,
    build_classifier,
    load_model,
    save_model,
)
from geoloc.models.embedder import example_input
from geoloc.models.prediction import predict_probabilities
from geoloc.models.preprocess import CROPS
from geoloc.settings import replace
from geoloc.training.classification import train_classifier
from geoloc.training.loop import TrainingResult
from geoloc.training.settings import CurriculumSettings, TrainingSettings
from geoloc.training.source import TrainingError
from tests.model.training_world import LONGITUDES, PLAIN, FourCells, world

FROZEN = TrainingSettings(
    mode="frozen", epochs=3, batch_size=4, learning_rate=0.02, device="cpu", progress_steps=1
)


class TwoCells:
    """Coarse cells: the first three places of the world, and a place where no photo is; the fourth is in none."""

    cell_count = 3
    kind = "coarse"

    def assign(self, latitude: Any, longitude: Any) -> np.ndarray:
        longitude = np.asarray(longitude)
        return np.select([longitude < 0.05, longitude < 50], [0, 1], -1).astype(np.int32)

    def centroids(self) -> np.ndarray:
        return np.array([[0.0, LONGITUDES[0]], [0.0, 10.0], [50.0, 50.0]])

    centres = centroids

    def tokens(self) -> list[str]:
        return ["west", "middle", "empty"]


PARTITIONS = {"fine": FourCells(), "coarse": TwoCells()}
HEADS = {"fine": 4, "coarse": 3}


def train(
    folder: Path, settings: TrainingSettings = FROZEN, **changes: Any
) -> tuple[Classifier, TrainingResult]:
    pool, training, validation = world()
    model = build_classifier(PLAIN, changes.pop("heads", HEADS), seed=3)
    given = {"train": training, "validation": validation, "partitions": PARTITIONS} | changes
    result = train_classifier(model, pool, settings=settings, seed=1, checkpoint_folder=folder, **given)
    return model, result


def test_the_loss_is_the_weighted_sum_and_photos_in_no_cell_count_as_nothing() -> None:
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=(6, count)) for name, count in HEADS.items()}
    cells = np.array([[0, 0], [3, -1], [-1, 1], [2, 1], [1, -1], [0, 0]])
    weights = np.array([2.0, 1.0, 0.5, 1.0])
    losses = {"fine": HeadLoss(2.0, torch.from_numpy(weights)), "coarse": HeadLoss(0.5)}
    expected = 0.0
    for row, (fine, coarse) in enumerate(cells):
        if fine >= 0:
            e = np.exp(scores["fine"][row])
            expected += 2.0 * weights[fine] * -np.log(e[fine] / e.sum()) / 6
        if coarse >= 0:
            e = np.exp(scores["coarse"][row])
            expected += 0.5 * -np.log(e[coarse] / e.sum()) / 6
    given = {name: torch.from_numpy(of_head).requires_grad_() for name, of_head in scores.items()}
    found = sum_of_heads(losses, given, torch.from_numpy(cells), torch.zeros(6, 3))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    gradient = given["coarse"].grad
    assert gradient is not None
    assert (gradient.abs().sum(dim=1) > 0).tolist() == [True, False, True, True, False, True]


def test_both_heads_learn_and_are_measured_apart(tmp_path: Path) -> None:
    model, result = train(tmp_path, replace(FROZEN, epochs=12, head_weights={"coarse": 0.5}))
    assert result.left_out == {
        "training_no_cell": 0,
        "training_no_cell_fine": 0,
        "training_no_cell_coarse": 3,
        "validation_no_cell": 0,
        "validation_no_cell_fine": 0,
        "validation_no_cell_coarse": 2,
        "training_unreadable": 0,
    }
    record = result.history[result.best_epoch - 1]
    both = record["fine_validation_loss"] + 0.5 * record["coarse_validation_loss"]
    assert record["validation_loss"] == pytest.approx(both)
    assert record["accuracy"] == record["fine_accuracy"] > 0.6
    assert 0.5 < record["coarse_accuracy"] <= 6 / 8  # two of eight photos are in no coarse cell
    pool, _, validation = world()
    probabilities, unreadable = predict_probabilities(model, pool, validation, 3)
    assert len(unreadable) == 0
    assert {name: p.shape for name, p in probabilities.items()} == {"fine": (8, 4), "coarse": (8, 3)}
    for name, partition in PARTITIONS.items():
        np.testing.assert_allclose(probabilities[name].sum(axis=1), 1, atol=1e-6)
        right = probabilities[name].argmax(axis=1) == partition.assign(0, validation["longitude"])
        assert right.mean() == record[f"{name}_accuracy"]


def test_a_head_that_weighs_nothing_stays_as_it_was(tmp_path: Path) -> None:
    before = build_classifier(PLAIN, HEADS, seed=3).head.weight.detach().clone()
    settings = replace(FROZEN, head_weights={"coarse": 0.0}, weight_decay=0.0)
    after = train(tmp_path, settings)[0].head.weight.detach()
    assert torch.equal(before[4:], after[4:])
    assert not torch.equal(before[:4], after[:4])


def test_a_photo_in_no_cell_of_a_head_does_not_train_that_head(tmp_path: Path) -> None:
    """All photos of the fourth colour are in no coarse cell: without them the coarse head learns the same."""
    settings = replace(FROZEN, head_weights={"fine": 0.0}, batch_size=64, epochs=2, weight_decay=0.0)
    _, training, validation = world()
    inside = training[training["longitude"] < 50]
    optimiser = {"optimiser": "adagrad"}  # does not see that all gradients are smaller by a factor
    settings = replace(settings, **optimiser)
    whole = train(tmp_path / "a", settings, validation=validation[:0])[0].head.weight[4:]
    without = train(tmp_path / "b", settings, train=inside, validation=validation[:0])[0].head.weight[4:]
    torch.testing.assert_close(whole, without, atol=1e-6, rtol=1e-4)


def test_a_saved_model_keeps_its_heads_in_order(tmp_path: Path) -> None:
    model = build_classifier(PLAIN, HEADS, seed=3).eval()
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors")
    assert list(loaded.heads.items()) == list(HEADS.items())
    pixels = example_input(model, 3)
    with torch.no_grad():
        found = loaded.split(loaded(pixels))
        for name, of_head in model.split(model(pixels)).items():
            torch.testing.assert_close(found[name], of_head)


def test_heads_that_do_not_match_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has the heads fine, coarse, the partitions are coarse, fine"):
        train(tmp_path, partitions=dict(reversed(PARTITIONS.items())))
    with pytest.raises(TrainingError, match="the head coarse has 5 cells, the partition coarse has 3"):
        train(tmp_path, heads={"fine": 4, "coarse": 5})
    with pytest.raises(TrainingError, match=r"head_weights\.corse is not a partition.* fine, coarse"):
        train(tmp_path, replace(FROZEN, head_weights={"corse": 1.0}))
    with pytest.raises(TrainingError, match="must be above 0 for at least one partition"):
        train(tmp_path, replace(FROZEN, head_weights={"fine": 0.0, "coarse": 0.0}))
    _, training, _ = world()
    one = training[(training["longitude"] < 0.05) | (training["longitude"] > 50)]
    with pytest.raises(TrainingError, match="all 6 training photos are in cell 0 of the partition coarse"):
        train(tmp_path, train=one)
    with pytest.raises(
        TrainingError, match="none of the 3 training photos is in a cell of the partition coarse"
    ):
        train(tmp_path, train=training[training["longitude"] > 50].assign(cell_fine=[0, 1, 2]))
    with pytest.raises(ValueError, match="at least one head, each with at least one cell"):
        build_classifier(PLAIN, {"fine": 0}, seed=0)


def test_methods_of_partitions_with_equal_counts_are_named_apart() -> None:
    def names(partitions: dict[str, Any], model: str) -> list[str]:
        return [one.name for _, one in class_localizers(partitions, ("centroid", "centre"), model)]

    assert names({"fine": TwoCells()}, "L") == ["[L]3C", "[L]3C centre"]
    assert names({"a": TwoCells(), "b": TwoCells()}, "M") == [
        "[M]3C a", "[M]3C a centre", "[M]3C b", "[M]3C b centre"
    ]  # fmt: skip


def test_a_curriculum_trains_and_resumes_within_a_cycle(tmp_path: Path) -> None:
    settings = replace(
        FROZEN,
        epochs=5,
        schedule="linear",
        optimiser="sgd",
        checkpoint_steps=1,
        curriculum=CurriculumSettings(examples_per_cell=2, growth=0.5, cycle_epochs=2, biases=(1.0, 0.5)),
    )
    model, result = train(tmp_path / "whole", settings)
    assert [record["step"] for record in result.history] == [2, 5, 7, 10, 15]  # 8, 12, 8, 12 and 18 photos
    assert result.history[-1]["learning_rate"] == pytest.approx(0.02 / 15)

    class Stop(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path / "killed", settings, on_progress=stop)
    resumed, again = train(tmp_path / "killed", settings)
    assert again.resumed_at_step == 4
    assert again.history == result.history
    assert torch.equal(resumed.head.weight, model.head.weight)


def test_smoothing_by_distance_shares_probability_with_cells_near_by(tmp_path: Path) -> None:
    """The first two cells are 11 km apart: with tau of 50 km they share their photos' probability, and no others do."""
    pool, _, validation = world()
    found = {}
    for tau in (0.0, 50.0):
        settings = replace(FROZEN, epochs=20, learning_rate=0.1, label_smoothing_km=tau)
        model, _ = train(tmp_path / str(tau), settings, heads={"fine": 4}, partitions={"fine": FourCells()})
        found[tau] = predict_probabilities(model, pool, validation, 4)[0]["fine"][:4].astype(np.float64)
    smooth, plain = found[50.0], found[0.0]
    assert smooth[0, 1] > 2 * plain[0, 1]
    assert smooth[0, :2].sum() > 0.6
    assert smooth[0, 1] > 3 * smooth[0, 3]


def test_five_crops_are_the_mean_of_five_predictions() -> None:
    pool, _, rows = world()
    pool.photos[int(rows["offset"].iloc[2])] = b"not a photo"
    model = build_classifier(PLAIN, HEADS, seed=3).eval()
    found, unreadable = predict_probabilities(model, pool, rows, 3, crops=5)
    assert unreadable.tolist() == [2]
    assert np.isnan(found["coarse"][2]).all()
    photo = decode(pool.read("", int(rows["offset"].iloc[1]), 1))
    wanted = np.zeros(3)
    for crop in CROPS:
        image = torch.tensor(model.preprocess.apply_uint8(photo, crop)).permute(2, 0, 1)[None]
        with torch.no_grad():
            wanted += model.split(model(image))["coarse"].softmax(dim=1)[0].numpy() / 5
    np.testing.assert_allclose(found["coarse"][1], wanted, atol=1e-6)
    centre, _ = predict_probabilities(model, pool, rows, 3)
    assert np.abs(centre["coarse"][1] - found["coarse"][1]).max() > 1e-5
