"""`geoloc grow`: take in new photos by the policy: refresh what serves, train again if it is time."""

from __future__ import annotations

import argparse

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command, add_recipe, add_who
from orchestration.errors import UsageError
from orchestration.lineage.person import person


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "grow", "build with new photos: refresh embeddings and index, train again if the policy says so",
        "  geoloc grow --look                              what changed, and what would be done; does nothing\n"
        "  geoloc grow\n"
        "  geoloc grow --retrain --reason 'a new country' --by Ada\n\n"
        "With growth.admit: retraining in params.yaml, new photos wait outside of the splits: a refresh embeds them,\n"
        "adds those that may train later to the index, and evaluates; the network stays. They are admitted, and\n"
        "everything is trained again, when the photos have grown or drifted as far as the policy says, or by\n"
        "--retrain. With growth.admit: always, each build admits them and trains. The result is a challenger: geoloc\n"
        "promote decides whether it serves.",
        run,
    )  # fmt: skip
    add_recipe(parser)
    parser.add_argument("--look", action="store_true", help="tell what changed, and what would be done")
    parser.add_argument("--retrain", action="store_true", help="admit the photos that wait, and train again")
    add_who(parser)
    parser.add_argument("--json", action="store_true", help="with --look: machine-readable")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.look and (options.retrain or options.reason or options.by):
        raise UsageError("--look does nothing: leave --retrain, --reason and --by out")
    if options.retrain and not (options.reason or "").strip():
        raise UsageError("--retrain needs --reason TEXT: it is recorded")
    if options.reason and not options.retrain:
        raise UsageError("--reason is for --retrain: a refresh has the policy's reasons")
    if options.json and not options.look:
        raise UsageError("--json is for --look")
    workspace = open_workspace(options)
    from orchestration.operations.growth import look

    seen = look(workspace, options.recipe)
    if options.json:
        print(json_text(seen.facts()))
        return
    print(seen)
    if options.look:
        return
    from orchestration.graph.growth import report
    from orchestration.graph.headless import build

    report(workspace, seen)
    tags = {
        "geoloc/growth": options.recipe,
        "geoloc/reason": options.reason or "; ".join(seen.reasons) or "refresh",
    }
    by = {"geoloc/by": options.by or person()} if options.retrain else {}
    build(workspace, options.recipe, admit=options.retrain or bool(seen.reasons), tags=tags | by)
