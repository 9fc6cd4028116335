"""MLflow: one run per training and per evaluation, in a SQLite store inside the workspace."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from geoloc.files import write_json
from orchestration.stores.databases import check_mlflow
from orchestration.stores.placement import EXPERIMENT, artifacts_uri, forget_place, settle
from orchestration.workspace import Workspace

_MOST_PARAMS = 100
"""MLflow refuses more of them in one batch."""


class Tracker:
    """One MLflow run: metrics by step and artefact files."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step; NaN, infinities and other values are skipped."""
        import math
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id,
            metrics=[
                Metric(key, float(value), now, step)
                for key, value in values.items()
                if isinstance(value, int | float) and math.isfinite(value)
            ],
        )

    def artefacts(self, folder: Path) -> None:
        """Copy a folder's files to the run."""
        self.client.log_artifacts(self.run_id, str(folder))


@contextlib.contextmanager
def tracked_run(
    workspace: Workspace,
    name: str,
    *,
    settings: Mapping[str, Any],
    tags: Mapping[str, str],
    data_version: str,
    resume_file: Path | None = None,
) -> Iterator[Tracker]:
    """An MLflow run that ends FINISHED when the block ends, FAILED when it raises.

    `resume_file` stores the run's id, so that a training that was killed continues in the same run.
    """
    mlflow = mlflow_of(workspace)
    client = mlflow.MlflowClient()
    experiment = _experiment(client, workspace)
    run_id = _unfinished_run(client, resume_file)
    if run_id is None:
        run = client.create_run(experiment, run_name=name, tags=dict(tags))
        run_id = run.info.run_id
        _log_params(client, run_id, _flat(settings))
        _log_data_version(mlflow, client, run_id, data_version)
        if resume_file is not None:
            write_json(resume_file, {"run_id": run_id})
    else:  # goes on in another Dagster run, and perhaps at another commit
        for key, text in tags.items():
            client.set_tag(run_id, key, text)
    try:
        yield Tracker(client, run_id)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def log_served_model(workspace: Workspace, run_id: str, model: Any, example: Any, name: str = "model") -> str:
    """Export a network as MLflow's pt2 (torch.export) model under a run; returns its URI.

    The exported program is for serving. geoloc itself reads the safetensors file beside it: no pickle is loaded
    anywhere.
    """
    mlflow = mlflow_of(workspace)
    import torch
    from mlflow.models import infer_signature

    with torch.no_grad():
        output = model(example)
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pytorch.log_model(
            model,
            name=name,
            input_example=example.numpy(),
            signature=infer_signature(example.numpy(), output.numpy()),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
        )
    # MLflow notes where the model and the program that logged it are; a copied workspace would point back there.
    mlflow.MlflowClient().set_logged_model_tags(logged.model_id, {"mlflow.source.name": "geoloc"})
    forget_place(workspace.mlflow / "artifacts" / "models" / logged.model_id / "artifacts" / "MLmodel")
    return str(logged.model_uri)


def tracking_uri(workspace: Workspace) -> str:
    """The URI of the workspace's MLflow store: SQLite, because MLflow 3 has no file store.

    Quoted, because SQLAlchemy unquotes it; with the driver's name, because MLflow makes the parent folders of a plain
    sqlite:/// URI, and does not unquote their names.
    """
    return f"sqlite+pysqlite:///{quote(str(workspace.mlflow / 'mlflow.db'))}"


def mlflow_of(workspace: Workspace) -> Any:
    """MLflow with the workspace's store, which is made if it is missing. Raises DamagedFile if it is damaged."""
    workspace.mlflow.mkdir(exist_ok=True)
    check_mlflow(workspace)
    settle(workspace)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow  # 3 to 8 s to import: only where a run is tracked

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(tracking_uri(workspace))
    return mlflow


def _experiment(client: Any, workspace: Workspace) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    made = client.create_experiment(EXPERIMENT, artifact_location=artifacts_uri(workspace))
    settle(workspace)  # MLflow has just made a default experiment in the current folder
    return str(made)


def _unfinished_run(client: Any, resume_file: Path | None) -> str | None:
    from mlflow.exceptions import MlflowException

    from geoloc.files import read_json

    if resume_file is None or not resume_file.exists():
        return None
    run_id = str(read_json(resume_file, dict)["run_id"])
    try:
        client.get_run(run_id)
    except MlflowException:  # the store was removed since
        return None
    client.update_run(run_id, status="RUNNING")
    return run_id


def _log_data_version(mlflow: Any, client: Any, run_id: str, version: str) -> None:
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]
    from mlflow.entities import DatasetInput, InputTag

    dataset = MetaDataset(LocalArtifactDatasetSource("data.dvc"), name="data", digest=version)  # type: ignore[abstract]
    entity = DatasetInput(dataset._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", "training")])
    client.log_inputs(run_id, datasets=[entity])


def _log_params(client: Any, run_id: str, values: Mapping[str, Any]) -> None:
    """Log settings, many a transaction: one each takes seconds."""
    from mlflow.entities import Param

    params = [Param(key, str(value)[:6000]) for key, value in values.items()]
    for start in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + _MOST_PARAMS])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
