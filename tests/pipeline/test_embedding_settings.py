"""Embeddings by a layer, reduced to components, and another program's beside them: built, measured, asked."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from geoloc.evaluation.result import Evaluation
from geoloc.models.classifier import load_model
from geoloc.models.layers import LayerEmbedder
from geoloc.models.prediction import unit_embeddings_of_pixels
from geoloc.models.settings import LayerSettings
from geoloc.photos.catalog import read_catalog
from geoloc.photos.decoding import decode_rgb
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.sphere import distance_km, unit_vectors
from orchestration.lineage.build import Build
from orchestration.plan.chain import MODEL_FILE
from tests.pipeline.conftest import build_without_report, facts, geoloc
from tests.pipeline.traces import Sought, traces

RECIPE = {
    "embeddings": {
        "models": ["classifier"],
        "dtype": "float32",
        "layer": {"name": "features.9", "pooling": "average"},
        "pca": {"dimensions": 16},
        "external": {"name": "Place", "file": "features/place.parquet"},
    },
    "localizers": {"neighbours": {"methods": ["levels", "product"]}, "coverages": [0.5]},
    "evaluation": {"explained": 0},
}


def test_from_settings_to_answers(workspace, tmp_path, capsys):
    catalog = read_catalog(workspace.pool)
    places = unit_vectors(catalog["latitude"], catalog["longitude"])
    (workspace.root / "features").mkdir()
    table = pd.DataFrame({"photo_id": catalog["photo_id"], "place": list(places)}).iloc[2:]
    table.to_parquet(workspace.root / "features" / "place.parquet")
    file = workspace.recipes / "special.yaml"
    recipe = yaml.safe_load(yaml.safe_dump(RECIPE))
    recipe["embeddings"]["layer"]["name"] = "features.99"
    file.write_text(yaml.safe_dump(recipe))
    assert geoloc(workspace, "build", "--recipe", "special", "--no-commit") == 1
    assert (
        "embeddings.layer.name must be a layer of mobilenet_v3_small, got 'features.99'; its layers are"
        in (capsys.readouterr().err)
    )
    for key in ("training", "metric", "cross_view"):
        own = {key: {"trainable_blocks": 99} | ({"mode": "fine_tune"} if key == "training" else {})}
        if key == "cross_view":
            own[key] |= {"model": {"image_size": 64, "resize_short_side": 64, "weights": "none"}}
        file.write_text(yaml.safe_dump(RECIPE | own))
        assert geoloc(workspace, "build", "--recipe", "special", "--no-commit") == 1
        named = rf"{key}\.trainable_blocks must be 0 to \d+, got 99, the number of blocks of "
        assert re.search(named, capsys.readouterr().err)
    build = Build(workspace, "special")
    assert build.record("splits") is None  # nothing was built
    file.write_text(yaml.safe_dump(RECIPE))
    assert build_without_report(workspace, "special") == 0
    capsys.readouterr()
    build = Build(workspace, "special")

    # By the layer, and its components.
    assert facts(workspace, "special", "embeddings")["dimensions"].value == 16
    folder = build.folder("embeddings")
    embeddings, pca = Embeddings.load(folder), Pca.load(folder / PCA_FILE)
    assert embeddings.vectors.shape[1] == 16
    asked = Evaluation.load(build.folder("evaluation") / "test").per_photo
    row = asked.query("method == '[L]NN' and status == 'answered'").iloc[0]
    photo = catalog.set_index("photo_id").loc[row.photo_id]
    with ShardReader(workspace.pool) as reader:
        data = reader.read(photo["shard"], int(photo["offset"]), int(photo["length"]))
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(data)
    network = LayerEmbedder(
        load_model(build.folder("classifier") / MODEL_FILE), LayerSettings(**RECIPE["embeddings"]["layer"])
    )
    vectors = unit_embeddings_of_pixels(network, [decode_rgb(data)], 1)
    np.testing.assert_allclose(
        pca.transform(vectors)[0], embeddings.subset([row.photo_id]).vectors[0], atol=1e-3
    )
    capsys.readouterr()  # what the build said
    locate = ["locate", "--recipe", "special", "--method", "nn", "--json", str(picture)]
    assert geoloc(workspace, *locate) == 0
    answer = json.loads(capsys.readouterr().out)[0]
    assert (answer["latitude"], answer["longitude"]) == pytest.approx((row.latitude, row.longitude))

    # As chosen on validation photos, alone and with classes: the photo is found as the evaluation found it.
    for method, name in (("neighbours", "[L]kNN"), ("combined", "[L]")):
        of = asked[(asked["photo_id"] == row.photo_id) & (asked["status"] == "answered")]
        of = of[(of["method"] == name) | (method == "combined") & of["method"].str.match(r"\[L\]\d+C\+kNN$")]
        assert geoloc(workspace, *locate[:4], method, *locate[5:]) == 0
        answer = json.loads(capsys.readouterr().out)[0]
        assert answer["method"] == of["method"].item()
        assert (answer["latitude"], answer["longitude"]) == pytest.approx(
            (of["latitude"].item(), of["longitude"].item())
        )
    assert {"[Place]kNN", "[Place]NN"} <= set(asked["method"])

    # By another program's: the nearest reference by place is the nearest on the Earth.
    assert facts(workspace, "special", "external_embeddings")["photos"].value == len(table)
    splits = pd.read_parquet(build.folder("splits") / "splits.parquet")
    references = splits[(splits["split"] == "train") & splits["photo_id"].isin(table["photo_id"])]
    found = asked.query("method == '[Place]NN' and status == 'answered'")
    assert len(found) >= len(asked.query("method == '[L]NN' and status == 'answered'")) - 2
    for one in found.itertuples():
        km = distance_km(
            one.true_latitude, one.true_longitude, references["latitude"], references["longitude"]
        )
        assert one.error_km == pytest.approx(km.min(), abs=10)  # cosines are float32
    assert geoloc(workspace, "audit", "special/external_embeddings") == 0
    assert "external" in capsys.readouterr().out

    # A take-down: the photo leaves all of these, and what was chosen on validation photos goes on.
    gone = next(one for one in references["photo_id"] if one != row.photo_id)
    place = catalog.set_index("photo_id").loc[gone]
    with ShardReader(workspace.pool) as reader:
        data = reader.read(place["shard"], int(place["offset"]), int(place["length"]))
    sought = Sought(gone, data, float(place["latitude"]), float(place["longitude"]))
    chosen = [*locate[:4], "neighbours", "--json", str(picture)]
    assert geoloc(workspace, *chosen) == 0
    before = json.loads(capsys.readouterr().out)[0]
    assert geoloc(workspace, "forget", "--photo", gone, "--reason", "asked", "--gc", "cache") == 0
    told = capsys.readouterr().out
    assert "special/embeddings (1 of them)" in told
    assert "remove their rows from: features/place.parquet" in told
    assert {one.partition(":")[0] for one in traces(workspace.root, sought)} == {"features/place.parquet"}
    assert geoloc(workspace, *chosen) == 0
    after = json.loads(capsys.readouterr().out)[0]
    assert [after[name] for name in ("method", "scaled", "within_km")] == [
        before[name] for name in ("method", "scaled", "within_km")
    ]
    assert (after["regions"] is None) == (before["regions"] is None)

    # Components that are not those of the record do not answer.
    (folder / PCA_FILE).unlink()
    assert geoloc(workspace, *locate) == 1
    assert "pca.safetensors was changed or removed" in capsys.readouterr().err
