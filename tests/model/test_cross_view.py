"""Cross-view matching: tiles turned on the device, networks that share weights, losses over two views, a training that
is resumed to the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from geoloc.losses.metric import metric_loss
from geoloc.losses.orientation import orientation_loss
from geoloc.losses.settings import MetricLossSettings
from geoloc.models.cross_view import (
    CrossViewNetwork,
    GridPooling,
    build_cross_view,
    load_cross_view,
    save_cross_view,
)
from geoloc.models.cross_view_prediction import headings_of
from geoloc.models.matching import bearings
from geoloc.models.panorama import PanoramaPreprocess
from geoloc.models.settings import ModelSettings
from geoloc.models.tiles import seen_tiles
from geoloc.models.weights import WeightsError
from geoloc.settings import SettingsError, parse, replace
from geoloc.training.cross_view import (
    embed_pairs,
    match_scores,
    shape_of,
    train_cross_view,
    validation_measures,
    with_hard_pairs,
)
from geoloc.training.cross_view_pairs import CrossViewPairs, PairSource, cross_view_pairs
from geoloc.training.cross_view_settings import CrossViewSettings, HardPairsSettings, OrientationSettings
from geoloc.training.loop import TrainingResult
from geoloc.training.optimisers import SHARE, make_optimiser
from geoloc.training.source import TrainingError
from tests.model.cross_view_world import Stored, made, tile_with_wedge

PLAIN = ModelSettings(backbone="squeezenet1_1", resize_short_side=32, image_size=32)
NORMED = ModelSettings(backbone="shufflenet_v2_x0_5", resize_short_side=32, image_size=32)
SETTINGS = CrossViewSettings(
    model=PLAIN, epochs=3, batch_size=8, embedding_size=16, learning_rate=1e-3, augmentation=None, device="cpu",
    checkpoint_steps=2, progress_steps=1, orientation=OrientationSettings(hidden=16),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> tuple[tuple[Stored, Stored], CrossViewPairs, CrossViewPairs]:
    """The two pools, 40 pairs to train on of which 5 have no heading, 12 to validate on."""
    pools = Stored(), Stored()
    return pools, made(40, 0, *pools, headless=5), made(12, 1, *pools)


def network(settings: CrossViewSettings = SETTINGS) -> CrossViewNetwork:
    return build_cross_view(settings.model, shape_of(settings), 3)


def train(
    world: Any, folder: Path, settings: CrossViewSettings = SETTINGS, on_progress: Any = lambda event: None
) -> tuple[CrossViewNetwork, TrainingResult]:
    pools, training, validation = world
    model = network(settings)
    return model, train_cross_view(model, pools, training, validation, settings, 5, folder, on_progress)


def test_tiles_are_seen_with_a_bearing_at_the_top() -> None:
    tiles = torch.rand(4, 3, 16, 16)
    up = torch.tensor([0.0, 90.0, 180.0, 270.0])
    inside = seen_tiles(torch.ones(1, 1, 16, 16), torch.zeros(1))[0, 0]
    for tile, seen, turns in zip(tiles, seen_tiles(tiles, up), range(4), strict=True):
        # East at the top is a quarter turn counter-clockwise.
        torch.testing.assert_close(seen, torch.rot90(tile, turns, (1, 2)) * inside, atol=1e-4, rtol=0)
    assert inside[0, 0] == 0 == inside[-1, -1]
    assert inside[0, 7] == 1 == inside[8, 15]
    larger = seen_tiles(tiles[:1], torch.zeros(1), scale=torch.tensor([2.0]))
    torch.testing.assert_close(
        larger[0, :, 7:9, 7:9],
        functional.interpolate(tiles[:1], scale_factor=2, mode="bilinear")[0, :, 15:17, 15:17],
    )
    with torch.autocast("cpu", torch.bfloat16):
        mixed = seen_tiles(tiles, up + 17)
    torch.testing.assert_close(mixed, seen_tiles(tiles, up + 17), atol=1e-6, rtol=0)


@given(st.integers(0, 31), st.floats(-720, 720))
def test_columns_of_a_polar_tile_are_bearings(shift: int, bearing: float) -> None:
    tile = torch.from_numpy(tile_with_wedge(np.full(3, 255.0), bearing)).permute(2, 0, 1)[None].float()
    step = 360 / 32
    plain, turned = (
        seen_tiles(tile, torch.tensor([up]), True)[0, 0] for up in (bearing, bearing + shift * step)
    )
    torch.testing.assert_close(turned, plain.roll(-shift, dims=1), atol=1.0, rtol=0)
    assert plain[4:20].mean(dim=0)[14:18].min() > 200 > 100 > plain[4:20].mean(dim=0)[[2, 29]].max()


@pytest.mark.parametrize("towers", ["separate", "shared_last_layer", "shared_but_batch_norm", "shared"])
def test_what_towers_share(towers: str) -> None:
    settings = replace(SETTINGS, model=NORMED, towers=towers, orientation=None)
    model = network(settings)
    assert len(model.towers) == (2 if towers in ("separate", "shared_last_layer") else 1)
    assert len(model.projections) == (2 if towers == "separate" else 1)
    photos = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    loss = (model.train().photos(photos) - model.tiles(photos.flip(2), torch.zeros(6))).square().sum()
    loss.backward()
    norms = [p for name, p in model.named_parameters() if ".norms." in name]
    assert bool(norms) == (towers == "shared_but_batch_norm")
    assert all(p.grad is not None for p in model.parameters()), "every weight learns, of both views"


def test_the_backbones_share_of_the_learning_rate_is_that_of_both_towers() -> None:
    model = network()
    optimiser = make_optimiser(model, replace(SETTINGS, backbone_learning_rate_share=0.25))
    shares = {id(p): group[SHARE] for group in optimiser.param_groups for p in group["params"]}
    found = {name: shares[id(p)] for name, p in model.named_parameters()}
    assert {share for name, share in found.items() if "backbone" in name} == {0.25}
    assert {share for name, share in found.items() if "backbone" not in name} == {1.0}


def test_six_channels_start_as_the_mean_of_both_views() -> None:
    settings = replace(SETTINGS, kind="classification", orientation=None, select_by="last")
    model = network(settings).eval()
    first, mix = model.towers[0].backbone.features[0]
    assert (first.in_channels, first.out_channels, mix.out_channels) == (6, 128, 64)
    one, other = torch.rand(2, 2, 3, 32, 32)
    plain = network(replace(SETTINGS, towers="shared")).towers[0].backbone.features[0]
    with torch.no_grad():
        mixed = mix(first(torch.cat([one, other], dim=1)))
        torch.testing.assert_close(mixed, (plain(one) + plain(other)) / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": MetricLossSettings(kind="dbl_pairs", normalise=False, learnt_scale=True), "polar": True},
        {"towers": "shared_but_batch_norm", "model": NORMED, "field_of_view": 90.0},
        {"kind": "classification", "select_by": "last"},
        {"kind": "hybrid", "select_by": "last", "grid": 2},
    ],
    ids=["pairs", "batch norm", "classification", "hybrid"],
)
def test_a_saved_network_is_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    settings = replace(SETTINGS, **changes)
    model = network(settings).eval()
    save_cross_view(tmp_path / "m.safetensors", model)
    again = load_cross_view(tmp_path / "m.safetensors")
    assert again.shape == model.shape
    assert again.photo_preprocess == model.photo_preprocess
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    up = torch.tensor([10.0, 200.0])
    with torch.no_grad():
        found, expected = (
            one.tiles(images, up) if settings.kind == "embedding" else one.match(images, one.seen(images, up))
            for one in (again, model)
        )
    assert torch.equal(found, expected)
    save_cross_view(tmp_path / "again.safetensors", again)
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_a_file_without_such_a_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"m\.safetensors"):
        load_cross_view(tmp_path / "m.safetensors")


def test_only_photos_and_tiles_are_compared(world: Any) -> None:
    _, pairs, _ = world
    some = np.array([0, 3, 7, 20])
    every = pairs.relations(some, 0.05, "all")
    assert int(every.triplets) == 2 * 4 * 3, "2B(B - 1) for one match each (dissertation 3.5.3)"
    assert not every.positives[:4, :4].any()
    assert not every.negatives[4:, 4:].any()
    one = pairs.relations(some, 0.05, "one")
    assert int(one.triplets) == 4
    assert one.negatives.sum(dim=1).tolist() == [1] * 4 + [0] * 4
    # 1 km apart in the world: with 1.5 km the neighbours are neither.
    near = pairs.relations(np.array([3, 4, 9]), 1.5, "all")
    assert not near.negatives[0, 3 + 1]
    assert not near.positives[0, 3 + 1]
    assert near.negatives[0, 3 + 2]


def test_pairs_that_share_a_tile_match(world: Any) -> None:
    _, pairs, _ = world
    rows = pairs.rows.iloc[[0, 1, 2]].assign(overhead_id=["t", "t", "u"])
    photos = pd.DataFrame({"photo_id": rows["photo_id"], "shard": "s", "offset": 0, "length": 1})
    tiles = pd.DataFrame({"photo_id": ["t", "u"], "shard": "s", "offset": 0, "length": 1})
    relations = cross_view_pairs(rows, photos, tiles, "training").relations(np.arange(3), 0.0, "all")
    assert relations.positives[0, 3:].tolist() == [True, True, False]
    with pytest.raises(TrainingError, match="tile u is not stored"):
        cross_view_pairs(rows, photos, tiles[:1], "training")


def test_an_angle_near_north_is_near_from_both_sides() -> None:
    angles = torch.deg2rad(torch.tensor([1.0, 359.0]))
    found = torch.tensor([[0.0, 1.0]] * 2)
    either = [float(orientation_loss(found[:1], angle[None])) for angle in angles]
    assert either[0] == pytest.approx(either[1], abs=1e-6)
    assert either[0] < 1e-3
    unknown = torch.tensor([float("nan")] * 2)
    found.requires_grad_(True)
    loss = orientation_loss(found, unknown)
    loss.backward()
    assert loss.item() == 0
    assert found.grad is not None
    assert not found.grad.any()
    half = orientation_loss(torch.zeros(2, 2), torch.tensor([0.5, float("nan")]))
    assert float(half) == pytest.approx(1.0), "the mean over known angles"


def test_headings_are_from_north() -> None:
    model = network()
    with torch.no_grad():
        for layer in model.orientation_head:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.copy_(torch.tensor([1.0, 0.0]) if len(layer.bias) == 2 else torch.zeros(16))
    vectors = np.zeros((2, 16), dtype=np.float32)
    # Sine 1, cosine 0: a quarter turn clockwise from the top of the tile.
    np.testing.assert_allclose(
        headings_of(model, vectors, vectors, np.array([0.0, 300.0])), [90.0, 30.0], atol=1e-4
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_hard_pairs_come_beside_each_other_and_once(share: float) -> None:
    order = np.random.default_rng(0).permutation(40)
    near = (np.arange(40)[:, None] ^ np.array([1, 2, 3])).astype(np.int64)
    found = with_hard_pairs(order, near, 8, share, 1, 1)
    assert sorted(found.tolist()) == sorted(order.tolist())
    beside = np.mean([(one // 4 == np.delete(batch, at) // 4).any() for batch in found.reshape(5, 8)
                      for at, one in enumerate(batch)])  # fmt: skip
    before = np.mean([(one // 4 == np.delete(batch, at) // 4).any() for batch in order.reshape(5, 8)
                      for at, one in enumerate(batch)])  # fmt: skip
    assert beside > before + 0.15 if share else (found == order).all()


def test_a_panorama_is_cut_around_its_middle() -> None:
    wide = np.zeros((20, 360, 3), dtype=np.uint8)
    wide[:, 150:210] = 200
    preprocess = PanoramaPreprocess(resize_short_side=16, image_size=16, field_of_view=60.0)
    assert preprocess.apply_uint8(wide).shape == (16, 16, 3)
    assert preprocess.apply_uint8(wide).min() > 170
    assert replace(preprocess, field_of_view=360.0).apply_uint8(wide)[:, 0].max() == 0


def test_a_grid_keeps_where_things_are() -> None:
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 1, 3, 0] = 4
    assert GridPooling(2)(maps).tolist() == [[0, 0, 0, 0, 0, 0, 1, 0]]
    uneven = torch.rand(2, 3, 7, 5)
    torch.testing.assert_close(GridPooling(3)(uneven), functional.adaptive_avg_pool2d(uneven, 3).flatten(1))
    assert network(replace(SETTINGS, grid=2, embedding_size=None)).embedding_size == 4 * 512


class Stop(Exception):
    """Stands for a kill inside of this process."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "mining": HardPairsSettings(by="embedding", nearest=4),
            "model": NORMED,
            "towers": "shared_but_batch_norm",
        },
        {
            "kind": "hybrid",
            "select_by": "verification_accuracy",
            "mining": HardPairsSettings(),
            "polar": True,
        },
    ],
    ids=["mined", "hybrid"],
)
def test_a_killed_training_ends_with_the_same_bytes(
    changes: dict[str, Any], world: Any, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, **changes)
    whole, _ = train(world, tmp_path / "whole", settings)

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 8:
            raise Stop

    with pytest.raises(Stop):
        train(world, tmp_path / "killed", settings, stop)
    again, result = train(world, tmp_path / "killed", settings)
    assert result.resumed_at_step == 6
    for name, model in (("1", whole), ("2", again)):
        save_cross_view(tmp_path / name, model)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.slow
def test_it_learns_places_never_seen(tmp_path: Path) -> None:
    pools = Stored(), Stored()
    world = pools, made(60, 3, *pools, headless=9, easy=True), made(30, 4, *pools, easy=True)
    settings = replace(SETTINGS, epochs=10, batch_size=12, learning_rate=3e-4, select_by="last")
    model, result = train(world, tmp_path, settings)
    first, found = result.history[0], result.history[-1]
    assert found["loss"] < 0.8 * first["loss"]
    assert found["verification_accuracy"] > 0.62, "by chance 0.5 and a little, as the threshold is the best"
    assert found["reciprocal_rank"] > 0.17, "by chance 0.13"
    assert result.left_out["training_without_heading"] == 9
    source = PairSource(*pools, world[2], model, None, None, 0.0, 5, 1, True)
    again = validation_measures(model, source, settings)
    assert again == {name: found[name] for name in again}, "the weights of the last epoch"


def test_an_unreadable_image_costs_its_pair_only(world: Any) -> None:
    pools, pairs, _ = world
    photos, tiles = Stored(), Stored()
    photos.photos, tiles.photos = list(pools[0].photos), list(pools[1].photos)
    photos.photos[1], tiles.photos[2] = b"broken", b"broken"
    model = network()
    source = PairSource(photos, tiles, pairs, model, None, 90, 0.1, 5, 1, True)
    (batch,) = source.batches(np.array([0, 1, 2, 3]), 4, 1)
    assert batch.positions.tolist() == [0, 3]
    assert batch.unreadable.tolist() == [1, 2]
    assert [len(one) for one in batch.tensors] == [2] * 5
    of_photos, of_tiles = embed_pairs(model, source, 4, 16)
    assert np.flatnonzero(np.isnan(of_photos).any(axis=1)).tolist() == [1]
    assert np.flatnonzero(np.isnan(of_tiles).any(axis=(1, 2))).tolist() == [2]
    hybrid = network(replace(SETTINGS, kind="hybrid", orientation=None, select_by="last"))
    source = replace_model(source, hybrid)
    scores = match_scores(hybrid, source, np.full(40, 2), bearings(1))
    assert np.isnan(scores).all()
    scores = match_scores(hybrid, source, np.arange(40), bearings(4))
    assert np.flatnonzero(np.isnan(scores)).tolist() == [1, 2]


def replace_model(source: PairSource, model: CrossViewNetwork) -> PairSource:
    return dataclasses.replace(source, model=model)


def test_tiles_are_turned_around_the_heading_within_the_range(world: Any) -> None:
    pools, pairs, _ = world
    order = np.arange(40)
    for allowed in (0, 90, 360):
        source = PairSource(*pools, pairs, network(), None, allowed, 0.0, 5, 1, True)
        first, second, other = (
            np.concatenate([batch.tensors[4].numpy() for batch in source.batches(order, 16, epoch)])
            for epoch in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, second)
        assert np.isnan(first[:5]).all()
        off = np.degrees(first[5:])
        assert np.abs(off).max() <= allowed / 2 + 1e-3
        if allowed:
            assert np.abs(off).max() > allowed / 4
            assert not np.array_equal(first[5:], other[5:])


def test_exhaustive_loss_equals_all_triplets_one_by_one(world: Any) -> None:
    _, pairs, _ = world
    some = np.array([0, 3, 7, 20])
    photos, tiles = torch.rand(2, 4, 8)
    settings = MetricLossSettings(distance="squared_euclidean", normalise=False, scale=1.0)
    found = metric_loss(settings)(torch.cat([photos, tiles]), pairs.relations(some, 0.05, "all"))
    each = []
    for one, other in ((photos, tiles), (tiles, photos)):
        for a in range(4):
            for n in range(4):
                if n != a:
                    near, far = ((one[a] - other[i]).square().sum() for i in (a, n))
                    each.append(torch.log1p((near - far).exp()))
    torch.testing.assert_close(found, torch.stack(each).mean())
    info = metric_loss(MetricLossSettings(kind="info_nce", temperature=0.5))
    found = info(torch.cat([photos, tiles]), pairs.relations(some, 0.05, "all"))
    scores = functional.normalize(photos) @ functional.normalize(tiles).T / 0.5
    wanted = sum(functional.cross_entropy(one, torch.arange(4)) for one in (scores, scores.T)) / 2
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augmentation": {"flip": True}}, r"cross_view\.augmentation\.flip must be false"),
        ({"rotation_range": 60}, r"cross_view\.rotation_range must be"),
        ({"kind": "hybrid"}, r"cross_view\.select_by must be verification_accuracy or last"),
        ({"kind": "hybrid", "select_by": "last", "mining": {"by": "embedding"}}, r"cross_view\.mining\.by must be"),
        ({"towers": "shared_last_layer", "embedding_size": None}, r"cross_view\.embedding_size must be a number"),
        ({"search": {"rotations": 1, "matching": "average"}}, r"cross_view\.search\.rotations must be 4 or 16"),
        ({"search": {"rotations": 8}}, r"cross_view\.search\.rotations must be"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(CrossViewSettings, values, "cross_view")


def test_training_refuses_what_does_not_fit(world: Any, tmp_path: Path) -> None:
    pools, pairs, validation = world
    with pytest.raises(TrainingError, match=r"cross_view\.batch_size must be at most 40"):
        train(world, tmp_path, replace(SETTINGS, batch_size=64))
    with pytest.raises(TrainingError, match="other settings"):
        train_cross_view(network(), pools, pairs, validation, replace(SETTINGS, polar=True), 5, tmp_path)
