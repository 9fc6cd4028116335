"""What other projects print beside accuracy: GeoScore, the share in the right country and region, and the negative
log-likelihood.

- GeoScore: 5000 exp(-d / 1492.7 km) for an error of d, as in the game GeoGuessr (Haas et al., PIGEON, CVPR 2024;
  Astruc et al., OpenStreetView-5M, CVPR 2024). A photo without an answer scores 0.
- right country, right region: the answer is in the country, and in the first administrative level, of the photo
  (geoloc/countries.py, which says how well). A photo whose own country is unknown, at sea, is wrong for every method.
- NLL: the mean of -log p in nats, p being the probability that a method gave to the truth: to the true cell, for a
  classifier. It compares methods over equal cells only. Photos without p, such as those in no cell, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.countries import Areas, areas_of
from geoloc.evaluation.measures.bootstrap import interval, resampled_means
from geoloc.evaluation.measures.intervals import shares
from geoloc.sphere import distance_km

GEOSCORE, COUNTRY, REGION, NLL = "GeoScore", "right country", "right region", "NLL"
"""Not `country` and `region`, which are levels: 750 and 200 km."""
MOST_POINTS = 5000.0
DECAY_KM = 1492.7
_CANDIDATES, _REFERENCES = 1000, 20_000
"""Of a constant answer: most places to try, and most references to try them on."""

FloatArray = NDArray[np.float64]


def geoscore(error_km: ArrayLike) -> FloatArray:
    """Returns the points of each error, float64 (N,) in [0, 5000]; 0 where it is infinite or NaN."""
    error = np.asarray(error_km, dtype=np.float64)
    return MOST_POINTS * np.exp(-np.where(np.isnan(error), np.inf, error) / DECAY_KM)


def answer_values(latitude: ArrayLike, longitude: ArrayLike, error_km: ArrayLike, truth: Areas) -> FloatArray:
    """Returns GeoScore / 5000, right country and right region of N answers, float64 (N, 3) in [0, 1].

    Degrees, NaN for no answer; `error_km` is infinite there. `truth` are the areas of the N photos.
    """
    answer = areas_of(latitude, longitude)
    return np.stack(
        [
            geoscore(error_km) / MOST_POINTS,
            (answer.country == truth.country) & (truth.country >= 0),
            (answer.region == truth.region) & (truth.region >= 0),
        ],
        axis=1,
    ).astype(np.float64)


def constant_values(
    reference_latitude: ArrayLike,
    reference_longitude: ArrayLike,
    latitude: ArrayLike,
    longitude: ArrayLike,
    truth: Areas,
    *,
    seed: int,
) -> FloatArray:
    """Returns what `answer_values` would be for one constant answer a column, the best on the references:
    float64 (N, 3).

    For the GeoScore it is one of the references' own places, of a sample by the seed; for country and region that of
    most references.
    """
    rng = np.random.default_rng(seed)
    places = np.stack([np.asarray(reference_latitude), np.asarray(reference_longitude)], axis=1)
    places = _sample(places.astype(np.float64), _REFERENCES, rng)
    candidates = np.unique(_sample(places, _CANDIDATES, rng), axis=0)
    totals = [
        geoscore(distance_km(place[0], place[1], places[:, 0], places[:, 1])).sum() for place in candidates
    ]
    best = candidates[int(np.argmax(totals))]
    known = areas_of(places[:, 0], places[:, 1])
    values = [geoscore(distance_km(best[0], best[1], latitude, longitude)) / MOST_POINTS]
    for own, photos in ((known.country, truth.country), (known.region, truth.region)):
        own = own[own >= 0]
        values.append(photos == np.bincount(own).argmax() if len(own) else np.zeros(len(photos), bool))
    return np.stack(values, axis=1).astype(np.float64)


def score_rows(
    values: Mapping[str, FloatArray],
    truth: Areas,
    clusters: NDArray[np.int64],
    log_probabilities: Mapping[str, ArrayLike],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns a row for each method or baseline and measure: method, measure, value, low, high, n, unknown.

    `values` are those of `answer_values` or `constant_values`, by name; `truth` are the areas of the N photos,
    `clusters` (N,) their photographers. `log_probabilities` are float (N,) by method, NaN for none. `n` photos are
    measured. `unknown` is the number of photos whose true country is unknown, among the n; of NLL, of those left out.
    Intervals are by photographer, NaN for a single one; of NLL a percentile bootstrap.
    Raises ValueError for log probabilities of another number of photos, above 0, or of no method.
    """
    if strangers := [name for name in log_probabilities if name not in values]:
        raise ValueError(f"log probabilities of a method without answers: {', '.join(strangers)}")
    lost = int((truth.country < 0).sum())
    rows = []
    for name, own in values.items():
        low, high = shares(own, clusters).interval(confidence)
        for i, (measure, scale, unknown) in enumerate(
            ((GEOSCORE, MOST_POINTS, 0), (COUNTRY, 1.0, lost), (REGION, 1.0, lost))
        ):
            rows.append(
                {
                    "method": name, "measure": measure, "value": scale * own[:, i].mean(),
                    "low": scale * low[i], "high": scale * high[i], "n": len(own), "unknown": unknown,
                }
            )  # fmt: skip
        if name in log_probabilities:
            found = log_likelihood(log_probabilities[name], clusters, confidence, resamples, seed, name)
            rows.append({"method": name, "measure": NLL} | found)
    return rows


def log_likelihood(
    log_probability: ArrayLike,
    clusters: NDArray[np.int64],
    confidence: float,
    resamples: int,
    seed: int,
    name: str = "NLL",
) -> dict[str, Any]:
    """Returns value, low, high, n and unknown of the negative log-likelihood of one method."""
    logarithms = np.asarray(log_probability, dtype=np.float64)
    if logarithms.shape != (len(clusters),):
        raise ValueError(f"{name}: {len(logarithms)} log probabilities for {len(clusters)} photos")
    if (logarithms > 0).any():
        raise ValueError(f"{name}: a log probability must be at most 0, got {np.nanmax(logarithms):g}")
    known = ~np.isnan(logarithms)
    losses = -logarithms[known]
    row = {"value": np.nan, "low": np.nan, "high": np.nan, "n": len(losses), "unknown": int((~known).sum())}
    if len(losses):
        row["value"] = losses.mean()
    own = np.unique(clusters[known], return_inverse=True)[1]
    if len(losses) and own.max() > 0:
        means = resampled_means(losses[:, None], own, resamples=resamples, seed=seed)[:, 0]
        row["low"], row["high"] = (float(bound) for bound in interval(means, confidence))
    return row


def _sample(items: NDArray, limit: int, rng: np.random.Generator) -> NDArray:
    if len(items) <= limit:
        return items
    return items[np.sort(rng.choice(len(items), size=limit, replace=False))]
