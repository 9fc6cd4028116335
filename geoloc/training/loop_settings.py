"""Settings of the training loop, shared by all families of models. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, setting


class LoopSettings(Settings):
    """How a network is trained, whatever it learns. A family of models adds its own settings in a subclass, and its
    measures to `select_by`. What counts with mode fine_tune only always counts in a family that has no mode."""

    epochs: int = setting(10, minimum=1, help="times that the photos are gone through")
    batch_size: int = setting(64, minimum=1, help="photos a step")
    optimiser: Literal["sgd", "adagrad", "adamw"] = setting("adamw", help="how gradients change weights")
    learning_rate: Number = setting(1e-3, minimum=0.0, help="of the head, at its highest")
    backbone_learning_rate_share: Number = setting(
        1.0,
        minimum=0.0,
        maximum=1.0,
        when=("mode", ("fine_tune",)),
        help="the backbone's learning rate as a share of the head's",
    )
    momentum: Number = setting(
        0.9,
        minimum=0.0,
        maximum=0.999,
        when=("optimiser", ("sgd",)),
        help="share of the last step that each step repeats",
    )
    weight_decay: Number = setting(1e-4, minimum=0.0, help="not of biases and normalisation layers")
    schedule: Literal["constant", "cosine", "step", "linear"] = setting(
        "cosine", help="of the learning rate, after the warm-up"
    )
    warm_up_epochs: Number = setting(0.0, minimum=0.0, help="the learning rate rises evenly for so long")
    final_share: Number = setting(
        0.0,
        minimum=0.0,
        maximum=1.0,
        when=("schedule", ("cosine", "linear")),
        help="learning rate at the end, as a share of the highest",
    )
    step_epochs: int = setting(10, minimum=1, when=("schedule", ("step",)), help="epochs between drops")
    step_factor: Number = setting(
        0.1, minimum=0.0, maximum=1.0, when=("schedule", ("step",)), help="the factor of each drop"
    )
    average_decay: Number = setting(
        0.0,
        minimum=0.0,
        maximum=0.99999,
        help="of the moving average of weights, which is evaluated and saved in their place; 0: none",
    )
    gradient_clip: Number = setting(0.0, minimum=0.0, help="largest norm of all gradients; 0: no limit")
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", help="of the forward pass (autocast)"
    )
    channels_last: bool = setting(True, help="memory layout of images and filters")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", help="auto: cuda where there is one")
    select_by: Literal["validation_loss", "last"] = setting(
        "validation_loss",
        help="the epoch whose weights are kept; last: the last one's",
    )
    early_stopping_epochs: int = setting(
        0, minimum=0, help="stop after so many epochs without a better one by select_by; 0: never"
    )
    checkpoint_steps: int = setting(
        200, minimum=0, counts=False, help="steps between checkpoints; 0: only after epochs"
    )
    progress_steps: int = setting(10, minimum=1, counts=False, help="steps between reports of progress")
    workers: int = setting(0, minimum=0, counts=False, help="decoding threads; 0: as many as processors")

    def check(self, key: str) -> None:
        """Raise SettingsError where fields do not fit each other."""
        if self.early_stopping_epochs and self.select_by == "last":
            raise SettingsError(
                f"{key}.early_stopping_epochs must be 0 when select_by is last, got {self.early_stopping_epochs}"
            )
        if self.warm_up_epochs >= self.epochs:
            raise SettingsError(
                f"{key}.warm_up_epochs must be below epochs ({self.epochs}), got {self.warm_up_epochs}"
            )
