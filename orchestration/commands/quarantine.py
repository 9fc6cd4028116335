"""`geoloc quarantine`: what ingest turned away, and why."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command, at_least
from orchestration.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "quarantine", "list what ingest turned away, and why",
        "  geoloc quarantine                                 how many inputs there are by reason, and each input\n"
        "  geoloc quarantine --reason missing_coordinates    inputs with this reason\n"
        "  geoloc quarantine --source Pictures --mended      of one source, with what has become good since",
        run,
    )  # fmt: skip
    parser.add_argument("--reason", metavar="R", help="only this reason")
    parser.add_argument("--source", metavar="S", help="only this source")
    parser.add_argument("--mended", action="store_true", help="also list what is in the pool by now")
    parser.add_argument("--most", type=at_least(0), metavar="N", help="list at most N inputs (default: all)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from geoloc.photos.origins import source_names
    from geoloc.photos.quarantine import Reason, count_reasons, read_quarantine

    workspace = open_workspace(options)
    found = read_quarantine(workspace.pool, mended=True)
    for name, allowed in (("source", source_names(workspace.pool)), ("reason", {str(r) for r in Reason})):
        wanted = getattr(options, name)
        if wanted is not None:
            if wanted not in allowed | set(found[name]):
                raise UsageError(f"--{name} must be one of {', '.join(sorted(allowed))}; got {wanted!r}")
            found = found[found[name] == wanted]
    still = found[found["mended_by"].isna()]
    mended = len(found) - len(still)
    for reason, count in count_reasons(still).itertuples(index=False):
        print(f"{count:>9}  {reason}")
    print(f"{len(still):>9}  in all{f', and {mended} mended since' if mended else ''}")
    listed = found if options.mended else still
    _list(listed if options.most is None else listed.head(options.most))
    if options.most is not None and options.most < len(listed):
        print(f"... and {len(listed) - options.most} more")


def _list(rows: pd.DataFrame) -> None:
    """A line an input, under a line for each source and reason."""
    kept = {"field": ", photo kept", "label": ", nothing turned away", "pair": ", photo kept"}
    for (source, reason, severity), group in rows.groupby(["source", "reason", "severity"], sort=True):
        print(f"\n{_line(str(source))}: {reason}{kept.get(str(severity), '')}")
        for row in group.itertuples():
            name = f" ({row.photo_id})" if isinstance(row.photo_id, str) else ""
            name = "" if name == f" ({row.reference})" else name
            since = f"; mended: the pool has it as {row.mended_by}" if isinstance(row.mended_by, str) else ""
            print(_line(f"  {row.reference}{name}: {row.detail}{since}"))


def _line(text: str) -> str:
    """Text of outside on one line: no control character reaches the terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
