"""`geoloc audit --html`: the answer as one offline page, with the graph of what was made from what drawn as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from orchestration.lineage.shown import answer_lines, node_lines, state_text

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 46, 60, 16, 12
"""Of a node and between nodes, in pixels."""
_COLOURS = {"intact": "#2e7d32", "replaced": "#8a6d00", "changed": "#b3261e", "missing": "#b3261e"}
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin:1.4rem 0 .3rem}pre{background:#f5f5f3;padding:.6rem;overflow-x:auto}
.graph{overflow-x:auto;border:1px solid #ddd}svg{display:block}svg text{font:12px system-ui,sans-serif;fill:#222}
svg .hash{font:11px ui-monospace,monospace;fill:#555}svg a:hover rect{fill:#eef3f8}:target{background:#fff7d6}
.bad{color:#b3261e;font-weight:600}.ok{color:#2e7d32;font-weight:600}
"""


@dataclass
class _Node:
    """An artefact in the graph: its first occurrence in the tree, what it was made from, and its place."""

    tree: dict[str, Any]
    above: list[tuple[str, str]] = field(default_factory=list)
    column: int = 0
    row: float = 0


def audit_page(answer: dict[str, Any]) -> str:
    """The answer of `audit_asked` as HTML. Nothing is loaded from elsewhere; no script runs."""
    root = answer if "made_from" in answer else _of_photos(answer)
    nodes = _nodes(root)
    differs = [*answer["differs"], *answer.get("verified", {}).get("differs", ())]
    verdict = (
        '<p class="bad">Not as recorded:</p><ul>'
        + "".join(f"<li>{escape(one)}</li>" for one in differs)
        + "</ul>"
        if differs
        else '<p class="ok">All that is on disk is as recorded.</p>'
    )
    title = escape(f"Audit of {root['artefact']}")
    text = escape("\n".join(answer_lines(answer)))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{verdict}"
        f'<div class="graph">{_svg(nodes)}</div>'
        f"{''.join(_sections(nodes))}<h2>As text</h2><pre>{text}</pre></body></html>\n"
    )


def _of_photos(answer: dict[str, Any]) -> dict[str, Any]:
    """A tree for what is no output: a photo, the pool or a shard, from the data version."""
    name = f"photo:{answer['photo_id']}" if "photo_id" in answer else answer["artefact"]
    data = answer["data"]
    return {"artefact": name, "content": "", "on_disk": data["on_disk"], "made_from": [data]}


def _nodes(root: dict[str, Any]) -> dict[tuple[str, str], _Node]:
    """The artefacts of a tree, each once, placed in columns: what has no input on the left."""
    nodes: dict[tuple[str, str], _Node] = {}

    def walk(tree: dict[str, Any]) -> tuple[str, str]:
        key = (tree["artefact"], tree["content"])
        if key not in nodes:
            nodes[key] = _Node(tree)
            for branch in tree["made_from"]:
                above = walk(branch)
                if above not in nodes[key].above:
                    nodes[key].above.append(above)
            nodes[key].column = max((nodes[one].column + 1 for one in nodes[key].above), default=0)
        return key

    walk(root)
    columns: dict[int, list[_Node]] = {}
    for node in nodes.values():
        columns.setdefault(node.column, []).append(node)
    tallest = max(map(len, columns.values()))
    for column in sorted(columns):
        # Near to what they were made from, so that few lines cross.
        members = sorted(columns[column], key=lambda one: _mean([nodes[key].row for key in one.above]))
        for place, node in enumerate(members):
            node.row = place + (tallest - len(members)) / 2
    return nodes


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _svg(nodes: dict[tuple[str, str], _Node]) -> str:
    """The graph, read from left to right."""
    width = max(_x(node) for node in nodes.values()) + _WIDTH + _MARGIN
    height = max(_y(node) for node in nodes.values()) + _HEIGHT + _MARGIN
    lines = []
    for node in nodes.values():
        for key in node.above:
            x1, y1 = _x(nodes[key]) + _WIDTH, _y(nodes[key]) + _HEIGHT / 2
            x2, y2 = _x(node), _y(node) + _HEIGHT / 2
            bend = max(_GAP_X / 2, (x2 - x1) / 2)
            lines.append(
                f'<path d="M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}" fill="none" '
                'stroke="#999" marker-end="url(#arrow)"/>'
            )
    boxes = []
    for number, node in enumerate(nodes.values()):
        x, y, tree = _x(node), _y(node), node.tree
        colour = _COLOURS.get(tree["on_disk"], "#555")
        name = tree["artefact"] if len(tree["artefact"]) <= 28 else f"{tree['artefact'][:27]}…"
        boxes.append(
            f'<a href="#node-{number}"><title>{escape(tree["artefact"])}: {escape(state_text(tree))}</title>'
            f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="#fff" stroke="{colour}" '
            f'stroke-width="2"/><text x="{x + 8:g}" y="{y + 19:g}">{escape(name)}</text>'
            f'<text class="hash" x="{x + 8:g}" y="{y + 36:g}">{escape(tree["content"][:12])} '
            f"{escape(tree['on_disk'])}</text></a>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="What was made from what" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}"><defs><marker id="arrow" viewBox="0 0 8 8" refX="8" '
        'refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#999"/></marker></defs>'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )


def _x(node: _Node) -> float:
    return _MARGIN + node.column * (_WIDTH + _GAP_X)


def _y(node: _Node) -> float:
    return _MARGIN + node.row * (_HEIGHT + _GAP_Y)


def _sections(nodes: dict[tuple[str, str], _Node]) -> Iterator[str]:
    """What is known of each artefact, with its settings."""
    for number, node in enumerate(nodes.values()):
        tree = node.tree
        facts = "\n".join(node_lines(tree)) if "settings" in tree else f"content {tree['content']}"
        settings = (
            f"<details><summary>settings</summary><pre>"
            f"{escape(json.dumps(tree['settings'], indent=2, ensure_ascii=False, sort_keys=True))}</pre></details>"
            if tree.get("settings")
            else ""
        )
        colour = "ok" if tree["on_disk"] == "intact" else "bad"
        yield (
            f'<section id="node-{number}"><h2>{escape(tree["artefact"])} <span class="{colour}">'
            f"{escape(state_text(tree))}</span></h2><pre>{escape(facts)}</pre>{settings}</section>"
        )
