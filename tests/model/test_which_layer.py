"""The study of layers on a small made-up collection: its networks, what it measures and how it is shown."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks import which_layer as benchmark
from geoloc.evaluation.measures.retrieval import recall_at_k
from geoloc.evaluation.retrieval_sets.by_class import cub_200_2011
from geoloc.evaluation.which_layer import (
    NETS,
    ImageFiles,
    Photos,
    layers_of,
    make_net,
    penultimate_gain,
    photos_of_set,
    recall_by_layer,
)
from geoloc.models.settings import ModelSettings

SETTINGS = ModelSettings(backbone="squeezenet1_1", image_size=48, resize_short_side=48, pooling="max")
NET = {net.name: net for net in NETS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Caltech-UCSD Birds in small: 3 classes to train on and 2 others, 6 images each, of a colour by class."""
    root = tmp_path_factory.mktemp("cub")
    rng = np.random.default_rng(1)
    names, labels = [], []
    for label in (1, 2, 3, 101, 102):
        colour = rng.integers(0, 255, 3)
        for i in range(6):
            pixels = np.clip(rng.normal(colour, 40, (56, 64, 3)), 0, 255).astype(np.uint8)
            path = root / "images" / f"{label:03}.bird" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
            names.append(path.relative_to(root / "images").as_posix())
            labels.append(label)
    for file, values in (("images", names), ("image_class_labels", labels)):
        (root / f"{file}.txt").write_text("".join(f"{i} {value}\n" for i, value in enumerate(values)))
    return root


def test_the_networks_are_the_dissertations():
    base = make_net(NET["NetA"], SETTINGS, 1, 16)
    others = {
        name: make_net(net, SETTINGS, 1, 16, 3 if "classes" in name else None) for name, net in NET.items()
    }
    names = {name: list(layers_of(model, NET[name], "max")) for name, model in others.items()}
    assert names["NetA"][-3:] == ["features.12", "pooling", "fc6"]
    assert names["NetD"][-1] == "pooling"
    assert names["NetE"][-3:] == ["pooling", "fc6", "fc7"]
    assert names["NetF"][-4:] == ["pooling", "fc6", "fc7", "fc8"]
    assert names["NetA-classes"] == names["NetE"]
    assert others["NetA-classes"].projection[2].out_features == 3
    last, first = "backbone.features.12.squeeze.weight", "backbone.features.0.weight"

    def same(name, key):
        return torch.equal(others[name].state_dict()[key], base.state_dict()[key])

    assert not same("NetB", last)
    assert same("NetB", first)
    assert same("NetE", last)
    images = torch.zeros((2, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        model = others["NetE"].eval()
        fc6 = layers_of(model, NET["NetE"], "max")["fc6"].embed(images)
        torch.testing.assert_close(model.projection[2](torch.relu(fc6)), model.embed(images))


def test_recall_of_all_layers_is_that_of_each(folder):
    photos = photos_of_set(cub_200_2011(folder), folder, train=False)
    model = make_net(NET["NetA"], SETTINGS, 1, 16).eval()
    layers = layers_of(model, NET["NetA"], "max")
    found = recall_by_layer(model, layers, ImageFiles(folder), photos, (1, 2))
    assert list(found) == list(layers)
    pixels = [np.asarray(Image.open(folder / name).convert("RGB")) for name in photos.rows["photo_id"]]
    images = torch.from_numpy(np.stack([model.preprocess.apply_uint8(one) for one in pixels])).permute(
        0, 3, 1, 2
    )
    for name in ("features.3", "fc6"):
        with torch.no_grad():
            x = torch.nn.functional.normalize(layers[name].embed(images)).numpy()
        assert found[name] == pytest.approx(recall_at_k(x, photos.classes, (1, 2)), abs=0.1)
    # Those of a group are not among a query's others.
    alone = Photos(photos.rows, photos.classes, (photos.classes,))
    assert set(recall_by_layer(model, layers, ImageFiles(folder), alone, (1,))["fc6"].values()) == {0.0}


def test_the_command_on_a_published_layout(folder, tmp_path, monkeypatch, capsys):
    arguments = [
        "--layout", "cub-200-2011", "--folder", str(folder), "--nets", "NetA,NetD,NetA-classes",
        "--backbone", "squeezenet1_1", "--weights", "none", "--image-size", "48",
        "--epochs", "1", "--classes", "2", "--images", "3", "--size", "8",
        "--figures", str(tmp_path / "figures"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["which_layer.py", *arguments])
    benchmark.main()
    shown = capsys.readouterr().out
    assert "train: 18 photos of 3 classes" in shown
    assert "test: 12 photos of 2 classes" in shown
    assert "NetA-classes: epoch 1, loss " in shown
    assert "| NetA         | fc6" in shown
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    assert files == {"recall.csv", *(f"figure-4.{n}.png" for n in range(2, 6))}
    table = pd.read_csv(tmp_path / "figures" / "recall.csv")
    assert set(table["epoch"]) == {0, 1}
    gain = penultimate_gain(table)
    assert gain["net"].tolist() == ["NetA", "NetA-classes"]
    one = table.query("net == 'NetA' and layer == 'fc6' and part == 'test' and epoch == 1 and k == 1")
    assert gain["test_last"].iloc[0] == one["recall"].item()
