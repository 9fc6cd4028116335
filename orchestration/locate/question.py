"""The checked options of `geoloc locate`. A light module: wrong options are reported before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.errors import UsageError

METHODS = ("class", "nn", "knn", "neighbours", "combined")
CHOSEN = ("neighbours", "combined")
"""Methods whose parameters were chosen on validation photos."""
MODELS = ("classifier", "backbone", "metric")
LEVELS = ("street", "city", "region", "country", "continent")
"""Those of geoloc.sphere, finest first, repeated here because `geoloc --help` must not import NumPy."""
COMBINATIONS = ("product", "overlay")
MOST_ALTERNATIVES = 1_000
REFERENCE_KEYS = ("source", "from", "until", "version")
"""What can be asked of references, as KEY=VALUE; source may be asked several times."""


@dataclass(frozen=True)
class Question:
    """How to locate photos: `method` by class, by the nearest (nn) or by the k nearest neighbours (knn), by these with
    k and sigma as chosen on validation photos (neighbours), or by neighbours and classes (combined).

    By class: `partition` is the one whose cells are used (None: the main one); `level` asks for the point most probably
    within that level; `combine` asks for a combination of all partitions. By neighbour: `model` is the one whose
    embeddings are used, `k` the number of neighbours that vote (knn; None: localizers.k), `references` the limits of
    what may be found, KEY=VALUE with a key of REFERENCE_KEYS (none: localizers.references). An answer with a confidence
    below `abstain_below`, in [0, 1], is withheld. `many`: it is asked of so many photos that a GPU is worth the seconds
    that torch takes to import.

    Raises UsageError for a value that is not allowed, and for options that exclude each other, naming both.
    """

    method: str = "class"
    model: str = "classifier"
    alternatives: int = 5
    partition: str | None = None
    level: str | None = None
    combine: str | None = None
    abstain_below: float | None = None
    k: int | None = None
    references: tuple[str, ...] = ()
    many: bool = False

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--method", self.method, METHODS),
            ("--model", self.model, MODELS),
            ("--level", self.level, (None, *LEVELS)),
            ("--combine", self.combine, (None, *COMBINATIONS)),
        ):
            if value not in allowed:
                known = f"{option} must be one of {', '.join(filter(None, allowed))}; got {value!r}"
                if option == "--model":
                    known += " (another program's embeddings are of the build's photos, it cannot embed further ones)"
                raise UsageError(known)
        if not 1 <= self.alternatives <= MOST_ALTERNATIVES:
            raise UsageError(
                f"--alternatives must be from 1 to {MOST_ALTERNATIVES:,}, got {self.alternatives:,}"
            )
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise UsageError(f"--abstain-below must be between 0 and 1, got {self.abstain_below:g}")
        if self.k is not None and self.k < 1:
            raise UsageError(f"--k must be at least 1, got {self.k}")
        self._check_references()
        self._check_exclusions()

    def _check_references(self) -> None:
        keys = []
        for given in self.references:
            key, _, value = given.partition("=")
            if key not in REFERENCE_KEYS or not value:
                allowed = ", ".join(f"{one}=VALUE" for one in REFERENCE_KEYS)
                raise UsageError(f"--references must be {allowed}; got {given!r}")
            if key in keys and key != "source":
                raise UsageError(f"--references {key} must be given once, got {given!r} too")
            keys.append(key)

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
        if self.k is not None and self.method != "knn":
            raise UsageError(
                f"--k {self.k} and --method {self.method} exclude each other: --k is for --method knn"
            )
        if self.references and self.method not in ("nn", "knn"):
            raise UsageError(
                f"--references {self.references[0]} and --method {self.method} exclude each other: --references is for "
                "--method nn and knn"
            )
        of = {
            "--level": (self.level, ("class", "neighbours")),
            "--combine": (self.combine, ("class",)),
            "--partition": (self.partition, ("class",)),
        }
        for option, (value, methods) in of.items():
            if value and self.method not in methods:
                raise UsageError(
                    f"{option} {value} and --method {self.method} exclude each other: {option} is for --method "
                    f"{' and '.join(methods)}"
                )
        if self.model != "classifier" and self.method == "class":
            raise UsageError(
                f"--model {self.model} and --method class exclude each other: --model is for --method nn, knn, "
                "neighbours and combined"
            )

    @property
    def by_neighbour(self) -> bool:
        """Whether references are searched."""
        return self.method != "class"

    @property
    def chosen(self) -> bool:
        """Whether the parameters are those that were chosen on validation photos."""
        return self.method in CHOSEN
