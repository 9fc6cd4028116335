"""What a growth of the sample planet costs: 1 % more photos cost about 1 % of the embedding, and change no model.

    python benchmarks/growth.py [--photos 1000] [--share 0.01] [--folder DIR]

Builds the default recipe of a new workspace with new photos that wait (growth.admit: retraining), with one epoch of a
frozen network; adds photos of the sample planet's next version; and runs `geoloc grow`. The table has the photos that
the network ran over and the time of it, processor and wall, for the first build and for the growth, and for each output
whether its bytes are the same. The photos of the last, incomplete batch are embedded again with the new ones. Exits
with 1 if the network ran over more photos than those, or an output changed that does not depend on the references:
splits, partition, classifier.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import yaml

from geoloc.files import file_hashes
from orchestration.cli import main as geoloc
from orchestration.lineage.build import Build
from orchestration.run.facts import read_facts
from orchestration.tables import markdown
from orchestration.workspace import Workspace

SETTINGS = {
    "seed": 7,
    "growth": {"admit": "retraining"},
    "partitions": {"fine": {"scale_with_photos": True}},
    "model": {
        "backbone": "timm/tf_efficientnet_lite0", "weights": "package", "resize_short_side": 128, "image_size": 128,
    },
    "training": {"mode": "frozen", "epochs": 1, "batch_size": 64},
    "embeddings": {"models": ["classifier"]},
    "index": {"grow": True},
    "evaluation": {"resamples": 50, "explained": 0},
}  # fmt: skip
UNCHANGED = ("splits", "partition", "classifier")


def run(workspace: Path, *arguments: str) -> None:
    if geoloc(["--workspace", str(workspace), *arguments]):
        raise SystemExit(f"geoloc {' '.join(arguments)} failed")


@contextlib.contextmanager
def timed_extraction(times: list[tuple[float, float]]) -> Iterator[None]:
    """Adds the wall and processor seconds of each extraction of embeddings to `times`."""
    from orchestration.assets import extraction

    extract = extraction.extract_embeddings

    def timed(*arguments: object) -> object:
        started, before = time.perf_counter(), time.process_time()
        made = extract(*arguments)  # type: ignore[arg-type]
        times.append((time.perf_counter() - started, time.process_time() - before))
        return made

    with mock.patch.object(extraction, "extract_embeddings", timed):
        yield


def state(workspace: Path) -> tuple[dict[str, dict[str, str]], int, int]:
    """The hashes of all outputs, and of the embeddings the number of photos and of those that were copied."""
    build = Build(Workspace.open(workspace))
    files = {stage.name: file_hashes(build.folder(stage.name)) for stage in build.stages}
    record = build.built("embeddings")
    photos = len(read_ids(build))
    copied = read_facts(build, record).get("copied from the output before", 0)
    return files, photos, int(copied)


def read_ids(build: Build) -> list[str]:
    from geoloc.retrieval.embeddings import Embeddings

    return list(Embeddings.load(build.folder("embeddings")).photo_ids)


def measure(folder: Path, photos: int, share: float) -> int:
    workspace, new = folder / "w", max(2, round(share * photos))
    if geoloc(["init", str(workspace)]):
        return 1
    (workspace / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    run(workspace, "sample", "--photos", str(photos), "--seed", "7")
    times: list[tuple[float, float]] = []
    with timed_extraction(times):
        run(workspace, "build")
        before, first, _ = state(workspace)
        run(workspace, "sample", "--since", "1", "--photos", str(new), "--seed", "7")
        run(workspace, "grow")
    after, second, copied = state(workspace)
    rows = [
        ["first build", first, first, f"{times[0][0]:.1f}", f"{times[0][1]:.1f}"],
        ["growth", second, second - copied, f"{times[-1][0]:.1f}", f"{times[-1][1]:.1f}"],
        [
            "share in %", "", f"{100 * (second - copied) / first:.1f}", f"{100 * times[-1][0] / times[0][0]:.1f}",
            f"{100 * times[-1][1] / times[0][1]:.1f}",
        ],
    ]  # fmt: skip
    print(markdown(rows, ["", "photos with embeddings", "embedded", "seconds", "processor seconds"]))
    print()
    print(markdown([[name, told(files, after[name])] for name, files in before.items()], ["output", "bytes"]))
    changed = [name for name in UNCHANGED if before[name] != after[name]]
    most = second - first + Build(Workspace.open(workspace)).settings.embeddings.batch_size
    return int(bool(changed) or second - copied > most)


def told(before: dict[str, str], after: dict[str, str]) -> str:
    if before == after:
        return "the same"
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return f"{len(changed)} of {len({**before, **after})} files changed"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return measure(Path(folder), options.photos, options.share)


if __name__ == "__main__":
    sys.exit(main())
