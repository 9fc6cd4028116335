"""Loads the folder that `Partition.save` wrote, with checks of its hashes, columns and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoloc.files import DamagedFile, one_line, read_json, read_parquet, sha256_bytes
from geoloc.partitions.base import (
    CELLS_COLUMNS,
    CELLS_FILE,
    FORMAT,
    GEOMETRY_FILE,
    METADATA_FILE,
    Partition,
    PartitionError,
)
from geoloc.sphere import is_valid


def load_saved(path: Path | str, kinds: Sequence[type[Partition]]) -> Partition:
    """Load the partition in the folder `path`, which must be of one of `kinds`; see `load_partition`.

    Raises PartitionError for a folder that is missing, damaged, or of another kind or format.
    """
    folder = Path(path)
    metadata = _read_metadata(folder)
    known = {kind.kind: kind for kind in kinds}
    if metadata["kind"] not in known:
        raise PartitionError(
            f"{folder} holds a partition of kind {metadata['kind']!r}; this version knows {', '.join(sorted(known))}"
        )
    cells = _read_cells(folder, metadata)
    if "geometry_sha256" in metadata:
        cells.attrs["geometry"] = _read_table(folder / GEOMETRY_FILE, metadata["geometry_sha256"])
    try:
        made = known[metadata["kind"]]._restore(metadata["settings"], cells)
        tokens, centres = made._geometry()
    except (ValueError, TypeError, LookupError) as error:  # settings of another form too
        raise PartitionError(f"{folder} is damaged: {one_line(error)}") from error
    saved_centres = cells[["centre_latitude", "centre_longitude"]].to_numpy()
    if tokens != cells["token"].tolist() or not np.allclose(centres, saved_centres, rtol=0, atol=1e-9):
        raise PartitionError(f"{folder} is damaged: its cells do not have the names or centres it gives them")
    centroids = cells[["centroid_latitude", "centroid_longitude"]].to_numpy()
    made._take(tokens, cells["photos"].to_numpy(), saved_centres, centroids, metadata["fitted_photos"])
    return made


def _read_metadata(folder: Path) -> dict[str, Any]:
    """partition.json with its keys and types checked."""
    file = folder / METADATA_FILE
    if not file.is_file():
        raise PartitionError(f"{folder} holds no partition: {METADATA_FILE} is missing")
    try:
        metadata = read_json(file)
    except DamagedFile as error:
        raise PartitionError(str(error)) from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise PartitionError(f"{file} is not a partition of format {FORMAT}, the one this version reads")
    types = {"kind": str, "settings": dict, "cell_count": int, "fitted_photos": int, "cells_sha256": str}
    for key, kind in types.items():
        if not isinstance(metadata.get(key), kind):
            raise PartitionError(
                f"{file} is damaged: {key} must be a {kind.__name__}, got {metadata.get(key)!r}"
            )
    return metadata


def _read_table(file: Path, sha256: str) -> pd.DataFrame:
    """A Parquet file whose bytes have this hash."""
    if not file.is_file():
        raise PartitionError(f"{file.parent} is damaged: {file.name} is missing")
    if sha256_bytes(file.read_bytes()) != sha256:
        raise PartitionError(f"{file} is damaged: its bytes are not those that {METADATA_FILE} names")
    try:
        return read_parquet(file)
    except DamagedFile as error:
        raise PartitionError(str(error)) from error


def _read_cells(folder: Path, metadata: Mapping[str, Any]) -> pd.DataFrame:
    """cells.parquet with hash, columns, types and values checked."""
    file = folder / CELLS_FILE
    cells = _read_table(file, metadata["cells_sha256"])
    if tuple(cells.columns) != CELLS_COLUMNS:
        raise PartitionError(f"{file} is damaged: its columns are {', '.join(map(str, cells.columns))}")
    numbers = cells[list(CELLS_COLUMNS[2:])]
    well_typed = (
        pd.api.types.is_string_dtype(cells["token"])
        and cells["photos"].dtype == np.int64
        and all(dtype == np.float64 for dtype in numbers.dtypes)
    )
    if not well_typed:
        raise PartitionError(
            f"{file} is damaged: its columns are not text, whole numbers and floats as they must be"
        )
    valid = is_valid(cells["centre_latitude"], cells["centre_longitude"]) & is_valid(
        cells["centroid_latitude"], cells["centroid_longitude"]
    )
    total, count = int(cells["photos"].sum()), len(cells)
    if not valid.all() or (cells["photos"] < 0).any() or total > metadata["fitted_photos"]:
        raise PartitionError(f"{file} is damaged: it holds impossible coordinates or photo counts")
    if count != metadata["cell_count"]:
        raise PartitionError(f"{file} is damaged: it holds {count} cells, not {metadata['cell_count']}")
    if count == 0:
        raise PartitionError(f"{file} is damaged: it holds no cells")
    return cells
