"""A build whose networks run as exported graphs: what is written, told and refused, and that torch says the same."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml

from geoloc.models import engine
from geoloc.models.classifier import load_model
from geoloc.models.export import export_network
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings, extract_embeddings
from orchestration.assets import photo_embedder
from orchestration.assets.inputs import read_photos, stored, with_pixels
from orchestration.lineage.build import Build
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE, output_folder
from orchestration.workspace import Workspace
from tests.pipeline.conftest import copy_workspace, facts, geoloc

pytestmark = pytest.mark.slow

RECIPE = {"model": {"backbone": "squeezenet1_1", "image_size": 64}, "training": {"epochs": 1}}
"""A network that is exported in a few seconds."""


@pytest.fixture(scope="module")
def made(original, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = copy_workspace(original, tmp_path_factory.mktemp("exported") / "w")
    (workspace.recipes / "onnx.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("orchestration.assets.exporting.export_network", export_network)
        assert geoloc(workspace, "build", "--recipe", "onnx", "--no-commit") == 0
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


def located(workspace: Workspace, photo: str, capsys, *options: str) -> dict:
    capsys.readouterr()
    assert geoloc(workspace, "locate", "--recipe", "onnx", "--json", *options, photo) == 0
    return json.loads(capsys.readouterr().out)[0]


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
    for module in (engine, photo_embedder):
        monkeypatch.setattr(module, "ready_network", lambda graph, load, *rest, **more: load())
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
