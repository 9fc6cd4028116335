"""The settings of a build: params.yaml, overridden by one recipe, as typed and frozen models."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from geoloc.evaluation.health_settings import HealthSettings
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.files import DamagedFile
from geoloc.localizers.settings import AlbumSettings, LocalizerSettings
from geoloc.models.settings import NAMED_WEIGHTS, OF_CLASSIFIER, OF_METRIC, RECIPE, ModelSettings
from geoloc.partitions.settings import PartitionSettings, S2PartitionSettings
from geoloc.photos.settings import SplitSettings
from geoloc.retrieval.settings import EmbeddingSettings, IndexSettings
from geoloc.settings import Name, Settings, SettingsError, parse, replace, setting, used
from geoloc.settings import changes as settings_changes
from geoloc.training.context_settings import TimeSettings
from geoloc.training.cross_view_settings import CrossViewSettings
from geoloc.training.metric_settings import CLASSIFIER, MetricSettings
from geoloc.training.settings import TrainingSettings
from geoloc.yaml_files import read_yaml
from orchestration.plan.alert_settings import AlertSettings
from orchestration.plan.chain import MODEL_FILE, STAGES, borrowings, output_folder, value_at
from orchestration.plan.combinations import check_combinations
from orchestration.plan.operations_settings import GrowthSettings, PromotionSettings
from orchestration.plan.seeds import PLAIN, training_seed, without_seed
from orchestration.workspace import Workspace

NAMED = ("partitions", "head_weights", "networks")
"""Settings that are mappings whose keys are names chosen by the user."""
OF_WORKSPACE = ("growth", "promotion", "alerts")
"""Sections that hold for all recipes, also for those that stand alone: policies of operations."""
DEFAULT_RECIPE = "default"
"""The recipe without a file of its own: params.yaml, unchanged."""
STANDALONE = "standalone"
"""The key by which a recipe says that it inherits nothing from params.yaml."""
RECIPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}(@[0-9]{1,9})?")
"""A recipe's name becomes part of paths and of names in DVC and in Dagster, which allows no others."""
TAKEN_NAMES = frozenset({*STAGES, "data", "lineage", "checks", "stamps", "health"})
"""Names of stages, of Dagster's source and of folders in build/, which would be mistaken for the recipe's."""


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
    metric: MetricSettings | None = setting(
        None,
        help="a network trained so that photos of one place are near each other, and its neighbours; null: none",
    )
    time: TimeSettings | None = setting(
        None,
        help="models that correct a photo's answer by the time at which it was posted or taken; null: none",
    )
    albums: AlbumSettings | None = setting(
        None, help="answers for all photos of an album or person together; null: none"
    )
    cross_view: CrossViewSettings | None = setting(
        None, help="a network that matches street photos with overhead tiles, and its index; null: none"
    )
    embeddings: EmbeddingSettings = setting(EmbeddingSettings())
    index: IndexSettings = setting(IndexSettings())
    localizers: LocalizerSettings = setting(LocalizerSettings())
    evaluation: EvaluationSettings = setting(EvaluationSettings())
    growth: GrowthSettings = setting(
        GrowthSettings(), help="of the workspace: only in params.yaml, not in a recipe"
    )
    promotion: PromotionSettings = setting(
        PromotionSettings(), help="of the workspace: only in params.yaml, not in a recipe"
    )
    health: HealthSettings = setting(HealthSettings())
    alerts: AlertSettings = setting(
        AlertSettings(), help="of the workspace: only in params.yaml, not in a recipe"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if sections contradict each other."""
        check_combinations(self)

    @property
    def context(self) -> bool:
        """Whether the recipe has models of time or albums."""
        return self.time is not None or self.albums is not None

    @property
    def training_seed(self) -> int:
        """The seed of the training: its own, else the build's."""
        return self.seed if self.training.seed is None else self.training.seed

    @property
    def metric_seed(self) -> int:
        """The seed of the metric network's training: its own, else the build's."""
        return self.seed if self.metric is None or self.metric.seed is None else self.metric.seed

    @property
    def time_seed(self) -> int:
        """The seed of the time network's training: its own, else that of the training."""
        own = None if self.time is None else self.time.seed
        return self.training_seed if own is None else own

    def network_seed(self, name: str) -> int:
        """The seed of the training of a network over sequences: its own, else that of the training."""
        own = None if self.albums is None else self.albums.networks[name].seed
        return self.training_seed if own is None else own

    @property
    def cross_view_seed(self) -> int:
        """The seed of the cross-view network's training: its own, else the build's."""
        return self.seed if self.cross_view is None or self.cross_view.seed is None else self.cross_view.seed

    def sections(self, names: Collection[str]) -> dict[str, Any]:
        """The values of the named sections or settings (such as "model.backbone") that can change a result, by name.

        Partitions are a list, because their order counts. A named setting that cannot change a result now is left out,
        and so is one of a section that is null. Raises AttributeError for an unknown name.
        """
        everything, found = used(self), {}
        for name in names:
            *above, last = name.split(".")
            owner, values = self, everything
            for part in above:
                owner, values = getattr(owner, part), values[part]
            if values is None:
                continue
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
    """Read params.yaml and the recipe's overrides; a recipe that stands alone is read over the defaults.

    Raises SettingsError for an unknown recipe, an unknown key or a value out of range; the message names the file, the
    key, the value and what is allowed.
    """
    check_recipe_name(recipe)
    name, seed = without_seed(recipe), training_seed(recipe)
    if name != DEFAULT_RECIPE:
        known = known_recipes(workspace)
        if name not in known:  # no look for the file: some file systems find it in any case of its letters
            raise SettingsError(f"recipe must be one of {', '.join(known)}; got {recipe!r}")
    if twins := [
        other for other in known_recipes(workspace) if other.lower() == name.lower() and other != name
    ]:
        raise SettingsError(
            f"recipe must not differ from another in case only, which not every file system can tell; got {recipe!r} "
            f"and {twins[0]!r}: rename one file in recipes/"
        )
    values = _values(workspace, recipe)
    try:
        settings = parse(BuildSettings, {**values, "recipe": recipe})
        if seed is not None:
            if seed == settings.training_seed:
                raise SettingsError(
                    f"recipe {recipe} is {name} itself, whose training seed is {seed}: give another seed"
                )
            settings = replace(settings, training=replace(settings.training, seed=seed))
            settings = _reseeded(settings, seed)
        _check_borrowed(workspace, settings)
        known = known_recipes(workspace)
        if unknown := [one for one in settings.growth.recipes if without_seed(one) not in known]:
            raise SettingsError(f"growth.recipes must name some of {', '.join(known)}; got {unknown[0]!r}")
        return settings
    except SettingsError as error:
        files = settings_files(workspace, recipe)
        where = " with ".join(file.relative_to(workspace.root).as_posix() for file in files)
        raise SettingsError(f"{where}: {error}") from None


def settings_files(workspace: Workspace, recipe: str) -> tuple[Path, ...]:
    """The files that a recipe's settings are read from; the last one overrides: params.yaml, unless the recipe stands
    alone, and its own. Raises SettingsError if its own file is not YAML."""
    params, own = workspace.root / "params.yaml", workspace.recipes / f"{without_seed(recipe)}.yaml"
    if without_seed(recipe) == DEFAULT_RECIPE:
        return (params,)
    alone = _read(own).get(STANDALONE, False)
    if not isinstance(alone, bool):
        raise SettingsError(f"recipes/{own.name}: {STANDALONE} must be true or false, got {alone!r}")
    return (own,) if alone else (params, own)


def weights_file(workspace: Workspace, settings: BuildSettings, key: str = "model.weights") -> Path | None:
    """The file with the initial weights that the setting `key`, one of WEIGHTS, names; None if it names no file, as
    `metric.start: classifier`, which is the output of another stage.

    For recipe:NAME this is that recipe's trained network, whether it is built or not (see `chain.borrowed`). Raises
    SettingsError if any other file is missing.
    """
    weights = value_at(settings, key)
    if weights in (None, CLASSIFIER, *NAMED_WEIGHTS):
        return None
    for row, recipe in borrowings(settings):
        if row.setting == key:
            return output_folder(workspace, recipe, row.stage) / MODEL_FILE
    file = workspace.root / weights
    if not file.is_file():
        raise SettingsError(
            f"{key} must be {', '.join(NAMED_WEIGHTS)}, recipe:NAME or a .safetensors file below "
            f"{workspace.root}; {weights!r} is missing"
        )
    return file


def external_files(workspace: Workspace, settings: BuildSettings) -> tuple[Path, ...]:
    """The files with embeddings that another program made, and with their ids; empty if the settings name none.

    Raises SettingsError if one is missing.
    """
    external = settings.embeddings.external
    if external is None:
        return ()
    for file in external.files:
        if not (workspace.root / file).is_file():
            key = "file" if file == external.file else "ids"
            raise SettingsError(
                f"embeddings.external.{key} must be a file below {workspace.root}; {file!r} is missing"
                + (", which must have the photo id of each row, a line each" if key == "ids" else "")
            )
    return tuple(workspace.root / file for file in external.files)


def check_recipe_name(name: str, key: str = "recipe") -> None:
    """Raise SettingsError, which names `key`, if a recipe cannot have this name, before it becomes part of a path."""
    if not RECIPE_NAME.fullmatch(name):
        raise SettingsError(
            f"{key} must be ASCII letters, digits and _, at most 64, and not start with _; got {name[:80]!r}"
        )
    if without_seed(name).lower() in TAKEN_NAMES or PLAIN.fullmatch(name):
        raise SettingsError(
            f"{key} must not be one of {', '.join(sorted(TAKEN_NAMES))}, which name other things; got {name!r}"
        )


def is_recipe_name(name: str) -> bool:
    """Whether a recipe can have this name."""
    return (
        RECIPE_NAME.fullmatch(name) is not None
        and without_seed(name).lower() not in TAKEN_NAMES
        and not PLAIN.fullmatch(name)
    )


def known_recipes(workspace: Workspace) -> list[str]:
    """The recipes that can be built here: `default` and one for each file in recipes/ whose name is a recipe's."""
    names = [
        name
        for name in _in_recipes(workspace)
        if is_recipe_name(name) and name != DEFAULT_RECIPE and "@" not in name
    ]
    return [DEFAULT_RECIPE, *names]


def misnamed_recipes(workspace: Workspace) -> list[str]:
    """The files in recipes/ that are no recipes because of their names; `default` is params.yaml."""
    known = known_recipes(workspace)[1:]
    return [f"recipes/{name}.yaml" for name in _in_recipes(workspace) if name not in known]


def why_unusable(workspace: Workspace, recipe: str) -> str | None:
    """Why a recipe cannot be built now: its name, a missing file, or invalid settings; None if it can."""
    file = workspace.recipes / f"{without_seed(recipe)}.yaml"
    try:
        check_recipe_name(recipe)
        if without_seed(recipe) != DEFAULT_RECIPE and not file.is_file():
            return f"recipes/{without_seed(recipe)}.yaml is missing"
        load_settings(workspace, recipe)
    except (ValueError, OSError) as error:  # invalid settings, or a file that cannot be read
        return str(error)
    return None


def _in_recipes(workspace: Workspace) -> list[str]:
    return sorted(path.stem for path in workspace.recipes.glob("*.yaml"))


def _reseeded(settings: BuildSettings, seed: int) -> BuildSettings:
    """The settings with this seed in the sections of further networks."""
    if settings.metric is not None:
        settings = replace(settings, metric=replace(settings.metric, seed=seed))
    if settings.cross_view is not None:
        settings = replace(settings, cross_view=replace(settings.cross_view, seed=seed))
    if settings.time is not None:
        settings = replace(settings, time=replace(settings.time, seed=seed))
    if settings.albums is not None:
        networks = {name: replace(one, seed=seed) for name, one in settings.albums.networks.items()}
        settings = replace(settings, albums=replace(settings.albums, networks=networks))
    return settings


def _check_borrowed(workspace: Workspace, settings: BuildSettings) -> None:
    """Raise SettingsError if a recipe that this one borrows from is unknown, or borrows from this one."""
    others = [name for name in known_recipes(workspace) if name != without_seed(settings.recipe)]
    itself = without_seed(settings.recipe)
    waiting = [(row.setting, row, [itself, recipe]) for row, recipe in borrowings(settings)]
    while waiting:
        key, row, way = waiting.pop()
        if way[-1] in way[:-1]:
            raise SettingsError(f"{key} must not lead back to the same recipe: {' from '.join(way)}")
        if way[-1] not in others:
            raise SettingsError(
                f"{key} must name one of the recipes {', '.join(others) or 'none'}; got {way[-1]}"
            )
        # Read but not parsed: errors elsewhere in the other recipe do not matter here.
        values = _values(workspace, way[-1])
        has_metric = value_at(values, "metric") is not None
        if len(way) == 2 and row.name == "weights":
            _check_backbone(settings, key, way[-1], value_at(values, "model.backbone"))
        if row.stage == "metric" and not has_metric:
            raise SettingsError(f"{key} must name a recipe with a section metric; {way[-1]} has none")
        if row.setting == "metric.start" and not row.suffix and has_metric:
            raise SettingsError(
                f"{key} must say which network of {way[-1]}, which has both: {RECIPE}{way[-1]}{OF_METRIC} or "
                f"{RECIPE}{way[-1]}{OF_CLASSIFIER}; got {RECIPE}{way[-1]}"
            )
        waiting += [(key, further, [*way, recipe]) for further, recipe in borrowings(values)]


def _check_backbone(settings: BuildSettings, key: str, recipe: str, theirs: Any) -> None:
    """Raise SettingsError if the recipe whose weights are borrowed has another backbone; `theirs` None: the default."""
    own = settings.model
    if key.startswith("cross_view.") and settings.cross_view is not None:
        own = settings.cross_view.model
    theirs = theirs or ModelSettings().backbone
    if theirs != own.backbone:
        raise SettingsError(
            f"{key} must name a recipe with the backbone {own.backbone}; {recipe} has {theirs}"
        )


def _values(workspace: Workspace, recipe: str) -> dict[str, Any]:
    """The values of a recipe's files, merged but not parsed."""
    merged: dict[str, Any] = {}
    for file in settings_files(workspace, recipe):
        values = dict(_read(file))
        where = file.relative_to(workspace.root).as_posix()
        if "recipe" in values:
            raise SettingsError(f"{where}: recipe is not a setting: a recipe is named by its file")
        if file.parent == workspace.recipes:
            values.pop(STANDALONE, None)
            if policies := [name for name in OF_WORKSPACE if name in values]:
                raise SettingsError(f"{where}: {policies[0]} is of the workspace: set it in params.yaml only")
        merged = _merge(merged, values)
    params = workspace.root / "params.yaml"
    if params not in settings_files(workspace, recipe):  # it stands alone, but for policies
        shared = _read(params)
        merged |= {name: shared[name] for name in OF_WORKSPACE if name in shared}
    return merged


def _read(file: Path) -> Mapping[str, Any]:
    try:
        values = read_yaml(file)
    except DamagedFile as error:
        raise SettingsError(f"{file.name} is not valid: {error.why}") from None
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
