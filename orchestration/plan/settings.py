"""The settings of a build: params.yaml, overridden by one recipe, as typed and frozen models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.settings import ModelSettings
from geoloc.partitions.settings import LatLonPartitionSettings, PartitionSettings, S2PartitionSettings
from geoloc.photos.settings import SplitSettings
from geoloc.retrieval.settings import EmbeddingSettings, IndexSettings
from geoloc.settings import Name, Settings, SettingsError, parse, replace, setting, used
from geoloc.settings import changes as settings_changes
from geoloc.training.settings import TrainingSettings
from orchestration.plan.chain import MODEL_FILE, borrowings, output_folder
from orchestration.plan.seeds import PLAIN, training_seed, without_seed
from orchestration.workspace import Workspace

NAMED = ("partitions", "head_weights")
"""Settings that are mappings whose keys are names chosen by the user."""
NESTING = ("s2", "latlon")
"""Kinds of partitions that nest: each cell lies within one cell of a coarser partition."""
DEFAULT_RECIPE = "default"
"""The recipe without a file of its own: params.yaml, unchanged."""


class BuildSettings(Settings):
    """All settings of a build, one section per room. `recipe` names the file that overrode params.yaml."""

    recipe: str = setting(DEFAULT_RECIPE, help="the name of the recipe's file; cannot be set in a file")
    note: str = setting("", help="what the photos are; shown at the top of every report")
    seed: int = setting(0, minimum=0, help="every random choice takes its seed from here")
    splits: SplitSettings = setting(SplitSettings())
    partitions: dict[Name, PartitionSettings] = setting(
        factory=lambda: {"fine": S2PartitionSettings()},
        help="partitions of the Earth, by name; the classifier has one head per partition, the first is the main one",
    )
    model: ModelSettings = setting(ModelSettings())
    training: TrainingSettings = setting(TrainingSettings())
    embeddings: EmbeddingSettings = setting(EmbeddingSettings())
    index: IndexSettings = setting(IndexSettings())
    localizers: LocalizerSettings = setting(LocalizerSettings())
    evaluation: EvaluationSettings = setting(EvaluationSettings())

    def check(self, key: str) -> None:
        """Raise SettingsError if sections contradict each other."""
        if not self.partitions:
            raise SettingsError("partitions must name at least one, got none")
        weights = self.training.head_weights
        unknown = [name for name in weights if name not in self.partitions]
        if unknown:
            raise SettingsError(
                f"training.head_weights.{unknown[0]} is not a partition; "
                f"the partitions are: {', '.join(self.partitions)}"
            )
        if not any(weights.get(name, 1.0) for name in self.partitions):
            raise SettingsError(
                "training.head_weights must be above 0 for at least one partition, got 0 for all"
            )
        if self.localizers.frozen.kinds and "backbone" not in self.embeddings.models:
            raise SettingsError(
                f"localizers.frozen.kinds {', '.join(self.localizers.frozen.kinds)} needs backbone in "
                f"embeddings.models, got {', '.join(self.embeddings.models) or 'none'}"
            )
        _check_combinations(self)

    @property
    def training_seed(self) -> int:
        """The seed of the training: its own, else the build's."""
        return self.seed if self.training.seed is None else self.training.seed

    def sections(self, names: Collection[str]) -> dict[str, Any]:
        """The values of the named sections or settings (such as "model.backbone") that can change a result, by name.

        Partitions are a list, because their order counts. A named setting that cannot change a result now is left out.
        Raises AttributeError for an unknown name.
        """
        everything, found = used(self), {}
        for name in names:
            *above, last = name.split(".")
            owner, values = self, everything
            for part in above:
                owner, values = getattr(owner, part), values[part]
            if last in values:
                found[name] = values[last]
            else:
                getattr(owner, last)  # raises AttributeError for an unknown name
        return found

    def changes(self, recorded: Mapping[str, Any], names: Collection[str]) -> list[str]:
        """The dotted keys below `names` whose values differ from `recorded`, an earlier result of `sections`.

        A setting that the record lacks counts as its default: see geoloc.settings.changes.
        """
        nested: dict[str, Any] = {}
        for name, value in recorded.items():
            *above, last = name.split(".")
            section = nested
            for part in above:
                section = section.setdefault(part, {})
            section[last] = value
        found = settings_changes(nested, self)
        return [key for key in found if any(key == name or key.startswith(f"{name}.") for name in names)]


def load_settings(workspace: Workspace, recipe: str = DEFAULT_RECIPE) -> BuildSettings:
    """Read params.yaml and the recipe's overrides.

    Raises SettingsError for an unknown recipe, an unknown key or a value out of range; the message names the file, the
    key, the value and what is allowed.
    """
    base = _read(workspace.root / "params.yaml")
    overrides: Mapping[str, Any] = {}
    name, seed = without_seed(recipe), training_seed(recipe)
    if name != DEFAULT_RECIPE:
        file = workspace.recipes / f"{name}.yaml"
        if not file.is_file():
            raise SettingsError(
                f"recipe must be one of {', '.join(known_recipes(workspace))}; got {recipe!r}"
            )
        overrides = _read(file)
    for source, values in (("params.yaml", base), (f"recipes/{name}.yaml", overrides)):
        if "recipe" in values:
            raise SettingsError(f"{source}: recipe is not a setting: a recipe is named by its file")
    try:
        given = _merge(base, overrides)
        settings = parse(BuildSettings, {**given, "recipe": recipe})
        if seed is not None:
            if seed == settings.training_seed:
                raise SettingsError(
                    f"recipe {recipe} is {name} itself, whose training seed is {seed}: give another seed"
                )
            settings = replace(settings, training=replace(settings.training, seed=seed))
        _check_borrowed(workspace, settings, base)
        return settings
    except SettingsError as error:
        where = "params.yaml" + (f" with recipes/{name}.yaml" if overrides else "")
        raise SettingsError(f"{where}: {error}") from None


def weights_file(workspace: Workspace, settings: BuildSettings) -> Path | None:
    """The file with the initial weights that `model.weights` names; None if it is none or registry.

    For recipe:NAME this is that recipe's trained network, whether it is built or not (see `chain.borrowed`). Raises
    SettingsError if any other file is missing.
    """
    if settings.model.weights in ("none", "registry"):
        return None
    for row, recipe in borrowings(settings):
        if row.setting == "model.weights":
            return output_folder(workspace, recipe, row.stage) / MODEL_FILE
    file = workspace.root / settings.model.weights
    if not file.is_file():
        raise SettingsError(
            f"model.weights must be none, registry, recipe:NAME or a .safetensors file below {workspace.root}; "
            f"{settings.model.weights!r} is missing"
        )
    return file


def known_recipes(workspace: Workspace) -> list[str]:
    """The recipes that can be built here: `default` and one for each file in recipes/, each also with another training
    seed (see seeds.py)."""
    names = sorted(path.stem for path in workspace.recipes.glob("*.yaml"))
    return [DEFAULT_RECIPE, *(name for name in names if "@" not in name and not PLAIN.fullmatch(name))]


def _check_combinations(settings: BuildSettings) -> None:
    """Raise SettingsError if localizers.combine does not fit the partitions."""
    partitions, combine = settings.partitions, settings.localizers.combine
    if combine and len(partitions) < 2:
        raise SettingsError(
            f"localizers.combine {', '.join(combine)} needs at least two partitions, got one: {', '.join(partitions)}"
        )
    if "product" not in combine:
        return
    # Latitude/longitude boxes nest only if all partitions are cut at the same places.
    cuts = {
        (p.kind, p.latlon.split, p.latlon.seed if p.latlon.split == "random" else 0)
        if isinstance(p, LatLonPartitionSettings)
        else (p.kind,)
        for p in partitions.values()
    }
    kinds = {name: p.kind for name, p in partitions.items()}
    if len(cuts) > 1 or not set(kinds.values()) <= set(NESTING):
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise SettingsError(
            f"localizers.combine product needs partitions that nest: all of one kind, {' or '.join(NESTING)} (latlon "
            f"with the same split and seed); got {found}; overlay combines any"
        )


def _check_borrowed(workspace: Workspace, settings: BuildSettings, base: Mapping[str, Any]) -> None:
    """Raise SettingsError if a recipe that this one borrows from is unknown, or borrows from this one."""
    others = [name for name in known_recipes(workspace) if name != without_seed(settings.recipe)]
    waiting = [(row.setting, [without_seed(settings.recipe), recipe]) for row, recipe in borrowings(settings)]
    while waiting:
        key, way = waiting.pop()
        if way[-1] in way[:-1]:
            raise SettingsError(f"{key} must not lead back to the same recipe: {' from '.join(way)}")
        if way[-1] not in others:
            raise SettingsError(
                f"{key} must name one of the recipes {', '.join(others) or 'none'}; got {way[-1]}"
            )
        # Read but not parsed: errors elsewhere in the other recipe do not matter here.
        overrides = {} if way[-1] == DEFAULT_RECIPE else _read(workspace.recipes / f"{way[-1]}.yaml")
        waiting += [(key, [*way, recipe]) for _, recipe in borrowings(_merge(base, overrides))]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"{file.name} is not valid YAML: {error}") from None
    if values is not None and not isinstance(values, Mapping):
        raise SettingsError(f"{file.name} must be a mapping of {', '.join(BuildSettings.model_fields)}")
    return values or {}


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` merged in, mapping by mapping; other values are replaced.

    The mappings in NAMED are replaced whole as well: otherwise a recipe could never have fewer partitions than
    params.yaml.
    """
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and key not in NAMED
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged
