"""Figures about confidence: the best of k answers, risk against coverage, and confidence against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from geoloc.evaluation.measures.accuracy import accuracy_curve, curve_distances
from geoloc.evaluation.measures.calibration import calibration_error
from geoloc.evaluation.measures.selective import area_under_risk_coverage
from geoloc.reports.style import GRID, MUTED, drawing, method_colour, method_dash, new_figure, png
from geoloc.sphere import LEVELS_KM


def top_k_figure(errors: NDArray[np.float64], ks: Sequence[int] = (1, 2, 3, 4, 5)) -> bytes:
    """Accuracy against distance of the best of k answers, a line per k, as PNG (PlaNet, figure 3).

    `errors` is that of `best_of_k_errors`, float64 [N, A] in km. Raises ValueError for no photos, or a k that is not
    from 1 to A.
    """
    if not len(errors) or not ks or min(ks) < 1 or max(ks) > errors.shape[1]:
        raise ValueError(
            f"k must be from 1 to {errors.shape[1]} for at least one photo, got {list(ks)}, {len(errors)}"
        )
    km = curve_distances(61)
    with drawing():
        figure = new_figure(7.2, 4.2)
        axes = figure.add_subplot()
        for level, distance in LEVELS_KM.items():
            axes.axvline(distance, color=GRID, linewidth=1.2, zorder=0)
            axes.annotate(
                f"{level}\n{distance:g} km", (distance, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", va="bottom", fontsize=8, color=MUTED,
            )  # fmt: skip
        for i, k in enumerate(ks):
            axes.plot(
                km, accuracy_curve(errors[:, k - 1], km), color=method_colour(i), linestyle=method_dash(i),
                linewidth=1.9, label="the answer" if k == 1 else f"best of {k}",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(km[0], km[-1])
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(False, axis="x")
        axes.set_xlabel("distance between answer and truth, km (log scale)")
        axes.set_ylabel(f"share of all {len(errors):,} photos within it")
        axes.legend(loc="upper left", fontsize=8.5)
        return png(figure, dpi=120)  # a page holds many of them


def risk_coverage_figure(curves: Mapping[str, pd.DataFrame], km: float) -> bytes:
    """Risk against coverage, a line a method with its area (AURC), as PNG; `curves` are those of `risk_coverage`.

    Raises ValueError for none.
    """
    if not curves:
        raise ValueError("a risk-coverage figure needs at least one curve, got none")
    with drawing():
        figure = new_figure(5.4, 3.8)
        axes = figure.add_subplot()
        for i, (name, curve) in enumerate(curves.items()):
            axes.plot(
                curve["coverage"], curve["risk"], color=method_colour(i), linestyle=method_dash(i), linewidth=1.9,
                label=f"{name}: area {area_under_risk_coverage(curve):.3f}",
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_xlabel("photos that get an answer, the surest first")
        axes.set_ylabel(f"of these, farther off than {km:,g} km")
        axes.legend(loc="lower right", fontsize=8.5)
        return png(figure, dpi=120)  # a page holds many of them


def calibration_figure(tables: Mapping[str, pd.DataFrame]) -> bytes:
    """A reliability diagram: accuracy against confidence, a line per table, as PNG.

    `tables` are those of `calibration_table`. The diagonal is perfect calibration; dots grow with the photos of their
    bins. Raises ValueError without tables.
    """
    if not tables:
        raise ValueError("a calibration figure needs at least one table, got none")
    with drawing():
        figure = new_figure(4.6, 4.7)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.1, linestyle="--", zorder=1)
        for i, (name, table) in enumerate(tables.items()):
            seen = table[table["n"] > 0]
            axes.plot(
                seen["confidence"], seen["accuracy"], color=method_colour(i), linestyle=method_dash(i),
                linewidth=1.6, label=f"{name}: calibration error {calibration_error(table):.3f}",
            )  # fmt: skip
            axes.scatter(
                seen["confidence"], seen["accuracy"], s=8 + 110 * seen["n"] / seen["n"].sum(),
                color=method_colour(i), edgecolors="white", linewidths=0.5, zorder=3, clip_on=False,
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of these answers that are right")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8.5)
        return png(figure, dpi=120)  # a page holds many of them
