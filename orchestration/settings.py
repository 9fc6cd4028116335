"""The settings of a build: params.yaml, overridden by one recipe, as typed and frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.settings import ModelSettings
from geoloc.partitions.settings import PartitionSettings
from geoloc.photos.splits import SplitSettings
from geoloc.retrieval.settings import EmbeddingSettings, IndexSettings
from geoloc.settings import SettingsError, parse, setting, to_dict
from geoloc.training.settings import TrainingSettings
from orchestration.workspace import Workspace

DEFAULT_RECIPE = "default"
"""The recipe with no file of its own: params.yaml as it stands."""


@dataclass(frozen=True)
class BuildSettings:
    """All that shapes a build. One section a room; `recipe` says which file overrode params.yaml."""

    recipe: str = setting(DEFAULT_RECIPE)
    note: str = setting("", help="shown at the top of every report: what the photos are")
    seed: int = setting(0, minimum=0, help="every random choice takes its seed from here")
    splits: SplitSettings = setting(SplitSettings())
    partition: PartitionSettings = setting(PartitionSettings())
    model: ModelSettings = setting(ModelSettings())
    training: TrainingSettings = setting(TrainingSettings())
    embeddings: EmbeddingSettings = setting(EmbeddingSettings())
    index: IndexSettings = setting(IndexSettings())
    localizers: LocalizerSettings = setting(LocalizerSettings())
    evaluation: EvaluationSettings = setting(EvaluationSettings())

    def sections(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The named sections as plain values."""
        return {name: to_dict(getattr(self, name)) for name in names}


def load_settings(workspace: Workspace, recipe: str = DEFAULT_RECIPE) -> BuildSettings:
    """Read params.yaml and the recipe's overrides.

    Raises SettingsError for an unknown recipe, an unknown key, or a value out of range, naming the file, the
    key, the value and what is allowed.
    """
    base = _read(workspace.root / "params.yaml")
    overrides: Mapping[str, Any] = {}
    if recipe != DEFAULT_RECIPE:
        file = workspace.recipes / f"{recipe}.yaml"
        if not file.is_file():
            raise SettingsError(
                f"recipe must be one of {', '.join(known_recipes(workspace))}; got {recipe!r}"
            )
        overrides = _read(file)
    for source, values in (("params.yaml", base), (f"recipes/{recipe}.yaml", overrides)):
        if "recipe" in values:
            raise SettingsError(f"{source}: recipe is not a setting: a recipe is named by its file")
    try:
        return parse(BuildSettings, {**_merge(base, overrides), "recipe": recipe})
    except SettingsError as error:
        where = "params.yaml" + (f" with recipes/{recipe}.yaml" if overrides else "")
        raise SettingsError(f"{where}: {error}") from None


def weights_file(workspace: Workspace, settings: BuildSettings) -> Path | None:
    """The file that `model.weights` names, from the workspace's root; None where weights are none or registry.

    Raises SettingsError where it is absent.
    """
    if settings.model.weights in ("none", "registry"):
        return None
    file = workspace.root / settings.model.weights
    if not file.is_file():
        raise SettingsError(
            f"model.weights must be none, registry or a .safetensors file below {workspace.root}; "
            f"got {settings.model.weights!r}, which is absent"
        )
    return file


def known_recipes(workspace: Workspace) -> list[str]:
    """The recipes that can be built here: `default` and one for each file in recipes/."""
    return [DEFAULT_RECIPE, *sorted(path.stem for path in workspace.recipes.glob("*.yaml"))]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"{file.name} is not valid YAML: {error}") from None
    if values is not None and not isinstance(values, Mapping):
        raise SettingsError(
            f"{file.name} must be a mapping of {', '.join(f.name for f in fields(BuildSettings))}"
        )
    return values or {}


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` laid over it, mapping by mapping; anything else is replaced whole."""
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged
