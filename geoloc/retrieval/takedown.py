"""Taking photos out of stored embeddings and indexes: their rows, their vectors, and the names of their groups.

`groups` gives, by the id of each photo that is taken down, the new name of a group of near-duplicates that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from geoloc.files import atomic_path, read_json, read_parquet, write_json, write_parquet
from geoloc.retrieval.embeddings import SHIFTED
from geoloc.retrieval.references import NEAR_DUPLICATES


def without_photos(frame: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """A table with a row a photo, without the rows of the photos in `groups`."""
    kept = frame[~frame["photo_id"].isin(list(groups))].reset_index(drop=True)
    if NEAR_DUPLICATES in kept:
        kept[NEAR_DUPLICATES] = kept[NEAR_DUPLICATES].replace(dict(groups))
    return kept


def take_from_table(path: Path, groups: Mapping[str, str]) -> None:
    """Rewrite a Parquet table without these photos, atomically; no-op where none is in it."""
    frame = read_parquet(path, ("photo_id",))
    kept = without_photos(frame, groups)
    if len(kept) < len(frame):
        write_parquet(path, kept)


def take_from_embeddings(folder: Path, groups: Mapping[str, str]) -> None:
    """Rewrite the parts of stored embeddings that hold these photos. No-op where none does.

    A reader must not see the folder meanwhile: give a copy, and put that in its place.
    """
    removed = readable = 0
    first: dict[str, int] = {}
    for photos in sorted(folder.glob("photos-*.parquet")):
        frame = read_parquet(photos, ("photo_id", "readable"))
        gone = frame["photo_id"].isin(list(groups)).to_numpy()
        if not gone.any():
            continue
        vectors = photos.with_name(photos.name.replace("photos-", "vectors-")).with_suffix(".npy")
        stored = np.load(vectors, allow_pickle=False)
        has_vector = frame["readable"].to_numpy(bool)
        with atomic_path(vectors) as temporary, temporary.open("wb") as stream:
            np.save(stream, stored[~gone[has_vector]], allow_pickle=False)
        write_parquet(photos, frame[~gone].reset_index(drop=True))
        first[photos.stem] = int(gone.argmax())
        removed += int(gone.sum())
        readable += int((gone & has_vector).sum())
    if removed:
        take_from_table(folder / "unreadable.parquet", groups)
        meta = read_json(folder / "meta.json", dict)
        meta["photos"] -= removed
        meta["readable"] -= readable
        meta["photo_ids"] = ""  # of other photos than these
        before = meta.get(SHIFTED, {})
        meta[SHIFTED] = before | {part: min(row, before.get(part, row)) for part, row in first.items()}
        write_json(folder / "meta.json", meta)


def take_from_index(folder: Path, groups: Mapping[str, str]) -> None:
    """Rewrite a saved index without these references, atomically. No-op where none is in it."""
    references = read_parquet(folder / "references.parquet", ("photo_id",))
    named = references.get(NEAR_DUPLICATES, pd.Series(dtype=object)).isin(list(groups)).any()
    if not named and not references["photo_id"].isin(list(groups)).any():
        return
    from geoloc.retrieval.index import ReferenceIndex  # FAISS takes a second to import

    index = ReferenceIndex.load(folder)
    index.remove(list(groups))
    index.save(folder)
    write_parquet(folder / "references.parquet", without_photos(index.references, groups))
