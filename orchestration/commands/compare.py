"""`geoloc compare`: methods side by side on the same test photos."""

from __future__ import annotations

import argparse

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command
from orchestration.errors import UsageError


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "compare", "compare methods of several recipes on the same test photos",
        "  geoloc compare fine boxes triangles kmeans       each one's first method by class\n"
        "  geoloc compare 'default:[L]NN' 'default:[L]kNN σ=4' coarse\n"
        "  geoloc compare fine boxes --json\n"
        "  geoloc compare fine fine@8                       fine and its training with seed 8, apart\n\n"
        "A recipe stands for all its trainings that are built: fine, fine@8 (geoloc build --recipe fine@8), ...\n"
        "Differences are from the first method, in points of accuracy, with their interval by photographer. They are\n"
        "marked better or worse where that is shown after correction for the number of comparisons (Holm).",
        run,
    )  # fmt: skip
    parser.add_argument(
        "methods",
        nargs="+",
        metavar="RECIPE[:METHOD]",
        help="a recipe's method; without METHOD its first by class",
    )
    parser.add_argument("--test", default="test", help="the test set (default: test)")
    parser.add_argument("--json", action="store_true", help="machine-readable tables")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    for method in options.methods:
        if not method.partition(":")[0].strip():
            raise UsageError(f"METHODS must be RECIPE or RECIPE:METHOD; got {method!r}")
    # Only now, with the methods checked: pandas and torch take seconds to import.
    from orchestration.results.compare import compare

    found = compare(open_workspace(options), options.methods, options.test)
    print(json_text(found.to_dict()) if options.json else found)
