"""Promotion and rollback: which model serves. The decision is recorded first; the alias is the one write that counts.

A kill before it leaves the old champion, one after it the new one; the next promotion or rollback closes the record.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoloc.files import content_hash, write_json, write_text
from geoloc.localizers.served import GRAPH, INDEX, PARTITIONS, Served
from geoloc.settings import replace
from orchestration.lineage.build import Build
from orchestration.lineage.checks import require_checked
from orchestration.lineage.person import person
from orchestration.operations.contest import contest
from orchestration.operations.decision import Decision, decide
from orchestration.plan.chain import inputs_of
from orchestration.plan.operations_settings import PromotionSettings
from orchestration.plan.settings import DEFAULT_RECIPE, load_settings
from orchestration.stores.champion import (
    ALIAS,
    BEFORE,
    CHALLENGER,
    CONTENT,
    MODEL,
    RECIPE,
    RECORD,
    Version,
    champion,
    has_tag,
    promoted,
    registered,
)
from orchestration.stores.lock import promotion_lock
from orchestration.stores.placement import EXPERIMENT
from orchestration.stores.tracking import mlflow_of
from orchestration.workspace import Workspace, WorkspaceError

PROMOTED, KEPT, ROLLED_BACK, INTERRUPTED = "promoted", "kept", "rolled back", "interrupted"
"""What became of a decision. Kept: the old champion."""
KIND, OUTCOME, BY, REASON, FROM, TO, FORCED = (
    f"geoloc.promotion{name}" for name in ("", ".outcome", ".by", ".reason", ".from", ".to", ".forced")
)
"""Tags of the MLflow run of a decision. FROM and TO are numbers of versions of `geoloc`, empty for none."""
TABLE_FILE, DECISION_FILE = "comparison.md", "decision.json"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a promotion or rollback. `version` is the champion now; `before` the one before, None for none."""

    outcome: str
    version: Version | None
    before: Version | None
    decision: Decision
    by: str
    reason: str
    run_id: str
    challenger: str
    recipe: str

    @property
    def lines(self) -> list[str]:
        """What happened and why, for people."""
        now = "none" if self.version is None else f"{self.version}"
        head = {
            PROMOTED: f"promoted: {self.challenger} is the champion, {now}",
            KEPT: f"kept: {self.challenger} does not become the champion; it stays {now}",
            ROLLED_BACK: f"rolled back: the champion is {now} ({self.challenger}) again",
        }[self.outcome]
        return [head, *(f"  {reason}" for reason in self.decision.reasons)]


def promote(
    workspace: Workspace,
    *,
    recipe: str = DEFAULT_RECIPE,
    number: int | None = None,
    force: bool = False,
    reason: str = "",
    by: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> Outcome | None:
    """Compare a registered build (the newest of a recipe, or the one with this number) with the champion, and promote
    it if the policy of params.yaml says so, or by `force`. None if it is the champion already.

    Where there is no champion, it becomes the first. Raises WorkspaceError if it is not registered, if its build failed
    a check, or while another promotion, or a take-down, is at work.
    """
    policy = load_settings(workspace).promotion
    with promotion_lock(workspace, "geoloc promote"):
        close_interrupted(workspace)
        now, challenger = champion(workspace), registered(workspace, recipe, number)
        if now is not None and now.model_id == challenger.model_id:
            return None
        _require_usable(workspace, challenger)
        if now is None:
            decision = Decision(True, ("there was no champion: it is the first",), policy=policy)
        else:
            try:
                decision = _compared(workspace, now, challenger, policy, say)
            except WorkspaceError as error:
                if not force:
                    raise
                decision = Decision(False, (f"not compared: {error}",), policy=policy)
        outcome = PROMOTED if decision.better or force else KEPT
        task = _Task(workspace, challenger, now, decision, outcome, by or person(), reason, force)
        return _carry_out(task)


def rollback(workspace: Workspace, *, reason: str, by: str = "", to: int | None = None) -> Outcome:
    """Make the champion before the present one, or the version `to` of `geoloc`, the champion again.

    Raises WorkspaceError if there is none, or while another promotion, or a take-down, is at work.
    """
    with promotion_lock(workspace, "geoloc rollback"):
        close_interrupted(workspace)
        now = champion(workspace)
        if now is None:
            raise WorkspaceError("there is no champion to roll back; make one with: geoloc promote")
        number = now.before if to is None else to
        if number is None:
            raise WorkspaceError(f"{now} was the first champion: there is none before it; name one with --to")
        if number == now.number:
            raise WorkspaceError(f"{now} is the champion already")
        target = promoted(workspace, number)
        target.require_whole()
        decision = Decision(True, (f"a person's decision: {reason}",))
        task = _Task(workspace, target, now, decision, ROLLED_BACK, by or person(), reason, True)
        return _carry_out(task)


def history(workspace: Workspace) -> list[dict[str, Any]]:
    """What was decided, oldest first: at, outcome, challenger, from, to, by, reason, reasons, forced and MLflow run."""
    if champion(workspace) is None and not _any_record(workspace):
        return []
    client = mlflow_of(workspace).MlflowClient()
    found = []
    for run in _records(client):
        tags = run.data.tags
        outcome = tags[OUTCOME] if run.info.status == "FINISHED" else _outcome_of(workspace, run)
        at = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        found.append(
            {
                "at": at.isoformat(timespec="seconds"), "outcome": outcome, "challenger": tags[CHALLENGER],
                "from": tags[FROM], "to": tags.get(TO, ""), "by": tags[BY], "reason": tags[REASON],
                "reasons": json.loads(tags["geoloc.promotion.reasons"]), "forced": tags[FORCED] == "true",
                "run": run.info.run_id,
            }
        )  # fmt: skip
    return found


def close_interrupted(workspace: Workspace) -> None:
    """Close the records of promotions that were killed, with what became of them. Call it with the lock held."""
    if not _any_record(workspace):
        return
    client = mlflow_of(workspace).MlflowClient()
    for run in _records(client):
        if run.info.status != "FINISHED":
            outcome = _outcome_of(workspace, run)
            client.set_tag(run.info.run_id, OUTCOME, outcome)
            client.set_terminated(run.info.run_id, "FINISHED")


class _Task:
    """One decision on its way: what it is about, and what its steps have made."""

    def __init__(
        self,
        workspace: Workspace,
        target: Version,
        now: Version | None,
        decision: Decision,
        outcome: str,
        by: str,
        reason: str,
        forced: bool,
    ) -> None:
        self.workspace, self.target, self.now = workspace, target, now
        self.decision, self.outcome = decision, outcome
        self.by, self.reason, self.forced = by, reason, forced
        self.client: Any = mlflow_of(workspace).MlflowClient()
        self.run_id, self.challenger = "", target.tags.get(CHALLENGER, str(target))
        self.number: int | None = None if outcome == PROMOTED else target.number

    def record(self) -> None:
        """Write the decision as an MLflow run, which stays open until the alias is written."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT).experiment_id
        tags = {
            KIND: "true",
            OUTCOME: self.outcome,
            CHALLENGER: self.challenger,
            FROM: "" if self.now is None else str(self.now.number),
            TO: str(self.number) if self.outcome == ROLLED_BACK else "",
            BY: self.by,
            REASON: self.reason,
            FORCED: str(self.forced).lower(),
            "geoloc.promotion.reasons": json.dumps(self.decision.reasons),
            "recipe": self.target.recipe,
        }
        what = "rollback to" if self.outcome == ROLLED_BACK else "promotion of"
        run = self.client.create_run(experiment, run_name=f"{what} {self.target}", tags=tags)
        self.run_id = run.info.run_id
        for row in self.decision.table.itertuples():
            name = f"{row.test}/{row.photos}/{row.method}/{row.measure}/difference"
            self.client.log_metric(self.run_id, name, float(row.difference))
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / DECISION_FILE, self.decision.to_dict())
            write_text(Path(folder) / TABLE_FILE, self.decision.table_text() + "\n")
            self.client.log_artifacts(self.run_id, folder)

    def register(self) -> None:
        """Make the challenger a version of `geoloc`. It is not served yet."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(MODEL)
        except MlflowException:
            about = "The models that were promoted; the one in service has the alias champion."
            self.client.create_registered_model(MODEL, description=about)
        tags = {
            RECIPE: self.target.recipe,
            CHALLENGER: self.challenger,
            CONTENT: self.target.content(),
            BEFORE: "" if self.now is None else str(self.now.number),
            RECORD: self.run_id,
            BY: self.by,
            REASON: self.reason,
        }
        made = self.client.create_model_version(
            MODEL, f"models:/{self.target.model_id}", run_id=self.target.run_id, tags=tags
        )
        self.number = int(made.version)
        self.client.set_tag(self.run_id, TO, str(self.number))

    def point(self) -> None:
        """Let the alias name the new champion: the one write after which another model serves."""
        self.client.set_registered_model_alias(MODEL, ALIAS, str(self.number))

    def close(self) -> None:
        """Close the record."""
        self.client.set_terminated(self.run_id, "FINISHED")

    def result(self) -> Outcome:
        return Outcome(
            self.outcome,
            champion(self.workspace),
            self.now,
            self.decision,
            self.by,
            self.reason,
            self.run_id,
            self.challenger,
            self.target.recipe,
        )


def steps(task: _Task) -> list[Callable[[], None]]:
    """The writes of a decision, in order. Only `point` changes what serves."""
    if task.outcome == KEPT:
        return [task.record, task.close]
    if task.outcome == ROLLED_BACK:
        return [task.record, task.point, task.close]
    return [task.record, task.register, task.point, task.close]


def _carry_out(task: _Task) -> Outcome:
    for step in steps(task):
        step()
    return task.result()


def _compared(
    workspace: Workspace,
    now: Version,
    challenger: Version,
    policy: PromotionSettings,
    say: Callable[[str], None],
) -> Decision:
    """The decision by the policy. Raises WorkspaceError if the two cannot be compared."""
    now.require_whole()
    refreshed = _refreshes(now, challenger)
    if refreshed:  # what differs are answers by neighbour
        policy = replace(policy, methods=(*policy.methods, *({"nn"} - set(policy.methods))))
    return decide(contest(workspace, now, challenger, policy, say), policy, refreshed=refreshed)


def _any_record(workspace: Workspace) -> bool:
    """Whether anything was ever decided, without importing MLflow."""
    return has_tag(workspace, KIND)


def _refreshes(now: Version, challenger: Version) -> bool:
    """Whether the challenger is the champion's network over the same partitions, with an index both."""
    same = all(
        content_hash(now.folder / name) == content_hash(challenger.folder / name)
        for name in (GRAPH, PARTITIONS)
    )
    return same and all((one.folder / INDEX).is_dir() for one in (now, challenger))


def _require_usable(workspace: Workspace, challenger: Version) -> None:
    """Raise WorkspaceError unless a version has the files that were registered, can be opened and, where its build is
    the one in build/, passed all checks."""
    if CONTENT in challenger.tags and challenger.content() != challenger.tags[CONTENT]:
        raise WorkspaceError(
            f"{challenger} is not what was registered ({challenger.folder} was changed); build it again with: geoloc "
            f"build --recipe {challenger.recipe} --only evaluation --force"
        )
    Served.open(challenger.folder)
    build = Build(workspace, challenger.recipe)
    record = build.record("evaluation")
    if record is None or record.mlflow_run != challenger.run_id:
        return
    stages = {stage.name: stage for stage in build.stages}
    for name in (*inputs_of(build.settings, stages["evaluation"]), "evaluation"):
        require_checked(build, name)


def _records(client: Any) -> list[Any]:
    """The runs of all decisions, oldest first."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found, token = [], None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], f"tags.`{KIND}` = 'true'",
            order_by=["attributes.start_time ASC"], page_token=token,
        )  # fmt: skip
        found += list(page)
        token = page.token
        if not token:
            return found


def _outcome_of(workspace: Workspace, run: Any) -> str:
    """What became of a decision whose process was killed: the champion tells."""
    now, tags = champion(workspace), run.data.tags
    if tags[OUTCOME] == KEPT:
        return KEPT
    reached = now is not None and (
        now.tags.get(RECORD) == run.info.run_id
        or (tags[OUTCOME] == ROLLED_BACK and tags.get(TO) == str(now.number))
    )
    return str(tags[OUTCOME]) if reached else INTERRUPTED
