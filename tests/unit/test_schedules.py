"""Learning-rate schedules against torch's own, and cross-entropy with class weights against formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from geoloc.losses.classification import class_weights, cross_entropy
from geoloc.settings import SettingsError, parse
from geoloc.training.schedules import learning_rate_share
from geoloc.training.settings import TrainingSettings


def torch_rates(make: object, steps: int) -> list[float]:
    """Rates of the steps under one of torch's schedulers, from 1."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimiser)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def ours(steps_per_epoch: int, **settings: object) -> list[float]:
    chosen = TrainingSettings(**settings)  # type: ignore[arg-type]
    starts = [epoch * steps_per_epoch for epoch in range(chosen.epochs + 1)]
    return [learning_rate_share(chosen, step, starts) for step in range(starts[-1])]


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_torchs(final: float) -> None:
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=35, eta_min=final), 35)
    np.testing.assert_allclose(ours(7, epochs=5, schedule="cosine", final_share=final), expected, atol=1e-12)


def test_step_is_torchs() -> None:
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, step_size=2 * 7, gamma=0.3), 35)
    found = ours(7, epochs=5, schedule="step", step_epochs=2, step_factor=0.3)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_linear_is_torchs(final: float) -> None:
    expected = torch_rates(lambda o: lr_scheduler.LinearLR(o, 1.0, final, total_iters=35), 35)
    np.testing.assert_allclose(ours(7, epochs=5, schedule="linear", final_share=final), expected, atol=1e-12)


def test_linear_over_25_epochs_falls_by_4_per_cent_of_the_first_each_epoch() -> None:
    rates = ours(10, epochs=25, schedule="linear")[::10]
    np.testing.assert_allclose(rates, 1 - 0.04 * np.arange(25), atol=1e-12)


def test_steps_fall_between_epochs_though_these_differ_in_length() -> None:
    settings = TrainingSettings(epochs=4, schedule="step", step_epochs=2, step_factor=0.5, warm_up_epochs=0.5)
    rates = [learning_rate_share(settings, step, [0, 2, 5, 9, 10]) for step in range(10)]
    assert rates == [1.0] * 5 + [0.5] * 5
    long = TrainingSettings(epochs=4, schedule="constant", warm_up_epochs=1.5)
    rates = [learning_rate_share(long, step, [0, 2, 6, 9, 10]) for step in range(5)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0]  # half of the second epoch is two steps


def test_warm_up_then_cosine_is_torchs() -> None:
    def both(optimiser: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        rise = lr_scheduler.LinearLR(optimiser, start_factor=1 / 10, end_factor=1.0, total_iters=9)
        fall = lr_scheduler.CosineAnnealingLR(optimiser, T_max=30)
        return lr_scheduler.SequentialLR(optimiser, [rise, fall], milestones=[10])

    found = ours(10, epochs=4, schedule="cosine", warm_up_epochs=1.0)
    np.testing.assert_allclose(found, torch_rates(both, 40), atol=1e-12)


@given(
    st.sampled_from(["constant", "cosine", "step", "linear"]),
    st.integers(1, 30),
    st.integers(2, 8),
    st.floats(0, 1.9),
)
def test_rate_rises_to_the_highest_and_never_above(
    schedule: str, steps: int, epochs: int, warm_up: float
) -> None:
    rates = np.array(ours(steps, epochs=epochs, schedule=schedule, warm_up_epochs=warm_up))
    assert ((rates > 0) & (rates <= 1)).all()
    rise = round(warm_up * steps)
    assert (np.diff(rates[:rise]) > 0).all()
    assert (np.diff(rates[rise:]) <= 1e-15).all()


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(SettingsError, match=r"training\.warm_up_epochs must be below epochs \(2\), got 2"):
        parse(TrainingSettings, {"epochs": 2, "warm_up_epochs": 2}, "training")
    with pytest.raises(SettingsError, match=r"training\.trainable_blocks must be null when mode is frozen"):
        parse(TrainingSettings, {"trainable_blocks": 2}, "training")
    with pytest.raises(SettingsError, match=r"training\.augmentation\.minimum_area must be at most 1"):
        parse(TrainingSettings, {"augmentation": {"minimum_area": 2}}, "training")
    assert parse(TrainingSettings, {"augmentation": None}, "training").augmentation is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_the_formula(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits, labels, weights = rng.normal(size=(6, 4)) * 3, rng.integers(0, 4, 6), rng.uniform(0.1, 2, 4)
    target = np.full((6, 4), smoothing / 4)
    target[np.arange(6), labels] += 1 - smoothing
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    plain = -(target * logs).sum(axis=1)
    found = cross_entropy(torch.tensor(logits), torch.tensor(labels), None, smoothing)
    assert float(found) == pytest.approx(plain.mean(), rel=1e-5)
    weighted = cross_entropy(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(weights, dtype=torch.float32), smoothing
    )
    assert float(weighted) == pytest.approx((plain * weights[labels]).mean(), rel=1e-5)


@pytest.mark.parametrize(("kind", "ratio"), [("balanced", 9.0), ("sqrt", 3.0)])
def test_class_weights_favour_rare_cells_and_average_to_one(kind: str, ratio: float) -> None:
    counts = np.array([90, 10, 0])
    weights = class_weights(counts, kind)
    assert weights is not None
    assert float(weights[1] / weights[0]) == pytest.approx(ratio)
    assert float(weights[2]) == 0
    assert float((weights.double() * torch.tensor(counts)).sum() / 100) == pytest.approx(1)


def test_class_weights_refuse_what_they_do_not_know() -> None:
    assert class_weights([1, 2], "none") is None
    with pytest.raises(ValueError, match="none, balanced, sqrt; got 'cube'"):
        class_weights([1], "cube")
    with pytest.raises(ValueError, match="at least one photo"):
        class_weights([0, 0], "sqrt")
