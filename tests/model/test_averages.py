"""The moving average of weights: the formula, what is measured and saved, and byte-identical resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoloc.models.classifier import Classifier
from geoloc.models.prediction import predict_probabilities
from geoloc.settings import replace
from geoloc.training.averages import WeightAverage
from geoloc.training.classification import train_classifier
from geoloc.training.loop import TrainingResult
from geoloc.training.settings import TrainingSettings
from tests.model.training_world import FINE_TUNE, PLAIN, FourCells, tiny_model, world

RUNNING = "backbone.conv1.1.running_mean"
AVERAGED = replace(FINE_TUNE, average_decay=0.8, epochs=2, checkpoint_steps=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(
    folder: Path, settings: TrainingSettings, model: Classifier | None = None, on_progress: Any = None
) -> tuple[Classifier, TrainingResult]:
    pool, training, validation = world()
    model = model or tiny_model()
    tell = on_progress or (lambda event: None)
    partitions = {"fine": FourCells()}
    return model, train_classifier(model, pool, training, validation, partitions, settings, 11, folder, tell)


def test_the_average_is_the_formula_and_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    settings = replace(
        AVERAGED, mode="frozen", select_by="last", learning_rate=0.2, epochs=4, augmentation=None
    )
    model = tiny_model(PLAIN)
    seen = [model.head.weight.detach().double().numpy().copy()]

    def on_progress(event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            seen.append(model.head.weight.detach().double().numpy().copy())

    _, result = train(tmp_path, settings, model, on_progress)
    average = seen[0]
    for step, weights in enumerate(seen[1:]):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    np.testing.assert_allclose(model.head.weight.detach(), average, rtol=1e-4, atol=1e-6)
    assert np.abs(average - seen[-1]).max() > 1e-3
    pool, _, validation = world()
    p = predict_probabilities(model, pool, validation, 8)[0]["fine"].astype(np.float64)
    cells = FourCells().assign(0, validation["longitude"])
    measured = -np.log(p[np.arange(len(cells)), cells]).mean()
    assert result.history[-1]["validation_loss"] == pytest.approx(measured, rel=1e-4)


def test_a_training_with_an_average_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole, expected = train(tmp_path / "whole", AVERAGED)

    class Stop(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 8:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path / "killed", AVERAGED, on_progress=stop)
    resumed, result = train(tmp_path / "killed", AVERAGED)
    assert result.resumed_at_step == 6
    assert result.history == expected.history
    assert_equal(resumed, whole)
    # Once more over the finished training.
    assert_equal(train(tmp_path / "killed", AVERAGED)[0], whole)
    plain, _ = train(tmp_path / "plain", replace(AVERAGED, average_decay=0.0))
    assert not torch.equal(plain.head.weight, whole.head.weight)


def assert_equal(one: Classifier, other: Classifier) -> None:
    for (name, value), wanted in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert value.numpy().tobytes() == wanted.numpy().tobytes(), name


def test_the_average_takes_in_running_statistics_and_gives_weights_back() -> None:
    model = tiny_model()
    average = WeightAverage(model, 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model(torch.rand(4, 3, 32, 32))
    with torch.no_grad():
        model.head.bias += 1.0
    average.update(model, step=100)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    with average.in_place(model):
        for name, value in model.state_dict().items():
            middle = (before[name] + after[name]) / 2
            wanted = middle if value.is_floating_point() else after[name]
            torch.testing.assert_close(value, wanted, msg=name)
        assert not torch.equal(model.state_dict()[RUNNING], before[RUNNING])
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
