"""The Dagster entry point: every asset, check and job of the workspace in GEOLOC_WORKSPACE."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import dagster as dg

from orchestration.graph.definitions import make_definitions
from orchestration.plan.settings import DEFAULT_RECIPE, why_unusable
from orchestration.stores.pipeline import pipeline_recipes
from orchestration.workspace import Workspace


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the workspace in GEOLOC_WORKSPACE (default: the current folder), for all recipes in
    dvc.yaml. One that cannot be used is named in the log and left out."""
    workspace = Workspace.open(Path(os.environ.get("GEOLOC_WORKSPACE", ".")))
    usable = []
    for recipe in pipeline_recipes(workspace) or [DEFAULT_RECIPE]:
        if why := why_unusable(workspace, recipe):
            logging.getLogger("geoloc").warning("the recipe %s is left out: %s", recipe, why)
        else:
            usable.append(recipe)
    return make_definitions(workspace, usable)
