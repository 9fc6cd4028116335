"""What the classifier thinks, and how sure the methods are: the figures of that section with what they show."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoloc.evaluation.measures.calibration import calibration_table
from geoloc.evaluation.measures.selective import risk_coverage
from geoloc.evaluation.result import Evaluation
from geoloc.places import nearest_places
from geoloc.reports.cell_figures import confident_figure, occlusion_figure, probability_map
from geoloc.reports.confidence_figures import calibration_figure, risk_coverage_figure, top_k_figure
from geoloc.reports.examples import thumbnail
from geoloc.reports.pages import count, kilometres
from geoloc.reports.summary import headline
from geoloc.sphere import LEVELS_KM

if TYPE_CHECKING:
    from geoloc.evaluation.explaining.explanations import (
        Explanations,  # brings torch, which a report need not load
    )
    from geoloc.partitions.base import Partition

_BY_NEIGHBOUR = re.compile(r"\](NN|kNN σ)")
_MOST_LINES = 8
"""Lines of a risk-coverage figure: as many as there are colours."""
_WIDER_LEVEL = "country"


@dataclass(frozen=True)
class Figure:
    """A PNG or JPEG by its file name (without .png or .jpg), with the text for those who cannot see it, and what it
    shows."""

    name: str
    data: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class FigureGroup:
    """Figures that are read alike: how, and after whom. A group that is not `opened` is folded up; `narrow` ones stand
    side by side."""

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
) -> tuple[FigureGroup, ...]:
    """Draw all of it; groups with nothing to show are left out.

    `explanations` are those of the classifier on the photos of `evaluation`, over `partition`; None, both, where no
    classifier was tried. `read` gives the stored bytes of a photo by photo_id, None where there are none.
    """
    groups: list[FigureGroup] = []
    if explanations is not None and partition is not None:
        pictures = _Pictures(read, explanations.seen)
        groups += _explained(explanations, partition, pictures)
        groups += _confident(explanations, partition, pictures)
        groups += _best_of_k(explanations)
    groups += _risk(evaluation)
    if explanations is not None:
        groups += _calibration(explanations)
    return tuple(group for group in groups if group.figures)


@dataclass(frozen=True)
class _Pictures:
    """Small pictures of stored photos."""

    read: Callable[[str], bytes | None]
    seen: float

    def whole(self, photo_id: str, side: int = 200) -> bytes | None:
        data = self.read(photo_id)
        return None if data is None else thumbnail(data, side)

    def square(self, photo_id: str) -> NDArray[np.uint8] | None:
        """The middle of the photo that the network saw, at most 320 pixels wide."""
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
        f" What the maps tell, with nothing covered too, is of the centre crop alone; the confidence is of the mean "
        f"over {explanations.crops} crops."
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
            f"What {explanations.method} gives each cell of {explanations.partition} for one photo: first the surest "
            "answers of those in their true cell, then the worst errors. The darker a cell, the more probable, on a "
            "scale of powers of ten. One dark cell is a photo that says where it is; many of one shade are a "
            "classifier that does not know, or a landscape that several places share. After PlaNet, figures 1 and 6.",
            tuple(maps),
            opened=True,
        ),
        FigureGroup(
            "What it looks at",
            "A grey box of a fifth of the photo's side slides over the square that the network sees; colours tell "
            "the probability of one cell with the box there. Red: covering this costs probability, so it spoke for "
            "the cell. Blue: covering it gains, so it spoke against. White: nothing changes. Each map has a scale of "
            "its own: read its ends, small changes mean little. Of a wrong answer both the answer's cell and the true "
            "one are shown, where the photo is in one. After PlaNet, figure 10 (which shows the true cell), and "
            "Zeiler and Fergus, 2014.",
            tuple(looks),
        ),
    ]


def _strongest(found: Any) -> str:
    """How far the probability falls at most, in words."""
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
            "The cells that are the answer most often, each in its ring on the world, and of the photos that were "
            "placed there those with the highest probability, a photographer once while there are enough. A tick "
            "marks a photo that was taken in the cell. What these photos share is what the classifier takes the "
            "place to look like. After PlaNet, figure 8.",
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
            f"How far off {explanations.method} would be if the best of its k most probable cells were its answer. No "
            "one but the truth could choose it: the gap between the lines is what the classifier half knows. After "
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
            "If a method may be silent on the photos that it is least sure of: the share of the others that it gets "
            "wrong. At the right every photo is answered. A line that falls to the left has a confidence that can be "
            "trusted to choose; a level one does not know when it is right. The smaller the area under it, the better. "
            "After Geifman and El-Yaniv, 2017.",
            tuple(figures),
            narrow=True,
        )
    ]


def _without_twins(methods: Iterable[str]) -> list[str]:
    """The methods less those that answer with the centres of the same cells as another: equally sure of each photo."""
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
        "as the network says": calibration_table(answers["uncalibrated"].clip(0, 1), right),
    }
    if calibrated:
        title = f"with temperature {explanations.temperature:.2f}"
        tables[title] = calibration_table(answers["probability"].clip(0, 1), right)
    outside = int((answers["true_cell"] < 0).sum())
    return [
        FigureGroup(
            "Is a confidence what it says?",
            "Answers in bins by the probability of their cell, and how many of a bin are the true cell; a dot grows "
            "with the photos of its bin. On the diagonal 7 of 10 answers with 70 % are right; below it the classifier "
            "is too sure of itself, above it too modest. The calibration error is the mean gap over photos. After Guo "
            "and others, 2017."
            + (
                " The temperature was chosen on validation photos, and divides all scores by one number."
                if calibrated
                else " This build scales no confidence (localizers.calibrate)."
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
