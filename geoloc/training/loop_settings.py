"""Settings of the training loop, shared by all families of models. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, setting


class LoopSettings(Settings):
    """How a network is trained, whatever it learns. A family of models adds its own settings in a subclass, and its
    measures to `select_by`. Settings that count only in mode fine_tune always count in a family without modes."""

    seed: int | None = setting(
        None,
        minimum=0,
        help="seed of the training alone: drawn weights, the order of photos, their changes; null: the build's seed",
    )
    epochs: int = setting(10, minimum=1, help="number of passes over the training photos")
    batch_size: int = setting(64, minimum=1, help="photos per step")
    optimiser: Literal["sgd", "adagrad", "adamw"] = setting(
        "adamw", help="the algorithm that updates the weights"
    )
    initial_accumulator: Number = setting(
        0.0,
        minimum=0.0,
        when=("optimiser", ("adagrad",)),
        help="Adagrad's initial sum of squared gradients; TensorFlow's default is 0.1",
    )
    learning_rate: Number = setting(1e-3, minimum=0.0, help="highest learning rate of the head")
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
        help="momentum of SGD",
    )
    weight_decay: Number = setting(
        1e-4, minimum=0.0, help="weight decay; biases and normalisation layers have none"
    )
    schedule: Literal["constant", "cosine", "step", "linear"] = setting(
        "cosine", help="schedule of the learning rate after the warm-up"
    )
    warm_up_epochs: Number = setting(
        0.0, minimum=0.0, help="epochs over which the learning rate rises linearly"
    )
    final_share: Number = setting(
        0.0,
        minimum=0.0,
        maximum=1.0,
        when=("schedule", ("cosine", "linear")),
        help="final learning rate as a share of the highest",
    )
    step_epochs: int = setting(
        10, minimum=1, when=("schedule", ("step",)), help="epochs between drops of the learning rate"
    )
    step_factor: Number = setting(
        0.1,
        minimum=0.0,
        maximum=1.0,
        when=("schedule", ("step",)),
        help="factor by which the learning rate drops",
    )
    average_decay: Number = setting(
        0.0,
        minimum=0.0,
        maximum=0.99999,
        help="decay of the moving average of weights, which is evaluated and saved in their place; 0: no average",
    )
    gradient_clip: Number = setting(0.0, minimum=0.0, help="largest norm of the gradient; 0: no limit")
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", help="precision of the forward pass (autocast)"
    )
    channels_last: bool = setting(True, help="use the channels-last memory layout for images and filters")
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", help="where to train; auto: cuda if there is one, else cpu"
    )
    select_by: Literal["validation_loss", "last"] = setting(
        "validation_loss",
        help="the measure that chooses the epoch whose weights are kept; last: the last epoch",
    )
    early_stopping_epochs: int = setting(
        0, minimum=0, help="stop after this many epochs without improvement by select_by; 0: never"
    )
    checkpoint_steps: int = setting(
        200, minimum=0, counts=False, help="steps between checkpoints; 0: only after each epoch"
    )
    progress_steps: int = setting(10, minimum=1, counts=False, help="steps between progress reports")
    workers: int = setting(0, minimum=0, counts=False, help="decoding threads; 0: one per processor")

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        if self.early_stopping_epochs and self.select_by == "last":
            raise SettingsError(
                f"{key}.early_stopping_epochs must be 0 when select_by is last, got {self.early_stopping_epochs}"
            )
        if self.warm_up_epochs >= self.epochs:
            raise SettingsError(
                f"{key}.warm_up_epochs must be below epochs ({self.epochs}), got {self.warm_up_epochs}"
            )
