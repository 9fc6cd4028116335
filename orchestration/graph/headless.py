"""`geoloc build`: run the chain headless, in this process, with readable progress and in the history of the UI."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from geoloc.settings import SettingsError, replace
from orchestration.lineage.build import Build
from orchestration.lineage.stale import borrowed_content, stale_stages, why_stale
from orchestration.plan.chain import EXTERNAL_FILE, STAGES, WEIGHTS, borrowed, looks_at_pool, uses
from orchestration.plan.checks import checks_of
from orchestration.plan.settings import (
    BuildSettings,
    external_files,
    is_recipe_name,
    misnamed_recipes,
    weights_file,
)
from orchestration.run.sweep import sweep
from orchestration.stores.data_version import verify_data
from orchestration.stores.databases import dagster_instance
from orchestration.stores.lock import build_lock, killed_runs
from orchestration.stores.pipeline import commit_stages, drop_recipes, unrecorded_stages, write_pipeline
from orchestration.stores.stamps import write_stamps
from orchestration.workspace import Workspace, WorkspaceError

_OURS = re.compile(r"^(geoloc|orchestration)\.[\w.]+: ")
"""What Dagster writes before the message of an error of the project: its class."""


class BuildFailed(RuntimeError):
    """A stage or a blocking check failed. The message names it and the reason."""


def build(
    workspace: Workspace,
    recipe: str,
    *,
    only: Sequence[str] = (),
    force: bool = False,
    commit: bool = True,
    admit: bool = False,
    tags: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Build the parts of a recipe (or of the stages in `only`) that are out of date; returns the stages that were made.

    With `commit`, what was built is recorded in dvc.lock. `admit`: photos that wait (growth.admit) enter the splits.
    `tags` are added to Dagster's run. The workspace is locked from planning to recording. Raises
    SettingsError, WorkspaceError or BuildFailed.
    """
    one = Build(workspace, recipe)
    names = [stage.name for stage in one.stages]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise WorkspaceError(f"--only must name stages of {', '.join(names)}; got {', '.join(unknown)}")
    with build_lock(workspace, one.command(" ".join(only))):
        return _build(one, set(only) or set(names), force, commit, say, admit, tags or {})


def drop(workspace: Workspace, recipes: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Remove the stages of recipes from dvc.yaml and dvc.lock; their outputs are kept, and named.

    Raises WorkspaceError if dvc.yaml has no stages of one of them, or if another build runs.
    """
    with build_lock(workspace, f"geoloc build --drop {' '.join(recipes)}"):
        drop_recipes(workspace, recipes)
    for recipe in dict.fromkeys(recipes):
        say(f"{recipe}: its stages are no longer in dvc.yaml and dvc.lock")
        if is_recipe_name(recipe) and (workspace.build / recipe).is_dir():
            say(f"{recipe}: its outputs are still in build/{recipe}; remove them with: rm -r build/{recipe}")


def _build(
    one: Build,
    wanted: set[str],
    force: bool,
    commit: bool,
    say: Callable[[str], None],
    admit: bool,
    tags: Mapping[str, str],
) -> list[str]:
    """`build` with the lock held."""
    workspace, recipe = one.workspace, one.recipe
    if killed_runs(workspace):
        _end_killed_runs(workspace)
    if commit:
        for file in misnamed_recipes(workspace):
            say(f"{file} is left out: no recipe can have this name")
        if write_pipeline(workspace, recipe, say):
            say(f"dvc.yaml now has the stages of {recipe}")
    _check_borrowed(one, wanted, say)
    data = verify_data(workspace)
    reasons = stale_stages(one, wanted, force, admit)
    sweep(one, wanted.difference(reasons))
    if not reasons:
        write_stamps(workspace, one.settings, wanted)
        if commit:  # completes a build that was killed between its last stage and dvc.lock
            commit_stages(workspace, recipe, unrecorded_stages(workspace, recipe, wanted))
        say(f"{recipe}: everything is up to date")
        return []
    _check_layer(one.settings)
    _check_blocks(one.settings, reasons)
    _check_suites(one, reasons)
    for name, why in reasons.items():
        say(f"{one.name(name):<24} {'; '.join(why)}")
    started = time.monotonic()
    made = _run(one, list(reasons), force, data, admit, tags)
    write_stamps(workspace, one.settings, wanted)
    if commit:
        commit_stages(workspace, recipe, unrecorded_stages(workspace, recipe, wanted))
    say(f"{recipe}: built {', '.join(made) or 'nothing'} in {time.monotonic() - started:.0f} s")
    if kept := [name for name in reasons if name not in made]:
        say(f"{recipe}: still up to date: {', '.join(kept)}")
    if "report" in made:
        say(f"report: {(one.folder('report') / 'report.html').relative_to(workspace.root)}")
    return made


def _end_killed_runs(workspace: Workspace) -> None:
    """Tell Dagster of runs of the UI that were killed, even if there is nothing to build."""
    import dagster as dg  # seconds to import

    from orchestration.graph.runs import end_killed_runs

    with dg.DagsterInstance.get() as instance:
        end_killed_runs(workspace, instance)


def _check_borrowed(one: Build, wanted: set[str], say: Callable[[str], None]) -> None:
    """Raise WorkspaceError, before anything is built, if a borrowed output is missing; warn if one is out of date."""
    stages = [stage for stage in one.stages if stage.name in wanted]
    for key in WEIGHTS:
        if any(uses(stage, key) for stage in stages):
            weights_file(one.workspace, one.settings, key)
    if any(uses(stage, EXTERNAL_FILE) for stage in stages):
        external_files(one.workspace, one.settings)
    for recipe, name in {source for stage in stages for source in borrowed(one.settings, stage).values()}:
        borrowed_content(one, recipe, name)
        source = one.of(recipe)
        if why := why_stale(source, STAGES[name]):
            say(f"{source.name(name)}, which {one.recipe} borrows from, is out of date: {'; '.join(why)}")


def _check_layer(settings: BuildSettings) -> None:
    """Raise SettingsError if a network of the recipe does not have the layer that embeddings.layer names, before hours
    are spent on its training."""
    layer, embeddings = settings.embeddings.layer, settings.embeddings
    if layer is None:
        return
    # Torch, which takes seconds to import.
    from geoloc.models.embedder import build_embedder
    from geoloc.models.layers import at_layer
    from geoloc.models.metric import build_metric_network

    model = replace(settings.model, weights="none")
    if embeddings.of_backbone or embeddings.of_classifier:
        at_layer(build_embedder(model, 0), layer)
    if settings.metric is not None:
        at_layer(build_metric_network(model, 0, settings.metric.embedding_size), layer)


def _check_blocks(settings: BuildSettings, stages: Iterable[str]) -> None:
    """Raise SettingsError if one of these stages would train more blocks than its network has, or an unknown one."""
    wanted = {"classifier": ("training", settings.training.trainable_blocks, settings.model)}
    if (metric := settings.metric) is not None:
        wanted["metric"] = ("metric", metric.trainable_blocks, settings.model)
    if (cross := settings.cross_view) is not None:
        wanted["cross_view_model"] = ("cross_view", cross.trainable_blocks, cross.model)
    for key, blocks, model in (wanted[name] for name in stages if name in wanted):
        if blocks is None:
            continue
        # Torch, which takes seconds to import.
        from geoloc.models.embedder import build_embedder

        network = build_embedder(replace(model, weights="none"), 0)
        try:
            network.freeze_backbone(blocks)
        except ValueError as error:
            raise SettingsError(f"{key}.{error}, the number of blocks of {model.backbone}") from None


def _check_suites(one: Build, stages: Iterable[str]) -> None:
    """Raise QualityError if a suite that will check one of these outputs cannot be read, before hours are spent on
    making it."""
    # pandas, which takes half a second to import.
    from orchestration.quality.suites import read_suite

    for suite in {check.suite for name in stages for check in checks_of(one.settings, name)}:
        read_suite(one.workspace.expectations / f"{suite}.json")


def _run(
    one: Build, stages: Sequence[str], force: bool, data: str, admit: bool, tags: Mapping[str, str]
) -> list[str]:
    """Run the stages in one Dagster run; returns those that were made, in order. The others were up to date and
    kept."""
    # Dagster takes seconds to import: not for `--help`, nor when there is nothing to do.
    from orchestration.graph.assets import DATA_KEY, DATA_TAG, REUSED_TAG, asset_key
    from orchestration.graph.definitions import job_name, make_definitions
    from orchestration.graph.runs import HEADLESS_TAG, end_killed_runs

    job = make_definitions(one.workspace, [one.recipe]).resolve_job_def(job_name(one.recipe))
    keys = {name: asset_key(one.recipe, name) for name in stages}
    # The source is observed in the same run, or lineage would record its version as INITIAL.
    looked_at = any(looks_at_pool(one.settings, STAGES[name]) for name in stages)
    selection = [*([DATA_KEY] if looked_at else []), *keys.values()]
    config = {"force": force, "admit": admit}
    ops = {"__".join(key.path): {"config": config} for key in keys.values()} if force or admit else {}
    with dagster_instance(one.workspace) as instance:
        end_killed_runs(one.workspace, instance)
        result = job.execute_in_process(
            instance=instance,
            asset_selection=selection,
            # Without the loggers key Dagster falls back to its own console logger, whatever the job defines.
            run_config={"ops": ops, "loggers": {"console": {"config": {}}}},
            raise_on_error=False,
            tags={**tags, "geoloc/recipe": one.recipe, HEADLESS_TAG: "true", DATA_TAG: data},
        )
        if not result.success:
            raise BuildFailed("\n".join(_failures(result, one.recipe)))
        made = {
            event.asset_key
            for event in result.get_asset_materialization_events()
            if (event.materialization.tags or {}).get(REUSED_TAG) == "false"
        }
    return [name for name, key in keys.items() if key in made]


def _failures(result: object, recipe: str) -> list[str]:
    """One line per failed step: the error, or the rules of a blocking check that were broken."""
    lines = []
    checked: dict[str | None, list[str]] = {}
    for event in result.all_events:  # type: ignore[attr-defined]
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            found = event.asset_check_evaluation_data
            if not found.passed and found.blocking and found.severity.value == "ERROR":
                told = f"{'/'.join(found.asset_key.path)} failed its check {found.check_name}: {found.description}"
                checked.setdefault(event.step_key, []).append(told)
        elif event.is_step_failure and event.step_key in checked:
            lines += checked[event.step_key]
        elif event.is_step_failure:
            error = event.step_failure_data.error
            # The first error of the project says what and where; what caused it, such as a parser's, does not.
            while error is not None and error.cause is not None and not _OURS.match(error.message):
                error = error.cause
            message = error.message.strip() if error is not None else "unknown error"
            # The project's own errors are written for users, who do not need the name of the class.
            message = _OURS.sub("", message)
            lines.append(f"{(event.step_key or recipe).replace('__', '/')} failed: {message}")
    return lines or [f"{recipe}: the run failed; see the Dagster UI"]
