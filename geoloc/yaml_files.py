"""YAML files. Apart from geoloc.files: importing yaml takes a fifth of a second, which `geoloc --help` avoids."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from geoloc.files import KINDS, DamagedFile, one_line, read_text

LARGE = 20_000
"""Characters beyond which a text is not kept in memory, such as that of a long dvc.lock."""


def read_yaml(path: Path | str, kind: type = object) -> Any:
    """The value of a YAML file, as `read_json`; None for an empty one. A key that is given twice is damage too."""
    text = read_text(path)
    try:
        value = _parsed(text) if len(text) > LARGE else copy.deepcopy(_parsed_before(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DamagedFile(path, f"not YAML ({_yaml_line(error)})") from error
    if value is not None and not isinstance(value, kind):
        raise DamagedFile(path, f"it must hold {KINDS[kind]}, got {KINDS.get(type(value), repr(value))}")
    return value


def _parsed(text: str) -> Any:
    return yaml.load(text, _YamlLoader)


# One command reads a recipe several times, and PyYAML takes 4 ms each time. Its parser in C is faster, but ends the
# process where lists are nested too deep.
_parsed_before = lru_cache(maxsize=512)(_parsed)


class _YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but of two equal keys the first is not dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":  # a merge may be given again
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _yaml_line(error: Exception) -> str:
    """Where and what, of an error that PyYAML prints with an excerpt of the file."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    if isinstance(error, yaml.reader.ReaderError):
        found = error.character  # text or a number, by the kind of error
        code = found if isinstance(found, int) else ord(found)
        return f"character 0x{code:02x} at position {error.position}"
    return one_line(error)
