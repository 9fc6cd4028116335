"""Which settings of a build's sections go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from geoloc.models.settings import NAMED_WEIGHTS, RECIPE
from geoloc.partitions.settings import LatLonPartitionSettings
from geoloc.settings import SettingsError

if TYPE_CHECKING:
    from orchestration.plan.settings import BuildSettings

NESTING = ("s2", "latlon")
"""Kinds of partitions that nest: each cell lies within one cell of a coarser partition."""


def check_combinations(settings: BuildSettings) -> None:
    """Raise SettingsError, which names the key, if sections contradict each other."""
    for check in _CHECKS:
        check(settings)


def _check_heads(settings: BuildSettings) -> None:
    """There is a partition, and training gives one of them weight."""
    partitions, weights = settings.partitions, settings.training.head_weights
    if not partitions:
        raise SettingsError("partitions must name at least one, got none")
    unknown = [name for name in weights if name not in partitions]
    if unknown:
        raise SettingsError(
            f"training.head_weights.{unknown[0]} is not a partition; the partitions are: {', '.join(partitions)}"
        )
    if not any(weights.get(name, 1.0) for name in partitions):
        raise SettingsError("training.head_weights must be above 0 for at least one partition, got 0 for all")


def _check_embeddings(settings: BuildSettings) -> None:
    """Frozen classifiers have their embeddings, and two networks have two names."""
    frozen, embeddings = settings.localizers.frozen.kinds, settings.embeddings
    if frozen and "backbone" not in embeddings.models:
        raise SettingsError(
            f"localizers.frozen.kinds {', '.join(frozen)} needs backbone in embeddings.models, got "
            f"{', '.join(embeddings.models) or 'none'}"
        )
    names = [one.name for one in (settings.metric, embeddings.external) if one is not None]
    if len({name.lower() for name in names}) < len(names):
        raise SettingsError(f"embeddings.external.name must not be that of the metric network, {names[0]}")


def _check_positives(settings: BuildSettings) -> None:
    """Positives by cell are those of a partition that there is."""
    if settings.metric is None or settings.metric.positives.kind != "cell":
        return
    wanted = settings.metric.positives.partition
    if wanted not in (None, *settings.partitions):
        raise SettingsError(
            f"metric.positives.partition must be one of the partitions {', '.join(settings.partitions)}, or null; got "
            f"{wanted}"
        )


def _check_unseen(settings: BuildSettings) -> None:
    """Weights were not trained on the photos that are evaluated with them."""
    if settings.evaluation.leave_photographer_out and settings.model.weights.startswith(RECIPE):
        raise SettingsError(
            f"evaluation.leave_photographer_out must be false where model.weights is {settings.model.weights}: it asks "
            "for the photos that recipe was trained on"
        )


def _check_combine(settings: BuildSettings) -> None:
    """localizers.combine fits the partitions."""
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


def _check_context(settings: BuildSettings) -> None:
    """Models of time and albums have what they learn from."""
    if settings.time is not None and not (
        settings.time.network or settings.time.prior or settings.time.daylight
    ):
        raise SettingsError("time must have network, prior or daylight, or be null; got none of them")
    networks = settings.albums.networks if settings.albums is not None else {}
    needs = [f"albums.networks.{name}" for name, one in networks.items() if one.inputs == "embeddings"]
    if settings.time is not None and settings.time.daylight:
        needs.insert(0, "time.daylight")
    if needs and not settings.embeddings.of_classifier:
        raise SettingsError(
            f"{needs[0]} needs classifier in embeddings.models, got "
            f"{', '.join(settings.embeddings.models) or 'none'}"
        )
    mode, weights = settings.training.mode, settings.model.weights
    learned = f"training.mode is {mode}" if mode != "frozen" else f"model.weights is {weights}"
    everything = [name for name, one in networks.items() if one.train_on == "all"]
    if everything and (mode != "frozen" or weights not in NAMED_WEIGHTS):
        raise SettingsError(
            f"albums.networks.{everything[0]}.train_on must be context where {learned}: the backbone may have learned "
            "from the photos of train; got all"
        )
    if settings.context and settings.splits.validation.share == 0:
        raise SettingsError(
            "splits.validation.share must be above 0 with time or albums, which are chosen on validation photos; got 0"
        )


_CHECKS: tuple[Callable[[BuildSettings], None], ...] = (
    _check_heads,
    _check_embeddings,
    _check_positives,
    _check_unseen,
    _check_combine,
    _check_context,
)
