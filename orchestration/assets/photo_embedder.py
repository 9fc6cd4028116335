"""What embeds photos as a build's index has them: shared by the commands that embed photos of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.photo_network import GraphNetwork, TorchNetwork, open_photo_network
from geoloc.retrieval.pca import PCA_FILE, Pca
from orchestration.assets.inputs import EMBEDDED_BY, model_settings
from orchestration.lineage.build import Build
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.models.embedder import Embedder
    from geoloc.models.layers import LayerEmbedder

# Torch is imported inside the functions that need it: it takes seconds, and an exported graph needs none of it.


@dataclass(frozen=True)
class PhotoEmbedder:
    """A network, ready to run over photos, at the layer of the settings, and the principal components that its
    embeddings are reduced to (None: they are not). Make it with `open`.

    `graph` is the file of the exported network, which may be missing; `load` makes the torch network.
    """

    network: GraphNetwork | TorchNetwork
    pca: Pca | None
    graph: Path
    load: Callable[[], Embedder | LayerEmbedder]

    @classmethod
    def open(cls, build: Build, model: str, *, accelerated: bool = False) -> PhotoEmbedder:
        """What made the build's embeddings by `model` (classifier, backbone or metric).

        `accelerated`: for many photos, on a GPU if there is one. Raises WorkspaceError where the settings' backbone
        cannot be made, FileNotFoundError and DamagedFile for files of the build that cannot be read.
        """
        settings, embedded = build.settings.embeddings, build.folder(EMBEDDED_BY[model])
        folder = embedded if model == "backbone" else build.folder(model)
        # A layer's graph is beside its embeddings, that of the whole network beside the network.
        graph = (folder if settings.layer is None else embedded) / GRAPH_FILE
        file = None if model == "backbone" else folder / MODEL_FILE

        def load() -> Embedder | LayerEmbedder:
            from geoloc.models.layers import at_layer

            found: Embedder | LayerEmbedder = at_layer(_whole(build, model, file), settings.layer)
            return found

        network = open_photo_network(graph, load, file, settings.precision, accelerated=accelerated)
        return cls(network, None if settings.pca is None else Pca.load(embedded / PCA_FILE), graph, load)

    def embed(self, photos: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
        """Embeddings of N decoded photos, uint8 [H, W, 3] each: float32 [N, D], L2-normalised, comparable with the
        index's."""
        vectors = self.network.unit_embeddings(photos, batch_size)
        return vectors if self.pca is None else self.pca.transform(vectors)

    @property
    def dimension(self) -> int:
        """D, found by embedding a black photo."""
        size = self.network.preprocess.resize_short_side
        return self.embed([np.zeros((size, size, 3), dtype=np.uint8)], 1).shape[1]

    @property
    def model(self) -> str:
        """The hash that names its embeddings (Embeddings.model)."""
        return self._reduced(_hash_of(self.network))

    def made(self, model: str) -> bool:
        """Whether embeddings that this hash names are by this network, run by torch or as its exported graph: a GPU may
        have made them, and a processor looks."""
        return model == self.model or model == self._of_graph() or model == self._of_torch()

    def _of_graph(self) -> str | None:
        return self._reduced(sha256_bytes(self.graph.read_bytes())) if self.graph.exists() else None

    def _of_torch(self) -> str:
        from geoloc.retrieval.embeddings import model_hash

        return self._reduced(model_hash(self.load()))

    def _reduced(self, model: str) -> str:
        return model if self.pca is None else self.pca.model_of(model)


def _hash_of(network: GraphNetwork | TorchNetwork) -> str:
    if isinstance(network, GraphNetwork):
        return network.graph.content
    from geoloc.retrieval.embeddings import model_hash

    return model_hash(network.network)


def _whole(build: Build, model: str, file: Path | None) -> Embedder:
    """A network for torch to run; the backbone with its first weights is made from the settings. Raises WorkspaceError
    if it cannot be made."""
    from geoloc.models.classifier import load_model
    from geoloc.models.embedder import build_embedder
    from geoloc.models.metric import load_metric_network

    if file is not None:
        return load_metric_network(file) if model == "metric" else load_model(file)
    try:
        return build_embedder(model_settings(build), build.settings.seed).eval()
    except ValueError as error:
        raise WorkspaceError(f"the model of {build.recipe}'s settings cannot be made: {error}") from None
