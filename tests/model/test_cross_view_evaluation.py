"""Cross-view networks measured on test pairs, indexed and asked: as brute force says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from geoloc.evaluation.cross_view import (
    ALIGNED,
    CrossViewEvaluation,
    evaluate_cross_view,
    method_names,
)
from geoloc.evaluation.measures.overhead import ALL, PENULTIMATE
from geoloc.files import DamagedFile
from geoloc.localizers.by_overhead.calibration import Calibration, calibrate
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex, make_index
from geoloc.localizers.by_overhead.joint import locate_jointly, log_priors
from geoloc.localizers.by_overhead.localizer import locate_by_overhead
from geoloc.models.cross_view import CrossViewNetwork, build_cross_view, save_cross_view
from geoloc.models.settings import ModelSettings
from geoloc.settings import replace
from geoloc.training.cross_view import embed_pairs, shape_of
from geoloc.training.cross_view_pairs import PairSource
from geoloc.training.cross_view_settings import (
    CrossViewSettings,
    OrientationSettings,
    OverheadSearchSettings,
)
from tests.model.cross_view_world import SIDE, Stored, made, tile_with_wedge

SETTINGS = CrossViewSettings(
    model=ModelSettings(backbone="squeezenet1_1", resize_short_side=SIDE, image_size=SIDE),
    embedding_size=12, orientation=OrientationSettings(hidden=8), rotation_range=90,
)  # fmt: skip
CALIBRATION = Calibration(1.0, 4.0, 0.2, 30.0, 60.0, 9)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(settings: CrossViewSettings = SETTINGS) -> CrossViewNetwork:
    return build_cross_view(settings.model, shape_of(settings), 1).eval()


def sources(model: CrossViewNetwork, count: int = 14) -> list[PairSource]:
    """Test pairs, one without heading and one with an unreadable tile, and validation pairs."""
    pools = Stored(), Stored()
    found = [made(count, 7, *pools, headless=1, cities=2), made(8, 8, *pools, cities=1)]
    pools[1].photos[3] = b"broken"
    return [PairSource(*pools, pairs, model, None, None, 0.0, 0, 1, True) for pairs in found]


def test_methods_are_measured_as_brute_force_does() -> None:
    model = network()
    test, validation = sources(model)
    found = evaluate_cross_view(test, validation, SETTINGS, 3)
    assert list(dict.fromkeys(found.pairs["method"])) == method_names(SETTINGS)
    photos, tiles = embed_pairs(model, test, 4, 64)
    rows = found.pairs[found.pairs["method"] == "4 rotations"].reset_index(drop=True)
    for city in ("city 0", "city 1"):
        at = np.flatnonzero(test.pairs.rows["city"] == city)
        for pair in at:
            each = np.array([((photos[pair] - tiles[other]) ** 2).sum(axis=1).min() for other in at])
            own = each[np.flatnonzero(at == pair)[0]]
            wanted = len(at) if np.isnan(own) else (each <= own + 1e-6).sum()
            assert rows.loc[pair, "rank"] == wanted
            assert rows.loc[pair, "candidates"] == len(at)
            best = at[np.nanargmin(each)]
            assert rows.loc[pair, "metres"] == pytest.approx(abs(best - pair) * 1111.95, abs=3)
    assert rows.loc[3, "rank"] == 7, "a tile that cannot be read is last"
    assert rows["heading_error"].isna().tolist() == [True, False, False, True, *[False] * 10]
    every = found.scores[found.scores["group"] == ALL]
    recall = every[(every["method"] == "4 rotations") & (every["measure"] == "R@1")]["value"].item()
    assert recall == pytest.approx((rows["rank"] == 1).mean())
    aligned = found.pairs[found.pairs["method"] == ALIGNED]
    assert aligned["heading_error"].isna().all(), "it was told the heading"
    assert aligned["rank"].iloc[0] == 7, "without a heading there is no aligned tile"


def test_the_penultimate_layer_is_ranked_by_its_own_features() -> None:
    model = network()
    test, validation = sources(model)
    found = evaluate_cross_view(test, validation, SETTINGS, 3).pairs
    rows = found[found["method"] == PENULTIMATE].reset_index(drop=True)
    features = []
    with torch.inference_mode():
        for tower, images in zip(model.towers, _pictures(test), strict=True):
            features.append(torch.nn.functional.normalize(tower(images)).numpy())
    at = np.array([0, 2, 4, 6, 8, 10, 12])
    assert (test.pairs.rows["city"].iloc[at] == "city 0").all()
    for pair in at:
        each = ((features[0][pair] - features[1][at]) ** 2).sum(axis=1)
        assert rows.loc[pair, "rank"] == (each <= each[at == pair] + 1e-6).sum()
    assert rows["heading_found"].isna().all(), "it has no orientation head"
    last = found[found["method"] == "1 rotation"]["distance"]
    assert not np.allclose(rows["distance"].dropna(), last.dropna())
    settings = replace(SETTINGS, embedding_size=None)
    assert PENULTIMATE not in method_names(settings), "there the features are the embedding"


def _pictures(source: PairSource) -> list[torch.Tensor]:
    """Photos and tiles of a source as its network sees them; 0 where one cannot be read."""
    found = []
    for batches in (source.photos(np.arange(len(source)), 64, 0), source.tiles(np.arange(len(source)), 64)):
        (batch,) = list(batches)
        images = torch.zeros(len(source), *batch.images.shape[1:])
        images[torch.from_numpy(batch.row_indices)] = source.model.preprocess.normalise(batch.images)
        found.append(images)
    return [found[0], source.model.seen(found[1], torch.zeros(len(source)))]


def test_more_rotations_are_never_farther() -> None:
    test, validation = sources(network())
    found = evaluate_cross_view(test, validation, SETTINGS, 3).pairs.set_index("method")["distance"]
    one, four, sixteen = (found[f"{count} rotation{'s' * (count > 1)}"].to_numpy() for count in (1, 4, 16))
    good = np.isfinite(one)
    assert (sixteen[good] <= four[good] + 1e-6).all()
    assert (four[good] <= one[good] + 1e-6).all()


@pytest.mark.parametrize("kind", ["classification", "hybrid"])
def test_networks_that_score_pairs_are_verified_only(kind: str, tmp_path: Any) -> None:
    settings = replace(SETTINGS, kind=kind, select_by="last")
    test, validation = sources(network(settings))
    found = evaluate_cross_view(test, validation, settings, 3)
    assert set(found.scores["measure"]) == {
        "verification, best threshold",
        "verification, validation's threshold",
    }
    found.save(tmp_path)
    again = CrossViewEvaluation.load(tmp_path)
    pd.testing.assert_frame_equal(again.scores, found.scores)
    save_cross_view(tmp_path / "model.safetensors", test.model)
    with pytest.raises(ValueError, match=r"cross_view\.kind must be embedding"):
        CrossViewEmbedder.open(tmp_path / "model.safetensors")


def indexed(
    search: OverheadSearchSettings, settings: CrossViewSettings = SETTINGS, count: int = 9
) -> tuple[OverheadIndex, CrossViewEmbedder, list[np.ndarray]]:
    embedder = CrossViewEmbedder(network(settings), "hash")
    numbers = np.random.default_rng(2)
    pictures = [
        tile_with_wedge(numbers.uniform(0, 255, 3), numbers.uniform(0, 360)).astype(np.uint8)
        for _ in range(count)
    ]
    tiles = pd.DataFrame(
        {"overhead_id": [f"t{i}" for i in range(count)], "latitude": 50.0, "longitude": np.arange(count) * 0.01,
         "metres_per_pixel": 1.0}
    )  # fmt: skip
    vectors = embedder.tiles(pictures, search.rotations)
    return make_index(embedder, tiles, vectors, search, CALIBRATION), embedder, pictures


@pytest.mark.parametrize("matching", ["best", "sequence", "average"])
def test_a_saved_index_is_searched_exactly(matching: str, tmp_path: Any) -> None:
    index, _, _ = indexed(OverheadSearchSettings(rotations=4, matching=matching))
    index.save(tmp_path / "index")
    again = OverheadIndex.open(tmp_path / "index")
    asked = np.random.default_rng(3).normal(size=(5, 12)).astype(np.float32)
    asked[4] = np.nan
    found = again.search(asked, 20)
    assert found.position.shape == (5, 9)
    for q in range(4):
        each = ((asked[q] - index.vectors) ** 2).sum(axis=2).min(axis=1)
        assert found.position[q].tolist() == np.argsort(each, kind="stable").tolist()
        assert found.distance[q] == pytest.approx(np.sort(each), rel=1e-4)
    assert (found.position[4] == -1).all()
    assert again.calibration == CALIBRATION
    assert index.vectors.shape[1] == (1 if matching == "average" else 4)
    with pytest.raises(ValueError, match="12 dimensions"):
        again.search(np.zeros((1, 5), np.float32), 3)
    np.save(tmp_path / "index" / "vectors.npy", np.zeros((2, 4, 12), np.float32))
    with pytest.raises(DamagedFile, match=r"vectors\.npy is damaged: .*2, 4, 12"):
        OverheadIndex.open(tmp_path / "index")


@pytest.mark.parametrize("matching", ["best", "average"])
def test_answers_have_place_heading_and_how_sure_they_are(matching: str) -> None:
    index, embedder, _ = indexed(OverheadSearchSettings(rotations=4, matching=matching))
    # A photo whose embedding is that of a tile is at that tile.
    photos = np.array(index.vectors[[2, 5], 0])
    found = locate_by_overhead(index, embedder, photos, k=3)
    assert found.longitude == pytest.approx([0.02, 0.05])
    assert found.candidate[:, 0].tolist() == [2, 5]
    assert found.inside.all()
    assert ((found.heading >= 0) & (found.heading < 360)).all()
    assert found.probability[:, 0] == pytest.approx(found.probability.max(axis=1))
    assert found.heading_error == 30.0
    assert (found.radius_km >= 0).all()
    far = locate_by_overhead(index, embedder, photos + 50, k=3)
    assert not far.inside.any()
    assert np.isnan([far.latitude, far.longitude, far.heading, far.radius_km]).all(), "never a guess"
    assert (far.candidate == -1).all()
    unreadable = locate_by_overhead(index, embedder, np.full((1, 12), np.nan, np.float32))
    assert not unreadable.inside.any()


def test_an_index_of_another_network_is_refused() -> None:
    index, embedder, _ = indexed(OverheadSearchSettings(rotations=1))
    with pytest.raises(ValueError, match="build the index again"):
        locate_by_overhead(index, CrossViewEmbedder(embedder.network, "other"), np.zeros((1, 12), np.float32))


def test_the_photo_classifier_leaves_only_likely_tiles() -> None:
    index, embedder, _ = indexed(OverheadSearchSettings(rotations=1))
    cell = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1])
    priors = log_priors(np.array([[0.05, 0.75, 0.2]]), cell, mass=0.9)
    assert np.isneginf(priors[0, [0, 1, 2, 8]]).all()
    assert priors[0, 3] == pytest.approx(np.log(0.75 / 3))
    assert priors[0, 6] == pytest.approx(np.log(0.2 / 2))
    photo = np.array(index.vectors[[1], 0])
    assert locate_by_overhead(index, embedder, photo).candidate[0, 0] == 1
    joint = locate_by_overhead(index, embedder, photo, k=9, log_prior=priors)
    assert set(joint.candidate[0]) == {3, 4, 5, 6, 7, -1}

    class Thirds:
        def assign(self, latitude: Any, longitude: Any) -> np.ndarray:
            return np.floor(np.asarray(longitude) / 0.03 + 1e-9).astype(np.int64)

    found = locate_jointly(index, embedder, photo, np.array([[0.1, 0.9, 0.0]]), Thirds(), k=9)  # type: ignore[arg-type]
    assert set(found.candidate[0]) == {3, 4, 5, -1}
    assert np.isneginf(log_priors(np.full((1, 3), np.nan), cell)).all()
    assert np.isfinite(log_priors(np.array([[1.0, 0, 0]]), cell, mass=1.0)).sum() == 3


def test_the_calibration_is_that_of_validation_pairs(tmp_path: Any) -> None:
    numbers = np.random.default_rng(0)
    apart = numbers.uniform(2, 3, (40, 40)).astype(np.float32)
    np.fill_diagonal(apart, numbers.uniform(0, 1, 40))
    found = calibrate(apart, apart[0, 1:], np.array([10.0, -20.0, np.nan, 30.0]))
    assert found is not None
    assert 1 < found.threshold < 2
    assert np.quantile(np.diagonal(apart), 0.9) < found.reach < 1
    assert found.heading_error == 20
    assert found.temperature < 0.5, "tiles that are always right make sure answers"
    noise = numbers.uniform(0, 1, (40, 40)).astype(np.float32)
    unsure = calibrate(noise, noise[0, 1:], np.full(40, np.nan))
    assert unsure is not None
    assert unsure.temperature > 10 * found.temperature
    assert unsure.heading_error is None
    assert calibrate(np.full((3, 3), np.inf, np.float32), noise[0], np.zeros(3)) is None
    found.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == found
