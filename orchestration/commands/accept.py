"""`geoloc accept`: keep outputs although the code that makes them changed."""

from __future__ import annotations

import argparse

from orchestration.commands.common import commit, open_workspace
from orchestration.commands.parsing import add_command, add_recipe
from orchestration.errors import UsageError


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "accept", "keep outputs although their code changed or a check failed, with a reason",
        "  geoloc accept classifier --reason 'renamed a variable'\n"
        "  geoloc accept index evaluation --recipe multi --reason 'only the error texts changed'\n"
        "  geoloc accept splits --check splits_suite --reason 'a small collection, looked at by hand'\n\n"
        "An accepted stage counts as up to date until its code changes again. The record of its output keeps who\n"
        "accepted it, when and why; `geoloc audit` shows that. Refused where inputs, settings or files changed too:\n"
        "then build it again. Either all of the named stages are accepted or none.",
        run,
    )  # fmt: skip
    parser.add_argument("stages", nargs="+", metavar="STAGE")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why the output is still good")
    parser.add_argument(
        "--check", metavar="NAME", help="accept a failed check of one stage, such as embeddings_suite"
    )
    add_recipe(parser)
    parser.add_argument("--no-commit", action="store_true", help="leave dvc.lock alone")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.lineage.accept import accept, accept_check
    from orchestration.lineage.build import Build
    from orchestration.stores.lock import build_lock

    if options.check and len(options.stages) != 1:
        raise UsageError(f"--check is of one STAGE; got {', '.join(options.stages)}")
    build = Build(open_workspace(options), options.recipe)
    with build_lock(build.workspace, f"geoloc accept {' '.join(options.stages)} --recipe {build.recipe}"):
        if options.check:
            result = accept_check(build, options.stages[0], options.check, options.reason)
            print(f"{build.name(options.stages[0])}: accepted although {result.summary}")
            return
        accepted = accept(build, options.stages, options.reason)
        for record in accepted:
            made, now = record.code_version, record.accepted[-1].code_version
            print(f"{build.name(record.stage)}: made by code {made}, accepted for code {now}")
        if not options.no_commit:
            commit(build.workspace, build.recipe, [record.stage for record in accepted])
