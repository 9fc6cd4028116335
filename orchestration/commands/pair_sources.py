"""The kinds of `geoloc ingest` that add pairs of street photos and overhead tiles."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.commands.common import counter, ingest_into
from orchestration.errors import UsageError
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

LAYOUTS = {
    "cvusa": ("CVUSA: panoramas and tiles, with split_locations/all.csv", "FOLDER"),
    "cvact": ("CVACT: panoramas and tiles of Canberra, with ACT_data.mat", "FOLDER"),
    "vigor": ("VIGOR: panoramas and tiles of four cities", "FOLDER"),
    "gtcrossview": ("GT-CrossView of Vo and Hays: NAME.streetview.txt and NAME.overhead.txt", "FOLDER"),
    "pairs": ("pairs of street photos and overhead tiles that a CSV table lists", "TABLE"),
}
OVERHEAD = "overhead"
KINDS = (*LAYOUTS, OVERHEAD)


def add_pair_kinds(kind: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add a parser for each kind; `kind(name, help, metavar)` makes one with the options of all sources."""
    made = {name: kind(name, help, metavar) for name, (help, metavar) in LAYOUTS.items()}
    made["gtcrossview"].add_argument(
        "--table",
        metavar="CSV",
        help="coordinates by file: file, latitude, longitude (default: in file names)",
    )
    made["pairs"].add_argument(
        "--photos", metavar="FOLDER", help="where the files are (default: the table's folder)"
    )
    over = kind(OVERHEAD, "overhead tiles for street photos of the pool, cut from a raster", "RASTER")
    over.epilog = (
        "RASTER is a GeoTIFF or another georeferenced file, or a folder of map tiles z/x/y.png; an address too.\n"
        "A tile is cut around each photo of the pool that lies on it, north up."
    )
    add_tile_options(over, metres=128.0)
    over.add_argument("--of", metavar="SOURCE", help="for photos of this source only (default: of all)")
    over.add_argument(
        "--city", metavar="NAME", help="the city of these pairs, which a split holds out together"
    )
    over.add_argument(
        "--heading-from",
        choices=("true", "magnetic"),
        help="the north of headings that name none (default: these are left out)",
    )


def add_tile_options(parser: argparse.ArgumentParser, *, metres: float | None) -> None:
    """Options of how tiles are cut from a raster; `metres` None: the default is that of the recipe's pairs."""
    default = f"{metres:g}" if metres else "as the recipe's pairs"
    parser.add_argument(
        "--metres",
        type=positive,
        default=metres,
        metavar="M",
        help=f"width of a tile on the ground (default: {default})",
    )
    parser.add_argument(
        "--pixels", type=_pixels, default=256, metavar="PX", help="width of a tile's picture (default: 256)"
    )
    parser.add_argument(
        "--zoom", type=int, metavar="Z", help="map tiles: the level (default: the most detailed)"
    )
    parser.add_argument(
        "--pad",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="take tiles on the edge with imagery on at least this share, black elsewhere (default: 1, none)",
    )


def ingest_pairs(workspace: Workspace, options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Add what `options` name to the workspace's pools, and print the account."""
    from geoloc.photos.origins import claim_source

    name = options.source
    if name is None:
        name = claim_source(workspace.pool, options.kind, options.path, workspace.photographer_key())
    if options.kind == OVERHEAD:
        _ingest_tiles(workspace, options, name, settings)
    else:
        _ingest_layout(workspace, options, name, settings)


def _ingest_layout(
    workspace: Workspace, options: argparse.Namespace, name: str, settings: dict[str, Any]
) -> None:
    """Tiles, then photos, then pairs: so each pair finds both of its pictures."""
    from geoloc.photos.pairs import add_pairs, overhead_pool
    from geoloc.photos.sources.pair_layouts import read_layout

    other = {"gtcrossview": "table", "pairs": "photos"}.get(options.kind)
    layout = read_layout(options.kind, options.path, getattr(options, other) if other else None)
    tiles, photos, pairs = layout.tiles.copy(), layout.photos.copy(), layout.pairs.copy()
    # The pool has ids of many collections, which are called alike.
    for table, columns in (
        (tiles, ["photo_id"]),
        (photos, ["photo_id"]),
        (pairs, ["photo_id", "overhead_id"]),
    ):
        for column in columns:
            table[column] = name + "/" + table[column].astype(str)
    for reason, count in layout.notes.items():
        print(f"left out: {reason} {count}")
    with tempfile.TemporaryDirectory(prefix="geoloc-pairs-") as temporary:
        for what, table, pool in (
            ("tiles", tiles, overhead_pool(workspace.pool)),
            ("photos", photos, workspace.pool),
        ):
            file = Path(temporary) / f"{what}.csv"
            _known_columns(table).to_csv(file, index=False)
            ingest_into(
                workspace,
                "table",
                str(file),
                source=name,
                pool=pool,
                what=what,
                settings=settings,
                origin=f"{options.kind} {what}",
                photos=str(layout.root),
            )
    print(add_pairs(workspace.pool, pairs, source=name))


def _known_columns(table: pd.DataFrame) -> pd.DataFrame:
    """A table without its columns of nulls, but for the coordinates."""
    unknown = [
        column for column in table if column not in ("latitude", "longitude") and table[column].isna().all()
    ]
    return table.drop(columns=unknown)


def _ingest_tiles(
    workspace: Workspace, options: argparse.Namespace, name: str, settings: dict[str, Any]
) -> None:
    from geoloc.photos.catalog import CATALOG_FILE, read_catalog
    from geoloc.photos.ingest import ingest
    from geoloc.photos.pairs import add_pairs, overhead_pool
    from geoloc.photos.settings import IngestSettings
    from geoloc.photos.tiles_around import TilesAround
    from geoloc.settings import parse

    if not (workspace.pool / CATALOG_FILE).is_file():
        raise UsageError("ingest overhead needs street photos in the pool: ingest those first")
    columns = ["photo_id", "source", "latitude", "longitude", "heading", "heading_reference", "shard"]
    catalog = read_catalog(workspace.pool, columns)
    if options.of is not None and options.of not in set(catalog["source"]):
        known = ", ".join(sorted(set(catalog["source"])))
        raise UsageError(f"--of must be a source of the pool: {known}; got {options.of!r}")
    wanted = catalog["shard"].notna() & (True if options.of is None else catalog["source"] == options.of)
    limits = parse(IngestSettings, settings, "ingest")
    with opened_raster(options.path, options.zoom) as raster:
        around = TilesAround(
            raster,
            catalog[wanted],
            metres=options.metres,
            pixels=options.pixels,
            least=options.pad,
            prefix=f"{name}/",
            city=options.city,
            reference=options.heading_from,
        )
        if not len(around):
            raise UsageError(
                f"none of {int(wanted.sum())} photos lies on {options.path}: no tile can be cut around them"
            )
        with counter("tiles cut", len(around)) as bar:
            summary = ingest(
                overhead_pool(workspace.pool),
                around.candidates(),
                source=name,
                photographer_key=workspace.photographer_key(),
                settings=limits,
                progress=lambda so_far: bar.update(so_far.seen - bar.n),
                origin="tiles of photos",
            )
    print(f"tiles of {summary}")
    for reason, count in around.left_out.items():
        if count:
            print(f"left out: {reason} {count}")
    print(add_pairs(workspace.pool, around.pairs, source=name))


def opened_raster(path: str, zoom: int | None) -> Any:
    """The raster at a path or address, as a context: a file, or a folder of map tiles."""
    from geoloc.photos.addresses import as_place

    place = as_place(path)
    # Of an address, only the name tells: asking would need a request that many servers answer for both.
    is_tiles = place.is_dir() if isinstance(place, Path) else not Path(place.name).suffix
    if is_tiles:
        from geoloc.photos.map_tiles import open_tiles

        return open_tiles(place, zoom)
    if zoom is not None:
        raise UsageError(f"--zoom is for map tiles; {path} is a file")
    from geoloc.photos.geotiff import open_raster

    return open_raster(place)


def positive(text: str) -> float:
    """A number of metres from an option."""
    return _number(text, 0.0, 100_000.0, "a number of metres above 0 and at most 100000")


def _share(text: str) -> float:
    return _number(text, 0.0, 1.0, "a share above 0 and at most 1")


def _number(text: str, above: float, most: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not above < value <= most:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
    return value


def _pixels(text: str) -> int:
    if not (text.isdigit() and 16 <= int(text) <= 2048):
        raise argparse.ArgumentTypeError(f"must be a whole number of pixels from 16 to 2048, got {text!r}")
    return int(text)
