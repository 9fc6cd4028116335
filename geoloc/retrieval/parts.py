"""The parts that a folder of embeddings is stored in: their files, what names their photos, and those of earlier.

See embeddings.py for the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import DamagedFile, atomic_path, damage_named, read_parquet, write_parquet


def contents(rows: pd.DataFrame) -> pd.Series:
    """What names the bytes of each photo: its sha256 where known, or where it lies."""
    place = rows["shard"].astype(str) + ":" + rows["offset"].astype(str) + ":" + rows["length"].astype(str)
    return rows["sha256"].fillna(place).astype(str) if "sha256" in rows.columns else place


def ids_hash(rows: pd.DataFrame) -> str:
    """SHA-256 of the photos, in order, and what names their bytes."""
    text = "".join(f"{a}\0{b}\n" for a, b in zip(rows["photo_id"], contents(rows), strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def write_part(
    folder: Path, part: int, rows: pd.DataFrame, vectors: NDArray[Any], reasons: list[str | None]
) -> None:
    """Vectors first: the photos file says that the part is finished."""
    with atomic_path(vectors_path(folder, part)) as temporary, temporary.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    write_parquet(photos_path(folder, part), photos_frame(rows, reasons))


def photos_frame(rows: pd.DataFrame, reasons: list[str | None]) -> pd.DataFrame:
    reason = pd.Series(reasons, dtype="str", index=rows.index)
    return pd.DataFrame(
        {
            "photo_id": rows["photo_id"].astype("str"),
            "readable": reason.isna(),
            "reason": reason,
            "content": contents(rows),
        }
    )


def read_part(folder: Path, part: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    """The photos of a part and its vectors, mapped from the file. Raises DamagedFile if they do not fit."""
    path = vectors_path(folder, part)
    photos = read_parquet(photos_path(folder, part), ("photo_id", "readable", "content"))
    with damage_named(path):
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    readable = int(photos["readable"].sum())
    if vectors.ndim != 2 or len(vectors) != readable:
        raise DamagedFile(path, f"it has shape {vectors.shape}, but {readable} photos are readable")
    return photos, vectors


def photos_path(folder: Path, part: int) -> Path:
    return folder / f"photos-{part:05d}.parquet"


def vectors_path(folder: Path, part: int) -> Path:
    return folder / f"vectors-{part:05d}.npy"


class EarlierParts:
    """The embeddings of an earlier folder, by batch of `batch_size` photos.

    A network gives equal bytes for equal photos in equal batches, so what is taken from here is what it would compute:
    a batch is found by the ids and bytes of all its photos. Photos that come last leave earlier batches as they were.
    `shifted` gives, by the name of a part that photos were taken out of, the row from which its photos are in other
    batches than those that the network saw.
    """

    def __init__(
        self, folder: Path, parts: int, batch_size: int, shifted: Mapping[str, int] | None = None
    ) -> None:
        self._vectors: list[NDArray[Any]] = []
        self._found: dict[bytes, tuple[int, int, int, list[str | None]]] = {}
        for part in range(parts):
            photos, vectors = read_part(folder, part)
            self._vectors.append(vectors)
            row = np.append(0, np.cumsum(photos["readable"].to_numpy(dtype=bool)))
            reasons = photos["reason"].astype(object).where(photos["reason"].notna(), None).tolist()
            names = batch_names(photos["photo_id"], photos["content"], batch_size)
            whole = (shifted or {}).get(photos_path(folder, part).stem)
            for start, name in zip(range(0, len(photos), batch_size), names, strict=True):
                if whole is not None and start + batch_size > whole:
                    break
                end = min(start + batch_size, len(photos))
                self._found[name] = (part, int(row[start]), int(row[end]), reasons[start:end])

    def __contains__(self, name: bytes) -> bool:
        return name in self._found

    def __getitem__(self, name: bytes) -> tuple[NDArray[Any] | None, list[str | None]]:
        """The vectors of the batch's readable photos, None for none, and for every photo None or why it has none."""
        part, first, last, reasons = self._found[name]
        return (self._vectors[part][first:last] if last > first else None), reasons


def batch_names(photo_ids: pd.Series, content: pd.Series, batch_size: int) -> list[bytes]:
    """A hash of the ids and bytes of the photos of each batch, in order."""
    lines = [f"{a}\0{b}\n" for a, b in zip(photo_ids, content, strict=True)]
    return [
        hashlib.sha256("".join(lines[start : start + batch_size]).encode()).digest()
        for start in range(0, len(lines), batch_size)
    ]
