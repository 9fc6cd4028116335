"""Tools of the calibration study of the sample planet: the truth made again, statistics, and simple probes.

Everything here is small on purpose. A probe shows that there is something to learn, not how well it can be learned.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.sample.dirt import soiled
from geoloc.sample.generate import make_sample
from geoloc.sample.people import make_shots
from geoloc.sample.records import photo_records, truth_records
from geoloc.sample.settings import NO_DIRT, SampleSettings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BEARINGS = 120
"""Bearings at which a tile is sampled, 3 degrees apart."""

RINGS = 12
SECTORS = 9
"""Parts of a photo side by side, each SECTOR_DEGREES wide; in a tile, the same sectors ahead of the camera."""

SECTOR_DEGREES = 6.0
BANDS = 16
"""Parts of a photo one above the other."""

_NEAREST_M, _FURTHEST_M = 3.0, 62.0
_AT_ONCE = 64  # pictures: what is worked on stays in the processor's cache
_USUAL_VIEW = 57.0  # degrees across: photos.csv has no lens, so the probe assumes the usual one


PAIRS = SampleSettings(
    cities=12,
    overhead_share=1.0,
    dirt=NO_DIRT,
    no_cue_share=0.0,
    burst_share=0.0,
    exact_copy_share=0.0,
    near_copy_share=0.0,
)
"""Clean outdoor photos of a few cities, each with its tile: the training set of the layout probe."""


def timed_sample(
    folder: Path | str, photos: int, seed: int, processes: int | None = None, pairs: bool = False
) -> dict[str, Any]:
    """Run `make_sample` (with PAIRS, if `pairs`). Returns its timing as plain values, for JSON.

    photos, tiles: pictures drawn. photos_s: seconds until all photos are drawn. tiles_s: from there until all tiles
    are. later: photos per second from the second chunk on, when all processes have started. processor_s: of the drawing
    processes. whole_s: until everything is written.
    """
    import resource  # imported here: Unix only

    def worked() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    marks: list[tuple[int, float]] = []
    before, started = worked(), time.perf_counter()
    made = make_sample(
        folder,
        photos,
        seed=seed,
        settings=PAIRS if pairs else None,
        processes=processes,
        progress=lambda done, total: marks.append((done, time.perf_counter() - started)),
    )
    whole, drawn = time.perf_counter() - started, marks[-1][0]
    of_ground = drawn - made.tiles
    first_done, first_s = marks[min(1, len(marks) - 1)]
    photos_s = next(moment for done, moment in marks if done >= of_ground)
    return {
        "photos": of_ground,
        "tiles": made.tiles,
        "photos_s": photos_s,
        "tiles_s": marks[-1][1] - photos_s,
        "later": (of_ground - first_done) / max(photos_s - first_s, 1e-9),
        "processor_s": worked() - before,
        "whole_s": whole,
    }


def remake(
    photos: int, seed: int, settings: SampleSettings, version: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns photos.csv and truth.csv of a sample as tables with the same rows, without drawing anything.

    The truth also has the photographer's name.
    """
    table = soiled(make_shots(photos, seed, settings, version), settings.dirt, seed, version)
    truth = truth_records(table).assign(photographer=table["photographer"])
    return photo_records(table, settings.heading_share), truth


def mutual_information(a: ArrayLike, b: ArrayLike) -> float:
    """Returns the plug-in mutual information of two arrays of N small integers from 0, in bits: biased upwards.

    Compare it with that of permuted arrays, which has the same bias.
    """
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    if len(a) == 0 or len(a) != len(b):
        raise ValueError(
            f"mutual information needs two arrays of one length above 0, got {len(a)} and {len(b)}"
        )
    table = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1))
    share = table.reshape(a.max() + 1, b.max() + 1) / len(a)
    alone = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    there = share > 0
    return float((share[there] * np.log2(share[there] / alone[there])).sum())


def blocks_permuted(owner: ArrayLike, rng: np.random.Generator) -> IntArray:
    """Returns the rows with the owners in random order; the rows of an owner stay together and in order: int64 (N,).

    For permutation tests. Values in this order keep what the values of one owner have in common, but lose their
    relation to the other columns of that owner.
    """
    codes = np.unique(np.asarray(owner), return_inverse=True)[1]
    rank = rng.permutation(int(codes.max(initial=-1)) + 1)
    return np.argsort(rank[codes], kind="stable").astype(np.int64)


def turn_between(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Returns the angle between two bearings or longitudes, degrees, 0 to 180; arguments broadcast."""
    return np.abs((np.asarray(a, np.float64) - np.asarray(b, np.float64) + 180.0) % 360.0 - 180.0)


def longitude_by_hour(hour: ArrayLike, longitude: ArrayLike, width_h: float = 1.0) -> FloatArray:
    """Returns for each of 24 hours the multiple of 15 degrees that best predicts the longitude, float64 (24,).

    Best: least mean circular error, with photos weighted by a Gaussian of their distance in hours (width `width_h`).
    """
    hour, longitude = np.asarray(hour, np.float64), np.asarray(longitude, np.float64)
    grid = np.arange(-180.0, 180.0, 15.0)
    cost = turn_between(longitude[:, None], grid)
    apart = turn_between(hour[None, :] * 15.0, np.arange(24)[:, None] * 15.0) / 15.0
    return grid[np.argmin(np.exp(-0.5 * (apart / width_h) ** 2) @ cost, axis=1)]


def placements(positive: ArrayLike, negative: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns for each positive the share of negatives below it, and for each negative the share of positives above it.

    Ties count half. The mean of either is the area under the ROC curve; its variance comes from both (DeLong, DeLong
    and Clarke-Pearson 1988; with clusters, Obuchowski 1997).
    """
    high, low = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    by_low, by_high = np.sort(low), np.sort(high)
    below = (np.searchsorted(by_low, high, "left") + np.searchsorted(by_low, high, "right")) / 2
    above = (np.searchsorted(by_high, low, "left") + np.searchsorted(by_high, low, "right")) / 2
    return below / max(len(low), 1), 1.0 - above / max(len(high), 1)


def zipf_exponent(counts: ArrayLike, shift: float = 4.0) -> float:
    """Returns s of counts ~ (rank + shift)^-s, rank from 0, by least squares of logarithms weighted by the counts."""
    many = np.sort(np.asarray(counts, np.float64))[::-1]
    slope = np.polyfit(np.log(np.arange(len(many)) + shift), np.log(many), 1, w=np.sqrt(many))[0]
    return float(-slope)


def grey_thumbnails(pictures: NDArray[np.uint8], side: int = 16) -> FloatArray:
    """Returns small grey pictures, each of mean 0 and length 1: float64 [N, side * side] from uint8 [N, S, S, 3].

    The inner product of two is their correlation; a uniform picture is all zeros.
    """
    count, size = pictures.shape[:2]
    cut = size // side * side
    grey = pictures[:, :cut, :cut].mean(axis=3).reshape(count, side, cut // side, side, cut // side)
    small = grey.mean(axis=(2, 4)).reshape(count, -1)
    small = small - small.mean(axis=1, keepdims=True)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-9)


# The layout probe: what is where in a photo, and in the tile as seen from the camera.


def photo_sectors(pictures: NDArray[np.uint8]) -> FloatArray:
    """Returns features of photos by sector: float64 [N, SECTORS, BANDS * 4], from uint8 [N, S, S, 3].

    For each sector and band the mean of four channels (grey, red - blue, green - both, change from row to row), each
    channel with mean 0 and deviation 1 over the photo.
    """
    if len(pictures) > _AT_ONCE:
        return np.concatenate([photo_sectors(part) for part in _parts(pictures)])
    size = pictures.shape[1]
    focal = size / 2 / np.tan(np.radians(_USUAL_VIEW / 2))
    angle = np.degrees(np.arctan((np.arange(size) + 0.5 - size / 2) / focal))
    sector = np.floor(angle / SECTOR_DEGREES + SECTORS / 2).astype(np.int64)
    channels = _channels(pictures, along=(1,))
    bands = channels[:, : size // BANDS * BANDS].reshape(len(pictures), BANDS, -1, size, 4).mean(axis=2)
    made = [bands[:, :, sector == s].mean(axis=2).reshape(len(pictures), -1) for s in range(SECTORS)]
    return np.stack(made, axis=1)


def tile_polar(tiles: NDArray[np.uint8], metres_per_pixel: float) -> FloatArray:
    """Returns tiles by bearing and ring around the middle: float64 [N, BEARINGS, RINGS * 4], from uint8 [N, S, S, 3].

    Channels as in `photo_sectors`; the last one is change in both directions. Bearing 0 is north, up in the tile.
    """
    if len(tiles) > _AT_ONCE:
        return np.concatenate([tile_polar(part, metres_per_pixel) for part in _parts(tiles)])
    size = tiles.shape[1]
    channels = _channels(tiles, along=(1, 2))
    furthest = min(_FURTHEST_M, (size / 2 - 1) * metres_per_pixel)
    radius = np.geomspace(_NEAREST_M, furthest, 4 * RINGS) / metres_per_pixel
    bearing = np.radians(np.arange(BEARINGS) * 360.0 / BEARINGS)
    column = np.floor(size / 2 + np.sin(bearing)[:, None] * radius).astype(np.int64)
    row = np.floor(size / 2 - np.cos(bearing)[:, None] * radius).astype(np.int64)
    seen = channels[:, row, column]  # [N, BEARINGS, 4 * RINGS, 4]
    return seen.reshape(len(tiles), BEARINGS, RINGS, 4, 4).mean(axis=3).reshape(len(tiles), BEARINGS, -1)


def ahead(polar: FloatArray, heading: ArrayLike) -> FloatArray:
    """Returns the sectors of tiles ahead of cameras with N headings (degrees), left to right, [N, SECTORS, RINGS*4]."""
    step = 360.0 / BEARINGS
    off = (np.arange(SECTORS) - (SECTORS - 1) / 2) * SECTOR_DEGREES
    middle = np.rint((np.asarray(heading, np.float64)[:, None] + off) / step).astype(np.int64)
    rows = np.arange(len(polar))[:, None]
    seen = polar[rows, middle % BEARINGS] * 2
    seen += polar[rows, (middle - 1) % BEARINGS] + polar[rows, (middle + 1) % BEARINGS]
    return np.asarray(seen / 4)


def _parts(pictures: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pictures[start : start + _AT_ONCE] for start in range(0, len(pictures), _AT_ONCE)]


def _channels(pictures: NDArray[np.uint8], along: tuple[int, ...]) -> FloatArray:
    """Four channels [N, S, S, 4] of mean 0 and deviation 1 over each picture; the last is change along axes."""
    made = np.empty((*pictures.shape[:3], 4), np.float32)
    red, green, blue = (pictures[..., c].astype(np.float32) for c in range(3))
    made[..., 0] = (red + green + blue) / 3
    made[..., 1] = red - blue
    made[..., 2] = 2 * green - red - blue
    made[..., 3] = sum(np.abs(np.gradient(made[..., 0], axis=axis)) for axis in along)
    made -= made.mean(axis=(1, 2), keepdims=True)
    made /= np.maximum(made.std(axis=(1, 2), keepdims=True), 1e-3)
    return made


@dataclass(frozen=True, eq=False)
class LayoutProbe:
    """Canonical correlation (Hotelling 1936) of photo and tile features, shared by all sectors.

    Its score of a photo and a tile is the log likelihood ratio of "a pair" against "independent" for Gaussian
    features, summed over sectors and canonical variables.
    """

    of_photo: FloatArray
    of_tile: FloatArray
    correlation: FloatArray

    @classmethod
    def fit(cls, photo: FloatArray, tile: FloatArray, ridge: float = 0.05, most: int = 24) -> Self:
        """Fit on centred features [N, SECTORS, F] and [N, SECTORS, G] of pairs that belong together."""
        x, y = photo.reshape(-1, photo.shape[-1]), tile.reshape(-1, tile.shape[-1])
        white_x, white_y = _whitening(x, ridge), _whitening(y, ridge)
        u, s, v = np.linalg.svd(white_x.T @ (x.T @ y / len(x)) @ white_y)
        most = min(most, len(s))
        correlation = np.clip(s[:most], 0.0, 0.99)
        return cls(white_x @ u[:, :most], white_y @ v[:most].T, correlation)

    def photo_side(self, photo: FloatArray) -> FloatArray:
        """Returns canonical variables of photos, [N, SECTORS, K]."""
        return photo @ self.of_photo

    def tile_side(self, tile: FloatArray) -> FloatArray:
        """Returns canonical variables of tiles, [N, SECTORS, K]."""
        return tile @ self.of_tile

    def score(self, photo: FloatArray, tile: FloatArray) -> FloatArray:
        """Returns the score of canonical variables [..., SECTORS, K] of both sides, [...]; arguments broadcast."""
        r = self.correlation
        quadratic = r * r * (photo * photo + tile * tile) - 2 * r * photo * tile
        return np.asarray((-quadratic / (2 * (1 - r * r))).sum(axis=(-1, -2)))


def _whitening(x: FloatArray, ridge: float) -> FloatArray:
    covariance = x.T @ x / len(x)
    covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(values))


def centred(features: FloatArray, group: ArrayLike) -> FloatArray:
    """Returns features [N, ...] minus the mean of their group, so that what a group has in common cannot help."""
    codes = np.unique(np.asarray(group), return_inverse=True)[1]
    flat = features.reshape(len(features), -1)
    sums = np.zeros((int(codes.max(initial=-1)) + 1, flat.shape[1]))
    np.add.at(sums, codes, flat)
    return np.asarray((flat - (sums / np.bincount(codes)[:, None])[codes]).reshape(features.shape))
