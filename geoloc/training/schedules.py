"""Learning rate over a training, as a function of the step alone: nothing to store, nothing to restore."""

from __future__ import annotations

import math

from geoloc.training.settings import TrainingSettings


def learning_rate_share(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """Learning rate of step `step` (from 0) as a share of the highest.

    Warm-up of w steps: (step + 1) / w of the highest, so that no step is wasted at 0. After it, constant; or cosine
    from 1 to `final_share` (Loshchilov and Hutter, SGDR, equation 5, one period, reached one step after the last);
    or step, times `step_factor` each `step_epochs` epochs, counted from the start of the training.
    """
    total = settings.epochs * steps_per_epoch
    warm_up = round(settings.warm_up_epochs * steps_per_epoch)
    if step < warm_up:
        return (step + 1) / warm_up
    if settings.schedule == "cosine":
        done = (step - warm_up) / max(1, total - warm_up)
        return settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "step":
        return float(settings.step_factor ** (step // (settings.step_epochs * steps_per_epoch)))
    return 1.0
