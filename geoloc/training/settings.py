"""Settings of the training of a classifier. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geoloc.models.settings import Augmentation
from geoloc.settings import FROM_TEXT, Name, Number, Settings, SettingsError, setting
from geoloc.training.loop_settings import LoopSettings


class CurriculumSettings(Settings):
    """Few photos and rare cells first (Multi-modal Geolocation, section A.1): see geoloc/training/samplers.py.

    Training begins with one cycle per value of `biases`. The first epoch of a cycle has `examples_per_cell` photos per
    cell on average. Each further epoch has `growth` more, up to the number of photos that there are. After the cycles
    each photo occurs once per epoch. The paper gives the first two values; it leaves cycles and biases open.
    """

    examples_per_cell: int = setting(
        200, minimum=1, help="photos per non-empty cell in the first epoch of a cycle"
    )
    growth: Number = setting(
        0.06, minimum=0.0, maximum=10.0, help="relative growth from one epoch of a cycle to the next"
    )
    cycle_epochs: int = setting(10, minimum=1, help="epochs of each cycle")
    biases: tuple[Annotated[float, Field(ge=0.0, le=1.0), FROM_TEXT], ...] = setting(
        (1.0, 0.5), help="bias of each cycle; 1: all cells equally often, 0: in proportion to their photos"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if there is no cycle, or if the bias rises."""
        if not self.biases or list(self.biases) != sorted(self.biases, reverse=True):
            raise SettingsError(f"{key}.biases must be one or more that never rise, got {list(self.biases)}")


class DistillationSettings(Settings):
    """Embeddings stored by another recipe, which the features of this training learn to resemble
    (losses/distillation)."""

    recipe: str = setting(help="the recipe whose embeddings of the training photos are the teacher")
    model: Literal["backbone", "classifier"] = setting("backbone", help="which of that recipe's embeddings")
    weight: Number = setting(1.0, minimum=0.0, help="weight of this loss; the heads' loss has weight 1")


class TrainingSettings(LoopSettings):
    """How a classifier is trained: the settings of the loop and those of classification."""

    mode: Literal["frozen", "fine_tune"] = setting(
        "frozen",
        help="frozen: only the head learns, from features computed once; fine_tune: backbone and head",
    )
    trainable_blocks: int | None = setting(
        None,
        minimum=1,
        when=("mode", ("fine_tune",)),
        help="number of last blocks of the backbone that learn; null: all",
    )
    curriculum: CurriculumSettings | None = setting(
        None, help="few photos and rare cells first; null: every photo once an epoch"
    )
    label_smoothing: Number = setting(
        0.0, minimum=0.0, maximum=0.9, help="share of the target that is spread evenly over all cells"
    )
    label_smoothing_km: Number = setting(
        0.0,
        minimum=0.0,
        help="tau: distance in km over which a cell's share of the target falls by a factor of e; 0: off",
    )
    distillation: DistillationSettings | None = setting(
        None, when=("mode", ("fine_tune",)), help="embeddings of a teacher to resemble; null: off"
    )
    class_weights: Literal["none", "balanced", "sqrt"] = setting(
        "none",
        help="weight of a cell in the loss; balanced: inverse to its photos, sqrt: inverse to their square root",
    )
    head_weights: dict[Name, Annotated[float, Field(ge=0.0), FROM_TEXT]] = setting(
        factory=dict,
        help="weight of each head's loss in the sum, by name of its partition; default 1",
    )
    augmentation: Augmentation | None = setting(
        Augmentation(),
        when=("mode", ("fine_tune",)),
        help="random changes of training photos; null: the centre crop",
    )
    select_by: Literal["validation_loss", "accuracy_25km", "accuracy_750km", "last"] = setting(  # type: ignore[assignment]
        "validation_loss",
        help="the measure that chooses the epoch whose weights are kept; last: the last epoch",
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        super().check(key)
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
