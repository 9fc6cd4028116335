"""The checked options of `geoloc locate`. A light module: wrong options are reported before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.errors import UsageError

METHODS = ("class", "nn", "knn")
MODELS = ("classifier", "backbone", "metric")
LEVELS = ("street", "city", "region", "country", "continent")
"""Those of geoloc.sphere, finest first, repeated here because `geoloc --help` must not import NumPy."""
COMBINATIONS = ("product", "overlay")


@dataclass(frozen=True)
class Question:
    """How to locate photos: `method` by class, by the nearest (nn) or by the k nearest neighbours (knn).

    By class: `partition` is the one whose cells are used (None: the main one); `level` asks for the point most probably
    within that level; `combine` asks for a combination of all partitions. By neighbour: `model` is the one whose
    embeddings are used. An answer with a confidence below `abstain_below`, in [0, 1], is withheld. `many`: it is asked
    of so many photos that a GPU is worth the seconds that torch takes to import.

    Raises UsageError for a value that is not allowed, and for options that exclude each other, naming both.
    """

    method: str = "class"
    model: str = "classifier"
    alternatives: int = 5
    partition: str | None = None
    level: str | None = None
    combine: str | None = None
    abstain_below: float | None = None
    many: bool = False

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--method", self.method, METHODS),
            ("--model", self.model, MODELS),
            ("--level", self.level, (None, *LEVELS)),
            ("--combine", self.combine, (None, *COMBINATIONS)),
        ):
            if value not in allowed:
                raise UsageError(f"{option} must be one of {', '.join(filter(None, allowed))}; got {value!r}")
        if self.alternatives < 1:
            raise UsageError(f"--alternatives must be at least 1, got {self.alternatives}")
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise UsageError(f"--abstain-below must be between 0 and 1, got {self.abstain_below:g}")
        self._check_exclusions()

    def _check_exclusions(self) -> None:
        if self.combine and self.level:
            raise UsageError(
                f"--combine {self.combine} and --level {self.level} exclude each other: --level uses one partition"
            )
        if self.combine and self.partition:
            raise UsageError(
                f"--combine {self.combine} and --partition {self.partition} exclude each other: "
                "--combine uses all partitions of the build"
            )
        by_class = {"--level": self.level, "--combine": self.combine, "--partition": self.partition}
        for option, value in by_class.items():
            if value and self.method != "class":
                raise UsageError(
                    f"{option} {value} and --method {self.method} exclude each other: {option} is for --method class"
                )
        if self.model != "classifier" and self.method == "class":
            raise UsageError(
                f"--model {self.model} and --method class exclude each other: --model is for --method nn and knn"
            )
