"""MLflow's models, read: which run made a model."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import Any

from orchestration.stores.databases import check_mlflow, mlflow_database
from orchestration.stores.tracking import tracking_uri
from orchestration.workspace import Workspace

_VERSION = re.compile(r"(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/@]+))")
_LOGGED = re.compile(r"m-[0-9a-f]{32}")


SERVED = "geoloc"
"""The registered model whose alias names what serves; decisions are about its versions."""
_DECISION = "geoloc.promotion"


def is_model_name(text: str) -> bool:
    """Whether `text` may name a model: `NAME/VERSION`, `NAME@ALIAS` or `m-ID`, with or without `models:/`."""
    bare = text.removeprefix("models:/")
    return bool(_VERSION.fullmatch(bare) or _LOGGED.fullmatch(bare))


def run_of_model(workspace: Workspace, text: str) -> str | None:
    """The id of the MLflow run that made a model; None if there is no such model.

    Raises DamagedFile if MLflow's store is damaged.
    """
    if not mlflow_database(workspace).is_file():
        return None  # asking MLflow would create the store
    check_mlflow(workspace)
    import mlflow  # 3 to 8 s to import: only for a model

    client = mlflow.MlflowClient(tracking_uri(workspace), tracking_uri(workspace))
    bare = text.removeprefix("models:/")
    try:
        if _LOGGED.fullmatch(bare):
            return str(client.get_logged_model(bare).source_run_id)
        match = _VERSION.fullmatch(bare)
        if match is None:
            return None
        if match["alias"]:
            found = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            found = client.get_model_version(match["name"], match["version"])
    except mlflow.exceptions.MlflowException:
        return None
    if found.run_id:
        return str(found.run_id)
    logged = getattr(found, "model_id", None)  # a version that was made of a logged model names only that
    return str(client.get_logged_model(logged).source_run_id) if logged else None


def versions_of_run(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    """The registered model versions that an MLflow run made: name, version, aliases, tags, and the promotions and
    rollbacks to them, with who and why. Does not import MLflow."""
    file = mlflow_database(workspace)
    if not file.is_file():
        return []
    check_mlflow(workspace)
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=60)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if (
            not {"model_versions", "registered_model_aliases", "model_version_tags", "logged_models"}
            <= tables
        ):
            return []
        rows = database.execute(
            "SELECT name, version FROM model_versions WHERE run_id = :run OR source IN "
            "(SELECT 'models:/' || model_id FROM logged_models WHERE source_run_id = :run) ORDER BY name, version",
            {"run": run},
        ).fetchall()
        found = []
        for name, version in rows:
            of = (name, version)
            aliases = database.execute(
                "SELECT alias FROM registered_model_aliases WHERE name = ? AND CAST(version AS TEXT) = CAST(? AS TEXT)",
                of,
            )
            tags = database.execute(
                "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ? ORDER BY key", of
            )
            found.append(
                {
                    "name": name,
                    "version": int(version),
                    "aliases": sorted(alias for (alias,) in aliases),
                    "tags": {key: value for key, value in tags if not key.startswith("mlflow.")},
                    "decisions": _decisions(database, str(version)) if name == SERVED else [],
                }
            )
    return found


def _decisions(database: sqlite3.Connection, version: str) -> list[dict[str, str]]:
    """The decisions, runs of MLflow, that made a version the champion."""
    runs = database.execute(
        "SELECT run_uuid FROM tags WHERE key = ? AND value = ?", (f"{_DECISION}.to", version)
    ).fetchall()
    found = []
    for (run,) in runs:
        rows = database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run,))
        told = {
            key.removeprefix(f"{_DECISION}."): value for key, value in rows if key.startswith(f"{_DECISION}.")
        }
        found.append(
            {"run": run, **{key: told[key] for key in ("outcome", "by", "reason", "forced") if key in told}}
        )
    return found
