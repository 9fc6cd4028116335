"""`geoloc reproduce`: build a report again and compare every number."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestration.commands.common import json_text, open_workspace
from orchestration.commands.parsing import add_command


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "reproduce", "build a report again from its photos, settings and code, and compare every number",
        "  geoloc reproduce report\n"
        "  geoloc reproduce fine --into ~/again            keep the scratch workspace\n\n"
        "The photos of its data version come from DVC's cache, settings and code from the recorded commits with the\n"
        "stored uncommitted changes. It is built with as many threads as then; on the same processor every number is\n"
        "equal to the last digit. The exit status is 1 if one is not, or if the report cannot be made again.",
        run,
    )  # fmt: skip
    parser.add_argument(
        "report", metavar="REPORT", help="a recipe, a report or an evaluation, as in geoloc audit"
    )
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="build there, and keep it (default: a temporary folder)"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if a number differs."""
    from orchestration.results.reproduce import reproduce

    workspace = open_workspace(options)
    with _folder(options.into) as folder:
        found = reproduce(workspace, options.report, folder, _say)
        print(json_text(found.to_dict()) if options.json else "\n".join(found.lines))
    return 0 if found.reproduced else 1


@contextlib.contextmanager
def _folder(into: Path | None) -> Iterator[Path]:
    if into is not None:
        yield into.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="geoloc-reproduce-") as folder:
        yield Path(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
