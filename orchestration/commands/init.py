"""`geoloc init`: make a workspace."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestration.commands.parsing import add_command


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "init", "make a workspace: a folder under git and DVC for one collection of photos",
        "  geoloc init ~/holidays\n  geoloc init ~/planet --sample\n"
        "  geoloc init ~/im2gps3k --note 'Im2GPS3k is a published test set'",
        run,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--note", default="", help="what the photos are; shown at the top of every report")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="settings for photos of the sample planet (geoloc sample), not for real photos",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from orchestration.workspace import init_workspace

    workspace = init_workspace(options.folder, options.note, sample=options.sample)
    add_photos = "sample" if options.sample else "ingest folder PHOTOS"
    print(
        f"{workspace.root} is a workspace; add photos with: geoloc --workspace {options.folder} {add_photos}"
    )
