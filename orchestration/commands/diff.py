"""`geoloc diff`: why two reports differ."""

from __future__ import annotations

import argparse

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "diff", "tell why two reports differ, and how many answers changed",
        "  geoloc diff default fine                        two recipes\n"
        "  geoloc diff fine fine@8                         the same recipe with another seed\n"
        "  geoloc diff ffee287e2d854f2c default            an earlier report, by the MLflow run of its evaluation\n\n"
        "Reasons are data, code, settings, seeds, packages (environment) and machine (hardware), for each output that\n"
        "differs. An answer has moved at a level if it is farther than that from where it was.",
        run,
    )  # fmt: skip
    parser.add_argument("first", metavar="A", help="a recipe, a report or an evaluation, as in geoloc audit")
    parser.add_argument("second", metavar="B")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.results.diff import diff

    found = diff(open_workspace(options), options.first, options.second)
    print(json_text(found.to_dict()) if options.json else "\n".join(found.lines))
