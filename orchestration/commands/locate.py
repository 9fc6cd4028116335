"""`geoloc locate`: answer where photos were taken."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.commands.common import check_writable, json_text, open_workspace
from orchestration.commands.parsing import add_command, at_least
from orchestration.errors import UsageError
from orchestration.locate.question import COMBINATIONS, LEVELS, METHODS, MODELS, Question
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from orchestration.lineage.build import Build
    from orchestration.locate.located import Located


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
        "  geoloc locate --album holiday/ --recipe planet_albums --map track.html\n"
        "  geoloc locate --table photos.csv --output answers.parquet\n"
        "  geoloc locate photo.jpg --recipe cross_view --overhead area      position and heading on overhead tiles\n\n"
        "If the build has localizers.calibrate, confidences are scaled by a temperature fitted on validation photos.\n"
        "If it has localizers.coverages, each answer comes with regions: cells that contain the photo with the given\n"
        "probability, outlined on the map. A note above an answer says at which levels the build is worse than its\n"
        "best baseline. Files that are no photos are named; the exit status is 1 if nothing was located.",
        run,
    )  # fmt: skip
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    parser.add_argument(
        "--album",
        type=Path,
        metavar="FOLDER",
        help="answer for all photos of a folder together, in order of their EXIF times, and say which of them changed "
        "their answer because of the others",
    )
    parser.add_argument(
        "--anchors",
        action="store_true",
        help="with --album: photos whose EXIF has a place are answered with it, marked, and tell of the others",
    )
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
    parser.add_argument(
        "--recipe",
        help="answer by this recipe's build (default: the model in service, see geoloc promote; the default recipe "
        "where there is none)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="class",
        help="class (default): the most probable cell; nn, knn: the nearest reference photo, that of the nearest where "
        "their density is highest; neighbours: as knn, with k and sigma as chosen on validation photos; combined: "
        "these and classes",
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
        help="by nn and knn: among references with source=NAME, taken from=DATE on or until=DATE, or that the data "
        "version=MD5 had; may be repeated (default: localizers.references)",
    )
    parser.add_argument(
        "--alternatives",
        type=at_least(1),
        default=5,
        metavar="N",
        help="how many to show, at most 1,000 (default: 5)",
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
    parser.add_argument(
        "--overhead",
        type=Path,
        metavar="INDEX",
        help="position and heading on the overhead tiles of this index (see geoloc index overhead), by a recipe with a "
        "section cross_view",
    )
    parser.add_argument(
        "--joint",
        action="store_true",
        help="--overhead: only on tiles where the recipe's photo classifier thinks it likely",
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
    _check_album(options, question)
    _check_table(options)
    if options.overhead is not None:
        _check_overhead(question)
    elif options.joint:
        raise UsageError("--joint is for --overhead INDEX, which is missing")
    workspace = open_workspace(options, tracks=False)
    if options.table:
        return _run_table(options, question, workspace)
    if options.map:
        _check_map(options.map, options.photos)
    if options.album:
        return _album(workspace, options)
    # Only now, with the question checked: torch takes seconds to import.
    from orchestration.locate.locate import locate, map_page, who_answers

    places: Sequence[Located]
    if options.overhead is not None:
        from orchestration.locate.by_overhead import locate_overhead, overhead_map

        build = _build(workspace, options)
        found = locate_overhead(
            build, options.overhead, options.photos, options.alternatives, _say, joint=options.joint
        )
        places, draw = found, partial(overhead_map, found)
    else:
        source = who_answers(workspace, options.recipe, question, _say)
        places = locate(source, options.photos, question, _say)
        draw = partial(map_page, source, places)
    if options.map:
        from geoloc.files import write_text

        write_text(options.map, draw())
    if options.json:
        print(json_text([place.to_dict() for place in places]))
    else:
        print("\n\n".join(str(place) for place in places))
    if options.map and not options.json:
        print(f"\nmap: {options.map}")
    if any(place.answered for place in places):
        return 0
    _say("no photo was located")
    return 1


def _check_album(options: argparse.Namespace, question: Question) -> None:
    """Raise UsageError for photos and an album, and for options that an album's answers do not have."""
    if options.anchors and not options.album:
        raise UsageError("--anchors needs --album FOLDER")
    if options.album:
        if options.photos:
            raise UsageError(f"--album {options.album} and the photo {options.photos[0]} exclude each other")
        for other in ("table", "output", "overhead"):
            if getattr(options, other):
                raise UsageError(f"--album {options.album} and --{other} exclude each other")
        for name, default in vars(Question()).items():
            if getattr(question, name) != default:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"--album {options.album} and {option} exclude each other: an album is answered by class, over the "
                    "main partition"
                )


def _build(workspace: Workspace, options: argparse.Namespace) -> Build:
    """The build that answers what the model in service does not: albums, and photos by overhead tiles."""
    from orchestration.lineage.build import Build
    from orchestration.plan.settings import DEFAULT_RECIPE

    return Build(workspace, options.recipe or DEFAULT_RECIPE)


def _album(workspace: Workspace, options: argparse.Namespace) -> int:
    """Answer for an album; returns 1 if none of its photos was located."""
    from orchestration.locate.photos import photo_files

    files = photo_files(options.album)
    if options.map:
        _check_map(options.map, files)
    from orchestration.locate.album import album_page, locate_album

    album = locate_album(_build(workspace, options), options.album, anchors=options.anchors, say=_say)
    if options.map:
        from geoloc.files import write_text

        write_text(options.map, album_page(album))
    print(json_text(album.to_dict()) if options.json else album)
    if options.map and not options.json:
        print(f"\nmap: {options.map}")
    if album.answered:
        return 0
    _say("no photo was located")
    return 1


def _check_overhead(question: Question) -> None:
    """Raise UsageError for options that are for other ways of answering."""
    plain = Question(alternatives=question.alternatives)
    for name in ("method", "model", "partition", "level", "combine", "abstain_below", "k", "references"):
        if getattr(question, name) != getattr(plain, name):
            option = name.replace("_", "-")
            raise UsageError(
                f"--overhead and --{option} {getattr(question, name)} exclude each other: --{option} is for answers "
                "without overhead tiles"
            )


def _say(line: str) -> None:
    print(f"geoloc: {line}", file=sys.stderr, flush=True)


def _run_table(options: argparse.Namespace, question: Question, workspace: Workspace) -> int:
    """Locate the photos of a table."""
    from orchestration.commands.common import counter
    from orchestration.locate.locate import who_answers
    from orchestration.locate.table import locate_table

    source = who_answers(workspace, options.recipe, question, _say)
    with counter("photos located") as bar:
        summary = locate_table(source, options.table, options.output, question, _say, bar.update)
    print(f"{summary}; answers: {options.output}")
    return 0 if summary.located else 1


def _check_table(options: argparse.Namespace) -> None:
    """Raise UsageError, before anything is computed, for options that do not go together."""
    if options.table is None:
        if options.output:
            raise UsageError(
                "--output is for --table; answers of single photos go to a page with --map, or --json"
            )
        if not options.photos and not options.album:
            raise UsageError(
                "name the photos to locate, or a table of them with --table, or a folder with --album"
            )
        return
    if options.photos:
        raise UsageError(f"--table {options.table} and the photo {options.photos[0]} exclude each other")
    if options.overhead is not None:
        raise UsageError(f"--table {options.table} and --overhead {options.overhead} exclude each other")
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
