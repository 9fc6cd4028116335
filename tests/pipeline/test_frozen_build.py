"""Classifiers on frozen features in a build: what is measured, written and told, and which claims it binds."""

from __future__ import annotations

import dataclasses

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from geoloc.evaluation.result import Evaluation
from geoloc.localizers.frozen.svm import FrozenSvm
from geoloc.retrieval.embeddings import Embeddings
from orchestration.assets.inputs import load_partitions, read_photos
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.lineage.stale import stale_stages
from orchestration.plan.chain import STAGES, output_folder
from orchestration.results.claims import claims
from tests.pipeline.conftest import geoloc


def change(workspace, **sections):
    params = workspace.root / "params.yaml"
    params.write_text(yaml.safe_dump(yaml.safe_load(params.read_text()) | sections))


def test_frozen_features_are_measured_told_and_bound_to_claims(workspace, capsys):
    frozen = {"kinds": ["svm", "knn"], "k": 3, "c": 1000, "max_iterations": 1}
    change(workspace, localizers={"calibrate": True, "frozen": frozen})
    assert geoloc(workspace, "build", "--only", "evaluation", "--no-commit") == 0
    assert "has not converged in 1 iterations" in capsys.readouterr().err
    folder = output_folder(workspace, "default", "evaluation")
    evaluation = Evaluation.load(folder / "test")
    partition = load_partitions(output_folder(workspace, "default", "partition"))["fine"]
    svm, knn = (f"[backbone]{approach} {partition.cell_count}C" for approach in ("SVM", "kNN"))
    assert evaluation.methods[-2:] == [svm, knn]
    assert "not converged" in evaluation.descriptions[svm]

    # The votes of the three nearest training photos, counted by hand, name the cell of every test photo.
    embeddings = Embeddings.load(output_folder(workspace, "default", "features"))
    photos = read_photos(output_folder(workspace, "default", "splits"))
    photos = photos[photos["photo_id"].isin(embeddings.photo_ids)]
    photos["cell"] = partition.assign(photos["latitude"], photos["longitude"])
    vectors = dict(zip(embeddings.photo_ids, embeddings.vectors.astype(np.float64), strict=True))
    known = photos[(photos["split"] == "train") & (photos["cell"] >= 0)]
    space = np.stack([vectors[photo] for photo in known["photo_id"]])
    answered = evaluation.per_photo.query("method == @knn and status == 'answered'")
    assert len(answered) == (photos["split"] == "test").sum() > 30
    for row in answered.itertuples():
        near = np.argsort(np.linalg.norm(space - vectors[row.photo_id], axis=1), kind="stable")[:3]
        cell = np.bincount(known["cell"].to_numpy()[near]).argmax()
        assert (row.latitude, row.longitude) == pytest.approx(tuple(partition.centroids()[cell]))

    assert not (folder / "frozen-fine-knn.safetensors").exists()  # it would be the embeddings once more
    assert not FrozenSvm.load(folder / "frozen-fine-svm.safetensors").converged
    assert (folder / "frozen-fine-svm-temperature.json").is_file()
    assert {svm, knn} <= set(pd.read_csv(folder / "test" / "top_k.csv")["method"])
    workspace.set_environment()
    with dg.DagsterInstance.get() as instance:
        made = instance.get_latest_materialization_event(dg.AssetKey(["default", "evaluation"]))
    shown = made.asset_materialization.metadata["classifiers on frozen features"].md_str
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()]
    by_name = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows}
    assert (by_name[svm]["photos"], by_name[svm]["converged"]) == (str(len(known)), "no")

    # A network whose head alone learned is not fine-tuned; that is read off what was built, not off what is set now.
    change(workspace, training={"mode": "fine_tune", "epochs": 2, "batch_size": 16})
    assert not {"fine-tuned", "frozen SVM"} & set(claims(workspace).roles)
    path = Build(workspace).record_path("classifier")
    record = Record.read(path)
    training = {**record.settings["training"], "mode": "fine_tune"}
    dataclasses.replace(record, settings={**record.settings, "training": training}).write(path)
    report = claims(workspace)
    notes = report.table.set_index("claim")["note"]
    assert "random weights" in notes["an SVM beats kNN on frozen features"]
    assert notes.str.contains("random weights").sum() == 2
    roles = {role: str(choice) for role, choice in report.roles.items()}
    assert (roles["frozen SVM"], roles["frozen kNN"]) == (f"default:{svm}", f"default:{knn}")
    assert roles["fine-tuned"] == f"default:{evaluation.methods[0]}"
    accuracy = evaluation.accuracy.query("level == 'city'").set_index("method")["accuracy"]
    table = report.table.set_index("claim")["difference"]
    assert table["fine-tuning beats an SVM on frozen features"] == pytest.approx(
        accuracy[evaluation.methods[0]] - accuracy[svm]
    )
    assert table["an SVM beats kNN on frozen features"] == pytest.approx(accuracy[svm] - accuracy[knn])


def test_frozen_features_need_embeddings_of_the_first_weights(bare_workspace, capsys):
    change(bare_workspace, localizers={"frozen": {"kinds": ["knn"]}}, embeddings={"models": ["classifier"]})
    assert geoloc(bare_workspace, "build") == 1
    assert "localizers.frozen.kinds knn needs backbone in embeddings.models, got classifier" in (
        capsys.readouterr().err
    )


def test_frozen_features_make_only_the_evaluation_stale(bare_workspace):
    change(bare_workspace, localizers={"frozen": {"kinds": ["svm"]}})
    assert list(stale_stages(Build(bare_workspace), set(STAGES))) == ["evaluation", "report"]
