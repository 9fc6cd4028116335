"""Explanations of the classifier's answers on the main test set, computed, saved and loaded for the report.

For a few photos: the probabilities of all cells (PlaNet, figures 1 and 6) and occlusion maps (figure 10). For some
cells: their most confident photos (figure 8). For every photo: the confidence of the answer before and after
temperature scaling, and the errors of the best of its top-k answers (figure 3). All are over the main partition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from geoloc.evaluation.explaining.choice import varied
from geoloc.evaluation.explaining.confident import COLUMNS as CONFIDENT
from geoloc.evaluation.explaining.confident import most_confident_photos
from geoloc.evaluation.explaining.occlusion import OcclusionMap, map_of_windows, occlusion_maps
from geoloc.evaluation.measures.top_k import best_of_k_errors
from geoloc.evaluation.result import Evaluation
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.files import damage_named, read_json, read_parquet, write_json, write_parquet
from geoloc.localizers.base import Alternatives
from geoloc.localizers.confidence.kept import CellFacts
from geoloc.models.batches import iter_batches
from geoloc.models.classifier import Classifier
from geoloc.models.engine import ExportedNetwork
from geoloc.partitions.base import Partition
from geoloc.photos.shards import ShardReader

FOLDER, FILE = "explanations", "explanations.json"
RIGHT, WRONG = "right", "wrong"
PHOTOS_OF_A_CELL = 5
_WINDOWS = 5
"""A window is a fifth of the photo's side and moves by half of that: small enough to separate a sign from a wall, large
enough to hide either. PlaNet does not give the size of its box."""

ANSWER_COLUMNS = {
    "photo_id": "str", "true_cell": "int64", "cell": "int64", "probability": "float64", "uncalibrated": "float64",
}  # fmt: skip
EXPLAINED_COLUMNS = {
    "photo_id": "str", "side": "str", "true_latitude": "float64", "true_longitude": "float64",
    "latitude": "float64", "longitude": "float64", "error_km": "float64", "confidence": "float64",
    "true_cell": "int64", "cell": "int64",
}  # fmt: skip
WINDOW_COLUMNS = {
    "photo_id": "str", "cell": "int64", "size": "int64", "window": "int64", "whole": "float64", "top": "int64",
    "left": "int64", "probability": "float64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Explanations:
    """Explanations of the main method, `method`, on a test set over the cells of `partition`.

    - `answers` (columns ANSWER_COLUMNS): a row per photo: its true cell (-1: in none), its most probable cell (-1:
      unreadable), that cell's probability, and its `uncalibrated` probability before scaling (NaN: unreadable).
    - `best_of_k` float64 [photos, A]: error in km of the best of the top 1, 2, ... A answers, infinite for none.
    - `explained` (columns EXPLAINED_COLUMNS): the explained photos; `side` is right if the most probable cell is the
      true one, else wrong.
    - `probabilities` float32 [explained, C]: the probability of each cell.
    - `occlusion`: by photo_id, the map of its most probable cell and, if different, of its true cell.
    - `confident` (columns of confident.py): the most confident photos of the cells that are answered most often.
    - `temperature`: logits were divided by it (NaN: not scaled).
    - `seen`: the share of a photo's short side that the occlusion maps cover.
    - `crops`: probabilities are means over this many crops; those of `occlusion` are of the centre crop alone.
    """

    method: str
    partition: str
    temperature: float
    seen: float
    crops: int
    answers: pd.DataFrame
    best_of_k: NDArray[np.float64]
    explained: pd.DataFrame
    probabilities: NDArray[np.float32]
    occlusion: Mapping[str, tuple[OcclusionMap, ...]]
    confident: pd.DataFrame

    def save(self, folder: Path | str) -> None:
        """Write explanations.json and a Parquet file of each table; each file is written atomically."""
        folder = Path(folder)
        calibrated = not np.isnan(self.temperature)
        write_json(
            folder / FILE,
            {
                "method": self.method,
                "partition": self.partition,
                "seen": self.seen,
                "crops": self.crops,
                "temperature": self.temperature if calibrated else None,
            },
        )
        best = {f"best_of_{k + 1}_km": column for k, column in enumerate(self.best_of_k.T)}
        write_parquet(folder / "answers.parquet", self.answers.assign(**best))
        write_parquet(folder / "explained.parquet", self.explained)
        count, cells = self.probabilities.shape
        spread = {
            "photo_id": self.explained["photo_id"].repeat(cells).to_numpy(),
            "cell": np.tile(np.arange(cells), count),
            "probability": self.probabilities.ravel(),
        }
        write_parquet(folder / "probabilities.parquet", pd.DataFrame(spread).astype({"photo_id": "str"}))
        rows = [_window_rows(photo, one) for photo, maps in self.occlusion.items() for one in maps]
        empty = pd.DataFrame(columns=list(WINDOW_COLUMNS))
        write_parquet(folder / "occlusion.parquet", pd.concat(rows or [empty]).astype(WINDOW_COLUMNS))
        write_parquet(folder / "confident.parquet", self.confident)

    @classmethod
    def load(cls, folder: Path | str) -> Explanations:
        """Load what `save` wrote. Raises FileNotFoundError for a missing file, DamagedFile for others than it wrote."""
        with damage_named(Path(folder) / FILE):  # it describes what the tables hold; they name themselves
            return cls._load(Path(folder))

    @classmethod
    def _load(cls, folder: Path) -> Explanations:
        values = read_json(folder / FILE, dict)
        answers = read_parquet(folder / "answers.parquet", ANSWER_COLUMNS)
        best = answers[[name for name in answers if name not in ANSWER_COLUMNS]].to_numpy(np.float64)
        explained = read_parquet(folder / "explained.parquet", EXPLAINED_COLUMNS).astype(EXPLAINED_COLUMNS)
        spread = read_parquet(folder / "probabilities.parquet", ["probability"])
        windows = read_parquet(folder / "occlusion.parquet", WINDOW_COLUMNS).astype(WINDOW_COLUMNS)
        maps: dict[str, tuple[OcclusionMap, ...]] = {}
        for (photo, _), rows in windows.groupby(["photo_id", "cell"], sort=False):
            maps[str(photo)] = (*maps.get(str(photo), ()), _map_of_rows(rows))
        count = len(explained)
        return cls(
            values["method"],
            values["partition"],
            np.nan if values["temperature"] is None else float(values["temperature"]),
            float(values["seen"]),
            int(values["crops"]),
            answers[list(ANSWER_COLUMNS)].astype(ANSWER_COLUMNS),
            best,
            explained,
            spread["probability"].to_numpy(np.float32).reshape(count, len(spread) // max(count, 1)),
            maps,
            read_parquet(folder / "confident.parquet", CONFIDENT).astype(CONFIDENT),
        )


def explain(
    evaluation: Evaluation,
    queries: pd.DataFrame,
    alternatives: Alternatives,
    model: Classifier | ExportedNetwork,
    partition: tuple[str, Partition],
    facts: CellFacts,
    predict: Callable[[NDArray[np.int64]], NDArray[Any]],
    pool: Path | str | ShardReader,
    settings: EvaluationSettings,
    *,
    temperature: float = np.nan,
    crops: int = 1,
    batch_size: int = 64,
) -> Explanations:
    """Explain the first method of `evaluation`, by class, on its N photos.

    - `queries`: the N photos with the catalog's columns; all other arguments are in their order.
    - `alternatives`: those of the method.
    - `partition`: the name of a head of `model`, and its fitted partition.
    - `facts`: of the probabilities of the photos over the cells, means over `crops` crops.
    - `predict`: gives these probabilities, float [n, C], of the n photos at some positions: of those explained.

    Raises ValueError for different lengths, and as the measures do.
    """
    name, cells = partition
    method = evaluation.methods[0]
    if len(queries) != len(facts):
        raise ValueError(f"probabilities must be of {len(queries)} photos, got {len(facts)}")
    answers = pd.DataFrame(
        {
            "photo_id": queries["photo_id"].to_numpy(dtype=object),
            "true_cell": facts.true_cell,
            "cell": facts.cell,
            "probability": facts.probability,
            "uncalibrated": facts.uncalibrated,
        }
    ).astype(ANSWER_COLUMNS)
    photographer = queries.set_index("photo_id")["photographer"]
    explained = pick_explained(evaluation, answers, settings.explained, photographer)
    position = pd.Index(queries["photo_id"]).get_indexer(pd.Index(explained["photo_id"]))
    wanted = {
        row.photo_id: list(dict.fromkeys([row.cell, *([row.true_cell] if row.true_cell >= 0 else [])]))
        for row in explained.itertuples()
    }
    return Explanations(
        method,
        name,
        temperature,
        model.preprocess.image_size / model.preprocess.resize_short_side,
        crops,
        answers,
        best_of_k_errors(alternatives, queries["latitude"], queries["longitude"], facts.cell >= 0),
        explained,
        _of_few(predict, position, cells.cell_count),
        _occlusion(
            model, name, pool, queries.iloc[position].reset_index(drop=True), wanted,
            1.0 if np.isnan(temperature) else temperature, batch_size,
        ),
        most_confident_photos(
            facts.cell, facts.probability, queries, _most_answered(facts.cell, settings.confident_cells),
            PHOTOS_OF_A_CELL, facts.true_cell,
        ),
    )  # fmt: skip


def _of_few(
    predict: Callable[[NDArray[np.int64]], NDArray[Any]], position: NDArray[np.int64], cells: int
) -> NDArray[np.float32]:
    if not len(position):
        return np.empty((0, cells), dtype=np.float32)
    return np.asarray(predict(position), dtype=np.float32)


def pick_explained(
    evaluation: Evaluation, answers: pd.DataFrame, count: int, photographer: pd.Series | None = None
) -> pd.DataFrame:
    """Returns `count` photos to explain (EXPLAINED_COLUMNS): the most confident right answers, then the worst errors.

    Each makes up half; if one has too few, the other fills up. An answer is right if its cell is the true one
    (`answers`, ANSWER_COLUMNS). With `photographer` (indexed by photo_id) each half shows a photographer once while
    there are enough. Ties are broken by photo_id.
    """
    rows = evaluation.per_photo
    rows = rows[(rows["method"] == evaluation.methods[0]) & (rows["status"] == "answered")]
    rows = rows.merge(answers[["photo_id", "true_cell", "cell"]], on="photo_id", validate="1:1")
    is_right = rows["true_cell"] == rows["cell"]
    right = rows[is_right].sort_values(["confidence", "photo_id"], ascending=[False, True])
    wrong = rows[~is_right].sort_values(["error_km", "photo_id"], ascending=[False, True])
    of_right = min(len(right), max(count - count // 2, count - len(wrong)))
    sides = [varied(right, of_right, photographer), varied(wrong, count - of_right, photographer)]
    chosen = pd.concat([sides[0].assign(side=RIGHT), sides[1].assign(side=WRONG)], ignore_index=True)
    return chosen[list(EXPLAINED_COLUMNS)].astype(EXPLAINED_COLUMNS)


def _most_answered(best: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Returns the top `count` cells by number of answers, the first on ties; fewer if fewer cells are answered."""
    cells, photos = np.unique(best[best >= 0], return_counts=True)
    return cells[np.argsort(-photos, kind="stable")][:count]


class _ByHead(nn.Module):
    """A classifier with scores by head, so that each head is normalised over its own cells."""

    def __init__(self, model: Classifier | ExportedNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.model.split(self.model(images))


def _occlusion(
    model: Classifier | ExportedNetwork,
    head: str,
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    wanted: Mapping[str, list[int]],
    temperature: float,
    batch_size: int,
) -> dict[str, tuple[OcclusionMap, ...]]:
    """Returns maps by photo_id, one for each of its `wanted` cells, on the centre crop."""
    window = max(1, model.preprocess.image_size // _WINDOWS)
    by_head, found = _ByHead(model), {}
    by_head.training = model.training  # so that occlusion_maps leaves the classifier as it was
    for batch in iter_batches(pool, rows, model.preprocess, batch_size):
        for image, position in zip(batch.images, batch.row_indices, strict=True):
            photo_id = str(rows["photo_id"].iloc[position])
            found[photo_id] = tuple(
                occlusion_maps(
                    by_head,
                    image.permute(1, 2, 0),
                    wanted[photo_id],
                    window,
                    max(1, window // 2),
                    batch_size=batch_size,
                    head=head,
                    temperature=temperature,
                )
            )
    return found


def _window_rows(photo_id: str, one: OcclusionMap) -> pd.DataFrame:
    tops, lefts = np.meshgrid(one.tops, one.lefts, indexing="ij")
    return pd.DataFrame(
        {
            "photo_id": photo_id, "cell": one.cell, "size": len(one.pixels), "window": one.window,
            "whole": one.whole, "top": tops.ravel(), "left": lefts.ravel(),
            "probability": one.probability.ravel(),
        }
    )  # fmt: skip


def _map_of_rows(rows: pd.DataFrame) -> OcclusionMap:
    first = rows.iloc[0]
    return map_of_windows(
        int(first["cell"]),
        float(first["whole"]),
        int(first["window"]),
        int(first["size"]),
        np.unique(rows["top"].to_numpy(np.int64)),
        rows["probability"].to_numpy(),
    )
