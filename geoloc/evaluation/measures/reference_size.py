"""Accuracy against the number of references, and by whose references they are.

Random subsets of the references, each within the next larger one, say what more reference photos are worth (Revisiting
IM2GPS, section 4.5: more help, and those like the query help more). Nothing is indexed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.diagnostics import AT_RANDOM
from geoloc.evaluation.measures.accuracy import error_km, within
from geoloc.evaluation.measures.intervals import shares
from geoloc.localizers.by_neighbour import NeighbourLocalizer
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.reference_sets import in_random_order
from geoloc.sphere import LEVELS_KM

COLUMNS = {
    "method": "str", "source": "str", "drawn": "str", "share": "float64", "references": "int64", "level": "str",
    "km": "float64", "accuracy": "float64", "low": "float64", "high": "float64", "n": "int64",
}  # fmt: skip
OWN, OTHERS = "of its own source", "of other sources"
"""What the references of a row are, column `drawn`; or AT_RANDOM."""
MOST_QUERIES = 5_000
"""Of more queries a sample is asked: a search for each size costs as much as the evaluation's own."""
_DECIMALS = 10


@dataclass(frozen=True)
class Queries:
    """Photos with known places: `vectors` [Q, D] are NaN for one without an embedding, which is wrong at all levels.

    `clusters` int [Q] are their photographers, from 0; `sources` [Q] and `reference_sources` [R] name the sources of
    queries and references, None if they are all of one.
    """

    vectors: NDArray[np.floating]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    clusters: NDArray[np.int64]
    sources: NDArray[np.object_] | None = None
    reference_sources: NDArray[np.object_] | None = None

    def take(self, positions: NDArray[np.int64]) -> Queries:
        """Returns some of the queries, against the same references."""
        return Queries(
            self.vectors[positions],
            self.latitude[positions],
            self.longitude[positions],
            np.unique(self.clusters[positions], return_inverse=True)[1],
            None if self.sources is None else self.sources[positions],
            self.reference_sources,
        )


def some_queries(count: int, seed: int) -> NDArray[np.int64]:
    """Returns the positions of `count` queries, or of a random MOST_QUERIES of them, in order."""
    if count <= MOST_QUERIES:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 1]).choice(count, MOST_QUERIES, replace=False))


def accuracy_by_references(
    index: ReferenceIndex,
    localizers: Sequence[NeighbourLocalizer],
    queries: Queries,
    halvings: int,
    seed: int,
    among: NDArray[np.bool_] | None = None,
    levels_km: Mapping[str, float] = LEVELS_KM,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Returns the accuracy of localizers over `index` with fewer references, columns COLUMNS.

    References are `drawn` at random: all of them, a half, a quarter, ... `halvings` times; `share` is of those that
    `among` [R] allows. Where queries have sources that some references share and others do not, as many references of
    the query's own source and of other sources are compared too, for the queries of each `source`.
    """
    order = in_random_order(len(index), seed, among)
    rows: list[dict[str, object]] = []
    for size in (
        sorted({max(1, len(order) >> halving) for halving in range(halvings + 1)}) if len(order) else ()
    ):
        found = _rows(index, localizers, queries, order[:size], levels_km, confidence)
        rows += [{"source": "", "drawn": AT_RANDOM, "share": size / len(order), **row} for row in found]
    for source, positions, own, others in _by_source(queries, order):
        asked = queries.take(positions)
        for drawn, references in ((OWN, own), (OTHERS, others)):
            found = _rows(index, localizers, asked, references, levels_km, confidence)
            rows += [
                {"source": source, "drawn": drawn, "share": len(references) / len(order), **row}
                for row in found
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS).round(_DECIMALS)


def _by_source(
    queries: Queries, order: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yields each source of queries that some but not all references are of, the positions of its queries, and as many
    references of it as of others."""
    if queries.sources is None or queries.reference_sources is None:
        return
    of = queries.reference_sources[order]
    for source in sorted({str(one) for one in queries.sources if one is not None}):
        own, others = order[of == source], order[of != source]
        size = min(len(own), len(others))
        if size:
            yield source, np.flatnonzero(queries.sources == source), own[:size], others[:size]


def _rows(
    index: ReferenceIndex,
    localizers: Sequence[NeighbourLocalizer],
    queries: Queries,
    references: NDArray[np.int64],
    levels_km: Mapping[str, float],
    confidence: float,
) -> list[dict[str, object]]:
    """The rows of all localizers with these references, rows of the index."""
    readable = np.flatnonzero(np.isfinite(queries.vectors).all(axis=1))
    only = np.zeros(len(index), dtype=bool)
    only[references] = True
    neighbours = index.search(
        queries.vectors[readable], max(one.k for one in localizers), among=None if only.all() else only
    )
    rows: list[dict[str, object]] = []
    for localizer in localizers:
        answers = localizer.locate_neighbours(neighbours).spread(readable, len(queries.latitude))
        error = error_km(queries.latitude, queries.longitude, answers.latitude, answers.longitude)
        hits: ArrayLike = within(error, levels_km).astype(np.float64)
        measured = shares(hits, queries.clusters)
        low, high = measured.interval(confidence)
        rows += [
            {
                "method": localizer.name, "references": len(references), "level": level, "km": float(km),
                "accuracy": measured.estimate[i], "low": low[i], "high": high[i], "n": len(queries.latitude),
            }
            for i, (level, km) in enumerate(levels_km.items())
        ]  # fmt: skip
    return rows
