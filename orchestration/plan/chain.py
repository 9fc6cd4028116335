"""The chain of stages: what each reads, which settings and modules it uses, and where it writes.

Dagster's graph, dvc.yaml, staleness and `geoloc audit` are all read off this one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestration.workspace import Workspace


@dataclass(frozen=True)
class Stage:
    """One box of the chain.

    `inputs` are the stages it reads; `sections` the parts of the settings that it uses; `kinds` are shown in
    the Dagster UI. `volatile` names output files that hold run ids or times and so do not count as content.
    """

    name: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    group: str
    kinds: tuple[str, ...]
    description: str
    reads_photos: bool = False
    volatile: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The module with the stage's `build` function."""
        return f"orchestration.assets.{self.name}"


CHAIN: tuple[Stage, ...] = (
    Stage(
        "photos", (), (), "data", ("parquet", "dvc"),
        "The pool of photos at the version that data.dvc names: counts, sources, quarantine.",
        reads_photos=True,
    ),
    Stage(
        "splits", ("photos",), ("seed", "splits"), "data", ("parquet",),
        "Train, validation, test and external test sets: photographer-disjoint, no near-duplicate straddles.",
        reads_photos=True,
    ),
    Stage(
        "partition", ("splits",), ("partitions",), "partitions", ("parquet",),
        "The Earth cut into cells, in one way or several, fitted on the training photos: the classifier's classes.",
        reads_photos=True,
    ),
    Stage(
        "classifier", ("splits", "partition"), ("seed", "model", "training"), "models", ("pytorch", "mlflow"),
        "A network that gives each cell of each partition a probability, trained on the training photos.",
        reads_photos=True,
    ),
    Stage(
        "embeddings", ("classifier",), ("seed", "model", "embeddings"), "retrieval", ("pytorch", "numpy"),
        "L2-normalised features of every photo, by the trained classifier and by its initial backbone.",
        reads_photos=True,
    ),
    Stage(
        "index", ("splits", "embeddings"), ("seed", "index"), "retrieval", ("faiss",),
        "FAISS indexes over the training photos' embeddings: the references that queries are matched with.",
        reads_photos=True,
    ),
    Stage(
        "evaluation", ("splits", "partition", "classifier", "embeddings", "index"),
        ("seed", "localizers", "evaluation"), "evaluation", ("pandas", "mlflow"),
        "Accuracy at five levels with photographer-clustered intervals, baselines, ceilings and comparisons.",
        reads_photos=True,
    ),
    Stage(
        "report", ("photos", "splits", "partition", "classifier", "embeddings", "index", "evaluation"),
        ("note",), "evaluation", ("html",),
        "One offline HTML file with the tables, maps, examples and provenance; the same numbers as JSON and CSV.",
        reads_photos=True, volatile=("report.html", "provenance.json"),
    ),
)  # fmt: skip

STAGES: dict[str, Stage] = {stage.name: stage for stage in CHAIN}
MODEL_FILE = "model.safetensors"
"""In the classifier stage's output: the trained network."""
SHARED = ("photos",)
"""Stages that do not depend on the recipe: built once for the workspace."""


def artefact(recipe: str, stage: str) -> str:
    """The name of a stage's output: `photos`, or `<recipe>/<stage>`."""
    return stage if stage in SHARED else f"{recipe}/{stage}"


def output_folder(workspace: Workspace, recipe: str, stage: str) -> Path:
    """Where a stage writes."""
    return workspace.build / artefact(recipe, stage)


def lineage_path(workspace: Workspace, recipe: str, stage: str) -> Path:
    """Where the record of what made a stage's output stands: beside the output, not in it."""
    folder = output_folder(workspace, recipe, stage)
    return folder.parent / "lineage" / f"{folder.name}.json"
