"""Deterministic torch during a training; all global settings are restored afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu or cuda. Raises ValueError for cuda if there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device is cuda, but torch finds no such device; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """A block with deterministic algorithms and a separate state of torch's random numbers.

    On the CPU an operation without a deterministic form raises an error. On CUDA it warns, because the backward passes
    of some layers have none.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get(_CUBLAS)
    cuda = device.type == "cuda"
    try:
        if cuda:
            os.environ.setdefault(_CUBLAS, ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=cuda)
        # Filling every new tensor with NaN would find reads of unset memory, but costs a pass over memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
        if cuda and workspace is None:
            os.environ.pop(_CUBLAS, None)
