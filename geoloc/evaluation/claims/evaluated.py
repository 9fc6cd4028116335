"""One evaluated recipe, as claims and comparisons read it: its evaluation, partitions, and the methods over each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from geoloc.evaluation.result import Evaluation
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.localizers.frozen.base import FROZEN_APPROACHES
from geoloc.partitions.base import Answer, Partition

ANSWERS: tuple[Answer, ...] = ("centroid", "centre")


@dataclass(frozen=True)
class Choice:
    """A method of a recipe; for a ceiling, the name of a partition."""

    recipe: str
    method: str

    def __str__(self) -> str:
        return f"{self.recipe}:{self.method}"


@dataclass(frozen=True)
class Ranked:
    """The metric network of a recipe: its name in methods, its batch size, and whether it started from the recipe's own
    classifier. Networks of equal `setup`, any text, differ in their batch sizes and learning rates only."""

    name: str
    batch_size: int
    from_classifier: bool = True
    setup: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Built:
    """One recipe's evaluation on a test set, with the facts about its network that roles depend on.

    - `photos`: the queries (photo_id, photographer, latitude, longitude, prob_indoor).
    - `model`: the network's name in methods (L or M); `backbone`: the name of its first weights.
    - `setup`: any text; recipes with equal `setup` differ only in their partitions.
    - `starts_from`: the recipe whose weights the network started from, "" for none.
    - `same_as`: the recipe of which this is another training, with another seed; "" for the recipe itself.
    - `fine_tuned`: whether the backbone was trained; `pretrained`: whether its first weights were not random.
    - `features`: any text; the features of recipes with equal `features` differ only in the network's weights.
    - `ranked`: the metric network, None if the recipe has none.
    - `external`: the name of another program's embeddings, "" for none.
    """

    recipe: str
    evaluation: Evaluation
    photos: pd.DataFrame
    partitions: Mapping[str, Partition]
    model: str = "L"
    setup: str = ""
    starts_from: str = ""
    fine_tuned: bool = True
    pretrained: bool = True
    backbone: str = "backbone"
    same_as: str = ""
    features: str = ""
    ranked: Ranked | None = None
    external: str = ""

    def trained(self, method: str) -> bool:
        """Whether a method's answers depend on the training: not those on features of the first weights or of another
        program."""
        return not method.startswith((f"[{self.backbone}]", f"[{self.external}]"))

    def __repr__(self) -> str:
        return f"Built({self.recipe}: {self.model} over {', '.join(self.partitions)})"


@dataclass(frozen=True, eq=False)
class Head:
    """The evaluated methods of a recipe over one partition.

    `centroid` and `centre` are the names of the network's methods, "" if not evaluated; `frozen` those of classifiers
    on frozen features, by kind and answer point.
    """

    built: Built
    name: str
    partition: Partition
    centroid: str
    centre: str
    frozen: Mapping[tuple[str, str], str]

    @property
    def cells(self) -> int:
        return self.partition.cell_count

    @property
    def single(self) -> bool:
        """Whether this is the only head of its network and was evaluated at centroids."""
        return len(self.built.partitions) == 1 and bool(self.centroid)

    @property
    def choice(self) -> Choice:
        return Choice(self.built.recipe, self.centroid)

    @property
    def ceiling(self) -> Choice:
        return Choice(self.built.recipe, self.name)

    def same_cells(self, other: Head) -> bool:
        """Whether both partitions have the same cells with the same centroids."""
        mine, its = self.partition, other.partition
        return (
            mine.kind == its.kind
            and mine.tokens() == its.tokens()
            and np.array_equal(mine.centroids(), its.centroids())
        )


def by_class(one: Built) -> dict[str, tuple[str, Answer]]:
    """Returns (partition name, answer point) for each class method, in evaluation order, those on frozen features
    included."""
    return {method: (name, answer) for method, (_, name, answer) in _methods_by_class(one).items()}


def _methods_by_class(one: Built) -> dict[str, tuple[str, str, Answer]]:
    """As `by_class`, with the kind of classifier on frozen features first; "" for a network's method."""
    named: dict[str, tuple[str, str, Answer]] = {}
    for kind, model, approach in [
        ("", one.model, ""),
        *((kind, one.backbone, approach) for kind, approach in FROZEN_APPROACHES.items()),
    ]:
        for answer in ANSWERS:
            for name, localizer in class_localizers(one.partitions, (answer,), model, approach=approach):
                named[localizer.name] = (kind, name, answer)
    return {method: named[method] for method in one.evaluation.methods if method in named}


def heads_of(one: Built) -> list[Head]:
    """Returns a head for each of the recipe's partitions."""
    found: dict[str, dict[tuple[str, str], str]] = {name: {} for name in one.partitions}
    for method, (kind, name, answer) in _methods_by_class(one).items():
        found[name][kind, answer] = method
    return [
        Head(
            one,
            name,
            one.partitions[name],
            methods.pop(("", "centroid"), ""),
            methods.pop(("", "centre"), ""),
            methods,
        )
        for name, methods in found.items()
    ]


def trainings_of(built: Sequence[Built], recipe: str, apart: Collection[str] = ()) -> list[Built]:
    """Returns the trainings of a recipe, itself first, without those named in `apart`."""
    itself = [one for one in built if one.recipe == recipe]
    return itself + [one for one in built if one.same_as == recipe and one.recipe not in apart]
