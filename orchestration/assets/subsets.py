"""Which references may be found, and what they are worth, for the evaluation and `geoloc locate`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.diagnostics import REFERENCE_SIZE
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.reference_size import Queries, accuracy_by_references, some_queries
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer
from geoloc.localizers.frozen.localizer import vectors_of
from geoloc.photos.catalog import read_catalog
from geoloc.photos.owners import photographer_keys
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.reference_sets import TOPS, Subset, source_shares
from geoloc.retrieval.settings import ReferenceSettings
from orchestration.assets.inputs import SOURCE
from orchestration.run.stage import StageRun
from orchestration.stores.data_version import photos_of_version
from orchestration.workspace import Workspace

SOURCE_SHARES = "source_shares"


def references_among(
    workspace: Workspace, index: ReferenceIndex, wanted: ReferenceSettings | None
) -> NDArray[np.bool_] | None:
    """Which references of an index may be found, bool [R], by the facts of the catalog; None: all of them.

    Raises RetrievalError if none is left or a source is unknown, WorkspaceError for a data version that DVC does not
    have here.
    """
    if wanted is None:
        return None
    facts = read_catalog(workspace.pool, ["photo_id", "source", "taken_at"])
    named = photos_of_version(workspace, wanted.data_version) if wanted.data_version else None
    return subset_of(wanted, named).among(index.references, facts)


def reference_tables(
    run: StageRun,
    model_name: str,
    index: ReferenceIndex,
    embeddings: Embeddings,
    queries: pd.DataFrame,
    among: NDArray[np.bool_] | None,
    sources: pd.Series | None,
) -> dict[str, pd.DataFrame]:
    """Tables about the references of one model: REFERENCE_SIZE, the accuracy against their number, and where they are
    of several sources SOURCE_SHARES, the share of each source among the nearest. Of very many queries some are asked.
    """
    limits, wanted, tables = run.settings.localizers, run.settings.evaluation, {}
    queries = queries.iloc[some_queries(len(queries), run.settings.seed)]
    vectors = vectors_of(embeddings, queries["photo_id"])
    of = None if sources is None else sources.reindex(index.references["photo_id"])
    if wanted.reference_halvings:
        localizers: list[NeighbourLocalizer] = [NearestLocalizer(index, model_name)]
        if limits.sigmas:
            sigma = limits.sigmas[len(limits.sigmas) // 2]
            localizers.append(DensityLocalizer(index, limits.k, limits.m, sigma, model_name=model_name))
        asked = Queries(
            vectors,
            queries["latitude"].to_numpy(np.float64),
            queries["longitude"].to_numpy(np.float64),
            photographer_clusters(photographer_keys(queries)),
            None if sources is None else sources.reindex(queries["photo_id"]).to_numpy(object),
            None if of is None else of.to_numpy(object),
        )
        tables[REFERENCE_SIZE] = accuracy_by_references(
            index,
            localizers,
            asked,
            wanted.reference_halvings,
            run.settings.seed,
            among,
            confidence=wanted.confidence,
        )
    if of is not None and of.nunique() > 1:
        readable = np.isfinite(vectors).all(axis=1)
        found = index.search(vectors[readable], max(TOPS), among=among)
        shares = source_shares(found, index.references[["photo_id"]].assign(**{SOURCE: of.to_numpy(object)}))
        shares.insert(0, "method", f"[{model_name}]NN")
        tables[SOURCE_SHARES] = shares.round(10)
    return tables


def subset_of(wanted: ReferenceSettings, named: frozenset[str] | None = None) -> Subset:
    """The subset that settings describe; `named` are the photos of their data version, if they name one."""
    first, last = (pd.Timestamp(time) if time else None for time in (wanted.taken_from, wanted.taken_until))
    return Subset(wanted.sources, first, last, named)
