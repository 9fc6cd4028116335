"""`geoloc locate`: answer where photos were taken."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command, add_recipe, at_least
from orchestration.locate.question import COMBINATIONS, LEVELS, METHODS, MODELS, Question


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "locate", "tell where photos were taken, and why",
        "  geoloc locate photo.jpg\n  geoloc locate *.jpg --method knn --json\n"
        "  geoloc locate photo.jpg --map where.html\n"
        "  geoloc locate photo.jpg --level street          which street, rather than which country?\n"
        "  geoloc locate photo.jpg --level country --abstain-below 0.5\n"
        "  geoloc locate photo.jpg --recipe multi --combine overlay\n\n"
        "If the build has localizers.calibrate, confidences are scaled by a temperature fitted on validation photos.\n"
        "If it has localizers.coverages, each answer comes with regions: cells that contain the photo with the given\n"
        "probability, outlined on the map.",
        run,
    )  # fmt: skip
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    add_recipe(parser)
    parser.add_argument("--method", choices=METHODS, default="class", help="default: class")
    parser.add_argument(
        "--model", choices=MODELS, default="classifier", help="by neighbour: whose embeddings"
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
        help="by class: the point most probably within 1, 25, 200, 750 or 2500 km; its confidence is that probability",
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


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    question = Question(
        options.method,
        options.model,
        options.alternatives,
        options.partition,
        options.level,
        options.combine,
        options.abstain_below,
    )
    workspace = open_workspace(options)
    # Only now, with the question checked: torch takes seconds to import.
    from orchestration.lineage.build import Build
    from orchestration.locate.locate import locate, map_page

    build = Build(workspace, options.recipe)
    places = locate(
        build, options.photos, question, say=lambda line: print(f"geoloc: {line}", file=sys.stderr)
    )
    if options.map:
        from geoloc.files import write_text

        write_text(options.map, map_page(build, places))
    if options.json:
        print(json.dumps([place.to_dict() for place in places], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(str(place) for place in places))
    if options.map and not options.json:
        print(f"\nmap: {options.map}")
