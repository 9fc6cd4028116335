"""Cross-view matching measured on test pairs: by rotations at test time, in cities never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoloc.evaluation.explaining import pair_maps
from geoloc.evaluation.measures.overhead import (
    METRES,
    PENULTIMATE,
    distance_histogram,
    measure_pairs,
    orientation_histogram,
)
from geoloc.files import read_parquet, write_parquet
from geoloc.models.cross_view_layers import without_last_layer
from geoloc.models.cross_view_prediction import embed_photos, embed_tiles, headings_of
from geoloc.models.matching import (
    bearings,
    best_threshold,
    distance_blocks,
    indexed_rotations,
    pair_distances,
    ranking,
)
from geoloc.sphere import EARTH_RADIUS_KM, distance_km, unit_vectors
from geoloc.training.cross_view import match_scores
from geoloc.training.cross_view_pairs import PairSource
from geoloc.training.cross_view_settings import CrossViewSettings

ROTATIONS = 16
ALIGNED = "aligned"
"""The method that sees each tile with its own photo's heading at the top: an upper bound (1GT of table 3.2)."""
SCORES_FILE, PAIRS_FILE, DISTANCES_FILE, HEADINGS_FILE = (
    "scores.parquet", "pairs.parquet", "distances.parquet", "headings.parquet",
)  # fmt: skip
CANDIDATES_FILE, CANDIDATES_OF, CANDIDATES = "candidates.parquet", "16 rotations", 20
"""The best candidates of each photo are kept of this method, this many."""
MAPS_FILE, MAPPED = "maps.parquet", 4
"""Maps of what the network looks at are made for this many pairs."""
PAIR_COLUMNS = (
    "method", "pair_id", "photo_id", "overhead_id", "best_overhead_id", "city", "photographer", "latitude",
    "longitude", "rank", "candidates", "metres", "distance", "unmatched_distance", "right_best", "right_fixed",
    "matched_fixed", "unmatched_fixed", "heading", "heading_found", "heading_error",
)  # fmt: skip


@dataclass(frozen=True)
class CrossViewEvaluation:
    """`scores`: measures.overhead.COLUMNS and the method. `pairs`: a row for each method and test pair (PAIR_COLUMNS).
    `distances` and `headings`: histograms by method. `candidates`: the best tiles of each photo (method, pair_id, place
    from 1, overhead_id, latitude, longitude, distance, up: the bearing at the top of the best rotation). `maps`: what
    the network looks at in a few pairs (explaining.pair_maps.COLUMNS). The last two are empty for a network that scores
    pairs."""

    scores: pd.DataFrame
    pairs: pd.DataFrame
    distances: pd.DataFrame
    headings: pd.DataFrame
    candidates: pd.DataFrame
    maps: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write the tables into an existing folder."""
        for name, table in self._tables().items():
            write_parquet(folder / name, table)

    @classmethod
    def load(cls, folder: Path) -> CrossViewEvaluation:
        """What `save` wrote. Raises DamagedFile or FileNotFoundError for missing or damaged tables."""
        names = (SCORES_FILE, PAIRS_FILE, DISTANCES_FILE, HEADINGS_FILE, CANDIDATES_FILE)
        tables = [read_parquet(folder / name, ("method",)) for name in names]
        maps = folder / MAPS_FILE  # an earlier version had none
        none = pd.DataFrame(columns=list(pair_maps.COLUMNS))
        tables.append(read_parquet(maps, pair_maps.COLUMNS) if maps.is_file() else none)
        return cls(*tables)

    def _tables(self) -> dict[str, pd.DataFrame]:
        return {
            SCORES_FILE: self.scores,
            PAIRS_FILE: self.pairs,
            DISTANCES_FILE: self.distances,
            HEADINGS_FILE: self.headings,
            CANDIDATES_FILE: self.candidates,
            MAPS_FILE: self.maps,
        }


@dataclass(frozen=True)
class _Embedded:
    """Embeddings of a set of pairs: photos (N, D), tiles (N, 16, D), and tiles with the photo's heading at the top
    (N, 1, D), NaN where it is unknown."""

    photos: NDArray[np.float32]
    tiles: NDArray[np.float32]
    aligned: NDArray[np.float32]


def method_names(settings: CrossViewSettings) -> list[str]:
    """The methods that are measured: rotations at test time and how they are matched, and the penultimate layer if the
    network has one; for a network that scores pairs, rotations only."""
    plain = ["1 rotation", "4 rotations", "16 rotations"]
    if settings.kind != "embedding":
        return [*plain, ALIGNED]
    layers = [PENULTIMATE] if settings.embedding_size is not None else []
    return [*plain, "16 rotations, sequence", "16 rotations, averaged", *layers, ALIGNED]


def evaluate_cross_view(
    test: PairSource, validation: PairSource, settings: CrossViewSettings, seed: int
) -> CrossViewEvaluation:
    """Every method of `method_names` on the test pairs. The fixed threshold is chosen on validation pairs by the same
    method.

    Candidates of a photo are the tiles of the test pairs of its city. Each photo has one random unmatched tile.
    """
    if settings.kind == "embedding":
        found = _embed(test, settings), _embed(validation, settings)
        made = _embedding_methods(test, validation, *found, settings, seed)
        candidates = _candidates(test, found[0])
        shown = spread_by_rank(made[CANDIDATES_OF], MAPPED)
        maps = pair_maps.maps_of_pairs(test, shown.index.to_numpy())
    else:
        made = _scoring_methods(test, validation, settings, seed)
        candidates = pd.DataFrame({"method": pd.Series(dtype="str")})
        maps = pair_maps.maps_of_pairs(test, np.empty(0, dtype=np.int64))
    tables = [rows.assign(method=name) for name, rows in made.items()]
    every = pd.concat(tables, ignore_index=True)
    scores, near, turned = [], [], []
    for name, rows in every.groupby("method", sort=False):
        scores.append(measure_pairs(rows, seed).assign(method=name))
        both = (rows[column].to_numpy(dtype=np.float64) for column in ("distance", "unmatched_distance"))
        near.append(distance_histogram(*both).assign(method=name))
        turned.append(orientation_histogram(rows["heading_error"].to_numpy()).assign(method=name))
    return CrossViewEvaluation(
        pd.concat(scores, ignore_index=True),
        every[[*PAIR_COLUMNS, *(f"chance_{limit}m" for limit in METRES)]],
        pd.concat(near, ignore_index=True),
        pd.concat(turned, ignore_index=True),
        candidates,
        maps,
    )


def spread_by_rank(pairs: pd.DataFrame, count: int) -> pd.DataFrame:
    """The rows of `count` pairs (rank, candidates, pair_id), evenly spread from the best rank to the worst."""
    order = pairs.assign(share=pairs["rank"] / pairs["candidates"]).sort_values(
        ["share", "pair_id"], kind="stable"
    )
    return order.iloc[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(int))]


def _embedding_methods(
    test: PairSource,
    validation: PairSource,
    of_test: _Embedded,
    of_validation: _Embedded,
    settings: CrossViewSettings,
    seed: int,
) -> dict[str, pd.DataFrame]:
    shape, made = test.model.shape, {}
    for name in method_names(settings):
        found, held, ups = [of_test, of_validation], [], np.empty(0)
        if name == PENULTIMATE:
            found = [_penultimate(source, settings) for source in (test, validation)]
        for one in found:
            vectors, ups = _as_indexed(name, one, shape.rotation_range, shape.normalise)
            held.append(vectors)
        has_heading = name not in (ALIGNED, PENULTIMATE)
        made[name] = _ranked(test, validation, found, held, ups, settings, seed, has_heading)
    return made


def _embed(source: PairSource, settings: CrossViewSettings) -> _Embedded:
    every, size = np.arange(len(source)), settings.search.batch_size
    model, precision = source.model, settings.precision
    up = source.pairs.heading[:, None]
    aligned = embed_tiles(model, source.tiles(every, size), len(source), np.nan_to_num(up), precision)
    aligned[np.isnan(up[:, 0])] = np.nan
    return _Embedded(
        embed_photos(model, source.photos(every, size, 0), len(source), precision),
        embed_tiles(model, source.tiles(every, size), len(source), bearings(ROTATIONS), precision),
        aligned,
    )


def _penultimate(source: PairSource, settings: CrossViewSettings) -> _Embedded:
    """Features of the penultimate layer, of tiles with north at the top."""
    every, size = np.arange(len(source)), settings.search.batch_size
    model, precision = without_last_layer(source.model), settings.precision
    tiles = embed_tiles(model, source.tiles(every, size), len(source), bearings(1), precision)
    return _Embedded(
        embed_photos(model, source.photos(every, size, 0), len(source), precision), tiles, tiles[:, :0]
    )


def _as_indexed(
    name: str, found: _Embedded, rotation_range: int, unit: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What an index of a method holds, (N, R, D), and the bearings at the top; NaN for the mean, and for aligned tiles,
    which have one of their own each."""
    if name == ALIGNED:
        return found.aligned, np.array([np.nan])
    if name == PENULTIMATE:
        return found.tiles, bearings(1)
    count, _, matching = name.partition(" rotation")
    some = found.tiles[:, :: ROTATIONS // int(count)]
    kind = {", sequence": "sequence", ", averaged": "average"}.get(matching.removeprefix("s"), "best")
    return indexed_rotations(some, kind, rotation_range, unit)


def _ranked(
    test: PairSource,
    validation: PairSource,
    found: list[_Embedded],
    held: list[NDArray[np.float32]],
    ups: NDArray[np.float64],
    settings: CrossViewSettings,
    seed: int,
    tells_heading: bool,
) -> pd.DataFrame:
    pairs, photos = test.pairs, found[0].photos
    rows = _blank(test)
    wrong = pairs.unmatched(settings.negative_km, seed)
    places = pairs.rows[["tile_latitude", "tile_longitude"]].to_numpy(dtype=np.float64)
    for _, group in pairs.rows.groupby("city", sort=True):
        at = group.index.to_numpy()
        one = ranking(photos[at], held[0][at], np.arange(len(at)))
        best = at[one.best]
        rows.loc[at, "rank"] = one.rank.astype(np.float64)
        rows.loc[at, "candidates"] = len(at)
        rows.loc[at, "best_overhead_id"] = np.where(
            one.best >= 0, pairs.rows["overhead_id"].to_numpy(dtype=object)[best], None
        )
        here = group[["latitude", "longitude"]].to_numpy(dtype=np.float64)
        metres = 1000 * distance_km(here[:, 0], here[:, 1], places[best, 0], places[best, 1])
        rows.loc[at, "metres"] = np.where(one.best >= 0, metres, np.nan)
        tree, points = cKDTree(unit_vectors(*places[at].T)), unit_vectors(*here.T)
        for limit in METRES:
            chord = 2 * np.sin(limit / 1000 / EARTH_RADIUS_KM / 2)
            near = tree.query_ball_point(points, chord, return_length=True)
            rows.loc[at, f"chance_{limit}m"] = near / len(at)
        rows.loc[at, "distance"] = one.distance
        if tells_heading:
            rows.loc[at, "heading_found"] = _headings(test, found[0], at, one.rotation, ups, held[0])
    rows["unmatched_distance"] = pair_distances(photos, held[0], wrong)
    fixed = _threshold(validation, found[1].photos, held[1], settings, seed)
    return _with_headings(_verified(rows, fixed), pairs.heading) if tells_heading else _verified(rows, fixed)


def _candidates(test: PairSource, found: _Embedded) -> pd.DataFrame:
    """The best tiles of each photo among those of its city, in the best of 16 rotations."""
    up, parts = bearings(ROTATIONS), []
    for _, group in test.pairs.rows.groupby("city", sort=True):
        at = group.index.to_numpy()
        for some, values, indices in distance_blocks(found.photos[at], found.tiles[at]):
            apart, turned, asked = values.numpy(), indices.numpy(), group.iloc[some]
            best = np.argsort(apart, axis=1, kind="stable")[:, :CANDIDATES]
            rows = group.iloc[best.ravel()]
            parts.append(
                pd.DataFrame(
                    {
                        "method": CANDIDATES_OF,
                        "pair_id": np.repeat(asked["pair_id"].to_numpy(dtype=object), best.shape[1]),
                        "place": np.tile(np.arange(1, best.shape[1] + 1), len(asked)),
                        "overhead_id": rows["overhead_id"].to_numpy(dtype=object),
                        "latitude": rows["tile_latitude"].to_numpy(),
                        "longitude": rows["tile_longitude"].to_numpy(),
                        "distance": np.take_along_axis(apart, best, axis=1).ravel(),
                        "up": up[np.take_along_axis(turned, best, axis=1)].ravel(),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _headings(
    source: PairSource,
    found: _Embedded,
    at: NDArray[np.int64],
    rotation: NDArray[np.int64],
    ups: NDArray[np.float64],
    held: NDArray[np.float32],
) -> NDArray[np.float64]:
    """The heading of each photo by its own tile; NaN where the method cannot tell it."""
    model = source.model
    if np.isnan(ups).all() and not model.tells_orientation:
        return np.full(len(at), np.nan)
    if np.isnan(ups).all():  # the mean of all rotations: the head is asked of the tile with north at the top
        return headings_of(model, found.photos[at], found.tiles[at, 0], np.zeros(len(at)))
    return headings_of(model, found.photos[at], held[at, rotation], ups[rotation])


def _threshold(
    source: PairSource,
    photos: NDArray[np.float32],
    held: NDArray[np.float32],
    settings: CrossViewSettings,
    seed: int,
) -> float | None:
    """The threshold with the best accuracy on a set of pairs; None without pairs."""
    if not len(source):
        return None
    wrong = source.pairs.unmatched(settings.negative_km, seed)
    near, far = (pair_distances(photos, held, tiles) for tiles in (np.arange(len(source)), wrong))
    return best_threshold(near, far[wrong >= 0])[0]


def _scoring_methods(
    test: PairSource, validation: PairSource, settings: CrossViewSettings, seed: int
) -> dict[str, pd.DataFrame]:
    """The methods of a network that scores pairs: verification only, by the negated score in place of a distance."""
    made = {}
    for name in method_names(settings):
        rows, known = (_scored(name, source, settings, seed) for source in (test, validation))
        far = known["unmatched_distance"].dropna().to_numpy()
        fixed = best_threshold(known["distance"].to_numpy(), far)[0] if len(known) else None
        made[name] = _verified(rows, fixed)
    return made


def _scored(name: str, source: PairSource, settings: CrossViewSettings, seed: int) -> pd.DataFrame:
    wrong = source.pairs.unmatched(settings.negative_km, seed)
    rows = _blank(source)
    for column, tiles in (("distance", np.arange(len(source))), ("unmatched_distance", wrong)):
        up = (
            bearings(int(name.partition(" ")[0])) if name != ALIGNED else source.pairs.heading[tiles][:, None]
        )
        scores = match_scores(source.model, source, tiles, np.nan_to_num(up), settings.precision)
        rows[column] = np.where((tiles < 0) | np.isnan(up).any(axis=-1), np.nan, -scores)
    return rows


def _blank(source: PairSource) -> pd.DataFrame:
    """The columns that describe the pairs, and NaN for what is measured."""
    known = ["pair_id", "photo_id", "overhead_id", "city", "photographer", "latitude", "longitude", "heading"]
    rows = source.pairs.rows[known].copy()
    rows["best_overhead_id"] = None
    measured = [name for name in PAIR_COLUMNS if name not in rows.columns and name != "method"]
    return rows.assign(
        **{name: np.nan for name in measured}, **{f"chance_{limit}m": np.nan for limit in METRES}
    )


def _verified(rows: pd.DataFrame, fixed: float | None) -> pd.DataFrame:
    """Rows with right_best and right_fixed, the share of the matched and the unmatched pair that a threshold judges
    right, and matched_fixed and unmatched_fixed, either by itself, 0 or 1. An unreadable pair is wrong."""
    near = rows["distance"].to_numpy(dtype=np.float64)
    far = rows["unmatched_distance"].to_numpy(dtype=np.float64)
    best = best_threshold(near, far[np.isfinite(far)])[0]
    made = {"right_best": ((near <= best) * 1.0 + (far > best)) / 2}
    if fixed is not None:
        matched, unmatched = (near <= fixed) * 1.0, (far > fixed) * 1.0
        made |= {
            "right_fixed": (matched + unmatched) / 2,
            "matched_fixed": matched,
            "unmatched_fixed": unmatched,
        }
    return rows.assign(**made)


def _with_headings(rows: pd.DataFrame, heading: NDArray[np.float64]) -> pd.DataFrame:
    off = rows["heading_found"].to_numpy(dtype=np.float64) - heading
    return rows.assign(heading_error=(off + 180) % 360 - 180)
