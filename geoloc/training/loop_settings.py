"""Settings of the training loop, shared by all families of models. No heavy imports: the command line reads these."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.settings import SettingsError, setting


@dataclass(frozen=True)
class LoopSettings:
    """How a network is trained, whatever it learns. `workers`, `checkpoint_steps` and `progress_steps` do not change
    the result. A family of models adds its own settings in a subclass, and its measures to `select_by`."""

    epochs: int = setting(10, minimum=1)
    batch_size: int = setting(64, minimum=1, help="photos a step")
    optimiser: str = setting("adamw", choices=("sgd", "adagrad", "adamw"))
    learning_rate: float = setting(1e-3, minimum=0.0, help="of the head, at its highest")
    backbone_learning_rate_share: float = setting(
        1.0, minimum=0.0, maximum=1.0, help="the backbone's learning rate as a share of the head's"
    )
    momentum: float = setting(0.9, minimum=0.0, maximum=0.999, help="sgd only")
    weight_decay: float = setting(1e-4, minimum=0.0, help="not of biases and normalisation layers")
    schedule: str = setting("cosine", choices=("constant", "cosine", "step", "linear"))
    warm_up_epochs: float = setting(0.0, minimum=0.0, help="the learning rate rises evenly for so long")
    final_share: float = setting(
        0.0,
        minimum=0.0,
        maximum=1.0,
        help="cosine, linear: learning rate at the end, as a share of the highest",
    )
    step_epochs: int = setting(10, minimum=1, help="step: epochs between drops")
    step_factor: float = setting(0.1, minimum=0.0, maximum=1.0, help="step: the factor of each drop")
    average_decay: float = setting(
        0.0,
        minimum=0.0,
        maximum=0.99999,
        help="of the moving average of weights, which is evaluated and saved in their place; 0: none",
    )
    gradient_clip: float = setting(0.0, minimum=0.0, help="largest norm of all gradients; 0: no limit")
    precision: str = setting(
        "float32", choices=("float32", "bfloat16", "float16"), help="of the forward pass (autocast)"
    )
    channels_last: bool = setting(True, help="memory layout of images and filters")
    device: str = setting("auto", choices=("auto", "cpu", "cuda"), help="auto: cuda where there is one")
    select_by: str = setting(
        "validation_loss",
        choices=("validation_loss", "last"),
        help="the epoch whose weights are kept; last: the last one's",
    )
    early_stopping_epochs: int = setting(
        0, minimum=0, help="stop after so many epochs without a better one by select_by; 0: never"
    )
    checkpoint_steps: int = setting(200, minimum=0, help="steps between checkpoints; 0: only after epochs")
    progress_steps: int = setting(10, minimum=1, help="steps between reports of progress")
    workers: int = setting(0, minimum=0, help="decoding threads; 0: as many as processors")

    def validate(self, key: str) -> None:
        """Raise SettingsError where fields do not fit each other."""
        if self.early_stopping_epochs and self.select_by == "last":
            raise SettingsError(
                f"{key}.early_stopping_epochs must be 0 when select_by is last, got {self.early_stopping_epochs}"
            )
        if self.warm_up_epochs >= self.epochs:
            raise SettingsError(
                f"{key}.warm_up_epochs must be below epochs ({self.epochs}), got {self.warm_up_epochs}"
            )
