"""`geoloc diff`: why two reports differ (data, code, settings, seeds, machine), and how many answers changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from geoloc.evaluation.changes import Changes, changed_answers
from geoloc.evaluation.result import table_records
from orchestration.lineage.record import Record
from orchestration.plan.chain import STAGES
from orchestration.results.sides import Side, open_side
from orchestration.stores.data_version import photos_of_version
from orchestration.tables import markdown
from orchestration.workspace import Workspace, WorkspaceError

_SHOWN = 12
"""So many settings are shown of one stage."""


@dataclass(frozen=True)
class StageDifference:
    """Why one output differs between two reports: `seeds` and `settings` as (key, first, second), the versions of its
    code, and the packages and hardware. `only_inputs`: nothing of its own differs, only what it was made from;
    `unexplained`: not even that does, so that it is not reproducible bit for bit."""

    stage: str
    seeds: list[tuple[str, Any, Any]] = field(default_factory=list)
    settings: list[tuple[str, Any, Any]] = field(default_factory=list)
    code: tuple[str, str] | None = None
    environment: list[tuple[str, Any, Any]] = field(default_factory=list)
    hardware: list[tuple[str, Any, Any]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    missing: str = ""

    @property
    def own(self) -> list[str]:
        """The kinds of its own reasons."""
        kinds = ("seeds", "settings", "code", "environment", "hardware")
        return [kind for kind in kinds if getattr(self, kind)] + ["missing"] * bool(self.missing)


@dataclass(frozen=True, eq=False)
class Difference:
    """Two reports, why they differ, and how: `data` counts the photos that are in one data version only (None where the
    versions are equal; counts are None where DVC's cache lacks a version), `stages` are those that differ, in the order
    of the chain, and `changes` how the answers differ, by test set."""

    first: Side
    second: Side
    data: dict[str, Any] | None
    stages: list[StageDifference]
    changes: Mapping[str, Changes]
    same: bool

    @property
    def reasons(self) -> list[str]:
        """The kinds of reasons, of data, code, settings, seeds, environment, hardware; none if the reports are
        equal."""
        kinds = {kind for stage in self.stages for kind in stage.own}
        order = ("code", "settings", "seeds", "environment", "hardware", "missing")
        return ["data"] * (self.data is not None) + [kind for kind in order if kind in kinds]

    @property
    def not_compared(self) -> list[str]:
        """A line for each side without answers: they leave when a photo behind them is taken down."""
        return [
            f"answers are not compared: those of {side.name} left with photos that were taken down"
            for side in (self.first, self.second)
            if side.emptied
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "first": self.first.name,
            "second": self.second.name,
            "same": self.same,
            "reasons": self.reasons,
            "data": self.data,
            "stages": [vars(stage) | {"own": stage.own} for stage in self.stages],
            "not_compared": self.not_compared,
            "changes": {
                test: {
                    "photos": one.photos,
                    "only_first": one.only_first,
                    "only_second": one.only_second,
                    "answers_changed": one.answers,
                    "levels": table_records(one.levels),
                }
                for test, one in self.changes.items()
            },
        }

    @property
    def lines(self) -> Iterator[str]:
        """The difference as text."""
        yield f"{self.first.name} and {self.second.name}"
        if self.same:
            yield "equal: every number and every answer is the same"
            return
        yield f"why: {', '.join(self.reasons) or 'nothing differs that is recorded'}"
        if self.data is not None:
            yield f"data: version {self.data['first'][:12]} and {self.data['second'][:12]}{_counted(self.data)}"
        for stage in self.stages:
            yield from _stage_lines(stage)
        yield from self.not_compared
        for test, one in self.changes.items():
            yield ""
            only = f"{one.only_first:,} only in the first, {one.only_second:,} only in the second"
            yield f"{test}: {one.photos:,} photos in both, {only}"
            yield from (
                f"  {name}: {100 * share:.1f} % of the answers changed" for name, share in one.answers.items()
            )
            yield _table(one)


def diff(workspace: Workspace, first: str, second: str) -> Difference:
    """Compare two reports, named as in `open_side`. Raises WorkspaceError, also if they have no test set in common."""
    one, other = open_side(workspace, first), open_side(workspace, second)
    tests = [test for test in one.tests if test in other.tests]
    if not tests and (one.tests or other.tests) and not (one.emptied or other.emptied):
        sets = " and ".join(", ".join(side.tests) or "none" for side in (one, other))
        raise WorkspaceError(f"{first} and {second} have no test set in common: {sets}")
    return difference(one, other)


def difference(one: Side, other: Side) -> Difference:
    """As `diff`, of two opened reports; they may be in two workspaces."""
    tests = [test for test in one.tests if test in other.tests]
    data = None if one.data == other.data else _data(one, other)
    stages = [
        found
        for name in STAGES
        if name not in ("photos", "report") and (name in one.records or name in other.records)
        if (found := _stage(name, one.records.get(name), other.records.get(name))) is not None
    ]
    changes = {test: changed_answers(one.load(test), other.load(test)) for test in tests}
    same = one.evaluation.content == other.evaluation.content
    return Difference(one, other, data, stages, changes, same)


def _data(one: Side, other: Side) -> dict[str, Any]:
    photos: list[frozenset[str] | None] = []
    for side in (one, other):
        try:
            photos.append(photos_of_version(side.build.workspace, side.data))
        except WorkspaceError:  # not in DVC's cache: only the versions can be told
            photos.append(None)
    first, second = photos
    return {
        "first": one.data,
        "second": other.data,
        "added": len(second - first) if first is not None and second is not None else None,
        "removed": len(first - second) if first is not None and second is not None else None,
    }


def _counted(data: Mapping[str, Any]) -> str:
    if data["added"] is None:
        return ", which are not both in DVC's cache"
    return f": {data['added']:,} photos added, {data['removed']:,} removed"


def _stage(name: str, one: Record | None, other: Record | None) -> StageDifference | None:
    """Why an output differs; None if it does not."""
    if one is None or other is None:
        return StageDifference(name, missing="the first" if one is None else "the second")
    if one.content == other.content:
        return None
    changed = _values_that_differ(_flat(one.settings), _flat(other.settings))
    versions = (set(one.code_versions), set(other.code_versions))
    return StageDifference(
        name,
        seeds=[row for row in changed if _is_seed(row[0])],
        settings=[row for row in changed if not _is_seed(row[0])],
        code=None if versions[0] & versions[1] else (one.code_version, other.code_version),
        environment=_values_that_differ(one.environment, other.environment),
        hardware=_values_that_differ(one.hardware, other.hardware) if one.hardware and other.hardware else [],
        inputs=[
            key for key in {**one.inputs, **other.inputs} if one.inputs.get(key) != other.inputs.get(key)
        ],
    )


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, one in value.items():
        key = f"{prefix}{name}"
        found |= _flat(one, f"{key}.") if isinstance(one, Mapping) else {key: one}
    return found


def _values_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(key, one.get(key), other.get(key)) for key in {**one, **other} if one.get(key) != other.get(key)]


def _stage_lines(stage: StageDifference) -> Iterator[str]:
    if stage.missing:
        yield f"{stage.stage}: {stage.missing} has none, or no record of it any more"
        return
    if not stage.own:
        why = (
            f"only what it was made from differs ({', '.join(stage.inputs)})"
            if stage.inputs
            else "other bytes from equal inputs, settings, code, packages and machine"
        )
        yield f"{stage.stage}: {why}"
        return
    yield f"{stage.stage}:"
    for kind in ("seeds", "settings", "environment", "hardware"):
        rows = getattr(stage, kind)
        for key, first, second in rows[:_SHOWN]:
            yield f"    {kind}: {key} {first} and {second}"
        if len(rows) > _SHOWN:
            yield f"    {kind}: and {len(rows) - _SHOWN} more"
    if stage.code:
        yield f"    code: {stage.code[0]} and {stage.code[1]}"
    if stage.inputs:
        yield f"    made from other {', '.join(stage.inputs)}"


def _table(changes: Changes) -> str:
    rows = [
        (
            row.method if row.method == row.other else f"{row.method} and {row.other}",
            row.level,
            *(
                f"{100 * value:.1f}"
                for value in (row.accuracy, row.other_accuracy, row.moved, row.lost, row.gained)
            ),
        )
        for row in changes.levels.itertuples()
    ]
    headers = (
        "method",
        "level",
        "first %",
        "second %",
        "moved farther %",
        "right, now wrong %",
        "wrong, now right %",
    )
    return markdown(rows, headers)
