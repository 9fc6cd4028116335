"""Export a network as a graph for ONNX Runtime, and check that it gives what torch gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoloc.files import atomic_path, one_line
from geoloc.models.embedder import Embedder
from geoloc.models.graph import FEATURES, FORMAT, IMAGES, METADATA_KEY, SCORES, Graph
from geoloc.settings import to_dict

MOST_DIFFERENCE = 1e-3
"""The largest relative difference of a graph's outputs from torch's. Rounding makes 1e-7 to 1e-5; a layer that is
exported wrong, such as a padding of the other side, makes 0.01 or more."""


class ExportError(ValueError):
    """A network cannot be exported, or its graph answers differently. The message is one line."""


def export_network(model: Embedder, path: Path | str, photos: torch.Tensor, weights: str = "") -> float:
    """Write the graph of `model`, an embedder or classifier on the CPU, to `path`, atomically.

    `photos` uint8 [N, 3, S, S] are real ones, on which torch and the graph must agree: see `difference`. `weights` is
    the SHA-256 of the model's safetensors file. Equal models give equal bytes. Takes 5 to 15 s.

    Returns the largest relative difference. Raises ExportError if the network cannot be exported, or if the graph's
    outputs are others than torch's; nothing is written then.
    """
    was_training = model.training
    try:
        data = _exported(model.eval(), weights)
        found = difference(Graph.of_bytes(data, torch.get_num_threads()), model, photos)
    except ExportError:
        raise
    # Exporter, onnxscript and ONNX Runtime raise dozens of unrelated types for a layer that they do not know.
    except Exception as error:
        raise ExportError(f"{type(error).__name__}: {one_line(error)}") from error
    finally:
        model.train(was_training)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return found


def difference(graph: Graph, model: Embedder, photos: torch.Tensor) -> float:
    """The largest difference of the graph's outputs from torch's on photos uint8 [N, 3, S, S], each relative to the
    largest value of its output.

    Raises ExportError if it is above MOST_DIFFERENCE or not finite where torch's outputs are, or if the most probable
    cell of a photo in one of the heads is another, unless torch's scores of the two differ by less than that.
    """
    network: Any = model  # the heads are those of a classifier
    with torch.inference_mode():
        features = model.embed(photos)
        wanted = {FEATURES: features.numpy()}
        if graph.heads:
            wanted[SCORES] = network.classify(features).float().numpy()
    found = graph.run(np.ascontiguousarray(photos.permute(0, 2, 3, 1).numpy()), list(wanted))
    largest = 0.0
    for values, (name, torchs) in zip(found, wanted.items(), strict=True):
        finite = np.isfinite(torchs)  # log-probabilities of cells without photos may be minus infinity
        if not np.array_equal(values[~finite], torchs[~finite], equal_nan=True):
            raise ExportError(f"its {name} are finite where torch's are not")
        scale = max(float(np.abs(torchs[finite]).max(initial=0)), float(np.finfo(np.float32).tiny))
        off = float(np.abs(values[finite] - torchs[finite]).max(initial=0)) / scale
        if not off <= MOST_DIFFERENCE:
            raise ExportError(f"its {name} differ from torch's by {off:.2g}, more than {MOST_DIFFERENCE}")
        if name == SCORES:
            _check_same_cells(values, torchs, graph.heads, MOST_DIFFERENCE * scale)
        largest = max(largest, off)
    return largest


def _check_same_cells(
    found: NDArray[np.float32], wanted: NDArray[np.float32], heads: dict[str, int], tie: float
) -> None:
    start = 0
    for name, cells in heads.items():
        of_head = wanted[:, start : start + cells]
        chosen = found[:, start : start + cells].argmax(axis=1)
        short = of_head.max(axis=1) - of_head[np.arange(len(chosen)), chosen]
        if (short > tie).any():
            raise ExportError(
                f"the most probable cell of {int((short > tie).sum())} of {len(short)} photos is another, head {name}"
            )
        start += cells


class _Traced(nn.Module):
    """The computation of a graph: pixels as decoders write them, uint8 [B, S, S, 3], to features and scores."""

    def __init__(self, model: Embedder, has_heads: bool) -> None:
        super().__init__()
        self.model, self.has_heads = model, has_heads

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        network: Any = self.model
        features = network.embed(images.permute(0, 3, 1, 2))
        return (features, network.classify(features)) if self.has_heads else (features,)


def _exported(model: Embedder, weights: str) -> bytes:
    """The bytes of the model's ONNX file."""
    heads: dict[str, int] = getattr(model, "heads", {})
    size = model.preprocess.image_size
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        program = torch.onnx.export(
            _Traced(model, bool(heads)).eval(),
            (example,),
            dynamo=True,
            input_names=[IMAGES],
            output_names=[FEATURES, SCORES] if heads else [FEATURES],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto: Any = program.model_proto
    _strip(proto)
    header = {
        "format": FORMAT,
        "preprocess": to_dict(model.preprocess),
        "heads": list(heads.items()),
        "weights": weights,
    }
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(header, sort_keys=True))
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _strip(proto: Any) -> None:
    """Remove the exporter's notes for debugging from a ModelProto, in place: they name files of this installation, so
    that equal networks would not give equal bytes."""
    proto.ClearField("metadata_props")
    for function in proto.functions:
        _strip_all([function, *function.node])
    graphs = [proto.graph]
    for graph in graphs:  # grows by the graphs inside of nodes
        graph.ClearField("value_info")
        _strip_all([graph, *graph.node, *graph.input, *graph.output, *graph.initializer])
        inner = (attribute for node in graph.node for attribute in node.attribute)
        graphs.extend(attribute.g for attribute in inner if attribute.HasField("g"))


def _strip_all(parts: list[Any]) -> None:
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
