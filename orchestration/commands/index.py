"""`geoloc index overhead`: an index of overhead tiles over an area, from a raster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from orchestration.commands.common import counter, json_text, open_workspace
from orchestration.commands.pair_sources import add_tile_options, opened_raster, positive
from orchestration.commands.parsing import HELP, Parser, add_command, add_recipe
from orchestration.errors import UsageError


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "index", "make an index of an area for geoloc locate",
        "  geoloc index overhead --raster area.tif --recipe cross_view --output area\n"
        "  geoloc index overhead --tiles tiles/ --zoom 18 --recipe cross_view --output area\n"
        "  geoloc locate photo.jpg --recipe cross_view --overhead area",
        run,
    )  # fmt: skip
    kinds = parser.add_subparsers(required=True, metavar="KIND", parser_class=Parser)
    over = kinds.add_parser(
        "overhead",
        help="overhead tiles, embedded by a recipe's cross-view network",
        description="Cut an area into overhead tiles and embed them with a recipe's cross-view network. A run that was "
        "stopped goes on where it was.",
        formatter_class=HELP,
    )
    source = over.add_mutually_exclusive_group(required=True)
    source.add_argument("--raster", metavar="FILE", help="a GeoTIFF or another georeferenced file")
    source.add_argument("--tiles", metavar="FOLDER", help="map tiles z/x/y.png in Web Mercator")
    add_recipe(over)
    over.add_argument("--output", type=Path, required=True, metavar="DIR", help="the index")
    add_tile_options(over, metres=None)
    over.add_argument(
        "--step", type=positive, metavar="M", help="metres between centres (default: half of --metres)"
    )
    over.add_argument("--json", action="store_true", help="machine-readable account")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    workspace = open_workspace(options, tracks=False)
    from geoloc.localizers.by_overhead.index import FACTS_FILE
    from orchestration.lineage.build import Build
    from orchestration.locate.by_overhead import index_area

    if options.output.exists() and not (options.output / FACTS_FILE).is_file():
        raise UsageError(
            f"--output must be a new folder or an overhead index; {options.output} is something else"
        )
    above = next(folder for folder in options.output.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"--output must be a new folder, got {options.output}: {above} is a file")
    build = Build(workspace, options.recipe)
    path = options.raster or options.tiles
    if options.tiles and "://" not in path and not Path(path).is_dir():
        raise UsageError(f"--tiles must be a folder of map tiles z/x/y.png; got {path}")
    if options.raster and Path(path).is_dir():
        raise UsageError(f"--raster must be a file; {path} is a folder, give map tiles with --tiles")
    with opened_raster(path, options.zoom) as raster, counter("tiles") as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def say(line: str) -> None:
            print(f"geoloc: {line}", file=sys.stderr, flush=True)

        facts = index_area(
            build,
            raster,
            options.output,
            metres=options.metres,
            pixels=options.pixels,
            step=options.step,
            least=options.pad,
            progress=tell,
            say=say,
        )
    if options.json:
        print(json_text(facts))
        return
    print(
        f"{options.output}: {facts['tiles']} tiles of {facts['metres']:g} m every {facts['step']:g} m; left out: "
        f"{facts['on_edge']} on the edge of the raster, {facts['outside']} without imagery"
    )
    print(f"ask it with: geoloc locate PHOTO --recipe {build.recipe} --overhead {options.output}")
