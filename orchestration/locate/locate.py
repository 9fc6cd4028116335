"""`geoloc locate`: where were these photos taken, by a saved build, with neither Dagster nor MLflow running."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.confidence.abstention import abstain_below
from geoloc.places import nearest_places
from orchestration.assets.inputs import EMBEDDED_BY, load_partitions
from orchestration.lineage.answered import made_by
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.lineage.stale import expected
from orchestration.lineage.verify import out_of_date, require_as_embedded, require_recorded, unchecked
from orchestration.locate.located import Alternative, Found, Located, PhotoLocalizer
from orchestration.locate.measured import Shortfall, measures, shortfalls
from orchestration.locate.photos import ReadPhoto, read_photo
from orchestration.locate.question import Question
from orchestration.plan.chain import STAGES
from orchestration.plan.settings import DEFAULT_RECIPE
from orchestration.stores.champion import champion
from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from orchestration.locate.by_champion import Champion

NAMED = 5
"""Of many unreadable photos, so many are named in one line; each says why in its answer."""


def who_answers(
    workspace: Workspace, recipe: str | None, question: Question, say: Callable[[str], None]
) -> Build | Champion:
    """What a question is put to: the recipe that is named; else the model in service, or the default recipe where there
    is none. `say` gets a line that names the model in service.

    What its registered files do not answer is put to the build that it is from, if that is still there. Raises
    WorkspaceError if it is not.
    """
    found = champion(workspace) if recipe is None else None
    if found is None:
        return Build(workspace, recipe or DEFAULT_RECIPE)
    # Only now: a build does not need it.
    from orchestration.locate.by_champion import Champion

    serving = Champion(workspace, found)
    source = serving if serving.answers(question) else serving.build() or serving.refuse(question)
    say(f"answered by {serving}")
    return source


def locate(
    source: Build | Champion,
    photos: Sequence[Path],
    question: Question | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Located]:
    """Locate photo files with what a build saved, or with the model in service, as the question asks (None: by class,
    main partition).

    A file that is no readable photo gets an answer without coordinates, whose `error` says why; `say` gets lines that
    concern all photos. Photos are read, and what the build saved is compared with its records, before any network is
    loaded. Raises WorkspaceError where the build lacks what the question needs or is not what its records say,
    SettingsError for a wrong recipe.
    """
    question = question or Question()
    loaded = _outputs(source, question) if isinstance(source, Build) else []
    read = [read_photo(photo) for photo in photos]
    if bad := [f"{one.name}: {one.error}" for one in read if one.pixels is None]:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        say(
            f"{len(bad)} of {len(photos)} photo{'s' * (len(photos) > 1)} cannot be read: {'; '.join(bad[:NAMED])}{more}"
        )
    if len(bad) == len(read):
        return [Located(one.name, "", error=one.error) for one in read]
    return _opened(source, question, loaded, say).locate(read)


def open_source(source: Build | Champion, question: Question, say: Callable[[str], None]) -> Opened:
    """What answers the question, once what was saved is known to be what its records say. Raises and says what `locate`
    does."""
    loaded = _outputs(source, question) if isinstance(source, Build) else []
    return _opened(source, question, loaded, say)


def _opened(
    source: Build | Champion, question: Question, loaded: Sequence[str], say: Callable[[str], None]
) -> Opened:
    asked = {name: value for name, value in asdict(question).items() if value not in (None, (), False)}
    if not isinstance(source, Build):
        localizer, evaluation = source.open(question), source.evaluation
        measured = (evaluation / "evaluations.json").is_file()
        worse = shortfalls(evaluation, localizer.name, None) if measured else ()
        maker = made_by(source.version.recipe, {}, asked, model=f"models:/{source.version}")
        return Opened(localizer, question, worse, maker)
    records = verified(source, question, loaded, say)
    localizer = _open(source, question, say)
    evaluated = measures(source, records)
    worse = shortfalls(source.folder("evaluation"), localizer.name, question.level) if evaluated else ()
    return Opened(localizer, question, worse, made_by(source.recipe, records, asked))


@dataclass(frozen=True)
class Opened:
    """A way of answering, opened on a build for one question; `worse` and `made_by` hold for all its answers."""

    localizer: PhotoLocalizer
    question: Question
    worse: tuple[Shortfall, ...] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def locate(self, read: Sequence[ReadPhoto]) -> list[Located]:
        """The answer for each of N photo files, in order; without coordinates for those that could not be read."""
        pixels = [one.pixels for one in read if one.pixels is not None]
        located = iter(self._located([one.name for one in read if one.pixels is not None], pixels))
        return [
            self._unanswered(one.name, one.error) if one.pixels is None else next(located) for one in read
        ]

    def _unanswered(self, photo: str, error: str | None) -> Located:
        of = self.localizer
        return Located(
            photo, of.name, error=error, within_km=of.within_km, scaled=of.scaled, made_by=self.made_by
        )

    def _located(self, names: Sequence[str], pixels: Sequence[NDArray[np.uint8]]) -> list[Located]:
        """The answers for readable photos."""
        if not pixels:
            return []
        found, limit = self.localizer.locate(pixels), self.question.abstain_below
        answers = found.answers if limit is None else abstain_below(found.answers, limit)
        places = _place_names(answers)
        return [self._one(name, row, found, answers, places[row]) for row, name in enumerate(names)]

    def _one(
        self, photo: str, row: int, found: Found, answers: Answers, places: NDArray[np.object_]
    ) -> Located:
        """The answer for one readable photo; `places` are the names of its answer and its alternatives."""
        confidence, error = float(found.answers.confidence[row]), None
        if answers.abstained[row] and not found.answers.abstained[row]:
            # Rounded down: "the confidence, 0.5, is below 0.5" would be no explanation of 0.49999.
            shown = math.floor(confidence * 1e4) / 1e4
            error = f"the confidence, {shown:g}, is below {self.question.abstain_below:g}"
        silent = replace(
            self._unanswered(photo, error),
            confidence=confidence,
            regions=found.regions[row],
            nearby=found.nearby[row] if found.nearby else None,
        )
        other = answers.alternatives
        if answers.abstained[row] or other is None:
            return silent
        alternatives = tuple(
            Alternative(
                float(other.latitude[row, i]),
                float(other.longitude[row, i]),
                places[1 + i],
                float(other.weight[row, i]),
                found.reasons[row][i],
            )
            for i in np.flatnonzero(~np.isnan(other.latitude[row]))
        )
        return replace(
            silent,
            latitude=float(answers.latitude[row]),
            longitude=float(answers.longitude[row]),
            place=places[0],
            alternatives=alternatives,
            worse_than_baseline=self.worse,
        )


def _place_names(answers: Answers) -> NDArray[np.object_]:
    """The names of N answers and their A alternatives, [N, 1 + A]; None where there is none."""
    other = answers.alternatives
    latitude, longitude = answers.latitude[:, None], answers.longitude[:, None]
    if other is not None:
        latitude = np.concatenate([latitude, other.latitude], axis=1)
        longitude = np.concatenate([longitude, other.longitude], axis=1)
    names, known = np.full(latitude.shape, None, dtype=object), ~np.isnan(latitude)
    points = np.stack([latitude[known], longitude[known]], axis=1)
    # Answers by class repeat the points of cells.
    distinct, of_point = np.unique(points, axis=0, return_inverse=True)
    texts = np.array([str(place) for place in nearest_places(distinct[:, 0], distinct[:, 1])], dtype=object)
    names[known] = texts[of_point.ravel()]
    return names


def map_page(source: Build | Champion, places: Sequence[Located]) -> str:
    """One offline HTML page with the answers, their alternatives, regions, neighbours and modes on the world map."""
    from geoloc.reports.region_map import region_map_html  # and Jinja with it: only maps pay

    wanted = any(place.regions for place in places)
    if isinstance(source, Build):
        partitions = load_partitions(source.folder("partition")) if wanted else {}
    else:
        partitions = source.partitions() if wanted else {}
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
