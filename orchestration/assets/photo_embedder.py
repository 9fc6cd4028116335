"""What embeds photos as a build's index has them: shared by the commands that embed photos of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.classifier import load_model
from geoloc.models.embedder import Embedder, build_embedder
from geoloc.models.engine import ExportedNetwork, ready_network
from geoloc.models.layers import LayerEmbedder, at_layer
from geoloc.models.metric import load_metric_network
from geoloc.models.prediction import unit_embeddings_of_pixels
from geoloc.retrieval.embeddings import model_hash
from geoloc.retrieval.pca import PCA_FILE, Pca
from orchestration.assets.inputs import EMBEDDED_BY, model_settings
from orchestration.lineage.build import Build
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE
from orchestration.workspace import WorkspaceError


@dataclass(frozen=True)
class PhotoEmbedder:
    """A network, ready to run over photos, at the layer of the settings, and the principal components that its
    embeddings are reduced to (None: they are not). Make it with `open`.

    `graph` is the file of the exported network, which may be missing; `load` makes the torch network.
    """

    network: Embedder | LayerEmbedder | ExportedNetwork
    pca: Pca | None
    graph: Path
    load: Callable[[], Embedder | LayerEmbedder]

    @classmethod
    def open(cls, build: Build, model: str) -> PhotoEmbedder:
        """What made the build's embeddings by `model` (classifier, backbone or metric).

        Raises WorkspaceError where the settings' backbone cannot be made, FileNotFoundError and DamagedFile for files
        of the build that cannot be read.
        """
        settings, embedded = build.settings.embeddings, build.folder(EMBEDDED_BY[model])
        folder = embedded if model == "backbone" else build.folder(model)
        # A layer's graph is beside its embeddings, that of the whole network beside the network.
        graph = (folder if settings.layer is None else embedded) / GRAPH_FILE
        file = None if model == "backbone" else folder / MODEL_FILE

        def load() -> Embedder | LayerEmbedder:
            if file is None:
                whole = _backbone(build)
            else:
                whole = load_metric_network(file) if model == "metric" else load_model(file)
            found: Embedder | LayerEmbedder = at_layer(whole, settings.layer)
            return found

        network = ready_network(graph, load, file, settings.precision)
        return cls(network, None if settings.pca is None else Pca.load(embedded / PCA_FILE), graph, load)

    def embed(self, photos: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
        """Embeddings of N decoded photos, uint8 [H, W, 3] each: float32 [N, D], L2-normalised, comparable with the
        index's."""
        vectors = unit_embeddings_of_pixels(self.network, photos, batch_size)
        return vectors if self.pca is None else self.pca.transform(vectors)

    @property
    def dimension(self) -> int:
        """D, found by embedding a black photo."""
        size = self.network.preprocess.resize_short_side
        return self.embed([np.zeros((size, size, 3), dtype=np.uint8)], 1).shape[1]

    @property
    def model(self) -> str:
        """The hash that names its embeddings (Embeddings.model)."""
        return self._reduced(model_hash(self.network))

    def made(self, model: str) -> bool:
        """Whether embeddings that this hash names are by this network, run by torch or as its exported graph: a GPU may
        have made them, and a processor looks."""
        return model == self.model or model == self._on_the_other_engine()

    def _on_the_other_engine(self) -> str | None:
        if isinstance(self.network, ExportedNetwork):
            return self._reduced(model_hash(self.load()))
        return self._reduced(sha256_bytes(self.graph.read_bytes())) if self.graph.exists() else None

    def _reduced(self, model: str) -> str:
        return model if self.pca is None else self.pca.model_of(model)


def _backbone(build: Build) -> Embedder:
    """The network with its first weights, made from the settings. Raises WorkspaceError if it cannot be made."""
    try:
        return build_embedder(model_settings(build), build.settings.seed).eval()
    except ValueError as error:
        raise WorkspaceError(f"the model of {build.recipe}'s settings cannot be made: {error}") from None
