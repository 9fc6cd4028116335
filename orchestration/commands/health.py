"""`geoloc health`: whether a build is still good for the photos that come."""

from __future__ import annotations

import argparse

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command, add_recipe


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "health", "check drift, accuracy by region and calibration over time, and the indexes of a build",
        "  geoloc health\n  geoloc health --recipe fine --json\n\n"
        "Bounds are in params.yaml, section health. The exit status is 1 if a check fails. The Dagster UI has\n"
        "the same checks on the asset health of each recipe.",
        run,
    )  # fmt: skip
    add_recipe(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable, with the tables")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if a check fails."""
    from orchestration.lineage.build import Build
    from orchestration.operations.health import health

    found = health(Build(open_workspace(options), options.recipe))
    if options.json:
        print(json_text([vars(one) for one in found]))
    else:
        print(
            "\n".join(f"{'ok    ' if one.passed else 'FAILED'}  {one.name}: {one.summary}" for one in found)
        )
    return 0 if all(one.passed for one in found) else 1
