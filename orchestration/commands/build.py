"""`geoloc build`: build what is out of date."""

from __future__ import annotations

import argparse

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command, add_recipe


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "build", "build what is out of date in a recipe, from photos to report",
        "  geoloc build\n  geoloc build --recipe im2gps3k\n  geoloc build --only splits partition",
        run,
    )  # fmt: skip
    add_recipe(parser)
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="build only these stages")
    parser.add_argument("--force", action="store_true", help="rebuild stages that are up to date too")
    parser.add_argument("--no-commit", action="store_true", help="leave dvc.lock alone (dvc repro uses this)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.graph.headless import build

    build(
        open_workspace(options),
        options.recipe,
        only=options.only,
        force=options.force,
        commit=not options.no_commit,
    )
