"""The engine that runs a network over photos: ONNX Runtime on processors, torch on a GPU or without a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from geoloc.files import sha256_bytes
from geoloc.models.graph import FEATURES, SCORES, Graph
from geoloc.models.heads import Heads

Network = TypeVar("Network", bound=nn.Module)


class ExportedNetwork(Heads, nn.Module):
    """A network that runs as a graph, in place of the Embedder or Classifier that it was exported from.

    Takes uint8 [B, 3, S, S] on the CPU, fastest if channels-last in memory. Has no parameters, and only the eval mode.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.heads = graph.heads
        self.preprocess = graph.preprocess

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features [B, D] of images uint8 [B, 3, S, S]; not normalised."""
        return self._run(images, FEATURES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [B, C] of images uint8 [B, 3, S, S]; features if it has no heads."""
        return self._run(images, SCORES if self.heads else FEATURES)

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities of the cells by head, [B, C of the head], of images uint8 [B, 3, S, S]."""
        found = self.graph.probabilities(self._channels_last(images))
        return {name: torch.from_numpy(p) for name, p in found.items()}

    def unit_embeddings(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """L2-normalised features [B, D] of images uint8 [B, 3, S, S], and their norms [B] before that."""
        vectors, norms = self.graph.unit_embeddings(self._channels_last(images))
        return torch.from_numpy(vectors), torch.from_numpy(norms)

    def _run(self, images: torch.Tensor, output: str) -> torch.Tensor:
        (found,) = self.graph.run(self._channels_last(images), [output])
        return torch.from_numpy(found)

    @staticmethod
    def _channels_last(images: torch.Tensor) -> NDArray[np.uint8]:
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())

    def __repr__(self) -> str:
        return f"ExportedNetwork({self.graph!r})"


def ready_network(
    graph: Path, load: Callable[[], Network], weights: Path | None = None, precision: str = "float32"
) -> Network | ExportedNetwork:
    """The network to run over photos: on a GPU if there is one, else the graph in the file `graph`, else torch's.

    `load` makes the torch network. `weights` is its safetensors file, if it has one: a graph of other weights is not
    used. Graphs compute in float32; torch runs other precisions. Raises DamagedFile for a damaged graph, and the errors
    of `load`.
    """
    if torch.cuda.is_available():
        return load().to("cuda")
    if not graph.exists() or precision != "float32":
        return load()
    opened = Graph.open(graph, torch.get_num_threads())
    if weights is not None and opened.weights != sha256_bytes(weights.read_bytes()):
        return load()
    return ExportedNetwork(opened)


def engine_name(network: nn.Module) -> str:
    """The engine that runs a network, for people: name, version, threads or device."""
    if isinstance(network, ExportedNetwork):
        return f"ONNX Runtime {onnxruntime.__version__}, {network.graph.threads} threads"
    device = next(network.parameters()).device
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    return f"torch {torch.__version__}, {where}"
