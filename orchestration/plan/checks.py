"""Which Great Expectations suites guard which output. Nothing below an output is built until its suites pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoloc.partitions.settings import PartitionSettings
    from orchestration.plan.settings import BuildSettings

DRIFT, REGIONS, CALIBRATION, INDEXES, FRESH = (
    "drift", "accuracy_by_region", "calibration", "index_health", "freshness",
)  # fmt: skip
HEALTH_CHECKS = {
    DRIFT: "New photos are like those that the build was trained on: places, times, pictures, embeddings.",
    REGIONS: "No continent lost accuracy from the last report to this one.",
    CALIBRATION: "Confidences are as often right as they say.",
    INDEXES: "Each index finds the nearest references, and its lists are not too uneven.",
    FRESH: "The report is not too old.",
}
"""The checks of a build's health, which block nothing, with what each demands."""


@dataclass(frozen=True)
class Check:
    """A suite, expectations/<suite>.json, on the output of a stage.

    `about` names the part of the output that is checked, if it has several; `parameters` replace those of the suite's
    parameters that a recipe's settings decide.
    """

    suite: str
    about: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the check, in Dagster and in records."""
        return f"{self.suite}_suite" + (f"_{self.about}" if self.about else "")


def checks_of(settings: BuildSettings, stage: str) -> tuple[Check, ...]:
    """The checks of a stage's output."""
    if stage == "photos":
        return (Check("catalog"),)
    if stage == "splits":
        return (Check("splits"),)
    if stage == "pairs":
        return (Check("pairs"),)
    if stage in ("features", "embeddings", "metric_embeddings", "external_embeddings", "overhead_index"):
        return (Check("embeddings"),)
    if stage == "class_probabilities":
        return (Check("class_probabilities"),)
    if stage == "partition":
        return tuple(
            Check("partition", name, {"minimum_photos": _least_photos(one)})
            for name, one in settings.partitions.items()
        )
    return ()


def _least_photos(partition: PartitionSettings) -> int:
    """The fewest photos that a cell may have, as far as the settings alone tell."""
    return 1 if partition.scale_with_photos else partition.chosen.min_photos
