"""The references of `geoloc locate`: the index, which must be of the network that looks, and what it may find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.by_neighbour import votes
from geoloc.localizers.settings import LocalizerSettings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.references import RetrievalError, require_references
from geoloc.retrieval.settings import ReferenceSettings
from geoloc.settings import SettingsError, parse
from orchestration.assets.photo_embedder import PhotoEmbedder
from orchestration.errors import UsageError
from orchestration.lineage.build import Build
from orchestration.locate.question import Question
from orchestration.stores.data_version import verify_data
from orchestration.workspace import WorkspaceError


def open_index(build: Build, model: str, embedder: PhotoEmbedder) -> ReferenceIndex:
    """The build's index by `model`, which must be of embeddings as `embedder` makes them.

    Raises WorkspaceError for an index by another network, layer or components, and for an empty one.
    """
    index = ReferenceIndex.load(build.folder("index") / model)
    if index.model and not embedder.made(index.model):
        raise WorkspaceError(
            f"{build.name('index')} holds embeddings by the model {index.model[:12]}, and {model} of {build.recipe} is "
            f"{embedder.model[:12]}; build it again with: {build.command()}"
        )
    if (numbers := embedder.dimension) != index.dimension:
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


def may_be_found(build: Build, question: Question, index: ReferenceIndex) -> NDArray[np.bool_] | None:
    """Which references a search may find, bool [R]: those that the question asks for, else those of the settings; None
    for all. Raises UsageError or WorkspaceError if there are none."""
    wanted = _wanted(question) if question.references else build.settings.localizers.references
    if wanted is None:
        return None
    # Only here: it imports what measures references, which takes a second.
    from orchestration.assets.subsets import references_among

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
