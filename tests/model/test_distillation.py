"""Distillation: the loss is the formula, features learn to resemble the teacher's, the projection does not stay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from geoloc.losses.distillation import cosine_distillation
from geoloc.models.classifier import Classifier
from geoloc.settings import SettingsError, parse, replace
from geoloc.training.classification import train_classifier
from geoloc.training.loop import TrainingResult
from geoloc.training.settings import DistillationSettings, TrainingSettings
from geoloc.training.source import TrainingError
from tests.model.training_world import FINE_TUNE, PLAIN, FourCells, tiny_model, world

TAUGHT = replace(
    FINE_TUNE,
    epochs=3,
    augmentation=None,
    schedule="constant",
    distillation=DistillationSettings(recipe="other"),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def teacher() -> np.ndarray:
    """A vector a colour, of length 5, with a little noise."""
    _, training, _ = world()
    rng = np.random.default_rng(0)
    colours = rng.normal(size=(4, 5))[FourCells().assign(0, training["longitude"])]
    return (colours + rng.normal(0, 0.05, colours.shape)).astype(np.float32)


def train(
    folder: Path, settings: TrainingSettings = TAUGHT, on_progress: Any = None, **changes: Any
) -> tuple[Classifier, TrainingResult]:
    pool, training, validation = world()
    model = tiny_model(PLAIN)
    training = pd.concat([training[: changes.pop("nowhere", 0)].assign(longitude=50.0), training])
    given = {"teacher": teacher(), "on_progress": on_progress or (lambda event: None)} | changes
    result = train_classifier(
        model, pool, training, validation, {"fine": FourCells()}, settings, 11, folder, **given
    )
    return model, result


def test_the_loss_is_the_formula_and_unknown_teachers_count_as_nothing() -> None:
    rng = np.random.default_rng(3)
    student, wanted = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    expected = 0.0
    for row in (0, 1, 3):
        dot = sum(a * b for a, b in zip(student[row], wanted[row], strict=True))
        expected += (1 - dot / math.hypot(*student[row]) / math.hypot(*wanted[row])) / 4
    wanted[2, 1] = np.nan
    projected = torch.from_numpy(student).requires_grad_()
    loss = cosine_distillation(projected, torch.from_numpy(wanted))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert projected.grad is not None
    assert torch.isfinite(projected.grad).all()
    assert (projected.grad[2] == 0).all()


def test_features_come_to_resemble_the_teachers(tmp_path: Path) -> None:
    """With heads that hardly count, the loss is the mean of 1 - cos, and falls; the model keeps its own layers only."""
    settings = replace(TAUGHT, head_weights={"fine": 1e-6}, epochs=8, label_smoothing=0.0, select_by="last")
    model, result = train(tmp_path, settings)
    losses = [record["loss"] for record in result.history]
    assert losses[0] < 2
    assert losses[-1] < 0.5 * losses[0]
    assert model.state_dict().keys() == tiny_model(PLAIN).state_dict().keys()
    untaught, _ = train(tmp_path / "b", replace(settings, distillation=None))
    moved = [
        float((network.backbone.state_dict()[name] - value).abs().max())
        for name, value in list(tiny_model(PLAIN).backbone.state_dict().items())[:1]
        for network in (model, untaught)
    ]
    assert moved[0] != moved[1]


def test_a_taught_training_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 7:
            raise Stop

    settings = replace(TAUGHT, epochs=2, checkpoint_steps=3, average_decay=0.5)
    whole, expected = train(tmp_path / "whole", settings)
    with pytest.raises(Stop):
        train(tmp_path / "killed", settings, stop)
    resumed, result = train(tmp_path / "killed", settings)
    assert result.resumed_at_step == 6
    assert result.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_each_photo_has_its_own_teacher_though_some_are_in_no_cell(tmp_path: Path) -> None:
    settings = replace(TAUGHT, epochs=1)
    plain, _ = train(tmp_path / "a", settings)
    more = np.concatenate([teacher()[5:8] * 9, teacher()])
    mixed, result = train(tmp_path / "b", settings, nowhere=3, teacher=more)
    assert result.left_out["training_no_cell"] == 3
    for name, value in plain.state_dict().items():
        assert torch.equal(value, mixed.state_dict()[name]), name


def test_photos_without_a_teacher_are_counted_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    some = teacher()
    some[:4] = np.nan
    _, result = train(tmp_path / "a", replace(TAUGHT, epochs=1), teacher=some)
    assert result.left_out["training_no_teacher"] == 4
    with pytest.raises(TrainingError, match="needs an embedding of each of 18 training photos, got none"):
        train(tmp_path, teacher=None)
    with pytest.raises(TrainingError, match=r"each of 18 training photos, got shape \(17, 5\)"):
        train(tmp_path, teacher=some[1:])
    with pytest.raises(TrainingError, match="the teacher has no embedding of any of the 18 training photos"):
        train(tmp_path, teacher=some * np.nan)
    with pytest.raises(SettingsError, match=r"training\.distillation must be null when mode is frozen"):
        parse(TrainingSettings, {"distillation": {"recipe": "x"}}, "training")
