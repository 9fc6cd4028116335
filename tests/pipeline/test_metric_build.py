"""A recipe with a metric network, built: its rows, its place in report, Dagster and MLflow, and answers by it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from geoloc.models.metric import load_metric_network
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from orchestration.lineage.build import Build
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE, TRAINING_FILE
from tests.pipeline.conftest import facts, geoloc

METRIC = {"epochs": 2, "batch_size": 16, "images_per_group": 4, "embedding_size": 24, "device": "cpu"}


def test_a_metric_network_from_training_to_answers(workspace, tmp_path, capsys):
    values = {"metric": {"name": "R2", **METRIC}}
    (workspace.recipes / "ranked.yaml").write_text(yaml.safe_dump(values))
    assert geoloc(workspace, "build", "--recipe", "ranked", "--no-commit") == 0
    assert "epoch 2: loss " in capsys.readouterr().err
    build = Build(workspace, "ranked")
    assert build.built("classifier").taken_from == "default/classifier"  # equal, so not trained again
    model = load_metric_network(build.folder("metric") / MODEL_FILE)
    classifier = Build(workspace).built("classifier").files[MODEL_FILE]
    assert model.initial_weights == f"sha256:{classifier}"
    history = read_json(build.folder("metric") / TRAINING_FILE, dict)["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2]

    # Measured beside the others, by its own embeddings and index.
    evaluation = Evaluation.load(build.folder("evaluation") / "test")
    rows = ["[R2]NN", "[R2]kNN σ=1", "[R2]kNN σ=4", "[R2]kNN σ=16"]
    assert evaluation.methods[-4:] == rows
    assert "[L]NN" in evaluation.methods
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
    checks = read_json(build.checks_path("metric_embeddings"), None)
    assert "embeddings_suite" in json.dumps(checks)
    assert geoloc(workspace, "audit", "ranked/metric") == 0
    told = capsys.readouterr().out
    assert "default/classifier" in told or "ranked/classifier" in told

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

    # Trained again, it is the same to the byte; what is there was not rebuilt for another name.
    before = build.built("metric")
    assert not (build.folder("metric") / GRAPH_FILE).exists()  # the tests export nothing
    assert geoloc(workspace, "build", "--recipe", "ranked", "--only", "metric", "--force", "--no-commit") == 0
    again = Build(workspace, "ranked").built("metric")
    assert again.started_at != before.started_at or again.mlflow_run != before.mlflow_run
    assert again.files == before.files
