"""Workspaces whose stages are pretended to be built: small files and true records, without git, DVC or MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from geoloc.files import write_text
from orchestration.lineage.build import Build, folder_content
from orchestration.lineage.checks import CheckResult, output_of, rules_of, write_result
from orchestration.lineage.record import Record
from orchestration.lineage.stale import expected, stale_stages
from orchestration.plan.chain import STAGES, Stage
from orchestration.plan.checks import checks_of
from orchestration.workspace import Workspace


def bare_workspace(root: Path, params: Mapping[str, Any], version: str = "first") -> Workspace:
    """A workspace that holds settings and a data version, and nothing else."""
    (root / "recipes").mkdir(parents=True)
    (root / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False))
    workspace = Workspace.open(root)
    new_data(workspace, version)
    return workspace


def new_data(workspace: Workspace, version: str) -> None:
    """data.dvc as `dvc add data` would leave it."""
    outs = [{"md5": f"{version}.dir", "hash": "md5", "path": "data"}]
    write_text(workspace.data_pointer, yaml.safe_dump({"outs": outs}))


def write_recipe(workspace: Workspace, recipe: str, values: Mapping[str, Any]) -> Build:
    (workspace.recipes / f"{recipe}.yaml").write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return Build(workspace, recipe)


def pretend(build: Build, stages: Mapping[str, str] | None = None) -> None:
    """Make the stale outputs of a recipe and their records. `stages` gives the text of an output, which is otherwise a
    function of what it is made from."""
    for stage in build.stages:
        if stale_stages(build, {stage.name}) or (stages and stage.name in stages):
            pretend_stage(build, stage, (stages or {}).get(stage.name))


def pretend_stage(build: Build, stage: Stage, text: str | None = None) -> None:
    made_from = expected(build, stage)
    # The pool's version is no part of what stages see in it.
    seen = {name: content for name, content in made_from.inputs.items() if name != "data"}
    write_text(
        build.folder(stage.name) / "content.json",
        text or json.dumps([stage.name, seen, build.used(stage)], sort_keys=True),
    )
    record_as_built(build, stage)


def record_as_built(build: Build, stage: Stage) -> None:
    """The record of what is in a stage's folder, as if it had just been built, and passed checks."""
    made_from = expected(build, stage)
    record(
        build,
        stage.name,
        inputs=made_from.inputs,
        settings=build.used(stage),
        code=made_from.code_version,
    )
    for check in checks_of(build.settings, stage.name):
        output, rules = output_of(build.built(stage.name)), rules_of(build.workspace, check)
        result = CheckResult(check.name, output, rules, 0, 0, "all hold", "2026-01-01T00:00:00+00:00")
        write_result(build, stage.name, result)


def record(
    build: Build, stage: str, *, inputs: dict[str, str], settings: dict[str, Any], code: str, **values: Any
) -> None:
    """The record of a stage's output as it is on disk."""
    Record(
        **{
            "artefact": build.name(stage),
            "stage": stage,
            "recipe": build.recipe,
            "content": folder_content(build.folder(stage), STAGES[stage]),
            "inputs": inputs,
            "settings": settings,
            "settings_hash": "",
            "code_version": code,
            "workspace_commit": None,
            "workspace_dirty": None,
            "code_commit": None,
            "code_dirty": None,
            "dagster_run": None,
            "mlflow_run": None,
            "started_at": "2026-01-01T00:00:00+00:00",
            "seconds": 0.0,
            "environment": {},
            **values,
        }
    ).write(build.record_path(stage))
