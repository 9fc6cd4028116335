"""Embedding throughput, from stored JPEG bytes to written embeddings, compared with the limit of this machine.

    python benchmarks/embedding.py [--photos FOLDER] [--weights FILE] [--backbone mobilenet_v2] [--image-size 224]
        [--count 512] [--batch-size 32] [--rounds 3]

The limit is the sum of two times, measured separately on the same processors: a bare decode (JPEG bytes in memory to
pixels, all processors, nothing else) and a bare forward pass of the same network (one fixed batch, repeated) by the
engine that runs it: its exported graph, or torch on a GPU. The limit with torch on the processors, channels-last and
with freed memory kept, stands beside it. The measured path reads the pool's shards, decodes, crops, normalises, embeds,
L2-normalises and writes float16 parts. All are measured in turn, `--rounds` times; the table shows the fastest of
each. Without `--photos`, JPEGs of short side 256 are generated. Exits with 1 if the measured path is below 0.9 of the
limit.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from geoloc.memory import freed_memory_kept
from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.engine import ExportedNetwork, engine_name, ready_network
from geoloc.models.export import export_network
from geoloc.models.graph import FEATURES, Graph
from geoloc.models.settings import ModelSettings
from geoloc.photos.shards import ShardWriter
from geoloc.processors import processors
from geoloc.retrieval.embeddings import EmbeddingSettings, extract_embeddings

WANTED_RATIO = 0.9
_TASK = 8  # photos per decoding task


def made_photos(count: int, seed: int = 0) -> list[bytes]:
    """Returns JPEGs of short side 256 and quality 90 with the spectrum of a photo: about 30 kB each."""
    rng = np.random.default_rng(seed)
    photos = []
    for number in range(count):
        height, width = (256, 341) if number % 2 else (341, 256)
        image = np.zeros((height, width, 3), dtype=np.float32)
        for scale in (4, 8, 16, 32, 64, 128):
            coarse = rng.normal(size=(scale, scale, 3)).astype(np.float32) * 60 / scale**0.7
            grey = [
                Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC)
                for c in range(3)
            ]
            image += np.stack([np.asarray(channel) for channel in grey], axis=-1)
        stream = io.BytesIO()
        Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        photos.append(stream.getvalue())
    return photos


def make_pool(pool: Path, photos: list[bytes]) -> pd.DataFrame:
    """Write the photos into one shard; returns the catalog's columns that locate them."""
    with ShardWriter(pool, "bench.tar") as writer:
        places = [writer.add(f"photo{i:06d}", data) for i, data in enumerate(photos)]
    frame = pd.DataFrame(places, columns=["offset", "length"])
    return frame.assign(photo_id=[f"photo{i:06d}" for i in range(len(photos))], shard="bench.tar")


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Returns seconds of wall time, and of processor time, which other work on the machine hardly changes."""
    started, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - before


def bare_decode(photos: list[bytes], threads: ThreadPoolExecutor) -> None:
    def some(start: int) -> None:
        for data in photos[start : start + _TASK]:
            decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)

    list(threads.map(some, range(0, len(photos), _TASK)))


def bare_forward(model: Classifier, batch: torch.Tensor, count: int) -> None:
    with torch.inference_mode():
        for start in range(0, count, len(batch)):
            result = model.embed(batch[: count - start])
        result.cpu()  # an accelerator has finished only then


def bare_graph(graph: Graph, batch: NDArray[np.uint8], count: int) -> None:
    for start in range(0, count, len(batch)):
        graph.run(batch[: count - start], [FEATURES])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs to use instead of generated ones")
    parser.add_argument("--weights", help="a .safetensors file for the backbone (default: random weights)")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(processors())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    files = sorted(options.photos.glob("*.jp*g"))[: options.count] if options.photos else []
    if options.photos and not files:
        parser.error(f"{options.photos} holds no JPEG")
    photos = [file.read_bytes() for file in files] if files else made_photos(options.count)
    settings = ModelSettings(
        backbone=options.backbone,
        image_size=options.image_size,
        weights=options.weights or "none",
        padding="tensorflow_same" if options.weights else "torch",
        normalisation="minus_one_to_one",
    )
    model = build_classifier(settings, heads={"fine": 1}, seed=0).eval()
    embedding = EmbeddingSettings(batch_size=options.batch_size, shard_rows=4 * options.batch_size)
    size = model.preprocess.image_size
    pixels = torch.randint(0, 256, (options.batch_size, size, size, 3), dtype=torch.uint8)
    decode, forward, torchs, whole = [], [], [], []
    # The limit profits from kept memory as the measured path does; otherwise it would be no limit.
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processors()) as threads:
        rows = make_pool(Path(folder) / "pool", photos)
        file = Path(folder) / "network.onnx"
        started = time.perf_counter()
        off = export_network(model, file, pixels.permute(0, 3, 1, 2))
        exported = time.perf_counter() - started
        network = ready_network(file, lambda: model)
        model = model.to(memory_format=torch.channels_last)
        batch = model.preprocess.normalise(pixels.to(device).permute(0, 3, 1, 2))
        print(
            f"{len(photos)} {'real' if files else 'made'} photos of {sum(map(len, photos)) / len(photos) / 1000:.0f}"
            f" kB, {options.backbone} at {size} px, batches of {options.batch_size}, {processors()} processors\n"
            f"engine: {engine_name(network)}; exported in {exported:.1f} s, within {off:.1e} of torch"
        )
        for number in range(options.rounds):
            with freed_memory_kept():
                bare_forward(model, batch, 2 * len(batch))  # fills the memory that is kept
                decode.append(measured(partial(bare_decode, photos, threads)))
                torchs.append(measured(partial(bare_forward, model, batch, len(photos))))
                if isinstance(network, ExportedNetwork):
                    bare_graph(network.graph, pixels.numpy(), 2 * len(pixels))
                    forward.append(measured(partial(bare_graph, network.graph, pixels.numpy(), len(photos))))
            out = Path(folder) / f"embeddings{number}"
            whole.append(
                measured(partial(extract_embeddings, network, Path(folder) / "pool", rows, out, embedding))
            )
    forward = forward or torchs
    decoded, ran, by_torch, embedded = (np.min(t, axis=0) for t in (decode, forward, torchs, whole))
    limit = decoded + ran
    ratio, processor_ratio = limit / embedded
    print(f"{'':<34}{'photos a second':>16}{'ms a photo':>12}{'processor ms':>14}")
    for name, (clock, processor) in zip(
        (
            *("bare decode", "bare forward", "limit: decode and forward added", "stored bytes to embeddings"),
            *("bare forward of torch", "limit with torch"),
        ),
        (decoded, ran, limit, embedded, by_torch, decoded + by_torch),
        strict=True,
    ):
        each = 1000 / len(photos)
        print(f"{name:<34}{len(photos) / clock:>16.1f}{clock * each:>12.3f}{processor * each:>14.3f}")
    rounds = ", ".join(f"{(d[0] + f[0]) / w[0]:.3f}" for d, f, w in zip(decode, forward, whole, strict=True))
    print(
        f"share of the limit: {ratio:.3f} by the clock (each round: {rounds}); wanted: at least {WANTED_RATIO}"
    )
    print(f"                    {processor_ratio:.3f} by processor time")
    print(f"times the limit with torch: {(decoded + by_torch)[0] / embedded[0]:.2f} by the clock")
    return 0 if ratio >= WANTED_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
