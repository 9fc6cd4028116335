"""A network as a graph in an ONNX file, run by ONNX Runtime on processors. Imports no torch, which takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from geoloc.files import DamagedFile, damage_named, sha256_bytes
from geoloc.models.preprocess import Preprocess
from geoloc.settings import parse

FORMAT = 1
METADATA_KEY = "geoloc"
"""The file's metadata is JSON under this key, as in a network's safetensors file."""
IMAGES, FEATURES, SCORES = "images", "features", "scores"
"""The graph's input, uint8 [B, S, S, 3], and outputs, float32 [B, D] and [B, C]; scores only if it has heads."""


@dataclass(frozen=True)
class Graph:
    """An opened graph. Open it with `open` or `of_bytes`.

    `heads` are the names and cell counts of its heads, in order; empty for a network without heads. `weights` is the
    SHA-256 of the safetensors file whose network it is, empty if there is none; `content` is that of the graph itself.
    Equal photos in equal batches give equal bytes, for equal numbers of `threads`.
    """

    preprocess: Preprocess
    heads: dict[str, int]
    weights: str
    content: str
    threads: int
    session: Any = field(repr=False)

    @classmethod
    def open(cls, path: Path | str, threads: int) -> Graph:
        """The graph in a file. Raises FileNotFoundError if it is missing, DamagedFile if it is not such a graph."""
        with damage_named(path):
            return cls.of_bytes(Path(path).read_bytes(), threads, path)

    @classmethod
    def of_bytes(cls, data: bytes, threads: int, path: Path | str = "") -> Graph:
        """The graph in the bytes of a file; `path` names it in errors. Raises the errors of ONNX Runtime, and
        DamagedFile for a graph of another format."""
        onnxruntime.disable_telemetry_events()
        # Errors only: it warns of each device that it does not find.
        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads wait instead of spinning: those that decode photos need the processors.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        metadata = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
        if metadata.get("format") != FORMAT:
            raise DamagedFile(
                path, f"it is a graph of format {metadata.get('format')}, this code reads {FORMAT}"
            )
        return cls(
            parse(Preprocess, metadata["preprocess"], "preprocess"),
            dict(metadata["heads"]),
            metadata["weights"],
            sha256_bytes(data),
            threads,
            session,
        )

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The named outputs for images, uint8 [B, S, S, 3], which the graph normalises itself."""
        found: list[NDArray[np.float32]] = self.session.run(list(outputs), {IMAGES: images})
        return found

    def probabilities(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The probabilities of the cells of each head, float32 [B, C of the head], for images as in `run`."""
        (scores,) = self.run(images, [SCORES])
        ends = np.cumsum(list(self.heads.values()))[:-1]
        return {
            name: _softmax(of_head)
            for name, of_head in zip(self.heads, np.split(scores, ends, axis=1), strict=True)
        }

    def unit_embeddings(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """L2-normalised features, float32 [B, D], and their norms [B] before that, for images as in `run`. The vector
        of a norm of 0 is 0; if the norm is not finite, neither is the vector."""
        (features,) = self.run(images, [FEATURES])
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return features / np.maximum(norms, np.float32(1e-12)), norms[:, 0]


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of each row."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
