"""A build packed into one folder that answers on its own: what is given away to be served.

It holds the exported network, the partitions, the calibration and, where the build has one, the index of the
classifier's embeddings, with the graph of their layer and their principal components. Answering imports no torch and
reads no workspace.
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import DamagedFile, link_or_copy, read_json, read_regular, write_json
from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.regions import Region, regions_of
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.graph import Graph
from geoloc.models.photo_network import GraphNetwork
from geoloc.partitions import load_partition
from geoloc.photos.decoding import Limits, UnreadablePhoto, checked_pixels
from geoloc.places import nearest_places
from geoloc.processors import network_threads

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition
    from geoloc.retrieval.index import ReferenceIndex
    from geoloc.retrieval.pca import Pca

FORMAT = 1
FACTS, GRAPH, PARTITIONS, CALIBRATION, INDEX, LAYER_GRAPH, COMPONENTS = (
    "served.json",
    "network.onnx",
    "partitions",
    "calibration",
    "index",
    "layer.onnx",
    "pca.safetensors",
)
METHODS = ("class", "nn", "knn")
COLUMNS = ("latitude", "longitude", "place", "confidence", "region", "alternatives", "method", "error")
"""Of the answers. `region`: by rising coverage, cells that contain the photo with the given probability. `error`: why
a photo has no answer."""
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class References:
    """What a packed build finds neighbours with: the saved index, the graph of the layer that embeds (None: the
    classifier's own), the principal components of its embeddings (None: none), and which references may be found, bool
    [R] (None: all)."""

    index: Path
    graph: Path | None = None
    pca: Path | None = None
    among: NDArray[np.bool_] | None = None

    def pack(self, folder: Path) -> None:
        """Write them to the folder of a packed build."""
        for file, name in ((self.graph, LAYER_GRAPH), (self.pca, COMPONENTS)):
            if file is not None:
                link_or_copy(file, folder / name)
        if self.among is None or self.among.all():
            shutil.copytree(self.index, folder / INDEX, copy_function=link_or_copy)
            return
        from geoloc.retrieval.index import ReferenceIndex  # FAISS takes a second to import

        index = ReferenceIndex.load(self.index)
        index.remove(index.references.loc[~self.among, "photo_id"].tolist())
        index.save(folder / INDEX)


def pack(
    folder: Path,
    *,
    graph: Path,
    partitions: Mapping[str, Path],
    calibration: Calibration,
    references: References | None,
    settings: LocalizerSettings,
    model_name: str,
) -> None:
    """Write a build to the new folder `folder`. `partitions` are their saved folders, by name, the main one first;
    `model_name` is that of methods in tables. Large files are hard links where the disk allows it."""
    folder.mkdir(parents=True)
    link_or_copy(graph, folder / GRAPH)
    for name, saved in partitions.items():
        shutil.copytree(saved, folder / PARTITIONS / name, copy_function=link_or_copy)
    (folder / CALIBRATION).mkdir()
    calibration.save(folder / CALIBRATION)
    if references is not None:
        references.pack(folder)
    facts = {
        "format": FORMAT,
        "partitions": list(partitions),
        "model_name": model_name,
        "answer": settings.answers[0],
        "crops": settings.crops,
        "batch_size": settings.batch_size,
        "k": settings.k,
        "m": settings.m,
        "sigma": settings.sigmas[len(settings.sigmas) // 2] if settings.sigmas else 4.0,
    }
    write_json(folder / FACTS, facts)


@dataclass(frozen=True)
class Served:
    """An opened folder of `pack`. Open it with `open`."""

    folder: Path
    network: GraphNetwork
    partitions: Mapping[str, Partition]
    calibration: Calibration
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> Served:
        """The build in `folder`. Raises FileNotFoundError or DamagedFile, which name the file."""
        folder = Path(folder)
        facts = read_json(folder / FACTS, dict)
        if facts.get("format") != FORMAT:
            raise DamagedFile(
                folder / FACTS, f"its format is {facts.get('format')}, this code reads {FORMAT}"
            )
        partitions = {name: load_partition(folder / PARTITIONS / name) for name in facts["partitions"]}
        network = GraphNetwork(Graph.open(folder / GRAPH, network_threads()))
        network.check_heads({name: one.cell_count for name, one in partitions.items()})
        return cls(folder, network, partitions, Calibration.load(folder / CALIBRATION, partitions), facts)

    def locate(self, photos: Sequence[Any], method: str = "class", alternatives: int = 5) -> pd.DataFrame:
        """Locate N photos: paths, bytes of image files, or either in base64. Returns N rows of COLUMNS.

        `method` is by class over the main partition, by the nearest reference (nn) or by the densest spot among the k
        nearest (knn). A photo that cannot be read has only an `error`. Raises ValueError for another method, for one
        that needs an index where there is none, and for less than one alternative.
        """
        if method not in METHODS or (method != "class" and not (self.folder / INDEX).is_dir()):
            allowed = METHODS if (self.folder / INDEX).is_dir() else METHODS[:1]
            raise ValueError(f"method must be one of {', '.join(allowed)}; got {method!r}")
        if alternatives < 1:
            raise ValueError(f"alternatives must be at least 1, got {alternatives}")
        rows = [dict.fromkeys(COLUMNS) for _ in photos]
        pixels, positions = [], []
        for position, photo in enumerate(photos):
            try:
                pixels.append(self.network.preprocess.resized(checked_pixels(photo_bytes(photo))))
                positions.append(position)
            except (UnreadablePhoto, OSError, ValueError) as error:
                rows[position] |= {"confidence": 0.0, "error": str(error)}
        if pixels:
            for position, row in zip(positions, self._rows(pixels, method, alternatives), strict=True):
                rows[position] |= row
        return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)

    def _rows(
        self, pixels: Sequence[NDArray[np.uint8]], method: str, alternatives: int
    ) -> list[dict[str, Any]]:
        """The answers for decoded photos."""
        batch = self.facts["batch_size"]
        found: list[tuple[Region, ...] | None] = [None] * len(pixels)
        if method == "class":
            p = self.calibration.scaled(self.network.probabilities(pixels, batch, self.facts["crops"]))
            name, partition = next(iter(self.partitions.items()))
            localizer = class_localizers(
                self.partitions, (self.facts["answer"],), self.facts["model_name"], alternatives
            )[0][1]
            answers, called = localizer.locate(p[name]), localizer.name
            found = regions_of(self.calibration, name, partition, p)
        else:
            answers, called = self._by_neighbour(self._embed(pixels, batch), method, alternatives)
        return _answer_rows(answers, called, found)

    def _embed(self, pixels: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
        """Embeddings as the index has them, float32 [N, D]."""
        vectors = self._embedder.unit_embeddings(pixels, batch_size)
        return vectors if self._pca is None else self._pca.transform(vectors)

    @functools.cached_property
    def _embedder(self) -> GraphNetwork:
        file = self.folder / LAYER_GRAPH
        return GraphNetwork(Graph.open(file, network_threads())) if file.is_file() else self.network

    @functools.cached_property
    def _pca(self) -> Pca | None:
        from geoloc.retrieval.pca import Pca

        file = self.folder / COMPONENTS
        return Pca.load(file) if file.is_file() else None

    @functools.cached_property
    def _index(self) -> ReferenceIndex:
        from geoloc.retrieval.index import ReferenceIndex

        return ReferenceIndex.load(self.folder / INDEX)

    def _by_neighbour(
        self, vectors: NDArray[np.float32], method: str, alternatives: int
    ) -> tuple[Answers, str]:
        # Only here: FAISS takes a second to import.
        from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer

        index, name = self._index, self.facts["model_name"]
        localizer: NeighbourLocalizer
        if method == "nn":
            localizer = NearestLocalizer(index, name, alternatives)
        else:
            k, m, sigma = (self.facts[key] for key in ("k", "m", "sigma"))
            localizer = DensityLocalizer(index, k, m, sigma, model_name=name, alternatives=alternatives)
        return localizer.locate(vectors), localizer.name


def photo_bytes(photo: Any) -> bytes:
    """The bytes of a photo given as such, as a path, or in base64 (also as a `data:` address).

    Raises OSError, and ValueError for what is none of these.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, os.PathLike):
        return read_regular(Path(photo), Limits().max_file_bytes)
    if not isinstance(photo, str) or not photo:
        raise ValueError(f"a photo must be a path, bytes or base64; got {type(photo).__name__} {photo!r:.40}")
    if photo.startswith("data:"):
        photo = photo.partition(",")[2]
    elif len(photo) < _LONGEST_PATH and "\0" not in photo and Path(photo).is_file():
        return read_regular(photo, Limits().max_file_bytes)
    try:
        return base64.b64decode("".join(photo.split()), validate=True)
    except (binascii.Error, ValueError):
        shown = photo if len(photo) <= 80 else f"{photo[:77]}..."
        raise ValueError(f"{shown!r} is neither a file nor base64") from None


def _answer_rows(
    answers: Answers, method: str, regions: Sequence[tuple[Region, ...] | None]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row, of in enumerate(regions):
        known: dict[str, Any] = {
            "confidence": float(answers.confidence[row]),
            "region": None if of is None else [asdict(one) | {"tokens": _listed(one)} for one in of],
            "method": method,
        }
        other = answers.alternatives
        if answers.abstained[row] or other is None:
            rows.append(known | {"error": "nothing to go by"})
            continue
        some = np.flatnonzero(~np.isnan(other.latitude[row]))
        latitude = np.append(answers.latitude[row], other.latitude[row, some])
        longitude = np.append(answers.longitude[row], other.longitude[row, some])
        names = [str(place) for place in nearest_places(latitude, longitude)]
        known |= {
            "latitude": float(latitude[0]),
            "longitude": float(longitude[0]),
            "place": names[0],
            "alternatives": [
                {
                    "latitude": float(latitude[1 + i]),
                    "longitude": float(longitude[1 + i]),
                    "place": names[1 + i],
                    "weight": float(other.weight[row, at]),
                }
                for i, at in enumerate(some)
            ],
        }
        rows.append(known)
    return rows


def _listed(region: Region) -> list[str] | None:
    return None if region.tokens is None else list(region.tokens)
