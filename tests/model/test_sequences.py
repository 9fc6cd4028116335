"""Networks over sequences and over the time of posting: what each photo's answer depends on, and that they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from geoloc.models.context_inputs import Embeddings, top_cells
from geoloc.models.sequence_network import (
    SequenceNetwork,
    build_sequence_network,
    load_sequence_network,
    save_sequence_network,
)
from geoloc.models.sequence_prediction import all_probabilities
from geoloc.models.sequence_settings import SequenceNetworkSettings
from geoloc.models.time_network import (
    build_time_network,
    load_time_network,
    save_time_network,
    time_probabilities,
)
from geoloc.models.time_settings import TimeNetworkSettings
from geoloc.models.weights import WeightsError
from geoloc.photos.sequences import Sequences, make_sequences
from geoloc.photos.settings import SequenceSettings
from geoloc.settings import SettingsError, parse, replace
from geoloc.training.context import ContextPhotos
from geoloc.training.context_settings import SequenceModelSettings, TimeSettings
from geoloc.training.posting_time import train_time_network
from geoloc.training.sequences import SequencePhotos, by_length, train_sequences
from geoloc.training.source import TrainingError

KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "off2": {"offset": 2},
    "repeated": {"kind": "repeated"},
    "bidirectional": {"kind": "bidirectional"},
    "transformer": {"kind": "transformer", "heads": 2},
}
POINTS = np.array([[0.0, 0.0], [0.0, 10.0], [0.0, 20.0]])


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(kind: str, inputs: int = 3, hidden: int = 8) -> SequenceNetwork:
    model = build_sequence_network(inputs, 3, SequenceNetworkSettings(hidden=hidden, **KINDS[kind]), 1)
    for name, value in model.named_parameters():
        if "by_time" in name:
            torch.nn.init.normal_(value)
    return model.eval()


def albums(lengths: list[int]) -> Sequences:
    """Albums of these lengths, whose photos are an hour apart and lie in mixed order in the table."""
    frame = pd.DataFrame(
        {
            "photo_id": [f"{a}-{i:03d}" for a, n in enumerate(lengths) for i in range(n)],
            "source": "s",
            "photographer": [f"p{a % 3}" for a, n in enumerate(lengths) for _ in range(n)],
            "album": [str(a) for a, n in enumerate(lengths) for _ in range(n)],
            "taken_at": [pd.Timestamp(2015, 1, 1, i) for n in lengths for i in range(n)],
        }
    )
    return make_sequences(frame.sample(frac=1, random_state=0), SequenceSettings())


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_knows_the_photos_that_its_kind_sees(kind):
    model, sequences = network(kind), albums([6])
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    before = all_probabilities(model, Embeddings(vectors), sequences)[sequences.rows]
    sees = np.zeros((6, 6), dtype=bool)
    for changed in range(6):
        others = vectors.copy()
        others[sequences.rows[changed]] += 1
        after = all_probabilities(model, Embeddings(others), sequences)[sequences.rows]
        sees[:, changed] = np.abs(after - before).max(axis=1) > 1e-7
    later = {"lstm": 0, "off2": 2}.get(kind, 6)
    np.testing.assert_array_equal(sees, np.tri(6, 6, later, dtype=bool))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_has_the_same_answers_in_any_batch(kind, monkeypatch):
    model, sequences = network(kind), albums([1, 5, 3, 8])
    vectors = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
    vectors[sequences.of(1)[2]] = np.nan  # a photo that could not be read
    together = all_probabilities(model, Embeddings(vectors), sequences)
    assert np.isnan(together).any(axis=1).sum() == 1
    monkeypatch.setattr("geoloc.models.sequence_prediction.PHOTOS_AT_ONCE", 1)
    np.testing.assert_allclose(together, all_probabilities(model, Embeddings(vectors), sequences), atol=1e-6)


def test_the_repeated_sequence_is_the_same_network_on_two_copies():
    model, x = network("repeated"), torch.randn(1, 4, 3)
    by_hand = model.head(model.body(torch.cat([x, x], dim=1))[0][:, 4:])[0]
    hours = torch.zeros(1, 4)
    torch.testing.assert_close(model(x, hours, torch.tensor([4])), by_hand)
    wider = torch.cat([x, torch.full((1, 3, 3), torch.nan)], dim=1)
    torch.testing.assert_close(model(wider, torch.zeros(1, 7), torch.tensor([4])), by_hand)


def test_the_transformer_knows_the_time_between_photos():
    model, x = network("transformer"), torch.randn(1, 3, 3)
    lengths = torch.tensor([3])
    scores = [model(x, torch.tensor([hours]), lengths) for hours in ([0, 0.5, 1.0], [0, 0.5, 900.0])]
    assert not torch.allclose(*scores)
    with pytest.raises(SettingsError, match=r"sequences.length must be given when network.kind is transf"):
        parse(SequenceModelSettings, {"network": {"kind": "transformer"}}, "sequences")
    with pytest.raises(SettingsError, match=r"network.hidden must be a multiple of heads \(4\) .* got 6"):
        parse(SequenceNetworkSettings, {"kind": "transformer", "hidden": 6}, "network")
    with pytest.raises(SettingsError, match=r"network.offset must be 0 when kind is repeated, got 1"):
        parse(SequenceNetworkSettings, {"kind": "repeated", "offset": 1}, "network")


@pytest.mark.parametrize("kind", ["repeated", "transformer"])
def test_a_saved_network_answers_as_before(kind, tmp_path):
    model, sequences = network(kind), albums([4, 2])
    inputs = Embeddings(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16))
    model.standardise(inputs.rows(np.arange(6)))
    save_sequence_network(tmp_path / "a", model)
    again = load_sequence_network(tmp_path / "a")
    np.testing.assert_array_equal(
        all_probabilities(again, inputs, sequences), all_probabilities(model, inputs, sequences)
    )
    with pytest.raises(WeightsError, match="is not a geoloc time network"):
        load_time_network(tmp_path / "a")


def told_once(last: bool, seed: int) -> SequencePhotos:
    """Albums of one cell each, which only the first, or the last, photo tells."""
    numbers = np.random.default_rng(seed)
    sequences = albums(numbers.integers(1, 6, 60).tolist())
    cell = numbers.integers(0, 3, len(sequences))
    vectors = numbers.normal(0, 0.1, (len(sequences.rows), 3)).astype(np.float32)
    for number in range(len(sequences)):
        vectors[sequences.of(number)[-1 if last else 0], cell[number]] += 1
    cells = cell[sequences.numbers()]
    cells[0], vectors[1] = -1, np.nan  # in no cell; could not be read
    return SequencePhotos(ContextPhotos(Embeddings(vectors), cells, POINTS[cells]), sequences)


LEARN = SequenceModelSettings(epochs=15, batch_size=8, learning_rate=0.02, device="cpu", checkpoint_steps=3)


def trained(kind: str, last: bool, folder: Path, settings: SequenceModelSettings = LEARN, **options: Any):
    settings = replace(settings, network=SequenceNetworkSettings(hidden=8, **KINDS[kind]), length=8)
    model = network(kind)
    held_out = told_once(last, 2)
    result = train_sequences(model, told_once(last, 1), held_out, POINTS, settings, 5, folder, **options)
    found = all_probabilities(model, held_out.photos.inputs, held_out.sequences)
    several = ~held_out.sequences.alone & held_out.photos.usable
    right = found[several].argmax(axis=1) == held_out.photos.cells[several]
    return model, result, right.mean()


@pytest.mark.parametrize(("kind", "knows"), [("lstm", False), ("repeated", True), ("bidirectional", True)])
def test_what_the_last_photo_tells_reaches_the_first(kind, knows, tmp_path):
    _, result, accuracy = trained(kind, True, tmp_path)
    assert (accuracy > 0.9) == knows
    assert result.history[-1]["accuracy_25km"] <= 1
    assert result.left_out["training_unusable"] == 2


def test_what_the_first_photo_tells_is_remembered(tmp_path):
    assert trained("lstm", False, tmp_path / "lstm")[2] > 0.9
    assert trained("transformer", False, tmp_path / "transformer")[2] > 0.9


def test_a_killed_training_ends_with_the_same_bytes(tmp_path):
    settings = replace(LEARN, epochs=3, one_per_group=True, batch_size=2)
    whole, _, _ = trained("bidirectional", True, tmp_path / "whole", settings)

    class Killed(Exception):
        pass

    def kill(event: dict) -> None:
        if event["kind"] == "epoch" and event["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        trained("bidirectional", True, tmp_path / "part", settings, on_progress=kill)
    again, result, _ = trained("bidirectional", True, tmp_path / "part", settings)
    assert result.resumed_at_step
    assert result.steps == 3 * 30  # of 60 albums of 60 groups
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_person_brings_one_random_piece_an_epoch(tmp_path):
    held = told_once(True, 1)
    by_user = SequencePhotos(held.photos, make_people(held))
    settings = replace(LEARN, one_per_group=True, length=5, epochs=2, batch_size=2)
    seen: list[int] = []
    model = network("bidirectional")
    real = type(by_user.sequences).of

    def of(self: Sequences, number: int) -> np.ndarray:
        seen.append(number)
        return real(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequences, "of", of)
        result = train_sequences(model, by_user, None, POINTS, settings, 0, tmp_path)
    assert result.steps == 4  # three people, two a step
    pieces = by_user.sequences.cut(5)
    assert sorted(pieces.group[seen[:3]]) == sorted(pieces.group[seen[3:]]) == [0, 1, 2]
    assert set(seen[:3]) != set(seen[3:])


def make_people(held: SequencePhotos) -> Sequences:
    """Three people who share the photos."""
    count = len(held.photos)
    frame = pd.DataFrame(
        {
            "photo_id": [f"{i:03d}" for i in range(count)], "source": "s", "album": None,
            "photographer": [f"p{i % 3}" for i in range(count)], "taken_at": pd.Timestamp(2015, 1, 1),
        }
    )  # fmt: skip
    return make_sequences(frame, SequenceSettings(by="user"))


def test_batches_hold_sequences_of_like_lengths_each_once():
    numbers = np.random.default_rng(0)
    lengths = numbers.integers(1, 100, 103)
    order = by_length(np.arange(103), lengths, 10, numbers)
    assert sorted(order) == list(range(103))
    spread = [np.ptp(lengths[order[start : start + 10]]) for start in range(0, 80, 10)]
    assert np.mean(spread) < 25


def test_photos_that_do_not_fit_the_network_are_named(tmp_path):
    held = told_once(True, 1)
    with pytest.raises(TrainingError, match="the training photos have 3 inputs, the network has 4"):
        train_sequences(network("lstm", inputs=4), held, None, POINTS, LEARN, 0, tmp_path)
    unknown = ContextPhotos(held.photos.inputs, np.full(len(held.photos), -1), held.photos.places)
    with pytest.raises(TrainingError, match="none of the 60 sequences has a photo with inputs and a cell"):
        train_sequences(
            network("lstm"), SequencePhotos(unknown, held.sequences), None, POINTS, LEARN, 0, tmp_path
        )


def by_the_hour(seed: int) -> ContextPhotos:
    """Photos whose image model knows nothing, posted at an hour that tells the cell."""
    numbers = np.random.default_rng(seed)
    cells = numbers.integers(0, 3, 300)
    hours = cells * 8 + numbers.integers(0, 3, 300)
    times = pd.Series(
        pd.to_datetime([f"2015-03-{1 + i % 28:02d}T{hour:02d}:00" for i, hour in enumerate(hours)])
    )
    times[0] = pd.NaT
    return ContextPhotos(top_cells(np.full((300, 3), 1 / 3), times), cells, POINTS[cells])


def test_the_time_network_learns_the_hour_and_leaves_out_photos_without(tmp_path):
    settings = TimeSettings(
        epochs=30, batch_size=32, learning_rate=0.01, device="cpu",
        network=TimeNetworkSettings(hidden=32, dropout=0.1),
    )  # fmt: skip
    assert settings.network is not None
    model = build_time_network(3, settings.network, 0)
    assert [layer.out_features for layer in model.layers if isinstance(layer, torch.nn.Linear)] == [
        7,
        32,
        32,
        32,
        3,
    ]
    held_out = by_the_hour(2)
    result = train_time_network(model, by_the_hour(1), held_out, POINTS, settings, 0, tmp_path / "run")
    assert result.left_out["training_unusable"] == 1
    found = time_probabilities(model, held_out.inputs)
    assert np.isnan(found[0]).all()
    assert (found[1:].argmax(axis=1) == held_out.cells[1:]).mean() > 0.9
    save_time_network(tmp_path / "model", model)
    np.testing.assert_array_equal(
        time_probabilities(load_time_network(tmp_path / "model"), held_out.inputs), found
    )
    small = ContextPhotos(held_out.inputs, np.zeros(300, dtype=np.int64), held_out.places)
    with pytest.raises(TrainingError, match="the training photos have 7 inputs, the network has 6"):
        train_time_network(
            build_time_network(2, settings.network, 0), small, None, POINTS, settings, 0, tmp_path
        )
