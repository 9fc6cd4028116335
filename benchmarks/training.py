"""Throughput of geoloc's training loop, from stored JPEG bytes, compared with a bare loop on the same batches.

    python benchmarks/training.py [--photos FOLDER] [--backbone mobilenet_v2] [--count 256] [--batch-size 32]
                                  [--precision float32] [--rounds 3]

The bare loop is hand-written: batches already decoded and normalised in memory, forward pass, cross-entropy, backward
pass, optimiser. geoloc's loop reads shards, decodes and augments while it trains, checks each loss and reports
progress; it is timed over the steps of an epoch. Both train the same network with the same optimiser and memory layout,
in turn, `--rounds` times; the table shows the fastest of each. Without `--photos`, JPEGs of short side 256 are
generated. Exits with 1 if geoloc's loop is below 0.9 of the bare one. On a busy machine, use more rounds.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional

from geoloc.memory import freed_memory_kept
from geoloc.models.batches import iter_batches
from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.settings import Augmentation, ModelSettings
from geoloc.partitions import S2Settings, partition_of
from geoloc.partitions.base import Partition
from geoloc.photos.shards import ShardWriter
from geoloc.training.classification import train_classifier
from geoloc.training.determinism import choose_device
from geoloc.training.settings import TrainingSettings

WANTED_RATIO = 0.9


def main() -> int:
    """Measure and print the table. Returns 1 if the ratio is below the target."""
    parser = argparse.ArgumentParser(description="training throughput against a bare loop")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs; default: generated")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = TrainingSettings(
        mode="fine_tune",
        epochs=1,
        batch_size=options.batch_size,
        optimiser="sgd",
        learning_rate=1e-3,
        schedule="constant",
        precision=options.precision,
        select_by="last",
    )
    model_settings = ModelSettings(backbone=options.backbone)
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool"
        rows, partition = make_pool(pool, stored_photos(options.photos, options.count))
        bare, ours = [], []
        for number in range(options.rounds):
            model = build_classifier(model_settings, {"fine": partition.cell_count}, seed=0)
            bare.append(bare_loop(model, pool, rows, partition, settings))
            model = build_classifier(model_settings, {"fine": partition.cell_count}, seed=0)
            ours.append(geoloc_loop(model, pool, rows, partition, settings, Path(folder) / f"work-{number}"))
    ratio = max(ours) / max(bare)
    device = choose_device("auto")
    print(
        f"{options.backbone}, {len(rows)} photos, batch {options.batch_size}, {options.precision}, {device.type}"
    )
    print(f"{'loop':<32}{'photos a second':>16}{'of bare':>10}   rounds")
    for name, speeds in (("bare, batches in memory", bare), ("geoloc, from stored bytes", ours)):
        rounds = " ".join(f"{speed:.1f}" for speed in speeds)
        print(f"{name:<32}{max(speeds):>16.1f}{max(speeds) / max(bare):>10.2f}   {rounds}")
    print(f"ratio {ratio:.3f}, wanted {WANTED_RATIO}")
    return 0 if ratio >= WANTED_RATIO else 1


def stored_photos(folder: Path | None, count: int) -> list[bytes]:
    """Returns `count` JPEGs: of the folder, in order and repeated, or generated (short side 256, about 30 kB)."""
    if folder is not None:
        paths = sorted(folder.glob("*.jpg"))[:count]
        if not paths:
            raise SystemExit(f"{folder} has no .jpg")
        return [paths[i % len(paths)].read_bytes() for i in range(count)]
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        photos.append(stream.getvalue())
    return photos


def make_pool(pool: Path, photos: list[bytes]) -> tuple[pd.DataFrame, Partition]:
    """Returns a shard of the photos, their rows with places all over the Earth, and a partition fitted on them."""
    with ShardWriter(pool, "photos-000000.tar") as shard:
        places = [shard.add(f"p{i}", data) for i, data in enumerate(photos)]
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(len(photos))],
            "shard": "photos-000000.tar",
            "offset": [offset for offset, _ in places],
            "length": [length for _, length in places],
            "latitude": rng.uniform(-60, 60, len(photos)),
            "longitude": rng.uniform(-180, 180, len(photos)),
        }
    )
    partition = partition_of(S2Settings(max_photos=20, min_photos=1))
    partition.fit(rows["latitude"], rows["longitude"])
    return rows, partition


def bare_loop(
    model: Classifier, pool: Path, rows: pd.DataFrame, partition: Partition, settings: TrainingSettings
) -> float:
    """Returns photos per second of a hand-written loop over batches in memory."""
    device = choose_device("auto")
    model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        model.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    labels = torch.from_numpy(partition.assign(rows["latitude"], rows["longitude"]).astype(np.int64)).to(
        device
    )
    batches = [
        (
            model.preprocess.normalise(batch.images.to(device)),
            labels[torch.from_numpy(batch.row_indices).to(device)],
        )
        for batch in iter_batches(
            pool, rows, model.preprocess, settings.batch_size, augmentation=Augmentation()
        )
    ]
    kind, mixed = getattr(torch, settings.precision), settings.precision != "float32"

    def steps(chosen: list[Any]) -> None:
        for images, cells in chosen:
            with torch.autocast(device.type, kind, enabled=mixed):
                loss = functional.cross_entropy(model(images), cells)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    with (
        freed_memory_kept()
    ):  # as train_classifier has it: the comparison is of the loops, not of the allocator
        steps(batches[:1])  # first-call work, such as kernel choice
        started = time.perf_counter()
        steps(batches)
        return len(rows) / (time.perf_counter() - started)


def geoloc_loop(
    model: Classifier,
    pool: Path,
    rows: pd.DataFrame,
    partition: Partition,
    settings: TrainingSettings,
    folder: Path,
) -> float:
    """Returns photos per second over the steps of an epoch of train_classifier, decoding included."""
    events: list[dict[str, Any]] = []
    with torch.no_grad():  # first-call work here too
        model(torch.zeros(settings.batch_size, 3, model.preprocess.image_size, model.preprocess.image_size))
    train_classifier(model, pool, rows, rows[:0], {"fine": partition}, settings, 0, folder, events.append)
    return float(next(event["photos_per_second"] for event in events if event["kind"] == "epoch"))


if __name__ == "__main__":
    sys.exit(main())
