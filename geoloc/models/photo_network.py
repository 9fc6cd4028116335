"""A saved network that answers for decoded photos: its exported graph, without torch, else torch itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.graph import Graph
from geoloc.models.heads import Heads
from geoloc.models.preprocess import CROPS, Preprocess
from geoloc.processors import network_threads

Photos = Sequence[NDArray[np.uint8]]
"""Decoded photos, uint8 [H, W, 3] each."""


class PhotoNetwork(Protocol):
    """A network as `geoloc locate` and a served model use it."""

    heads: dict[str, int]
    preprocess: Preprocess

    def check_heads(self, cell_counts: dict[str, int]) -> None:
        """Raise ValueError if the heads do not match partitions with these names and numbers of cells."""

    def probabilities(
        self, photos: Photos, batch_size: int, crops: int = 1
    ) -> dict[str, NDArray[np.float32]]:
        """Probabilities of N photos by head, float32 [N, C of the head]: means over the first `crops` of CROPS."""

    def unit_embeddings(self, photos: Photos, batch_size: int) -> NDArray[np.float32]:
        """L2-normalised embeddings of N photos, float32 [N, D]."""


class GraphNetwork(Heads):
    """A network that runs as a graph. Imports no torch; gives what prediction.py gives for the same graph and batches,
    bit for bit."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.heads, self.preprocess = graph, graph.heads, graph.preprocess

    def probabilities(
        self, photos: Photos, batch_size: int, crops: int = 1
    ) -> dict[str, NDArray[np.float32]]:
        mean = {name: np.zeros((len(photos), cells), dtype=np.float32) for name, cells in self.heads.items()}
        for crop in CROPS[:crops]:
            for rows, images in self._batches(photos, batch_size, crop):
                for name, p in self.graph.probabilities(images).items():
                    mean[name][rows] += p / np.float32(crops)
        return mean

    def unit_embeddings(self, photos: Photos, batch_size: int) -> NDArray[np.float32]:
        batches = self._batches(photos, batch_size, CROPS[0])
        return np.concatenate([self.graph.unit_embeddings(images)[0] for _, images in batches])

    def _batches(
        self, photos: Photos, batch_size: int, crop: str
    ) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        for start in range(0, len(photos), batch_size):
            some = photos[start : start + batch_size]
            images = np.stack([self.preprocess.apply_uint8(photo, crop) for photo in some])
            yield slice(start, start + len(some)), images


class TorchNetwork:
    """A network that torch runs: an Embedder or Classifier, or an exported one."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.heads: dict[str, int] = getattr(network, "heads", {})
        self.preprocess: Preprocess = network.preprocess

    def check_heads(self, cell_counts: dict[str, int]) -> None:
        self.network.check_heads(cell_counts)

    def probabilities(
        self, photos: Photos, batch_size: int, crops: int = 1
    ) -> dict[str, NDArray[np.float32]]:
        from geoloc.models.prediction import predict_probabilities_of_pixels  # imports torch

        return predict_probabilities_of_pixels(self.network, photos, batch_size, crops)

    def unit_embeddings(self, photos: Photos, batch_size: int) -> NDArray[np.float32]:
        from geoloc.models.prediction import unit_embeddings_of_pixels  # imports torch

        return unit_embeddings_of_pixels(self.network, photos, batch_size)


def open_photo_network(
    graph: Path,
    load: Callable[[], Any],
    weights: Path | None = None,
    precision: str = "float32",
    *,
    accelerated: bool = False,
) -> GraphNetwork | TorchNetwork:
    """The network to run over a few photos: the graph in the file `graph`, else what `load` makes, by torch.

    As `engine.ready_network`, but it imports torch only where torch runs the network: where there is no graph, where it
    is of other weights than the file `weights`, for another `precision` than float32, and, if `accelerated`, where
    there is a GPU. Raises DamagedFile for a damaged graph, and the errors of `load`.
    """
    if graph.exists() and precision == "float32" and not (accelerated and has_gpu()):
        opened = Graph.open(graph, network_threads())
        if weights is None or opened.weights == sha256_bytes(weights.read_bytes()):
            return GraphNetwork(opened)
    from geoloc.models.engine import ready_network  # imports torch, which takes seconds

    return TorchNetwork(ready_network(graph, load, weights, precision))


def has_gpu() -> bool:
    """Whether there may be a GPU that torch can use, without importing torch."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
