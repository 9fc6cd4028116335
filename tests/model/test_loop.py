"""The loop is general: a toy family with its own network, source and loss trains, and is resumed to the same bytes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from geoloc.training import loop
from geoloc.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from geoloc.training.loop import Task, TrainingResult, loop_fingerprint
from geoloc.training.loop_settings import LoopSettings
from geoloc.training.samplers import epoch_starts, shuffled
from geoloc.training.source import Inputs, TrainingError

COUNT, BROKEN = 22, (5, 17)
GIVEN: dict[str, Any] = {
    "epochs": 4, "batch_size": 6, "learning_rate": 0.02, "average_decay": 0.5, "device": "cpu",
    "checkpoint_steps": 3, "progress_steps": 1, "gradient_clip": 1.0, "backbone_learning_rate_share": 0.5,
}  # fmt: skip
SETTINGS = LoopSettings(**GIVEN)


class TwoTowers(nn.Module):
    """Street and overhead vectors, which should meet in one space."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(5, 4)
        self.overhead = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 4))

    def forward(self, street: torch.Tensor, overhead: torch.Tensor) -> torch.Tensor:
        one, other = (
            functional.normalize(self.backbone(street)),
            functional.normalize(self.overhead(overhead)),
        )
        return one @ other.T * 10


class Pairs:
    """Pairs of vectors, two of them unreadable, with noise by epoch and position."""

    def __init__(self, readable: bool = True) -> None:
        numbers = np.random.default_rng(0)
        place = numbers.normal(size=(COUNT, 2))
        self.street = place @ numbers.normal(size=(2, 5))
        self.overhead = place @ numbers.normal(size=(2, 3))
        self.broken = BROKEN if readable else range(COUNT)

    def __len__(self) -> int:
        return COUNT

    def batches(self, order: np.ndarray, batch_size: int, epoch: int) -> Iterator[Inputs]:
        for start in range(0, len(order), batch_size):
            asked = order[start : start + batch_size]
            bad = np.isin(asked, self.broken)
            kept = asked[~bad]
            noise = [np.random.default_rng([epoch, position]).normal(0, 0.1, 5) for position in kept.tolist()]
            street = torch.tensor(self.street[kept] + np.reshape(noise, (-1, 5)), dtype=torch.float32)
            yield Inputs((street, torch.tensor(self.overhead[kept], dtype=torch.float32)), kept, asked[bad])


def train_towers(
    folder: Path, settings: LoopSettings = SETTINGS, on_progress: Any = lambda event: None, **changes: Any
) -> tuple[TwoTowers, TrainingResult]:
    """A whole family of models: what metric, cross-view and sequence training do."""
    torch.manual_seed(1)
    model, source = TwoTowers(), Pairs(**changes)

    def loss_of(batch: Inputs) -> torch.Tensor:
        return functional.cross_entropy(model(*batch.tensors), torch.arange(len(batch.positions)))

    def validate() -> dict[str, Any]:
        assert not model.training
        with torch.inference_mode():
            everything = next(source.batches(np.arange(COUNT), COUNT, 0))
            return {"validation_loss": float(loss_of(everything))}

    task = Task(
        source,
        lambda epoch: shuffled(COUNT, 7, epoch),
        epoch_starts([COUNT] * settings.epochs, settings.batch_size),
        loss_of,
        validate,
    )
    fingerprint = loop_fingerprint(model, settings, 7) | {"pairs": "these"}
    return model, loop.train(model, lambda device: task, settings, 7, folder, fingerprint, on_progress)


class Stop(Exception):
    """Stands for a kill inside of this process."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_family_of_its_own_learns_and_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    whole, expected = train_towers(tmp_path / "whole", on_progress=events.append)
    losses = [record["validation_loss"] for record in expected.history]
    assert losses[-1] < 0.8 * losses[0]
    assert not whole.training
    assert (expected.epochs, expected.steps, expected.resumed_at_step) == (4, 16, None)
    assert expected.best_epoch == int(np.argmin(losses)) + 1
    assert expected.left_out == {"training_unreadable": len(BROKEN)}
    assert [event["step"] for event in events if event["kind"] == "step"] == list(range(1, 17))
    assert [event["kind"] for event in events].count("epoch") == 4

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 8:
            raise Stop

    with pytest.raises(Stop):
        train_towers(tmp_path / "killed", on_progress=stop)
    resumed, result = train_towers(tmp_path / "killed")
    assert result.resumed_at_step == 6
    assert result.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert "checkpoint.safetensors" in files


def test_a_finished_training_prepares_nothing_and_another_one_starts_afresh(tmp_path: Path) -> None:
    _, expected = train_towers(tmp_path)
    torch.manual_seed(1)
    model = TwoTowers()
    fingerprint = loop_fingerprint(model, SETTINGS, 7) | {"pairs": "these"}

    def never(device: torch.device) -> Task:
        raise AssertionError("nothing is left to train")

    assert loop.train(model, never, SETTINGS, 7, tmp_path, fingerprint).history == expected.history
    events: list[dict[str, Any]] = []
    torch.manual_seed(1)
    with pytest.raises(AssertionError, match="nothing is left"):
        loop.train(
            TwoTowers(), never, SETTINGS, 7, tmp_path, fingerprint | {"pairs": "others"}, events.append
        )
    assert "restarts from the beginning" in events[0]["message"]
    assert "different pairs" in events[0]["message"]


def test_what_gives_the_same_result_is_no_part_of_the_fingerprint() -> None:
    model = TwoTowers()
    found = loop_fingerprint(model, SETTINGS, 7)
    other = LoopSettings(**GIVEN | {"workers": 3, "checkpoint_steps": 0, "progress_steps": 5})
    assert loop_fingerprint(model, other, 7) == found
    changed = [
        loop_fingerprint(model, LoopSettings(**GIVEN | {"batch_size": 7}), 7),
        loop_fingerprint(model, SETTINGS, 8),
        loop_fingerprint(TwoTowers(), SETTINGS, 7),
    ]
    differing = [{name for name in found if found[name] != one[name]} for one in changed]
    assert differing == [{"training settings"}, {"seed"}, {"initial weights"}]


def test_a_resumed_optimiser_has_the_memory_layout_of_the_weights(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)

    model, optimiser, scaler = made()
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    save_checkpoint(tmp_path, {}, model, optimiser, scaler, Progress())
    again, resumed, other = made()
    load_checkpoint(tmp_path, {}, again, resumed, other)
    for state in (resumed.state[again.weight], optimiser.state[model.weight]):
        assert state["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(resumed.state[again.weight]["exp_avg"], optimiser.state[model.weight]["exp_avg"])


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of the 22 training photos is readable"):
        train_towers(tmp_path, readable=False)


def test_the_loop_knows_no_family_of_models() -> None:
    folder = Path(loop.__file__).parent
    families = ("geoloc.losses", "geoloc.models.classifier", "geoloc.training.settings", "geoloc.partitions")
    families += ("geoloc.training.classification", "geoloc.training.photo_data", "geoloc.training.validation")
    todo, seen = ["loop"], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            of = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            of += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [one for one in of if one.startswith(families)], name
            inner = {one.removeprefix("geoloc.training.") for one in of if one.startswith("geoloc.training.")}
            todo += sorted(inner - seen)
    assert {"loop", "checkpoints", "optimisers", "source"} <= seen
