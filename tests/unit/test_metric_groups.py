"""Batches of metric learning: groups of positives, never by one photographer or of near-duplicates; hard negatives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.settings import parse
from geoloc.sphere import destination, distance_km
from geoloc.training.groups import Groups, Mined
from geoloc.training.metric_photos import MetricPhotos, metric_photos
from geoloc.training.metric_settings import MetricSettings, PositivesSettings
from geoloc.training.mining import mine, mined_at
from geoloc.training.source import TrainingError


class Cells:
    """As much of a partition as is asked for: cells are given."""

    cell_count = 50


def photos_of(cells: Any, positives: PositivesSettings | None = None, **columns: Any) -> MetricPhotos:
    """Photos in these cells, each by a photographer of its own unless `columns` say otherwise."""
    count = len(cells)
    numbers = np.arange(count)
    given = {
        "photo_id": [f"x{i}" for i in numbers], "shard": "s", "offset": numbers, "length": 1,
        "latitude": 0.0, "longitude": 0.0, "photographer": [f"p{i}" for i in numbers], "cell_c": cells,
    } | columns  # fmt: skip
    frame = pd.DataFrame(given)
    return metric_photos(frame, {"c": Cells()}, positives or PositivesSettings(), "training")  # type: ignore[dict-item]


def metric(**values: Any) -> MetricSettings:
    return parse(MetricSettings, values, "metric")


def places(count: int, seed: int = 0) -> dict[str, Any]:
    """Points within some 3 km of each other."""
    numbers = np.random.default_rng(seed)
    latitude, longitude = destination(48.0, 2.0, numbers.uniform(0, 360, count), numbers.uniform(0, 3, count))
    return {"latitude": latitude, "longitude": longitude}


@pytest.mark.parametrize(("size", "each"), [(32, 4), (2048, 32)])
def test_a_batch_has_classes_times_images(size: int, each: int) -> None:
    photos = photos_of(np.repeat(np.arange(100), 40) % 50)
    order = Groups(photos, metric(batch_size=size, images_per_group=each)).order(7, 1)
    assert len(order) == len(photos) // size * size
    drawn = []
    for batch in order.reshape(-1, size):
        assert len(set(batch.tolist())) == size
        classes, counts = np.unique(photos.cell[batch], return_counts=True)
        if size == 32:
            assert len(classes) == size // each
            assert set(counts) == {each}
        drawn.append(len(classes))
    assert min(drawn) >= min(50, size // each)


def test_epochs_are_a_function_of_seed_and_epoch() -> None:
    groups = Groups(photos_of(np.arange(400) % 50), metric())
    orders = [groups.order(seed, epoch).tobytes() for seed in (1, 2) for epoch in (1, 2)]
    assert len(set(orders)) == 4
    assert groups.order(1, 2).tobytes() == orders[1]
    assert groups.steps == 400 // 32
    assert len(Groups(groups.photos, metric(steps_per_epoch=3)).order(1, 1)) == 96


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(["cell", "radius"]), st.booleans())
def test_relations_keep_photographers_and_near_duplicates_apart(seed: int, kind: str, others: bool) -> None:
    numbers = np.random.default_rng(seed)
    cells, who, copy = numbers.integers(-1, 4, 30), numbers.integers(0, 6, 30), numbers.integers(0, 15, 30)
    where = places(30, seed)
    positives = PositivesSettings(kind=kind, radius_km=1.0, negative_km=1.5, other_photographers=others)  # type: ignore[arg-type]
    photos = photos_of(
        cells, positives, photographer=[None if w == 0 else f"p{w}" for w in who],
        near_duplicates=copy, sha256=[f"h{i}" for i in range(30)], **where,
    )  # fmt: skip
    found = photos.relations(np.arange(30), positives)
    km = distance_km(
        where["latitude"][:, None], where["longitude"][:, None], where["latitude"], where["longitude"]
    )
    for i, j in itertools.product(range(30), repeat=2):
        together = cells[i] == cells[j] >= 0 if kind == "cell" else km[i, j] <= 1.0
        same_photographer = i == j or (who[i] == who[j] and who[i] != 0)
        positive, negative = bool(found.positives[i, j]), bool(found.negatives[i, j])
        assert positive == (together and copy[i] != copy[j] and not (others and same_photographer))
        assert negative == (not together and copy[i] != copy[j] and km[i, j] >= 1.5)
    seeds = [i for i in range(30) if found.positives[i].any()]
    if kind == "radius":
        groups = _groups(photos, positives)
        seeds_found = [i for i in range(30) if len(groups._near(i, groups._candidates(i)))]
        assert seeds_found == seeds


def _groups(photos: MetricPhotos, positives: PositivesSettings) -> Groups:
    groups = object.__new__(Groups)  # without the check that a batch can be filled
    object.__setattr__(groups, "photos", photos)
    object.__setattr__(groups, "settings", MetricSettings(positives=positives))
    return groups


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["cell", "radius"]), st.booleans())
def test_only_photos_with_a_positive_start_a_group(seed: int, kind: str, others: bool) -> None:
    numbers = np.random.default_rng(seed)
    positives = PositivesSettings(kind=kind, radius_km=0.7, other_photographers=others)  # type: ignore[arg-type]
    photos = photos_of(
        numbers.integers(-1, 12, 40), positives, photographer=[f"p{w}" for w in numbers.integers(0, 3, 40)],
        near_duplicates=numbers.integers(0, 9, 40), **places(40, seed),
    )  # fmt: skip
    wanted = photos.relations(np.arange(40), positives).positives.any(dim=1).numpy()
    found = _groups(photos, positives)
    np.testing.assert_array_equal(found._seeds, np.flatnonzero(wanted))
    assert found.without_positive == (~wanted).sum()


def test_a_group_prefers_photographers_that_it_does_not_have() -> None:
    """One photographer took 90 of a cell's 100 photos; each group of eleven still has all eleven photographers."""
    who = ["busy"] * 90 + [f"p{i}" for i in range(10)]
    photos = photos_of(np.repeat([0, 1], 100), photographer=who * 2)
    order = Groups(photos, metric(batch_size=22, images_per_group=11, steps_per_epoch=20)).order(0, 1)
    for group in order.reshape(-1, 11):
        assert len(set(photos.cell[group])) == 1
        busy = sum(who[i % 100] == "busy" for i in group)
        assert busy <= 1


def test_small_places_give_smaller_groups_and_the_batch_is_full() -> None:
    photos = photos_of([0, 0, 1, 1, 1, 2, 2, 3])
    groups = Groups(photos, metric(batch_size=6, images_per_group=3, steps_per_epoch=30))
    assert groups.without_positive == 1
    for batch in groups.order(0, 1).reshape(-1, 6):
        assert len(set(batch.tolist())) == 6
        assert 7 not in batch
    with pytest.raises(TrainingError, match=r"metric\.batch_size must be at most 7, .* got 8"):
        Groups(photos, metric(batch_size=8, images_per_group=4))


def test_photos_within_a_radius_are_together() -> None:
    where = places(200)
    given_settings = metric(batch_size=16, steps_per_epoch=10, positives={"kind": "radius", "radius_km": 0.5})
    photos = photos_of(np.full(200, -1), given_settings.positives, **where)
    order = Groups(photos, given_settings).order(0, 1)
    relations = photos.relations(order[:4], given_settings.positives)
    assert relations.positives[0, 1:].all(), "the first photo of a group and its positives"


def test_hard_negatives_are_the_most_similar_wrong_photos_and_come_into_the_batch() -> None:
    numbers = np.random.default_rng(0)
    photos = photos_of(np.arange(120) % 12)
    vectors = numbers.normal(size=(120, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[5] = np.nan  # unreadable
    given_settings = metric(
        batch_size=16, steps_per_epoch=40, mining={"nearest": 3, "share": 0.5}, images_per_group=2
    )
    found = mine(vectors, photos, given_settings, torch.device("cpu"))
    for i in range(120):
        wrong = [j for j in range(120) if photos.cell[j] != photos.cell[i] and j != 5]
        nearest = sorted(wrong, key=lambda j: -float(vectors[i] @ vectors[j]))[:3]
        assert found.wrong[i].tolist() == ([-1] * 3 if i == 5 else nearest)
    assert found.close.shape == (120, 0)

    def hard(order: np.ndarray) -> float:
        """How often a batch holds a hard negative of one of its photos."""
        batches = order.reshape(-1, 16)
        return float(np.mean([np.isin(found.wrong[batch], batch).mean() for batch in batches]))

    groups = Groups(photos, given_settings)
    assert hard(groups.order(1, 1, found)) > 1.5 * hard(groups.order(1, 1))
    np.testing.assert_array_equal(groups.order(1, 1, found), groups.order(1, 1, found))


def test_the_closest_positives_are_the_ones_in_the_group() -> None:
    given_settings = metric(
        batch_size=8, steps_per_epoch=20, positives={"kind": "closest_in_radius", "radius_km": 100.0}
    )
    photos = photos_of(np.full(40, -1), given_settings.positives, **places(40))
    angle = np.random.default_rng(1).uniform(0, 1, 40)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    found = mine(vectors, photos, given_settings, torch.device("cpu"))
    assert found.close.shape == (40, 3)
    order = Groups(photos, given_settings).order(0, 1, found)
    assert sorted(order[1:4]) == sorted(found.close[order[0]])
    nearest = np.argsort(np.abs(angle - angle[order[0]]), kind="stable")[1:4]
    assert sorted(nearest) == sorted(order[1:4])


def test_what_was_mined_is_kept_for_its_epochs_and_its_training(tmp_path: Path) -> None:
    computed: list[int] = []

    def at(epoch: int, fingerprint: str = "one") -> int:
        def compute() -> Mined:
            computed.append(epoch)
            return Mined(np.array([[epoch]]), np.empty((1, 0), np.int64))

        return int(mined_at(tmp_path, epoch, 2, fingerprint, compute).wrong[0, 0])

    assert [at(epoch) for epoch in (1, 1, 2, 3, 4, 4)] == [1, 1, 1, 3, 3, 3]
    assert computed == [1, 3]
    assert at(4, "another") == 4
    (tmp_path / "mined.safetensors").write_bytes(b"damaged")
    assert at(4, "another") == 4


def test_without_the_column_equal_bytes_are_near_duplicates() -> None:
    photos = photos_of([0, 0, 0], sha256=["a", "a", None])
    assert photos.relations(np.arange(3), PositivesSettings()).positives.int().tolist() == [
        [0, 0, 1], [0, 0, 1], [1, 1, 0],
    ]  # fmt: skip
