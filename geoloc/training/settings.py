"""Settings of the training of a classifier. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geoloc.models.settings import Augmentation
from geoloc.settings import FROM_TEXT, Name, Number, Settings, SettingsError, setting
from geoloc.training.loop_settings import LoopSettings


class CurriculumSettings(Settings):
    """Few photos and rare cells first (Multi-modal Geolocation, section A.1): see geoloc/training/samplers.py.

    The training begins with a cycle for each of `biases`. An epoch of a cycle has `examples_per_cell` photos a cell on
    average at first, and `growth` more each epoch, until it has as many as there are; the next cycle begins anew. After
    the cycles each photo comes once an epoch. The paper names the first two; cycles and biases are for you to choose.
    """

    examples_per_cell: int = setting(
        200, minimum=1, help="photos of a cycle's first epoch, a cell with photos"
    )
    growth: Number = setting(0.06, minimum=0.0, maximum=10.0, help="how much more each epoch of a cycle has")
    cycle_epochs: int = setting(10, minimum=1, help="epochs of each cycle")
    biases: tuple[Annotated[float, Field(ge=0.0, le=1.0), FROM_TEXT], ...] = setting(
        (1.0, 0.5), help="of each cycle; 1: all cells equally often, 0: as they are"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError where there is no cycle, or the bias rises."""
        if not self.biases or list(self.biases) != sorted(self.biases, reverse=True):
            raise SettingsError(f"{key}.biases must be one or more that never rise, got {list(self.biases)}")


class DistillationSettings(Settings):
    """Embeddings that another recipe stored, which this training's features shall resemble (losses/distillation)."""

    recipe: str = setting(help="the recipe whose embeddings of the training photos are the teacher")
    model: Literal["backbone", "classifier"] = setting("backbone", help="which of its embeddings")
    weight: Number = setting(1.0, minimum=0.0, help="what the loss counts beside that of the heads")


class TrainingSettings(LoopSettings):
    """How a classifier is trained: the loop's settings and those of classification."""

    mode: Literal["frozen", "fine_tune"] = setting(
        "frozen",
        help="frozen: only the head learns, from features computed once; fine_tune: backbone and head",
    )
    trainable_blocks: int | None = setting(
        None,
        minimum=1,
        when=("mode", ("fine_tune",)),
        help="only the last so many blocks of the backbone learn; null: all",
    )
    curriculum: CurriculumSettings | None = setting(
        None, help="few photos and rare cells first; null: every photo once an epoch"
    )
    label_smoothing: Number = setting(
        0.0, minimum=0.0, maximum=0.9, help="share of the target that all cells have alike"
    )
    label_smoothing_km: Number = setting(
        0.0,
        minimum=0.0,
        help="tau: a cell's share of the target falls by e every so many km; 0: not by distance",
    )
    distillation: DistillationSettings | None = setting(
        None, when=("mode", ("fine_tune",)), help="a teacher's embeddings to resemble; null: none"
    )
    class_weights: Literal["none", "balanced", "sqrt"] = setting(
        "none", help="of a cell in the loss; balanced: inverse to its photos, sqrt: to their square root"
    )
    head_weights: dict[Name, Annotated[float, Field(ge=0.0), FROM_TEXT]] = setting(
        factory=dict,
        help="what a head's loss counts in the sum, by the name of its partition; 1 for those not named",
    )
    augmentation: Augmentation | None = setting(
        Augmentation(),
        when=("mode", ("fine_tune",)),
        help="random changes of training photos; null: their centre",
    )
    select_by: Literal["validation_loss", "accuracy_25km", "accuracy_750km", "last"] = setting(  # type: ignore[assignment]
        "validation_loss", help="the epoch whose weights are kept; last: the last one's"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError where fields do not fit each other."""
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
