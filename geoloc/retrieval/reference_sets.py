"""Reference sets: several sources in one index, subsets of it without building it again, and who answers from where.

What is asked of a photo (its source, its time, whether a data version had it) is read from a table of facts such as the
catalog, by photo_id, so it needs not be known when an index is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.neighbours import Neighbours
from geoloc.retrieval.references import RetrievalError

TOPS = (1, 10, 100, 1000)
"""Revisiting IM2GPS, section 4.5, looks at the sources of so many nearest."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Subset:
    """Which references a search may find: photos of some sources (empty: of any), taken from `taken_from` on and before
    `taken_until`, and that `photo_ids` (such as a data version's) names. None: no limit. A photo whose time is unknown
    is in no limit of time."""

    sources: tuple[str, ...] = ()
    taken_from: pd.Timestamp | None = None
    taken_until: pd.Timestamp | None = None
    photo_ids: frozenset[str] | None = None

    def __str__(self) -> str:
        limits = [f"of the source{'s' * (len(self.sources) > 1)} {', '.join(self.sources)}"] * bool(
            self.sources
        )
        limits += [f"taken from {self.taken_from:%Y-%m-%d %H:%M} on"] if self.taken_from is not None else []
        limits += [f"taken before {self.taken_until:%Y-%m-%d %H:%M}"] if self.taken_until is not None else []
        limits += [f"among {len(self.photo_ids):,} named"] if self.photo_ids is not None else []
        return "photos " + (", ".join(limits) or "of any source and time")

    def among(self, references: pd.DataFrame, facts: pd.DataFrame) -> NDArray[np.bool_]:
        """Returns which references are in it, bool [R], for `ReferenceIndex.search(among=...)`.

        `facts` has photo_id and, where they are asked for, source and taken_at. Raises RetrievalError for a column that
        is missing, for a source that no reference is of, and if no reference is left.
        """
        inside = np.ones(len(references), dtype=bool)
        ids = references["photo_id"]
        if self.sources:
            source = _fact(ids, facts, "source")
            for name in self.sources:
                if not (source == name).any():
                    known = ", ".join(sorted(map(str, source.dropna().unique()))) or "none is known"
                    raise RetrievalError(f"no reference is of the source {name!r}; sources: {known}")
            inside &= source.isin(self.sources).to_numpy(dtype=bool)
        if self.taken_from is not None or self.taken_until is not None:
            taken = pd.to_datetime(_fact(ids, facts, "taken_at"), utc=True)
            if self.taken_from is not None:
                inside &= (taken >= _utc(self.taken_from)).to_numpy(dtype=bool)
            if self.taken_until is not None:
                inside &= (taken < _utc(self.taken_until)).to_numpy(dtype=bool)
        if self.photo_ids is not None:
            inside &= ids.isin(list(self.photo_ids)).to_numpy(dtype=bool)
        if not inside.any():
            raise RetrievalError(f"none of the {len(references):,} references is one of: {self}")
        return inside


def in_random_order(count: int, seed: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Returns the rows of `count` references that `among` [R] allows, shuffled: the first n are a random subset, within
    the first n + 1."""
    allowed = np.arange(count) if among is None else np.flatnonzero(among)
    return np.random.default_rng([seed, 0]).permutation(allowed)


def source_shares(neighbours: Neighbours, facts: pd.DataFrame, tops: Sequence[int] = TOPS) -> pd.DataFrame:
    """The share of each source among the `top` nearest, over all queries, and in the index: columns top, source,
    share (of the neighbours found), index_share.

    `facts` has photo_id and source; photos that it does not know are "unknown". A top above the number of neighbours
    searched for is left out. Raises RetrievalError for a missing column.
    """
    ids = pd.Series(neighbours.reference_photo_ids)
    codes, names = pd.factorize(_fact(ids, facts, "source").fillna(UNKNOWN), sort=True)
    whole = np.bincount(codes, minlength=len(names)) / max(1, len(codes))
    tables = []
    for top in tops:
        if top > neighbours.row.shape[1]:
            continue
        rows = neighbours.row[:, :top]
        counts = np.bincount(codes[rows[rows >= 0]], minlength=len(names))
        share = counts / max(1, counts.sum())
        tables.append(pd.DataFrame({"top": top, "source": names, "share": share, "index_share": whole}))
    columns = ["top", "source", "share", "index_share"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Embeddings of several sources as one, in order.

    Raises RetrievalError for none, for parts by different models or of different dimensions, and for a photo in two.
    """
    if not parts:
        raise ValueError("no embeddings to join")
    first = parts[0]
    for part in parts[1:]:
        if part.model != first.model:
            raise RetrievalError(
                f"embeddings by the model {first.model[:12] or UNKNOWN} and by {part.model[:12] or UNKNOWN}"
                " cannot be in one index"
            )
        if part.vectors.shape[1] != first.vectors.shape[1]:
            raise RetrievalError(
                f"embeddings have {first.vectors.shape[1]} and {part.vectors.shape[1]} numbers: one index has one"
                " dimension"
            )
    ids = np.concatenate([part.photo_ids for part in parts])
    repeated = pd.Index(ids).duplicated()
    if repeated.any():
        raise RetrievalError(f"photo {ids[repeated][0]!r} has an embedding in two sources")
    unreadable = pd.concat([part.unreadable for part in parts], ignore_index=True)
    return Embeddings(ids, np.concatenate([part.vectors for part in parts]), unreadable, first.model)


def _fact(ids: pd.Series, facts: pd.DataFrame, name: str) -> pd.Series:
    """A column of `facts` for each photo id, null where it does not know the photo."""
    missing = [column for column in ("photo_id", name) if column not in facts.columns]
    if missing:
        raise RetrievalError(f"the facts of references need the column {missing[0]}")
    return facts.drop_duplicates("photo_id").set_index("photo_id")[name].reindex(ids).reset_index(drop=True)


def _utc(time: pd.Timestamp) -> pd.Timestamp:
    return time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
