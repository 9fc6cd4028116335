"""MLflow's models, read: which run made a model."""

from __future__ import annotations

import re

from orchestration.stores.databases import check_mlflow, mlflow_database
from orchestration.stores.tracking import tracking_uri
from orchestration.workspace import Workspace

_VERSION = re.compile(r"(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/@]+))")
_LOGGED = re.compile(r"m-[0-9a-f]{32}")


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
