"""Why the classifier answers as it does: what a report shows of it for the main test set, gathered and kept as files.

For a few photos the probabilities of all cells (PlaNet, figures 1 and 6) and the occlusion maps (figure 10); the surest
photos of some cells (figure 8); for every photo how sure the answer was, before and after temperature scaling, and
the errors of the best of its first answers (figure 3). All of it is of the main partition.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from geoloc.files import read_json, write_json, write_parquet
from geoloc.localizers.base import Alternatives
from geoloc.models.batches import iter_batches
from geoloc.models.classifier import Classifier
from geoloc.partitions.base import Partition
from geoloc.photos.shards import ShardReader

FOLDER, FILE = "explanations", "explanations.json"
RIGHT, WRONG = "right", "wrong"
PHOTOS_OF_A_CELL = 5
_WINDOWS = 5
"""A window is a fifth of the photo's side and moves by half of that: small enough to tell a sign from a wall, large
enough to hide either; PlaNet does not say how large its box was."""

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
    """What the main method, `method`, thinks of a test set over the cells of `partition`.

    - `answers` (columns ANSWER_COLUMNS): a row a photo: its true cell (-1: in none), the most probable one (-1:
      unreadable), the probability of that, and the `uncalibrated` one, which the network gave (NaN: unreadable).
    - `best_of_k` float64 [photos, A]: error in km of the best of the first 1, 2, ... A answers, infinite for none.
    - `explained` (columns EXPLAINED_COLUMNS): the photos that are explained; `side` is right, where the most probable
      cell is the true one, or wrong.
    - `probabilities` float32 [explained, C]: of each cell.
    - `occlusion`: by photo_id, the map of its most probable cell and, where it is another, of its true cell.
    - `confident` (columns of evaluation.confident): the surest photos of the cells that are the answer most often.
    - `temperature` by which logits were divided (NaN: by none), `seen` the share of a photo's short side that is in
      the square of the occlusion maps, `crops` of how many crops all probabilities but those of `occlusion` are
      means; those are of the centre crop alone.
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
        """Write explanations.json and a Parquet file of each table; each file is whole or absent."""
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
        """What `save` wrote. Raises FileNotFoundError where a file is absent."""
        folder = Path(folder)
        values = read_json(folder / FILE)
        answers = pd.read_parquet(folder / "answers.parquet")
        best = answers[[name for name in answers if name not in ANSWER_COLUMNS]].to_numpy(np.float64)
        explained = pd.read_parquet(folder / "explained.parquet").astype(EXPLAINED_COLUMNS)
        spread = pd.read_parquet(folder / "probabilities.parquet")
        windows = pd.read_parquet(folder / "occlusion.parquet").astype(WINDOW_COLUMNS)
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
            pd.read_parquet(folder / "confident.parquet").astype(CONFIDENT),
        )


def explain(
    evaluation: Evaluation,
    queries: pd.DataFrame,
    alternatives: Alternatives,
    model: Classifier,
    partition: tuple[str, Partition],
    uncalibrated: NDArray[Any],
    probabilities: NDArray[Any],
    pool: Path | str | ShardReader,
    settings: EvaluationSettings,
    *,
    temperature: float = np.nan,
    crops: int = 1,
    batch_size: int = 64,
) -> Explanations:
    """Explain the first method of `evaluation`, by class, on its N photos.

    `queries` has the catalog's columns, in the order of the rest; `alternatives` are that method's; `partition` is its
    name, which is that of a head of `model`, and the fitted partition; `probabilities` float [N, C] are those that
    the method answered from, means over `crops` crops, `uncalibrated` those before temperature scaling; a row of NaN
    is an unreadable photo.
    Raises ValueError for lengths that differ, and as the measures do.
    """
    name, cells = partition
    method = evaluation.methods[0]
    if not len(queries) == len(probabilities) == len(uncalibrated):
        raise ValueError(
            f"probabilities must be of {len(queries)} photos, got {len(probabilities)} and {len(uncalibrated)}"
        )
    read = ~(np.isnan(probabilities).any(axis=1))
    best = np.where(read, np.nan_to_num(probabilities).argmax(axis=1), -1)
    rows = np.arange(len(queries))
    answers = pd.DataFrame(
        {
            "photo_id": queries["photo_id"].to_numpy(dtype=object),
            "true_cell": cells.assign(queries["latitude"], queries["longitude"]),
            "cell": best,
            "probability": np.where(read, probabilities[rows, best], np.nan),
            "uncalibrated": np.where(read, uncalibrated[rows, best], np.nan),
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
        best_of_k_errors(alternatives, queries["latitude"], queries["longitude"], read),
        explained,
        np.asarray(probabilities[position], dtype=np.float32),
        _occlusion(
            model, name, pool, queries.iloc[position].reset_index(drop=True), wanted,
            1.0 if np.isnan(temperature) else temperature, batch_size,
        ),
        most_confident_photos(
            probabilities, queries, _most_answered(best, settings.confident_cells), PHOTOS_OF_A_CELL,
            answers["true_cell"],
        ),
    )  # fmt: skip


def pick_explained(
    evaluation: Evaluation, answers: pd.DataFrame, count: int, photographer: pd.Series | None = None
) -> pd.DataFrame:
    """`count` photos to explain, as EXPLAINED_COLUMNS: the surest right answers, then the worst errors, half each.

    Right is an answer whose cell is the true one (`answers`, as ANSWER_COLUMNS); the surest has the largest confidence,
    the worst the largest error. Where there are too few of one the others make up for it; with `photographer`
    (indexed by photo_id) each half shows a photographer once while there are enough. Equals go by photo_id.
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
    """The `count` cells that are the answer most often, of equals the first; fewer where fewer are an answer."""
    cells, photos = np.unique(best[best >= 0], return_counts=True)
    return cells[np.argsort(-photos, kind="stable")][:count]


class _ByHead(nn.Module):
    """A classifier whose scores come by head, so that each is normalised over its own cells."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.model.split(self.model(images))


def _occlusion(
    model: Classifier,
    head: str,
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    wanted: Mapping[str, list[int]],
    temperature: float,
    batch_size: int,
) -> dict[str, tuple[OcclusionMap, ...]]:
    """By photo_id, a map of each cell that is wanted of it. Photos are the centres that the network saw."""
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
