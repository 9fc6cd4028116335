"""Batches of photos from stored JPEG bytes: threads read, decode and crop ahead of the network, in a fixed order.

JPEGs are decoded by torchvision. It gives the same pixels as Pillow (both use libjpeg-turbo) and is several times
faster, because it writes RGB directly into the array. Both release the interpreter lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torchvision.io import ImageReadMode, decode_jpeg

from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import Augmentation
from geoloc.photos.shards import ShardReader
from geoloc.processors import processors

NOT_STORED = "the pool holds no bytes of this photo"
_CHUNK = 8
"""Photos per task: few enough to share a batch among threads, enough to make the overhead of a task small."""

Crop = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Batch:
    """B decoded photos and those that could not be decoded.

    `images` uint8 [B, 3, S, S], channels-last in memory, for `Preprocess.normalise` or directly for a Classifier.
    `row_indices` int64 [B], their positions in `rows`. `unreadable_indices` int64 [U], the positions of unreadable
    photos. `reasons`, one text for each of those.
    """

    images: torch.Tensor
    row_indices: NDArray[np.int64]
    unreadable_indices: NDArray[np.int64]
    reasons: tuple[str, ...]


def iter_batches(
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    preprocess: Preprocess,
    batch_size: int,
    workers: int = 0,
    *,
    order: ArrayLike | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    epoch: int = 0,
    prefetch: int = 2,
    crop: str = "centre",
) -> Iterator[Batch]:
    """Decoded batches of the photos of `rows` (columns shard, offset, length), in order.

    Each run of `batch_size` photos gives one batch. Unreadable photos make it smaller, possibly empty, so every
    position occurs in exactly one batch. `order` (int64 positions) selects and orders the photos. With `augmentation`,
    photo i is augmented by (seed, epoch, i); otherwise its `crop` (one of preprocess.CROPS) is taken. `pool` is the
    folder of the pool, or an open reader of it. `workers` threads (0: one per processor) work `prefetch` batches ahead;
    neither changes the result.

    Raises ValueError for missing columns, a batch size below 1 or positions outside of `rows`; OSError if a shard
    cannot be read, which is a fault of the pool and not of a photo.
    """
    missing = [name for name in ("shard", "offset", "length") if name not in rows.columns]
    if missing:
        raise ValueError(f"rows need the columns shard, offset, length; missing: {', '.join(missing)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    positions = np.arange(len(rows)) if order is None else np.asarray(order, dtype=np.int64)
    if len(positions) and (positions.min() < 0 or positions.max() >= len(rows)):
        raise ValueError(
            f"order must hold positions below {len(rows)}, got {positions.min()}..{positions.max()}"
        )
    return _batches(
        pool,
        rows,
        positions,
        batch_size,
        workers,
        prefetch,
        _crop_of(preprocess, augmentation, seed, epoch, crop),
    )


def batches_of_pixels(
    photos: Sequence[NDArray[np.uint8]], preprocess: Preprocess, batch_size: int, *, crop: str = "centre"
) -> Iterator[Batch]:
    """Batches of decoded photos, uint8 [H, W, 3] each, in the form of `iter_batches`.

    Raises ValueError for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    none = np.empty(0, dtype=np.int64)
    for start in range(0, len(photos), batch_size):
        some = photos[start : start + batch_size]
        images = np.stack([preprocess.apply_uint8(photo, crop) for photo in some])
        positions = np.arange(start, start + len(some))
        yield Batch(torch.from_numpy(images).permute(0, 3, 1, 2), positions, none, ())


def _batches(
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    positions: NDArray[np.int64],
    batch_size: int,
    workers: int,
    prefetch: int,
    crop: tuple[int, Crop],
) -> Iterator[Batch]:
    size, cut = crop
    shard = rows["shard"].to_numpy(dtype=object, na_value=None)
    offset = rows["offset"].to_numpy(dtype=np.int64, na_value=-1)
    length = rows["length"].to_numpy(dtype=np.int64, na_value=-1)
    with ExitStack() as stack:
        reader = stack.enter_context(ShardReader(Path(pool))) if isinstance(pool, Path | str) else pool

        def work(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> list[tuple[int, str]]:
            """Fill `images` with the photos at `indices`; returns slot and reason of those that failed."""
            failed = []
            for slot, index in enumerate(indices.tolist()):
                if shard[index] is None or length[index] < 0:
                    failed.append((slot, NOT_STORED))
                    continue
                data = reader.read(shard[index], int(offset[index]), int(length[index]))
                try:
                    images[slot] = cut(decode(data), index)
                except UnreadableJpeg as error:
                    failed.append((slot, str(error)))
            return failed

        threads = stack.enter_context(ThreadPoolExecutor(workers or processors(), "decode"))
        waiting: deque[tuple[NDArray[np.uint8], NDArray[np.int64], list[Future[list[tuple[int, str]]]]]] = (
            deque()
        )
        stack.callback(lambda: [task.cancel() for *_, tasks in waiting for task in tasks])
        for start in range(0, len(positions), batch_size):
            indices = positions[start : start + batch_size]
            images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
            starts = range(0, len(indices), _CHUNK)
            tasks = [threads.submit(work, images[s : s + _CHUNK], indices[s : s + _CHUNK]) for s in starts]
            waiting.append((images, indices, tasks))
            if len(waiting) > prefetch:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def _finished(
    images: NDArray[np.uint8], indices: NDArray[np.int64], tasks: list[Future[list[tuple[int, str]]]]
) -> Batch:
    failed = [
        (_CHUNK * chunk + slot, reason) for chunk, task in enumerate(tasks) for slot, reason in task.result()
    ]
    bad = np.array([slot for slot, _ in failed], dtype=np.int64)
    readable = np.delete(np.arange(len(indices)), bad)
    tensor = torch.from_numpy(images[readable] if failed else images).permute(0, 3, 1, 2)
    return Batch(tensor, indices[readable], indices[bad], tuple(reason for _, reason in failed))


def _crop_of(
    preprocess: Preprocess, augmentation: Augmentation | None, seed: int, epoch: int, crop: str
) -> tuple[int, Crop]:
    """The side of the crop, and the function that makes it from a photo and its position."""
    if augmentation is None:
        return preprocess.image_size, lambda photo, index: preprocess.apply_uint8(photo, crop)
    return preprocess.image_size, lambda photo, index: preprocess.augment_uint8(
        photo, augmentation, seed=seed, epoch=epoch, index=index
    )


class UnreadableJpeg(ValueError):
    """The bytes are not a complete JPEG."""


def decode(data: bytes) -> NDArray[np.uint8]:
    """A stored JPEG (RGB or grey, orientation applied) as uint8 [H, W, 3]. Raises UnreadableJpeg."""
    if not data:
        raise UnreadableJpeg("the photo has no bytes")
    try:
        # A bytearray, because torch warns about read-only memory.
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise UnreadableJpeg(str(error).splitlines()[0] or "not a JPEG") from error
    return pixels.permute(1, 2, 0).numpy()
