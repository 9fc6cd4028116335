"""Figures about numbers: accuracy against distance, intervals level by level, training curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from geoloc.evaluation.result import Evaluation
from geoloc.reports.style import GRID, INK, MUTED, drawing, method_colour, method_dash, new_figure, png

_BASELINE_MARKS = {"best constant point": "D", "random reference": "v"}


def accuracy_curve_figure(evaluation: Evaluation) -> bytes:
    """Accuracy against distance (log km) as PNG: methods with intervals, baselines, ceilings."""
    with drawing():
        figure = new_figure(9.2, 4.9)
        axes = figure.add_subplot()
        handles: list[Line2D] = []
        for level, km in evaluation.levels_km.items():
            axes.axvline(km, color=GRID, linewidth=1.2, zorder=0)
            axes.annotate(
                f"{level}\n{km:g} km", (km, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", va="bottom", fontsize=8, color=MUTED,
            )  # fmt: skip
        lines = evaluation.curve
        for name, line in lines[lines["kind"] == "ceiling"].groupby("name", sort=False):
            handles += axes.plot(
                line["km"],
                line["accuracy"],
                color=INK,
                linewidth=1.1,
                linestyle=(0, (1, 1.6)),
                label=str(name),
            )
        for i, method in enumerate(evaluation.methods):
            line = lines[(lines["kind"] == "method") & (lines["name"] == method)]
            colour, at = method_colour(i), evaluation.accuracy[evaluation.accuracy["method"] == method]
            handles += axes.plot(
                line["km"],
                line["accuracy"],
                color=colour,
                linewidth=1.9,
                linestyle=method_dash(i),
                label=method,
            )
            # Intervals of several methods at one level would hide each other: spread them a little.
            offset = 1.035 ** (i - (len(evaluation.methods) - 1) / 2)
            axes.vlines(at["km"] * offset, at["low"], at["high"], color=colour, linewidth=1.6, alpha=0.75)
        for name, line in lines[lines["kind"] == "baseline"].groupby("name", sort=False):
            handles += axes.plot(
                line["km"],
                line["accuracy"],
                color=MUTED,
                linewidth=1.2,
                linestyle="--",
                label=str(name),
            )
        for name, mark in _BASELINE_MARKS.items():
            at = evaluation.baselines[evaluation.baselines["baseline"] == name]
            if len(at):
                handles += axes.plot(
                    at["km"], at["accuracy"], linestyle="none", marker=mark, markersize=5.5, color=MUTED,
                    markerfacecolor="white", zorder=5, label=name,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(lines["km"].min(), lines["km"].max())
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda km, _: f"{km:,g}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(False, axis="x")
        axes.set_xlabel("distance between answer and truth, km (log scale)")
        axes.set_ylabel(f"share of all {evaluation.queries:,} photos within it")
        figure.legend(handles=handles, loc="outside right upper", fontsize=8.5)
        return png(figure)


def interval_figure(evaluation: Evaluation) -> bytes:
    """Accuracy with its interval, a panel a level, as PNG: methods in colour, baselines in grey, ceilings dotted."""
    baselines = list(dict.fromkeys(evaluation.baselines["baseline"]))
    names = [*evaluation.methods, *baselines]
    table = pd.concat([evaluation.accuracy, evaluation.baselines.rename(columns={"baseline": "method"})])
    best_ceiling = evaluation.ceilings.groupby("level")["accuracy"].max()
    with drawing():
        figure = new_figure(9.2, 0.9 + 0.27 * len(names))
        panels = figure.subplots(1, len(evaluation.levels_km), sharey=True, squeeze=False)[0]
        for axes, (level, km) in zip(panels, evaluation.levels_km.items(), strict=True):
            at = table[table["level"] == level].set_index("method")
            for y, name in enumerate(names):
                colour = method_colour(y) if y < len(evaluation.methods) else MUTED
                row = at.loc[name]
                axes.plot(
                    [row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="round"
                )
                axes.plot(
                    row["accuracy"],
                    y,
                    "o" if y < len(evaluation.methods) else "D",
                    color=colour,
                    markersize=5,
                    clip_on=False,  # a mark at 0 is whole
                    zorder=3,
                )
            right = float(np.nanmax(at[["accuracy", "high"]].to_numpy()))
            ceiling = float(best_ceiling.get(level, np.nan))
            if np.isfinite(ceiling) and ceiling <= 2.5 * right:  # a far-off ceiling would squeeze the rest
                axes.axvline(ceiling, color=INK, linewidth=1.1, linestyle=(0, (1, 1.6)))
                right = max(right, ceiling)
            axes.set_xlim(0, max(right, 1e-3) * 1.08)
            axes.set_title(f"{level}, {km:g} km", fontsize=9)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.tick_params(labelsize=8)
            axes.tick_params(axis="y", length=0, pad=8)
            axes.grid(False, axis="y")
        panels[0].set_yticks(range(len(names)), [name for name in names])
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        for label in panels[0].get_yticklabels():
            label.set_color(INK)
        return png(figure)


def training_figure(history: pd.DataFrame) -> bytes:
    """Training curves as PNG: losses in one panel, accuracies in another, over the epochs.

    `history` has a row an epoch and a column `epoch`. Numeric columns whose names hold "loss" go left, and those
    that hold "accuracy" or "recall" go right; others are left out. Raises ValueError where neither is there.
    """
    columns = list(history.select_dtypes("number").columns)
    groups = {
        "loss": [c for c in columns if "loss" in c],
        "accuracy": [c for c in columns if "accuracy" in c or "recall" in c],
    }
    groups = {name: found for name, found in groups.items() if found}
    if not groups:
        raise ValueError("a training history needs columns named loss or accuracy")
    epochs = history["epoch"] if "epoch" in history else pd.Series(range(1, len(history) + 1))
    with drawing():
        figure = new_figure(4.6 * len(groups), 3.1)
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (name, found) in zip(panels, groups.items(), strict=True):
            for i, column in enumerate(found):
                _training_line(axes, epochs, history[column], column, i)
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_ylim(bottom=0)
            if name == "accuracy":
                axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            axes.legend(fontsize=8)
        return png(figure)


def _training_line(axes: Axes, epochs: pd.Series, values: pd.Series, column: str, position: int) -> None:
    axes.plot(
        epochs, values, color=method_colour(position), linestyle=method_dash(position), linewidth=1.8,
        marker="o" if len(values) <= 20 else "", markersize=3, label=column.replace("_", " "),
    )  # fmt: skip
