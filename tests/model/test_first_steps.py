"""The benchmark of first steps: exactly the published cells, the recipe's own training, honest numbers."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import first_steps as steps
from geoloc.models.hierarchy import nested_parents
from geoloc.partitions.settings import S2Settings
from orchestration.plan.settings import load_settings
from orchestration.workspace import Workspace

WORKSPACE = Workspace.open(Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("recipe", "heads"),
    [
        ("planet_full", {"fine": 900}),
        ("revisiting_m_full", steps.PUBLISHED_HEADS["revisiting_m_full"]),
        ("m1_finep_full", {"finep": 538}),
        ("cities_alexnet_full", {"cities": 37}),
        ("kmeans_full", {"fine": 900}),
        ("hierarchical_full", {"fine": 900}),
    ],
)
def test_partitions_have_exactly_the_cells_and_every_place_is_in_one(recipe, heads):
    settings = load_settings(WORKSPACE, recipe)
    first = next(iter(settings.partitions.values()))
    at = steps.places(first.chosen, max(heads.values()), 0)
    made = steps.partitions_with(settings, heads, at)
    assert list(made) == list(settings.partitions)
    for name, partition in made.items():
        assert partition.kind == settings.partitions[name].kind
        some = at[: heads.get(name, len(at))]
        cells = partition.assign(some[:, 0], some[:, 1])
        assert set(cells) == set(range(partition.cell_count))
        if name in heads:
            assert partition.cell_count == heads[name]
    if settings.model.softmax == "hierarchical":
        assert list(nested_parents(made)) == ["fine", "middle"]
        counts = [partition.cell_count for partition in made.values()]
        assert counts[0] > 3 * counts[1] > 9 * counts[2]


def test_cells_that_cannot_be_had_exactly_are_an_error():
    settings = load_settings(WORKSPACE, "planet_full")
    at = steps.places(S2Settings(), 50, 0)
    with pytest.raises(ValueError, match="fine has 50 cells, wanted 60"):
        steps.partitions_with(settings, {"fine": 60}, at)


def test_the_first_steps_of_a_small_recipe():
    """multi: two heads of a small network, adamw with a warm-up of an epoch, in batches of 32."""
    heads = {"fine": 40, "coarse": 8}
    settings = load_settings(WORKSPACE, "multi")
    found = steps.first_steps(WORKSPACE, "multi", heads, 3, 8, steps.pictures(None))
    assert found.heads == heads
    assert (found.photos, found.batch_size) == (80, 8)
    assert found.notes == ("batches of 8 in place of 32",)
    assert settings.training.warm_up_epochs == 1
    rates = [rate for rate, _, _ in found.steps]
    assert rates == pytest.approx([settings.training.learning_rate * n / 10 for n in (1, 2, 3)])
    guess = math.log(40) + math.log(8)
    assert found.before == pytest.approx(guess, abs=1.5)
    assert found.steps[0][1] == pytest.approx(guess, abs=1.5)  # nothing has been learned at the first step
    assert found.after != found.before
    assert found.moved[0] == found.moved[1] > 50
    assert found.sound
    assert 0.1 < found.peak_gb < 8
    text = steps.report("multi", found, 1.0)
    assert f"{found.weights:,} weights; cells fine 40, coarse 8; 80 photos an epoch" in text
    assert "NOT SOUND" not in text
    again = steps.first_steps(WORKSPACE, "multi", heads, 3, 8, steps.pictures(None))
    assert [step[:2] for step in again.steps] == [step[:2] for step in found.steps]


def test_the_first_steps_of_a_metric_network():
    found = steps.metric_first_steps(WORKSPACE, "revisiting_r3", 2, 8, steps.pictures(None))
    random, smaller = found.notes
    assert random == "random weights in place of classifier (not built)"
    assert smaller == "2 × 4 photos a batch in place of 16 × 8"
    first, second = (rate for rate, _, _ in found.steps)
    assert first == pytest.approx(0.02)
    assert second < first  # cosine
    assert found.after != found.before
    assert found.sound
    text = steps.report("revisiting_r3, [R3]", found, 1.0)
    assert "; loss " in text.replace("\n  ", "; ")
    assert "cross-entropy" not in text
    with pytest.raises(ValueError, match="multi has no section metric"):
        steps.metric_first_steps(WORKSPACE, "multi", 2, 8, [])


def test_what_is_not_sound():
    fine = steps.FirstSteps({"a": 2}, 1, 1, 1, (), ((0.1, 1.0, 1.0),), 1.0, 1.0, (1, 2), 1.0)
    assert fine.sound
    for bad in (
        {"after": math.inf},
        {"before": math.nan},
        {"moved": (0, 2)},
        {"steps": ((0.1, math.nan, 1.0),)},
    ):
        broken = dataclasses.replace(fine, **bad)
        assert not broken.sound
        assert "NOT SOUND" in steps.report("x", broken, 1.0)


def test_weights_that_are_not_at_hand_are_said():
    def of(recipe, fetch=False):
        return steps.weights_at_hand(WORKSPACE, load_settings(WORKSPACE, recipe), fetch)

    assert of("planet_full") == ("none", "")
    assert of("kmeans_full") == ("none", "random weights in place of registry (not asked for)")
    assert of("kmeans_full", fetch=True) == ("registry", "")
    assert of("m1_fine_full")[0] == "none"
    assert of("m1_fine_full")[1] == "random weights in place of recipe:m1_fine_cycles_full (not built)"
    assert of("cities_alexnet_full")[1].endswith("alexnet_places205.safetensors (missing)")


def test_the_pool_has_a_photo_at_each_place_and_more_at_some(tmp_path):
    at = np.array([[0.0, 10.0 * k] for k in range(12)])
    rows = steps.pool_of(tmp_path, steps.pictures(None), at, 0)
    assert len(rows) == 24
    counts = rows.groupby("longitude").size()
    assert (counts.min(), len(counts)) == (1, 12)
    assert counts.max() > 2
