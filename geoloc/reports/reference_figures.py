"""The report's figure of accuracy against the number of references."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from geoloc.evaluation.diagnostics import AT_RANDOM
from geoloc.reports.style import drawing, method_colour, method_dash, new_figure, png
from geoloc.reports.thoughts import Figure, FigureGroup


def reference_group(table: pd.DataFrame | None) -> tuple[FigureGroup, ...]:
    """The group of figures of a table REFERENCE_SIZE (diagnostics); empty without it, or with one size alone."""
    if table is None or table.loc[table["drawn"] == AT_RANDOM, "references"].nunique() < 2:
        return ()
    drawn = table[table["drawn"] == AT_RANDOM]
    least, most = int(drawn["references"].min()), int(drawn["references"].max())
    return (
        FigureGroup(
            "More reference photos",
            "The accuracy of answers by neighbour with random subsets of the references, each within the next larger "
            "one; at the right stand all of them. A line that still rises there says that more photos would help. "
            "Bands are intervals by photographer, and know nothing of the luck of the draw of the references. After "
            "Revisiting IM2GPS, section 4.5.",
            (
                Figure(
                    "reference-size",
                    reference_size_figure(drawn),
                    "Accuracy at each level against the number of references, a line a method",
                    f"From {least:,} to {most:,} references, on a logarithmic scale.",
                ),
            ),
        ),
    )


def reference_size_figure(table: pd.DataFrame) -> bytes:
    """Accuracy against the number of references, drawn at random, as PNG: a panel a level, a line a method."""
    levels = list(dict.fromkeys(zip(table["level"], table["km"], strict=True)))
    methods, sizes = list(dict.fromkeys(table["method"])), sorted(set(table["references"]))
    with drawing():
        figure = new_figure(9.2, 2.6 + 0.2 * len(methods))
        panels = figure.subplots(1, len(levels), squeeze=False)[0]
        for axes, (level, km) in zip(panels, levels, strict=True):
            at = table[table["level"] == level]
            for i, method in enumerate(methods):
                line = at[at["method"] == method].sort_values("references")
                axes.plot(
                    line["references"], line["accuracy"], color=method_colour(i), linestyle=method_dash(i),
                    marker="o", markersize=3, linewidth=1.6, label=method if axes is panels[0] else None,
                )  # fmt: skip
                axes.fill_between(
                    line["references"],
                    line["low"],
                    line["high"],
                    color=method_colour(i),
                    alpha=0.07,
                    linewidth=0,
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator([sizes[0], sizes[-1]]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
            # Bands of few photographers are wide, and lines must stay apart.
            top = float(at["accuracy"].max())
            axes.set_ylim(0, max(min(float(np.nanmax([top, *at["high"]])), 2.5 * top), 1e-3) * 1.05)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.set_title(f"{level}, {km:g} km", fontsize=9)
            axes.tick_params(labelsize=8)
        panels[0].set_ylabel("share of photos, %", fontsize=8.5)
        panels[len(levels) // 2].set_xlabel("references", fontsize=8.5)
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)
        return png(figure, dpi=130)
