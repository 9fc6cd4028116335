"""Algorithm 1: the gradients of a large batch in the memory of a chunk."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geoloc.losses.metric import metric_loss
from geoloc.losses.relations import relations_by_class
from geoloc.losses.settings import MetricLossSettings
from geoloc.training.chunks import check_no_batch_statistics, in_chunks

RELATIONS = relations_by_class(torch.arange(14) // 3)
IMAGES = torch.randn(14, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(144, 5),
    ]
    made = nn.Sequential(*layers).double()
    made[1].eval()
    return made


def gradients(model: nn.Module, outputs: torch.Tensor, kind: str) -> list[torch.Tensor]:
    loss = metric_loss(MetricLossSettings.model_validate({"kind": kind}))(outputs, RELATIONS)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize(
    "kind", ["soft_triplet", "hinge_triplet", "soft_sets", "dbl_pairs", "multi_similarity"]
)
@pytest.mark.parametrize("size", [1, 4, 14, 20])
def test_two_passes_give_the_gradients_of_one(kind: str, size: int) -> None:
    model = network()
    for one, two in zip(
        gradients(model, in_chunks(model, IMAGES, size), kind),
        gradients(model, model(IMAGES), kind),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_dropout_drops_the_same_in_both_passes() -> None:
    """One pass over the same chunks, keeping all intermediate results, is what two passes must equal."""
    model = network(dropout=0.5)
    torch.manual_seed(3)
    wanted = gradients(model, torch.cat([model(chunk) for chunk in IMAGES.split(4)]), "soft_sets")
    torch.manual_seed(3)
    found = gradients(model, in_chunks(model, IMAGES, 4), "soft_sets")
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_the_network_runs_again_chunk_by_chunk() -> None:
    model, sizes = network(), []

    def counted(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return model(images)

    outputs = in_chunks(counted, IMAGES, 4)
    assert sizes == [4, 4, 4, 2]
    gradients(model, outputs, "soft_sets")
    assert sizes == [4, 4, 4, 2, 2, 4, 4, 4]


def test_batch_norm_that_learns_is_refused() -> None:
    model = network()
    check_no_batch_statistics(model, "metric.chunk_size")
    model.train()
    with pytest.raises(
        ValueError, match=r"metric\.chunk_size needs batch norm with fixed statistics, but 1 layers"
    ):
        check_no_batch_statistics(model, "metric.chunk_size")
