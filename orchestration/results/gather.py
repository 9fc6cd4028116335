"""What is built, in the form that the library compares: evaluations, partitions and the settings that networks must
share."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pandas as pd

from geoloc.evaluation.claims.evaluated import Built, Ranked
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from geoloc.models.settings import OF_CLASSIFIER, RECIPE
from geoloc.training.metric_settings import CLASSIFIER
from orchestration.assets.inputs import load_partitions, model_names, read_photos
from orchestration.lineage.build import Build
from orchestration.plan.seeds import training_seed, without_seed
from orchestration.plan.settings import known_recipes
from orchestration.run.reuse import built_recipes
from orchestration.workspace import Workspace, WorkspaceError


def gather(workspace: Workspace, test: str, recipes: Collection[str] = ()) -> list[Built]:
    """The recipes with an evaluation on `test`, in the library's form; only the named ones, and their trainings with
    other seeds, if `recipes` is not empty.

    Raises WorkspaceError if there is none, or if a named recipe has none.
    """
    found = {}
    known = known_recipes(workspace)
    seeded = [recipe for recipe in built_recipes(workspace) if without_seed(recipe) in known]
    for recipe in dict.fromkeys([*known, *seeded]):
        file = Build(workspace, recipe).folder("evaluation") / "evaluations.json"
        if file.is_file():
            found[recipe] = read_json(file, list)
    if not found:
        raise WorkspaceError(
            f"no recipe of {workspace.root} has an evaluation yet; build one with: geoloc build"
        )
    tests = list(dict.fromkeys(name for names in found.values() for name in names))
    if test not in tests:
        raise WorkspaceError(f"--test must be one of {', '.join(tests)}; got {test!r}")
    able = [recipe for recipe, names in found.items() if test in names]
    lacking = [recipe for recipe in recipes if recipe not in able]
    unknown = [recipe for recipe in lacking if recipe not in known]
    if unknown:
        raise WorkspaceError(
            f"recipe must be one of {', '.join(able)}, which are evaluated on {test!r}; got {unknown[0]!r}"
        )
    if lacking:
        commands = "; ".join(f"geoloc build --recipe {recipe}" for recipe in lacking)
        raise WorkspaceError(f"no evaluation on {test!r} yet of {', '.join(lacking)}; build with: {commands}")
    return [
        _built(Build(workspace, recipe), test)
        for recipe in able
        if not recipes or recipe in recipes or without_seed(recipe) in recipes
    ]


def _built(build: Build, test: str) -> Built:
    evaluation = Evaluation.load(build.folder("evaluation") / test)
    partitions = load_partitions(build.folder("partition"))
    setup = _setup(build)
    first_weights = str(setup["model"]["weights"])
    return Built(
        build.recipe,
        evaluation,
        _queries(evaluation, read_photos(build.folder("splits"))),
        partitions,
        model=model_names(len(partitions))["classifier"],
        setup=json.dumps(setup, sort_keys=True, default=str),
        starts_from=first_weights.removeprefix(RECIPE).removesuffix(OF_CLASSIFIER)
        if first_weights.startswith(RECIPE)
        else "",
        fine_tuned=setup["training"]["mode"] == "fine_tune",
        pretrained=first_weights != "none",
        backbone=model_names(len(partitions))["backbone"],
        same_as="" if training_seed(build.recipe) is None else without_seed(build.recipe),
        features=json.dumps(_features(build), sort_keys=True, default=str),
        ranked=_ranked(build),
        external=build.built("evaluation").settings.get("embeddings.external.name") or "",
    )


def _setup(build: Build) -> dict[str, Any]:
    """The settings that must be equal to compare networks, as recorded when these were built: params.yaml and
    recipes/ may have changed since."""
    used = {stage: build.built(stage).settings for stage in ("splits", "classifier", "evaluation")}
    setup = {**used["splits"], **used["classifier"], "crops": used["evaluation"]["localizers"]["crops"]}
    # Weights of heads are not compared: a network with one head has none. Nor is the training's seed: it is luck.
    setup["training"] = {
        name: v for name, v in setup["training"].items() if name not in ("head_weights", "seed")
    }
    return setup


def _features(build: Build) -> dict[str, Any]:
    """The recorded settings that embeddings depend on, beside the network's weights."""
    model = build.built("classifier").settings["model"]
    heads = ("weights", "dropout", "softmax", "batch_norm")
    return {
        **build.built("splits").settings,
        **{f"model.{name}": v for name, v in model.items() if name not in heads},
        **_layer_and_components(build, "embeddings", "features"),
    }


def _layer_and_components(build: Build, *stages: str) -> dict[str, Any]:
    """The recorded settings of what of a network embeds, by the first of these stages that was built."""
    made = next(filter(None, map(build.record, stages)), None)
    keys = ("embeddings.layer", "embeddings.pca")
    return {key: made.settings.get(key) for key in keys} if made else {}


def _ranked(build: Build) -> Ranked | None:
    """The metric network that was evaluated; None if there was none."""
    name = build.built("evaluation").settings.get("metric.name")
    if name is None:
        return None
    record = build.built("metric")
    free = ("seed", *(f"metric.{name}" for name in ("batch_size", "learning_rate", "chunk_size", "seed")))
    setup = {key: value for key, value in record.settings.items() if key not in free}
    setup |= _layer_and_components(build, "metric_embeddings")
    return Ranked(
        str(name),
        int(record.settings["metric.batch_size"]),
        record.settings["metric.start"] == CLASSIFIER,
        json.dumps([setup, record.inputs], sort_keys=True, default=str),
    )


def _queries(evaluation: Evaluation, photos: pd.DataFrame) -> pd.DataFrame:
    """The evaluation's photos with their facts from the splits; the locations are those that were measured against."""
    answered = evaluation.per_photo.drop_duplicates("photo_id")
    known = (
        photos.set_index("photo_id").loc[answered["photo_id"], ["photographer", "prob_indoor"]].reset_index()
    )
    known["latitude"] = answered["true_latitude"].to_numpy()
    known["longitude"] = answered["true_longitude"].to_numpy()
    return known
