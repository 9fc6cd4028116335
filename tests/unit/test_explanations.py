"""Occlusion maps, the surest photos of a cell, and the figures of both, against loops and toy networks."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from geoloc.evaluation.explaining.confident import COLUMNS, most_confident_photos
from geoloc.evaluation.explaining.occlusion import occlusion_maps
from geoloc.reports.cell_figures import confident_figure, occlusion_figure, probability_map
from geoloc.reports.maps import world_axes
from geoloc.reports.photo_figures import fewer_colours
from geoloc.reports.style import drawing, new_figure, png

SIZE = 12


class LooksAtOnePatch(nn.Module):
    """Scores of 3 cells: cell 1 is likelier the redder rows 2 to 4, columns 7 to 9 are."""

    def __init__(self, wrap=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.03))
        self.wrap, self.batches = wrap, []
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        assert images.dtype == torch.uint8
        self.batches.append(len(images))
        red = images[:, 0, 2:5, 7:10].float().mean(dim=(1, 2)) * self.weight
        scores = self.dropout(torch.stack([torch.ones_like(red), red, torch.zeros_like(red)], dim=1))
        return self.wrap(scores) if self.wrap else scores


def photo():
    pixels = np.random.default_rng(0).integers(0, 100, (SIZE, SIZE, 3)).astype(np.uint8)
    pixels[2:5, 7:10, 0] = 250
    return pixels


def by_loop(pixels, top, left, window, grey=128):
    covered = pixels.astype(float).copy()
    covered[top : top + window, left : left + window] = grey
    scores = np.array([1.0, 0.03 * covered[2:5, 7:10, 0].mean(), 0.0])
    return np.exp(scores[1]) / np.exp(scores).sum()


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (4, 3), (5, 5), (12, 4)])
def test_the_map_is_a_loop_over_windows(window, stride):
    model = LooksAtOnePatch().train()
    pixels = photo()
    (found,) = occlusion_maps(model, pixels, [1], window, stride, batch_size=7)
    places = sorted({*range(0, SIZE - window + 1, stride), SIZE - window})
    assert found.tops.tolist() == found.lefts.tolist() == places
    expected = np.array([[by_loop(pixels, top, left, window) for left in places] for top in places])
    np.testing.assert_allclose(found.probability, expected, rtol=1e-5)
    assert found.whole == pytest.approx(by_loop(pixels, 0, 0, 0), rel=1e-5)
    for y in range(SIZE):
        for x in range(SIZE):
            over = [
                expected[i, j]
                for i, top in enumerate(places)
                for j, left in enumerate(places)
                if top <= y < top + window and left <= x < left + window
            ]
            assert found.pixels[y, x] == pytest.approx(np.mean(over), rel=1e-5)
    assert max(model.batches) <= 7
    assert model.training  # left as it was, though measured without dropout
    np.testing.assert_array_equal(pixels, photo())


def test_covering_what_counts_lowers_the_probability_most():
    (found,) = occlusion_maps(LooksAtOnePatch(), photo(), [1], 3, 1)
    assert np.unravel_index(found.pixels.argmin(), found.pixels.shape) == (3, 8)
    assert found.probability.min() == found.probability[2, 7] < 0.95 * found.whole
    assert found.pixels[11, 0] == pytest.approx(found.whole)
    (other,) = occlusion_maps(LooksAtOnePatch(), photo(), [0], 3, 1)
    assert other.probability.max() == other.probability[2, 7] > other.whole  # another cell gains


def test_a_network_with_several_heads_is_asked_for_one():
    model = LooksAtOnePatch(lambda scores: [scores.flip(1)[:, :2], scores])
    (plain,) = occlusion_maps(LooksAtOnePatch(), photo(), [1], 4, 2)
    (second,) = occlusion_maps(model, photo(), [1], 4, 2, head=1)
    np.testing.assert_allclose(second.probability, plain.probability)
    named = LooksAtOnePatch(lambda scores: {"coarse": scores})
    (coarse,) = occlusion_maps(named, photo(), [1], 4, 2, head="coarse")
    np.testing.assert_allclose(coarse.probability, plain.probability)
    with pytest.raises(ValueError, match="cell must be from 0 to 1, got 2"):
        occlusion_maps(model, photo(), [2], 4, 2)


def test_several_cells_are_read_in_one_pass_and_at_a_temperature():
    model = LooksAtOnePatch()
    one, two = occlusion_maps(model, photo(), [1, 2], 4, 2, temperature=2.0)
    assert sum(model.batches) == 1 + one.probability.size  # not once for each cell
    assert (one.cell, two.cell) == (1, 2)
    red = 0.03 * photo()[2:5, 7:10, 0].astype(float).mean()
    scores = np.exp(np.array([1.0, red, 0.0]) / 2.0)
    assert one.whole == pytest.approx(scores[1] / scores.sum(), rel=1e-5)
    assert two.whole == pytest.approx(scores[2] / scores.sum(), rel=1e-5)
    (alone,) = occlusion_maps(LooksAtOnePatch(), photo(), [2], 4, 2, temperature=2.0)
    np.testing.assert_array_equal(two.probability, alone.probability)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        occlusion_maps(model, photo(), [1], 4, 2, temperature=0)


def test_windows_that_cannot_slide_are_refused():
    for arguments, text in (
        ((photo(), [1], 13, 1), "window must be from 1 to 12, got 13"),
        ((photo(), [1], 4, 5), "stride must be from 1 to 4, got 5"),
        ((photo()[:, :8], [1], 4, 2), "photo must be uint8 of shape"),
        ((photo().astype(float), [1], 4, 2), "photo must be uint8 of shape"),
        ((photo(), [-1], 4, 2), "cell must be from 0 to 2, got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            occlusion_maps(LooksAtOnePatch(), *arguments)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        occlusion_maps(LooksAtOnePatch(), photo(), [1], 4, 2, batch_size=0)


# The surest photos of a cell


def surest():
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [np.nan, np.nan], [0.6, 0.4]]
    )
    photos = pd.DataFrame({"photo_id": list("gfedcba"), "photographer": ["x", "x", "y", "z", "x", "y", None]})
    cells = np.where(np.isnan(probabilities[:, 0]), -1, np.nan_to_num(probabilities).argmax(axis=1))
    return cells, probabilities.max(axis=1), photos


def test_the_surest_photos_of_a_cell_are_those_it_is_the_answer_of():
    cells, probability, photos = surest()
    found = most_confident_photos(cells, probability, photos, [1, 0], 3, true_cells=[0, 1, 0, 1, 1, 0, 0])
    assert found.dtypes.astype(str).to_dict() == COLUMNS
    assert found["cell"].tolist() == [1, 0, 0, 0]
    # x has two, the better counts: z comes before x's second, and the unreadable photo never does.
    assert found["photo_id"].tolist() == ["c", "g", "e", "d"]
    assert found["rank"].tolist() == [1, 1, 2, 3]
    assert found["right"].tolist() == [True, True, True, False]
    assert found["probability"].tolist() == [0.6, 0.9, 0.8, 0.7]
    more = most_confident_photos(cells, probability, photos, [0], 9)
    assert more["photo_id"].tolist() == ["g", "e", "f", "d", "a"]  # all of them, by probability, equals by id
    unknown = photos.assign(photographer=[None, None, "y", "z", "x", "y", None])  # not one photographer
    assert most_confident_photos(cells, probability, unknown, [0], 3)["photo_id"].tolist() == ["g", "e", "f"]
    nameless = most_confident_photos(cells, probability, photos.drop(columns="photographer"), [0], 2)
    assert nameless["photo_id"].tolist() == ["g", "e"]
    assert most_confident_photos(cells[:4], probability[:4], photos[:4], [1]).empty
    with pytest.raises(ValueError, match="count must be at least 1"):
        most_confident_photos(cells, probability, photos, [0], 0)
    with pytest.raises(ValueError, match="one each for 6 photos"):
        most_confident_photos(cells, probability, photos[:6], [0])


# Figures


class Squares:
    """Cells that are squares of twenty degrees; the second crosses the antimeridian."""

    cell_count = 3

    def rings(self, cell):
        def square(south, west, width=20.0):
            return np.array(
                [[south, west], [south, west + width], [south + 20, west + width], [south + 20, west]]
            )

        return [
            [square(0.0, 0.0)],
            [square(10.0, 170.0, 10.0), square(10.0, -180.0, 10.0)],
            [square(40.0, -100.0)],
        ][cell]


def jpeg(colour=(200, 30, 30), size=(64, 48)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, format="jpeg")
    return stream.getvalue()


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def reddish(data):
    image = pixels(data)
    return (np.abs(image - [200, 30, 30]).sum(axis=2) < 30).mean()


@pytest.mark.slow
def test_a_probability_map_draws_likely_cells_and_the_photo():
    p = np.array([0.6, 0.3999, 0.0001])
    plain = probability_map(Squares(), p)
    assert plain == probability_map(Squares(), p)
    image, height, width = pixels(plain), *pixels(plain).shape[:2]
    whole = pixels(probability_map(Squares(), np.array([0.0, 0.0, 1.0])))

    def at(picture, latitude, longitude):
        # Read off the map: the axes fill the width, longitudes -180 to 180.
        x = int((longitude + 180) / 360 * (width - 1))
        column = picture[: int(0.86 * height), min(max(x, 3), width - 4)]
        return column

    def differs(latitude, longitude):  # by more than what JPEG does to a colour
        return (np.abs(at(image, latitude, longitude) - at(whole, latitude, longitude)) > 60).any()

    assert differs(10, 10)
    assert differs(20, -175)  # both parts of the cell on the antimeridian
    assert differs(20, 175)
    assert differs(50, -90)  # too faint to be shown in one, likely in the other
    assert not differs(10, 60)
    with_photo = probability_map(Squares(), p, jpeg(), truth=(10.0, 10.0), answer=(50.0, -90.0))
    assert reddish(with_photo) > 0.02 > reddish(plain)
    assert with_photo != probability_map(Squares(), p, jpeg(), truth=(10.0, 10.0))
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(2,\)"):
        probability_map(Squares(), p[:2])
    with pytest.raises(ValueError, match="NaN or all 0"):
        probability_map(Squares(), np.full(3, np.nan))


@pytest.mark.slow
def test_the_figure_of_surest_photos_shows_them_and_says_which_have_no_bytes():
    cells, probability, photos = surest()
    table = most_confident_photos(cells, probability, photos, [0, 1], 3)
    none = confident_figure(Squares(), table, {})
    some = confident_figure(Squares(), table, {"g": jpeg(), "c": jpeg()}, {0: "<here> $x$"})
    assert reddish(some) > reddish(none) + 0.02
    assert some == confident_figure(Squares(), table, {"g": jpeg(), "c": jpeg()}, {0: "<here> $x$"})
    with pytest.raises(ValueError, match="no cell has a photo"):
        confident_figure(Squares(), table[:0], {})


def test_the_occlusion_figure_is_red_where_covering_costs():
    (found,) = occlusion_maps(LooksAtOnePatch(), photo(), [1], 3, 1)
    image = pixels(occlusion_figure(photo(), [("p1", found)]))
    right = image[:, image.shape[1] // 2 : int(0.85 * image.shape[1])]
    redness = right[..., 0] - right[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    assert y < 0.55 * image.shape[0]  # the upper half, to the right
    assert x > 0.4 * right.shape[1]
    assert redness.max() > 80
    by_bytes = occlusion_figure(jpeg(size=(SIZE, SIZE)), [("p1", found)])
    assert reddish(by_bytes) > 0.1
    two = occlusion_figure(photo(), [("p1", found), ("p2", found)])
    assert pixels(two).shape[1] > 1.4 * image.shape[1]
    assert two == occlusion_figure(photo(), [("p1", found), ("p2", found)])
    with pytest.raises(ValueError, match="at least one map"):
        occlusion_figure(photo(), [])


def test_fewer_colours_look_the_same_and_take_less_room():
    plain = drawn_map(np.linspace(0.0, 1.0, 400))
    few = fewer_colours(plain)
    assert few == fewer_colours(plain)
    assert len(few) < 0.7 * len(plain)
    difference = np.abs(pixels(few) - pixels(plain)).sum(axis=2)
    assert (difference > 60).mean() < 0.001
    assert difference.mean() < 3
    with Image.open(io.BytesIO(few)) as one, Image.open(io.BytesIO(plain)) as other:
        assert (one.mode, one.size, one.info["dpi"]) == ("P", other.size, other.info["dpi"])


def drawn_map(values):
    """A PNG of land with lines in many shades over it, as an error map has."""
    with drawing():
        figure = new_figure(6.0, 3.0)
        axes = world_axes(figure)
        for x in values[::20]:
            axes.plot([-180, 360 * x - 180], [80, -50], color=(x, 0.2, 1 - x), alpha=0.5)
        return png(figure)
