"""Settings of the training of a classifier. No heavy imports: the command line reads these."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.models.settings import Augmentation
from geoloc.settings import SettingsError, setting
from geoloc.training.loop_settings import LoopSettings

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
class TrainingSettings(LoopSettings):
    """How a classifier is trained: the loop's settings and those of classification."""

    mode: str = setting(
        "frozen",
        choices=("frozen", "fine_tune"),
        help="frozen: only the head learns, from features computed once; fine_tune: backbone and head",
    )
    trainable_blocks: int | None = setting(
        None, minimum=1, help="fine_tune: only the last so many blocks of the backbone learn; null: all"
    )
    curriculum: CurriculumSettings | None = setting(None, help="null: every photo once an epoch")
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
    select_by: str = setting(
        "validation_loss", choices=SELECT_BY, help="the epoch whose weights are kept; last: the last one's"
    )

    def validate(self, key: str) -> None:
        """Raise SettingsError where fields do not fit each other."""
        super().validate(key)
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
