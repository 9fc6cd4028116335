"""Maps of what a cross-view network looks at: they are largest where the picture matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoloc.evaluation.explaining.pair_maps import (
    ATTENTION,
    COLUMNS,
    IMPORTANCE,
    SIDE,
    map_of_rows,
    maps_of_pairs,
)
from geoloc.settings import replace
from tests.model.test_cross_view_evaluation import SETTINGS, network, sources


class Corner(torch.nn.Module):
    """A backbone that sees the upper left quarter of a picture only."""

    def forward(self, images):
        kept = torch.zeros_like(images)
        half = images.shape[-1] // 2
        kept[..., :half, :half] = images[..., :half, :half]
        return torch.nn.functional.avg_pool2d(kept, images.shape[-1] // 8).repeat(1, 171, 1, 1)[:, :512]


def maps_by_kind(model, positions):
    found = maps_of_pairs(sources(model)[0], np.array(positions))
    return found, {key: map_of_rows(rows) for key, rows in found.groupby(["pair_id", "view", "map"])}


@pytest.mark.parametrize("polar", [False, True])
def test_attention_and_importance_are_where_the_network_looks(polar):
    model = network(replace(SETTINGS, polar=polar))
    for tower in model.towers:
        tower.backbone = Corner()
    found, maps = maps_by_kind(model, [4])
    assert found["distance"].nunique() == 1
    photo = {kind: maps["7-4", "photo", kind] for kind in (ATTENTION, IMPORTANCE)}
    half = len(photo[ATTENTION]) // 2
    assert photo[ATTENTION][:half, :half].min() > 0
    assert photo[ATTENTION][half:].max() == photo[ATTENTION][:, half:].max() == 0
    importance = np.abs(photo[IMPORTANCE])
    assert importance.shape == (SIDE, SIDE)
    assert importance[:8, :8].max() > 0
    assert importance[18:, 18:].max() < 1e-6, "covering what is not seen changes nothing"
    tile = np.abs(maps["7-4", "tile", IMPORTANCE])
    # The upper left of a polar tile is its outer part, from behind the viewer to the left.
    seen, unseen = (tile[12:, :8], tile[:11, 16:]) if polar else (tile[:12, :12], tile[18:, 18:])
    assert seen.max() > 1e-4
    assert unseen.max() < 1e-3 * seen.max() + 1e-6


def test_the_distance_is_that_of_the_pair_and_unreadable_pairs_have_no_maps():
    model = network()
    test = sources(model)[0]
    found = maps_of_pairs(test, np.array([0, 3, 5]))
    assert list(found.columns) == list(COLUMNS)
    assert found["pair_id"].unique().tolist() == ["7-0", "7-5"], "the tile of the other cannot be read"
    assert found.groupby("pair_id")["up"].first()["7-0"] == 0, "without a heading north is at the top"
    up = torch.tensor([test.pairs.heading[5]], dtype=torch.float32)
    (photo,) = test.photos(np.array([5]), 1, 0)
    (tile,) = test.tiles(np.array([5]), 1)
    with torch.inference_mode():
        wanted = (model.photos(photo.images) - model.tiles(tile.images, up)).square().sum()
    assert found.groupby("pair_id")["distance"].first()["7-5"] == pytest.approx(float(wanted), rel=1e-4)
    assert maps_of_pairs(test, np.empty(0, dtype=np.int64)).empty
