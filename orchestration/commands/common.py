"""What each command of `geoloc` does. Imports are inside the functions: `geoloc --help` must not load torch."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestration.errors import UsageError
from orchestration.workspace import Workspace, WorkspaceError, init_workspace


def init(options: argparse.Namespace) -> None:
    workspace = init_workspace(options.folder, options.note)
    print(
        f"{workspace.root} is a workspace; add photos with: geoloc --workspace {options.folder} ingest folder PHOTOS"
    )


def sample(options: argparse.Namespace) -> None:
    if options.folder:
        _draw_sample(options, options.folder)
        return
    workspace = _workspace(options)
    with tempfile.TemporaryDirectory(prefix="geoloc-sample-") as temporary:
        folder = Path(temporary) / "sample"
        _draw_sample(options, folder)
        _take_in_sample(workspace, folder, version=1 if options.since is None else options.since + 1)
    _record(workspace)


def _draw_sample(options: argparse.Namespace, folder: Path) -> None:
    from geoloc.sample import make_sample

    with _counter("pictures drawn") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = make_sample(
            folder,
            photos=options.photos,
            seed=options.seed,
            version=1 if options.since is None else options.since + 1,
            processes=options.processes,
            progress=show,
        )
    print(
        f"drawn: {made.photos} photos by {made.photographers} photographers in {made.cities} cities,"
        f" {made.tiles} tiles from above and {made.faulty} faulty inputs, {made.jpeg_bytes / 1e6:.1f} MB"
    )
    print("dirt on purpose: " + ", ".join(f"{kind} {count}" for kind, count in made.dirt.items() if count))


def _take_in_sample(workspace: Workspace, folder: Path, version: int) -> None:
    """The sample's tiles, photos and pairs into the pool. In this order, each pair finds both of its pictures; and a
    run that is killed anywhere leaves a good pool, which the same command finishes.
    """
    import pandas as pd

    from geoloc.photos.pairs import add_pairs, overhead_pool
    from geoloc.sample import SOURCE

    # Quarantine tells inputs apart by the table's name and the row: another version's must have another name.
    tables = {name: folder / f"{name}-{version}.csv" for name in ("overhead", "photos")}
    for name, table in tables.items():
        (folder / f"{name}.csv").rename(table)
    tiles = overhead_pool(workspace.pool)
    _ingest_into(workspace, "table", str(tables["overhead"]), source=SOURCE, pool=tiles, what="tiles")
    _ingest_into(workspace, "table", str(tables["photos"]), source=SOURCE)
    # Everything is text until parsed: a city may be in Namibia, NA.
    pairs = pd.read_csv(folder / "pairs.csv", dtype=str, keep_default_na=False, na_values=[""])
    print(add_pairs(workspace.pool, pairs, source=SOURCE))


def ingest(options: argparse.Namespace) -> None:
    given: dict[str, Any] = {}
    if options.kind == "folder":
        given["photographer"] = options.photographer
    if options.kind in ("table", "yfcc") and options.photos is not None:
        given["photos"] = options.photos
    if options.kind in ("table", "webdataset", "mp16"):
        given["columns"] = _columns(options.column)
    workspace = _workspace(options)
    _ingest_into(
        workspace,
        options.kind,
        options.path,
        source=options.source or Path(options.path.rstrip("*/")).name.split(".")[0],
        settings={"workers": options.workers, "resize_short_side": options.short_side},
        **given,
    )
    if not options.no_dvc:
        _record(workspace)


def build(options: argparse.Namespace) -> None:
    from orchestration.graph.headless import build as run

    run(
        _workspace(options),
        options.recipe,
        only=options.only,
        force=options.force,
        commit=not options.no_commit,
    )


def locate(options: argparse.Namespace) -> None:
    from orchestration.locate.question import Question

    question = Question(
        options.method,
        options.model,
        options.alternatives,
        options.partition,
        options.level,
        options.combine,
        options.abstain_below,
    )
    workspace = _workspace(options)
    # After the question is known to be sound: torch takes seconds to import.
    from orchestration.locate.locate import locate as run
    from orchestration.locate.locate import map_page

    places = run(
        workspace,
        options.recipe,
        options.photos,
        question,
        say=lambda line: print(f"geoloc: {line}", file=sys.stderr),
    )
    if options.map:
        from geoloc.files import write_text

        write_text(options.map, map_page(workspace, options.recipe, places))
    if options.json:
        print(json.dumps([place.to_dict() for place in places], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(str(place) for place in places))
    if options.map and not options.json:
        print(f"\nmap: {options.map}")


def claims(options: argparse.Namespace) -> None:
    from orchestration.results.claims import claims as run

    report = run(_workspace(options), options.test, options.role)
    print(report)
    if options.json:
        from geoloc.files import write_json

        write_json(options.json, report.to_dict())
        print(f"\nas JSON: {options.json}")


def compare(options: argparse.Namespace) -> None:
    for method in options.methods:
        if not method.partition(":")[0].strip():
            raise UsageError(f"METHODS must be RECIPE or RECIPE:METHOD; got {method!r}")
    # After the methods are known to be sound: pandas and torch take seconds to import.
    from orchestration.results.compare import compare as run

    found = run(_workspace(options), options.methods, options.test)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if options.json else found)


def audit(options: argparse.Namespace) -> None:
    from orchestration.lineage.audit import audit as walk
    from orchestration.lineage.audit import audit_lines, find_artefact
    from orchestration.lineage.build import Build

    workspace = _workspace(options)
    recipe, stage = find_artefact(workspace, options.artefact)
    tree = walk(Build(workspace, recipe), stage)
    print(json.dumps(tree, indent=2, ensure_ascii=False) if options.json else "\n".join(audit_lines(tree)))


def ui(options: argparse.Namespace) -> int:
    workspace = _workspace(options)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "orchestration.definitions"]
    command += ["--host", "127.0.0.1", "--port", str(options.port)]
    print(f"Dagster UI: http://127.0.0.1:{options.port}  (ctrl-C stops it)")
    return subprocess.run(command, cwd=workspace.root, env=os.environ, check=False).returncode


def _workspace(options: argparse.Namespace) -> Workspace:
    workspace = Workspace.open(options.workspace)
    workspace.set_environment()
    return workspace


def _ingest_into(
    workspace: Workspace,
    kind: str,
    path: str,
    *,
    source: str,
    pool: Path | None = None,
    what: str = "photos",
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Add a source's photos to the workspace's pool, or to another `pool`, and tell what became of them."""
    from geoloc.photos.ingest import ingest as run
    from geoloc.photos.settings import IngestSettings
    from geoloc.photos.sources import open_source
    from geoloc.settings import parse

    pool = pool or workspace.pool
    with _counter(f"{what} seen") as bar:
        summary = run(
            pool,
            open_source(kind, path, **options),
            source=source,
            photographer_key=workspace.photographer_key(),
            settings=parse(IngestSettings, settings, "ingest"),
            progress=lambda so_far: bar.update(so_far.seen - bar.n),
        )
    print(summary if what == "photos" else f"{what} of {summary}")
    if summary.quarantined:
        print(f"why each was turned away: {pool / 'quarantine.parquet'}")


def _record(workspace: Workspace) -> None:
    """What is in data/ now becomes the data version."""
    from orchestration.stores.data_version import record_data

    print(f"data version {record_data(workspace)}, in data.dvc")


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    """FIELD=NAME options as a mapping."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise WorkspaceError(f"--column must be FIELD=NAME, such as latitude=lat; got {wrong[0]!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def _counter(what: str, total: int | None = None) -> Any:
    """A progress bar on a terminal; silent in a log."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=" photos", disable=None, leave=False)
