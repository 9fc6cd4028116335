"""The answer of `geoloc audit` as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestration.lineage.behind import photo_lines, photos_lines
from orchestration.lineage.numbers import number_line
from orchestration.lineage.origin import commit_text


def state_text(node: dict[str, Any]) -> str:
    """The state of an output, with the files that changed."""
    if "settings" not in node and node.get(
        "taken_down"
    ):  # a leaf: photos, or an output that is not as it was
        return f"{node['on_disk']}: {taken_down_text(node['taken_down'])} since"
    files = [name for name in node.get("changed_files", ()) if name != "."]
    if node["on_disk"] != "changed" or not files:
        return str(node["on_disk"])
    return f"changed: {', '.join(files[:3])}" + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def taken_down_text(count: int) -> str:
    """How many photos were taken down, as a sentence."""
    return f"{count:,} photo{'s' * (count != 1)} {'were' if count != 1 else 'was'} taken down"


def answer_lines(answer: dict[str, Any]) -> Iterator[str]:
    """The answer of `audit_asked` as text."""
    if answer.get("named_by"):
        yield answer["named_by"]
    if "number" in answer:
        yield number_line(answer["number"])
    if "answers" in answer:
        yield from _answers_lines(answer)
    if "photo_id" in answer:
        yield from photo_lines(answer)
    elif "made_from" in answer:
        yield from audit_lines(answer)
        yield from (f"    {name}: {value}" for name, value in answer.get("facts", {}).items())
    else:
        yield f"{answer['artefact']}  content {answer['data']['content']}  {answer['data']['on_disk']}"
    if "shard_photos" in answer:
        ids = answer["shard_photos"]
        yield f"    {len(ids):,} photos: {', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}"
    photos = answer["photos"]
    yield ""
    if "missing" in photos:
        yield f"photos: {photos['missing']}"
    else:
        if "note" in photos:
            yield photos["note"]
        yield from photos_lines(photos)
    yield "on disk: all as recorded" if not answer["differs"] else "on disk, not as recorded:"
    yield from (f"    {line}" for line in answer["differs"])


def audit_lines(tree: dict[str, Any]) -> Iterator[str]:
    """The tree of `audit` as text; an artefact that occurs twice is printed in full once."""
    seen: set[tuple[str, str]] = set()

    def walk(node: dict[str, Any], indent: str, arrow: str) -> Iterator[str]:
        yield f"{indent}{arrow}{node['artefact']}  content {node['content'][:12]}  {state_text(node)}"
        indent += "    "
        key = (node["artefact"], node["content"])
        if key in seen:
            if node["made_from"]:
                yield f"{indent}(as above)"
            return
        seen.add(key)
        if "settings" in node:
            yield from (f"{indent}{line}" for line in node_lines(node))
        for branch in node["made_from"]:
            yield from walk(branch, indent, "← ")

    yield from walk(tree, "", "")


def node_lines(node: dict[str, Any]) -> Iterator[str]:
    """What the record of an output says, and what its checks found."""
    yield f"settings {node['settings_hash'][:12]}, code {node['code_version']}"
    for kind in ("workspace", "code"):
        commit, dirty, patch = (node[f"{kind}_{name}"] for name in ("commit", "dirty", "patch"))
        stored = f", stored as patch {patch[:12]}" if patch else ""
        yield f"{kind} commit {commit_text(commit, dirty)}{stored}"
    for name in ("Dagster", "MLflow"):
        if run := node[f"{name.lower()}_run"]:
            yield f"{name} run {run}"
    for model in node["models"]:
        yield f"{_model_text(model)}"
    yield f"made {node['started_at']} in {node['seconds']:.1f} s" + _hardware_text(node["hardware"])
    if node["taken_from"]:
        yield f"taken from {node['taken_from']}, equal in inputs, settings and code"
    for name, part in node["parts"].items():
        if part["taken_from"]:
            yield f"{name} taken from {part['taken_from']}, equal in inputs, settings and code"
    if count := node["taken_down"]:
        yield f"{taken_down_text(count)} since it was made: it cannot be made again as it was"
    for check in node["checks"]:
        yield f"check {check['name']}: {check['result']}" + (
            f" ({check['detail']})" if check["result"] != "passed" and check["detail"] else ""
        )
    for one in node["accepted"]:
        yield (f"accepted for code {one['code_version']} by {one['by']} on {one['at']}: {one['reason']}")


def _answers_lines(answer: dict[str, Any]) -> Iterator[str]:
    counts = answer["answers"]
    yield f"{counts['photos']:,} photo{'s' * (counts['photos'] != 1)}, {counts['located']:,} located"
    yield "    asked: " + (
        ", ".join(f"{name} {value}" for name, value in answer["question"].items()) or "by class"
    )
    yield from (f"    {name} {value}" for name, value in answer.get("answer", {}).items())


def _model_text(model: dict[str, Any]) -> str:
    """A registered model version, with its aliases and what was said of it."""
    text = f"registered model {model['name']}/{model['version']}"
    text += "".join(f", alias {alias}" for alias in model["aliases"])
    text += "".join(f"; {key}: {value}" for key, value in model["tags"].items())
    for one in model.get("decisions", ()):
        text += f"; {one.get('outcome', 'decided')} by {one.get('by', 'nobody')}"
        text += f": {one['reason']}" if one.get("reason") else ""
    return text


def _hardware_text(hardware: dict[str, str]) -> str:
    if not hardware:
        return ""
    on = ", ".join(hardware[name] for name in ("processor", "gpu") if name in hardware)
    return f" on {on}, threads {hardware['threads']}"
