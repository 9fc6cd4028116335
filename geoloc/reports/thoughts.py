"""The report's section on explanations and confidence: its figures, with captions."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoloc.evaluation.explaining.neighbourhoods import Neighbourhoods
from geoloc.evaluation.measures.calibration import calibration_table
from geoloc.evaluation.measures.selective import risk_coverage
from geoloc.evaluation.result import Evaluation
from geoloc.places import nearest_places
from geoloc.reports.cell_figures import confident_figure, occlusion_figure, probability_map
from geoloc.reports.confidence_figures import calibration_figure, risk_coverage_figure, top_k_figure
from geoloc.reports.examples import thumbnail
from geoloc.reports.neighbour_figures import SHOWN, neighbourhood_figure
from geoloc.reports.pages import count, kilometres
from geoloc.reports.summary import headline
from geoloc.sphere import LEVELS_KM

if TYPE_CHECKING:
    from geoloc.evaluation.explaining.explanations import (
        Explanations,  # brings torch, which a report need not load
    )
    from geoloc.partitions.base import Partition

_BY_NEIGHBOUR = re.compile(r"^\[[^\]]*\](NN|kNN)(?! \d+C)")
"""[L]NN, [L]kNN σ=4, [L]kNN for 25 km; not [L]70C+kNN, nor [backbone]kNN 70C, which answers by class."""
_MOST_LINES = 8
"""Lines of a risk-coverage figure: as many as there are colours."""
_WIDER_LEVEL = "country"


@dataclass(frozen=True)
class Figure:
    """A PNG or JPEG with its file name (without .png or .jpg), alternative text and caption."""

    name: str
    data: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class FigureGroup:
    """Figures of one kind; `about` explains how to read them, with the source. A group is collapsed unless `opened`;
    `narrow` figures are shown side by side."""

    title: str
    about: str
    figures: tuple[Figure, ...]
    opened: bool = False
    narrow: bool = False


def gather_thoughts(
    evaluation: Evaluation,
    explanations: Explanations | None,
    partition: Partition | None,
    read: Callable[[str], bytes | None],
    around: Neighbourhoods | None = None,
) -> tuple[FigureGroup, ...]:
    """Draw all figures. Groups without figures are left out.

    `explanations` are those of the classifier on the photos of `evaluation`, over `partition`; both are None without a
    classifier. `read` returns the stored bytes of a photo by photo_id, or None. `around` are the neighbours of a few
    photos, None without an index.
    """
    groups: list[FigureGroup] = []
    if explanations is not None and partition is not None:
        pictures = _Pictures(read, explanations.seen)
        groups += _explained(explanations, partition, pictures)
        groups += _confident(explanations, partition, pictures)
        groups += _best_of_k(explanations)
    if around is not None:
        groups += _neighbourhoods(around, _Pictures(read, 1.0))
    groups += _risk(evaluation)
    if explanations is not None:
        groups += _calibration(explanations)
    return tuple(group for group in groups if group.figures)


@dataclass(frozen=True)
class _Pictures:
    """Small pictures of stored photos; `seen` is the share of the short side that the network's centre crop covers."""

    read: Callable[[str], bytes | None]
    seen: float

    def whole(self, photo_id: str, side: int = 200) -> bytes | None:
        data = self.read(photo_id)
        return None if data is None else thumbnail(data, side)

    def square(self, photo_id: str) -> NDArray[np.uint8] | None:
        """Returns the centre crop that the network saw, at most 320 pixels wide."""
        data = self.read(photo_id)
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as image:
            colours = image.convert("RGB")
        side = self.seen * min(colours.size)
        left, top = (colours.width - side) / 2, (colours.height - side) / 2
        pixels = min(320, max(1, round(side)))
        square = colours.resize(
            (pixels, pixels), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
        return np.asarray(square)


def _explained(explanations: Explanations, partition: Partition, pictures: _Pictures) -> list[FigureGroup]:
    rows = explanations.explained
    truths = nearest_places(rows["true_latitude"], rows["true_longitude"])
    answers = nearest_places(rows["latitude"], rows["longitude"])
    maps, looks = [], []
    centre_only = (
        f" The maps, and the probability with nothing covered, are of the centre crop alone; the confidence is of the "
        f"mean over {explanations.crops} crops."
        if explanations.crops > 1
        else ""
    )
    for i, (row, p, truth, answer) in enumerate(
        zip(rows.itertuples(), explanations.probabilities, truths, answers, strict=True), start=1
    ):
        photo_id = str(row.photo_id)
        what = (
            f"{photo_id}, {row.side}: taken at {truth}, placed at {answer}, {kilometres(row.error_km)} km off, with "
            f"confidence {row.confidence:.2f}"
        )
        place, wrong = (row.true_latitude, row.true_longitude), (row.latitude, row.longitude)
        maps.append(
            Figure(
                f"probabilities-{i}",
                probability_map(partition, p, pictures.whole(photo_id), place, wrong),
                f"World map of the classifier's probabilities for photo {photo_id}",
                f"{what}.",
            )
        )
        square, found = pictures.square(photo_id), explanations.occlusion.get(photo_id, ())
        if square is not None and found:
            titles = ["its answer, and the truth" if row.cell == row.true_cell else "its answer", "the truth"]
            looks.append(
                Figure(
                    f"occlusion-{i}",
                    occlusion_figure(square, list(zip(titles, found, strict=False))),
                    f"Photo {photo_id} and how its cell's probability changes where a grey box covers the photo",
                    f"{what}.{_strongest(found[0])}{centre_only}",
                )
            )
    return [
        FigureGroup(
            "Probabilities on the world",
            f"The probability that {explanations.method} gives each cell of {explanations.partition} for one photo: "
            "first the most confident right answers, then the worst errors. Darker cells are more probable, on a "
            "logarithmic scale. A single dark cell is a photo with a clear location. Many cells of one shade are a "
            "classifier that does not know, or a landscape that several places share. After PlaNet, figures 1 and 6.",
            tuple(maps),
            opened=True,
        ),
        FigureGroup(
            "What it looks at",
            "A grey box of a fifth of the photo's side slides over the square that the network sees. Colours show "
            "the probability of one cell with the box at that position. Red: covering this part lowers the "
            "probability, so it spoke for the cell. Blue: covering it raises the probability, so it spoke against the "
            "cell. White: no change. Each map has its own scale: look at its ends, because small changes mean little. "
            "For a wrong answer both its cell and the true cell are shown, if the photo is in one. After PlaNet, "
            "figure 10 (which shows the true cell), and Zeiler and Fergus, 2014.",
            tuple(looks),
        ),
    ]


def _strongest(found: Any) -> str:
    """Returns a sentence on the largest drop of the probability; "" if it never drops."""
    lowest = float(found.probability.min())
    if lowest >= found.whole:
        return ""
    return f" Covered at the worst place, the answer's cell falls from {_percent(found.whole)} to {_percent(lowest)}."


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _confident(explanations: Explanations, partition: Partition, pictures: _Pictures) -> list[FigureGroup]:
    table = explanations.confident
    if table.empty:
        return []
    cells = list(dict.fromkeys(int(cell) for cell in table["cell"]))
    points = partition.centroids()
    points = np.where(np.isnan(points).any(axis=1, keepdims=True), partition.centres(), points)[cells]
    names = [place.name for place in nearest_places(points[:, 0], points[:, 1])]
    said = explanations.answers["cell"].value_counts()
    photos = {str(p): pictures.whole(str(p), 240) for p in table["photo_id"]}
    data = confident_figure(
        partition,
        table,
        {photo_id: picture for photo_id, picture in photos.items() if picture is not None},
        {
            cell: f"near {name}\n{count(int(said[cell]))} answers"
            for cell, name in zip(cells, names, strict=True)
        },
    )
    right, shown = int(table["right"].sum()), len(table)
    return [
        FigureGroup(
            "The surest photos of a cell",
            "The cells that are answered most often, each circled on the world, with the photos that have the highest "
            "probability among those placed there, each photographer once while there are enough. A tick marks a photo "
            "that was taken in the cell. What these photos have in common is what the classifier expects of the "
            "place. After PlaNet, figure 8.",
            (
                Figure(
                    "surest",
                    data,
                    f"The most confident photos of {len(cells)} cells: {', '.join(names)}",
                    f"{right} of these {shown} photos were taken in the cell. Cells are named after the city nearest "
                    "to the middle of their photos.",
                ),
            ),
        )
    ]


def _best_of_k(explanations: Explanations) -> list[FigureGroup]:
    errors = explanations.best_of_k
    if not len(errors) or not errors.shape[1]:
        return []
    at = LEVELS_KM[_WIDER_LEVEL]
    first, last = ((errors[:, k] <= at).mean() for k in (0, -1))
    return [
        FigureGroup(
            "The best of several answers",
            f"The error of {explanations.method} if the best of its k most probable cells were its answer. Choosing it "
            "needs the truth; the gap between the lines shows how often the right place is among the top k. After "
            "PlaNet, figure 3.",
            (
                Figure(
                    "best-of-k",
                    top_k_figure(errors, tuple(range(1, errors.shape[1] + 1))),
                    "Share of photos within each distance for the best of the first answers",
                    f"Within {at:g} km: {100 * first:.1f} % by the answer, {100 * last:.1f} % by the best of "
                    f"{errors.shape[1]}.",
                ),
            ),
        )
    ]


def _neighbourhoods(around: Neighbourhoods, pictures: _Pictures) -> list[FigureGroup]:
    if around.photos.empty:
        return []
    near = around.neighbours[around.neighbours["rank"] <= SHOWN]
    wanted = [*around.photos["photo_id"], *near["neighbour"]]
    photos = {str(one): pictures.whole(str(one), 240) for one in dict.fromkeys(wanted)}
    data = neighbourhood_figure(around, {key: value for key, value in photos.items() if value is not None})
    ids = ", ".join(around.photos["photo_id"])
    return [
        FigureGroup(
            "Neighbours and their density",
            f"Photos placed by {around.method}: the photo, the references most like it with their similarities, and "
            "all neighbours on the world (blue stars) under their density, with the answer (red star) and the place "
            "where it was taken (green ring). One clear peak is a place that the neighbours agree on; many are a look "
            "that many places have. After Revisiting IM2GPS, figure 7.",
            (
                Figure(
                    "neighbourhoods",
                    data,
                    f"{len(around.photos)} photos, their nearest references, and the density of their neighbours",
                    f"Best answers first, then the worst: {ids}.",
                ),
            ),
        )
    ]


def _risk(evaluation: Evaluation) -> list[FigureGroup]:
    families = {
        "by class": [m for m in evaluation.methods if not _BY_NEIGHBOUR.search(m)],
        "by neighbour": [m for m in evaluation.methods if _BY_NEIGHBOUR.search(m)],
    }
    rows = dict(list(evaluation.per_photo.groupby("method", sort=False)))
    levels = evaluation.levels_km
    shown_levels = [
        level for level in dict.fromkeys([headline(evaluation)[0], _WIDER_LEVEL]) if level in levels
    ]
    figures = []
    for family, all_methods in families.items():
        methods = _without_twins(all_methods)[:_MOST_LINES]
        for level in shown_levels if methods else ():
            km = levels[level]
            curves = {m: risk_coverage(rows[m]["confidence"], rows[m]["error_km"], km) for m in methods}
            left_out = len(all_methods) - len(methods)
            figures.append(
                Figure(
                    f"risk-{family.replace(' ', '-')}-{level}",
                    risk_coverage_figure(curves, km),
                    f"Risk against coverage of the methods {family} at {level} level",
                    f"Methods {family}, wrong beyond {km:g} km ({level})"
                    + (f"; {left_out} more are not drawn." if left_out else "."),
                )
            )
    return [
        FigureGroup(
            "How wrong are the surest answers?",
            "The error rate if a method abstains on its least confident photos. At the right every photo is answered. "
            "A line that falls to the left has a useful confidence; with a flat line the confidence does not show when "
            "the method is right. The smaller the area under the line, the better. "
            "After Geifman and El-Yaniv, 2017.",
            tuple(figures),
            narrow=True,
        )
    ]


def _without_twins(methods: Iterable[str]) -> list[str]:
    """Returns the methods without those at centres of cells that are answered at centroids too: their confidences are
    equal."""
    kept = list(methods)
    return [m for m in kept if not (m.endswith(" centre") and m.removesuffix(" centre") in kept)]


def _calibration(explanations: Explanations) -> list[FigureGroup]:
    answers = explanations.answers
    answers = answers[answers["cell"] >= 0]
    if answers.empty:
        return []
    right = answers["cell"] == answers["true_cell"]
    calibrated = not np.isnan(explanations.temperature)
    tables = {
        "before scaling": calibration_table(answers["uncalibrated"].clip(0, 1), right),
    }
    if calibrated:
        title = f"with temperature {explanations.temperature:.2f}"
        tables[title] = calibration_table(answers["probability"].clip(0, 1), right)
    outside = int((answers["true_cell"] < 0).sum())
    return [
        FigureGroup(
            "Is a confidence what it says?",
            "Answers are binned by the probability of their cell; each dot shows the share of its bin that is the true "
            "cell, and its size the number of photos. On the diagonal 7 of 10 answers with 70 % are right. Below it "
            "the classifier is overconfident, above it underconfident. The calibration error is the mean gap over "
            "photos. After Guo and others, 2017."
            + (
                " The temperature, one number that divides all scores, was fitted on validation photos."
                if calibrated
                else " This build does not scale confidences (localizers.calibrate)."
            ),
            (
                Figure(
                    "calibration",
                    calibration_figure(tables),
                    "Share of right cells against the confidence of the classifier",
                    f"{count(len(answers))} photos, {count(int(right.sum()))} of them in their true cell"
                    + (
                        f"; {count(outside)} are in no cell, so no answer could be right." if outside else "."
                    ),
                ),
            ),
            narrow=True,
        )
    ]
