"""`geoloc accept`: keep outputs although the code that makes them changed."""

from __future__ import annotations

import argparse

from orchestration.commands.common import commit, open_workspace
from orchestration.commands.parsing import add_command, add_recipe


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "accept", "keep the output of stages although their code changed, with a reason for the audit",
        "  geoloc accept classifier --reason 'renamed a variable'\n"
        "  geoloc accept index evaluation --recipe multi --reason 'only the error texts changed'\n\n"
        "An accepted stage counts as up to date until its code changes again. The record of its output keeps who\n"
        "accepted it, when and why; `geoloc audit` shows that. Refused where inputs, settings or files changed too:\n"
        "then build it again. Either all of the named stages are accepted or none.",
        run,
    )  # fmt: skip
    parser.add_argument("stages", nargs="+", metavar="STAGE")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why the output is still good")
    add_recipe(parser)
    parser.add_argument("--no-commit", action="store_true", help="leave dvc.lock alone")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.lineage.accept import accept
    from orchestration.lineage.build import Build

    build = Build(open_workspace(options), options.recipe)
    accepted = accept(build, options.stages, options.reason)
    for record in accepted:
        made, now = record.code_version, record.accepted[-1].code_version
        print(f"{build.name(record.stage)}: made by code {made}, accepted for code {now}")
    if not options.no_commit:
        commit(build.workspace, build.recipe, [record.stage for record in accepted])
