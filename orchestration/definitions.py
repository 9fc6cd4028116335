"""The Dagster entry point: every asset, check and job of the workspace in GEOLOC_WORKSPACE."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from orchestration.graph.definitions import make_definitions
from orchestration.plan.settings import DEFAULT_RECIPE
from orchestration.stores.pipeline import pipeline_recipes
from orchestration.workspace import Workspace


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the workspace in GEOLOC_WORKSPACE (default: the current folder), for all recipes in
    dvc.yaml."""
    workspace = Workspace.open(Path(os.environ.get("GEOLOC_WORKSPACE", ".")))
    return make_definitions(workspace, pipeline_recipes(workspace) or [DEFAULT_RECIPE])
