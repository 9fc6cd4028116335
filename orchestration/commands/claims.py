"""`geoloc claims`: test the published findings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command
from orchestration.errors import UsageError

if TYPE_CHECKING:
    from orchestration.results.claims import ClaimsReport
    from orchestration.results.cross_view import CrossViewReport


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "claims", "test the published findings on the recipes that are built",
        "  geoloc claims\n  geoloc claims --json claims.json\n"
        "  geoloc claims --role 'fine=default:[L]82C' --role 'coarse=wide:[L]12C'\n"
        "  geoloc claims --cross-view\n"
        "  geoloc claims --role 'coarse ceiling=multi:coarse'      a ceiling is of a partition, not a method\n\n"
        "A difference is in points of accuracy, with its 95 % interval by photographer. Verdicts are corrected for\n"
        "the number of claims asked (Holm). By default only networks of equal splits, model and training are\n"
        "compared; the output lists the roles left empty.",
        run,
    )  # fmt: skip
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="NAME=RECIPE:METHOD",
        help="the method that plays a role of the claims; may be repeated (default: chosen from what is built)",
    )
    parser.add_argument(
        "--cross-view",
        action="store_true",
        help="the findings on street photos and overhead tiles instead, and the tables of the recipes that have them",
    )
    parser.add_argument("--test", default="test", help="the test set (default: test)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write roles and claims as JSON")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from geoloc.files import write_json

    if options.cross_view and (options.role or options.test != "test"):
        raise UsageError("--cross-view has roles and test pairs of its own: give neither --role nor --test")
    report = _report(options)
    print(report)
    if options.json:
        write_json(options.json, report.to_dict())
        print(f"\nas JSON: {options.json}")


def _report(options: argparse.Namespace) -> ClaimsReport | CrossViewReport:
    from orchestration.results.claims import claims
    from orchestration.results.cross_view import cross_view_report

    workspace = open_workspace(options)
    return (
        cross_view_report(workspace) if options.cross_view else claims(workspace, options.test, options.role)
    )
