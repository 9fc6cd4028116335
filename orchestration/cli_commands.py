"""What each command of `geoloc` does. Imports are inside the functions: `geoloc --help` must not load torch."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from orchestration.workspace import Workspace, init_workspace


def init(options: argparse.Namespace) -> None:
    workspace = init_workspace(options.folder, options.note)
    print(
        f"{workspace.root} is a workspace; add photos with: geoloc --workspace {options.folder} ingest folder PHOTOS"
    )


def sample(options: argparse.Namespace) -> None:
    import tempfile

    from geoloc.sample import make_sample

    photos = SAMPLE_PHOTOS if options.photos is None else options.photos
    if options.folder:
        print(make_sample(options.folder, photos, options.seed, progress=_progress("drawing")))
        return
    workspace = _workspace(options)
    with tempfile.TemporaryDirectory(prefix="geoloc-sample-") as temporary:
        folder = Path(temporary) / "photos"
        make_sample(folder, photos, options.seed, progress=_progress("drawing"))
        _ingest_into(workspace, "table", str(folder / "photos.csv"), source="sample", record=True)


def ingest(options: argparse.Namespace) -> None:
    workspace = _workspace(options)
    kind = options.kind
    given = {
        "folder": lambda: {"photographer": options.photographer},
        "table": lambda: {"photos": options.photos, "columns": _columns(options.column)},
        "yfcc": lambda: {"photos": options.photos},
        "webdataset": dict,
        "mp16": dict,
    }[kind]()
    _ingest_into(
        workspace,
        kind,
        options.path,
        source=options.source or Path(options.path.rstrip("*/")).stem,
        record=not options.no_dvc,
        workers=options.workers,
        short_side=options.short_side,
        **given,
    )


def build(options: argparse.Namespace) -> None:
    from orchestration.build import build as run

    run(
        _workspace(options),
        options.recipe,
        only=options.only,
        force=options.force,
        commit=not options.no_commit,
    )


def locate(options: argparse.Namespace) -> None:
    from orchestration.locate import locate as run

    places = run(
        _workspace(options),
        options.recipe,
        options.photos,
        method=options.method,
        model=options.model,
        alternatives=options.alternatives,
    )
    if options.map:
        from geoloc.files import write_text
        from orchestration.locate import map_page

        write_text(options.map, map_page(places))
    if options.json:
        print(json.dumps([place.to_dict() for place in places], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(str(place) for place in places))
    if options.map and not options.json:
        print(f"\nmap: {options.map}")


def audit(options: argparse.Namespace) -> None:
    from orchestration.lineage import audit as walk
    from orchestration.lineage import audit_lines, find_artefact

    workspace = _workspace(options)
    tree = walk(workspace, *find_artefact(workspace, options.artefact))
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
