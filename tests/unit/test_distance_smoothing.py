"""Targets smoothed by distance against the formula, one photo and one cell at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.losses.classification import cross_entropy, distance_targets, soft_cross_entropy, unit_vectors
from geoloc.losses.heads import HeadLoss
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km
from geoloc.training.settings import TrainingSettings

PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(
    st.lists(PLACES, min_size=2, max_size=6), st.lists(PLACES, min_size=1, max_size=4), st.floats(50, 5000)
)
def test_targets_are_the_formula(
    cells: list[tuple[float, float]], photos: list[tuple[float, float]], tau: float
) -> None:
    found = distance_targets(unit_vectors(cells), unit_vectors(photos), tau).numpy()
    for row, photo in enumerate(photos):
        true = 0  # whichever cell is the true one, the target is the same once scaled to sum to 1
        km = [float(distance_km(*photo, *cell)) for cell in cells]
        if max(km) - km[true] > 600 * tau or km[true] - min(km) > 600 * tau:
            continue  # the formula as printed would overflow
        terms = [math.exp(-(each - km[true]) / tau) for each in km]
        np.testing.assert_allclose(found[row], np.array(terms) / sum(terms), atol=1e-5)


@settings(deadline=None)
@given(st.lists(PLACES, min_size=2, max_size=6), PLACES, st.integers(0, 5), st.floats(1, 5000))
def test_the_largest_target_is_the_true_cell(
    cells: list[tuple[float, float]], photo: tuple[float, float], label: int, tau: float
) -> None:
    """Also where the point of another cell is nearer, which happens at the borders of cells."""
    points, place, label = unit_vectors(cells), unit_vectors([photo]), label % len(cells)
    found = distance_targets(points, place, tau, torch.tensor([label]))[0]
    plain = distance_targets(points, place, tau)[0]
    others = [i for i in range(len(cells)) if i != label]
    assert float(found[label]) > float(found[others].max())
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    if float(plain[label]) > 1.02 * float(plain[others].max()):  # it was already: the formula holds
        torch.testing.assert_close(found, plain)
    torch.testing.assert_close(distance_targets(points, place, tau, torch.tensor([-1]))[0], plain)


def test_near_cells_are_told_apart_by_metres() -> None:
    """111 m apart, tau 100 m: float32 on the unit sphere would see no difference."""
    cells = [(48.0, 2.0), (48.001, 2.0)]
    found = distance_targets(unit_vectors(cells), unit_vectors([(48.0, 2.0)]), 0.1)[0]
    assert float(found[1] / found[0]) == pytest.approx(math.exp(-0.1112 / 0.1), rel=1e-2)


def test_the_loss_is_the_formula_and_leaves_photos_in_no_cell_out() -> None:
    rng = np.random.default_rng(1)
    cells = np.array([[0.0, 0.0], [0.0, 1.0], [40.0, 50.0]])
    photos = np.array([[0.1, 0.2], [39.0, 51.0], [-80.0, 0.0], [0.0, 0.9]])
    logits, labels, weights = rng.normal(size=(4, 3)), np.array([0, 2, -1, 1]), np.array([1.0, 3.0, 0.5])
    expected = 0.0
    for logit, photo, label in zip(logits, photos, labels, strict=True):
        if label < 0:
            continue
        near = np.exp([-float(distance_km(*photo, *cell)) / 75 for cell in cells])
        logs = logit - np.log(np.exp(logit).sum())
        expected -= weights[label] * float((near / near.sum() * logs).sum()) / 4
    head = HeadLoss(1.0, torch.from_numpy(weights), 0.0, 75.0, unit_vectors(cells))
    given_logits = torch.from_numpy(logits).requires_grad_()
    loss = head(given_logits, torch.from_numpy(labels), unit_vectors(photos))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert given_logits.grad is not None
    assert (given_logits.grad[2] == 0).all()
    assert (given_logits.grad[[0, 1, 3]] != 0).all()


def test_a_small_tau_is_plain_cross_entropy() -> None:
    logits, labels = (
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 0, 1]),
    )
    points = unit_vectors([(0, 0), (0, 90), (80, 0)])
    targets = distance_targets(points, points[labels], 1.0)
    torch.testing.assert_close(soft_cross_entropy(logits, targets, labels), cross_entropy(logits, labels))


def test_two_kinds_of_smoothing_at_once_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"training\.label_smoothing must be 0 where label_smoothing_km is"
    ):
        parse(TrainingSettings, {"label_smoothing": 0.1, "label_smoothing_km": 75}, "training")
