"""Accuracy and errors by group of photos: by continent, country, density of the references, or any column.

Each group is measured like a whole evaluation: every photo of it is in the denominator, and its interval is by the
photographers who took photos in it. Groups partition the photos: those of no known group are "unknown".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.intervals import shares
from geoloc.evaluation.result import Evaluation
from geoloc.places import continents, place_table
from geoloc.sphere import EARTH_RADIUS_KM, LEVELS_KM, unit_vectors

UNKNOWN = "unknown"
OTHERS = "others"
_DECIMALS = 10


def errors_by_method(evaluation: Evaluation, queries: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Error in km of each method for each of `queries` (photo_id), float64 (N,); infinite where there is no answer.

    Raises ValueError where a query is not in the evaluation.
    """
    found = {}
    for method, rows in evaluation.per_photo.groupby("method", sort=False):
        index = pd.Index(rows["photo_id"])
        position = index.get_indexer(pd.Index(queries["photo_id"]))
        if (position < 0).any():
            first = queries["photo_id"].to_numpy()[position < 0][0]
            raise ValueError(
                f"photo {first!r} is not in the evaluation ({int((position < 0).sum())} are not)"
            )
        error = rows["error_km"].to_numpy(np.float64)[position]
        found[str(method)] = np.where(np.isnan(error), np.inf, error)
    return found


def accuracy_by_group(
    errors: Mapping[str, ArrayLike],
    group: ArrayLike | pd.Categorical,
    photographer: ArrayLike,
    *,
    smallest: int = 1,
    levels_km: Mapping[str, float] = LEVELS_KM,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Accuracy of each method in each group: method, group, level, km, accuracy, low, high, n, photographers.

    `errors` gives float (N,) km of each method, infinite or NaN for no answer; `group` names the group of each photo,
    null for unknown, and `photographer` (N,) as in an evaluation. Groups come in the order of the categories, where
    `group` has an order, else the largest first. Groups of fewer than `smallest` photos are put together as "others".
    Intervals are NaN where one photographer took all photos of a group. Raises ValueError for lengths that differ.
    """
    rows = []
    for name, mask, clusters in _groups(errors, group, photographer, smallest):
        for method, error in errors.items():
            hits = within(np.asarray(error, dtype=np.float64)[mask], levels_km).astype(np.float64)
            low, high = shares(hits, clusters).interval(confidence)
            rows += [
                {
                    "method": method, "group": name, "level": level, "km": float(km),
                    "accuracy": hits[:, i].mean(), "low": low[i], "high": high[i],
                    "n": len(hits), "photographers": len(np.unique(clusters)),
                }
                for i, (level, km) in enumerate(levels_km.items())
            ]  # fmt: skip
    return _by_method(rows, errors)


# Ways to group photos


def continent_groups(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.object_]:
    """The continent of each photo (see geoloc.places), object (N,)."""
    return continents(latitude, longitude).astype(object)


def country_groups(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.object_]:
    """The country of the city nearest to each photo, object (N,)."""
    return place_table(latitude, longitude)["country"].to_numpy(dtype=object)


def density_groups(
    latitude: ArrayLike,
    longitude: ArrayLike,
    reference_latitude: ArrayLike,
    reference_longitude: ArrayLike,
    km: float = 25.0,
    groups: int = 10,
    owner: ArrayLike | None = None,
    reference_owner: ArrayLike | None = None,
) -> pd.Categorical:
    """Returns quantile groups (`groups` of them) of the number of references within `km` of each photo, sparsest first.

    With `owner` (N,) and `reference_owner` (M,), references by a photo's own owner are not counted: under the
    leave-photographer-out protocol they cannot answer it. Photos with equal counts are in one group, so there may be
    fewer groups, of different sizes. Raises ValueError for no photos, or fewer than 2 groups.
    """
    if groups < 2:
        raise ValueError(f"groups must be at least 2, got {groups}")
    points = unit_vectors(latitude, longitude)
    if not len(points):
        raise ValueError("density groups need at least one photo, got none")
    tree = cKDTree(unit_vectors(reference_latitude, reference_longitude))
    chord = 2 * np.sin(min(km / EARTH_RADIUS_KM, np.pi) / 2)
    count = np.asarray(tree.query_ball_point(points, chord, return_length=True), dtype=np.int64)
    if owner is not None and reference_owner is not None:
        references = unit_vectors(reference_latitude, reference_longitude)
        own_references = pd.Series(np.arange(len(references))).groupby(np.asarray(reference_owner)).indices
        for name, mine in pd.Series(np.arange(len(points))).groupby(np.asarray(owner)).indices.items():
            if name in own_references:
                own = cKDTree(references[own_references[name]])
                count[mine] -= own.query_ball_point(points[mine], chord, return_length=True)
    shares = np.arange(1, groups) / groups
    edges = np.unique(np.quantile(count, shares, method="inverted_cdf"))
    number = np.searchsorted(edges, count, side="left")  # up to and including each edge
    present = np.unique(number)
    labels = {}
    for one in present:
        low, high = count[number == one].min(), count[number == one].max()
        labels[one] = f"{low:,} within {km:g} km" if low == high else f"{low:,} to {high:,} within {km:g} km"
    return pd.Categorical(
        [labels[one] for one in number], categories=[labels[one] for one in present], ordered=True
    )


def column_groups(values: ArrayLike, edges: Sequence[float], name: str) -> pd.Categorical:
    """Returns bands of a numeric column, lowest first: below the first edge, between edges, from the last edge up.

    Null stays null: such photos are "unknown". The outdoor filter of Multi-modal Geolocation, table 6, is
    `column_groups(queries["prob_indoor"], [0.5], "prob_indoor")`, its band below 0.5. Raises ValueError if the
    edges do not rise.
    """
    if not len(edges) or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges must rise, and be at least one, got {list(edges)}")
    column = pd.to_numeric(pd.Series(values)).to_numpy(dtype=np.float64, na_value=np.nan)
    labels = [f"{name} below {edges[0]:g}"]
    labels += [f"{name} {a:g} to {b:g}" for a, b in itertools.pairwise(edges)]
    labels += [f"{name} at least {edges[-1]:g}"]
    codes = np.where(np.isnan(column), -1, np.searchsorted(np.asarray(edges), column, side="right"))
    return pd.Categorical.from_codes(codes, categories=labels, ordered=True)


def _groups(
    errors: Mapping[str, ArrayLike], group: ArrayLike | pd.Categorical, photographer: ArrayLike, smallest: int
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.int64]]]:
    """Returns the name, photos (mask) and photographers (from 0) of each group, in table order."""
    labels = pd.Series(group).reset_index(drop=True)
    owners = pd.Series(photographer).reset_index(drop=True)
    lengths = {len(labels), len(owners), *(len(np.asarray(e)) for e in errors.values())}
    if len(lengths) > 1 or not errors or not len(labels):
        raise ValueError(
            f"errors, group and photographer must be of one length above 0, got {sorted(lengths)}"
        )
    ordered = list(labels.cat.categories) if isinstance(labels.dtype, pd.CategoricalDtype) else None
    names = labels.astype(object).where(labels.notna(), UNKNOWN)
    sizes = names.value_counts()
    small = [name for name, n in sizes.items() if n < smallest and name != UNKNOWN]
    names = names.where(~names.isin(small), OTHERS)
    counts = names.value_counts()
    # The largest first, ties by name; others and unknown last.
    order = ordered or sorted(counts.index, key=lambda name: (-counts[name], str(name)))
    order = [name for name in order if name in counts.index and name not in (UNKNOWN, OTHERS)]
    order += [name for name in (OTHERS, UNKNOWN) if name in counts.index]
    masks = [(names == name).to_numpy() for name in order]
    return [
        (str(name), mask, photographer_clusters(owners[mask]))
        for name, mask in zip(order, masks, strict=True)
    ]


def _by_method(rows: list[dict[str, Any]], errors: Mapping[str, ArrayLike]) -> pd.DataFrame:
    position = {method: i for i, method in enumerate(errors)}
    rows = sorted(rows, key=lambda row: position[row["method"]])  # stable: groups keep their order
    return pd.DataFrame(rows).round(_DECIMALS)
