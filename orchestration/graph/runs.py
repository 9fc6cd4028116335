"""Runs of Dagster in a workspace: one at a time, whoever starts them, and none that hangs after its process died."""

# No `from __future__ import annotations` here: Dagster reads the annotation of the executor's argument.

import contextlib
from collections.abc import Iterator

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.errors import (
    raise_execution_interrupts,
)  # a waiting run must end when a person terminates it
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode

from orchestration.graph.assets import DATA_KEY, DATA_TAG
from orchestration.plan.chain import SHARED, STAGES
from orchestration.plan.settings import DEFAULT_RECIPE
from orchestration.stores.data_version import data_version
from orchestration.stores.lock import BusyError, build_lock, forget_run, killed_runs, run_lock
from orchestration.stores.pipeline import record_build
from orchestration.workspace import Workspace

HEADLESS_TAG = "geoloc/headless"
"""On runs of `geoloc build`, whose process holds the build lock before the run begins."""


def one_at_a_time(workspace: Workspace) -> dg.ExecutorDefinition:
    """The executor of runs that are started in the UI, by a sensor or by Dagster's own commands.

    Steps run in the run's process, one after another: a process for each would import torch and Great Expectations
    each time, three times the wall time. The run holds the workspace's build lock from its first step until its outputs
    are in dvc.lock, and waits if another build holds it. `geoloc build` holds the lock itself, and Dagster runs its job
    without this executor.
    """

    # Dagster's own executors give it the definition of a schema too, which its annotation does not admit.
    @dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema)  # type: ignore[call-overload]
    def executor(context: dg.InitExecutorContext) -> dg.Executor:
        create = dg.in_process_executor.executor_creation_fn
        assert create is not None
        return _OneAtATime(workspace, create(context))

    return executor


class _OneAtATime(dg.Executor):
    def __init__(self, workspace: Workspace, inner: dg.Executor) -> None:
        self.workspace, self.inner = workspace, inner

    @property
    def retries(self) -> RetryMode:
        return self.inner.retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        run, told = plan_context.dagster_run, set()

        def wait(message: str) -> None:
            if message not in told:
                plan_context.log.info(f"{message}; this run waits for it to end")
            told.add(message)

        with contextlib.ExitStack() as held:
            held.enter_context(run_lock(self.workspace, run.run_id))
            with raise_execution_interrupts():
                who = f"Dagster run {run.run_id.partition('-')[0]} of {run.job_name}"
                held.enter_context(build_lock(self.workspace, who, wait))
            end_killed_runs(self.workspace, plan_context.instance, run.run_id)
            if self.workspace.data_pointer.exists():
                # At each start: a run that is started again has the tags of the earlier one, whose photos are old.
                plan_context.instance.add_run_tags(run.run_id, {DATA_TAG: data_version(self.workspace)})
            failed, made = False, set()
            for event in self.inner.execute(plan_context, execution_plan):
                failed |= event.is_failure
                if event.is_step_materialization and event.asset_key is not None:
                    made.add(event.asset_key)
                yield event
            if not failed:
                _record(self.workspace, made - {DATA_KEY})


def _record(workspace: Workspace, made: set[dg.AssetKey]) -> None:
    """Write dvc.yaml and dvc.lock for the outputs that a run has made or kept."""
    recipes = {key.path[0] if len(key.path) > 1 else DEFAULT_RECIPE for key in made}
    for recipe in sorted(recipes):
        stages = {key.path[-1] for key in made if key.path[-1] in SHARED or key.path[0] == recipe}
        record_build(workspace, recipe, stages & set(STAGES))


def end_killed_runs_if_free(workspace: Workspace) -> None:
    """As `end_killed_runs`, if no build holds the workspace; one that does has done this."""
    with (
        contextlib.suppress(BusyError),
        build_lock(workspace, "geoloc ui, which starts"),
        dg.DagsterInstance.get() as instance,
    ):
        end_killed_runs(workspace, instance)


def end_killed_runs(workspace: Workspace, instance: dg.DagsterInstance, own: str = "") -> None:
    """Mark runs whose process was killed as failed, and free their slots in the pools; otherwise Dagster would wait for
    them for ever. Call it with the build lock held; `own` is the run that holds it.

    Under the lock no other run is at work, so a headless one in progress has no process, and a slot is nobody's. Runs
    of the UI may wait for the lock; those that live hold a file. One that is still starting is left to Dagster's run
    monitoring.
    """
    killed = killed_runs(workspace)
    in_progress = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    for run in instance.get_runs(RunsFilter(statuses=in_progress)):
        # A headless run that was started again in the UI has its tags, and a parent.
        headless = HEADLESS_TAG in run.tags and run.parent_run_id is None
        if run.run_id in killed or (headless and run.run_id != own):
            instance.report_run_failed(run, "The process of this run was killed.")
    for run_id in killed:
        forget_run(workspace, run_id)
    slots = instance.event_log_storage  # claimed by a killed run even if Dagster has marked it as failed
    for pool in slots.get_concurrency_keys():
        info = slots.get_concurrency_info(pool)
        for run_id in {*info.active_run_ids, *info.assigned_run_ids, *info.pending_run_ids} - {own}:
            slots.free_concurrency_slots_for_run(run_id)
