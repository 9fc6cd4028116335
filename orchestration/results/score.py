"""`geoloc score`: anybody's predictions, measured as a build's are, and compared with each other and with builds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geoloc.evaluation.diagnostics import diagnose
from geoloc.evaluation.external.matching import match
from geoloc.evaluation.external.score import Scored, Source, score
from geoloc.evaluation.external.tables import PredictionsError
from geoloc.evaluation.result import table_records
from geoloc.files import sha256_bytes
from geoloc.photos.owners import photographer_keys
from geoloc.reports.report import ReportInput, write_report
from geoloc.reports.thoughts import gather_thoughts
from geoloc.sphere import distance_km
from orchestration.assets.inputs import read_photos
from orchestration.lineage.build import Build
from orchestration.results.compare import method_named
from orchestration.results.gather import gather
from orchestration.results.shown import level_rows, score_table
from orchestration.tables import markdown
from orchestration.workspace import Workspace

RECIPE = "recipe:"
"""How a built recipe is named where a file is expected."""
_SAME_PLACE_KM = 0.1
_DIGITS = 2
"""Decimals of percentages, as published tables have them."""
_CONFIDENCE_TABLES = ("selective", "risk_coverage")


@dataclass(frozen=True, eq=False)
class ScoreReport:
    """Scored predictions, with the name of the truth and the SHA-256 of each file that was read, by its name."""

    scored: Scored
    truth: str
    contents: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        made = self.scored.evaluation
        return {
            "truth": self.truth,
            "files": dict(self.contents),
            "photos": made.queries,
            "photographers": made.query_photographers,
            "references": made.references,
            "confidence": made.settings["confidence"],
            "methods": made.methods,
            "accuracy": table_records(made.accuracy),
            "baselines": table_records(made.baselines),
            "scores": table_records(made.scores),
            "errors": table_records(made.errors),
            "differences": table_records(made.comparisons),
            "notes": {name: list(notes) for name, notes in self.scored.notes.items()},
        }

    def __str__(self) -> str:
        """Markdown that lines up in a terminal: accuracies, scores, differences and notes."""
        made, decimals = self.scored.evaluation, _DIGITS
        levels = [f"{name} {km:g} km" for name, km in made.levels_km.items()]
        baselines = list(dict.fromkeys(made.baselines["baseline"]))
        rows = level_rows(made.accuracy, "accuracy", made.methods, digits=decimals)
        rows += [
            [f"({row[0]})", *row[1:]]
            for row in level_rows(made.baselines, "accuracy", baselines, by="baseline", digits=decimals)
        ]
        lines = [
            f"accuracy in per cent on the {made.queries:,} photos of {self.truth}, by {made.query_photographers:,} "
            f"photographers [{100 * made.settings['confidence']:g} % interval by photographer]",
            "",
            markdown(rows, ["method", *levels]),
            "",
            *score_table(made, digits=decimals),
        ]
        if len(made.comparisons):
            lines += ["", *self._differences(levels, decimals)]
        lines += ["", *(f"note: {line}" for line in self.scored.sentences())]
        return "\n".join(lines).rstrip()

    def _differences(self, levels: Sequence[str], decimals: int) -> list[str]:
        made = self.scored.evaluation
        rows = [
            [method, str(other), *cells]
            for other, at in made.comparisons.groupby("other", sort=False)
            for method, *cells in level_rows(
                at, "difference", list(dict.fromkeys(at["method"])), digits=decimals
            )
        ]
        return [
            "differences in points, on the same photos; better and worse are corrected for the number of comparisons, "
            "of methods with each other and with baselines (Holm)",
            "",
            markdown(rows, ["method", "compared with", *levels]),
        ]

    def write(self, folder: Path) -> Path:
        """Write the page of a build's report, its tables and figures to a folder; returns the page's path."""
        scored = self.scored
        has_confidence = any((found.confidence > 0).any() for found in scored.answers.values())
        diagnostics = diagnose(
            scored.evaluation,
            {name: a.alternatives for name, a in scored.answers.items() if a.alternatives is not None},
            {},
            scored.photos,
            scored.references,
            {},
        )
        shown = {
            title: table
            for title, table in diagnostics.overview().items()
            if has_confidence or title not in _CONFIDENCE_TABLES
        }
        page, *_ = write_report(
            folder,
            ReportInput(
                workspace=self.truth,
                recipe=", ".join(scored.evaluation.methods),
                about={"truth": self.truth, "predictions": ", ".join(scored.evaluation.methods)},
                data_version=sha256_bytes("".join(self.contents.values()).encode()),
                evaluation=scored.evaluation,
                banner=" ".join(f"{line}." for line in scored.sentences()),
                diagnostics=shown,
                thoughts=gather_thoughts(scored.evaluation, None, None, lambda _: None)
                if has_confidence
                else (),
                provenance={f"content of {name}": content for name, content in self.contents.items()},
            ),
        )
        return page


def score_files(
    predictions: Sequence[str],
    truth: str,
    *,
    workspace: Workspace | None = None,
    recipes: Sequence[str] = (),
    test: str = "test",
    columns: Mapping[str, str] | None = None,
    truth_columns: Mapping[str, str] | None = None,
    references: str | None = None,
    ignore_unmatched: bool = False,
) -> ScoreReport:
    """Score files of predictions, FILE or NAME=FILE, on `truth`: a file, or recipe:NAME for a built recipe's photos.

    `recipes` are RECIPE or RECIPE:METHOD, compared with the files; they need every photo of the truth in their test
    set `test`. With recipe:NAME as truth, its training photos are the references unless others are given. `workspace`
    is needed for recipes only. Raises PredictionsError for tables that cannot be used, WorkspaceError for recipes that
    are not built.
    """
    named: dict[str, Source] = {}
    contents: dict[str, str] = {}
    for text in predictions:
        name, file = _named(text)
        if name in named:
            raise PredictionsError(f"two files are called {name!r}; give each a name: NAME=FILE")
        named[name] = file
        _note_content(file, contents)
    photos: Source = truth
    known: Source | None = references
    if truth.startswith(RECIPE) and workspace is not None:
        photos, train = _photos_of(workspace, truth.removeprefix(RECIPE), test)
        known = train if references is None else references
        truth_columns = {}
    else:
        _note_content(Path(truth), contents)
    if references is not None:
        _note_content(Path(references), contents)
    built = _answers_of(workspace, recipes, test) if recipes and workspace is not None else {}
    scored = score(
        named | built,
        photos,
        references=known,
        columns=columns,
        truth_columns=truth_columns,
        ignore_unmatched=ignore_unmatched or list(built),
    )
    for name, table in built.items():
        _check_same_photos(name, table, scored, test)
    return ScoreReport(scored, truth if truth.startswith(RECIPE) else Path(truth).name, contents)


def _named(text: str) -> tuple[str, Path]:
    """A file and what its method is called: NAME=FILE, or the file's name without its ends."""
    name, sign, rest = text.partition("=")
    if sign and name and not Path(text).exists():
        return name, Path(rest)
    return Path(text).name.split(".")[0] or text, Path(text)


def _note_content(file: Path, contents: dict[str, str]) -> None:
    """Put the hash of a file's bytes into `contents`; files that cannot be read are reported by what reads them."""
    if file.is_file():
        with file.open("rb") as stream:
            contents[str(file)] = hashlib.file_digest(stream, "sha256").hexdigest()


def _photos_of(workspace: Workspace, recipe: str, test: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photos of a built recipe's test set, at the places that they were measured against, and its references."""
    (built,) = [one for one in gather(workspace, test, [recipe]) if one.recipe == recipe]
    every = read_photos(Build(workspace, recipe).folder("splits"))
    every = every.assign(photographer=photographer_keys(every))
    who = every.set_index("photo_id")["photographer"]
    photos = built.photos.assign(photographer=who.loc[built.photos["photo_id"]].to_numpy())
    wanted = ["photo_id", "latitude", "longitude", "photographer"]
    return photos, every.loc[every["split"] == "train", wanted].reset_index(drop=True)


def _answers_of(workspace: Workspace, recipes: Sequence[str], test: str) -> dict[str, pd.DataFrame]:
    """The answers of built recipes to their test sets, by RECIPE:METHOD."""
    found: dict[str, pd.DataFrame] = {}
    for text in recipes:
        recipe, _, method = text.partition(":")
        (built,) = [one for one in gather(workspace, test, [recipe.strip()]) if one.recipe == recipe.strip()]
        name = method_named(built, method.strip())
        rows = built.evaluation.per_photo
        wanted = ["photo_id", "latitude", "longitude", "confidence", "true_latitude", "true_longitude"]
        found[f"{built.recipe}:{name}"] = rows.loc[rows["method"] == name, wanted].reset_index(drop=True)
    return found


def _check_same_photos(name: str, table: pd.DataFrame, scored: Scored, test: str) -> None:
    """Raise PredictionsError if a recipe was not measured on some true photos, or at other places."""
    photos = scored.photos
    if scored.missing[name]:
        raise PredictionsError(
            f"{name} cannot be compared: {scored.missing[name]:,} of {len(photos):,} true photos are not in its test"
            f" set {test!r}, which has {len(table):,}"
        )
    position = match(list(table["photo_id"]), list(photos["photo_id"])).position
    mine, theirs = photos.iloc[position[position >= 0]], table[position >= 0]
    apart = distance_km(
        mine["latitude"], mine["longitude"], theirs["true_latitude"], theirs["true_longitude"]
    )
    if (moved := apart > _SAME_PLACE_KM).any():
        first = mine["photo_id"].iloc[moved.argmax()]
        raise PredictionsError(
            f"{name} cannot be compared: {int(moved.sum()):,} photos, such as {first!r}, are"
            f" at other places in its test set {test!r} than in the truth"
        )
