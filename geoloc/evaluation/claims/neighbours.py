"""Assigns evaluated methods to the roles of claims about retrieval: neighbours, kernels, metric networks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from geoloc.evaluation.claims.evaluated import Built, Choice, Head, Ranked

NEIGHBOUR_ROLES = {
    "classification": "[L], by class, in a recipe that also answers by neighbour",
    "NN": "the nearest reference by the embeddings of that network",
    "NN of fewer": "the nearest of a random share of the references, by the same embeddings "
    "(localizers.reference_share)",
    "kNN narrow": "the density of the nearest with the smallest σ, by the same embeddings",
    "kNN wide": "the same with the largest σ (localizers.sigmas: at least two)",
    "first NN": "the nearest reference by the same network before any training on photos of ours (embeddings.models: "
    "[classifier, backbone] in a recipe with model.weights: package or registry, such as revisiting_1060)",
    "metric NN": "the nearest reference by a metric network that started from its recipe's classifier, such as "
    "revisiting_r1",
    "classifier NN": "the nearest reference by that classifier",
    "small batch NN": "the nearest reference by a metric network with small batches, such as revisiting_r1",
    "large batch NN": "the same with larger batches, otherwise trained alike but for its learning rate, such as "
    "revisiting_r2",
}
"""What each role is, and so what must be built for it."""

_ONE_SEARCH = ("NN", "NN of fewer", "kNN narrow", "kNN wide")
_KERNEL = re.compile(r"\[(?P<model>[^\]]+)\]kNN σ=(?P<sigma>[0-9.e+-]+)")


def bind_neighbours(roles: dict[str, Choice], built: Sequence[Built], heads: Sequence[Head]) -> None:
    """Add the roles of NEIGHBOUR_ROLES to `roles`, which has those that were given and `fine`."""
    _bind_batches(roles, built)
    _bind_metric(roles, built)
    _bind_search(roles, built, heads)
    _bind_first(roles, built)


def _nearest(one: Built, model: str) -> Choice | None:
    """Returns the nearest neighbour by a network's embeddings; None if it was not evaluated."""
    method = f"[{model}]NN"
    return Choice(one.recipe, method) if method in one.evaluation.methods else None


def _model_of(method: str) -> str:
    """Returns the name in a method's brackets."""
    return method.partition("]")[0].removeprefix("[")


def _bind_search(roles: dict[str, Choice], built: Sequence[Built], heads: Sequence[Head]) -> None:
    """Bind the answers of one network by class, by the nearest neighbour and by density: in the recipe of a role given
    by hand, else in that of the metric network, else in fine's, else in the first that has both."""
    given = next((roles[role] for role in (*_ONE_SEARCH, "classification") if role in roles), None)
    wanted = [given] if given else [roles[role] for role in ("metric NN", "fine") if role in roles]
    first = [one for choice in wanted for one in built if one.recipe == choice.recipe]
    by_hand = next((roles[role].method for role in _ONE_SEARCH if role in roles), "")
    for one in first if given else [*first, *built]:
        model = _model_of(by_hand) or one.model
        nearest = _nearest(one, model)
        mine = [head for head in heads if head.built.recipe == one.recipe and head.centroid]
        if nearest is None or not (mine or given):
            continue
        roles.setdefault("NN", nearest)
        if mine:
            roles.setdefault("classification", mine[0].choice)
        fewer = [method for method in one.evaluation.methods if method.startswith(f"[{model}]NN of ")]
        if fewer:
            roles.setdefault("NN of fewer", Choice(one.recipe, fewer[0]))
        kernels = sorted(_kernels(one, model))
        if kernels:
            roles.setdefault("kNN narrow", Choice(one.recipe, kernels[0][1]))
        if len(kernels) > 1:
            roles.setdefault("kNN wide", Choice(one.recipe, kernels[-1][1]))
        return


def _kernels(one: Built, model: str) -> Iterator[tuple[float, str]]:
    """Yields σ and name of the recipe's methods by density, of the paper's k and m, on the sphere."""
    for method in one.evaluation.methods:
        found = _KERNEL.fullmatch(method)
        if found is not None and found["model"] == model:
            yield float(found["sigma"]), method


def _bind_first(roles: dict[str, Choice], built: Sequence[Built]) -> None:
    """Bind the features of first weights that stand for ImageNet's: not those that another recipe has trained."""
    asked = [one for one in built if "NN" in roles and one.recipe == roles["NN"].recipe]
    for one in [*asked, *built]:
        alike = any(one.features == other.features for other in asked)
        nearest = _nearest(one, one.backbone)
        if nearest is not None and alike and one.pretrained and not one.starts_from:
            roles.setdefault("first NN", nearest)


def _ranked(built: Sequence[Built]) -> list[tuple[Built, Ranked, Choice]]:
    """Returns the recipes with an evaluated metric network, the network, and the nearest neighbour by it."""
    found = []
    for one in built:
        nearest = None if one.ranked is None else _nearest(one, one.ranked.name)
        if one.ranked is not None and nearest is not None:
            found.append((one, one.ranked, nearest))
    return found


def _bind_batches(roles: dict[str, Choice], built: Sequence[Built]) -> None:
    """Bind the two metric networks of one setup whose batches differ most, the first on ties."""
    ranked = _ranked(built)
    pairs = [
        (large.batch_size / small.batch_size, by_small, by_large)
        for _, small, by_small in ranked
        for _, large, by_large in ranked
        if small.setup == large.setup
        and small.batch_size < large.batch_size
        and roles.get("small batch NN", by_small) == by_small
        and roles.get("large batch NN", by_large) == by_large
    ]
    if pairs:
        _, by_small, by_large = max(pairs, key=lambda pair: pair[0])
        roles.setdefault("small batch NN", by_small)
        roles.setdefault("large batch NN", by_large)


def _bind_metric(roles: dict[str, Choice], built: Sequence[Built]) -> None:
    """Bind a metric network and the classifier that it started from: that with small batches, else the first."""
    given = roles.get("metric NN") or roles.get("classifier NN")
    wanted = given or roles.get("small batch NN")
    ranked = [found for found in _ranked(built) if found[1].from_classifier]
    first = [found for found in ranked if wanted is not None and found[0].recipe == wanted.recipe]
    for one, _, by_metric in first if given else [*first, *ranked]:
        by_classifier = _nearest(one, one.model)
        if by_classifier is not None:
            roles.setdefault("metric NN", by_metric)
            roles.setdefault("classifier NN", by_classifier)
            return
