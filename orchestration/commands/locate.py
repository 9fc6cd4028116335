"""`geoloc locate`: answer where photos were taken."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestration.commands.common import check_writable, open_workspace
from orchestration.commands.parsing import add_command, add_recipe, at_least
from orchestration.errors import UsageError
from orchestration.locate.question import COMBINATIONS, LEVELS, METHODS, MODELS, Question
from orchestration.workspace import Workspace


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "locate", "tell where photos were taken, and why",
        "  geoloc locate photo.jpg\n  geoloc locate *.jpg --method knn --json\n"
        "  geoloc locate photo.jpg --map where.html\n"
        "  geoloc locate photo.jpg --level street          which street, rather than which country?\n"
        "  geoloc locate photo.jpg --level country --abstain-below 0.5\n"
        "  geoloc locate photo.jpg --recipe multi --combine overlay\n"
        "  geoloc locate photo.jpg --method nn --references source=yfcc --references until=2012-01-01\n"
        "  geoloc locate photo.jpg --method neighbours --level city --map where.html\n"
        "  geoloc locate photo.jpg --method combined       classes and neighbours together\n"
        "  geoloc locate --table photos.csv --output answers.parquet\n\n"
        "If the build has localizers.calibrate, confidences are scaled by a temperature fitted on validation photos.\n"
        "If it has localizers.coverages, each answer comes with regions: cells that contain the photo with the given\n"
        "probability, outlined on the map. A note above an answer says at which levels the build is worse than its\n"
        "best baseline. Files that are no photos are named; the exit status is 1 if nothing was located.",
        run,
    )  # fmt: skip
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="locate the photos of a CSV or Parquet table (column file, relative to the table) into --output",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="with --table: the Parquet file of answers; a call that was killed goes on where it was",
    )
    add_recipe(parser)
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="class",
        help="class (default): the most probable cell; nn, knn: the nearest reference photo, the densest spot of the "
        "nearest; neighbours: as knn, with k and sigma as chosen on validation photos; combined: these and classes",
    )
    parser.add_argument(
        "--model",
        metavar=f"{{{','.join(MODELS)}}}",
        default="classifier",
        help="by neighbour: whose embeddings (metric: of a recipe with a section metric)",
    )
    parser.add_argument(
        "--k", type=at_least(1), metavar="N", help="by knn: neighbours that vote (default: localizers.k)"
    )
    parser.add_argument(
        "--references",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="by neighbour: among references with source=NAME, taken from=DATE on or until=DATE, or that the data "
        "version=MD5 had; may be repeated (default: localizers.references)",
    )
    parser.add_argument(
        "--alternatives", type=at_least(1), default=5, metavar="N", help="how many to show (default: 5)"
    )
    parser.add_argument(
        "--partition",
        metavar="NAME",
        help="by class: over the cells of this partition (default: the main one)",
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        help="by class: the point most probably within 1, 25, 200, 750 or 2500 km; neighbours: with k and sigma chosen "
        "for that level; the confidence is that probability",
    )
    parser.add_argument(
        "--combine",
        choices=COMBINATIONS,
        help="by class: all partitions of a build that has several, as a product (nested ones) or an overlay (any)",
    )
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="CONFIDENCE",
        help="give no answer with a lower confidence, from 0 to 1",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable answers")
    parser.add_argument(
        "--map", type=Path, metavar="FILE", help="also draw the answers on an offline HTML map"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if no photo was located."""
    question = Question(
        options.method,
        options.model,
        options.alternatives,
        options.partition,
        options.level,
        options.combine,
        options.abstain_below,
        options.k,
        tuple(options.references),
    )
    _check_table(options)
    workspace = open_workspace(options, tracks=False)
    if options.table:
        return _run_table(options, question, workspace)
    if options.map:
        _check_map(options.map, options.photos)
    # Only now, with the question checked: torch takes seconds to import.
    from orchestration.lineage.build import Build
    from orchestration.locate.locate import locate, map_page

    build = Build(workspace, options.recipe)
    places = locate(build, options.photos, question, _say)
    if options.map:
        from geoloc.files import write_text

        write_text(options.map, map_page(build, places))
    if options.json:
        print(json.dumps([place.to_dict() for place in places], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(str(place) for place in places))
    if options.map and not options.json:
        print(f"\nmap: {options.map}")
    if any(place.answered for place in places):
        return 0
    _say("no photo was located")
    return 1


def _say(line: str) -> None:
    print(f"geoloc: {line}", file=sys.stderr, flush=True)


def _run_table(options: argparse.Namespace, question: Question, workspace: Workspace) -> int:
    """Locate the photos of a table."""
    from orchestration.commands.common import counter
    from orchestration.lineage.build import Build
    from orchestration.locate.table import locate_table

    with counter("photos located") as bar:
        summary = locate_table(
            Build(workspace, options.recipe), options.table, options.output, question, _say, bar.update
        )
    print(f"{summary}; answers: {options.output}")
    return 0 if summary.located else 1


def _check_table(options: argparse.Namespace) -> None:
    """Raise UsageError, before anything is computed, for options that do not go together."""
    if options.table is None:
        if options.output:
            raise UsageError(
                "--output is for --table; answers of single photos go to a page with --map, or --json"
            )
        if not options.photos:
            raise UsageError("name the photos to locate, or a table of them with --table")
        return
    if options.photos:
        raise UsageError(f"--table {options.table} and the photo {options.photos[0]} exclude each other")
    if options.map or options.json:
        raise UsageError(f"--table and {'--map' if options.map else '--json'} exclude each other")
    if options.output is None:
        raise UsageError("--table needs --output FILE.parquet for the answers")
    if options.output.suffix.lower() != ".parquet":
        raise UsageError(f"--output must name a Parquet file (.parquet); got {options.output}")
    check_writable(options.output, "--output")
    if options.output.exists() and options.table.exists() and options.table.samefile(options.output):
        raise UsageError(f"--output {options.output} would replace the table; name another file")


def _check_map(file: Path, photos: Sequence[Path]) -> None:
    """Raise UsageError, before anything is computed, for a map that cannot be written or would replace a photo."""
    check_writable(file, "--map")
    if file.exists() and any(photo.exists() and photo.samefile(file) for photo in photos):
        raise UsageError(f"--map {file} would replace a photo that is asked about; name another file")
