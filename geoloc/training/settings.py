"""Settings of a training. No heavy imports: the command line reads these."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.models.settings import Augmentation
from geoloc.settings import SettingsError, setting

SELECT_BY = ("validation_loss", "accuracy_25km", "accuracy_750km", "last")


@dataclass(frozen=True)
class CurriculumSettings:
    """Few photos and rare cells first (Multi-modal Geolocation, section A.1): see geoloc/training/samplers.py.

    The training begins with a cycle for each of `biases`. An epoch of a cycle has `examples_per_cell` photos a cell on
    average at first, and `growth` more each epoch, until it has as many as there are; the next cycle begins anew. After
    the cycles each photo comes once an epoch. The paper names the first two; cycles and biases are for you to choose.
    """

    examples_per_cell: int = setting(
        200, minimum=1, help="photos of a cycle's first epoch, a cell with photos"
    )
    growth: float = setting(0.06, minimum=0.0, maximum=10.0, help="how much more each epoch of a cycle has")
    cycle_epochs: int = setting(10, minimum=1)
    biases: tuple[float, ...] = setting(
        (1.0, 0.5), minimum=0.0, maximum=1.0, help="of each cycle; 1: all cells equally often, 0: as they are"
    )

    def validate(self, key: str) -> None:
        """Raise SettingsError where there is no cycle, or the bias rises."""
        if not self.biases or list(self.biases) != sorted(self.biases, reverse=True):
            raise SettingsError(f"{key}.biases must be one or more that never rise, got {list(self.biases)}")

    def bias(self, epoch: int) -> float | None:
        """The bias of an epoch (from 1); None after the cycles."""
        cycle = (epoch - 1) // self.cycle_epochs
        return self.biases[cycle] if cycle < len(self.biases) else None


@dataclass(frozen=True)
class DistillationSettings:
    """Embeddings that another recipe stored, which this training's features shall resemble (losses/distillation)."""

    recipe: str = setting(help="the recipe whose embeddings of the training photos are the teacher")
    model: str = setting("backbone", choices=("backbone", "classifier"), help="which of its embeddings")
    weight: float = setting(1.0, minimum=0.0, help="what the loss counts beside that of the heads")


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is trained. `workers`, `checkpoint_steps` and `progress_steps` do not change the result."""

    mode: str = setting(
        "frozen",
        choices=("frozen", "fine_tune"),
        help="frozen: only the head learns, from features computed once; fine_tune: backbone and head",
    )
    trainable_blocks: int | None = setting(
        None, minimum=1, help="fine_tune: only the last so many blocks of the backbone learn; null: all"
    )
    epochs: int = setting(10, minimum=1)
    batch_size: int = setting(64, minimum=1, help="photos a step")
    curriculum: CurriculumSettings | None = setting(None, help="null: every photo once an epoch")
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
    label_smoothing: float = setting(0.0, minimum=0.0, maximum=0.9)
    label_smoothing_km: float = setting(
        0.0,
        minimum=0.0,
        help="tau: a cell's share of the target falls by e every so many km; 0: not by distance",
    )
    distillation: DistillationSettings | None = setting(None, help="fine_tune: null for none")
    class_weights: str = setting("none", choices=("none", "balanced", "sqrt"))
    head_weights: dict[str, float] = setting(
        factory=dict,
        minimum=0.0,
        names=True,
        help="what a head's loss counts in the sum, by the name of its partition; 1 for those not named",
    )
    augmentation: Augmentation | None = setting(
        Augmentation(), help="fine_tune: random changes of training photos; null: their centre"
    )
    precision: str = setting(
        "float32", choices=("float32", "bfloat16", "float16"), help="of the forward pass (autocast)"
    )
    channels_last: bool = setting(True, help="memory layout of images and filters")
    device: str = setting("auto", choices=("auto", "cpu", "cuda"), help="auto: cuda where there is one")
    select_by: str = setting(
        "validation_loss", choices=SELECT_BY, help="the epoch whose weights are kept; last: the last one's"
    )
    early_stopping_epochs: int = setting(
        0, minimum=0, help="stop after so many epochs without a better one by select_by; 0: never"
    )
    checkpoint_steps: int = setting(200, minimum=0, help="steps between checkpoints; 0: only after epochs")
    progress_steps: int = setting(10, minimum=1, help="steps between reports of progress")
    workers: int = setting(0, minimum=0, help="decoding threads; 0: as many as processors")

    def validate(self, key: str) -> None:
        """Raise SettingsError where fields do not fit each other."""
        if self.distillation is not None and self.mode == "frozen":
            raise SettingsError(f"{key}.distillation must be null when mode is frozen: no feature learns")
        if self.label_smoothing and self.label_smoothing_km:
            raise SettingsError(
                f"{key}.label_smoothing must be 0 where label_smoothing_km is set, got {self.label_smoothing}"
            )
        if self.mode == "frozen" and self.trainable_blocks is not None:
            raise SettingsError(
                f"{key}.trainable_blocks must be null when mode is frozen, got {self.trainable_blocks}"
            )
        if self.early_stopping_epochs and self.select_by == "last":
            raise SettingsError(
                f"{key}.early_stopping_epochs must be 0 when select_by is last, got {self.early_stopping_epochs}"
            )
        if self.warm_up_epochs >= self.epochs:
            raise SettingsError(
                f"{key}.warm_up_epochs must be below epochs ({self.epochs}), got {self.warm_up_epochs}"
            )
