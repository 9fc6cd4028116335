"""A build whose networks run as exported graphs: what is written, told and refused, and that torch says the same."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import mlflow.models.cli
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from geoloc.models import photo_network
from geoloc.models.classifier import load_model
from geoloc.models.engine import ExportedNetwork
from geoloc.models.export import export_network
from geoloc.models.graph import Graph
from geoloc.models.prediction import predict_probabilities
from geoloc.photos.catalog import read_catalog
from geoloc.photos.decoding import decode_rgb
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings, extract_embeddings
from orchestration.assets import photo_embedder
from orchestration.assets.inputs import read_photos, stored, with_pixels
from orchestration.lineage.build import Build
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE, output_folder
from orchestration.stores.tracking import tracking_uri
from orchestration.workspace import Workspace
from tests.pipeline.conftest import build_without_report, copy_workspace, facts, geoloc

pytestmark = pytest.mark.slow

RECIPE = {
    "model": {"backbone": "squeezenet1_1", "image_size": 64},
    "training": {"epochs": 1},
    "localizers": {"coverages": [0.5, 0.9]},
    "evaluation": {"explained": 0},
}
"""A network that is exported in a few seconds."""
REDUCED = RECIPE | {
    "embeddings": {
        "models": ["classifier"],
        "layer": {"name": "features.9", "pooling": "average"},
        "pca": {"dimensions": 16},
    },
    "localizers": {"neighbours": {"methods": ["levels", "product"]}},
}


@pytest.fixture(scope="module")
def made(original, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = copy_workspace(original, tmp_path_factory.mktemp("exported") / "w")
    (workspace.recipes / "onnx.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("orchestration.assets.exporting.export_network", export_network)
        assert build_without_report(workspace, "onnx") == 0
    return workspace


@pytest.fixture
def changed(made: Workspace, tmp_path) -> Workspace:
    """A copy, free to change."""
    shutil.copytree(made.root, tmp_path / "w", symlinks=True)
    return Workspace.open(tmp_path / "w")


def write_photo(workspace: Workspace, folder) -> str:
    """The bytes of a stored photo as a file."""
    row = read_catalog(workspace.pool).dropna(subset=["shard"]).iloc[0]
    with ShardReader(workspace.pool) as reader:
        data = reader.read(row["shard"], int(row["offset"]), int(row["length"]))
    (folder / "photo.jpg").write_bytes(data)
    return str(folder / "photo.jpg")


def located(workspace: Workspace, photo: str, capsys, *options: str, recipe: str = "onnx") -> dict:
    capsys.readouterr()
    assert geoloc(workspace, "locate", "--recipe", recipe, "--json", *options, photo) == 0
    return json.loads(capsys.readouterr().out)[0]


def located_without_torch(
    workspace: Workspace, photo: str, methods: list[str], recipe: str = "onnx"
) -> list[dict]:
    """The answers of a new process by each method, which fails if it imported what takes seconds."""
    script = """
import sys
from orchestration.cli import main
*command, methods = sys.argv[1:]
for method in methods.split():
    if main([*command, "--method", method]):
        sys.exit(1)
    print("---")
sys.exit(", ".join({"torch", "sklearn", "dagster", "mlflow"} & set(sys.modules)) or None)
"""
    command = ["--workspace", str(workspace.root), "locate", "--recipe", recipe, "--json", photo]
    done = subprocess.run(
        [sys.executable, "-c", script, *command, " ".join(methods)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(printed)[0] for printed in done.stdout.split("---\n")[:-1]]


def test_graphs_answer_as_torch_does_and_the_facts_name_the_engine(
    made: Workspace, tmp_path, capsys, monkeypatch
) -> None:
    for stage in ("features", "embeddings", "evaluation"):
        assert facts(made, "onnx", stage)["engine"].value.startswith("ONNX Runtime ")
        assert facts(made, "default", stage)["engine"].value.startswith("torch ")
    for stage in ("features", "classifier"):
        assert facts(made, "onnx", stage)["exported graph"].value.startswith(f"{GRAPH_FILE}, outputs within")
        assert facts(made, "default", stage)["exported graph"].value == "none: the tests save its time"
        assert not (output_folder(made, "default", stage) / GRAPH_FILE).exists()

    build = Build(made, "onnx")
    embeddings = Embeddings.load(build.folder("embeddings"))
    photos = with_pixels(made.pool, stored(read_photos(build.folder("splits")))).head(32)
    torchs = extract_embeddings(
        load_model(build.folder("classifier") / MODEL_FILE),
        made.pool,
        photos,
        tmp_path / "torch",
        build.settings.embeddings,
    )
    assert torchs.vectors.std() > 0.001
    np.testing.assert_allclose(embeddings.subset(torchs.photo_ids).vectors, torchs.vectors, atol=2e-3)

    photo = write_photo(made, tmp_path)
    ways = ([], ["--method", "nn"], ["--method", "nn", "--model", "backbone"])
    by_graph = [located(made, photo, capsys, *way) for way in ways]
    for module in (photo_network, photo_embedder):
        monkeypatch.setattr(
            module,
            "open_photo_network",
            lambda graph, load, *rest, **more: photo_network.TorchNetwork(load()),
        )
    for way, graphs in zip(ways, by_graph, strict=True):
        answer = located(made, photo, capsys, *way)
        assert (answer["latitude"], answer["longitude"]) == (graphs["latitude"], graphs["longitude"])
        assert answer["confidence"] == pytest.approx(graphs["confidence"], abs=1e-4)


def test_an_export_is_made_in_the_same_bytes_and_its_failure_is_told(
    changed: Workspace, capsys, monkeypatch
) -> None:
    again = ("build", "--recipe", "onnx", "--only", "features", "--force", "--no-commit")
    before = Build(changed, "onnx").record("features")
    assert before.files[GRAPH_FILE]
    capsys.readouterr()
    assert geoloc(changed, *again) == 0
    told = capsys.readouterr()
    assert "warning: torch runs this network, because it cannot be exported to ONNX: the tests" in (
        told.out + told.err
    )
    assert facts(changed, "onnx", "features")["engine"].value.startswith("torch ")
    assert GRAPH_FILE not in Build(changed, "onnx").record("features").files
    monkeypatch.setattr("orchestration.assets.exporting.export_network", export_network)
    assert geoloc(changed, *again) == 0
    assert Build(changed, "onnx").record("features").files == before.files


@pytest.mark.parametrize(
    ("stage", "options"), [("classifier", []), ("features", ["--method", "nn", "--model", "backbone"])]
)
def test_locate_refuses_a_graph_that_is_not_the_recorded_one(
    changed: Workspace, tmp_path, capsys, stage: str, options: list[str]
) -> None:
    graph = output_folder(changed, "onnx", stage) / GRAPH_FILE
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.unlink()
    graph.write_bytes(data)
    photo = write_photo(changed, tmp_path)
    capsys.readouterr()
    assert geoloc(changed, "locate", "--recipe", "onnx", *options, photo) == 1
    assert f"onnx/{stage} is not what its record says" in capsys.readouterr().err


def test_one_photo_is_located_without_torch(made: Workspace, tmp_path, capsys) -> None:
    photo, methods = write_photo(made, tmp_path), ["class", "knn"]
    answers = located_without_torch(made, photo, methods)
    assert answers == [located(made, photo, capsys, "--method", method) for method in methods]


def test_a_layer_and_its_components_answer_without_torch_and_are_served(
    changed: Workspace, tmp_path, capsys, monkeypatch
) -> None:
    (changed.recipes / "reduced.yaml").write_text(yaml.safe_dump(REDUCED))
    monkeypatch.setattr("orchestration.assets.exporting.export_network", export_network)
    assert build_without_report(changed, "reduced") == 0
    assert Build(changed, "reduced").record("classifier").taken_from == "onnx/classifier"
    photo = write_photo(changed, tmp_path)
    methods = ["nn", "neighbours", "combined"]
    answers = located_without_torch(changed, photo, methods, recipe="reduced")
    assert answers == [
        located(changed, photo, capsys, "--method", method, recipe="reduced") for method in methods
    ]
    assert all(answer["nearby"]["neighbours"] for answer in answers)
    nearest = answers[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(changed))
    mlflow.set_tracking_uri(tracking_uri(changed))
    model = mlflow.pyfunc.load_model("models:/geoloc-reduced/1")
    served = model.predict(pd.DataFrame({"photo": [photo]}), params={"method": "nn"})
    assert served.loc[0, "method"] == nearest["method"]
    assert (served.loc[0, "latitude"], served.loc[0, "longitude"]) == (
        pytest.approx(nearest["latitude"]),
        pytest.approx(nearest["longitude"]),
    )


def test_the_evaluation_and_locate_have_equal_probabilities_to_the_bit(made: Workspace) -> None:
    build = Build(made, "onnx")
    file = build.folder("classifier") / GRAPH_FILE
    photos = with_pixels(made.pool, stored(read_photos(build.folder("splits")))).head(20)
    with ShardReader(made.pool) as reader:
        pixels = [
            decode_rgb(reader.read(row.shard, int(row.offset), int(row.length)))
            for row in photos.itertuples()
        ]
    graph = Graph.open(file, 1)
    evaluated, _ = predict_probabilities(ExportedNetwork(graph), made.pool, photos, 8, crops=5)
    asked = photo_network.GraphNetwork(graph).probabilities(pixels, 8, crops=5)
    assert evaluated["fine"].tobytes() == asked["fine"].tobytes()


def test_mlflow_serves_the_build_for_photos(made: Workspace, tmp_path, capsys) -> None:
    photo = write_photo(made, tmp_path)
    expected = located(made, photo, capsys)
    encoded = base64.b64encode(Path(photo).read_bytes()).decode()
    rows = [[encoded], [photo], ["data:image/jpeg;base64," + encoded], ["no photo!"]]
    request = {"dataframe_split": {"columns": ["photo"], "data": rows}}
    mlflow.set_tracking_uri(tracking_uri(made))
    client = mlflow.MlflowClient()
    (version,) = client.search_model_versions("name = 'geoloc-onnx'")
    run = client.get_run(version.run_id)
    assert version.run_id == Build(made, "onnx").record("evaluation").mlflow_run
    assert any(name.startswith("test/") for name in run.data.metrics)
    logged = version.source.removeprefix("models:/")
    for words in ("models:/geoloc-onnx/1", f"models:/{logged}", f"mlflow/artifacts/models/{logged}"):
        assert geoloc(made, "audit", "--json", words) == 0
        assert json.loads(capsys.readouterr().out)["artefact"] == "onnx/evaluation"
    description = mlflow.models.get_model_info("models:/geoloc-onnx/1")
    assert description.signature.inputs.input_names() == ["photo"]
    assert description.signature.outputs.input_names()[:4] == ["latitude", "longitude", "place", "confidence"]

    def check(answers: list[dict]) -> None:
        assert len(answers) == 4
        for answer in answers[:3]:
            for name in ("latitude", "longitude", "place", "method"):
                assert answer[name] == expected[name]
            assert answer["confidence"] == pytest.approx(expected["confidence"], abs=1e-6)
            assert [one["weight"] for one in answer["alternatives"]] == pytest.approx(
                [one["weight"] for one in expected["alternatives"]], abs=1e-6
            )
            assert [one["tokens"] for one in answer["region"]] == [
                one["tokens"] for one in expected["regions"]
            ]
        assert answers[3]["latitude"] is None
        assert "neither a file nor base64" in answers[3]["error"]

    (tmp_path / "request.json").write_text(json.dumps(request))
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking_uri(made)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", tracking_uri(made))
        model = mlflow.pyfunc.load_model("models:/geoloc-onnx/1")
        # Bytes, and another method, with the index that travels with it.
        nearest = model.predict(pd.DataFrame({"photo": [Path(photo).read_bytes()]}), params={"method": "nn"})
        by_nn = located(made, photo, capsys, "--method", "nn")
        assert nearest.loc[0, "method"] == by_nn["method"]
        assert nearest.loc[0, "latitude"] == pytest.approx(by_nn["latitude"])
        command = [
            "predict",
            "-m",
            "models:/geoloc-onnx/1",
            "-i",
            str(tmp_path / "request.json"),
            "-t",
            "json",
        ]
        command += ["-o", str(tmp_path / "answers.json"), "--env-manager", "local"]
        done = CliRunner().invoke(mlflow.models.cli.commands, command)
        assert done.exit_code == 0, done.output
    check(json.loads((tmp_path / "answers.json").read_text())["predictions"])

    description_text = (made.mlflow / "artifacts" / "models" / logged / "artifacts" / "MLmodel").read_text()
    assert str(made.root) not in description_text  # a copied workspace would point back here
    stored_files = [path for path in (made.mlflow / "artifacts" / "models").rglob("*") if path.is_file()]
    assert not [path for path in stored_files if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["serve", "-m", "models:/geoloc-onnx/1", "-p", str(port), "--env-manager", "local", "-w", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", *command],
        env=environment, cwd=tmp_path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=(tmp_path / "serve.log").open("w"),
    )  # fmt: skip
    try:
        ask = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        )
        check(json.loads(_when_up(ask, server))["predictions"])
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _when_up(request: urllib.request.Request, server: subprocess.Popen) -> bytes:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return urllib.request.urlopen(request, timeout=120).read()
        time.sleep(0.5)
    raise AssertionError("the server did not answer")
