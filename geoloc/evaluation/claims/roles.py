"""Assigns evaluated methods to the roles of the published claims (published.py).

Defaults compare like with like: networks with the same splits, model and training (one setup) over partitions of one
kind, so that only what the claim is about differs. A role without a fitting method stays empty, and its claims are not
tested. A role can also be assigned by hand; the defaults that depend on it follow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from geoloc.evaluation.claims.claim import Measured
from geoloc.evaluation.claims.context import CONTEXT_ROLES, bind_context, cells_of
from geoloc.evaluation.claims.evaluated import ANSWERS, Built, Choice, Head, heads_of, trainings_of
from geoloc.evaluation.claims.neighbours import NEIGHBOUR_ROLES, bind_neighbours
from geoloc.partitions.base import Answer

ROLES = {
    "fine": "[L] over the partition with most cells",
    "fine centre": "the same, answered at centres (localizers.answers: [centroid, centre])",
    "coarse": "[L] of the same splits, model and training as fine, over fewer cells of the same kind",
    "coarse centre": "the same, answered at centres (localizers.answers: [centroid, centre])",
    "fine ceiling": "a perfect classifier over the partition with most cells",
    "fine ceiling centre": "the same, answered at centres",
    "coarse ceiling": "a perfect classifier over the partition with fewest cells of the same kind",
    "coarse ceiling centre": "the same, answered at centres",
    "M fine": "the head with most cells of a network with several",
    "M coarse": "the head with fewest cells of that network, of the same kind",
    "L fine": "[L] over M fine's partition, otherwise trained as M",
    "L2 coarse": "[L] over M coarse's partition, started from the weights of another [L]",
    "outdoor": "a method on the photos whose prob_indoor is below 0.5",
    "all photos": "the same method on all photos",
    "triangles": "[L] over Delaunay triangles, with about as many cells as quadtree",
    "quadtree": "[L] over S2 cells, trained as triangles",
    **NEIGHBOUR_ROLES,
    **CONTEXT_ROLES,
    "fine-tuned": "a fine-tuned network, by class",
    "frozen SVM": "a linear SVM over fine-tuned's cells, on features of its first weights "
    "(localizers.frozen.kinds: [knn, svm])",
    "frozen kNN": "nearest neighbours voting over fine-tuned's cells, on features of its first weights "
    "(localizers.frozen.kinds: [knn, svm])",
}
"""What each role is, and so what must be built for it."""

_FROZEN = {"frozen SVM": "svm", "frozen kNN": "knn"}
"""Roles of classifiers on frozen features, and their kinds (localizers.frozen.kinds)."""

CEILINGS: dict[str, Answer] = {
    "fine ceiling": "centroid",
    "fine ceiling centre": "centre",
    "coarse ceiling": "centroid",
    "coarse ceiling centre": "centre",
}
"""Roles that are assigned a partition, not a method, and the answer point of each."""

INDOOR = 0.5
"""Photos with prob_indoor below this are outdoor (Multi-modal Geolocation's filter, as in measures/groups.py)."""
EQUAL_CELLS = 1.1
"""Cell counts whose ratio is at most this are "equal": two kinds of partition never reach exactly the same count."""


class ClaimRoleError(ValueError):
    """A role, recipe or method does not exist. The message lists what is allowed."""


def parse_roles(texts: Sequence[str]) -> dict[str, Choice]:
    """Parse roles in the form NAME=RECIPE:METHOD; the first "=" and the first ":" after it are the separators.

    Raises ClaimRoleError for another form, an unknown role, or a repeated role.
    """
    given: dict[str, Choice] = {}
    for text in texts:
        role, _, chosen = (part.strip() for part in text.partition("="))
        recipe, _, method = (part.strip() for part in chosen.partition(":"))
        if not (role and recipe and method):
            raise ClaimRoleError(
                f"a role must be NAME=RECIPE:METHOD, such as fine=default:[L]82C; got {text!r}"
            )
        _known_role(role)
        if role in given:
            raise ClaimRoleError(f"role {role} is given twice: {given[role]} and {recipe}:{method}")
        given[role] = Choice(recipe, method)
    return given


def bind_roles(built: Sequence[Built], given: Mapping[str, Choice] | None = None) -> dict[str, Choice]:
    """Returns the choice for each role, in the order of ROLES: those of `given`, then defaults from `built`.

    Roles without a fitting method are missing from the result. Raises ClaimRoleError for a given role, recipe, method
    or partition that does not exist.
    """
    roles = dict(given or {})
    for role, choice in roles.items():
        _check(role, choice, built)
    # Of the trainings of one recipe that differ in their seeds only, the first plays the defaults, for all.
    built = [
        one for one in built if not one.same_as or one.recipe in {choice.recipe for choice in roles.values()}
    ]
    heads = [head for one in built for head in heads_of(one)]
    _bind_granularities(roles, heads)
    _bind_ceilings(roles, heads)
    _bind_several_heads(roles, heads)
    _bind_meshes(roles, heads)
    _bind_outdoor(roles, built)
    _bind_fine_tuned(roles, heads)
    bind_neighbours(roles, built, heads)
    bind_context(roles, built)
    return {role: roles[role] for role in ROLES if role in roles}


def measure_roles(built: Sequence[Built], roles: Mapping[str, Choice]) -> dict[str, Measured]:
    """Returns the errors of each role on the test photos of its recipe, as `evaluate_claims` takes them: in all
    trainings of the recipe that are built. Raises ValueError if one of these has other test photos."""
    recipes = {one.recipe: one for one in built}
    measured = {}
    for role, choice in roles.items():
        one = recipes[choice.recipe]
        if role in CEILINGS:
            measured[role] = Measured.of_ceiling(one.partitions[choice.method], one.photos, CEILINGS[role])
        else:
            runs = [run for run in trainings_of(built, one.recipe) if choice.method in run.evaluation.methods]
            errors = [Measured.of_method(run.evaluation, choice.method, one.photos).error_km for run in runs]
            measured[role] = replace(
                Measured.of_method(one.evaluation, choice.method, one.photos),
                error_km=np.stack(errors, axis=1),
                training=(one.same_as or one.recipe) if one.trained(choice.method) else "",
            )
        if role in CONTEXT_ROLES:
            cells, cell_count = cells_of(one, choice.method)
            measured[role] = replace(measured[role], cells=cells, cell_count=cell_count)
        if role == "outdoor":
            measured[role] = measured[role].where(_indoor(one) < INDOOR)
    return measured


def _known_role(role: str) -> None:
    if role not in ROLES:
        raise ClaimRoleError(f"role must be one of {', '.join(ROLES)}; got {role!r}")


def _check(role: str, choice: Choice, built: Sequence[Built]) -> None:
    """Raises ClaimRoleError for an unknown role, recipe, method or partition."""
    _known_role(role)
    recipes = {one.recipe: one for one in built}
    if choice.recipe not in recipes:
        raise ClaimRoleError(f"{role}: recipe must be one of {', '.join(recipes)}; got {choice.recipe!r}")
    one = recipes[choice.recipe]
    what = "partition" if role in CEILINGS else "method"
    allowed = list(one.partitions) if role in CEILINGS else one.evaluation.methods
    if choice.method not in allowed:
        raise ClaimRoleError(
            f"{role}: {what} of {one.recipe} must be one of {', '.join(allowed)}; got {choice.method!r}"
        )


def _head_of(heads: Sequence[Head], choice: Choice | None) -> Head | None:
    """Returns the head that produced the chosen method; None if it is not a class method."""
    for head in heads:
        if (
            choice is not None
            and head.built.recipe == choice.recipe
            and choice.method in (head.centroid, head.centre)
        ):
            return head
    return None


def _extremes(
    heads: Sequence[Head], key: Callable[[Head], Hashable], fine: Head | None, coarse: Head | None
) -> tuple[Head | None, Head | None]:
    """Returns the heads with most and fewest cells of one group (equal `key`), keeping those already chosen.

    If neither is chosen, the group with the largest ratio of cell counts is taken, the first on ties. The coarse head
    is None if all partitions of the group have equally many cells.
    """
    if fine is None and coarse is None:
        groups: dict[Hashable, list[Head]] = {}
        for head in heads:
            groups.setdefault(key(head), []).append(head)
        if not groups:
            return None, None
        fine = max(
            (max(group, key=lambda head: head.cells) for group in groups.values()),
            key=lambda head: head.cells / min(other.cells for other in groups[key(head)]),
        )
    if coarse is None and fine is not None:
        fewer = [head for head in heads if key(head) == key(fine) and head.cells < fine.cells]
        coarse = min(fewer, key=lambda head: head.cells, default=None)
    elif fine is None and coarse is not None:
        more = [head for head in heads if key(head) == key(coarse) and head.cells > coarse.cells]
        fine = max(more, key=lambda head: head.cells, default=None)
    return fine, coarse


def _bind_granularities(roles: dict[str, Choice], heads: Sequence[Head]) -> None:
    given = {role: _head_of(heads, roles.get(role)) for role in ("fine", "coarse")}
    if not any(role in roles and head is None for role, head in given.items()):
        several = [head.built.recipe for head in given.values() if head is not None and not head.single]
        # Heads of one network are compared with each other, where one was asked for.
        pool = [head for head in heads if (head.built.recipe in several if several else head.single)]
        found = _extremes(pool, lambda head: (head.built.setup, head.partition.kind), **given)
        for role, head in zip(given, found, strict=True):
            if head is not None:
                roles.setdefault(role, head.choice)
    for role in given:
        head = _head_of(heads, roles.get(role))
        if head is not None and head.centre:
            roles.setdefault(f"{role} centre", Choice(head.built.recipe, head.centre))


def _bind_ceilings(roles: dict[str, Choice], heads: Sequence[Head]) -> None:
    """Bind the ceilings of the partitions of fine and coarse; if one is empty, of any network's partition."""

    def chosen(side: str) -> Head | None:
        for role in (f"{side} ceiling", f"{side} ceiling centre"):
            if role in roles:
                return next(head for head in heads if head.ceiling == roles[role])
        return _head_of(heads, roles.get(side))

    found = _extremes(
        heads, lambda head: (head.built.setup, head.partition.kind), chosen("fine"), chosen("coarse")
    )
    for side, head in zip(("fine", "coarse"), found, strict=True):
        if head is not None:
            roles.setdefault(f"{side} ceiling", head.ceiling)
            roles.setdefault(f"{side} ceiling centre", head.ceiling)


def _bind_several_heads(roles: dict[str, Choice], heads: Sequence[Head]) -> None:
    """Bind [M], and the [L] and [L2] over its partitions. Of several [M], the one with most of these two, then the
    first."""
    singles = [head for head in heads if head.single]
    names = {head.built.recipe for head in singles}
    given = {role: _head_of(heads, roles.get(role)) for role in ("M fine", "M coarse")}
    wanted = {head.built.recipe for head in given.values() if head is not None}
    best: dict[str, Choice] = {}
    for recipe in dict.fromkeys(head.built.recipe for head in heads):
        mine = [head for head in heads if head.built.recipe == recipe and head.centroid]
        if len(mine) < 2 or (wanted and recipe not in wanted):
            continue
        fine, coarse = _extremes(mine, lambda head: head.partition.kind, given["M fine"], given["M coarse"])
        found: dict[str, Choice] = {}
        for head in singles:
            if fine and head.same_cells(fine) and head.built.setup == fine.built.setup:
                found.setdefault("L fine", head.choice)
            if coarse and head.same_cells(coarse) and head.built.starts_from in names:
                found.setdefault("L2 coarse", head.choice)
        found |= {"M fine": fine.choice} if fine else {}
        found |= {"M coarse": coarse.choice} if coarse else {}
        if len(found) > len(best):
            best = found
    for role, choice in best.items():
        roles.setdefault(role, choice)


def _bind_meshes(roles: dict[str, Choice], heads: Sequence[Head]) -> None:
    """Bind the Delaunay and S2 partitions of one setup with the closest cell counts, if within EQUAL_CELLS."""
    pairs = [
        (max(triangles.cells, quadtree.cells) / min(triangles.cells, quadtree.cells), triangles, quadtree)
        for triangles in heads
        for quadtree in heads
        if triangles.single
        and quadtree.single
        and (triangles.partition.kind, quadtree.partition.kind) == ("delaunay", "s2")
        and triangles.built.setup == quadtree.built.setup
        and roles.get("triangles", triangles.choice) == triangles.choice
        and roles.get("quadtree", quadtree.choice) == quadtree.choice
    ]
    pairs = [pair for pair in pairs if pair[0] <= EQUAL_CELLS]
    if pairs:
        _, triangles, quadtree = min(pairs, key=lambda pair: pair[0])
        roles.setdefault("triangles", triangles.choice)
        roles.setdefault("quadtree", quadtree.choice)


def _bind_outdoor(roles: dict[str, Choice], built: Sequence[Built]) -> None:
    """Bind one method on outdoor photos and on all photos: fine, else the first. No-op without outdoor photos."""
    choice = roles.get("outdoor") or roles.get("all photos") or roles.get("fine")
    if choice is None and built:
        choice = Choice(built[0].recipe, built[0].evaluation.methods[0])
    if choice is None:
        return
    roles.setdefault("all photos", choice)
    if any((_indoor(one) < INDOOR).any() for one in built if one.recipe == choice.recipe):
        roles.setdefault("outdoor", choice)


def _bind_fine_tuned(roles: dict[str, Choice], heads: Sequence[Head]) -> None:
    """Bind a fine-tuned network, and classifiers on features of its first weights with the same cells and answer point.

    The default network is that of fine; if it has no such classifiers, the first network that has.
    """
    head, answer = _fine_tuned(roles, heads)
    if head is None or not head.built.fine_tuned:
        return
    roles.setdefault("fine-tuned", Choice(head.built.recipe, getattr(head, answer)))
    for role, kind in _FROZEN.items():
        if (kind, answer) in head.frozen:
            roles.setdefault(role, Choice(head.built.recipe, head.frozen[kind, answer]))


def _fine_tuned(roles: Mapping[str, Choice], heads: Sequence[Head]) -> tuple[Head | None, Answer]:
    """Returns the head that is compared with frozen features, and its answer point."""
    if "fine-tuned" in roles:
        head = _head_of(heads, roles["fine-tuned"])
        return head, "centre" if head and roles["fine-tuned"].method == head.centre else "centroid"
    given = roles.get("frozen SVM") or roles.get("frozen kNN")
    wanted = given or roles.get("fine")
    same = [head for head in heads if wanted is not None and head.built.recipe == wanted.recipe]
    fine = _head_of(same, roles.get("fine"))
    pool = [*([fine] if fine else []), *same]
    if given:  # a recipe may have several heads: the one that this classifier belongs to
        pool = [head for head in pool if given.method in head.frozen.values()] or pool
    else:
        others = [head for head in [*pool, *heads] if head.built.fine_tuned]
        pool = [head for head in others if _alike(head)] or pool
    for head in pool:
        for answer in [*_alike(head), "centroid"]:
            if getattr(head, answer):
                return head, answer
    return None, "centroid"


def _alike(head: Head) -> list[Answer]:
    """Returns the answer points that both the network and a classifier on its frozen features have."""
    return [
        answer
        for answer in ANSWERS
        if getattr(head, answer) and any((kind, answer) in head.frozen for kind in _FROZEN.values())
    ]


def _indoor(one: Built) -> np.ndarray:
    """Returns prob_indoor of the test photos, float64 (N,), NaN if unknown (NaN compares as not outdoor)."""
    return one.photos["prob_indoor"].to_numpy(dtype=np.float64, na_value=np.nan)
