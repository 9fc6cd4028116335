"""`geoloc ingest`: add photos to the pool."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from orchestration.commands.common import ingest_into, open_workspace, record_data
from orchestration.commands.downloads import (
    URLS_EXAMPLES,
    add_download_options,
    download_settings,
    spool_folder,
)
from orchestration.commands.pair_sources import KINDS as PAIR_KINDS
from orchestration.commands.pair_sources import add_pair_kinds, ingest_pairs
from orchestration.commands.parsing import HELP, Parser, add_command, add_workspace, named_columns
from orchestration.errors import UsageError
from orchestration.stores.lock import photos_lock
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_FEW = 20_000
"""Photos up to which ingest tries whether they can be split; a larger collection has people enough."""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options, a parser for each kind of source."""
    parser = add_command(
        subparsers, "ingest", "add photos to the pool and record the new data version",
        "  geoloc ingest folder ~/Pictures --photographer me\n"
        "  geoloc ingest table photos.csv --photos pictures/ --column latitude=lat --column longitude=lon\n"
        "  geoloc ingest yfcc yfcc100m_dataset.bz2 --photos pictures/\n"
        "  geoloc ingest webdataset 'shards/*.tar'\n"
        "  geoloc ingest mp16 'mp16/*.msg'\n"
        "  geoloc ingest webdataset 's3://bucket/shards/{00000..00010}.tar'\n"
        "  geoloc ingest urls photos.csv --column url=link --delay 0.1\n"
        "  geoloc ingest vigor ~/VIGOR                     pairs of street photos and overhead tiles\n"
        "  geoloc ingest overhead area.tif                 overhead tiles for the street photos of the pool",
        run,
    )  # fmt: skip
    parser.epilog = f"{parser.epilog}" + (
        "\n\nwherever a path of photos or of a table is given it may be an address: http://, https://, s3://,"
        " gs:// or hf://\n(pip install 'geoloc[s3]', [gs], [hf])."
    )
    kinds = parser.add_subparsers(required=True, metavar="SOURCE", parser_class=Parser)

    def kind(name: str, help: str, metavar: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = kinds.add_parser(
            name, help=help, description=help, formatter_class=HELP
        )
        made.add_argument("path", metavar=metavar)
        add_workspace(made)
        made.add_argument(
            "--source",
            metavar="NAME",
            help="the collection's name in the catalog (default: as its file or folder, distinct from all others)",
        )
        made.add_argument("--workers", type=int, default=0, help="decoding threads (default: one per core)")
        made.add_argument(
            "--short-side", type=int, metavar="PX", help="scale larger photos down to this short side"
        )
        made.add_argument(
            "--min-side",
            type=int,
            metavar="PX",
            help="turn away photos with a smaller side (default: 16)",
        )
        made.add_argument("--no-dvc", action="store_true", help="do not record the new data version")
        made.set_defaults(kind=name)
        return made

    folder = kind("folder", "a folder of photos with EXIF GPS; its sub-folders are albums", "FOLDER")
    folder.add_argument("--photographer", help="who took them (default: the first folder below FOLDER)")
    folder.add_argument(
        "--follow-links", action="store_true", help="follow links to folders, and to files outside FOLDER"
    )
    table = kind("table", "a CSV or Parquet table plus a folder of photos", "TABLE")
    table.add_argument(
        "--photos",
        metavar="FOLDER",
        help="'none' for metadata only (default: the table's own folder)",
    )
    yfcc = kind("yfcc", "YFCC100M metadata, either layout, .tsv or .bz2", "FILE")
    yfcc.add_argument("--photos", metavar="FOLDER", help="default: metadata only")
    tars = kind("webdataset", "a WebDataset tar set as img2dataset writes it", "TARS")
    shards = kind("mp16", "MP-16's msgpack shards", "SHARDS")
    shards.add_argument(
        "--table",
        metavar="CSV",
        help="coordinates by id: IMG_ID, LAT, LON (default: such a CSV beside the shards, if they lack them)",
    )
    urls = kind("urls", "photos that a table lists by their addresses; they are downloaded", "TABLE")
    urls.epilog = URLS_EXAMPLES
    urls.add_argument(
        "--table",
        metavar="CSV",
        help="coordinates by id: IMG_ID, LAT, LON (default: such a CSV beside TABLE, if it lacks them)",
    )
    urls.add_argument(
        "--again", action="store_true", help="ask also for what was final (404, 410, no photo, ...)"
    )
    add_download_options(urls)
    add_pair_kinds(kind)
    for made in (table, tars, shards, urls):
        made.add_argument(
            "--column", action="append", default=[], metavar="FIELD=NAME", help="a field's column name"
        )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    given: dict[str, Any] = {}
    if options.kind == "folder":
        given |= {"photographer": options.photographer, "follow_links": options.follow_links}
    if options.kind in ("table", "yfcc") and options.photos is not None:
        given["photos"] = options.photos
    if options.kind in ("mp16", "urls") and options.table is not None:
        given["table"] = options.table
    if options.kind == "urls":
        given |= {"again": options.again, "download": download_settings(options)}
    if options.kind in ("table", "webdataset", "mp16", "urls"):
        given["columns"] = named_columns(options.column)
    if options.source is not None and not options.source.strip():
        raise UsageError(f"--source must be a name, got {options.source!r}")
    workspace = open_workspace(options)
    if options.kind == "urls":
        given |= {"spool": spool_folder(workspace, options.path)}
    settings = {
        "workers": options.workers,
        "resize_short_side": options.short_side,
        **({} if options.min_side is None else {"min_side": options.min_side}),
    }
    with photos_lock(workspace, f"geoloc ingest {options.kind} {options.path}"):
        if options.kind in PAIR_KINDS:
            ingest_pairs(workspace, options, settings)
        else:
            ingest_into(
                workspace, options.kind, options.path, source=options.source, settings=settings, **given
            )
        _say_what_does_not_fit(workspace)
        if not options.no_dvc:
            record_data(workspace)


def _say_what_does_not_fit(workspace: Workspace) -> None:
    """Print what keeps these photos from being built as params.yaml asks: better known now than when a build stops.
    And that trips are held out, if they are."""
    from geoloc.partitions.base import PartitionError
    from geoloc.partitions.thresholds import fit_partition
    from geoloc.photos.catalog import count_photos, read_catalog
    from geoloc.photos.owners import photographer_keys
    from geoloc.photos.splits import make_splits, unit_keys
    from geoloc.photos.trips import are_trips
    from geoloc.settings import SettingsError
    from orchestration.plan.settings import load_settings

    if not 0 < count_photos(workspace.pool) <= _FEW:
        return
    catalog = read_catalog(workspace.pool)
    try:
        settings = load_settings(workspace)
    except SettingsError as error:
        print(f"note: geoloc build would stop: {error}")
        return
    units = unit_keys(catalog, settings.splits)
    if are_trips(units):
        own = catalog[~catalog["source"].isin(list(settings.splits.external.values()))]
        why = (
            "" if settings.splits.by == "trip" else f"{_how_few(photographer_keys(own).value_counts())}, so "
        )
        print(
            f"note: {why}{units.nunique()} trips are held out in place of photographers (splits.by:"
            f" {settings.splits.by}); the report says what that cannot show. To measure on other people's photos,"
            " ingest some and name their source in splits.external"
        )
    try:
        splits = make_splits(catalog, settings.splits, settings.seed)
    except SettingsError as error:
        print(f"note: geoloc build would stop, as these photos cannot be split: {error}")
        return
    train = catalog.merge(splits[splits["split"] == "train"], on="photo_id")
    for name, partition in settings.partitions.items():
        try:
            fit_partition(partition, train["latitude"], train["longitude"])
        except PartitionError as error:
            print(
                f"note: geoloc build would stop, as the {len(train)} training photos do not fit partitions.{name}:"
                f" {error}"
            )


def _how_few(people: pd.Series) -> str:
    """Why people cannot be held out, from the number of photos by each, the largest first."""
    if len(people) == 1:
        return "all known photographers are one person"
    if int(people.iloc[0]) * 2 > int(people.sum()):
        return f"one person took {people.iloc[0]} of {people.sum()} photos"
    return f"these photos are by {len(people)} people"
