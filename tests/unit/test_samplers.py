"""Orders of epochs: permutations, and M1's curriculum with its sizes and biases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.settings import SettingsError, parse
from geoloc.training.samplers import (
    biased_draw,
    curriculum_length,
    curriculum_order,
    epoch_starts,
    shuffled,
    without_lonely,
)
from geoloc.training.settings import CurriculumSettings, TrainingSettings

CELLS = np.repeat([0, 1, 2, -1], [3000, 200, 40, 500])
M1 = CurriculumSettings(examples_per_cell=200, cycle_epochs=4, biases=(1.0, 0.5))


def test_epochs_are_permutations_without_a_lonely_photo() -> None:
    orders = [shuffled(17, 1, epoch) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(17)) for order in orders)
    assert not np.array_equal(*orders)
    assert not np.array_equal(orders[0], shuffled(17, 2, 1))
    np.testing.assert_array_equal(
        curriculum_order(np.zeros(17, dtype=np.int64), None, 1, 1), orders[0], "without a curriculum"
    )
    assert [without_lonely(examples, 4) for examples in (16, 17, 18, 1, 0)] == [16, 16, 18, 1, 0]
    assert without_lonely(17, 1) == 17


def test_the_steps_before_each_epoch_count_a_smaller_last_batch() -> None:
    assert epoch_starts([8, 9, 3], 4) == [0, 2, 5, 6]
    assert epoch_starts([], 4) == [0]


def test_examples_grow_by_6_per_cent_from_200_a_cell_and_begin_anew_each_cycle() -> None:
    sizes = [len(curriculum_order(CELLS, M1, 0, epoch)) for epoch in range(1, 10)]
    cycle = [600, 636, 674, 715]  # 200 × 3 × 1.06^e
    assert sizes == [*cycle, *cycle, len(CELLS)]
    assert [curriculum_length(CELLS, M1, epoch) for epoch in range(1, 10)] == sizes


def test_no_epoch_has_more_than_there_is() -> None:
    assert len(curriculum_order(CELLS[3100:], M1, 0, 1)) == 140


def test_cells_are_equal_at_first_and_less_so_with_less_bias() -> None:
    first, second, last = (curriculum_order(CELLS, M1, 5, epoch) for epoch in (1, 5, 9))
    assert np.bincount(CELLS[first]).tolist() == [200, 200, 200]
    shares = np.sqrt([3000, 200, 40])
    np.testing.assert_allclose(np.bincount(CELLS[second]), 600 * shares / shares.sum(), atol=1)
    assert sorted(last) == list(range(len(CELLS)))
    # The rare cell's 40 photos come five times each, the common cell's at most once.
    times = np.bincount(first, minlength=len(CELLS))
    assert set(times[CELLS == 2]) == {5}
    assert set(times[CELLS == 0]) == {0, 1}
    assert set(times[CELLS == -1]) == {0}


@given(
    st.lists(st.integers(-1, 5), min_size=1, max_size=60).filter(lambda cells: max(cells) >= 0),
    st.integers(1, 80),
    st.floats(0, 1),
    st.integers(0, 2**63),
)
def test_a_draw_has_the_count_the_shares_and_even_photos(
    cells: list[int], count: int, bias: float, seed: int
) -> None:
    array = np.array(cells)
    drawn = biased_draw(array, count, bias, seed, 1)
    assert len(drawn) == count
    np.testing.assert_array_equal(drawn, biased_draw(array, count, bias, seed, 1))
    times = np.bincount(drawn, minlength=len(array))
    weights = {cell: cells.count(cell) ** (1 - bias) for cell in set(cells) - {-1}}
    for cell in set(cells):
        share = weights[cell] / sum(weights.values()) if cell >= 0 else 0.0
        assert abs(times[array == cell].sum() - share * count) < 1 + 1e-6
        assert np.ptp(times[array == cell]) <= 1


def test_rounding_is_fair_over_epochs() -> None:
    """Two photos a draw among cells of equal shares: each comes as often as it should, over many epochs."""
    cells = np.arange(6)
    drawn = np.concatenate([biased_draw(cells, 2, 1.0, 3, epoch) for epoch in range(600)])
    np.testing.assert_allclose(np.bincount(drawn) / 600, 1 / 3, atol=0.07)


def test_a_draw_depends_on_seed_and_epoch() -> None:
    draws = [biased_draw(CELLS, 300, 1.0, seed, epoch).tobytes() for seed in (1, 2) for epoch in (1, 2)]
    assert len(set(draws)) == 4
    with pytest.raises(ValueError, match="at least one photo in a cell"):
        biased_draw(np.array([-1, -1]), 3, 1.0, 0, 1)


def test_wrong_biases_are_told() -> None:
    for biases in ([], [0.2, 0.8]):
        with pytest.raises(
            SettingsError, match=r"training\.curriculum\.biases must be one or more that never"
        ):
            parse(TrainingSettings, {"curriculum": {"biases": biases}}, "training")
    with pytest.raises(SettingsError, match=r"training\.curriculum\.biases\[0\] must be at most 1"):
        parse(TrainingSettings, {"curriculum": {"biases": [2]}}, "training")
    assert parse(CurriculumSettings, {"cycle_epochs": 4, "biases": [1, 0.5]}) == M1
