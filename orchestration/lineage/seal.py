"""Seals: a hash of its own content inside each small JSON file about an output, so that a changed byte is found."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from geoloc.files import DamagedFile, read_json, sha256_bytes

SEAL = "seal"


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with its seal, in place of an earlier one."""
    return {**value, SEAL: _seal(value)}


def broken_seal(path: Path, known: Collection[str]) -> str:
    """Why a file is not as geoloc wrote it; "" if it is, or if it is of a version that wrote no seals.

    The file holds a sealed mapping with keys of `known`, or a list of them. Layout counts too: not a byte may differ.
    """
    try:
        value = read_json(path)
    except (DamagedFile, OSError) as error:
        return str(getattr(error, "why", None) or error)
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in entries):
        return "it holds no records"
    if unknown := [name for one in entries for name in one if name not in known and name != SEAL]:
        return f"it has the unknown key {unknown[0]!r}"  # such as a seal that is called otherwise now
    if any(SEAL in one and one[SEAL] != _seal(one) for one in entries):
        return "its seal is broken: it was changed after it was written"
    if any(SEAL in one for one in entries) and path.read_bytes() != _as_written(value):
        return "its layout was changed after it was written"
    return ""


def resealed(before: str, after: str) -> str:
    """`after`, the changed text of a file, with new seals if those of `before` were whole; else as it is."""
    if SEAL not in before:
        return after
    try:
        old, new = json.loads(before), json.loads(after)
    except ValueError:
        return after
    olds, news = (value if isinstance(value, list) else [value] for value in (old, new))
    if not all(isinstance(one, dict) and one.get(SEAL) == _seal(one) for one in olds):
        return after
    renewed = [sealed(one) for one in news]
    return _as_written(renewed if isinstance(new, list) else renewed[0]).decode("utf-8", "surrogatepass")


def _seal(value: Mapping[str, Any]) -> str:
    rest = {name: one for name, one in value.items() if name != SEAL}
    return sha256_bytes(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _as_written(value: Any) -> bytes:
    """The bytes of the file that holds a value; keys are in the order in which they were read."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
