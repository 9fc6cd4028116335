"""How often a build is right by its own evaluation, for `geoloc locate`: where it is worse than its best baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record

MAIN_TEST = "test"


@dataclass(frozen=True)
class Shortfall:
    """A level at which a method is right for a smaller share of test photos than the best baseline. Shares in [0, 1];
    `photos` is the number of photos in `test`."""

    level: str
    km: float
    method: str
    accuracy: float
    baseline: str
    baseline_accuracy: float
    test: str
    photos: int

    def __str__(self) -> str:
        digits = 1 if f"{self.accuracy:.3f}" != f"{self.baseline_accuracy:.3f}" else 4
        return (
            f"at {self.level} level ({self.km:g} km) this build ({self.method}) is right for "
            f"{100 * self.accuracy:.{digits}f} % of test photos, its best baseline ({self.baseline}) for "
            f"{100 * self.baseline_accuracy:.{digits}f} %"
        )


def shortfalls(folder: Path, method: str, level: str | None) -> tuple[Shortfall, ...]:
    """The levels at which a build is worse than its best baseline by its evaluation in `folder`, finest first; only
    `level` if it is given.

    The main test set counts (`test`, or the first). A method that was not measured stands under the build's main one,
    which is then named. The evaluation must exist, see `measures`.
    """
    tests = list(read_json(folder / "evaluations.json"))
    if not tests:
        return ()
    test = MAIN_TEST if MAIN_TEST in tests else tests[0]
    found = Evaluation.load(folder / test)
    if found.baselines.empty:
        return ()
    shown = method if method in found.methods else found.methods[0]
    own = found.accuracy[found.accuracy["method"] == shown].set_index("level")["accuracy"]
    result = []
    for name, km in found.levels_km.items():
        at = found.baselines[found.baselines["level"] == name]
        best = at.loc[at["accuracy"].idxmax()]
        if level in (None, name) and own[name] < best["accuracy"]:
            result.append(
                Shortfall(
                    name, float(km), shown, float(own[name]), str(best["baseline"]), float(best["accuracy"]),
                    test, found.queries,
                )
            )  # fmt: skip
    return tuple(result)


def measures(build: Build, records: Mapping[str, Record]) -> bool:
    """Whether the build's evaluation is of the outputs with these records; False if there is none."""
    if not build.folder("evaluation").is_dir():
        return False
    inputs = build.built("evaluation").inputs
    return all(inputs.get(name) == of.content for name, of in records.items())
