"""`geoloc score`: anybody's predictions, measured as a build's are."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command, named_columns
from orchestration.errors import UsageError

_RECIPE = "recipe:"


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "score", "score anybody's predictions, from files",
        "  geoloc score predictions.csv truth.csv --photographer AUTHOR\n"
        "  geoloc score ours.csv theirs.parquet truth.csv --references train.csv --report scores/\n"
        "  geoloc score geoclip.csv truth.csv --column photo_id=IMG_ID --column latitude=LAT --column longitude=LON\n"
        "  geoloc score predictions.csv recipe:default --with default       on the test photos of a build\n\n"
        "Tables are .csv, .tsv (also .gz and .bz2) or .parquet. Predictions have photo_id, latitude, longitude, and\n"
        "may have confidence, alternatives ([[latitude, longitude], ...], best first), log_probability (of the\n"
        "truth) and method (several in one file). TRUTH has photo_id, latitude, longitude and photographer, by whom\n"
        "the intervals are. Other usual names of columns (lat, LON, IMG_ID, AUTHOR, pred_lat) are known too,\n"
        "and the output names them.\n"
        "Every photo of TRUTH counts: one without an answer is wrong. Ids that match no photo are an error. Files are\n"
        "compared with the first one, paired by photo.",
        run,
    )  # fmt: skip
    parser.add_argument("predictions", nargs="+", metavar="PREDICTIONS", help="FILE, or NAME=FILE")
    parser.add_argument("truth", metavar="TRUTH", help="FILE, or recipe:NAME for the test photos of a build")
    parser.add_argument(
        "--column", action="append", default=[], metavar="FIELD=NAME",
        help="a field's column name, in every table that has that column",
    )  # fmt: skip
    parser.add_argument(
        "--truth-column", action="append", default=[], metavar="FIELD=NAME", help="the same, in TRUTH only"
    )
    parser.add_argument(
        "--photographer", metavar="NAME", help="the column of TRUTH that says who took each photo"
    )
    parser.add_argument(
        "--references",
        metavar="FILE",
        help="known places (latitude, longitude), for the baselines: the best constant point, a random reference",
    )
    parser.add_argument(
        "--with", dest="recipes", action="append", default=[], metavar="RECIPE[:METHOD]",
        help="compare with a built recipe of the workspace, which was tested on the same photos",
    )  # fmt: skip
    parser.add_argument("--test", default="test", help="the recipe's test set (default: test)")
    parser.add_argument(
        "--ignore-unmatched",
        action="store_true",
        help="leave out predictions of photos that are not in TRUTH",
    )
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="also write the report, as a build's, here"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable tables")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    columns = named_columns(options.column)
    truth_columns = named_columns(options.truth_column, "--truth-column")
    of_build = options.truth.startswith(_RECIPE)
    if options.photographer:
        if of_build:
            raise UsageError(
                "--photographer names a column of a file; TRUTH is a build, which knows who took its photos"
            )
        truth_columns["photographer"] = options.photographer
    if options.report:
        _check_folder(options.report)
    workspace = open_workspace(options, tracks=False) if options.recipes or of_build else None
    # Only now, with the options checked: pandas and torch take seconds to import.
    from orchestration.results.score import score_files

    found = score_files(
        options.predictions,
        options.truth,
        workspace=workspace,
        recipes=options.recipes,
        test=options.test,
        columns=columns,
        truth_columns=truth_columns,
        references=options.references,
        ignore_unmatched=options.ignore_unmatched,
    )
    page = found.write(options.report) if options.report else None
    print(json_text(found.to_dict()) if options.json else found)
    if page is not None and not options.json:
        print(f"\nreport: {page}")


def _check_folder(folder: Path) -> None:
    """Raise UsageError, before anything is computed, for a folder that cannot be written."""
    above = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"--report must name a folder that can be written; got {folder}")
