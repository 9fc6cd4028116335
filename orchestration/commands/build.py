"""`geoloc build`: build what is out of date."""

from __future__ import annotations

import argparse

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command, add_recipe
from orchestration.errors import UsageError


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "build", "build what is out of date in a recipe, from photos to report",
        "  geoloc build\n  geoloc build --recipe im2gps3k\n  geoloc build --only splits partition\n"
        "  geoloc build --drop old_idea                    forget a recipe whose file is gone; its outputs stay",
        run,
    )  # fmt: skip
    add_recipe(parser)
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="build only these stages")
    parser.add_argument("--force", action="store_true", help="rebuild stages that are up to date too")
    parser.add_argument("--no-commit", action="store_true", help="leave dvc.lock alone (dvc repro uses this)")
    parser.add_argument(
        "--drop", nargs="+", default=[], metavar="RECIPE",
        help="build nothing; remove the stages of these recipes from dvc.yaml and dvc.lock",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.drop and (options.only or options.force or options.no_commit):
        raise UsageError("--drop builds nothing: leave --only, --force and --no-commit out")
    from orchestration.graph.headless import build, drop

    workspace = open_workspace(options)
    if options.drop:
        drop(workspace, options.drop)
        return
    build(
        workspace,
        options.recipe,
        only=options.only,
        force=options.force,
        commit=not options.no_commit,
    )
