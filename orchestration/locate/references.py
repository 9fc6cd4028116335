"""The references of `geoloc locate`: the index, which must be of the network that looks, and what it may find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.localizers.by_neighbour import votes
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.embedder import Embedder
from geoloc.models.engine import ExportedNetwork
from geoloc.models.prediction import unit_embeddings_of_pixels
from geoloc.retrieval.embeddings import model_hash
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.references import RetrievalError, require_references
from geoloc.retrieval.settings import ReferenceSettings
from geoloc.settings import SettingsError, parse
from orchestration.assets.subsets import references_among
from orchestration.errors import UsageError
from orchestration.lineage.build import Build
from orchestration.locate.question import Question
from orchestration.stores.data_version import verify_data
from orchestration.workspace import WorkspaceError


def open_index(
    build: Build,
    model: str,
    network: Embedder | ExportedNetwork,
    graph: Path,
    load: Callable[[], Embedder],
) -> ReferenceIndex:
    """The build's index by `model`, whose embeddings must be by `network`, run by torch or as its exported graph.

    `graph` is the file of the graph, `load` makes the torch network. Raises WorkspaceError for an index by another
    network and for an empty one.
    """
    index = ReferenceIndex.load(build.folder("index") / model)
    found = model_hash(network)
    if index.model and found != index.model and _other_engine(network, graph, load) != index.model:
        raise WorkspaceError(
            f"{build.name('index')} holds embeddings by the model {index.model[:12]}, and {model} of {build.recipe} is "
            f"{found[:12]}; build it again with: {build.command()}"
        )
    if (numbers := _dimension(network)) != index.dimension:
        raise WorkspaceError(
            f"{build.name('index')} holds embeddings of {index.dimension} numbers, {model} of {build.recipe} makes "
            f"{numbers}; build it again with: {build.command()}"
        )
    if not len(index):
        raise WorkspaceError(
            f"{build.name('index')} holds no references by {model}; build it again with: "
            f"{build.command('index')} --force"
        )
    return index


def _dimension(network: Embedder | ExportedNetwork) -> int:
    """The length of the network's embeddings."""
    size = network.preprocess.resize_short_side
    return unit_embeddings_of_pixels(network, [np.zeros((size, size, 3), dtype=np.uint8)], 1).shape[1]


def _other_engine(
    network: Embedder | ExportedNetwork, graph: Path, load: Callable[[], Embedder]
) -> str | None:
    """The hash of the same network on the other engine: a GPU may have made the index, and a processor looks."""
    if isinstance(network, ExportedNetwork):
        return model_hash(load())
    return sha256_bytes(graph.read_bytes()) if graph.exists() else None


def may_be_found(build: Build, question: Question, index: ReferenceIndex) -> NDArray[np.bool_] | None:
    """Which references a search may find, bool [R]: those that the question asks for, else those of the settings; None
    for all. Raises UsageError or WorkspaceError if there are none."""
    wanted = _wanted(question) if question.references else build.settings.localizers.references
    if wanted is None:
        return None
    verify_data(build.workspace)
    try:
        return references_among(build.workspace, index, wanted)
    except RetrievalError as error:
        if question.references:
            raise UsageError(f"--references {' '.join(question.references)}: {error}") from None
        raise WorkspaceError(f"localizers.references of {build.recipe}: {error}") from None


def voting(question: Question, limits: LocalizerSettings, count: int) -> int:
    """How many of `count` references vote. Raises UsageError or WorkspaceError if there are not as many as asked for;
    the default number is a most."""
    try:
        if question.k is not None:
            require_references(count, question.k, "--k")
            return question.k
        return votes(limits, count)
    except RetrievalError as error:
        raise (UsageError if question.k is not None else WorkspaceError)(str(error)) from None


def _wanted(question: Question) -> ReferenceSettings:
    given = [one.partition("=")[::2] for one in question.references]
    one = dict(given)
    values = {
        "sources": [value for key, value in given if key == "source"],
        "taken_from": one.get("from", ""),
        "taken_until": one.get("until", ""),
        "data_version": one.get("version", ""),
    }
    try:
        return parse(ReferenceSettings, values, "--references")
    except SettingsError as error:
        raise UsageError(str(error)) from None
