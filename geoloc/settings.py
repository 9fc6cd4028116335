"""Typed, frozen settings: a mapping (YAML) parsed into pydantic models. Errors name the key and what is allowed.

A room declares its settings as a model whose fields use `setting(...)`; Number is a float, Name the key of a mapping:

    class S2Settings(Settings):
        max_photos: int = setting(10_000, minimum=1, help="t1: a cell with more photos is split")

    parse(S2Settings, {"max_photos": 0}, "partition.s2")
    SettingsError: partition.s2.max_photos must be at least 1, got 0

A settings module only declares. Code that computes from settings is in the module that uses them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticKnownError

T = TypeVar("T")
S = TypeVar("S", bound="Settings")


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range. The message names key, value and what is allowed."""


def as_mapping(values: Any) -> Any:
    """`values` as a dictionary. Settings objects are returned unchanged; None (an empty section of YAML) is {}."""
    if isinstance(values, Settings):
        return values
    if values is not None and not isinstance(values, Mapping):
        raise PydanticKnownError("dict_type")
    return dict(values or {})


def _as_float(value: Any) -> Any:
    """Text and integers as floats where they are numbers: YAML 1.1 reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except (ValueError, OverflowError):
        return value


FROM_TEXT = BeforeValidator(_as_float)
Number = Annotated[float, FROM_TEXT]
"""A finite float. Use it instead of `float`, which rejects 1e-3 from YAML. For elements of a tuple or mapping with
limits use Annotated[float, Field(ge=0.0), FROM_TEXT]."""
_NAMES = {
    "^[a-z][a-z0-9_]*$": "lower-case words (letters, digits and _, a letter first) as names",
    "^[A-Za-z0-9][A-Za-z0-9 ]*$": "letters, digits and spaces as names, such as LSTM rep 25",
}
_NAME, _TITLE = _NAMES
Name = Annotated[str, StringConstraints(pattern=_NAME)]
"""A name chosen by the user, as the key of a mapping; it becomes part of file names and tables."""
Title = Annotated[str, StringConstraints(pattern=_TITLE)]
"""As Name, with spaces and capitals, as tables show it."""
WholeNumber = BeforeValidator(TypeAdapter(Annotated[int, Strict()]).validate_python)
"""For a Literal of integers: rejects True, which equals 1."""
Text = Annotated[str, BeforeValidator(str)]
"""A key that may be any text, such as 5, which YAML reads as a number."""


class Settings(BaseModel):
    """Base of all settings: frozen, strict, unknown keys are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, values: Any) -> Any:
        values = as_mapping(values)
        if isinstance(values, dict):
            for name in values:
                if name not in cls.model_fields:
                    allowed = ", ".join(sorted(cls.model_fields))
                    raise SettingsError(f"{name} is unknown; allowed here: {allowed}")
            for name, field in cls.model_fields.items():
                if field.is_required() and name not in values:
                    raise SettingsError(f"{name} must be given: {field.description}")
        return values

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other. `parse` calls it with the dotted key of this object."""


def setting(
    default: Any = ...,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    help: str = "",
    factory: Callable[[], Any] | None = None,
    when: tuple[str, tuple[Any, ...]] | None = None,
    counts: bool = True,
) -> Any:
    """A field of settings. Limits are inclusive; limits of the elements of a tuple or mapping belong to the element
    type.

    `when` is (name of a field here or in an enclosing section, values): the setting can change a result only if that
    field has one of the values (a tuple: contains one). `counts=False`: it never changes a result.
    """
    if isinstance(default, list | dict | set):
        raise TypeError("a settings default must be immutable: use a tuple, or a factory for a mapping")
    extra: dict[str, Any] = {} if when is None else {"when": {when[0]: list(when[1])}}
    if not counts:
        extra["counts"] = False
    if factory is not None:
        return Field(default_factory=factory, description=help or None, json_schema_extra=extra)
    lists = False if isinstance(default, tuple) else None  # not strict, because YAML has lists only
    return Field(
        default, ge=minimum, le=maximum, strict=lists, description=help or None, json_schema_extra=extra
    )


def parse(cls: type[T], values: Mapping[str, Any] | None, key: str = "") -> T:
    """Create settings of type `cls` from a mapping; missing keys take their defaults.

    Raises SettingsError that names the full dotted key, the value and what is allowed. Calls `check(key)` of all
    created settings last, for rules between fields.
    """
    made: T = _made(cls, values, key)
    _check_rules(made, key)
    return made


def replace(settings: S, **changes: Any) -> S:
    """A copy with some fields changed. Raises SettingsError for unknown fields, wrong types and values out of range."""
    fields = {name: getattr(settings, name) for name in type(settings).model_fields}
    made: S = _made(type(settings), fields | changes, "")
    return made


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON-able values, the inverse of `parse`."""
    plain: dict[str, Any] = _plain(settings)
    return plain


def used(settings: Any) -> Any:
    """The settings that can change a result, as plain values.

    Without settings that never count and settings whose `when` does not hold. A mapping of sections becomes a list of
    {"name": name, ...}, because its order counts.
    """
    return _plain(settings, {})


def changes(recorded: Any, now: Any, key: str = "") -> list[str]:
    """The dotted keys whose `used` value differs between a record and `now`: settings, a mapping of them, or a value.

    `recorded` is an earlier result of `used`, possibly of older settings: a key that it lacks counts as its default, a
    key that only it has is ignored. Names of mappings and elements of lists are values, not keys.
    """
    return list(_changes(recorded, now, key, {}))


def settings_hash(*settings: Any) -> str:
    """SHA-256 of settings as canonical JSON: equal settings give equal hashes in any process."""
    text = json.dumps([to_dict(s) for s in settings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _made(cls: Any, values: Any, key: str) -> Any:
    try:
        return _adapter(cls).validate_python(values)
    except ValidationError as error:
        raise SettingsError(_message(error, key)) from None


def _check_rules(value: Any, key: str) -> None:
    if isinstance(value, Settings):
        for name in type(value).model_fields:
            _check_rules(getattr(value, name), _join(key, name))
        value.check(key)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_rules(inner, _join(key, name))
    elif isinstance(value, tuple):
        for i, inner in enumerate(value):
            _check_rules(inner, f"{key}[{i}]")


def _message(error: ValidationError, key: str) -> str:
    """pydantic's first error in our own words."""
    first = error.errors(include_url=False)[0]
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    of_key = first["loc"][-1:] == ("[key]",)
    for part in first["loc"][: -2 if of_key else None]:
        if isinstance(part, int):
            key = f"{key}[{part}]"
        elif "=" not in part:  # the tag of a union (kind=s2) is not in the file
            key = _join(key, part)
    if kind == "value_error":  # a SettingsError raised below this key
        return _join(key, str(context["error"]))
    key = key or "settings"
    if of_key:
        return f"{key} must have {_NAMES[context.get('pattern', _NAME)]}, got {value!r}"
    if kind in ("greater_than_equal", "less_than_equal"):
        limit = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return f"{key} must be {limit}, got {value}"
    if kind == "literal_error":  # expected: 'a', 'b' or 'c'
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return f"{key} must be one of {choices}; got {value!r}"
    wanted = {
        "bool_type": "true or false",
        "int_type": "a whole number",
        "float_type": "a number" if isinstance(value, str) else "a finite number",
        "finite_number": "a finite number",
        "string_type": "text",
        "tuple_type": "a list",
        "dict_type": "a mapping",
    }
    return f"{key} must be {wanted[kind]}, got {value!r}" if kind in wanted else f"{key}: {first['msg']}"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)


def _plain(value: Any, scope: Mapping[str, Any] | None = None) -> Any:
    """`value` as plain values: all of them, or only those that are used, given the fields of the enclosing sections."""
    if isinstance(value, Settings):
        fields = _fields(value)
        if scope is None:
            return {name: _plain(inner) for name, inner in fields.items()}
        scope = {**scope, **fields}
        return {n: _plain(inner, scope) for n, inner in fields.items() if _counts(value, n, scope)}
    if isinstance(value, dict):
        if scope is not None and _has_sections(value):
            return [{"name": name, **_plain(inner, scope)} for name, inner in value.items()]
        return {name: _plain(inner, scope) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner, scope) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _changes(recorded: Any, now: Any, key: str, scope: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(now, Settings) and isinstance(recorded, Mapping):
        fields = _fields(now)
        scope = {**scope, **fields}
        for name, value in fields.items():
            field = type(now).model_fields[name]
            if not _counts(now, name, scope):
                continue
            if name in recorded:
                yield from _changes(recorded[name], value, _join(key, name), scope)
            elif field.is_required():
                yield _join(key, name)
            else:
                default = _plain(field.get_default(call_default_factory=True), scope)
                yield from _changes(default, value, _join(key, name), scope)
    elif _has_sections(now) and isinstance(recorded, list):
        before = {section["name"]: section for section in recorded}
        gone = [name for name in before if name not in now]
        yield from (_join(key, name) for name in [*gone, *now] if name in gone or name not in before)
        if [name for name in before if name in now] != [name for name in now if name in before]:
            yield key
        for name in now:
            if name in before:
                yield from _changes(before[name], now[name], _join(key, name), scope)
    elif isinstance(now, dict) and isinstance(recorded, Mapping):
        names = [*now, *(name for name in recorded if name not in now)]
        yield from (
            _join(key, n) for n in names if n not in now or n not in recorded or _plain(now[n]) != recorded[n]
        )
    elif recorded != _plain(now, scope):
        yield key


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in type(settings).model_fields}


def _counts(settings: Settings, name: str, scope: Mapping[str, Any]) -> bool:
    """Whether a field can change a result, given the values of its siblings and of the enclosing sections' fields."""
    extra: Any = type(settings).model_fields[name].json_schema_extra or {}
    for other, values in extra.get("when", {}).items():
        given = scope.get(other, values[0])  # if that field does not exist, the setting always counts
        if not any(one in values for one in (given if isinstance(given, tuple) else (given,))):
            return False
    return bool(extra.get("counts", True))


def _has_sections(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(inner, Settings) for inner in value.values())
