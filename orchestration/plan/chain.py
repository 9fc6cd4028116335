"""The chain of stages: what each reads, which settings it uses, and where it writes.

Dagster's graph, dvc.yaml, staleness and `geoloc audit` are all read off this one table. A new family of models is a row
or two here, a file in orchestration/assets for each row, and the library code that it calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc.models.settings import RECIPE
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from orchestration.plan.settings import BuildSettings


@dataclass(frozen=True)
class Stage:
    """One box of the chain.

    `inputs` are the stages whose output it reads; `after` are stages that must be done and pass their checks first, and
    whose output it does not read. `sections` are the settings that it uses: sections, or dotted keys. A recipe has the
    stage only if the setting named by `when` is set. `looks_at_pool`: it reads the pool itself (catalog, quarantine,
    pairs), and so depends on the data version; the others get their photos from `splits`. `kinds` are shown in the
    Dagster UI. `volatile` names output files that hold run ids or times and so are not content. `names_recipe`: the
    output names its recipe, so another recipe cannot take it over.
    """

    name: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    group: str
    kinds: tuple[str, ...]
    description: str
    after: tuple[str, ...] = ()
    when: str = ""
    looks_at_pool: bool = False
    volatile: tuple[str, ...] = ()
    names_recipe: bool = False

    @property
    def module(self) -> str:
        """The module with the stage's `build` function."""
        return f"orchestration.assets.{self.name}"


_EXTRACTION = ("embeddings.batch_size", "embeddings.dtype", "embeddings.shard_rows", "embeddings.precision")
_EMBEDDER = (
    "model.backbone", "model.weights", "model.pooling", "model.gem_power", "model.normalisation", "model.padding",
    "model.resize_short_side", "model.image_size", "model.interpolation",
)  # fmt: skip
"""The settings of a network without its heads: all that its features depend on."""

CHAIN: tuple[Stage, ...] = (
    Stage(
        "photos", (), (), "data", ("parquet", "dvc"),
        "The pool of photos at the version that data.dvc names: counts, sources, quarantine.",
        looks_at_pool=True,
    ),
    Stage(
        "splits", (), ("seed", "splits"), "data", ("parquet",),
        "Train, validation, test and external test sets: photographer-disjoint, no near-duplicate straddles.",
        after=("photos",), looks_at_pool=True,
    ),
    Stage(
        "partition", ("splits",), ("partitions",), "partitions", ("parquet",),
        "The Earth cut into cells, in one way or several, fitted on the training photos: the classifier's classes.",
    ),
    Stage(
        "features", ("splits",), ("seed", *_EMBEDDER, *_EXTRACTION), "retrieval", ("pytorch", "numpy"),
        "L2-normalised features of every photo by the backbone with its first weights.",
        when="embeddings.of_backbone",
    ),
    Stage(
        "classifier", ("splits", "partition"), ("seed", "model", "training"), "models", ("pytorch", "mlflow"),
        "A network that gives each cell of each partition a probability, trained on the training photos.",
    ),
    Stage(
        "embeddings", ("splits", "classifier"), _EXTRACTION, "retrieval", ("pytorch", "numpy"),
        "L2-normalised features of every photo by the trained classifier.",
        when="embeddings.of_classifier",
    ),
    Stage(
        "index", ("splits", "features", "embeddings"), ("seed", "index"), "retrieval", ("faiss",),
        "FAISS indexes over the training photos' embeddings: the references that queries are matched with.",
    ),
    Stage(
        "evaluation", ("splits", "partition", "classifier", "features", "embeddings", "index"),
        ("seed", "index", "localizers", "evaluation"), "evaluation", ("pandas", "mlflow"),
        "Accuracy at five levels with photographer-clustered intervals, baselines, ceilings and comparisons.",
    ),
    Stage(
        "report", ("splits", "partition", "classifier", "evaluation"),
        ("note", "splits"), "evaluation", ("html",),
        "One offline HTML file with the tables, maps, examples and provenance; the same numbers as JSON and CSV.",
        after=("photos",), looks_at_pool=True, volatile=("report.html", "provenance.json"), names_recipe=True,
    ),
)  # fmt: skip

STAGES: dict[str, Stage] = {stage.name: stage for stage in CHAIN}
MODEL_FILE = "model.safetensors"
"""In the classifier stage's output: the trained network."""
TRAINING_FILE = "training.json"
"""Beside it: what its training did, epoch by epoch."""
SHARED = ("photos",)
"""Stages that do not depend on the recipe: built once for the workspace."""


@dataclass(frozen=True)
class Borrowing:
    """What a recipe can take from another one: the input `name` is the output of that recipe's `stage`.

    `setting` is the dotted key whose value names the other recipe; with a `prefix`, only a value that starts with it
    does. `only` restricts the row to recipes where another setting has a value.
    """

    name: str
    setting: str
    stage: str
    prefix: str = ""
    only: tuple[str, str] | None = None


BORROWINGS: tuple[Borrowing, ...] = (
    Borrowing("weights", "model.weights", "classifier", prefix=RECIPE),
    Borrowing(
        "teacher",
        "training.distillation.recipe",
        "features",
        only=("training.distillation.model", "backbone"),
    ),
    Borrowing(
        "teacher",
        "training.distillation.recipe",
        "embeddings",
        only=("training.distillation.model", "classifier"),
    ),
)


def stages_of(settings: BuildSettings) -> tuple[Stage, ...]:
    """The stages that a recipe has, in order."""
    return tuple(stage for stage in CHAIN if not stage.when or value_at(settings, stage.when))


def inputs_of(settings: BuildSettings, stage: Stage) -> tuple[str, ...]:
    """The stages of the same recipe that a stage reads: its inputs, without those that the recipe does not have."""
    present = {other.name for other in stages_of(settings)}
    return tuple(name for name in stage.inputs if name in present)


def uses(stage: Stage, key: str) -> bool:
    """Whether a stage uses the setting with this dotted key."""
    return any(key == section or key.startswith(f"{section}.") for section in stage.sections)


def borrowed(settings: BuildSettings, stage: Stage) -> dict[str, tuple[str, str]]:
    """What a stage takes from other recipes: recipe and stage, by the name of the input."""
    return {row.name: (recipe, row.stage) for row, recipe in borrowings(settings) if uses(stage, row.setting)}


def borrowings(settings: Any) -> Iterator[tuple[Borrowing, str]]:
    """The rows of BORROWINGS that hold for settings, typed or as read from YAML, and the recipe that each names."""
    for row in BORROWINGS:
        value = value_at(settings, row.setting)
        if not isinstance(value, str) or not value.startswith(row.prefix):
            continue
        if row.only is None or (value_at(settings, row.only[0]) or "backbone") == row.only[1]:
            yield row, value.removeprefix(row.prefix)


def value_at(settings: Any, key: str) -> Any:
    """The value at a dotted key of settings, or of a mapping, nested or with dotted keys; None where there is none."""
    if isinstance(settings, dict) and key in settings:
        return settings[key]
    value = settings
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def artefact(recipe: str, stage: str) -> str:
    """The name of a stage's output: `photos`, or `<recipe>/<stage>`."""
    return stage if stage in SHARED else f"{recipe}/{stage}"


def output_folder(workspace: Workspace, recipe: str, stage: str) -> Path:
    """Where a stage writes."""
    return workspace.build / artefact(recipe, stage)


def record_path(workspace: Workspace, recipe: str, stage: str) -> Path:
    """The record of what made a stage's output: beside the output, not in it."""
    folder = output_folder(workspace, recipe, stage)
    return folder.parent / "lineage" / f"{folder.name}.json"
