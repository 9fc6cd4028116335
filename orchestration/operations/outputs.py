"""Taking photos out of the outputs of all recipes, with records that stay true; and which models saw them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from geoloc.files import atomic_folder, file_hashes, link_or_copy, read_parquet, write_json, write_parquet
from geoloc.localizers.chosen.choice import ALONE
from geoloc.localizers.chosen.neighbourhood import COMBINED
from geoloc.models.stored_probabilities import take_from_probabilities
from geoloc.photos.growth import REFERENCE
from geoloc.photos.pair_splits import STREET
from geoloc.photos.splits import CONTEXT
from geoloc.retrieval.external import FeaturesError, read_features
from geoloc.retrieval.pca import PCA_FILE
from geoloc.retrieval.settings import ExternalSettings
from geoloc.retrieval.takedown import take_from_embeddings, take_from_index, take_from_table
from orchestration.assets.inputs import EMBEDDED_BY
from orchestration.lineage.build import Build, files_content
from orchestration.plan.chain import (
    EXTERNAL_FILE,
    LEFT_OUT_FILE,
    PAIRS_FILE,
    PICTURES_FILE,
    SPLITS_FILE,
    STAGES,
)
from orchestration.run.facts import ENGINE, facts_folder, keep_facts, read_facts
from orchestration.run.reuse import built_recipes
from orchestration.stores.pipeline import dvc_stage_name
from orchestration.stores.serving import SPLITS_FOLDER
from orchestration.workspace import Workspace

Groups = Mapping[str, str]
MODELS = ("partition", "classifier", "metric", "time_model", "album_models", "cross_view_model")
"""Stages that learn from photos: what they learned cannot be taken out, only trained again. Principal components of
embeddings are such a model too."""
OF_PAIRS = ("pairs", "cross_view_model", "overhead_index", "cross_view_evaluation", "joint_evaluation")
"""Stages that have photos of the stage pairs, not of splits."""
REMOVED = ("report", "overhead_index", "cross_view_evaluation", "joint_evaluation")
"""Outputs that show photos, the tiles of their places, or numbers from them: they are removed, and made again by a
build."""
_FITTED = tuple(f"{kind}-{model}" for kind in (ALONE, COMBINED) for model in EMBEDDED_BY)
"""Folders of an evaluation with what was fitted for its methods by neighbour."""


def _splits(folder: Path, groups: Groups) -> None:
    take_from_table(folder / SPLITS_FILE, groups)


def _pairs(folder: Path, groups: Groups) -> None:
    """Also without the tiles that only these photos are paired with: a tile lies where its photo was taken."""
    table = read_parquet(folder / PAIRS_FILE, ("photo_id", "overhead_id"))
    gone = table["photo_id"].isin(list(groups))
    tiles = set(table.loc[gone, "overhead_id"]) - set(table.loc[~gone, "overhead_id"])
    take_from_table(folder / PAIRS_FILE, groups)
    take_from_table(folder / LEFT_OUT_FILE, groups)
    pictures = read_parquet(folder / PICTURES_FILE, ("photo_id", "view"))
    street = pictures["view"] == STREET
    removed = pictures["photo_id"].isin(list(groups)) & street | pictures["photo_id"].isin(tiles) & ~street
    if removed.any():
        write_parquet(folder / PICTURES_FILE, pictures[~removed].reset_index(drop=True))


def _indexes(folder: Path, groups: Groups) -> None:
    for one in sorted(path.parent for path in folder.rglob("references.parquet")):
        take_from_index(one, groups)


def _probabilities(folder: Path, groups: Groups) -> None:
    take_from_probabilities(folder, list(groups))


def _calibration(folder: Path, groups: Groups) -> None:
    keep_calibration(folder)


def keep_calibration(folder: Path) -> None:
    """Leave of an evaluation's folder only the files that hold no photo: what was chosen and fitted, for `geoloc
    locate`; and the splits that a run of MLflow has beside it, from which photos are taken by themselves."""
    for path in folder.iterdir():
        if path.is_dir():
            if path.name not in (*_FITTED, SPLITS_FOLDER):
                shutil.rmtree(path)
        elif path.suffix != ".json":
            path.unlink()
    write_json(folder / "evaluations.json", [])


_TAKE: dict[str, Callable[[Path, Groups], None]] = {
    "splits": _splits,
    "growth": _splits,
    "pairs": _pairs,
    "features": take_from_embeddings,
    "embeddings": take_from_embeddings,
    "metric_embeddings": take_from_embeddings,
    "external_embeddings": take_from_embeddings,
    "index": _indexes,
    "class_probabilities": _probabilities,
    "evaluation": _calibration,
}
"""How photos leave an output."""


def look_at_outputs(workspace: Workspace, groups: Groups) -> dict[str, Any]:
    """By output: its content, how many of the photos are behind it, how many of them it learned from, and how many
    photos were taken down from it before.

    Only outputs that are what their records say: of the others nothing is known.
    """
    found = {}
    for build in _builds(workspace):
        later = _sides(build.folder("growth") / SPLITS_FILE, groups)
        split = pd.concat([_sides(build.folder("splits") / SPLITS_FILE, groups), later])
        paired = _sides(build.folder("pairs") / PAIRS_FILE, groups)
        here = {stage: paired if stage in OF_PAIRS else split for stage in (*_TAKE, *MODELS, *REMOVED)}
        counts = {stage: int(here[stage].isin(["train", "validation"]).sum()) for stage in MODELS}
        counts["partition"] = int((split == "train").sum())
        counts["index"] = int(split.isin(["train", REFERENCE]).sum())
        apart = CONTEXT if _has_context(build.folder("splits") / SPLITS_FILE) else "train"
        counts["time_model"] = int(split.isin([apart, "validation"]).sum())
        counts["album_models"] = int(split.isin(["train", CONTEXT, "validation"]).sum())
        for stage, sides in here.items():
            record = None if sides.empty else build.record(stage)
            if record is not None and build.content(stage) == record.content:
                learned = counts[stage] if stage in MODELS else 0
                if (build.folder(stage) / PCA_FILE).is_file():
                    learned = counts["index"]
                found[build.name(stage)] = {
                    "content": record.content,
                    "photos": counts.get(stage, len(sides)),
                    "learned": learned,
                    "before": record.taken_down,
                }
    return found


def _sides(table: Path, groups: Groups) -> pd.Series:
    """The splits of these photos in a table of splits or pairs; empty if there is none."""
    if not table.is_file():
        return pd.Series(dtype="str")
    frame = read_parquet(table, ("photo_id", "split"))
    return frame[frame["photo_id"].isin(list(groups))].drop_duplicates("photo_id")["split"]


def _has_context(splits: Path) -> bool:
    """Whether photos are kept apart for the models of time and albums."""
    return splits.is_file() and (read_parquet(splits, ("split",))["split"] == CONTEXT).any()


def take_from_outputs(workspace: Workspace, groups: Groups, noted: Mapping[str, Any]) -> None:
    """Take photos out of the outputs of recipes that have them, and update the records of those in `noted` (see
    `look_at_outputs`)."""
    for build in _builds(workspace):
        if not any(name.startswith(f"{build.recipe}/") for name in noted):
            continue
        for stage, take in _TAKE.items():
            if (folder := build.folder(stage)).is_dir():
                _edit(folder, take, groups)
        for stage in ("evaluation", *REMOVED):
            shutil.rmtree(facts_folder(build, stage), ignore_errors=True)
        for stage in REMOVED:
            shutil.rmtree(build.folder(stage), ignore_errors=True)
        _update_records(build, noted)


def _edit(folder: Path, take: Callable[[Path, Groups], None], groups: Groups) -> None:
    """Change a folder as a whole: readers see it as it was or as it will be. Files may be hard links elsewhere."""
    with atomic_folder(folder) as copy:
        shutil.copytree(folder, copy, copy_function=link_or_copy, dirs_exist_ok=True)
        take(copy, groups)


def _update_records(build: Build, noted: Mapping[str, Any]) -> None:
    new: dict[str, tuple[str, str]] = {}
    for stage in STAGES:
        note, record = noted.get(build.name(stage)), build.record(stage)
        if note is None or record is None:
            continue
        changed = dataclasses.replace(record, taken_down=note["before"] + note["photos"])
        if stage in _TAKE:
            files = file_hashes(build.folder(stage))
            # Those above were changed with it: it is still made from them.
            inputs = {
                name: new[name][1] if name in new and new[name][0] == content else content
                for name, content in record.inputs.items()
            }
            if stage == "evaluation":  # but what was measured is gone: it is out of date
                inputs["splits"] = record.inputs["splits"]
            content = files_content(files, STAGES[stage])
            new[stage] = (note["content"], content)
            changed = dataclasses.replace(changed, content=content, files=files, inputs=inputs)
        if changed == record:
            continue
        # Other facts were of what it was; by this one a build knows that it can copy embeddings from here.
        engine = read_facts(build, record).get(ENGINE)
        if engine is not None and changed.content != record.content:
            keep_facts(build, changed, {ENGINE: engine})
        changed.write(build.record_path(stage))


def changed_stages(noted: Mapping[str, Any]) -> list[str]:
    """The names in dvc.lock of the outputs that are not as they were."""
    named = (name.partition("/") for name in noted)
    return [dvc_stage_name(recipe, stage) for recipe, _, stage in named if stage not in MODELS]


def saw(noted: Mapping[str, Any]) -> dict[str, int]:
    """The models that learned from the photos, with how many they saw."""
    return {name: one["learned"] for name, one in noted.items() if one["learned"]}


def external_files_with(workspace: Workspace, groups: Groups) -> list[str]:
    """The files of embeddings by other programs, and of their ids, that have one of the photos. They are the user's: a
    take-down does not change them."""
    found: dict[str, None] = {}
    for build in _builds(workspace):
        record = build.record("external_embeddings")
        if record is None:
            continue
        file, ids = (record.settings.get(key) or "" for key in (EXTERNAL_FILE, "embeddings.external.ids"))
        named = ExternalSettings(name="any", file=file, ids=ids).files
        try:
            features = read_features(*(workspace.root / one for one in named))
        except FeaturesError:  # it is gone, or another file by now
            continue
        if features.ids.isin(list(groups)).any():
            found |= dict.fromkeys(named)
    return list(found)


def _builds(workspace: Workspace) -> list[Build]:
    """The recipes that have outputs, also those whose file is gone."""
    return [Build(workspace, recipe) for recipe in built_recipes(workspace)]
