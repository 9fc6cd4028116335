"""The features of a cross-view network before its last layer."""

from __future__ import annotations

from geoloc.models.cross_view import CrossViewNetwork
from geoloc.models.embedder import Embedder
from geoloc.settings import replace


def without_last_layer(model: CrossViewNetwork) -> CrossViewNetwork:
    """A network of kind embedding without its projection: embeddings are the features of the penultimate layer, of
    length 1. It shares the weights of `model`, and has no orientation head. Raises ValueError if there is no
    projection."""
    if not len(model.projections):
        raise ValueError(f"only a network with a projection has a layer before it, which {model!r} has not")
    towers = [tower for tower in model.towers if isinstance(tower, Embedder)]
    shape = replace(model.shape, embedding_size=None, orientation_hidden=None, scale=None, normalise=True)
    found = CrossViewNetwork(towers, shape, model.settings)
    found.preprocess = model.preprocess
    return found.train(model.training)
