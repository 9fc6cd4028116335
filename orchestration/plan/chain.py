"""The chain of stages: what each reads, which settings it uses, and where it writes.

Dagster's graph, dvc.yaml, the staleness check and `geoloc audit` are all derived from this table. A new family of
models is a row or two here, one file in orchestration/assets per row, and the library code that it calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc.models.settings import OF_CLASSIFIER, OF_METRIC, RECIPE
from geoloc.training.cross_view_settings import CrossViewSettings
from geoloc.training.metric_settings import CLASSIFIER, MetricSettings
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from orchestration.plan.settings import BuildSettings


@dataclass(frozen=True)
class Stage:
    """One stage of the chain.

    `inputs`: the stages whose output it reads. `after`: stages that must be built and pass their checks first, but
    whose output it does not read. `sections`: the settings that it uses, as sections or dotted keys. `when`: the
    setting that switches the stage on; a recipe has the stage only if it is set (empty: always). `looks_at_pool`: the
    stage reads the pool itself (catalog, quarantine, pairs), so it depends on the data version; the other stages get
    their photos from `splits`. `pool_when`: the setting with which it does so, though it does not otherwise. `only`:
    inputs that it reads only where a setting has a value, as (input, key, value). `shows_checks`: it shows what the
    checks of all outputs found. `kinds`: labels in the Dagster UI. `volatile`: output
    files that hold run ids or times and so are not content. `names_recipe`: the output contains the recipe's name, so
    no other recipe can reuse it.
    """

    name: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    group: str
    kinds: tuple[str, ...]
    description: str
    after: tuple[str, ...] = ()
    when: str = ""
    only: tuple[tuple[str, str, object], ...] = ()
    looks_at_pool: bool = False
    pool_when: str = ""
    shows_checks: bool = False
    volatile: tuple[str, ...] = ()
    names_recipe: bool = False

    @property
    def module(self) -> str:
        """The module with the stage's `build` function."""
        return f"orchestration.assets.{self.name}"


_EXTRACTION = (
    "embeddings.batch_size", "embeddings.dtype", "embeddings.shard_rows", "embeddings.precision", "embeddings.layer",
    "embeddings.pca",
)  # fmt: skip
EXTERNAL_FILE = "embeddings.external.file"
"""The setting that names a file of embeddings that another program made."""
_EMBEDDER = (
    "model.backbone", "model.weights", "model.pooling", "model.gem_power", "model.normalisation", "model.padding",
    "model.resize_short_side", "model.image_size", "model.interpolation",
)  # fmt: skip
"""The settings that a network's features depend on: all but those of the heads."""
_METRIC = (
    *(key for key in _EMBEDDER if key != "model.weights"), "model.dropout", "model.batch_norm",
    *(f"metric.{name}" for name in MetricSettings.model_fields if name != "name"),
)  # fmt: skip
"""The settings that a metric network depends on. Its first weights are those of metric.start."""

_CROSS_VIEW = tuple(
    f"cross_view.{name}" for name in CrossViewSettings.model_fields if name not in ("splits", "search")
)
"""The settings that a cross-view network depends on."""

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
        "growth", ("splits",), ("seed", "splits"), "data", ("parquet",),
        "The photos that came after the splits and wait for the next training; some are references already.",
        when="growth.waits", looks_at_pool=True,
    ),
    Stage(
        "pairs", (), ("seed", "cross_view.splits"), "data", ("parquet",),
        "Pairs of a street photo and an overhead tile: train, validation and test, city- and photographer-disjoint.",
        after=("photos",), when="cross_view", looks_at_pool=True,
    ),
    Stage(
        "partition", ("splits",), ("partitions",), "partitions", ("parquet",),
        "One or several partitions of the Earth into cells, fitted on the training photos: the classifier's classes.",
    ),
    Stage(
        "features", ("splits", "growth"), ("seed", *_EMBEDDER, *_EXTRACTION), "retrieval", ("pytorch", "numpy"),
        "L2-normalised features of every photo by the backbone with its first weights.",
        when="embeddings.of_backbone",
    ),
    Stage(
        "classifier", ("splits", "partition"), ("seed", "model", "training"), "models", ("pytorch", "mlflow"),
        "A network that gives each cell of each partition a probability, trained on the training photos.",
    ),
    Stage(
        "embeddings", ("splits", "growth", "classifier"), _EXTRACTION, "retrieval", ("pytorch", "numpy"),
        "L2-normalised features of every photo by the trained classifier.",
        when="embeddings.of_classifier",
    ),
    Stage(
        "class_probabilities", ("splits", "partition", "classifier"),
        ("localizers.crops", "localizers.batch_size"), "models", ("pytorch", "numpy"),
        "Probabilities of the main partition's cells for photos that the classifier was not trained on, with the album "
        "and times of every photo.",
        when="context", looks_at_pool=True,
    ),
    Stage(
        "time_model", ("partition", "class_probabilities", "embeddings"),
        ("seed", "training.seed", "time"), "models", ("pytorch", "mlflow"),
        "Models that correct the classifier's answers by the time of posting, and by daylight.",
        when="time", only=(("embeddings", "time.daylight", True),),
    ),
    Stage(
        "album_models", ("partition", "class_probabilities", "embeddings", "time_model"),
        ("seed", "training.seed", "albums", "time.network", "time.prior", "time.daylight"), "models",
        ("pytorch", "mlflow"),
        "A Markov model and networks over the photos of an album or person, on stored embeddings and probabilities.",
        when="albums", only=(("embeddings", "albums.on_embeddings", True),),
    ),
    Stage(
        "metric", ("splits", "partition", "classifier"), ("seed", *_METRIC), "models", ("pytorch", "mlflow"),
        "A network whose embeddings of photos of one place are near each other, trained on the training photos.",
        when="metric",
        only=(("partition", "metric.positives.kind", "cell"), ("classifier", "metric.start", CLASSIFIER)),
    ),
    Stage(
        "metric_embeddings", ("splits", "growth", "metric"), _EXTRACTION, "retrieval", ("pytorch", "numpy"),
        "L2-normalised embeddings of every photo by the metric network.",
        when="metric",
    ),
    Stage(
        "external_embeddings", ("splits",),
        (
            EXTERNAL_FILE, "embeddings.external.ids", "embeddings.external.pca", "embeddings.dtype",
            "embeddings.shard_rows",
        ),
        "retrieval", ("numpy",),
        "L2-normalised embeddings that another program made, matched with the photos by id.",
        when="embeddings.external",
    ),
    Stage(
        "index", ("splits", "growth", "features", "embeddings", "metric_embeddings", "external_embeddings"),
        ("seed", "index"), "retrieval", ("faiss",),
        "FAISS indexes over the training photos' embeddings: the references that queries are matched with.",
    ),
    Stage(
        "cross_view_model", ("pairs",), ("seed", *_CROSS_VIEW), "models", ("pytorch", "mlflow"),
        "A network that matches street photos with overhead tiles, trained on the training pairs.",
        when="cross_view",
    ),
    Stage(
        "overhead_index", ("pairs", "cross_view_model"),
        ("seed", "cross_view.search", "cross_view.negative_km", "cross_view.precision"), "retrieval", ("numpy",),
        "The overhead tiles of the test cities, embedded in several rotations; calibrated on validation pairs.",
        when="cross_view.indexed",
    ),
    Stage(
        "cross_view_evaluation", ("pairs", "cross_view_model"),
        ("seed", "cross_view.search.batch_size", "cross_view.negative_km", "cross_view.precision"), "evaluation",
        ("pandas", "mlflow"),
        "Recall, verification and orientation in cities never trained on, by rotations at test time.",
        when="cross_view",
    ),
    Stage(
        "evaluation",
        (
            "splits", "growth", "partition", "classifier", "features", "embeddings", "metric_embeddings",
            "external_embeddings", "index", "class_probabilities", "time_model", "album_models",
        ),
        (
            "seed", "index", "localizers", "evaluation", "metric.name", "embeddings.external.name", "time.network",
            "time.prior", "time.daylight", "albums",
        ),
        "evaluation",
        ("pandas", "mlflow"),
        "Accuracy at five levels with photographer-clustered intervals, baselines, ceilings and comparisons.",
        pool_when="localizers.references",
    ),
    Stage(
        "joint_evaluation",
        (
            "splits", "partition", "classifier", "evaluation", "pairs", "cross_view_model", "overhead_index",
        ),
        (
            "seed", "evaluation.resamples", "evaluation.confidence", "localizers.answers", "localizers.crops",
            "localizers.batch_size", "cross_view.search.batch_size", "cross_view.precision",
        ),
        "evaluation", ("pandas", "mlflow"),
        "Photo classifier, overhead tiles, and both together, on photos of test pairs that neither was trained on.",
        when="cross_view.indexed",
    ),
    Stage(
        "report",
        (
            "splits", "growth", "partition", "classifier", "metric", "cross_view_model", "cross_view_evaluation",
            "evaluation", "joint_evaluation",
        ),
        ("note", "splits"), "evaluation", ("html",),
        "One offline HTML file with the tables, maps, examples and provenance; the same numbers as JSON and CSV.",
        after=("photos",), looks_at_pool=True, shows_checks=True,
        volatile=("report.html", "provenance.json"), names_recipe=True,
    ),
)  # fmt: skip

STAGES: dict[str, Stage] = {stage.name: stage for stage in CHAIN}
MODEL_FILE = "model.safetensors"
"""The trained network, in the outputs of the stages classifier and metric."""
GRAPH_FILE = "network.onnx"
"""The exported network, in the outputs of the stages classifier, features and metric; missing if the export failed."""
SPLITS_FILE = "splits.parquet"
"""The table of the splits stage, a row a photo."""
PAIRS_FILE, PICTURES_FILE, LEFT_OUT_FILE = "pairs.parquet", "photos.parquet", "left_out.parquet"
"""The tables of the stage pairs: a row a pair, a row a picture of these, and a row a pair that is left out."""
TRAINING_FILE = "training.json"
"""Beside it: the history of its training, epoch by epoch."""
CITIES_FILE = "cities.parquet"
"""In the output of the stage joint_evaluation: what the classifier was trained on in each city of the test pairs."""
CHOICES_FILE = "neighbour-choices-{model}.json"
"""In the output of the stage evaluation: what was chosen on validation photos for the neighbours of a model."""
TRACKS_FILE = "tracks-{test}.parquet"
"""In the output of the stage evaluation: some albums, of a recipe with a section albums."""
SHARED = ("photos",)
"""Stages that do not depend on the recipe: built once for the workspace."""


@dataclass(frozen=True)
class Borrowing:
    """What a recipe can borrow from another one: its input `name` is the output of that recipe's `stage`.

    `setting` is the dotted key whose value names the other recipe; with a `prefix` or `suffix`, only values that start
    or end with it do. `only` is (key, value): the row applies only to recipes where that setting has that value. Of the
    rows of one setting, the first that applies counts.
    """

    name: str
    setting: str
    stage: str
    prefix: str = ""
    suffix: str = ""
    only: tuple[str, str] | None = None


WEIGHTS = ("model.weights", "metric.start", "cross_view.model.weights")
"""The settings that may name a file of initial weights; a stage uses one of them at most."""

BORROWINGS: tuple[Borrowing, ...] = (
    *(
        Borrowing("weights", setting, stage, RECIPE, suffix)
        for setting in WEIGHTS
        for stage, suffix in (("metric", OF_METRIC), ("classifier", OF_CLASSIFIER), ("classifier", ""))
    ),
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
    """The stages of the same recipe that a stage reads: its inputs, except those that the recipe does not have or that
    its settings do not ask for."""
    present = {other.name for other in stages_of(settings)}
    unasked = {name for name, key, value in stage.only if value_at(settings, key) != value}
    return tuple(name for name in stage.inputs if name in present and name not in unasked)


def looks_at_pool(settings: BuildSettings, stage: Stage) -> bool:
    """Whether a stage reads the pool itself, so that it depends on the data version."""
    return stage.looks_at_pool or bool(stage.pool_when and value_at(settings, stage.pool_when))


def waits(settings: BuildSettings, stage: Stage) -> bool:
    """Whether a stage keeps the data version that it was made from until a training admits the new photos."""
    return stage.name == "splits" and settings.growth.waits


def uses(stage: Stage, key: str) -> bool:
    """Whether a stage uses the setting with this dotted key."""
    return any(key == section or key.startswith(f"{section}.") for section in stage.sections)


def borrowed(settings: BuildSettings, stage: Stage) -> dict[str, tuple[str, str]]:
    """What a stage borrows from other recipes: (recipe, stage) by name of the input."""
    return {row.name: (recipe, row.stage) for row, recipe in borrowings(settings) if uses(stage, row.setting)}


def borrowings(settings: Any) -> Iterator[tuple[Borrowing, str]]:
    """Yields the rows of BORROWINGS that apply to `settings` (typed, or as read from YAML), with the recipe that
    each names."""
    found = set()
    for row in BORROWINGS:
        value = value_at(settings, row.setting)
        named = isinstance(value, str) and value.startswith(row.prefix) and value.endswith(row.suffix)
        if not named or row.setting in found:
            continue
        if row.only is None or (value_at(settings, row.only[0]) or "backbone") == row.only[1]:
            found.add(row.setting)
            yield row, value.removeprefix(row.prefix).removesuffix(row.suffix)


def value_at(settings: Any, key: str) -> Any:
    """The value at a dotted key of settings, or of a mapping (nested or with dotted keys); None if it is missing."""
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
    """The folder that a stage writes to."""
    return workspace.build / artefact(recipe, stage)


def record_path(workspace: Workspace, recipe: str, stage: str) -> Path:
    """The path of the record of a stage's output: beside the output, not in it."""
    folder = output_folder(workspace, recipe, stage)
    return folder.parent / "lineage" / f"{folder.name}.json"
