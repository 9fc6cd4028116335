"""Training: it learns, it stops where it should, and killed or not it ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tests.model.training_world as tiny
from geoloc.models.classifier import Classifier, load_model
from geoloc.settings import replace
from geoloc.training.classification import train_classifier
from geoloc.training.loop import TrainingResult
from geoloc.training.settings import TrainingSettings
from geoloc.training.source import TrainingError
from tests.model.training_world import FINE_TUNE, FourCells, tiny_model, world

FROZEN = TrainingSettings(
    mode="frozen", epochs=6, batch_size=4, learning_rate=0.02, device="cpu", progress_steps=1
)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bytes_of(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in model.state_dict().items()}


def train(
    folder: Path,
    settings: TrainingSettings,
    model: Classifier | None = None,
    events: list[dict[str, Any]] | None = None,
    seed: int = 11,
    **changes: Any,
) -> tuple[Classifier, TrainingResult]:
    pool, training, validation = world()
    model = model or tiny_model()
    given = {
        "pool": pool,
        "train": training,
        "validation": validation,
        "partitions": {"fine": FourCells()},
    } | changes
    result = train_classifier(
        model,
        settings=settings,
        seed=seed,
        checkpoint_folder=folder,
        on_progress=(events if events is not None else []).append,
        **given,
    )
    return model, result


def test_eight_photos_are_learnt_by_heart(tmp_path: Path) -> None:
    """The labels are random, so only memory can give them; those of other photos stay unknown."""
    pool, _, _ = world()
    photos = pool.add([0] * 8, seed=5)
    photos["cell_fine"] = [0, 1, 2, 3, 3, 2, 1, 0]
    settings = replace(
        FINE_TUNE,
        epochs=60,
        batch_size=8,
        schedule="constant",
        augmentation=None,
        label_smoothing=0.0,
        class_weights="none",
        checkpoint_steps=0,
        learning_rate=5e-4,
    )
    photos["longitude"] = np.array(tiny.LONGITUDES)[photos["cell_fine"]]
    _, result = train(tmp_path, settings, tiny_model(tiny.PLAIN), pool=pool, train=photos, validation=photos)
    assert result.history[0]["loss"] > 1.0
    assert result.history[-1]["loss"] < 0.05
    assert result.history[result.best_epoch - 1]["accuracy"] == 1.0


@pytest.mark.parametrize("optimiser", ["sgd", "adagrad", "adamw"])
def test_loss_falls_and_accuracies_mean_what_they_say(tmp_path: Path, optimiser: str) -> None:
    events: list[dict[str, Any]] = []
    settings = replace(FROZEN, optimiser=optimiser, epochs=12)
    model, result = train(tmp_path, settings, tiny_model(tiny.PLAIN), events)
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.6 * losses[0]
    pool, _, validation = world()
    images = torch.stack(
        [torch.tensor(model.preprocess.apply_uint8(decoded(pool, i))) for i in validation["offset"]]
    ).permute(0, 3, 1, 2)
    with torch.no_grad():
        answers = model(images).argmax(dim=1).numpy()
    cells = FourCells().assign(0, validation["longitude"])
    best = result.history[result.best_epoch - 1]
    assert best["accuracy"] == np.mean(answers == cells)
    # Cells 0 and 1 are 11 km apart, so at 25 km they answer for each other.
    assert best["accuracy_25km"] == np.mean(np.maximum(answers, 1) == np.maximum(cells, 1))
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 12 * 5 + 1))
    assert all(event["photos_per_second"] > 0 for event in steps)


def test_losses_are_means_over_photos_though_the_last_batch_is_smaller(tmp_path: Path) -> None:
    """Without learning, both losses are those of the model as it was."""
    settings = replace(FROZEN, learning_rate=0.0, epochs=1)
    _, result = train(tmp_path, settings, tiny_model(tiny.PLAIN))
    pool, *frames = world()
    for frame, key in zip(frames, ("loss", "validation_loss"), strict=True):
        model = tiny_model(tiny.PLAIN).eval()
        images = torch.stack(
            [torch.tensor(model.preprocess.apply_uint8(decoded(pool, i))) for i in frame["offset"]]
        ).permute(0, 3, 1, 2)
        cells = torch.from_numpy(FourCells().assign(0, frame["longitude"])).long()
        with torch.no_grad():
            logs = model(images).double().log_softmax(dim=1)
        expected = -logs[torch.arange(len(cells)), cells].mean()
        assert result.history[0][key] == pytest.approx(float(expected), rel=1e-5)


def decoded(pool: tiny.MemoryPool, position: int) -> np.ndarray:
    from geoloc.models.batches import decode

    return decode(pool.read("", position, 1))


def test_frozen_training_leaves_the_backbone_as_it_was(tmp_path: Path) -> None:
    before = bytes_of(tiny_model())
    after = bytes_of(train(tmp_path, FROZEN)[0])
    assert {name for name in after if after[name] != before[name]} == {"head.weight", "head.bias"}
    assert not list(tmp_path.glob("features-*"))


class Counted(torch.nn.Module):
    """A network in place of an exported one, which counts the photos that it sees."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network, self.seen = network, 0

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.network.embed(images)


def test_the_features_of_a_frozen_training_are_by_the_graph_where_there_is_one(tmp_path: Path) -> None:
    engine = Counted(tiny_model().eval())
    found, _ = train(tmp_path / "graph", FROZEN, frozen_engine=engine)
    assert engine.seen == 18 + 8  # each training and validation photo once
    assert bytes_of(found) == bytes_of(train(tmp_path / "torch", FROZEN)[0])


def test_only_the_last_blocks_move_and_batch_norm_stays_where_it_must(tmp_path: Path) -> None:
    settings = replace(FINE_TUNE, epochs=1, trainable_blocks=2, checkpoint_steps=0)
    before = bytes_of(tiny_model())
    after = bytes_of(train(tmp_path / "blocks", settings)[0])
    moved = {name.rsplit(".", 1)[0] for name in after if after[name] != before[name]}
    assert moved == {"backbone.conv5.0", "backbone.conv5.1", "head"}

    still = tiny_model(replace(tiny.TINY, batch_norm="eval"))
    after = bytes_of(train(tmp_path / "eval", replace(settings, trainable_blocks=None), still)[0])
    running = [name for name in after if "running" in name]
    assert running
    assert all(after[name] == before[name] for name in running)
    assert after["backbone.conv1.0.weight"] != before["backbone.conv1.0.weight"]


def test_a_killed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Killed by SIGKILL inside of an epoch, one step after a checkpoint, then run again."""
    tiny.main(tmp_path / "whole", FINE_TUNE, kill_at=None)
    # A fork, not a new interpreter, which would import torch again. 5 steps an epoch, checkpoint at 6.
    child = multiprocessing.get_context("fork").Process(
        target=tiny.main, args=(tmp_path / "killed", FINE_TUNE, 8)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert (tmp_path / "killed" / "work" / "checkpoint.safetensors").exists()
    events: list[dict[str, Any]] = []
    _, result = train(tmp_path / "killed" / "work", FINE_TUNE, events=events)
    assert result.resumed_at_step == 6
    assert events[0]["message"] == "the training resumes at step 6"
    assert [event["step"] for event in events if event["kind"] == "step"] == list(range(7, 16))
    tiny.main(tmp_path / "killed", FINE_TUNE, kill_at=None)
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == whole
    # And a third time, over a finished training: nothing is trained, the result is the same.
    _, again = train(tmp_path / "killed" / "work", FINE_TUNE)
    assert again.history == result.history
    assert load_model(tmp_path / "whole" / "model.safetensors").heads == {"fine": 4}


class Stop(Exception):
    """Stands for a kill inside of this process."""


@pytest.mark.parametrize("optimiser", ["sgd", "adagrad", "adamw"])
@pytest.mark.parametrize("mode", ["frozen", "fine_tune"])
def test_every_optimiser_resumes_to_the_same_bytes(tmp_path: Path, optimiser: str, mode: str) -> None:
    base = FINE_TUNE if mode == "fine_tune" else FROZEN
    settings = replace(base, optimiser=optimiser, epochs=2, checkpoint_steps=3)
    whole, expected = train(tmp_path / "whole", settings)

    def stop(event: dict[str, Any]) -> None:
        if event.get("step") == 7 and event["kind"] == "step":
            raise Stop

    pool, training, validation = world()
    with pytest.raises(Stop):
        train_classifier(
            tiny_model(),
            pool,
            training,
            validation,
            {"fine": FourCells()},
            settings,
            11,
            tmp_path / "a",
            stop,
        )
    resumed, result = train(tmp_path / "a", settings)
    assert result.resumed_at_step == 6
    assert result.history == expected.history
    assert bytes_of(resumed) == bytes_of(whole)


def test_equal_runs_are_equal_and_seeds_matter(tmp_path: Path) -> None:
    settings = replace(FINE_TUNE, epochs=1)
    first = bytes_of(train(tmp_path / "a", settings)[0])
    torch.rand(7)  # what others draw must not matter
    assert bytes_of(train(tmp_path / "b", replace(settings, workers=3))[0]) == first
    assert bytes_of(train(tmp_path / "c", settings, seed=12)[0]) != first


def test_nothing_global_is_changed(tmp_path: Path) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    seen = []
    train(tmp_path, replace(FROZEN, epochs=1))
    seen.append(torch.are_deterministic_algorithms_enabled())
    assert seen == [False]
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_another_training_is_not_mixed_in(tmp_path: Path) -> None:
    train(tmp_path / "a", replace(FROZEN, learning_rate=0.5))
    events: list[dict[str, Any]] = []
    model, result = train(tmp_path / "a", FROZEN, events=events)
    assert "restarts from the beginning" in events[0]["message"]
    assert "different training settings" in events[0]["message"]
    assert result.resumed_at_step is None
    assert bytes_of(model) == bytes_of(train(tmp_path / "b", FROZEN)[0])


def test_a_damaged_checkpoint_starts_afresh(tmp_path: Path) -> None:
    model, _ = train(tmp_path, FROZEN)
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    events: list[dict[str, Any]] = []
    again, _ = train(tmp_path, FROZEN, events=events)
    assert "not a complete safetensors file" in events[0]["message"]
    assert bytes_of(again) == bytes_of(model)


def test_the_best_epoch_is_kept_and_training_stops_early(tmp_path: Path) -> None:
    """At a rate this high the loss rises after some epoch; the weights must be of the epoch before."""
    settings = replace(
        FROZEN, epochs=30, learning_rate=3.0, optimiser="sgd", schedule="constant", early_stopping_epochs=3
    )
    model, result = train(tmp_path / "long", settings)
    losses = [record["validation_loss"] for record in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert result.stopped_early
    assert result.epochs == result.best_epoch + 3
    short = replace(settings, epochs=result.best_epoch, select_by="last", early_stopping_epochs=0)
    assert bytes_of(train(tmp_path / "short", short)[0]) == bytes_of(model)
    assert len(list((tmp_path / "long").glob("best-*"))) == 1


def test_left_out_photos_are_counted_and_do_not_train(tmp_path: Path) -> None:
    pool, training, validation = world()
    nowhere = pool.add([0, 0], seed=8).assign(longitude=50.0)
    broken = pool.add([1, 2, 3], seed=9)
    for position in broken["offset"]:
        pool.photos[position] = b"not a photo"
    more = pd.concat([training, nowhere, broken], ignore_index=True)
    held_out = pd.concat([validation, nowhere, broken[:1]], ignore_index=True)
    for mode in (FROZEN, replace(FINE_TUNE, epochs=1)):
        _, result = train(tmp_path / mode.mode, mode, pool=pool, train=more, validation=held_out)
        assert result.left_out == {
            "training_no_cell": 2,
            "validation_no_cell": 2,
            "training_unreadable": 3,
        }
        record = result.history[-1]
        assert record["validation_unreadable"] == 1
        assert record["accuracy"] <= 8 / 11  # three of eleven can never be right


def test_fine_tuning_leaves_a_lonely_last_photo_out_and_a_head_alone_does_not(tmp_path: Path) -> None:
    """17 photos in batches of 4: batch norm has no statistics of one photo, and a frozen backbone needs none."""
    photos = world()[1][:17]
    for settings, steps in ((FROZEN, 5), (FINE_TUNE, 4)):
        one = replace(settings, epochs=1, warm_up_epochs=0.0)
        _, result = train(tmp_path / settings.mode, one, train=photos)
        assert result.steps == steps


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    _, result = train(tmp_path, FROZEN, validation=world()[2][:0])
    assert result.best_epoch == FROZEN.epochs
    assert "accuracy" not in result.history[0]


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    _, training, _ = world()

    class Five(FourCells):
        cell_count = 5

    with pytest.raises(TrainingError, match="the head fine has 4 cells, the partition fine has 5"):
        train(tmp_path, FROZEN, partitions={"fine": Five()})
    with pytest.raises(TrainingError, match="all 3 training photos are in cell 2 of the partition fine: a"):
        train(tmp_path, FROZEN, train=training[training["longitude"] == 20.0])
    with pytest.raises(TrainingError, match="none of the 18 training photos is in a cell"):
        train(tmp_path, FROZEN, train=training.assign(longitude=50.0))
    with pytest.raises(TrainingError, match="have cells 0 to 7, the partition fine has 4"):
        train(tmp_path, FROZEN, train=training.assign(cell_fine=[0, 7] * 9))
    with pytest.raises(TrainingError, match="training photos need the columns latitude"):
        train(tmp_path, FROZEN, train=training.drop(columns="latitude"))
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at epoch \d+, step \d+"):
        train(tmp_path, replace(FROZEN, learning_rate=1e38, optimiser="sgd", epochs=30))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"training\.device is cuda"):
            train(tmp_path, replace(FROZEN, device="cuda"))


def test_mixed_precision_trains_too(tmp_path: Path) -> None:
    settings = replace(FINE_TUNE, precision="bfloat16", epochs=1)
    model, result = train(tmp_path, settings)
    assert result.history[0]["loss"] < 3
    assert model.head.weight.dtype == torch.float32
    assert bytes_of(model) != bytes_of(train(tmp_path / "b", replace(settings, precision="float32"))[0])
