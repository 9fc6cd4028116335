"""The command `geoloc`. Each command is a file in orchestration/commands that imports its work only when it runs."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestration.commands import (
    accept,
    audit,
    build,
    claims,
    compare,
    diff,
    forget,
    grow,
    health,
    index,
    ingest,
    init,
    locate,
    promote,
    quarantine,
    reproduce,
    retrieval,
    rollback,
    sample,
    score,
    settings,
    ui,
)
from orchestration.commands.parsing import HELP, Parser

COMMANDS = (
    init,
    sample,
    ingest,
    quarantine,
    build,
    grow,
    promote,
    rollback,
    index,
    locate,
    claims,
    compare,
    score,
    retrieval,
    audit,
    diff,
    reproduce,
    health,
    accept,
    forget,
    settings,
    ui,
)
"""In the order of `geoloc --help`. Each module has `add(subparsers)` and `run(options)`."""

DESCRIPTION = "Tell where a photo was taken, and keep the system that can do so honest for years."

EXAMPLES = """\
examples:
  geoloc build                                    build the chain of this workspace, photos to report
  geoloc build --recipe im2gps3k --only splits    one stage of one recipe
  geoloc locate photo.jpg --map where.html        where was this taken, and why
  geoloc claims                                   do the papers' findings hold here
  geoloc compare fine boxes kmeans                which way to cut the Earth is best
  geoloc score theirs.csv truth.csv               how good are anybody's predictions
  geoloc retrieval holidays ~/holidays --features theirs.parquet    published retrieval collections
  geoloc audit report                             what made this report
  geoloc promote                                  serve the newest build, if it is better than what serves
  geoloc diff default fine                        why do these reports differ
  geoloc reproduce report                         does it come out again, to the last digit
  geoloc health                                   is it still good for the photos that come
  geoloc accept index --reason 'only renamed'     its code changed, its output is still good
  geoloc forget --photo ID --reason 'asked to'    take a photo down everywhere
  geoloc init ~/holidays                          a new workspace for photos of your own
  geoloc --workspace ~/holidays ingest folder ~/Pictures --photographer me
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 it failed, 2 it was called wrongly."""
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except KeyboardInterrupt:
        print("geoloc: stopped; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from orchestration.errors import UsageError, is_for_users, told

        if options.debug or not is_for_users(error):
            raise
        print(f"geoloc: {told(error, options.workspace)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


@functools.cache
def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(prog="geoloc", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=HELP)
    parser.add_argument("--workspace", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
