"""The neighbours of a few photos and their density, saved for the report and drawn."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.explaining.neighbourhoods import Neighbourhoods, neighbourhoods
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.files import DamagedFile
from geoloc.localizers.by_neighbour import DensityLocalizer
from geoloc.reports.neighbour_figures import neighbourhood_figure
from geoloc.reports.thoughts import gather_thoughts
from geoloc.retrieval.density import density_at, kernel_density, neighbour_weights
from geoloc.retrieval.index import ReferenceIndex
from tests.photo_fixtures import jpeg
from tests.unit.indexed import clustered


@pytest.fixture(scope="module")
def world():
    embeddings, rows = clustered(120, seed=2)
    index = ReferenceIndex.build(embeddings, rows.iloc[:100])
    queries = rows.iloc[100:].reset_index(drop=True)
    localizer = DensityLocalizer(index, k=30, sigma=4.0)
    answers = localizer.locate(embeddings.vectors[100:])
    evaluation = evaluate(
        {localizer.name: answers}, queries, settings=EvaluationSettings(resamples=10), seed=1
    )
    found = neighbourhoods(
        evaluation, localizer.name, localizer.settings, queries, 8,
        lambda positions: index.search(embeddings.vectors[100:][positions], 30),
    )  # fmt: skip
    return evaluation, queries, found


def test_the_best_and_the_worst_are_shown_with_the_neighbours_that_placed_them(world, tmp_path):
    evaluation, _, found = world
    errors = evaluation.per_photo.sort_values("error_km")["error_km"].to_numpy()
    assert len(found.photos) == 3
    assert found.photos["error_km"].to_numpy()[0] == pytest.approx(errors[0])
    assert found.photos["error_km"].to_numpy()[-1] == pytest.approx(errors[-1])
    for photo in found.photos.itertuples():
        mine = found.neighbours[found.neighbours["photo_id"] == photo.photo_id]
        assert mine["rank"].tolist() == list(range(1, 31))
        assert mine["weight"].sum() == pytest.approx(1)
        density = density_at(
            mine["latitude"], mine["longitude"], mine["latitude"], mine["longitude"], mine["weight"], 4.0
        )
        best = mine.iloc[int(density.argmax())]
        assert (best["latitude"], best["longitude"]) == pytest.approx((photo.latitude, photo.longitude))
    found.save(tmp_path)
    again = Neighbourhoods.load(tmp_path)
    assert (again.method, again.sigma) == (found.method, found.sigma)
    pd.testing.assert_frame_equal(again.neighbours, found.neighbours)
    pd.testing.assert_frame_equal(again.photos, found.photos)
    (tmp_path / "neighbourhoods.json").write_text("{}")
    with pytest.raises(DamagedFile):
        Neighbourhoods.load(tmp_path)


def test_density_anywhere_is_that_at_the_neighbours():
    rng = np.random.default_rng(3)
    lat, lon = rng.uniform(-90, 90, (2, 50)), rng.uniform(-180, 180, (2, 50))
    weights = neighbour_weights(rng.uniform(0, 0.9, (2, 50)), 10.0)
    at = kernel_density(lat, lon, weights, 6.0)
    for q in range(2):
        np.testing.assert_allclose(
            density_at(lat[q], lon[q], lat[q], lon[q], weights[q], 6.0), at[q], rtol=1e-12
        )


def test_the_figure_has_a_row_per_photo_and_the_report_shows_it(world):
    evaluation, _, found = world
    data = neighbourhood_figure(found, {str(one): jpeg(i) for i, one in enumerate(found.photos["photo_id"])})
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert width > 1.5 * height
    # The stars of the answers are red, the neighbours blue, the truth a green ring.
    for colour in ((163, 22, 26), (10, 79, 143), (18, 128, 92)):
        assert (np.abs(pixels - colour).sum(axis=2) < 40).any(), colour
    assert len(data) < 150_000
    groups = gather_thoughts(evaluation, None, None, lambda photo_id: jpeg(1), found)
    assert "Neighbours and their density" in [group.title for group in groups]
    with pytest.raises(ValueError, match="nothing to show"):
        neighbourhood_figure(Neighbourhoods("m", 4.0, found.photos[:0], found.neighbours[:0]), {})
