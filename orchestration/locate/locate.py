"""`geoloc locate`: where were these photos taken, by a saved build, with neither Dagster nor MLflow running."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from geoloc.localizers.confidence.abstention import abstain_below
from geoloc.places import nearest_places
from geoloc.reports.region_map import region_map_html
from orchestration.assets.inputs import EMBEDDED_BY, load_partitions
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.lineage.stale import expected
from orchestration.lineage.verify import out_of_date, require_as_embedded, require_recorded, unchecked
from orchestration.locate.located import Alternative, Found, Located, PhotoLocalizer
from orchestration.locate.measured import Shortfall, measures, shortfalls
from orchestration.locate.photos import read_photos
from orchestration.locate.question import Question
from orchestration.plan.chain import STAGES
from orchestration.workspace import WorkspaceError

NAMED = 5
"""Of many unreadable photos, so many are named in one line; each says why in its answer."""


def locate(
    build: Build,
    photos: Sequence[Path],
    question: Question | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Located]:
    """Locate photo files with what a build saved, as the question asks (None: by class, main partition).

    A file that is no readable photo gets an answer without coordinates, whose `error` says why; `say` gets lines that
    concern all photos. Photos are read, and what the build saved is compared with its records, before any network is
    loaded. Raises WorkspaceError where the build lacks what the question needs or is not what its records say,
    SettingsError for a wrong recipe.
    """
    question = question or Question()
    loaded = _outputs(build, question)
    read = read_photos(photos)
    if bad := read.unreadable:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        say(
            f"{len(bad)} of {len(photos)} photo{'s' * (len(photos) > 1)} cannot be read: {'; '.join(bad[:NAMED])}{more}"
        )
    if not read.pixels:
        return [Located(name, "", error=why) for name, why in zip(read.names, read.errors, strict=True)]
    records = verified(build, question, loaded, say)
    localizer = _open(build, question, say)
    worse = shortfalls(build, localizer.name, question.level) if measures(build, records) else ()
    found, rows = localizer.locate(read.pixels), iter(range(len(read.pixels)))
    return [
        _located(found, next(rows), name, localizer, question, worse)
        if error is None
        else _unanswered(name, localizer, error)
        for name, error in zip(read.names, read.errors, strict=True)
    ]


def map_page(build: Build, places: Sequence[Located]) -> str:
    """One offline HTML page with the answers, their alternatives, regions, neighbours and modes on the world map."""
    wanted = any(place.regions for place in places)
    partitions = load_partitions(build.folder("partition")) if wanted else {}
    described = [
        place.to_dict()
        | {
            "regions": [asdict(one) | {"text": str(one)} for one in place.regions or ()],
            "method": " · ".join((place.method, *place.notes)),
            "nearby_lines": [] if place.nearby is None else place.nearby.lines,
        }
        for place in places
    ]
    return region_map_html(described, partitions)


def _outputs(build: Build, question: Question) -> list[str]:
    """The stages whose output answers the question. Raises WorkspaceError, which names what to build, if one is
    missing."""
    if question.by_neighbour:
        if question.model == "metric" and build.settings.metric is None:
            raise WorkspaceError(
                f"--model metric needs a recipe with a section metric, which {build.recipe} does not have"
            )
        loaded = ["index"] if question.model == "backbone" else [question.model, "index"]
        if question.chosen:
            loaded = ["partition", *loaded]
        if question.method == "combined" and "classifier" not in loaded:
            loaded.append("classifier")
    elif option := _needs_splits(question):
        loaded = ["splits", "partition", "classifier"]
        if not build.folder("splits").is_dir():
            raise WorkspaceError(
                f"{option} needs the places of the training photos, and {build.recipe} has no splits; "
                f"build them with: {build.command('splits')}"
            )
    else:
        loaded = ["partition", "classifier"]
    if missing := [name for name in loaded if not build.folder(name).is_dir()]:
        raise WorkspaceError(
            f"{build.recipe} has no {', '.join(missing)} yet; build it with: {build.command()}"
        )
    if "index" in loaded and not (build.folder("index") / question.model).is_dir():
        raise WorkspaceError(
            f"{build.name('index')} has no references by --model {question.model}: {build.recipe} does not extract its "
            "embeddings (embeddings.models)"
        )
    return loaded


def _needs_splits(question: Question) -> str:
    """The option that needs the places of the training photos; "" if none does."""
    if question.level:
        return f"--level {question.level}"
    return "--combine overlay" if question.combine == "overlay" else ""


def verified(
    build: Build, question: Question, loaded: Sequence[str], say: Callable[[str], None]
) -> dict[str, Record]:
    """The records of the outputs that the answer comes from, once all is known to be what they say.

    `say` gets a line if a consistent build is out of date, or was not checked. Raises WorkspaceError.
    """
    links: tuple[str, ...] = ()
    if question.by_neighbour:
        links = (EMBEDDED_BY[question.model],)
    records = require_recorded(build, loaded, links)
    if "features" in links:
        _require_same_backbone(build, records["features"])
    for link in links:
        require_as_embedded(build, records[link])
    if build.folder("evaluation").is_dir():  # of its own: that of another network is said, and not used
        require_recorded(build, ("evaluation",))
    if old := out_of_date(build, records):
        why = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in old.items())
        say(
            f"{build.recipe} is out of date ({why}) and answers as it was built; renew it with: {build.command()}"
        )
    for name, checks in unchecked(build, records).items():
        say(f"{build.name(name)} was not checked ({', '.join(checks)}); check it with: {build.command()}")
    return records


def _require_same_backbone(build: Build, features: Record) -> None:
    """Raise WorkspaceError if the backbone with its first weights, which is not stored but made from the settings, is
    not the one that made the index any more."""
    stage = STAGES["features"]
    changed = [
        key
        for key in build.settings.changes(features.settings, stage.sections)
        if key == "seed" or key.startswith("model.")
    ]
    if expected(build, stage).inputs.get("weights") != features.inputs.get("weights"):
        changed.append("the weights")
    if changed:
        raise WorkspaceError(
            f"{build.name('index')} was made with another backbone than the settings describe now "
            f"({', '.join(changed)} changed); build it again with: {build.command()}"
        )


def _open(build: Build, question: Question, say: Callable[[str], None]) -> PhotoLocalizer:
    """What answers the question: one line per way of answering."""
    # Only now: torch takes seconds to import, and photos and build may have been refused.
    if question.method == "class":
        from orchestration.locate.by_class import ByClass

        return ByClass.open(build, question, say)
    if question.chosen:
        from orchestration.locate.by_chosen import ByChosen

        return ByChosen.open(build, question, say)
    from orchestration.locate.by_neighbour import ByNeighbour

    return ByNeighbour.open(build, question)


def _unanswered(photo: str, localizer: PhotoLocalizer, error: str | None) -> Located:
    """The answer for a photo without coordinates."""
    return Located(photo, localizer.name, error=error, within_km=localizer.within_km, scaled=localizer.scaled)


def _located(
    found: Found,
    row: int,
    photo: str,
    localizer: PhotoLocalizer,
    question: Question,
    worse: tuple[Shortfall, ...],
) -> Located:
    """The answer for one readable photo."""
    answers, confidence = found.answers.take([row]), float(found.answers.confidence[row])
    error = None
    if question.abstain_below is not None and not answers.abstained[0]:
        answers = abstain_below(answers, question.abstain_below)
        if answers.abstained[0]:
            # Rounded down: "the confidence, 0.5, is below 0.5" would be no explanation of 0.49999.
            error = (
                f"the confidence, {math.floor(confidence * 1e4) / 1e4:g}, is below {question.abstain_below:g}"
            )
    silent = replace(
        _unanswered(photo, localizer, error),
        confidence=confidence,
        regions=found.regions[row],
        nearby=found.nearby[row] if found.nearby else None,
    )
    other = answers.alternatives
    if answers.abstained[0] or other is None:
        return silent
    known = np.flatnonzero(~np.isnan(other.latitude[0]))
    places = nearest_places(
        np.append(answers.latitude, other.latitude[0][known]),
        np.append(answers.longitude, other.longitude[0][known]),
    )
    names = [str(place) for place in places]
    alternatives = tuple(
        Alternative(
            float(other.latitude[0, i]),
            float(other.longitude[0, i]),
            name,
            float(other.weight[0, i]),
            found.reasons[row][i],
        )
        for i, name in zip(known, names[1:], strict=True)
    )
    return replace(
        silent,
        latitude=float(answers.latitude[0]),
        longitude=float(answers.longitude[0]),
        place=names[0],
        alternatives=alternatives,
        worse_than_baseline=worse,
    )
