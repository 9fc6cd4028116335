"""`geoloc rollback`: let the model that served before serve again."""

from __future__ import annotations

import argparse

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command, add_who, at_least
from orchestration.errors import UsageError


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "rollback", "let the model that served before serve again",
        "  geoloc rollback --reason 'wrong in Norway' --by Ada\n"
        "  geoloc rollback --to 2 --reason 'the last one that was right'\n\n"
        "One write: model, partition, index and calibration change together. Works while a build runs. It is recorded\n"
        "with who and why; geoloc promote --history shows that.",
        run,
    )  # fmt: skip
    parser.add_argument(
        "--to",
        type=at_least(1),
        metavar="N",
        help="version N of geoloc in MLflow (default: the champion before)",
    )
    add_who(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if not (options.reason or "").strip():
        raise UsageError("--reason TEXT is needed: it is recorded")
    workspace = open_workspace(options)
    from orchestration.graph.promotion import report
    from orchestration.operations.promotion import rollback

    found = rollback(workspace, reason=options.reason, by=options.by or "", to=options.to)
    report(workspace, found)
    print("\n".join(found.lines))
