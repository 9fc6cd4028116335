"""Parts speed and search of cuda.py: photos a second, losses and searches on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cuda_table import Rows
from embedding import bare_decode
from metric_losses import ours, theirs
from torch.nn import functional
from training import make_pool, stored_photos

from geoloc.models.batches import iter_batches
from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.matching import distance_blocks
from geoloc.models.prediction import mixed_precision
from geoloc.models.settings import Augmentation, ModelSettings
from geoloc.partitions.base import Partition
from geoloc.processors import processors
from geoloc.retrieval.embeddings import extract_embeddings
from geoloc.retrieval.exact import ExactSearch
from geoloc.retrieval.settings import EmbeddingSettings
from geoloc.training.classification import train_classifier
from geoloc.training.determinism import deterministic
from geoloc.training.settings import TrainingSettings

NETWORKS = (
    ("shufflenet_v2_x0_5", 112), ("mobilenet_v2", 224), ("resnet50", 224), ("timm/vit_small_patch16_224", 224),
)  # fmt: skip
COMPILED = ("mobilenet_v2", "timm/vit_small_patch16_224")
MODES = ("float32", "float32, TF32", "bfloat16", "float16")
CELLS = 1000


def speed(rows: Rows, folder: Path) -> None:
    """Print photos a second of four networks, bare and in geoloc."""
    batch = 8 if rows.quick else 256
    networks = NETWORKS[:1] if rows.quick else NETWORKS
    bare: dict[tuple[str, str], tuple[float, float]] = {}
    rows.title(
        f"Photos a second of bare networks, batch {batch}: forward contiguous / channels-last | training step"
    )
    for name, size in networks:
        for mode in MODES[:1] if rows.quick else MODES:
            rows.row(f"{name}, {size} px, {mode}", _bare, rows, name, size, mode, batch, bare)
    rows.title("The same with torch.compile, forward, channels-last")
    for name, size in networks:
        if name in COMPILED:
            rows.row(f"{name}, {size} px, bfloat16, compiled", _compiled, rows, name, size, batch)
    _stored(rows, folder, networks, bare)


@contextlib.contextmanager
def _mode(mode: str) -> Iterator[str]:
    """A block in which TF32 is as the mode says; yields the precision for autocast."""
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    convolutions.fp32_precision = products.fp32_precision = "ieee" if mode == "float32" else "tf32"
    try:
        yield mode.partition(",")[0]
    finally:
        convolutions.fp32_precision, products.fp32_precision = before


def _network(rows: Rows, name: str, size: int, layout: torch.memory_format) -> Classifier:
    settings = ModelSettings(backbone=name, image_size=size, resize_short_side=max(256, size))
    model = build_classifier(settings, {"fine": CELLS}, seed=0)
    return model.to(rows.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def _bare(
    rows: Rows, name: str, size: int, mode: str, batch: int, found: dict[tuple[str, str], tuple[float, float]]
) -> str:
    device = torch.device(rows.device)
    speeds = []
    with _mode(mode) as precision:
        for layout in (torch.contiguous_format, torch.channels_last):
            model = _network(rows, name, size, layout)
            images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
            images = images.contiguous(memory_format=layout)
            labels = torch.randint(0, CELLS, (batch,), device=device)
            optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

            def forward(model: Any = model, images: Any = images) -> None:
                with torch.inference_mode(), mixed_precision(device, precision):
                    model(images)

            def step(
                model: Any = model, images: Any = images, labels: Any = labels, optimiser: Any = optimiser
            ) -> None:
                with mixed_precision(device, precision):
                    scores = model(images)
                optimiser.zero_grad()
                functional.cross_entropy(scores.float(), labels).backward()
                optimiser.step()

            model.eval()
            ran = rows.seconds(forward)
            model.train()
            learnt = rows.seconds(step)
            with deterministic(device):
                fixed = rows.seconds(step)
            speeds.append([batch / ran, batch / learnt, batch / fixed])
    found[name, mode] = max(one[0] for one in speeds), max(one[1] for one in speeds)
    columns = [f"{speeds[0][i]:>8,.0f} /{speeds[1][i]:>8,.0f}" for i in range(3)]
    return f"{columns[0]} | {columns[1]} | deterministic {columns[2]}"


def _compiled(rows: Rows, name: str, size: int, batch: int) -> str:
    device = torch.device(rows.device)
    model = _network(rows, name, size, torch.channels_last).eval()
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    faster: Any = torch.compile(model)

    def forward() -> None:
        with torch.inference_mode(), mixed_precision(device, "bfloat16"):
            faster(images)

    return f"{batch / rows.seconds(forward):,.0f}"


def _stored(
    rows: Rows,
    folder: Path,
    networks: tuple[tuple[str, int], ...],
    bare: dict[tuple[str, str], tuple[float, float]],
) -> None:
    """geoloc's own throughput."""
    from concurrent.futures import ThreadPoolExecutor

    different, count, batch = (16, 64, 8) if rows.quick else (512, 6144, 256)
    photos = stored_photos(None, different)
    one, partition = make_pool(folder / "stored", photos)
    table = pd.concat([one] * (count // different), ignore_index=True)
    table["photo_id"] = [f"p{i}" for i in range(len(table))]
    kb = sum(map(len, photos)) / len(photos) / 1000
    rows.title(
        f"geoloc from {count:,} stored JPEGs of {kb:.0f} kB, short side 256, {processors()} processors, batch {batch}: "
        "photos a second"
    )
    with ThreadPoolExecutor(processors()) as threads:

        def decoded() -> str:
            return f"{count / rows.seconds(lambda: bare_decode(photos * (count // different), threads), 3, 1):,.0f}"

        rows.row("decoding alone, nothing else", decoded)
    for name, size in networks:
        model = _network(rows, name, size, torch.channels_last)
        preprocess = model.preprocess

        def batches(augmentation: Augmentation | None, preprocess: Any = preprocess) -> str:
            def every() -> None:
                for _ in iter_batches(folder / "stored", table, preprocess, batch, augmentation=augmentation):
                    pass

            return f"{count / rows.seconds(every, 1, 0):,.0f}"

        if name in ("shufflenet_v2_x0_5", "mobilenet_v2"):
            rows.row(f"batches without a network, {size} px", batches, None)
            rows.row(f"batches without a network, {size} px, augmented", batches, Augmentation())
        for mode in ("float32, TF32", "bfloat16"):
            share = bare.get((name, mode), (float("nan"), float("nan")))
            rows.row(
                f"{name}, {mode}: stored bytes to embeddings",
                _embedded,
                model,
                folder,
                table,
                batch,
                mode,
                share[0],
            )
            rows.row(
                f"{name}, {mode}: training",
                _trained,
                rows,
                name,
                size,
                folder,
                table,
                partition,
                batch,
                mode,
                share[1],
            )


def _embedded(
    model: Classifier, folder: Path, table: pd.DataFrame, batch: int, mode: str, bare: float
) -> str:
    import time

    settings = EmbeddingSettings(batch_size=batch, precision=mode.partition(",")[0])  # type: ignore[arg-type]
    started = time.perf_counter()
    made = folder / f"embeddings-{id(model)}-{mode}"
    extract_embeddings(model, folder / "stored", table, made, settings)
    found = len(table) / (time.perf_counter() - started)
    return f"{found:,.0f}, {found / bare:.2f} of the bare forward pass"


def _trained(
    rows: Rows, name: str, size: int, folder: Path, table: pd.DataFrame, partition: Partition, batch: int, mode: str,
    bare: float,
) -> str:  # fmt: skip
    settings = TrainingSettings(
        mode="fine_tune", epochs=2, batch_size=batch, optimiser="sgd", select_by="last", device=rows.device,  # type: ignore[arg-type]
        precision=mode.partition(",")[0],  # type: ignore[arg-type]
    )  # fmt: skip
    model = build_classifier(
        ModelSettings(backbone=name, image_size=size, resize_short_side=256),
        {"fine": partition.cell_count},
        0,
    )
    events: list[dict[str, Any]] = []
    train_classifier(
        model, folder / "stored", table, table[:0], {"fine": partition}, settings, 0,
        folder / f"training-{name.replace('/', '-')}-{mode}", events.append,
    )  # fmt: skip
    found = [event["photos_per_second"] for event in events if event["kind"] == "epoch"]
    return f"{found[0]:,.0f} in the first epoch, {found[1]:,.0f} in the second, {found[1] / bare:.2f} of the bare step"


def search(rows: Rows, folder: Path) -> None:
    """Print times of losses and searches."""
    classes, images = (8, 4) if rows.quick else (64, 32)
    rows.title(
        f"Losses over every triplet of {classes} x {images} embeddings of 512 dimensions: forward and backward"
    )
    made: dict[tuple[str, str], tuple[float, torch.Tensor]] = {}
    for kind in ("soft triplet", "hinge triplet"):
        for who in ("ours", "theirs"):
            rows.row(f"{kind}, {who}", _loss, rows, kind, who, classes, images, made)
        rows.row(f"{kind}: both alike", _alike, made, kind)
    for each in (8, 64) if not rows.quick else ():
        rows.row(
            f"soft triplet, ours, {classes} x {each}",
            _loss,
            rows,
            "soft triplet",
            "ours",
            classes,
            each,
            made,
        )
    count, queries, dimensions = (20_000, 20, 64) if rows.quick else (1_000_000, 1000, 512)
    rows.title(
        f"Exact search, {count:,} x {dimensions}, {queries:,} queries, k 100; {torch.get_num_threads()} threads"
    )
    for dtype in (torch.float32, torch.float16):
        rows.row(
            f"ExactSearch, {str(dtype).removeprefix('torch.')}",
            _exact,
            rows,
            count,
            queries,
            dimensions,
            dtype,
        )
    tiles = 2000 if rows.quick else 70_000
    rows.title(f"Overhead tiles, {tiles:,} x 16 rotations x 256, {queries:,} photos, k 10")
    rows.row("distance_blocks", _tiles, rows, tiles, queries)


def _loss(
    rows: Rows,
    kind: str,
    who: str,
    classes: int,
    images: int,
    made: dict[tuple[str, str], tuple[float, torch.Tensor]],
) -> str:
    torch.manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(images)
    centres = torch.randn(classes, 512).repeat_interleave(images, dim=0)
    x = (
        (functional.normalize(centres + 2 * torch.randn(len(labels), 512)) * 4)
        .to(rows.device)
        .requires_grad_()
    )
    labels = labels.to(rows.device)
    loss = (ours if who == "ours" else theirs)(kind)

    def both() -> None:
        x.grad = None
        value = loss(x, labels)
        value.backward()
        assert x.grad is not None
        made[kind, who] = float(value.detach()), x.grad

    seconds = rows.seconds(both, warm_up=1)
    return f"{seconds * 1000:.2f} ms, peak {rows.peak_mb(both):,.0f} MB, loss {made[kind, who][0]:.6f}"


def _alike(made: dict[tuple[str, str], tuple[float, torch.Tensor]], kind: str) -> str:
    (one, gradient), (two, wanted) = made[kind, "ours"], made[kind, "theirs"]
    off = float((gradient - wanted).norm() / wanted.norm().clamp_min(1e-12))
    text = f"loss off by {abs(one - two) / max(abs(two), 1e-12):.1e}, gradient by {off:.1e}"
    if not off < 1e-3:
        raise AssertionError(text)
    return text


def _exact(rows: Rows, count: int, queries: int, dimensions: int, dtype: torch.dtype) -> str:
    generator = torch.Generator(rows.device).manual_seed(0)
    vectors = functional.normalize(
        torch.randn(count, dimensions, device=rows.device, generator=generator)
    ).to(dtype)
    asked = functional.normalize(torch.randn(queries, dimensions, device=rows.device, generator=generator))
    found = ExactSearch(vectors, rows.device)
    by_hand = asked.cpu().numpy()
    seconds = rows.seconds(lambda: found.search(by_hand, 100))
    there = ExactSearch(vectors.cpu(), "cpu")
    each = [set(one) for searcher in (found, there) for one in searcher.search(by_hand[:10], 100)[0].tolist()]
    same = np.mean([len(one & two) / 100 for one, two in zip(each[:10], each[10:], strict=True)])
    on_cpu = Rows("cpu", rows.quick).seconds(lambda: there.search(by_hand[:10], 100), 1, 0)
    peak = rows.peak_mb(lambda: found.search(by_hand, 100))
    return (
        f"{seconds * 1000:.1f} ms, {queries / seconds:,.0f} queries a second, peak {peak:,.0f} MB; same as the CPU's "
        f"{same:.2%}; 10 queries on the CPU {on_cpu * 1000:,.0f} ms"
    )


def _tiles(rows: Rows, tiles: int, queries: int) -> str:
    numbers = np.random.default_rng(0)
    vectors = numbers.standard_normal((tiles, 16, 256), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    photos = numbers.standard_normal((queries, 256), dtype=np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)

    def nearest(device: str, some: Any) -> Any:
        parts = [
            apart.topk(10, dim=1, largest=False).indices.cpu()
            for _, apart, _ in distance_blocks(some, vectors, torch.device(device))
        ]
        return torch.cat(parts).numpy()

    seconds = rows.seconds(lambda: nearest(rows.device, photos), 3, 1)
    on_cpu = Rows("cpu", rows.quick).seconds(lambda: nearest("cpu", photos[:100]), 1, 0)
    same = (nearest(rows.device, photos[:100]) == nearest("cpu", photos[:100])).mean()
    return (
        f"{seconds:.2f} s, the copies of the tiles to the device included; 100 photos on the CPU {on_cpu:.2f} s; same "
        f"{same:.2%}"
    )
