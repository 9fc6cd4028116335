"""The report of a build: one offline HTML page, and the same numbers as JSON and CSV, the figures as PNG or JPEG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from geoloc.evaluation.result import TABLES, Evaluation, table_records, write_csv
from geoloc.files import atomic_path, write_json, write_text
from geoloc.reports import figures, maps, summary
from geoloc.reports.banner import banners
from geoloc.reports.examples import Example, ExampleSet
from geoloc.reports.gallery import GALLERY_FILE, GalleryInput, gallery_numbers, write_gallery
from geoloc.reports.pages import image_uri, place, render
from geoloc.reports.photo_figures import fewer_colours
from geoloc.reports.thoughts import FigureGroup

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

JPEG = b"\xff\xd8\xff"
"""What every JPEG begins with."""
_UNMAPPED = re.compile(r"( for [\d.]+ km|\]kNN)$")
"""How the names end of methods that answer for one level, or as the best of several that are drawn."""


@dataclass(frozen=True, eq=False)
class ReportInput:
    """The content of a report. Only the first four fields are required; sections that are None or empty are left out.

    Nothing is read from the clock or the machine: equal input gives equal bytes. Times and run ids are in `provenance`
    only, which goes into report.html and provenance.json, never into report.json.
    """

    workspace: str
    """Name of the workspace, on the page only: what is content must be equal in a copy under another name."""
    recipe: str
    """Name of the recipe that was built."""
    data_version: str
    """Hash of the pool, as data.dvc has it."""
    evaluation: Evaluation
    further: Mapping[str, Evaluation] = field(default_factory=dict)
    """Evaluations by other protocols or on other test sets, by name: their accuracies, in tables of their own."""
    banner: str = ""
    """A warning at the very top: what the photos are, and what the numbers cannot be compared with."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Photos by source. Photos of the sample planet add their own warning at the top, whatever `banner` is."""
    gallery: GalleryInput | None = None
    """The page that shows the collection, written beside the report and linked from it."""
    title: str = "How well were the photos located?"
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    """Fitted partitions by name, drawn on the world."""
    training: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Training history of each model by name: a row an epoch, columns epoch and *loss*, *accuracy*."""
    splits: pd.DataFrame | None = None
    warnings: tuple[str, ...] = ()
    """Sizes: columns split, photos, photographers (further ones are shown as they are)."""
    checks: pd.DataFrame | None = None
    """Results of data checks: columns name, passed (bool), detail; optionally count, and result (passed, failed,
    warning or accepted), which is shown in place of `passed`."""
    quarantine: pd.DataFrame | None = None
    """Rejected inputs: columns reason, count. An empty frame means that none were rejected, None that it is unknown."""
    diagnostics: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Tables by title, as people read them; see evaluation.diagnostics.Diagnostics.overview."""
    further_diagnostics: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    """As `diagnostics`, of the evaluations of `further` by name."""
    thoughts: tuple[FigureGroup, ...] = ()
    """What the classifier thinks, and how sure the methods are; see thoughts.gather_thoughts."""
    examples: tuple[ExampleSet, ...] = ()
    """Best and worst answers, of one method or several; see examples.pick_examples."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What was measured, by name, at the top in place of workspace, recipe and data version: there may be no build."""
    provenance: Mapping[str, str | None] = field(default_factory=dict)
    """Footer, in order: data version, git commits and whether the tree was dirty, settings hash, code version,
    Dagster run, MLflow run, time. None is shown as a dash."""


def write_report(folder: Path | str, report: ReportInput) -> list[Path]:
    """Write report.html, report.json, provenance.json, tables/*.csv, figures/*.png and, where there is one, the
    gallery's gallery.html under `folder`.

    Returns the files written, report.html first. Each file is whole or absent. Raises ValueError for pictures
    that are neither JPEG nor PNG.
    """
    folder = Path(folder)
    pictures = report_figures(report)
    tables = report_tables(report)
    written = [folder / "report.html", folder / "report.json", folder / "provenance.json"]
    write_text(written[0], report_html(report, pictures))
    write_json(written[1], report_numbers(report))
    write_json(written[2], dict(report.provenance))
    if report.gallery is not None:
        written.append(write_gallery(folder, report.gallery))
    for name, table in tables.items():
        written.append(folder / "tables" / f"{name}.csv")
        write_csv(written[-1], table)
    for name, data in pictures.items():
        written.append(folder / "figures" / figure_file(name, data))
        with atomic_path(written[-1]) as temporary:
            temporary.write_bytes(data)
    return written


def figure_file(name: str, data: bytes) -> str:
    """The file name of a figure: its kind by its bytes."""
    return f"{name}.{'jpg' if data.startswith(JPEG) else 'png'}"


def report_figures(report: ReportInput) -> dict[str, bytes]:
    """The figures by file name without its end, PNG bytes, or JPEG where they are made of photos."""
    made = {
        "accuracy": figures.accuracy_curve_figure(report.evaluation),
        "intervals": figures.interval_figure(report.evaluation),
    }
    for i, further in enumerate(report.further.values()):
        made[f"further-{i + 1}-intervals"] = figures.interval_figure(further)
    for i, method in enumerate(_mapped(report.evaluation)):
        made[f"errors-{i + 1}"] = fewer_colours(maps.error_map(report.evaluation, method))
    for i, partition in enumerate(report.partitions.values()):
        made[f"cells-{i + 1}"] = fewer_colours(maps.partition_map(partition))
    for i, history in enumerate(report.training.values()):
        made[f"training-{i + 1}"] = figures.training_figure(history)
    return made | {one.name: one.data for group in report.thoughts for one in group.figures}


def report_tables(report: ReportInput) -> dict[str, pd.DataFrame]:
    """The tables by file name (without .csv)."""
    tables = {name: getattr(report.evaluation, name) for name in TABLES}
    for i, further in enumerate(report.further.values()):
        tables |= {f"further-{i + 1}-{name}": getattr(further, name) for name in TABLES}
    for name in ("splits", "checks", "quarantine"):
        table = getattr(report, name)
        if table is not None:
            tables[name] = table
    for prefix, given in _all_diagnostics(report).items():
        tables |= {f"{prefix}diagnostics-{title.replace(' ', '-')}": table for title, table in given.items()}
    for i, history in enumerate(report.training.values()):
        tables[f"training-{i + 1}"] = history
    return tables


def report_numbers(report: ReportInput) -> dict[str, Any]:
    """All numbers of the report as JSON values, without provenance: they change only if what was measured does."""
    return {
        "title": report.title,
        "banner": " ".join(banners(report.banner, report.sources)),
        "warnings": [*summary.warnings(report.evaluation), *report.warnings],
        "sources": dict(report.sources),
        "gallery": None if report.gallery is None else gallery_numbers(report.gallery),
        "recipe": report.recipe,
        "data_version": report.data_version,
        "summary": summary.sentences(report.evaluation),
        "evaluation": report.evaluation.to_dict(),
        "further": {name: further.to_dict() for name, further in report.further.items()},
        "partitions": {
            name: {
                "cells": int(p.cell_count),
                "photos": int(p.photo_counts().sum()),
                "photos_in_no_cell": int(p.fitted_photos - p.photo_counts().sum()),
            }
            for name, p in report.partitions.items()
        },
        "training": {name: table_records(history) for name, history in report.training.items()},
        "diagnostics": {title: table_records(table) for title, table in report.diagnostics.items()},
        "further_diagnostics": {
            name: {title: table_records(table) for title, table in given.items()}
            for name, given in report.further_diagnostics.items()
        },
        "thoughts": [
            {"title": g.title, "figures": [{"name": f.name, "caption": f.caption} for f in g.figures]}
            for g in report.thoughts
        ],
        "splits": _records(report.splits),
        "checks": _records(report.checks),
        "quarantine": _records(report.quarantine),
        "examples": [
            {"method": s.method, "best": [e.photo_id for e in s.best], "worst": [e.photo_id for e in s.worst]}
            for s in report.examples
        ],
    }


def report_html(report: ReportInput, pictures: Mapping[str, bytes]) -> str:
    """The page as text, with the pictures of `report_figures` inside."""
    evaluation = report.evaluation
    uris = {name: image_uri(data) for name, data in pictures.items()}

    def shown(names: Mapping[str, Any] | list[str], prefix: str) -> list[tuple[str, str]]:
        return [(name, uris[f"{prefix}-{i + 1}"]) for i, name in enumerate(names)]

    return render(
        "report.html.j2",
        report=report,
        banners=banners(report.banner, report.sources) + summary.warnings(evaluation) + report.warnings,
        gallery=None if report.gallery is None else GALLERY_FILE,
        evaluation=evaluation,
        main=_view("", evaluation, uris["intervals"]),
        further=[
            _view(name, further, uris[f"further-{i + 1}-intervals"])
            | {"diagnostics": _grids(report.further_diagnostics.get(name, {}))}
            for i, (name, further) in enumerate(report.further.items())
        ],
        accuracy=uris["accuracy"],
        error_maps=shown(_mapped(evaluation), "errors"),
        cell_maps=[
            (name, uri, summary.partition_facts(report.partitions[name]))
            for name, uri in shown(report.partitions, "cells")
        ],
        training=shown(report.training, "training"),
        examples=[
            (s.method, [("Best answers", _cards(s.best)), ("Worst answers", _cards(s.worst))])
            for s in report.examples
        ],
        thoughts=[(group, [(one, uris[one.name]) for one in group.figures]) for group in report.thoughts],
        diagnostics=_grids(report.diagnostics),
        splits=_grid(report.splits),
        checks=_records(report.checks),
        quarantine=_records(report.quarantine),
        share=f"{100 * evaluation.settings['confidence']:g} %",
    )


def _mapped(evaluation: Evaluation) -> list[str]:
    """The methods whose errors are drawn: not those whose maps look like those of the others."""
    return [method for method in evaluation.methods if not _UNMAPPED.search(method)]


def _all_diagnostics(report: ReportInput) -> dict[str, Mapping[str, pd.DataFrame]]:
    """The diagnostics of every evaluation by what the names of its files begin with."""
    numbered = {name: f"further-{i + 1}-" for i, name in enumerate(report.further)}
    return {"": report.diagnostics} | {
        numbered[name]: given for name, given in report.further_diagnostics.items()
    }


def _view(name: str, evaluation: Evaluation, intervals: str) -> dict[str, Any]:
    """What the page shows of one evaluation."""
    return {
        "name": name,
        "evaluation": evaluation,
        "digits": summary.digits(evaluation),
        "sentences": summary.sentences(evaluation),
        "tiles": summary.tiles(evaluation),
        "levels": list(evaluation.levels_km.items()),
        "rows": summary.accuracy_rows(evaluation),
        "comparisons": summary.comparison_rows(evaluation),
        "scores": summary.score_rows(evaluation),
        "intervals": intervals,
    }


def _cards(examples: tuple[Example, ...]) -> list[dict[str, Any]]:
    def picture(data: bytes | None) -> str | None:
        return None if data is None else image_uri(data)

    return [
        {
            "photo_id": e.photo_id,
            "picture": picture(e.thumbnail),
            "error_km": e.error_km,
            "confidence": e.confidence,
            "truth": e.place or place(e.latitude, e.longitude),
            "truth_at": place(e.latitude, e.longitude),
            "answer": e.answer_place or place(e.answer_latitude, e.answer_longitude),
            "answer_at": place(e.answer_latitude, e.answer_longitude),
            "neighbours": [
                {
                    "photo_id": n.photo_id,
                    "picture": picture(n.thumbnail),
                    "similarity": n.similarity,
                    "where": n.place or place(n.latitude, n.longitude),
                }
                for n in e.neighbours
            ],
        }
        for e in examples
    ]


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    return None if table is None else table_records(table)


def _grids(tables: Mapping[str, pd.DataFrame]) -> list[tuple[str, dict[str, Any] | None]]:
    return [(title, _grid(table)) for title, table in tables.items()]


def _grid(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """A table with its column names, and which columns are numbers and go to the right."""
    if table is None:
        return None
    columns = [(str(c), bool(pd.api.types.is_numeric_dtype(table[c]))) for c in table.columns]
    return {"columns": columns, "rows": table_records(table)}
