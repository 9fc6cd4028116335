"""`geoloc audit`: what made an artefact."""

from __future__ import annotations

import argparse
import json

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "audit", "show what made an artefact: inputs, code, settings and runs, down to the photos",
        "  geoloc audit report\n  geoloc audit default/classifier --json\n  geoloc audit build/default/evaluation",
        run,
    )  # fmt: skip
    parser.add_argument(
        "artefact", help="a stage, RECIPE/STAGE, a path in build/, a content hash or a run id"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable tree")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.lineage.audit import audit, audit_lines, find_artefact
    from orchestration.lineage.build import Build

    workspace = open_workspace(options)
    recipe, stage = find_artefact(workspace, options.artefact)
    tree = audit(Build(workspace, recipe), stage)
    print(json.dumps(tree, indent=2, ensure_ascii=False) if options.json else "\n".join(audit_lines(tree)))
