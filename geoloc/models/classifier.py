"""The classifier: an embedder with linear heads over cells; built from settings, saved, loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from geoloc.files import atomic_path, one_line
from geoloc.models.backbones import Backbone
from geoloc.models.embedder import Embedder, build_backbone, name_of_weights
from geoloc.models.heads import Heads
from geoloc.models.hierarchy import HierarchicalSoftmax, Parents
from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import ModelSettings
from geoloc.models.weights import METADATA_KEY, WeightsError, read_safetensors
from geoloc.settings import parse, replace, to_dict, used

FORMAT = 2


class Classifier(Heads, Embedder):
    """Scores of the cells of one or several partitions (Revisiting IM2GPS, figure 3: an embedder and one layer per
    partition; [L] has one, [M] several).

    `heads` maps the name of each partition to its number of cells, in order, the main one first; C is their sum. The
    heads are one matrix; `split` separates their scores. The softmax of a head's scores gives its probabilities. With
    settings.softmax hierarchical, scores are log-probabilities, computed with `parents`.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, int],
        settings: ModelSettings,
        preprocess: Preprocess,
        parents: Parents | None = None,
    ) -> None:
        super().__init__(backbone, settings, preprocess)
        if not heads or min(heads.values()) < 1:
            raise ValueError(
                f"a classifier needs at least one head, each with at least one cell, got {dict(heads)}"
            )
        self.heads = dict(heads)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(self.embedding_size, sum(self.heads.values()))
        self.parents = parents if settings.softmax == "hierarchical" else None
        self.hierarchy: nn.Module = nn.Identity()
        if settings.softmax == "hierarchical":
            if parents is None:
                raise ValueError("model.softmax hierarchical needs the parents of the cells, got none")
            self.hierarchy = HierarchicalSoftmax(self.heads, parents)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Scores (logits, or log-probabilities) [B, C] of pooled features [B, D]."""
        scores: torch.Tensor = self.hierarchy(self.head(self.dropout(features)))
        return scores

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (logits) [B, C] of images [B, 3, S, S]."""
        return self.classify(self.embed(images))

    def __repr__(self) -> str:
        s = self.settings
        heads = ", ".join(f"{name} {count} cells" for name, count in self.heads.items())
        return (
            f"Classifier({s.backbone}, {s.pooling} pooling, {self.embedding_size} features, {heads}, "
            f"{self.preprocess.image_size} px)"
        )


def build_classifier(
    settings: ModelSettings, heads: Mapping[str, int], seed: int, parents: Parents | None = None
) -> Classifier:
    """A classifier with the settings' initial weights and random heads. `heads` gives the name and number of cells of
    each; `parents` (hierarchy.nested_parents) are required if settings.softmax is hierarchical.

    Equal arguments give equal weights. Raises the errors of build_backbone.
    """
    backbone, preprocess = build_backbone(settings, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            seed + 1
        )  # not the backbone's seed: head and first layer would get the same numbers
        model = Classifier(backbone, heads, settings, preprocess, parents)
    model.initial_weights = name_of_weights(settings.weights)
    return model


def save_model(path: Path | str, model: Classifier) -> None:
    """Write a model to one safetensors file, atomically; equal models give equal bytes.

    Its header holds settings, preprocessing and the source of the initial weights (a file by its hash, never its path).
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "kind": "classifier",
        "settings": used(replace(model.settings, weights="none")),
        "preprocess": to_dict(model.preprocess),
        "heads": list(model.heads.items()),
        "parents": None
        if model.parents is None
        else [[name, parent.tolist()] for name, parent in model.parents.items()],
        "initial_weights": model.initial_weights,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_model(path: Path | str) -> Classifier:
    """The model that save_model wrote, in eval mode on the CPU. Raises WeightsError for a damaged file or one
    without a model."""
    tensors, metadata = read_safetensors(path)
    if metadata is None or metadata.get("kind") != "classifier":
        raise WeightsError(f"{path} is not a geoloc classifier: its header does not describe one")
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} has format {metadata.get('format')}, this code reads format {FORMAT}")
    try:
        return _restored(tensors, metadata).eval()
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise WeightsError(
            f"{path} does not have the weights that its header describes: {one_line(error)}"
        ) from error


def _restored(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Classifier:
    """The model that the header of a file describes, with the weights in the file."""
    parents = metadata["parents"]
    model = build_classifier(
        parse(ModelSettings, metadata["settings"], "model"),
        dict(metadata["heads"]),
        seed=0,
        parents=None if parents is None else {name: np.asarray(parent) for name, parent in parents},
    )
    model.preprocess = parse(Preprocess, metadata["preprocess"], "preprocess")
    model.initial_weights = metadata["initial_weights"]
    model.load_state_dict(tensors)
    return model
