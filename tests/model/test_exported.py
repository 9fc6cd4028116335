"""Networks exported as ONNX graphs: they give what torch gives, in equal bytes, and torch takes over without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from geoloc.evaluation.explaining.occlusion import occlusion_maps
from geoloc.files import DamagedFile, sha256_bytes
from geoloc.models.batches import decode, iter_batches
from geoloc.models.classifier import Classifier, build_classifier, load_model, save_model
from geoloc.models.engine import ExportedNetwork, engine_name, ready_network
from geoloc.models.export import ExportError, _check_same_cells, difference, export_network
from geoloc.models.graph import Graph
from geoloc.models.metric import build_metric_network
from geoloc.models.prediction import (
    predict_probabilities,
    predict_probabilities_of_pixels,
    unit_embeddings,
    unit_embeddings_of_pixels,
)
from geoloc.models.settings import ModelSettings
from geoloc.retrieval.embeddings import extract_embeddings
from geoloc.retrieval.settings import EmbeddingSettings
from tests.model.training_world import PLAIN, world

pytestmark = pytest.mark.slow  # an export takes seconds

HEADS = {"fine": 4, "coarse": 2}
PARENTS = {"fine": np.array([0, 1, 1, 0])}
SAME = PLAIN.model_copy(update={"padding": "tensorflow_same", "pooling": "gem", "softmax": "hierarchical"})
"""Its strided convolutions are padded on one side only: exported carelessly, they look one pixel away. Its scores are
made with the parents of its cells."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(settings: ModelSettings = SAME, seed: int = 3) -> Classifier:
    model = build_classifier(settings, HEADS, seed=seed, parents=PARENTS).eval()
    with torch.no_grad():
        model.head.weight *= 30  # so that it is not equally unsure of all cells
    return model


def photos_of(model: Classifier) -> torch.Tensor:
    pool, train, _ = world()
    (batch,) = iter_batches(pool, train, model.preprocess, 32)
    return batch.images


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the classifier stage leaves it."""
    folder = tmp_path_factory.mktemp("exported")
    torch.set_num_threads(1)
    model = made()
    save_model(folder / "model.safetensors", model)
    weights = sha256_bytes((folder / "model.safetensors").read_bytes())
    assert export_network(model, folder / "network.onnx", photos_of(model), weights) < 1e-5
    return folder


def ready(folder: Path, precision: str = "float32") -> Any:
    file = folder / "model.safetensors"
    return ready_network(folder / "network.onnx", lambda: load_model(file), file, precision)


class ByHead(torch.nn.Module):
    """A network with scores by head, as explanations ask it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.network.split(self.network(images))


def test_the_graph_answers_as_torch_does_on_photos(exported: Path) -> None:
    pool, rows, _ = world()
    photos = [decode(pool.photos[position]) for position in rows["offset"]]
    graph, model = ready(exported), made()
    assert isinstance(graph, ExportedNetwork)
    assert engine_name(graph).startswith("ONNX Runtime")
    assert engine_name(model).startswith("torch")
    assert graph.preprocess == model.preprocess
    graph.check_heads(HEADS)
    for crops in (1, 5):
        found, unreadable = predict_probabilities(graph, pool, rows, 4, crops=crops)
        wanted, _ = predict_probabilities(model, pool, rows, 4, crops=crops)
        again = predict_probabilities_of_pixels(graph, photos, 4, crops)
        assert not len(unreadable)
        for name in HEADS:
            assert wanted[name].std() > 0.01
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
            assert (found[name].argmax(axis=1) == wanted[name].argmax(axis=1)).all()
            assert found[name].tobytes() == again[name].tobytes()
    vectors = unit_embeddings_of_pixels(graph, photos, 4)
    np.testing.assert_allclose(vectors, unit_embeddings_of_pixels(model, photos, 4), atol=1e-5)
    from_pool = unit_embeddings(graph, iter_batches(pool, rows, graph.preprocess, 4))
    assert vectors.tobytes() == b"".join(found["vectors"].tobytes() for _, found in from_pool if found)
    photo = graph.preprocess.apply_uint8(photos[0])
    for seen, expected in zip(
        *(occlusion_maps(ByHead(network), photo, [0, 3], 8, 4, head="fine") for network in (graph, model)),
        strict=True,
    ):
        np.testing.assert_allclose(seen.probability, expected.probability, atol=1e-5)


def test_equal_networks_give_equal_bytes_that_name_no_file_of_this_installation(
    exported: Path, tmp_path: Path
) -> None:
    model = made().to(memory_format=torch.channels_last).train()
    weights = sha256_bytes((exported / "model.safetensors").read_bytes())
    export_network(model, tmp_path / "again.onnx", photos_of(model)[:3], weights)
    assert model.training  # left as it was
    data = (tmp_path / "again.onnx").read_bytes()
    assert data == (exported / "network.onnx").read_bytes()
    assert b".py" not in data


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "foreign", "format"])
def test_a_damaged_graph_is_an_error_that_names_the_file(exported: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(exported, tmp_path / "w")
    path = tmp_path / "w" / "network.onnx"
    data = path.read_bytes()
    proto = onnx.load_from_string(data)
    if damage == "foreign":
        del proto.metadata_props[:]
    if damage == "format":
        proto.metadata_props[0].value = proto.metadata_props[0].value.replace('"format": 1', '"format": 2')
    path.write_bytes(
        {"empty": b"", "cut": data[: len(data) // 2], "noise": b"no graph" * 99}.get(
            damage, proto.SerializeToString()
        )
    )
    with pytest.raises(DamagedFile, match=r"network.onnx is damaged: [^\n]+$"):
        ready(tmp_path / "w")


def test_torch_runs_what_the_graph_does_not_stand_for(exported: Path, tmp_path: Path) -> None:
    assert isinstance(ready(exported, "bfloat16"), Classifier)
    shutil.copytree(exported, tmp_path / "w")
    save_model(tmp_path / "w" / "model.safetensors", made(seed=4))
    assert isinstance(ready(tmp_path / "w"), Classifier)
    (tmp_path / "w" / "network.onnx").unlink()  # as in a build of before there were graphs
    assert isinstance(ready(tmp_path / "w"), Classifier)


def test_torch_runs_networks_where_there_is_a_gpu(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    moved: list[str] = []
    monkeypatch.setattr(Classifier, "to", lambda model, device: moved.append(device) or model)
    assert isinstance(ready(exported), Classifier)
    assert moved == ["cuda"]


def test_a_graph_that_differs_from_torch_is_refused(exported: Path) -> None:
    graph, model = Graph.open(exported / "network.onnx", 1), made()
    photos = photos_of(model)
    assert difference(graph, model, photos) < 1e-5
    with pytest.raises(ExportError, match="its features differ from torch's by"):
        difference(graph, made(SAME.model_copy(update={"padding": "torch"})), photos)
    with torch.no_grad():
        model.head.bias[1] += 1e4
    with pytest.raises(ExportError, match="its scores differ from torch's by"):
        difference(graph, model, photos)


def test_another_most_probable_cell_is_refused_unless_torch_sees_a_tie() -> None:
    torchs = np.array([[0.0, 1.0, 0.0, 5.0]], dtype=np.float32)
    found = np.array([[1.0, 0.999, 0.0, 5.0]], dtype=np.float32)
    _check_same_cells(found, torchs, {"fine": 3, "coarse": 1}, tie=1.0)
    with pytest.raises(ExportError, match="most probable cell of 1 of 1 photos is another, head fine"):
        _check_same_cells(found, torchs, {"fine": 3, "coarse": 1}, tie=0.5)


def test_what_the_exporter_raises_becomes_one_line_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise RuntimeError("no ONNX function\nfor aten::strange")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ExportError, match=r"^RuntimeError: no ONNX function for aten::strange$"):
        export_network(made(), tmp_path / "network.onnx", photos_of(made()))
    assert not list(tmp_path.iterdir())


def test_embeddings_by_torch_are_not_mixed_with_those_of_the_graph(exported: Path, tmp_path: Path) -> None:
    pool: Any
    pool, rows, _ = world()
    settings = EmbeddingSettings(batch_size=4, shard_rows=4, dtype="float32")
    of_torch = extract_embeddings(made(), pool, rows, tmp_path / "found", settings)
    of_graph = extract_embeddings(ready(exported), pool, rows, tmp_path / "found", settings)
    afresh = extract_embeddings(ready(exported), pool, rows, tmp_path / "afresh", settings)
    assert of_graph.vectors.tobytes() == afresh.vectors.tobytes() != of_torch.vectors.tobytes()


def test_a_graph_runs_without_torch(exported: Path) -> None:
    """For commands that answer about one photo, and cannot wait for torch."""
    code = f"""
import sys, numpy as np
from geoloc.models.graph import Graph
graph = Graph.open({str(exported / "network.onnx")!r}, 1)
photo = graph.preprocess.apply_uint8(np.zeros((50, 60, 3), np.uint8))
print([values.shape for values in graph.run(photo[None], ["features", "scores"])], "torch" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "[(1, 512), (1, 6)] False\n"
    assert done.stderr == ""


def test_a_metric_network_is_exported_with_its_projection(tmp_path):
    model = build_metric_network(PLAIN, 3, projected_to=7, scale=4.0).eval()
    photos = photos_of(model)  # type: ignore[arg-type]
    assert export_network(model, tmp_path / "network.onnx", photos) < 1e-5
    found = ready_network(tmp_path / "network.onnx", lambda: pytest.fail("torch is not needed")).embed(photos)
    assert found.shape == (len(photos), 7)
    with torch.inference_mode():
        np.testing.assert_allclose(found.numpy(), model.embed(photos).numpy(), atol=1e-5)
