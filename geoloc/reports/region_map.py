"""The answer map with the regions of stated coverage: their cells outlined, and their size said beside the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geoloc.reports.answer_map import answer_map_html

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


def region_map_html(answers: Sequence[Mapping[str, Any]], partitions: Mapping[str, Partition]) -> str:
    """The page of `answer_map_html`, which see for `answers`, drawn with regions.

    Where an answer has `regions`, mappings of `coverage`, `partition` (a name in `partitions`), `tokens` of cells
    (None: anywhere) and `text` for people, the one of largest coverage that is not anywhere is outlined, and all
    are told. Raises KeyError for a partition or a cell that is not there, and what answer_map_html raises.
    """
    cells = {
        name: {token: cell for cell, token in enumerate(partition.tokens())}
        for name, partition in partitions.items()
    }
    drawn = []
    for answer in answers:
        regions = answer.get("regions") or ()
        bounded = [region for region in regions if region["tokens"] is not None]
        # Without an answer the page has no map: what is known is told all the same.
        placed = answer.get("latitude") is not None
        shown = max(bounded, key=lambda region: region["coverage"], default=None) if placed else None
        told = [("outlined: " if region is shown else "") + region["text"] for region in regions]
        rings = []
        if shown is not None:
            partition, numbers = partitions[shown["partition"]], cells[shown["partition"]]
            rings = [ring for token in shown["tokens"] for ring in partition.rings(numbers[token])]
        key = "method" if placed else "error"
        said = " · ".join([answer[key], *told] if answer.get(key) else told)
        drawn.append({**answer, key: said, "outline": rings})
    return answer_map_html(drawn)
