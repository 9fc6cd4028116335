"""Part branches of cuda.py: every path of the library that knows a GPU, against the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cuda_families import PLAIN, VARIANTS, Killed, Train, World, classify
from cuda_table import Rows
from torch import nn

from geoloc.evaluation.cross_view import evaluate_cross_view
from geoloc.evaluation.explaining.occlusion import occlusion_maps
from geoloc.models.batches import iter_batches
from geoloc.models.classifier import build_classifier, load_model, save_model
from geoloc.models.cross_view import build_cross_view
from geoloc.models.embedder import build_embedder
from geoloc.models.engine import engine_name, ready_network
from geoloc.models.export import export_network
from geoloc.models.layers import at_layer
from geoloc.models.photo_network import has_gpu, open_photo_network
from geoloc.models.prediction import predict_probabilities
from geoloc.models.sequence_network import build_sequence_network
from geoloc.models.sequence_prediction import all_probabilities
from geoloc.models.sequence_settings import SequenceNetworkSettings
from geoloc.models.settings import LayerSettings, ModelSettings
from geoloc.models.time_network import build_time_network, time_probabilities
from geoloc.models.time_settings import TimeNetworkSettings
from geoloc.photos.pairs import overhead_pool
from geoloc.retrieval.embeddings import extract_embeddings, model_hash
from geoloc.retrieval.gpu import gpu_search
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.settings import EmbeddingSettings, IndexSettings
from geoloc.settings import parse, replace
from geoloc.training import loop
from geoloc.training.cross_view import shape_of
from geoloc.training.cross_view_pairs import PairSource
from geoloc.training.cross_view_settings import CrossViewSettings
from geoloc.training.settings import TrainingSettings

PRECISIONS = ("float32", "bfloat16", "float16")
TOLERANCE = {"float32": 0.02, "bfloat16": 0.1, "float16": 0.05}
"""The largest relative difference of a loss from the CPU's in the first steps; later ones drift apart by themselves."""
IN_ALL_PRECISIONS = (
    "classification", "classification, frozen", "classification, two heads, every option of the loss", "metric, mining",
    "metric, algorithm 1", "cross-view, plain tiles, orientation", "cross-view, classification", "sequences, lstm",
    "sequences, transformer", "time of posting",
)  # fmt: skip
TWICE = (
    "classification", "classification, two heads, every option of the loss", "metric, mining", "metric, algorithm 1",
    "metric, hinge_triplet", "cross-view, plain tiles, orientation", "cross-view, shared but batch norm, grid 2",
    "cross-view, classification", "sequences, lstm", "sequences, transformer", "time of posting",
)  # fmt: skip


def branches(rows: Rows, folder: Path) -> None:
    """Print the rows of this part."""
    torch.set_num_threads(min(8, torch.get_num_threads()))
    world = World(rows, folder)
    rows.title(
        f"Training on {rows.device}, against the CPU at float32: losses of the first and of the last step"
    )
    print(
        f"{len(world.train)} photos, {world.cells} cells, {len(world.pairs['train'])} training pairs; network {PLAIN}"
    )
    for name, train, given in VARIANTS:
        world.on_cpu[name] = []
        rows.row(f"{name}, on the CPU", _losses, world.on_cpu[name], train, world, given | {"device": "cpu"})
        for precision in PRECISIONS if name in IN_ALL_PRECISIONS and not rows.quick else PRECISIONS[:1]:
            rows.row(f"{name}, {precision}", _against_cpu, world, name, train, given, precision)
    rows.title("Equal trainings give equal bytes: trained twice; killed in the middle and resumed")
    for name, train, given in VARIANTS:
        if name in TWICE:
            for precision in ("float32", "float16") if name in TWICE[:3] and not rows.quick else ("float32",):
                rows.row(f"{name}, {precision}", _twice, world, train, given | {"precision": precision})
    rows.row("a training that began on the CPU goes on here", _moved, world)
    rows.title("Networks at work, against the CPU")
    _at_work(world)
    _searches(world)


def _losses(found: list[float], train: Train, world: World, given: dict[str, Any]) -> str:
    train(world, given, world.work(), lambda e: found.append(e["loss"]) if e["kind"] == "step" else None)
    return f"{found[0]:.5f} to {found[-1]:.5f} in {len(found)} steps"


def _against_cpu(world: World, name: str, train: Train, given: dict[str, Any], precision: str) -> str:
    found: list[float] = []
    text = _losses(found, train, world, given | {"device": world.rows.device, "precision": precision})
    wanted = world.on_cpu[name]
    first = abs(found[0] - wanted[0]) / abs(wanted[0])
    last = abs(found[-1] - wanted[-1]) / abs(wanted[-1])
    text += f"; off by {first:.1e} at first, {last:.1e} at last"
    if not (len(found) == len(wanted) and first <= TOLERANCE[precision]):
        raise AssertionError(text)
    return text


def _twice(world: World, train: Train, given: dict[str, Any]) -> str:
    given = given | {"device": world.rows.device, "checkpoint_steps": 1}
    steps = 0

    def kill(event: dict[str, Any]) -> None:
        nonlocal steps
        steps += event["kind"] == "step"
        if steps == 4:
            raise Killed

    hashes = [_hash(train(world, given, world.work(), lambda event: None)) for _ in range(2)]
    folder = world.work()
    with contextlib.suppress(Killed):
        train(world, given, folder, kill)
    told: list[str] = []
    again = train(
        world, given, folder, lambda e: told.append(e["message"]) if e["kind"] == "message" else None
    )
    if not told or "resumes" not in told[0]:
        raise AssertionError(f"not resumed: {told}")
    equal, resumed = hashes[0] == hashes[1], _hash(again) == hashes[0]
    text = f"twice: {'equal' if equal else 'NOT EQUAL'}; resumed: {'equal' if resumed else 'NOT EQUAL'}; {told[0]}"
    if not (equal and resumed):
        raise AssertionError(text)
    return text


def _moved(world: World) -> str:
    def kill(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 3:
            raise Killed

    folder, given, chosen = world.work(), {"device": "auto", "checkpoint_steps": 1}, loop.choose_device
    loop.choose_device = lambda name: torch.device("cpu")
    try:
        classify(world, given, folder, kill)
    except Killed:
        pass
    finally:
        loop.choose_device = chosen
    told: list[str] = []
    model = classify(
        world, given, folder, lambda e: told.append(str(e)) if e["kind"] in ("message", "epoch") else None
    )
    return f"{next(model.parameters()).device}; {told[0][:70]}; {told[-1][:70]}"


def _hash(model: nn.Module) -> str:
    return loop.loop_fingerprint(model, TrainingSettings(), 0)["initial weights"]


def _at_work(world: World) -> None:
    rows, device = world.rows, world.rows.device
    photos = world.train
    settings = replace(parse(ModelSettings, PLAIN["model"], "model"), image_size=112, resize_short_side=128)
    model = build_classifier(settings, {"fine": world.cells}, 0).eval()
    file, graph = world.folder / "model.safetensors", world.folder / "model.onnx"
    save_model(file, model)
    batches = list(iter_batches(world.pool, photos, model.preprocess, 64))
    pixels = torch.cat([batch.images for batch in batches])

    def embedded(network: nn.Module, precision: str = "float32") -> np.ndarray:
        own = EmbeddingSettings(batch_size=64, precision=precision, dtype="float32")  # type: ignore[arg-type]
        found = extract_embeddings(network, world.pool, photos, world.work(), own)
        world.of_device = found
        return np.asarray(found.vectors)

    def against(network: Callable[[], nn.Module], precision: str) -> str:
        made = network()
        found = embedded(made, precision)
        near = ((found @ found.T - 2 * np.eye(len(found))).argmax(1) == nearest).mean()
        return (
            f"{engine_name(made)}: off by at most {np.abs(found - on_cpu).max():.1e}, least cosine "
            f"{(found * on_cpu).sum(1).min():.6f}, same nearest neighbour {near:.1%}"
        )

    on_cpu = embedded(model)
    nearest = (on_cpu @ on_cpu.T - 2 * np.eye(len(on_cpu))).argmax(1)

    def exported() -> str:
        off = export_network(model, graph, pixels[:16], "")
        return f"the graph is off by {off:.1e}"

    rows.row("export of a network", exported)
    rows.row("embeddings, the exported graph", against, lambda: _cpu_engine(graph), "float32")

    def here() -> nn.Module:
        return ready_network(world.folder / "none.onnx", lambda: load_model(file), file)

    for precision in PRECISIONS[: 1 if rows.quick else 3]:
        rows.row(f"embeddings, {precision}", against, here, precision)
    if device == "cuda":

        def exactly() -> str:
            convolutions = torch.backends.cudnn.conv
            before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
            try:
                return against(here, "float32")
            finally:
                convolutions.fp32_precision = before

        rows.row("embeddings, float32 without TF32 in convolutions", exactly)
    rows.row(
        "model_hash is the CPU's",
        lambda: _must(model_hash(here()) == model_hash(model), model_hash(model)[:12]),
    )

    def probabilities() -> str:
        (found, _), (wanted, _) = (
            predict_probabilities(network, world.pool, photos, 64, crops=5) for network in (here(), model)
        )
        same = (found["fine"].argmax(1) == wanted["fine"].argmax(1)).mean()
        off = np.abs(found["fine"] - wanted["fine"]).max()
        return f"five crops: same most probable cell {same:.1%}, off by {off:.1e}"

    rows.row("probabilities", probabilities)

    def served() -> str:
        some = [np.asarray(image.permute(1, 2, 0)) for image in pixels[:32]]
        found, wanted = (
            open_photo_network(world.folder / name, lambda: load_model(file), None, accelerated=fast)
            for name, fast in (("none.onnx", True), ("model.onnx", False))
        )
        off = np.abs(found.unit_embeddings(some, 16) - wanted.unit_embeddings(some, 16)).max()
        one, two = (network.probabilities(some, 16)["fine"] for network in (found, wanted))
        same = (one.argmax(1) == two.argmax(1)).mean()
        return f"has_gpu {has_gpu()}; embeddings off by {off:.1e}, same most probable cell {same:.1%}"

    rows.row("locate: a network for many photos, against the graph", served)

    def trained_and_exported() -> str:
        trained = classify(world, {"epochs": 1, "device": device}, world.work(), lambda event: None)
        trained.cpu()
        off = export_network(trained, world.folder / "trained.onnx", pixels[:8, :, :64, :64])  # type: ignore[arg-type]
        layer = at_layer(trained, LayerSettings(name="stage3.1"))  # type: ignore[arg-type]
        of_layer = export_network(layer, world.folder / "layer.onnx", pixels[:8, :, :64, :64])
        return f"off by {off:.1e}; its layer stage3.1 by {of_layer:.1e}"

    rows.row("export after a training here, and of a layer", trained_and_exported)

    def layer_here() -> str:
        both = []
        for network in (build_embedder(settings, 0).eval(), build_embedder(settings, 0).eval().to(device)):
            both.append(embedded(at_layer(network, LayerSettings(name="stage3.1", pooling="gem"))))
        return f"off by {np.abs(both[0] - both[1]).max():.1e}"

    rows.row("embeddings by a layer, GeM", layer_here)

    def occlusion() -> str:
        photo = pixels[0].permute(1, 2, 0).numpy()
        found, wanted = (
            occlusion_maps(network, photo, [0, 1], 28, 14)[0].pixels for network in (here(), model)
        )
        return f"off by {np.abs(found - wanted).max():.1e} of at most {wanted.max():.3f}"

    rows.row("occlusion maps", occlusion)


def _cpu_engine(graph: Path) -> nn.Module:
    from geoloc.models.engine import ExportedNetwork
    from geoloc.models.graph import Graph

    return ExportedNetwork(Graph.open(graph, torch.get_num_threads()))


def _must(right: bool, text: str) -> str:
    if not right:
        raise AssertionError(text)
    return text


def _searches(world: World) -> None:
    rows, vectors = world.rows, world.of_device

    def index(factory: str) -> str:
        found, wanted = (
            ReferenceIndex.build(
                vectors, world.train, IndexSettings(factory=factory, device=device, nprobe=4)
            )
            for device in ("auto", "cpu")
        )
        copy = gpu_search(found._index)
        among = np.arange(len(found)) % 3 == 0
        parts = []
        for some in (None, among):
            one, two = (
                each.search(vectors.vectors[:200], 10, world.train["photographer"][:200].tolist(), among=some)
                for each in (found, wanted)
            )
            parts.append(f"{(one.row == two.row).mean():.1%}")
        where = "not on a GPU" if copy is None else "by torch" if copy.gives_rows else "by FAISS"
        return f"{where}; same neighbours {parts[0]}, within a subset {parts[1]}"

    for factory in ("Flat", "IVF8,Flat"):
        rows.row(f"reference index, {factory}", index, factory)

    def evaluated() -> str:
        settings = parse(
            CrossViewSettings, PLAIN | {"embedding_size": 32, "orientation": {"weight": 1}}, "cross_view"
        )
        tables = []
        for device in (rows.device, "cpu"):
            model = build_cross_view(settings.model, shape_of(settings), 0).eval().to(device)
            sources = [
                PairSource(
                    world.pool,
                    overhead_pool(world.pool),
                    world.pairs[name],
                    model,
                    None,
                    None,
                    0.0,
                    0,
                    0,
                    True,
                )
                for name in ("test", "validation")
            ]
            tables.append(evaluate_cross_view(*sources, settings, 0).scores)
        off = (tables[0]["value"] - tables[1]["value"]).abs()
        return f"{len(off)} scores, {(off < 1e-6).mean():.1%} equal, off by at most {off.max():.2g}"

    rows.row("cross-view evaluation, 16 rotations", evaluated)

    def context() -> str:
        texts = []
        for kind in ("lstm", "repeated", "bidirectional", "transformer"):
            model = build_sequence_network(16, 5, SequenceNetworkSettings(kind=kind), 0).eval()  # type: ignore[arg-type]
            inputs = world.albums.photos.inputs
            wanted = all_probabilities(model, inputs, world.sequences)
            found = all_probabilities(model.to(rows.device), inputs, world.sequences)
            texts.append(f"{kind} {np.abs(found - wanted).max():.1e}")
        network = build_time_network(5, TimeNetworkSettings(), 0).eval()
        wanted = time_probabilities(network, world.posted.inputs)
        found = time_probabilities(network.to(rows.device), world.posted.inputs)
        return f"off by: {', '.join(texts)}, time {np.abs(found - wanted).max():.1e}"

    rows.row("probabilities by sequence and by time", context)
