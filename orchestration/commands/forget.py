"""`geoloc forget`: take a photo, or all photos by a photographer, down everywhere."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command
from orchestration.errors import UsageError

if TYPE_CHECKING:
    from orchestration.operations.take_down import Done

GC = ("cache", "remote")
"""Those of orchestration.operations.take_down, repeated here because `geoloc --help` must not import it."""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "forget", "take a photo, or all by a photographer, down everywhere, and keep it from coming back",
        "  geoloc forget --photo p1-000002 --reason 'asked by its owner'\n"
        "  geoloc forget --photographer p0c5d... --reason 'ticket 12' --gc cache --gc remote\n"
        "  geoloc forget --gc cache                        collect the garbage of earlier take-downs\n"
        "  geoloc forget --finish                          finish one that was interrupted\n\n"
        "Bytes leave the shards, rows the catalog, vectors embeddings and indexes. Reports are removed, and what\n"
        "MLflow and Dagster kept of the photo. A keyed hash stays in the pool: what comes back is turned away and\n"
        "counted. DVC keeps older versions of the photos until --gc: these can then not be restored any more, nor\n"
        "what was built from them. Models that saw the photo go on answering; they are listed, to be trained again.",
        run,
    )  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--photo", metavar="ID", help="its id in the catalog")
    what.add_argument("--photographer", metavar="ID", help="as in the catalog, or as ingest was given it")
    what.add_argument("--finish", action="store_true", help="finish a take-down that was interrupted")
    parser.add_argument("--reason", metavar="TEXT", help="why; kept, so it should name nobody")
    parser.add_argument(
        "--gc",
        choices=GC,
        action="append",
        default=[],
        help="also remove older versions of photos and builds from DVC's cache, or from its remote and the cache",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    asked = options.photo is not None or options.photographer is not None
    if asked and not (options.reason or "").strip():
        raise UsageError("--reason TEXT is needed: it is kept with the tombstone")
    if not asked and not options.finish and not options.gc:
        raise UsageError("name what to forget with --photo or --photographer")
    workspace = open_workspace(options)
    from orchestration.operations.take_down import collect, finish, forget

    def say(line: str) -> None:
        print(f"geoloc: {line}", file=sys.stderr, flush=True)

    if asked:
        done: Done | None = forget(
            workspace,
            photo=options.photo,
            photographer=options.photographer,
            reason=options.reason,
            gc=options.gc,
            say=say,
        )
    else:
        done = finish(workspace)
        if done is None and options.finish:
            print("no take-down was interrupted")
        if options.gc and (done is None or not set(options.gc) <= set(done.collected)):
            collect(workspace, options.gc)
            print(f"garbage collected: {', '.join(options.gc)}")
    if done is not None:
        _tell(done)


def _tell(done: Done) -> None:
    count = f"{done.photos:,} photo{'s' * (done.photos != 1)}"
    print(f"{count} taken down; data version {done.after}, in data.dvc")
    if done.models:
        print("models that saw them go on answering; train them again with geoloc build:")
        for name, photos in done.models.items():
            print(f"  {name} ({photos:,} of them)")
    if done.collected:
        print(
            f"data versions before {done.after[:12]} cannot be restored any more (--gc {', '.join(done.collected)})"
        )
    else:
        print(
            "DVC may still keep older data versions, with the bytes: remove them from its cache and remote with: "
            "geoloc forget --gc cache --gc remote"
        )
    if done.external:
        print(
            f"embeddings by another program still have them; remove their rows from: {', '.join(done.external)}"
        )
    if done.short_ids:
        print(f"logs and histories were not searched for {', '.join(done.short_ids)}: too short to be a name")
