"""A raster as tiles with embeddings: cut on a grid, embedded in batches, and resumed where a run was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import atomic_folder, read_json, read_parquet, write_json, write_parquet
from geoloc.photos.rasters import Grid, Raster, RasterError, cut_tile

Embed = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]
"""Embeddings float32 (N, R, D) of N tiles, uint8 [P, P, 3] each, north up."""
Progress = Callable[[int, int], None]

TILE_COLUMNS = ("overhead_id", "latitude", "longitude", "metres_per_pixel")
_PLAN, _TILES, _VECTORS = "plan.json", "tiles.parquet", "vectors.npy"


@dataclass(frozen=True)
class Tiling:
    """How a raster is tiled: squares of `metres` as `pixels` x `pixels`, a centre every `step` metres; `least` is the
    share of a tile that needs imagery; `batch` tiles are cut and embedded at a time."""

    metres: float
    pixels: int
    step: float
    least: float = 1.0
    batch: int = 256


@dataclass(frozen=True)
class TiledRaster:
    """`tiles` (TILE_COLUMNS) with `vectors` float32 (N, R, D); `on_edge` and `outside`: places of the grid without a
    tile, because the imagery covers only part of them, or nothing."""

    tiles: pd.DataFrame
    vectors: NDArray[np.float32]
    on_edge: int
    outside: int


def tile_raster(
    raster: Raster, tiling: Tiling, embed: Embed, model: str, work: Path, progress: Progress | None = None
) -> TiledRaster:
    """Cut and embed the tiles of a raster. `model` names the network, as a hash.

    Each batch is written to the folder `work` as it is done, so a run that was stopped goes on where it was; what is
    there of another raster, tiling or network is removed. The caller removes `work` at the end. `progress` is called
    with (places of the grid done, of all). Raises RasterError if no tile can be cut.
    """
    grid = Grid.over(raster, tiling.step)
    plan = {"raster": raster.identity, "tiling": asdict(tiling), "model": model}
    if not (work / _PLAN).is_file() or read_json(work / _PLAN) != plan:
        shutil.rmtree(work, ignore_errors=True)
        write_json(work / _PLAN, plan)
    done, parts = 0, []
    for number, places in enumerate(_batches(grid, tiling.batch)):
        part = work / f"{number:06d}"
        if not part.is_dir():
            _make_part(part, raster, tiling, embed, places)
        parts.append(part)
        done += len(places)
        if progress is not None:
            progress(done, len(grid))
    facts = [read_json(part / _PLAN, dict) for part in parts]
    on_edge, outside = (sum(one[name] for one in facts) for name in ("on_edge", "outside"))
    full = [part for part, one in zip(parts, facts, strict=True) if one["tiles"]]
    if not full:
        raise RasterError(
            f"{raster.name} has no place for a tile of {tiling.metres:g} m: {on_edge} places are on its edge, "
            f"{outside} outside of it; make tiles smaller or pad them"
        )
    tiles = pd.concat([read_parquet(part / _TILES, TILE_COLUMNS) for part in full], ignore_index=True)
    return TiledRaster(tiles, np.concatenate([np.load(part / _VECTORS) for part in full]), on_edge, outside)


def _batches(grid: Grid, size: int) -> Iterator[list[tuple[str, float, float]]]:
    centres = grid.centres()
    while places := list(islice(centres, size)):
        yield places


def _make_part(
    part: Path, raster: Raster, tiling: Tiling, embed: Embed, places: Sequence[tuple[str, float, float]]
) -> None:
    rows, pictures, on_edge = [], [], 0
    for name, latitude, longitude in places:
        cut = cut_tile(raster, latitude, longitude, tiling.metres, tiling.pixels)
        if cut.covered and cut.covered >= tiling.least:
            rows.append((name, latitude, longitude, tiling.metres / tiling.pixels))
            pictures.append(cut.pixels)
        else:
            on_edge += cut.covered > 0
    with atomic_folder(part) as made:
        if rows:
            write_parquet(made / _TILES, pd.DataFrame(rows, columns=list(TILE_COLUMNS)))
            np.save(made / _VECTORS, embed(pictures))
        told = {
            "tiles": len(rows),
            "on_edge": int(on_edge),
            "outside": len(places) - len(rows) - int(on_edge),
        }
        write_json(made / _PLAN, told)
