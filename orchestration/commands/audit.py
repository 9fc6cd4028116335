"""`geoloc audit`: what made an output, a number, a model or an answer; where a photo is used; and whether all that is
recorded is still there, byte for byte."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from orchestration.commands.common import check_writable, json_text, open_workspace
from orchestration.commands.parsing import add_command
from orchestration.errors import UsageError
from orchestration.workspace import Workspace


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
        "  geoloc audit answers.json                       answers of geoloc locate --json, or --table's Parquet\n"
        "  geoloc audit 'answers.parquet#holiday.jpg'      one of them, by its file, id or row\n"
        "  geoloc audit models:/geoloc/3                   a model of MLflow\n"
        "  geoloc audit 89283d59253f477384d53d3c386f4e0f   a run of MLflow or Dagster\n"
        "  geoloc audit 87bfecf7-84c6-4486:default/index   a materialization: the Dagster run and the asset\n"
        "  geoloc audit ea46d2fb                           a hash, or its first 8 digits: of an output or a file\n"
        "                                                  of it, a photo's bytes, the data version, in dvc.lock\n"
        "  geoloc audit report --html report-audit.html    the graph as an offline page\n"
        "  geoloc audit report --openlineage events.ndjson OpenLineage events, for a team's catalogue\n"
        "  geoloc audit report --verify                    compute all hashes behind it again\n"
        "  geoloc audit --verify                           ... of the whole workspace\n"
        "  geoloc audit --uses photo:p1-000002             which outputs, models and reports used it\n"
        "  geoloc audit --uses photographer:p0c5d5f0a3b1c2d4e\n"
        "  geoloc audit --uses data-version:d6b2e0fa\n\n"
        "The exit status is 1 if --verify finds anything that is not as recorded.",
        run,
    )  # fmt: skip
    parser.add_argument("artefact", metavar="WHAT", nargs="?", help="what to look at, see the examples")
    parser.add_argument(
        "--uses", metavar="WHAT", help="look forward: photo:ID, photographer:ID or data-version:HASH"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compute all hashes again from the bytes on disk"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write an offline page with the graph")
    parser.add_argument(
        "--openlineage", type=Path, metavar="FILE", help="write OpenLineage events, a line of JSON each"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if --verify finds a difference."""
    _check(options)
    workspace = open_workspace(options)
    if options.uses:
        from orchestration.lineage.uses import uses, uses_lines

        found = uses(workspace, options.uses)
        print(json_text(found) if options.json else "\n".join(uses_lines(found)))
        return 0
    if options.artefact is None:
        from orchestration.lineage.rehash import verify_all

        verified = verify_all(workspace)
        print(json_text({"verified": verified.to_dict()}) if options.json else "\n".join(verified.lines))
        return 1 if verified.differs else 0
    return _look_back(options, workspace)


def _look_back(options: argparse.Namespace, workspace: Workspace) -> int:
    """What made the artefact, in the forms that are asked for."""
    from orchestration.lineage.asked import Output, find
    from orchestration.lineage.audit import audit_asked
    from orchestration.lineage.build import Build
    from orchestration.lineage.rehash import verify_tree
    from orchestration.lineage.shown import answer_lines
    from orchestration.run.facts import read_facts

    asked = find(workspace, options.artefact)
    answer = audit_asked(workspace, asked)
    if isinstance(asked, Output) and not asked.number and not asked.content:
        build = Build(workspace, asked.recipe)
        found = read_facts(build, build.built(asked.stage))
        # Tables, pictures and other long facts are for the Dagster UI.
        answer["facts"] = {name: value for name, value in found.items() if _is_short(value)}
    verified = verify_tree(workspace, answer) if options.verify else None
    if verified is not None:
        answer["verified"] = verified.to_dict()
    lines = [*answer_lines(answer), *(verified.lines if verified else ())]
    print(json_text(answer) if options.json else "\n".join(lines))
    if options.html:
        from geoloc.files import write_text
        from orchestration.lineage.page import audit_page

        write_text(options.html, audit_page(answer))
    if options.openlineage:
        from geoloc.files import write_text
        from orchestration.lineage.openlineage import events

        made = events(answer, workspace.root.name)
        write_text(options.openlineage, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made))
    return 1 if verified is not None and verified.differs else 0


def _check(options: argparse.Namespace) -> None:
    """Raise UsageError, before anything is computed, for options that do not go together."""
    if options.uses is not None:
        for name in ("artefact", "verify", "html", "openlineage"):
            if getattr(options, name):
                raise UsageError(
                    f"--uses and {'WHAT' if name == 'artefact' else f'--{name}'} exclude each other"
                )
        return
    if options.artefact is None:
        if not options.verify:
            raise UsageError(
                "name what to look at, look forward with --uses, or compute all hashes with --verify"
            )
        for name in ("html", "openlineage"):
            if getattr(options, name):
                raise UsageError(f"--{name} needs WHAT to look at, such as report")
    for name in ("html", "openlineage"):
        if getattr(options, name):
            check_writable(getattr(options, name), f"--{name}")


def _is_short(value: object) -> bool:
    return (isinstance(value, str) and "\n" not in value) or (
        isinstance(value, int | float) and math.isfinite(value)
    )
