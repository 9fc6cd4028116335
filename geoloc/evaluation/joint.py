"""Photo classifier and overhead tiles together, measured beside either alone on the photos of test pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.overhead import AMONG_TILES, CLASSIFIER, JOINT, OVERHEAD
from geoloc.evaluation.result import Evaluation
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex
from geoloc.localizers.by_overhead.joint import locate_jointly
from geoloc.localizers.by_overhead.localizer import OverheadAnswers, locate_by_overhead
from geoloc.partitions.base import Partition
from geoloc.photos.owners import photographer_keys
from geoloc.photos.splits import CONTEXT, TRAIN, UNUSED, VALIDATION
from geoloc.sphere import EARTH_RADIUS_KM, LEVELS_KM, from_vectors, unit_vectors

DESCRIPTIONS = {
    JOINT: "The best tile by both probabilities, among those where the classifier thinks the photo likely.",
    OVERHEAD: "The best tile of the index by the cross-view network.",
    CLASSIFIER: "The most probable cell of the Earth by the photo classifier.",
    AMONG_TILES: "The middle tile of the most probable cell among the cells that have tiles: what the classifier knows "
    "once it is told, as the tiles tell the others, which cities there are.",
}
FINE_LEVELS_KM = {"25 m": 0.025, "100 m": 0.1, **LEVELS_KM}
PROTOCOL = (
    "photos of test pairs, of cities that the cross-view network was not trained on, against the tiles of all these "
    "cities; they are test photos of the classifier too, which may have learnt from other photos of these cities"
)
NEAR_KM = LEVELS_KM["city"]
CITY_COLUMNS = (
    "city", "photos", "left out, known to the classifier", "tiles", "classifier's photos within 25 km",
    "their photographers",
)  # fmt: skip


def unknown_to_classifier(photos: pd.DataFrame, splits: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each of N photos (photo_id) is in a test set of the splits (photo_id, split) that the classifier was
    trained by, bool (N,): it saw neither that photo, nor a near-duplicate, nor another one by the photographer."""
    test = ~splits["split"].isin([TRAIN, VALIDATION, CONTEXT, UNUSED])
    return np.asarray(photos["photo_id"].isin(splits.loc[test, "photo_id"]))


def joint_answers(
    index: OverheadIndex,
    embedder: CrossViewEmbedder,
    photos: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    partition: Partition,
    classifier: Answers,
) -> dict[str, Answers]:
    """The answers of each method for Q photos: from their embeddings (Q, D), the classifier's probabilities (Q, C) of
    the cells of `partition`, and its own answers. Raises the errors of locate_jointly."""
    joint = locate_jointly(index, embedder, photos, probabilities, partition, 1)
    return {
        JOINT: _answers(joint),
        OVERHEAD: _answers(locate_by_overhead(index, embedder, photos, 1)),
        CLASSIFIER: classifier,
        AMONG_TILES: _among_tiles(index.tiles, probabilities, partition),
    }


def evaluate_joint(
    answers: Mapping[str, Answers], photos: pd.DataFrame, *, resamples: int, confidence: float, seed: int
) -> Evaluation:
    """The methods side by side on Q photos (photo_id, photographer, latitude, longitude), down to 25 m; `comparisons`
    are of JOINT less each other method. Raises ValueError for no photos."""
    made = evaluate(
        answers,
        photos,
        settings=EvaluationSettings(resamples=resamples, confidence=confidence, compare_with=JOINT),
        seed=seed,
        protocol=PROTOCOL,
        descriptions=DESCRIPTIONS,
        levels_km=FINE_LEVELS_KM,
    )
    turned = made.comparisons.rename(columns={"method": "other", "other": "method"}).assign(
        difference=0.0 - made.comparisons["difference"],  # not -0.0
        low=0.0 - made.comparisons["high"],
        high=0.0 - made.comparisons["low"],
        verdict=made.comparisons["verdict"].replace({"better": "worse", "worse": "better"}),
    )
    return dataclasses.replace(made, comparisons=turned[list(made.comparisons.columns)])


def known_of_cities(
    pairs: pd.DataFrame, unknown: NDArray[np.bool_], tiles: pd.DataFrame, splits: pd.DataFrame
) -> pd.DataFrame:
    """What the classifier was trained on near the tiles of each city (CITY_COLUMNS).

    `pairs` (city) are of N photos, which it does not know where `unknown`; `tiles` (city, latitude, longitude);
    `splits` (split, photo_id, photographer, latitude, longitude).
    """
    learnt = splits[splits["split"] == TRAIN]
    places = cKDTree(unit_vectors(learnt["latitude"], learnt["longitude"]))
    owners = photographer_keys(learnt).to_numpy()
    chord = 2 * np.sin(NEAR_KM / EARTH_RADIUS_KM / 2)
    rows = []
    for city, group in tiles.groupby("city", sort=True):
        found = places.query_ball_point(unit_vectors(group["latitude"], group["longitude"]), chord)
        near = np.unique(np.concatenate([np.asarray(one, dtype=np.int64) for one in found]))
        here = (pairs["city"] == city).to_numpy()
        asked = int((here & unknown).sum())
        rows.append((city, asked, int(here.sum()) - asked, len(group), len(near), len(set(owners[near]))))
    return pd.DataFrame(rows, columns=list(CITY_COLUMNS))


def _answers(found: OverheadAnswers) -> Answers:
    sure = np.where(found.inside, found.probability[:, 0], 0.0)
    return Answers(found.latitude, found.longitude, sure.astype(np.float32))


def _among_tiles(tiles: pd.DataFrame, probabilities: NDArray[np.floating], partition: Partition) -> Answers:
    """The tile nearest to the mean of those of the most probable cell that has any; no answer where all of these have
    probability 0."""
    points = unit_vectors(tiles["latitude"], tiles["longitude"])
    cell = np.asarray(partition.assign(tiles["latitude"], tiles["longitude"]), dtype=np.int64)
    cells = np.unique(cell[cell >= 0])
    if not len(cells):
        none = np.full(len(probabilities), np.nan)
        return Answers(none, none, np.zeros(len(none), dtype=np.float32))
    middle = [
        (members := np.flatnonzero(cell == one))[(points[members] @ points[members].mean(axis=0)).argmax()]
        for one in cells
    ]
    p = np.nan_to_num(np.asarray(probabilities, dtype=np.float64)[:, cells], nan=0.0)
    best = p.argmax(axis=1)
    sure = p[np.arange(len(p)), best]
    latitude, longitude = (
        np.where(sure > 0, degrees[best], np.nan) for degrees in from_vectors(points[middle])
    )
    return Answers(latitude, longitude, sure.astype(np.float32))
