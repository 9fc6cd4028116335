"""Parsing that the commands share. Light: `geoloc --help` imports this, and no command's work."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestration.workspace import WorkspaceError

HELP = argparse.RawDescriptionHelpFormatter
"""Keeps the line breaks of descriptions and examples."""


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviated options: a new option never breaks a script."""

    def __init__(self, **keywords: object) -> None:
        super().__init__(allow_abbrev=False, **keywords)  # type: ignore[arg-type]


def add_command(
    subparsers: argparse._SubParsersAction,
    name: str,
    help: str,
    examples: str,
    run: Callable[[argparse.Namespace], int | None],
) -> argparse.ArgumentParser:
    """Add the command `name`, done by `run(options)`; returns its parser, for its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=HELP,
    )
    add_workspace(parser)
    parser.set_defaults(run=run)
    return parser


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """Add `--workspace` after the command too, where people write it; one given before the command is kept."""
    parser.add_argument(
        "--workspace", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="default: this folder"
    )


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add `--recipe`."""
    parser.add_argument(
        "--recipe", default="default", help="a file in recipes/ (default: params.yaml without overrides)"
    )


def add_who(parser: argparse.ArgumentParser) -> None:
    """Add `--reason` and `--by`, which are recorded."""
    parser.add_argument("--reason", metavar="TEXT", help="why; recorded")
    parser.add_argument("--by", metavar="NAME", help="who decided it; recorded (default: your login)")


def at_least(least: int) -> Callable[[str], int]:
    """A type of option: a whole number of at least `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "whole number"  # argparse shows it in its error for other text
    return number


def named_columns(pairs: Sequence[str], option: str = "--column") -> dict[str, str]:
    """FIELD=NAME options as a mapping. Raises WorkspaceError for another form."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise WorkspaceError(f"{option} must be FIELD=NAME, such as latitude=lat; got {wrong[0]!r}")
    return dict(pair.split("=", 1) for pair in pairs)
