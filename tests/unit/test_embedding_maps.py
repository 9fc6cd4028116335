"""Pictures of embeddings: what t-SNE and units show on made-up embeddings, and their figures."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geoloc.evaluation.explaining.embedding_maps import exciting_photos, tsne_map
from geoloc.reports.embedding_figures import embedding_groups, place_colours, tsne_figure


def test_a_map_keeps_those_together_that_are_alike():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 20)
    x = (np.eye(6)[groups] * 5 + rng.normal(0, 0.1, (60, 6))).astype(np.float16)
    ids = [f"p{i}" for i in range(60)]
    found = tsne_map(x, ids, 100, 1)
    assert found["photo_id"].tolist() == ids
    places = found[["x", "y"]].to_numpy()
    apart = np.linalg.norm(places[:, None] - places, axis=2) + np.diag(np.full(60, np.inf))
    assert (groups[apart.argmin(axis=1)] == groups).all()
    pd.testing.assert_frame_equal(found, tsne_map(x, ids, 100, 1))
    some = tsne_map(x, ids, 30, 1)
    assert len(some) == 30
    assert set(some["photo_id"]) < set(ids)
    assert tsne_map(x[:5], ids[:5], 100, 1).empty
    assert tsne_map(np.ones((9, 4)), ids[:9], 100, 1).empty  # t-SNE would crash the process
    assert len(tsne_map(x[[0] * 30 + [20] * 30], ids, 100, 1)) == 60


def test_the_photos_that_excite_a_unit():
    x = np.zeros((40, 3), dtype=np.float32)
    x[:, 0] = np.linspace(0, 1, 40)
    x[[5, 6, 7], 1] = (0.9, 0.8, 0.7)
    owners = [f"o{i}" for i in range(40)]
    owners[6] = "o5"
    found = exciting_photos(x, [f"p{i}" for i in range(40)], owners, units=2, photos=3)
    assert found["unit"].tolist() == [1] * 3 + [0] * 3  # unit 1 stands out; unit 2 never changes
    assert found["rank"].tolist() == [1, 2, 3] * 2
    assert found["photo_id"].tolist()[:2] == ["p5", "p7"]  # one a photographer
    assert found["photo_id"].tolist()[3:] == ["p39", "p38", "p37"]
    assert exciting_photos(x[:0], [], [], 2).empty


def test_their_figures():
    colours = place_colours([0, 0, 0, 80], [179.9, -179.9, 0, 0])
    assert np.abs(colours[0] - colours[1]).max() < 0.01 < np.abs(colours[0] - colours[2]).max()
    places = pd.DataFrame(
        {"photo_id": ["a", "b"], "x": [0, 1], "y": [1, 0], "latitude": [3, -70], "longitude": [9, 8]}
    )
    units = pd.DataFrame({"unit": [7, 7], "rank": [1, 2], "photo_id": ["a", "b"], "value": [1.0, 0.5]})
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "JPEG")
    pictures = {"a": stream.getvalue()}.get
    groups = embedding_groups({"L": places, "R": places[:0]}, {"L": units}, pictures)
    assert [[figure.name for figure in group.figures] for group in groups] == [["tsne-1"], ["units-1"]]
    assert all(
        Image.open(io.BytesIO(figure.data)).width > 200 for group in groups for figure in group.figures
    )
    assert embedding_groups({}, {}, pictures) == ()
    with pytest.raises(ValueError, match="needs photos"):
        tsne_figure(places[:0])
