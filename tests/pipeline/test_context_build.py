"""A recipe with models of time and albums, built: its rows, tables and figures."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import yaml

from geoloc.evaluation.diagnostics import Diagnostics
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from geoloc.models.stored_probabilities import StoredProbabilities
from orchestration.assets.context_answers import ALONE, COMPARED
from orchestration.lineage.build import Build
from orchestration.plan.chain import TRAINING_FILE
from tests.pipeline.conftest import geoloc

SMALL = {"epochs": 2, "batch_size": 8}
RECIPE = {
    "splits": {"context": {"share": 0.25}},
    "training": {"epochs": 1},
    "embeddings": {"models": ["classifier"]},
    "localizers": {"sigmas": []},
    "evaluation": {"explained": 0},
    "time": {**SMALL, "network": {"hidden": 16}, "daylight": True},
    "albums": {
        "networks": {
            "LSTM": {**SMALL, "network": {"hidden": 8}, "train_on": "all"},
            "M3": {
                **SMALL, "network": {"hidden": 8, "kind": "bidirectional"}, "inputs": "top_cells", "length": 24,
                "sequences": {"by": "user", "clock": "posted"}, "one_per_group": True,
            },
        }
    },
}  # fmt: skip


def test_models_of_time_and_albums_from_training_to_answers(workspace, capsys):
    (workspace.recipes / "together.yaml").write_text(yaml.safe_dump(RECIPE))
    assert geoloc(workspace, "build", "--recipe", "together", "--no-commit") == 0
    said = capsys.readouterr().err
    assert "M3: epoch 2: loss " in said
    build = Build(workspace, "together")

    # Probabilities are of photos that the classifier has not seen.
    stored = StoredProbabilities.load(build.folder("class_probabilities"))
    assert set(stored.photos.loc[stored.photos["row"] < 0, "split"]) == {"train"}
    assert {"context", "validation", "test"} <= set(stored.photos.loc[stored.photos["row"] >= 0, "split"])
    assert "class_probabilities_suite" in json.dumps(read_json(build.checks_path("class_probabilities")))

    # A network learns from the split context, or from that and train.
    counts = stored.photos["split"].value_counts()
    trained = read_json(build.folder("album_models") / TRAINING_FILE, dict)
    assert trained["M3"]["photos"] == counts["context"]
    assert trained["LSTM"]["photos"] == counts["context"] + counts["train"]

    # Rows beside the others, of the same photos.
    evaluation = Evaluation.load(build.folder("evaluation") / "test")
    cells = stored.cells
    rows = [
        f"[L]{one} {cells}C"
        for one in ("M2", "time prior", "daylight", "album average", "user average", "HMM")
    ]
    assert [one for one in evaluation.methods if one in rows] == rows
    assert {f"[L]LSTM {cells}C", f"[L]M3 {cells}C"} <= set(evaluation.methods)
    found = Diagnostics.load(build.folder("evaluation") / "test").tables
    compared = found[COMPARED].set_index(["method", "photos"])
    single = compared.loc[(f"[L]{cells}C", "all")]
    assert (single["mean_km_less_single"], single["n"]) == (0, evaluation.queries)
    accuracy = evaluation.per_photo[evaluation.per_photo["method"] == f"[L]{cells}C"]["error_km"].mean()
    assert single["mean_km"] == np.float64(accuracy).round(10)
    # What has no album, or no time, is answered as a single photo.
    alone = found[ALONE]
    of_average = alone[alone["method"] == f"[L]album average {cells}C"]
    lonely = set(of_average["reason"])
    assert lonely <= {"no album", "the only photo of its album or person"}
    photos = stored.photos.set_index("photo_id")
    asked = evaluation.per_photo[["photo_id"]].drop_duplicates()["photo_id"]
    in_album = photos.loc[asked].groupby(["photographer", "source", "album"])["split"].transform("size")
    by_itself = (in_album == 1) | photos.loc[asked, "album"].isna()
    assert of_average["photos"].sum() == by_itself.sum()
    _same_for_alone(evaluation, f"[L]album average {cells}C", f"[L]{cells}C", by_itself)

    # In the report.
    page = (build.folder("report") / "report.html").read_text()
    for text in ("Tracks of albums", "When photos are posted", f"[L]M3 {cells}C"):
        assert text in page
    # Logged, audited, and the same to the byte when trained again.
    before = build.built("album_models")
    assert before.mlflow_run in page
    capsys.readouterr()
    assert geoloc(workspace, "audit", "together/album_models") == 0
    assert "together/class_probabilities" in capsys.readouterr().out
    only = ("--only", "album_models", "--force", "--no-commit")
    assert geoloc(workspace, "build", "--recipe", "together", *only) == 0
    again = Build(workspace, "together").built("album_models")
    assert (again.mlflow_run != before.mlflow_run, again.files) == (True, before.files)


def _same_for_alone(evaluation: Evaluation, method: str, single: str, alone: pd.Series) -> None:
    """Photos that are alone have the answer of the single photo."""
    rows = {
        name: table.set_index("photo_id").loc[list(alone.index[alone])]
        for name, table in evaluation.per_photo.groupby("method")
        if name in (method, single)
    }
    np.testing.assert_allclose(rows[method]["error_km"], rows[single]["error_km"])
