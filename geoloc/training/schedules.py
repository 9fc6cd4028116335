"""The learning rate as a function of the step alone: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from geoloc.training.loop_settings import LoopSettings


def learning_rate_share(settings: LoopSettings, step: int, epoch_starts: Sequence[int]) -> float:
    """The learning rate of step `step` (from 0) as a share of the highest; `epoch_starts` are the steps before each
    epoch and after the last.

    Warm-up over w steps: (step + 1) / w of the highest, so that no step has rate 0. After it: constant; cosine, from 1
    to `final_share` (Loshchilov and Hutter, SGDR, equation 5, one period, reached one step after the last); linear,
    between the same values (Multi-modal Geolocation, section A.1: 4 % of the first less each epoch, which is 25 epochs
    down to 0); or step, times `step_factor` every `step_epochs` epochs, counted from the start of the training.
    """
    total = epoch_starts[-1]
    whole, part = divmod(settings.warm_up_epochs, 1)
    before, after = epoch_starts[int(whole)], epoch_starts[min(int(whole) + 1, settings.epochs)]
    warm_up = round(before + part * (after - before))
    if step < warm_up:
        return (step + 1) / warm_up
    if settings.schedule == "cosine":
        done = (step - warm_up) / max(1, total - warm_up)
        return settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "linear":
        return 1 - (1 - settings.final_share) * (step - warm_up) / max(1, total - warm_up)
    if settings.schedule == "step":
        epoch = bisect_right(epoch_starts, step) - 1
        return float(settings.step_factor ** (epoch // settings.step_epochs))
    return 1.0
