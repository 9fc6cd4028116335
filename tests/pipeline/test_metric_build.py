"""A recipe with a metric network, built: its rows, its place in report, Dagster and MLflow, and answers by it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from geoloc.models.embedder import example_input
from geoloc.models.metric import load_metric_network
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from orchestration.lineage.build import Build
from orchestration.plan.chain import MODEL_FILE, TRAINING_FILE
from orchestration.results.gather import gather
from orchestration.stores.tracking import log_served_model, tracking_uri
from tests.pipeline.conftest import facts, geoloc

RECIPE = {
    "model": {"backbone": "squeezenet1_1", "image_size": 64},  # no batch norm, which few steps would not settle
    "training": {"epochs": 1},
    "metric": {
        "name": "R2", "epochs": 2, "batch_size": 16, "images_per_group": 4, "embedding_size": 24, "learning_rate": 1e-4,
    },
    "embeddings": {"models": []},  # those of the metric network alone
    "evaluation": {"explained": 0},
}  # fmt: skip


def test_a_metric_network_from_training_to_answers(workspace, tmp_path, capsys, monkeypatch):
    (workspace.recipes / "ranked.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setattr("orchestration.assets.metric.log_served_model", log_served_model)  # despite its 8 s
    assert geoloc(workspace, "build", "--recipe", "ranked", "--no-commit") == 0
    assert "epoch 2: loss " in capsys.readouterr().err
    build = Build(workspace, "ranked")
    model = load_metric_network(build.folder("metric") / MODEL_FILE)
    assert model.initial_weights == f"sha256:{build.built('classifier').files[MODEL_FILE]}"
    history = read_json(build.folder("metric") / TRAINING_FILE, dict)["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2]

    # Measured beside the others, by its own embeddings and index.
    evaluation = Evaluation.load(build.folder("evaluation") / "test")
    rows = ["[R2]NN", "[R2]kNN σ=1", "[R2]kNN σ=4", "[R2]kNN σ=16"]
    assert evaluation.methods[-4:] == rows
    embeddings = Embeddings.load(build.folder("metric_embeddings"))
    assert embeddings.vectors.shape[1] == 24
    asked = evaluation.per_photo.query("method == '[R2]NN' and status == 'answered'").iloc[0]
    index = ReferenceIndex.load(build.folder("index") / "metric")
    nearest = index.search(embeddings.subset([asked.photo_id]).vectors.astype(np.float32), 1)
    assert (asked.latitude, asked.longitude) == (nearest.latitude[0, 0], nearest.longitude[0, 0])

    # In the report, Dagster and MLflow.
    report = build.folder("report")
    shown = read_json(report / "report.json", dict)
    assert set(shown["training"]) == {"classifier", "metric"}
    page = (report / "report.html").read_text()
    assert "[R2]kNN σ=4" in page
    assert build.built("metric").mlflow_run in page
    assert facts(workspace, "ranked", "metric")["epochs"].value == 2
    assert facts(workspace, "ranked", "metric_embeddings")["dimensions"].value == 24
    checks = read_json(build.checks_path("metric_embeddings"))
    assert "embeddings_suite" in json.dumps(checks)
    assert geoloc(workspace, "audit", "ranked/metric") == 0
    assert "ranked/classifier" in capsys.readouterr().out

    # `geoloc locate` answers as the evaluation did.
    catalog = read_catalog(workspace.pool).set_index("photo_id").loc[asked.photo_id]
    with ShardReader(workspace.pool) as reader:
        data = reader.read(catalog["shard"], int(catalog["offset"]), int(catalog["length"]))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(data)
    locate = ["locate", "--recipe", "ranked", "--method", "nn", "--model", "metric", "--json", str(photo)]
    assert geoloc(workspace, *locate) == 0
    answer = json.loads(capsys.readouterr().out)[0]
    assert answer["method"] == "[R2]NN"
    assert (answer["latitude"], answer["longitude"]) == pytest.approx((asked.latitude, asked.longitude))

    # Claims know the network, by what was recorded.
    (workspace.recipes / "ranked.yaml").write_text(yaml.safe_dump({**RECIPE, "metric": {"start": "none"}}))
    (one,) = gather(workspace, "test", ["ranked"])
    assert one.ranked is not None
    assert (one.ranked.name, one.ranked.batch_size, one.ranked.from_classifier) == ("R2", 16, True)
    assert gather(workspace, "test", ["default"])[0].ranked is None
    (workspace.recipes / "ranked.yaml").write_text(yaml.safe_dump(RECIPE))

    # MLflow serves its embeddings.
    import mlflow  # seconds

    mlflow.set_tracking_uri(tracking_uri(workspace))
    pixels = example_input(model, batch_size=3)
    served = mlflow.pyfunc.load_model(f"runs:/{build.built('metric').mlflow_run}/model").predict(
        pixels.numpy()
    )
    with torch.inference_mode():
        np.testing.assert_allclose(served, functional.normalize(model.embed(pixels)).numpy(), atol=1e-5)
    monkeypatch.setattr("orchestration.assets.metric.log_served_model", lambda *arguments: "")

    # Another network starts from it, with its projection.
    metric = {
        **RECIPE["metric"],
        "start": "recipe:ranked/metric",
        "positives": {"kind": "radius"},
        "epochs": 1,
    }
    (workspace.recipes / "next.yaml").write_text(yaml.safe_dump({**RECIPE, "metric": metric}))
    capsys.readouterr()
    only = ("--only", "splits", "metric", "--no-commit")
    assert geoloc(workspace, "build", "--recipe", "next", *only) == 0
    first = build.built("metric").files[MODEL_FILE]
    assert f"from sha256:{first}" in capsys.readouterr().err
    assert geoloc(workspace, "audit", "next/metric") == 0
    assert "ranked/metric" in capsys.readouterr().out

    # Trained again, it is the same to the byte.
    before = build.built("metric")
    assert geoloc(workspace, "build", "--recipe", "ranked", "--only", "metric", "--force", "--no-commit") == 0
    again = Build(workspace, "ranked").built("metric")
    assert again.mlflow_run != before.mlflow_run
    assert again.files == before.files
