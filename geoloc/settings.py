"""Typed, frozen settings: from a mapping (YAML) to dataclasses, with errors that name the key and what is allowed.

A room declares its settings as a frozen dataclass whose fields use `setting(...)`:

    @dataclass(frozen=True)
    class S2Settings:
        max_photos: int = setting(10_000, minimum=1, help="t1: a cell with more photos is split")

    parse(S2Settings, {"max_photos": 0}, "partition.s2")
    SettingsError: partition.s2.max_photos must be at least 1, got 0
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What users may call a thing of theirs in the settings: it becomes part of file names and of tables."""


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range. The message names key, value and what is allowed."""


def setting(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
    help: str = "",
    factory: Callable[[], Any] | None = None,
    names: bool = False,
) -> Any:
    """A dataclass field with limits. Limits are inclusive; for a tuple or mapping they hold for each element.

    A mapping (a field of type dict[str, X], X a number, text or a settings dataclass) takes its default from
    `factory`; with `names`, its keys must be lower-case words (letters, digits and _, a letter first).
    """
    metadata = {"minimum": minimum, "maximum": maximum, "choices": choices, "help": help, "names": names}
    if isinstance(default, list | dict | set):
        raise TypeError("a settings default must be immutable: use a tuple, or a factory for a mapping")
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse(cls: type[T], values: Mapping[str, Any] | None, key: str = "") -> T:
    """Make settings of dataclass `cls` from a mapping; absent keys take their defaults.

    Raises SettingsError that names the full dotted key, the value and what is allowed. If the dataclass has a
    method `validate(key)`, it is called last for rules between fields.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise SettingsError(f"{key or 'settings'} must be a mapping, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise SettingsError(f"{_join(key, name)} is unknown; allowed here: {', '.join(sorted(fields))}")
    arguments = {}
    for name, field in fields.items():
        path = _join(key, name)
        if name in values:
            arguments[name] = _convert(values[name], hints[name], path, field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{path} must be given: {field.metadata.get('help', '')}".rstrip(": "))
    made = cls(**arguments)
    if hasattr(made, "validate"):
        made.validate(key)
    return made


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON-able values, the inverse of `parse`."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple | list):
            return [plain(v) for v in value]
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(settings)


def settings_hash(*settings: Any) -> str:
    """SHA-256 of settings as canonical JSON: equal settings give equal hashes in any process."""
    text = json.dumps([to_dict(s) for s in settings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)


def _convert(value: Any, hint: Any, key: str, limits: Mapping[str, Any]) -> Any:
    """`value` as type `hint`, checked against the limits of its field."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [t for t in inner if t is not type(None)]
        if len(options) != 1:
            raise TypeError(f"{key}: settings of type {hint!r} are not supported: one type, or None")
        if value is None:
            return None
        return _convert(value, options[0], key, limits)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else parse(hint, value, key)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{key} must be a list, got {value!r}")
        elements = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(elements) != len(value):
            raise SettingsError(f"{key} must be a list of {len(elements)}, got {value!r}")
        pairs = zip(value, elements, strict=True)
        return tuple(_convert(v, element, f"{key}[{i}]", limits) for i, (v, element) in enumerate(pairs))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{key} must be a mapping, got {value!r}")
        for name in value if limits.get("names") else ():
            if not NAME.fullmatch(str(name)):
                raise SettingsError(
                    f"{key} must have lower-case words (letters, digits and _, a letter first) as names, got {name!r}"
                )
        return {str(k): _convert(v, inner[1], _join(key, k), limits) for k, v in value.items()}
    return _check(_scalar(value, hint, key), key, limits)


def _scalar(value: Any, hint: type, key: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise SettingsError(f"{key} must be true or false, got {value!r}")
    if hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise SettingsError(f"{key} must be a whole number, got {value!r}")
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            try:
                value = float(value)
            except ValueError:
                raise SettingsError(f"{key} must be a number, got {value!r}") from None
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        ):
            return float(value)
        raise SettingsError(f"{key} must be a finite number, got {value!r}")
    if hint is str:
        if isinstance(value, str):
            return value
        raise SettingsError(f"{key} must be text, got {value!r}")
    raise TypeError(f"{key}: settings of type {hint!r} are not supported")


def _check(value: Any, key: str, limits: Mapping[str, Any]) -> Any:
    if limits.get("minimum") is not None and value < limits["minimum"]:
        raise SettingsError(f"{key} must be at least {limits['minimum']}, got {value}")
    if limits.get("maximum") is not None and value > limits["maximum"]:
        raise SettingsError(f"{key} must be at most {limits['maximum']}, got {value}")
    if limits.get("choices") and value not in limits["choices"]:
        allowed = ", ".join(map(str, limits["choices"]))
        raise SettingsError(f"{key} must be one of {allowed}; got {value!r}")
    return value
