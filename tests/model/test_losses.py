"""Metric losses: equal to a few lines of brute force and to pytorch-metric-learning, in value and in gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances as theirs
from pytorch_metric_learning import losses, reducers
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from geoloc.losses import triplets
from geoloc.losses.metric import metric_loss
from geoloc.losses.pairs import dbl_pairs
from geoloc.losses.relations import Relations, distances, relations_by_class, squared_distances
from geoloc.losses.sets import angular, info_nce, lifted, soft_sets
from geoloc.losses.settings import MetricLossSettings
from geoloc.losses.triplets import hinge_triplet, soft_triplet
from geoloc.settings import SettingsError, parse

softplus = functional.softplus


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, Relations]:
    """Embeddings [B, 3] in float64 and any relations: without symmetry, with pairs that are neither."""
    size = draw(st.integers(2, 9))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = torch.from_numpy(numbers.choice(3, (size, size), p=draw(st.sampled_from(_SHARES))))
    kinds.fill_diagonal_(0)
    embeddings = torch.from_numpy(numbers.normal(size=(size, 3))) * draw(st.sampled_from([0.1, 1.0, 6.0]))
    return embeddings, Relations(kinds == 1, kinds == 2)


_SHARES = ([0.2, 0.3, 0.5], [0.0, 0.1, 0.9], [0.5, 0.5, 0.0], [0.6, 0.0, 0.4], [0.8, 0.1, 0.1])
SOME = torch.from_numpy(np.random.default_rng(4).normal(size=(12, 3)))
CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4])


def all_triplets(relations: Relations) -> list[tuple[int, int, int]]:
    size = range(len(relations.positives))
    return [
        (a, p, n)
        for a in size
        for p in size
        for n in size
        if relations.positives[a, p] and relations.negatives[a, n]
    ]


def value_and_gradient(
    loss: Callable[[torch.Tensor], torch.Tensor], embeddings: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = embeddings.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def assert_same(
    ours: Callable[[torch.Tensor], torch.Tensor],
    other: Callable[[torch.Tensor], torch.Tensor],
    embeddings: torch.Tensor,
) -> None:
    for one, two in zip(
        value_and_gradient(ours, embeddings), value_and_gradient(other, embeddings), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


def mean(terms: list[torch.Tensor], embeddings: torch.Tensor) -> torch.Tensor:
    return torch.stack(terms).mean() if terms else embeddings.sum() * 0


@pytest.mark.parametrize("kind", ["euclidean", "squared_euclidean"])
@settings(deadline=None)
@given(batches())
def test_soft_and_hinge_triplets_are_the_mean_over_every_valid_triplet(
    kind: str, batch: tuple[torch.Tensor, Relations]
) -> None:
    embeddings, relations = batch

    def brute(term: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def loss(x: torch.Tensor) -> torch.Tensor:
            d = distances(x, kind)
            return mean([term(d[a, p] - d[a, n]) for a, p, n in all_triplets(relations)], x)

        return loss

    assert_same(lambda x: soft_triplet(distances(x, kind), relations), brute(softplus), embeddings)
    assert_same(
        lambda x: hinge_triplet(distances(x, kind), relations, 0.3),
        brute(lambda difference: functional.relu(difference + 0.3)),
        embeddings,
    )


@settings(deadline=None)
@given(batches())
def test_the_mean_over_violating_triplets_leaves_out_those_without_a_loss(
    batch: tuple[torch.Tensor, Relations],
) -> None:
    embeddings, relations = batch

    def brute(x: torch.Tensor) -> torch.Tensor:
        d = squared_distances(x)
        terms = [d[a, p] - d[a, n] + 0.3 for a, p, n in all_triplets(relations)]
        return mean([term for term in terms if term > 0], x)

    ours = lambda x: hinge_triplet(squared_distances(x), relations, 0.3, "violating")  # noqa: E731
    assert_same(ours, brute, embeddings)


def test_triplets_pass_a_numerical_gradient_check() -> None:
    relations = relations_by_class(CLASSES)
    x = SOME.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_triplet(distances(x, "euclidean"), relations), x)
    assert torch.autograd.gradcheck(lambda x: hinge_triplet(squared_distances(x), relations, 0.5), x)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_soft_triplets_are_exact_in_blocks_and_for_very_long_embeddings(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    relations = relations_by_class(CLASSES)
    wanted = value_and_gradient(lambda x: soft_triplet(squared_distances(x), relations), SOME * scale)
    monkeypatch.setattr(triplets, "_IN_CACHE", 1)
    single = (SOME * scale).float()
    for embeddings, tolerance in ((SOME * scale, 1e-10), (single, 1e-4)):
        found = value_and_gradient(lambda x: soft_triplet(squared_distances(x), relations), embeddings)
        for one, two in zip(found, wanted, strict=True):
            assert torch.isfinite(one).all()
            torch.testing.assert_close(one.double(), two, rtol=tolerance, atol=tolerance * scale**2)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return made


@pytest.mark.parametrize(
    "kind",
    ["soft_triplet", "hinge_triplet", "soft_sets", "info_nce", "angular", "lifted", "multi_similarity"],
)
def test_no_tensor_is_larger_than_the_pairs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """384 photos, 32 a class: 147,456 pairs and 4 million triplets."""
    monkeypatch.setattr(triplets, "_IN_CACHE", 2**14)
    loss = metric_loss(parse(MetricLossSettings, {"kind": kind}, "metric.loss"))
    embeddings = torch.randn(384, 8, requires_grad=True)
    relations = relations_by_class(torch.arange(384) // 32)
    with Largest() as largest:
        loss(embeddings, relations).backward()
    pairs = 384 * 384
    assert pairs <= largest.elements <= 2 * pairs  # two indices of each pair


def test_triplets_agree_with_pytorch_metric_learning() -> None:
    relations = relations_by_class(CLASSES)
    squared = theirs.LpDistance(p=2, power=2, normalize_embeddings=False)
    mean_of_all = {"distance": squared, "reducer": reducers.MeanReducer()}
    smooth = losses.TripletMarginLoss(margin=0, smooth_loss=True, **mean_of_all)
    hinge = losses.TripletMarginLoss(margin=0.2, **mean_of_all)
    violating = losses.TripletMarginLoss(margin=0.2, distance=squared)
    assert_same(lambda x: soft_triplet(squared_distances(x), relations), lambda x: smooth(x, CLASSES), SOME)
    assert_same(
        lambda x: hinge_triplet(squared_distances(x), relations, 0.2), lambda x: hinge(x, CLASSES), SOME
    )
    assert_same(
        lambda x: hinge_triplet(squared_distances(x), relations, 0.2, "violating"),
        lambda x: violating(x, CLASSES),
        SOME,
    )


def test_pairs_and_sets_agree_with_pytorch_metric_learning() -> None:
    relations = relations_by_class(CLASSES)
    unit = functional.normalize(SOME)
    plain = theirs.LpDistance(p=2, power=1, normalize_embeddings=False)
    their_lifted = losses.LiftedStructureLoss(distance=plain, reducer=reducers.MeanReducer())
    assert_same(
        lambda x: lifted(distances(x, "euclidean"), relations, 1.0), lambda x: their_lifted(x, CLASSES), unit
    )
    # Theirs writes -log as a logarithm of a ratio plus a tiny number.
    nce = losses.NTXentLoss(temperature=0.2)
    cosines = lambda x: functional.normalize(x) @ functional.normalize(x).T  # noqa: E731
    ours = value_and_gradient(lambda x: info_nce(cosines(x), relations, 0.2), SOME)
    other = value_and_gradient(lambda x: nce(x, CLASSES), SOME)
    # The last class has one photo: theirs has no positive pair of it either.
    for one, two in zip(ours, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
    their_angular = losses.AngularLoss(alpha=45, reducer=reducers.MeanReducer())
    # Theirs normalises anchors and positives, but not negatives.
    assert_same(
        lambda x: angular(cosines(x), relations, 45.0),
        lambda x: their_angular(functional.normalize(x), CLASSES),
        SOME,
    )


@settings(deadline=None)
@given(batches())
def test_sets_of_positives_and_negatives_are_equation_5_2(batch: tuple[torch.Tensor, Relations]) -> None:
    embeddings, relations = batch

    def brute(x: torch.Tensor) -> torch.Tensor:
        weights = torch.exp(-distances(x, "euclidean"))
        terms = []
        for a in range(len(x)):
            near, far = weights[a, relations.positives[a]], weights[a, relations.negatives[a]]
            if len(near) and len(far):
                terms.append(-torch.log(near.sum() / (near.sum() + far.sum())))
        return mean(terms, x)

    assert_same(lambda x: soft_sets(distances(x, "euclidean"), relations), brute, embeddings)


@settings(deadline=None)
@given(batches())
def test_the_logistic_loss_of_pairs_is_equations_3_5_and_3_6(batch: tuple[torch.Tensor, Relations]) -> None:
    embeddings, relations = batch
    # The plain formula overflows for long ones, and loses its digits where two are almost equal.
    embeddings = embeddings / (embeddings.abs().max() / 2).clamp_min(1)
    m = 10.0

    def brute(x: torch.Tensor) -> torch.Tensor:
        probability = (1 + math.exp(-m)) / (1 + torch.exp(squared_distances(x) - m))
        near = mean([-torch.log(p) for p in probability[relations.positives]], x)
        far = mean([-torch.log(1 - p) for p in probability[relations.negatives]], x)
        return (near + far) / 2

    ours = value_and_gradient(lambda x: dbl_pairs(squared_distances(x), relations, m), embeddings)
    for one, two in zip(ours, value_and_gradient(brute, embeddings), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
    twice = value_and_gradient(
        lambda x: dbl_pairs(squared_distances(x), relations, m),
        torch.cat([SOME[:1]] * len(SOME))[: len(embeddings)],
    )
    assert all(torch.isfinite(one).all() for one in twice), "equal photos"


KINDS = [
    {"kind": kind}
    for kind in (
        "soft_triplet", "hinge_triplet", "soft_sets", "dbl_pairs", "info_nce", "lifted", "angular",
        "contrastive", "multi_similarity", "circle",
    )
]  # fmt: skip


@pytest.mark.parametrize("values", KINDS, ids=lambda values: values["kind"])
def test_every_kind_pulls_a_class_together(values: dict[str, str]) -> None:
    """A step against the gradient lowers the loss; a batch without a pair gives 0 and gradient 0."""
    loss = metric_loss(parse(MetricLossSettings, values, "metric.loss"))
    relations = relations_by_class(CLASSES)
    value, gradient = value_and_gradient(lambda x: loss(x, relations), SOME.float())
    assert value.dtype == torch.float32
    assert loss(SOME.float() - 1e-2 * gradient, relations) < value
    for count in (1, 2):
        none = torch.zeros((count, count), dtype=torch.bool)
        value, gradient = value_and_gradient(lambda x: loss(x, Relations(none, none)), SOME[:count])  # noqa: B023
        assert value == 0
        assert not gradient.any()
    with torch.autocast("cpu", torch.bfloat16):
        exact = loss(SOME.float(), relations)
    torch.testing.assert_close(exact, loss(SOME.float(), relations), rtol=1e-6, atol=1e-6)


def test_the_library_gets_relations_not_classes() -> None:
    """A pair that is neither counts in no term; the means are over all pairs, also those with loss 0."""
    relations = relations_by_class(CLASSES)
    negatives = relations.negatives.clone()
    negatives[0] = negatives[:, 0] = False
    loss = metric_loss(MetricLossSettings(kind="contrastive", scale=1.0, normalise=False, margin=1.5))
    d = distances(SOME, "euclidean")
    wanted = d[relations.positives].mean() + functional.relu(1.5 - d[negatives]).mean()
    torch.testing.assert_close(loss(SOME, Relations(relations.positives, negatives)), wanted)


def test_embeddings_have_the_length_of_the_scale_and_a_learnt_scale_has_a_gradient() -> None:
    relations = relations_by_class(CLASSES)
    given_settings = MetricLossSettings(distance="squared_euclidean", scale=4.0)
    wanted = soft_triplet(squared_distances(functional.normalize(SOME) * 4), relations)
    torch.testing.assert_close(metric_loss(given_settings)(SOME * 9, relations), wanted)
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    loss = metric_loss(given_settings, scale)(SOME, relations)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert scale.grad is not None
    assert scale.grad != 0


def test_only_the_closest_positives_stay() -> None:
    relations = relations_by_class(torch.tensor([0, 0, 0, 1]))
    similarities = torch.tensor([[9, 1, 2, 3], [5, 9, 4, 9], [1, 2, 9, 0], [0, 0, 0, 9]]).float()
    kept = relations.closest(similarities, 1)
    assert kept.positives.nonzero().tolist() == [[0, 2], [1, 0], [2, 1]]
    assert torch.equal(kept.negatives, relations.negatives)
    assert torch.equal(relations.closest(similarities, 7).positives, relations.positives)


def test_wrong_masks_and_settings_are_told() -> None:
    with pytest.raises(ValueError, match=r"two square masks of one size, got \(2, 2\) and \(3, 3\)"):
        Relations(torch.zeros((2, 2), dtype=torch.bool), torch.zeros((3, 3), dtype=torch.bool))
    for values, message in (
        ({"kind": "triplet"}, r"metric\.loss\.kind must be one of soft_triplet, .*; got 'triplet'"),
        ({"angle": 80}, r"metric\.loss\.angle must be at most 60"),
        ({"scale": 0}, r"metric\.loss\.scale must be at least 0\.001, got 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse(MetricLossSettings, values, "metric.loss")
