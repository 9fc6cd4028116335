"""The files of an index: index.faiss, references.parquet and meta.json, which appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd

from geoloc.files import (
    DamagedFile,
    atomic_folder,
    damage_named,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)
from geoloc.retrieval.references import REFERENCE_COLUMNS

FORMAT = 1
_INDEX, _REFERENCES, _META = "index.faiss", "references.parquet", "meta.json"


def write_index(folder: Path | str, index: Any, references: pd.DataFrame, meta: dict[str, Any]) -> None:
    """Write a FAISS index and its references. A process killed meanwhile leaves the index that was there before."""
    with atomic_folder(folder) as temporary:
        faiss.write_index(index, str(temporary / _INDEX))
        write_parquet(temporary / _REFERENCES, references)
        counted = {
            "format": FORMAT,
            "references": len(references),
            "dimension": int(index.d),
            "index_bytes": (temporary / _INDEX).stat().st_size,
        }
        write_json(temporary / _META, counted | meta)


def read_meta(folder: Path | str) -> dict[str, Any]:
    """meta.json of an index. Raises FileNotFoundError if it is missing, DamagedFile for another format."""
    meta: dict[str, Any] = read_json(Path(folder) / _META, dict)
    if meta.get("format") != FORMAT:
        raise DamagedFile(
            folder, f"it holds an index of format {meta.get('format')}, this code reads {FORMAT}"
        )
    return meta


def read_index(folder: Path | str, meta: dict[str, Any], mapped: bool) -> tuple[Any, pd.DataFrame]:
    """Returns the FAISS index and the references; `mapped` leaves the vectors in the file.

    Raises FileNotFoundError for a missing file, DamagedFile for files that do not match.
    """
    folder = Path(folder)
    path = folder / _INDEX
    size = path.stat().st_size
    if size != meta["index_bytes"]:
        raise DamagedFile(path, f"it has {size} bytes, expected {meta['index_bytes']} ({_META})")
    with damage_named(path):
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    references = read_parquet(folder / _REFERENCES, ("id", *REFERENCE_COLUMNS))
    counts = {_META: meta["references"], _INDEX: index.ntotal, _REFERENCES: len(references)}
    if len(set(counts.values())) != 1 or index.d != meta["dimension"]:
        raise DamagedFile(folder, f"it is inconsistent: references by file {counts}, dimension {index.d}")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DamagedFile(path, "it does not use the inner product")
    if isinstance(index, faiss.IndexIDMap2) and not np.array_equal(
        faiss.vector_to_array(index.id_map), references["id"].to_numpy()
    ):
        raise DamagedFile(folder, f"it is inconsistent: {_INDEX} and {_REFERENCES} hold different ids")
    return index, references
