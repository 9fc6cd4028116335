"""Metric learning: photos of a place come near each other, also those by photographers never seen; a killed training
ends with the same bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional

from geoloc.losses.settings import MetricLossSettings
from geoloc.models.metric import (
    MetricNetwork,
    ServedEmbeddings,
    build_metric_network,
    load_metric_network,
    save_metric_network,
)
from geoloc.models.settings import ModelSettings
from geoloc.models.weights import WeightsError
from geoloc.settings import SettingsError, parse, replace
from geoloc.training.loop import TrainingResult
from geoloc.training.metric import train_metric, validation_measures
from geoloc.training.metric_photos import metric_photos
from geoloc.training.metric_settings import MetricSettings, MiningSettings, PositivesSettings
from geoloc.training.mining import embed_all
from geoloc.training.photo_data import PhotoSource
from geoloc.training.source import TrainingError
from tests.model.training_world import LONGITUDES, FourCells, MemoryPool

PLAIN = ModelSettings(backbone="squeezenet1_1", resize_short_side=36, image_size=32)
SETTINGS = MetricSettings(
    epochs=4, batch_size=16, images_per_group=4, steps_per_epoch=12, embedding_size=16, learning_rate=1e-3,
    augmentation=None, device="cpu", checkpoint_steps=5, progress_steps=1,
    loss=MetricLossSettings(kind="soft_sets"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Striped(MemoryPool):
    """Photos with stripes of the place's direction, in the colours of the photographer, which say nothing."""

    def taken(self, photographers: range, each: int) -> pd.DataFrame:
        """`each` photos of each place by each photographer."""
        frames = []
        for photographer in photographers:
            numbers = np.random.default_rng(photographer)
            colour = numbers.uniform(60, 190, 3)
            for cell in range(4):
                start = len(self.photos)
                for _ in range(each):
                    y, x = np.mgrid[:40, :40]
                    along = (x, y, x + y, x - y)[cell]
                    wave = 45 * np.sign(np.sin(along * 2 * np.pi / 8 + numbers.uniform(0, 6)))
                    pixels = colour + wave[:, :, None] + numbers.normal(0, 12, (40, 40, 3))
                    stream = io.BytesIO()
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=95)
                    self.photos.append(stream.getvalue())
                frames.append(
                    pd.DataFrame(
                        {
                            "offset": np.arange(start, len(self.photos)),
                            "photographer": f"p{photographer}",
                            "longitude": LONGITUDES[cell],
                        }
                    )
                )
        found = pd.concat(frames, ignore_index=True)
        return found.assign(photo_id=[f"x{i}" for i in found["offset"]], shard="s", length=1, latitude=0.0)


@pytest.fixture(scope="module")
def world() -> tuple[Striped, pd.DataFrame, pd.DataFrame]:
    """The pool, photos of 12 photographers to train on and of 6 others to validate on."""
    pool = Striped()
    return pool, pool.taken(range(12), 2), pool.taken(range(12, 18), 2)


def network(settings: MetricSettings = SETTINGS, model: ModelSettings = PLAIN) -> MetricNetwork:
    scale = settings.loss.scale if settings.loss.learnt_scale else None
    return build_metric_network(model, 3, settings.embedding_size, scale)


def train(
    world: tuple[Striped, pd.DataFrame, pd.DataFrame],
    folder: Path,
    settings: MetricSettings = SETTINGS,
    on_progress: Any = lambda event: None,
    model: ModelSettings = PLAIN,
    frame: pd.DataFrame | None = None,
) -> tuple[MetricNetwork, TrainingResult]:
    pool, training, validation = world
    made = network(settings, model)
    training = training if frame is None else frame
    cells = {"fine": FourCells()}
    result = train_metric(made, pool, training, validation, cells, settings, 5, folder, on_progress)  # type: ignore[arg-type]
    return made, result


class Stop(Exception):
    """Stands for a kill inside of this process."""


@pytest.mark.slow
def test_it_learns_for_photographers_never_seen(
    world: tuple[Striped, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, epochs=6, batch_size=24)
    pool, _, validation = world
    held_out = metric_photos(validation, {"fine": FourCells()}, settings.positives, "validation")  # type: ignore[dict-item]
    untrained = network(settings)
    source = PhotoSource(pool, held_out.labelled.rows, untrained.preprocess, None, 0, 1, True)  # type: ignore[arg-type]
    vectors = embed_all(untrained, source, 16, "float32")
    before = validation_measures(vectors, held_out, settings, torch.device("cpu"))
    model, result = train(world, tmp_path, settings)
    after = result.history[result.best_epoch - 1]
    assert after["recall_at_1"] > max(0.6, before["recall_at_1"] + 0.2), (before, after)
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert not model.training
    vectors = embed_all(model, source, 16, "float32")
    again = validation_measures(vectors, held_out, settings, torch.device("cpu"))
    assert again == {name: after[name] for name in again}, "the weights of the best epoch"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_size": 6, "mining": MiningSettings(every_epochs=2, nearest=5, share=0.5),
         "loss": MetricLossSettings(kind="hinge_triplet", mean_over="violating", learnt_scale=True)},
        {"positives": PositivesSettings(kind="closest_in_radius", radius_km=1.0, closest=3)},
    ],
    ids=["mined in chunks", "closest"],
)  # fmt: skip
def test_a_killed_training_ends_with_the_same_bytes(
    changes: dict[str, Any], world: tuple[Striped, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, epochs=4, steps_per_epoch=3, checkpoint_steps=2, **changes)
    whole, expected = train(world, tmp_path / "whole", settings)

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 12:  # in the middle of the last epoch
            raise Stop

    with pytest.raises(Stop):
        train(world, tmp_path / "killed", settings, stop)
    assert (tmp_path / "killed" / "mined.safetensors").exists()
    resumed, result = train(world, tmp_path / "killed", settings)
    assert result.resumed_at_step == 10
    assert result.history == expected.history
    for weight, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[weight], value), weight
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert "mined.safetensors" not in files


def test_a_large_batch_in_chunks_learns_the_same(
    world: tuple[Striped, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    # SGD: steps of AdamW do not shrink with the gradient, so they would show the rounding of gradients near 0.
    settings = replace(SETTINGS, epochs=1, steps_per_epoch=3, optimiser="sgd", learning_rate=0.02)
    one, _ = train(world, tmp_path / "one", settings)
    two, _ = train(world, tmp_path / "two", replace(settings, chunk_size=5))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_told(world: tuple[Striped, pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    with_norm = ModelSettings(backbone="shufflenet_v2_x0_5", resize_short_side=36, image_size=32)
    cases: list[tuple[str, dict[str, Any]]] = [
        (r"metric\.chunk_size needs batch norm with fixed statistics, but \d+ layers learn",
         {"settings": replace(SETTINGS, chunk_size=4), "model": with_norm}),
        (r"metric\.batch_size must be at most 96, the number of training photos that have a positive; got 128",
         {"settings": replace(SETTINGS, batch_size=128)}),
        (r"metric\.positives\.partition must be one of fine; got coarse",
         {"settings": replace(SETTINGS, positives=PositivesSettings(partition="coarse"))}),
        ("the training photos need the columns photographer",
         {"frame": world[1].drop(columns="photographer")}),
        ("at most 0, the number of training photos", {"frame": world[1].assign(photographer="one")}),
    ]  # fmt: skip
    for message, changes in cases:
        with pytest.raises(TrainingError, match=message):
            train(world, tmp_path, **changes)
    # Fixed statistics are all that chunks need.
    fixed = replace(with_norm, batch_norm="eval")
    train(world, tmp_path, replace(SETTINGS, epochs=1, steps_per_epoch=1, chunk_size=4), model=fixed)
    with pytest.raises(TrainingError, match=r"metric\.batch_norm is eval, the network was built with train"):
        train(world, tmp_path, replace(SETTINGS, batch_norm="eval"))
    other = replace(SETTINGS, embedding_size=None)
    with pytest.raises(TrainingError, match=r"metric\.embedding_size is None, the network was built with 16"):
        train_metric(network(), *world, {"fine": FourCells()}, other, 0, tmp_path)  # type: ignore[arg-type, dict-item]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 30}, r"metric\.batch_size must be 2 or more times images_per_group \(4\), got 30"),
        ({"batch_size": 4}, r"metric\.batch_size must be 2 or more times images_per_group \(4\), got 4"),
        (
            {"trainable_blocks": 0},
            r"metric\.trainable_blocks must be at least 1, or null, when embedding_size is",
        ),
        ({"mining": {"share": 1}}, r"metric\.mining\.share must be at most 0\.9, got 1"),
        (
            {"positives": {"kind": "near"}},
            r"metric\.positives\.kind must be one of cell, radius, closest_in_radius",
        ),
    ],
)
def test_wrong_settings_are_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(MetricSettings, values, "metric")


def test_a_saved_network_is_loaded_and_starts_another(tmp_path: Path) -> None:
    learnt = replace(SETTINGS, loss=MetricLossSettings(learnt_scale=True))
    model = network(learnt).eval()
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    save_metric_network(path, model)
    loaded = load_metric_network(path)
    save_metric_network(again, loaded)
    assert path.read_bytes() == again.read_bytes()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded.embed(images), model.embed(images))
    assert loaded.embed(images).shape == (2, loaded.embedding_size) == (2, 16)
    started = network(model=replace(PLAIN, weights=str(path)))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(started.backbone.state_dict()[name], value)
    for name, value in model.projection.state_dict().items():
        assert torch.equal(started.projection.state_dict()[name], value)
    smaller = network(replace(SETTINGS, embedding_size=8), replace(PLAIN, weights=str(path)))
    assert smaller.projection.weight.shape[0] == 8  # another projection, of its own
    assert torch.equal(ServedEmbeddings(model)(images), functional.normalize(model.embed(images)))
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is not a complete safetensors file"):
        load_metric_network(path)


def test_more_blocks_than_there_are(
    world: tuple[Striped, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"metric\.trainable_blocks must be 0 to \d+, got 99"):
        train(world, tmp_path, replace(SETTINGS, trainable_blocks=99))
