"""`geoloc sample`: generate photos of the sample planet."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.commands.common import counter, ingest_into, open_workspace, record_data
from orchestration.commands.parsing import add_command, at_least
from orchestration.stores.lock import photos_lock
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from geoloc.sample.settings import SampleSettings


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "sample", "generate photos of the sample planet, with known places, and add them to the pool",
        "  geoloc --workspace /tmp/w sample --photos 4000 --seed 7\n"
        "  geoloc sample --since 1 --photos 500            the collection grows: 500 new photos, as version 2\n"
        "  geoloc sample --photos 500 --folder pictures    only the files and their truth, no pool\n"
        "  geoloc --workspace /tmp/w sample --photos 8000 --overhead-share 1    many pairs for cross-view recipes",
        run,
    )  # fmt: skip
    parser.add_argument(
        "--photos", type=at_least(2), default=3500, metavar="N", help="how many (default: 3500)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="random seed (default: 0)"
    )  # fmt: skip
    parser.add_argument(
        "--since", type=at_least(1), metavar="VERSION",
        help="add the photos of the version after this one, by old and new photographers (default: make version 1); "
        "give the seed of the earlier versions",
    )  # fmt: skip
    parser.add_argument(
        "--overhead-share", type=_share, metavar="SHARE",
        help="share of the outdoor photos that have an overhead tile, from 0 to 1 (default: 0.25)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="write the files here and leave the pool alone"
    )
    parser.add_argument(
        "--processes", type=at_least(1), metavar="N",
        help="processes that draw (default: one per core); the photos do not depend on it",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    version = 1 if options.since is None else options.since + 1
    settings = _settings(options)
    if options.folder:
        _draw(options, options.folder, version, settings)
        return
    workspace = open_workspace(options)
    # From the start: two samples at once would mix their steps, and the second would draw for nothing.
    with (
        photos_lock(workspace, f"geoloc sample --photos {options.photos} --seed {options.seed}"),
        tempfile.TemporaryDirectory(prefix="geoloc-sample-") as temporary,
    ):
        folder = Path(temporary) / "sample"
        _draw(options, folder, version, settings)
        _ingest(workspace, folder, version, settings)
        record_data(workspace)


def _settings(options: argparse.Namespace) -> SampleSettings:
    from geoloc.sample.settings import SampleSettings
    from geoloc.settings import parse

    share = options.overhead_share
    return parse(SampleSettings, {} if share is None else {"overhead_share": share}, "sample")


def _draw(options: argparse.Namespace, folder: Path, version: int, settings: SampleSettings) -> None:
    from geoloc.sample import make_sample

    with counter("pictures drawn") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = make_sample(
            folder,
            photos=options.photos,
            seed=options.seed,
            settings=settings,
            version=version,
            processes=options.processes,
            progress=show,
        )
    print(
        f"drawn: {made.photos} photos by {made.photographers} photographers in {made.cities} cities,"
        f" {made.tiles} tiles from above and {made.faulty} faulty inputs, {made.jpeg_bytes / 1e6:.1f} MB"
    )
    print("dirt on purpose: " + ", ".join(f"{kind} {count}" for kind, count in made.dirt.items() if count))


def _ingest(workspace: Workspace, folder: Path, version: int, settings: SampleSettings) -> None:
    """Add the sample's tiles, photos and pairs to the pool.

    In this order, each pair finds both of its pictures. A run that is killed anywhere leaves a good pool, which the
    same command completes.
    """
    import pandas as pd

    from geoloc.photos.pairs import add_pairs, overhead_pool
    from geoloc.sample import SOURCE

    # Quarantine knows an input by its table and row. The table's folder is another each time, and the same version has
    # the same inputs: its name is the origin.
    tables = {name: folder / f"{name}-{version}.csv" for name in ("overhead", "photos")}
    for name, table in tables.items():
        (folder / f"{name}.csv").rename(table)
    tiles = overhead_pool(workspace.pool)
    for name, pool, what in (("overhead", tiles, "tiles"), ("photos", workspace.pool, "photos")):
        table = tables[name]
        ingest_into(workspace, "table", str(table), source=SOURCE, pool=pool, what=what, origin=table.name)
    # Everything is text until parsed: a city may be in Namibia, NA.
    pairs = pd.read_csv(folder / "pairs.csv", dtype=str, keep_default_na=False, na_values=[""])
    pairs["tile_metres"] = settings.tile_size * settings.metres_per_pixel
    print(add_pairs(workspace.pool, pairs, source=SOURCE))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value
