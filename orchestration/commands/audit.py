"""`geoloc audit`: what made an output, a number or a model, and where a photo is used."""

from __future__ import annotations

import argparse
import json
import math

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "audit", "show what made an output or a number, down to the photos; or where a photo is used",
        "  geoloc audit report                             the report of the only recipe that has one\n"
        "  geoloc audit default/classifier --json          an output, by recipe and stage\n"
        "  geoloc audit 'report:test/[L]NN/city'           a number: [RECIPE/]report:TEST/METHOD/LEVEL\n"
        "  geoloc audit build/default/index/classifier     a path: what it is part of\n"
        "  geoloc audit data/shards/photos-000000.tar      a shard\n"
        "  geoloc audit p1-000002                          a photo, by its id, or photo:ID\n"
        "  geoloc audit holiday.jpg                        a photo, by a picture of it\n"
        "  geoloc audit models:/geoloc/3                   a model of MLflow\n"
        "  geoloc audit 89283d59253f477384d53d3c386f4e0f   a run of MLflow or Dagster\n"
        "  geoloc audit ea46d2fb                           a hash, or its first 8 digits: of an output or a file\n"
        "                                                  of it, a photo's bytes, the data version, in dvc.lock",
        run,
    )  # fmt: skip
    parser.add_argument("artefact", metavar="WHAT", help="what to look at, see the examples")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.lineage.asked import Output, find
    from orchestration.lineage.audit import answer_lines, audit_asked
    from orchestration.lineage.build import Build
    from orchestration.run.facts import read_facts

    workspace = open_workspace(options)
    asked = find(workspace, options.artefact)
    answer = audit_asked(workspace, asked)
    if isinstance(asked, Output) and not asked.number:
        build = Build(workspace, asked.recipe)
        found = read_facts(build, build.built(asked.stage))
        # Tables, pictures and other long facts are for the Dagster UI.
        answer["facts"] = {name: value for name, value in found.items() if _is_short(value)}
    print(
        json.dumps(answer, indent=2, ensure_ascii=False) if options.json else "\n".join(answer_lines(answer))
    )


def _is_short(value: object) -> bool:
    return (isinstance(value, str) and "\n" not in value) or (
        isinstance(value, int | float) and math.isfinite(value)
    )
