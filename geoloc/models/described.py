"""Networks that answer from stored probabilities and embeddings, in files that describe them: settings and weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import nn

from geoloc.files import atomic_path, one_line
from geoloc.models.weights import METADATA_KEY, WeightsError, read_safetensors

FORMAT = 1
N = TypeVar("N", bound=nn.Module)


def save_described(path: Path | str, kind: str, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a network to one safetensors file, atomically; equal networks give equal bytes. `description` is JSON-able:
    what `build` of load_described needs."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {"format": FORMAT, "kind": kind, **description}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_described(path: Path | str, kind: str, build: Callable[[dict[str, Any]], N]) -> N:
    """The network that save_described wrote, in eval mode on the CPU; `build` makes it from its description.

    Raises WeightsError for a damaged file, one of another kind or format, or one with other weights.
    """
    tensors, metadata = read_safetensors(path)
    if metadata is None or metadata.get("kind") != kind:
        raise WeightsError(f"{path} is not a geoloc {kind} network: its header does not describe one")
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} has format {metadata.get('format')}, this code reads format {FORMAT}")
    try:
        model = build(metadata)
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise WeightsError(
            f"{path} does not have the weights that its header describes: {one_line(error)}"
        ) from error
    return model.eval()
