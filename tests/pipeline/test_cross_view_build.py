"""A recipe with a cross-view network, built: training, index, evaluation, claims, report, Dagster, MLflow."""

from __future__ import annotations

import re

import numpy as np
import yaml

from geoloc.evaluation.cross_view import CrossViewEvaluation
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex
from orchestration.assets.inputs import read_pair_table, read_photos
from orchestration.lineage.build import Build
from orchestration.plan.chain import MODEL_FILE, TRAINING_FILE
from tests.pipeline.conftest import facts, geoloc

RECIPE = {
    "cross_view": {
        "model": {"backbone": "squeezenet1_1", "resize_short_side": 32, "image_size": 32}, "embedding_size": 8,
        "splits": {"test": ["Taylors Lakes, AU", "Saint Petersburg, RU"], "validation": ["Bursa, TR"]},
        "epochs": 2, "batch_size": 8, "learning_rate": 1e-4, "select_by": "last",
        "orientation": {"hidden": 4}, "search": {"rotations": 4, "matching": "average"},
    },
    "evaluation": {"explained": 0},
}  # fmt: skip


def test_a_cross_view_network_from_training_to_report(workspace, capsys):
    (workspace.recipes / "above.yaml").write_text(yaml.safe_dump(RECIPE))
    assert geoloc(workspace, "build", "--recipe", "above", "--no-commit") == 0
    assert "epoch 2: loss " in capsys.readouterr().err
    build = Build(workspace, "above")
    history = read_json(build.folder("cross_view_model") / TRAINING_FILE, dict)["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2]

    pairs = read_pair_table(build.folder("pairs"))
    test = pairs[pairs["split"] == "test"]
    found = CrossViewEvaluation.load(build.folder("cross_view_evaluation"))
    assert set(found.pairs["pair_id"]) == set(test["pair_id"])
    index = OverheadIndex.open(build.folder("overhead_index"))
    assert set(index.ids) == set(test["overhead_id"])
    assert index.vectors.shape == (len(index), 1, 8)
    assert index.model == CrossViewEmbedder.open(build.folder("cross_view_model") / MODEL_FILE).model
    assert index.calibration is not None
    photos = np.array(index.vectors[:2, 0])
    assert index.search(photos, 1).position[:, 0].tolist() == [0, 1]

    together = Evaluation.load(build.folder("joint_evaluation"))
    splits = read_photos(build.folder("splits"))
    asked = set(test["photo_id"]) & set(splits.loc[splits["split"] == "test", "photo_id"])
    assert set(together.per_photo["photo_id"]) == asked, "the classifier has seen the others"
    assert "learnt" in together.protocol

    assert geoloc(workspace, "claims", "--cross-view") == 0
    out = capsys.readouterr().out
    assert (
        f"above: {len(asked)} photos that the photo classifier does not know; {len(test) - len(asked)} are"
        in out
    )
    assert f"{len(test)} test pairs" in out
    assert "| above" in out
    assert "not built" in out
    assert re.search(r"\| above +\| separate +\|", out), "by layer, with what the towers share"
    report = build.folder("report")
    assert set(read_json(report / "report.json", dict)["training"]) == {"classifier", "cross_view_model"}
    page = (report / "report.html").read_text()
    assert "Street photos and overhead tiles" in page
    assert "photo classifier and overhead tiles together" in page
    assert (report / "figures" / "cross-view-attention.png").is_file()
    assert build.built("cross_view_model").mlflow_run in page
    assert facts(workspace, "above", "overhead_index")["tiles"].value == len(index)
    assert geoloc(workspace, "audit", "above/cross_view_evaluation") == 0
    assert "above/cross_view_model" in capsys.readouterr().out
    assert geoloc(workspace, "audit", str(test["photo_id"].iloc[0])) == 0
    assert "query of above/cross_view_evaluation" in capsys.readouterr().out
    assert geoloc(workspace, "audit", min(asked)) == 0
    assert "query of above/joint_evaluation" in capsys.readouterr().out
    before = build.built("cross_view_model").content
    only = ("--only", "cross_view_model", "--force", "--no-commit")
    assert geoloc(workspace, "build", "--recipe", "above", *only) == 0
    assert Build(workspace, "above").built("cross_view_model").content == before, (
        "equal trainings, equal bytes"
    )
