"""`geoloc audit --html`: the answer as one offline page, with the graph of what was made from what drawn as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from orchestration.lineage.shown import answer_lines, node_lines, state_text

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 46, 24, 44, 12
"""Of a node and between nodes, in pixels."""
_LANE = 8
"""The width that a line takes where it passes between nodes."""
_COLOURS = {"intact": "#2e7d32", "replaced": "#8a6d00", "changed": "#b3261e", "missing": "#b3261e"}
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin:1.4rem 0 .3rem}pre{background:#f5f5f3;padding:.6rem;overflow-x:auto}
.graph{overflow-x:auto;border:1px solid #ddd}svg{display:block}svg text{font:12px system-ui,sans-serif;fill:#222}
svg .hash{font:11px ui-monospace,monospace;fill:#555}svg a:hover rect{fill:#eef3f8}:target{background:#fff7d6}
.bad{color:#b3261e;font-weight:600}.ok{color:#2e7d32;font-weight:600}
"""


@dataclass(eq=False)
class _Node:
    """A place in the graph: an artefact (its first occurrence in the tree), or where a line passes a row (no tree).
    `above`: what it is drawn from."""

    tree: dict[str, Any] | None = None
    above: list[_Node] = field(default_factory=list)
    row: int = 0
    x: float = 0.0

    @property
    def width(self) -> int:
        return _LANE if self.tree is None else _WIDTH

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def y(self) -> float:
        return _MARGIN + self.row * (_HEIGHT + _GAP_Y)


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


def _nodes(root: dict[str, Any]) -> list[_Node]:
    """The artefacts of a tree, each once, and the lanes of lines: placed in rows, what has no input at the top."""
    nodes: dict[tuple[str, str], _Node] = {}

    def walk(tree: dict[str, Any]) -> _Node:
        key = (tree["artefact"], tree["content"])
        if key not in nodes:
            node = nodes[key] = _Node(tree)
            for branch in tree["made_from"]:
                above = walk(branch)
                if above not in node.above:
                    node.above.append(above)
            node.row = max((one.row + 1 for one in node.above), default=0)
        return nodes[key]

    walk(root)
    everything = list(nodes.values())
    for node in nodes.values():
        node.above = [_lanes(one, node.row, everything) for one in node.above]
    _place(everything)
    return everything


def _lanes(above: _Node, row: int, everything: list[_Node]) -> _Node:
    """The last of the lanes that lead a line from a node past the rows before `row`, so that it crosses no box."""
    for passed in range(above.row + 1, row):
        above = _Node(None, [above], passed)
        everything.append(above)
    return above


def _place(nodes: list[_Node]) -> None:
    """Give each node its place in its row: near to what it is drawn from, so that few lines cross."""
    rows: dict[int, list[_Node]] = {}
    for node in nodes:
        rows.setdefault(node.row, []).append(node)
    widest = max(sum(one.width + _GAP_X for one in row) - _GAP_X for row in rows.values())
    for number in sorted(rows):
        row = sorted(rows[number], key=lambda one: sum(a.middle for a in one.above) / max(len(one.above), 1))
        x = _MARGIN + (widest - sum(one.width + _GAP_X for one in row) + _GAP_X) / 2
        for node in row:
            node.x = x
            x += node.width + _GAP_X


def _svg(nodes: list[_Node]) -> str:
    """The graph, read from top to bottom."""
    width = max(one.x + one.width for one in nodes) + _MARGIN
    height = max(one.y for one in nodes) + _HEIGHT + _MARGIN
    lines = [_line(above, node) for node in nodes for above in node.above]
    boxes = []
    for number, node in enumerate(one for one in nodes if one.tree is not None):
        assert node.tree is not None
        x, y, tree = node.x, node.y, node.tree
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


def _line(above: _Node, node: _Node) -> str:
    """A line from one row to the next; with an arrow where it ends at a box. In a lane it goes straight down."""
    x1, y1, x2, y2 = above.middle, above.y + _HEIGHT, node.middle, node.y
    middle = (y1 + y2) / 2
    start = f"M{x1:g} {above.y:g}V{y1:g}" if above.tree is None else f"M{x1:g} {y1:g}"
    arrow = "" if node.tree is None else ' marker-end="url(#arrow)"'
    return f'<path d="{start}C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}" fill="none" stroke="#999"{arrow}/>'


def _sections(nodes: list[_Node]) -> Iterator[str]:
    """What is known of each artefact, with its settings."""
    for number, tree in enumerate(one.tree for one in nodes if one.tree is not None):
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
