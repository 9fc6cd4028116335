"""`geoloc promote`: let a build serve, if it is better than what serves."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command, add_recipe, add_who, at_least
from orchestration.errors import UsageError
from orchestration.workspace import Workspace


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "promote", "compare a build with the model in service, and let it serve if it is better",
        "  geoloc promote                                  the newest build of the default recipe\n"
        "  geoloc promote --recipe fine --version 3        version 3 of geoloc-fine in MLflow\n"
        "  geoloc promote --force --reason 'the champion is broken'\n"
        "  geoloc promote --history                        what was decided, by whom and why\n\n"
        "Both answer the same test photos, which neither has learned from; the section promotion of params.yaml says\n"
        "how much better it must be, and how much worse it may be anywhere. The decision, its table and its reasons\n"
        "are kept in MLflow and in Dagster. The first model is promoted without a comparison. The exit status is 1 if\n"
        "the champion stays.",
        run,
    )  # fmt: skip
    add_recipe(parser)
    parser.add_argument(
        "--version", type=at_least(1), metavar="N", help="of geoloc-RECIPE in MLflow (default: the newest)"
    )
    parser.add_argument("--force", action="store_true", help="also against the policy; needs --reason")
    add_who(parser)
    parser.add_argument(
        "--history", action="store_true", help="list decisions and rollbacks; promote nothing"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable decision or history")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if the champion stays."""
    if options.history and (options.force or options.version or options.reason or options.by):
        raise UsageError("--history promotes nothing: leave --version, --force, --reason and --by out")
    if options.force and not (options.reason or "").strip():
        raise UsageError("--force needs --reason TEXT: it is recorded")
    workspace = open_workspace(options)
    if options.history:
        _tell_history(workspace, options.json)
        return 0
    from orchestration.graph.promotion import report
    from orchestration.operations.promotion import KEPT, promote

    found = promote(
        workspace,
        recipe=options.recipe,
        number=options.version,
        force=options.force,
        reason=options.reason or "",
        by=options.by or "",
        say=lambda line: print(f"geoloc: {line}", file=sys.stderr, flush=True),
    )
    if found is None:
        print("it is the champion already")
        return 0
    report(workspace, found)
    if options.json:
        told = {"outcome": found.outcome, "champion": str(found.version), "challenger": found.challenger}
        print(json_text(told | found.decision.to_dict()))
    else:
        table = found.decision.table_text()
        print("\n".join([*([table, ""] if table else []), *found.lines]))
    return 1 if found.outcome == KEPT else 0


def _tell_history(workspace: Workspace, as_json: bool) -> None:
    from orchestration.operations.promotion import history
    from orchestration.stores.champion import champion

    decided, now = history(workspace), champion(workspace)
    if as_json:
        print(json_text(decided))
        return
    for one in decided:
        print(_line(one))
        if one["reason"]:
            print(f"  {one['by']}: {one['reason']}")
        for reason in one["reasons"]:
            print(f"  {reason}")
    print("there is no champion" if now is None else f"champion: {now}, of {now.recipe}")


def _line(one: dict[str, Any]) -> str:
    way = f"{one['from'] or 'none'} → {one['to']}" if one["to"] else f"{one['from']} stays"
    return f"{one['at']}  {one['outcome']}: {one['challenger']} ({way}), by {one['by']}" + ", forced" * (
        one["forced"] and one["outcome"] == "promoted"
    )
