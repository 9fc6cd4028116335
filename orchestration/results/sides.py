"""One side of a comparison of reports: a build's evaluation, present or replaced, with the records of all behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from orchestration.lineage.asked import Output, find, read_records
from orchestration.lineage.build import Build
from orchestration.lineage.earlier import record_with
from orchestration.lineage.record import Record
from orchestration.plan.chain import STAGES, borrowings
from orchestration.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class Side:
    """A report: its name for people, the records by stage (of the evaluation and all that it was made from, and of the
    report if it was asked for), the records borrowed from other recipes, and the folder of the evaluation."""

    name: str
    build: Build
    records: Mapping[str, Record]
    borrowed: Mapping[str, Record]
    folder: Path

    @property
    def evaluation(self) -> Record:
        """The record of the evaluation."""
        return self.records["evaluation"]

    @property
    def tests(self) -> list[str]:
        """The names of the test sets."""
        return [str(name) for name in read_json(self.folder / "evaluations.json", list)]

    @property
    def data(self) -> str:
        """The data version that it was made from; "" if its splits have no record any more."""
        splits = self.records.get("splits")
        return splits.inputs.get("data", "") if splits else ""

    @property
    def taken_down(self) -> int:
        """The photos that were taken down from what is behind it, since it was made."""
        return max((record.taken_down for record in self.records.values()), default=0)

    @property
    def emptied(self) -> bool:
        """Whether its answers left with a take-down, which is not in the record of each replaced evaluation."""
        had = any(name.endswith("/evaluation.json") for name in self.evaluation.files)
        return not self.tests and (had or self.taken_down > 0)

    def load(self, test: str) -> Evaluation:
        """The evaluation on one test set."""
        return Evaluation.load(self.folder / test)


def open_side(workspace: Workspace, text: str) -> Side:
    """The report that `text` names: a recipe, a report or an evaluation, as in `geoloc audit`; also one that was
    replaced since, by its content or MLflow run.

    Raises WorkspaceError for anything else, and if the answers of a replaced one are not kept any more.
    """
    records, _ = read_records(workspace)
    if text in {record.recipe for record in records if record.stage == "evaluation"}:
        asked = Output(text, "evaluation")
    else:
        found = find(workspace, text)
        if not isinstance(found, Output) or found.stage not in ("report", "evaluation"):
            raise WorkspaceError(f"{text} names {found}, not a report or an evaluation")
        asked = found
    build = Build(workspace, asked.recipe)
    first = record_with(build, asked.stage, asked.content) if asked.content else build.built(asked.stage)
    if first is None:
        raise WorkspaceError(f"{asked} has no record any more")
    walked: dict[str, Record] = {first.stage: first}
    borrowed: dict[str, Record] = {}
    waiting = [first]
    while waiting:
        record = waiting.pop()
        others = {row.name: (recipe, row.stage) for row, recipe in borrowings(record.settings)}
        for name, content in record.inputs.items():
            if name in others:
                recipe, stage = others[name]
                found_other = record_with(build.of(recipe), stage, content)
                if found_other is not None:
                    borrowed[found_other.artefact] = found_other
            elif name in STAGES and name not in walked:
                above = record_with(build, name, content)
                if above is not None:
                    walked[name] = above
                    waiting.append(above)
    if "evaluation" not in walked:
        raise WorkspaceError(f"the evaluation behind {text} has no record any more: it was built again since")
    ordered = {name: walked[name] for name in STAGES if name in walked}
    folder = _folder(build, ordered["evaluation"])
    return Side(_named(build, ordered["evaluation"]), build, ordered, borrowed, folder)


def _folder(build: Build, evaluation: Record) -> Path:
    """Where the answers of an evaluation are: in the build, or with its MLflow run if it was replaced since."""
    now = build.record("evaluation")
    if now is not None and now.content == evaluation.content and (build.folder("evaluation")).is_dir():
        return build.folder("evaluation")
    kept = build.workspace.mlflow / "artifacts" / str(evaluation.mlflow_run) / "artifacts"
    if (kept / "evaluations.json").is_file():
        return kept
    raise WorkspaceError(
        f"the answers of {evaluation.artefact} {evaluation.content[:12]} are not kept: it was built again since, and "
        f"its MLflow run {evaluation.mlflow_run or 'none'} has no files"
    )


def _named(build: Build, evaluation: Record) -> str:
    now = build.record("evaluation")
    if now is not None and now.content == evaluation.content:
        return build.recipe
    return f"{build.recipe} of {evaluation.started_at}"
