"""`geoloc settings`: every setting with its default, what is allowed and what it means; or all as a JSON Schema."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from orchestration.commands.parsing import add_command

_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
_WIDTH = 100
_HELP = "list every setting of params.yaml and of recipes: default, what is allowed, what it means"
_EXAMPLES = """\
  geoloc settings
  geoloc settings training
  geoloc settings partitions.kmeans
  geoloc settings --schema > settings.schema.json

An editor with a YAML language server completes and checks params.yaml and recipes by that schema: put the line
  # yaml-language-server: $schema=settings.schema.json
at their top, with the path of the schema from the file."""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(subparsers, "settings", _HELP, _EXAMPLES, run)
    parser.add_argument(
        "section", nargs="?", default="", metavar="SECTION", help="only these, such as splits.test"
    )
    parser.add_argument("--schema", action="store_true", help="print a JSON Schema of all settings instead")


def run(options: argparse.Namespace) -> None:
    """Print the settings, or their schema. Needs no workspace. Raises UsageError for an unknown section."""
    from orchestration.errors import UsageError

    schema = settings_schema()
    if options.schema and options.section:
        raise UsageError("--schema is of all settings: leave SECTION out")
    if options.schema:
        print(json.dumps(schema, indent=2, ensure_ascii=False))
        return
    sections = list_settings(schema)
    wanted = [section for section in sections if _is_below(section.key, options.section)]
    if not wanted:  # a single setting
        alone = [section.only(options.section) for section in sections]
        wanted = [section for section in alone if section.rows]
    if not wanted:
        known = ", ".join(_plain_key(section.key) for section in sections if section.key)
        raise UsageError(f"SECTION must be one of {known}, or a setting; got {options.section}")
    print("\n\n".join(map(str, wanted)))


class Row(NamedTuple):
    """A setting."""

    key: str
    default: str
    allowed: str
    help: str


class Section(NamedTuple):
    """A section: its dotted key ("" for the top), what it is, and its own settings, those of inner sections apart."""

    key: str
    help: str
    rows: list[Row]

    def only(self, key: str) -> Section:
        """The section with one setting, or none, left."""
        return self._replace(rows=[row for row in self.rows if _plain_key(row.key) == key])

    def __str__(self) -> str:
        keys, defaults = (max((len(row[i]) for row in self.rows), default=0) for i in (0, 1))
        lines = textwrap.wrap(f"{self.key}: {self.help}" if self.key else self.help, _WIDTH)
        for row in self.rows:
            lines.append(f"  {row.key:{keys}}  {row.default:{defaults}}  {row.allowed}".rstrip())
            lines += textwrap.wrap(row.help, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
        return "\n".join(lines)


def settings_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of params.yaml and of recipes."""
    from orchestration.plan.settings import STANDALONE, BuildSettings

    schema = BuildSettings.model_json_schema()
    del schema["properties"]["recipe"]  # its file names a recipe
    schema["properties"][STANDALONE] = {
        "type": "boolean",
        "default": False,
        "description": "only in a recipe: inherit nothing from params.yaml",
    }
    _finish(schema)
    return {"$schema": _SCHEMA, "title": "Settings of geoloc", **schema}


def list_settings(schema: Mapping[str, Any]) -> list[Section]:
    """All settings of `settings_schema`, section by section."""
    sections: dict[str, Section] = {}
    for above, row, help in _rows("", schema, schema["$defs"]):
        sections.setdefault(above, Section(above, help, [])).rows.append(row)
    return list(sections.values())


def _finish(node: Any) -> None:
    """Conditions become part of the descriptions, which editors show; names of mappings are checked; no titles."""
    if isinstance(node, list):
        for inner in node:
            _finish(inner)
    if not isinstance(node, dict):
        return
    for name, inner in node.items():
        if name != "default":
            _finish(inner)
    if isinstance(node.get("title"), str):
        del node["title"]
    if isinstance(node.get("when"), dict):
        ((other, values),) = node.pop("when").items()
        node["description"] += f" (counts only where {other} is {' or '.join(map(str, values))})"
    if node.get("counts") is False:
        del node["counts"]
        node["description"] += " (never changes a result)"
    if "patternProperties" in node:
        node["additionalProperties"] = False


def _rows(
    key: str, node: Mapping[str, Any], known: Mapping[str, Any], help: str = ""
) -> Iterator[tuple[str, Row, str]]:
    """The settings below a section: the key of the section of each, the setting, and what the section is."""
    help = help or node["description"].split("\n\n")[0].replace("\n", " ")
    inner = []
    for name, field in node["properties"].items():
        path = f"{key}.{name}" if key else name
        sections = _sections(field, known)
        if sections:
            inner += [(path + ".NAME" * _by_name(field), one, field) for one in sections]
        else:
            yield key, Row(path, _default(field), _allowed(field), field["description"]), help
    seen: set[str] = set()
    for path, section, field in inner:
        about = field.get("description", "") + "; default: null" * _is_null(field)
        for above, row, of in _rows(path, section, known, about):
            if row.key not in seen:  # what all kinds of a partition have
                yield above, row, of
            seen.add(row.key)


def _sections(field: Mapping[str, Any], known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sections that a field is, or has by name; none for a plain setting."""
    nodes = [field, *field.get("anyOf", ()), *field.get("patternProperties", {}).values()]
    nodes += [one for node in nodes for one in node.get("oneOf", ())]
    return [known[node["$ref"].rpartition("/")[2]] for node in nodes if "$ref" in node]


def _by_name(field: Mapping[str, Any]) -> bool:
    return "patternProperties" in field


def _is_null(field: Mapping[str, Any]) -> bool:
    return "default" in field and field["default"] is None


def _default(field: Mapping[str, Any]) -> str:
    if "default" not in field:
        return "{}" if field.get("type") == "object" else "must be given"
    value = field["default"]
    return value if isinstance(value, str) and value else json.dumps(value)


def _allowed(field: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in field:
        return " or ".join(_allowed(one) for one in field["anyOf"])
    if "enum" in field:
        return f"one of {', '.join(map(str, field['enum']))}"
    if field["type"] == "array":
        return f"list: each {_allowed(field['items'])}"
    if field["type"] == "object":
        inner = field.get("additionalProperties") or next(iter(field["patternProperties"].values()))
        return f"mapping: each {_allowed(inner)}"
    if "const" in field or field["type"] == "null":
        return "null" if field["type"] == "null" else ""
    words = {"integer": "whole number", "boolean": "true or false", "string": "text"}
    limits = {"at least": field.get("minimum"), "at most": field.get("maximum")}
    named = ", ".join(f"{side} {limit:,}" for side, limit in limits.items() if limit is not None)
    return f"{words.get(field['type'], field['type'])} {named}".strip()


def _plain_key(key: str) -> str:
    return key.replace(".NAME", "")


def _is_below(key: str, section: str) -> bool:
    return not section or f"{_plain_key(key)}.".startswith(f"{section}.")
