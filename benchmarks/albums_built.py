"""Print the rows of time, albums and people that recipes have built, beside the single photo's: accuracy with intervals
by photographer, outdoor photos, paired differences, the paper's Wilcoxon test, and the bias of answered cells.

    python benchmarks/albums_built.py planet_albums m3_coarse
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from geoloc.evaluation.claims.claim import BIAS
from geoloc.evaluation.claims.context import CONTEXT_CLAIMS
from geoloc.evaluation.diagnostics import Diagnostics
from geoloc.evaluation.result import Evaluation
from orchestration.assets.context_answers import ALONE, COMPARED
from orchestration.lineage.build import Build
from orchestration.results.claims import NOT_BUILT, claims
from orchestration.tables import p_text, with_interval
from orchestration.workspace import Workspace

LEVELS = ("street", "city", "region", "country", "continent")


def table(folder: Path) -> pd.DataFrame:
    """One row a method of time or albums, the single photo first; accuracies in per cent."""
    evaluation, diagnostics = Evaluation.load(folder), Diagnostics.load(folder)
    compared = diagnostics.tables[COMPARED]
    methods = list(dict.fromkeys(compared["method"]))
    accuracy = evaluation.accuracy.set_index(["method", "level"])
    outdoor = diagnostics.tables.get(
        "accuracy_by_indoor", pd.DataFrame(columns=["method", "group", "level", "accuracy"])
    )
    outdoor = outdoor[outdoor["group"].astype(str).str.contains("below")].set_index(["method", "level"])
    pairs = evaluation.comparisons
    rows = []
    for method in methods:
        of_all = compared[(compared["method"] == method) & (compared["photos"] == "all")].iloc[0]
        city = accuracy.loc[(method, "city")]
        row = {"": method}
        row |= {
            level: f"{100 * accuracy.loc[(method, level), 'accuracy']:.1f}"
            + (f" [{100 * city['low']:.1f}, {100 * city['high']:.1f}]" if level == "city" else "")
            for level in LEVELS
        }
        if len(outdoor):
            there = [f"{100 * outdoor.loc[(method, level), 'accuracy']:.1f}" for level in ("city", "country")]
            row["outdoor city, country"] = ", ".join(there)
        row["city less single"] = _difference(pairs, method, methods[0])
        row["mean km less single"] = (
            "" if method == methods[0]
            else f"{of_all['mean_km_less_single']:+.0f} [{of_all['low']:+.0f}, {of_all['high']:+.0f}]"
        )  # fmt: skip
        row["Wilcoxon p"] = "" if method == methods[0] else of_all["wilcoxon_p"]
        row["KL"] = f"{of_all['kl_divergence']:.3f}"
        row["entropy"] = f"{of_all['entropy_answered']:.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(pairs: pd.DataFrame, method: str, single: str) -> str:
    """Accuracy at city level less the single photo's, in points, with its interval; "" where it was not compared."""
    for one, other, sign in ((method, single, 1), (single, method, -1)):
        found = pairs[(pairs["method"] == one) & (pairs["other"] == other) & (pairs["level"] == "city")]
        if len(found):
            at = found.iloc[0]
            low, high = sorted((sign * at["low"], sign * at["high"]))
            return f"{100 * sign * at['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return ""


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="rows of time, albums and people that are built")
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--test", default="test")
    parser.add_argument("--workspace", type=Path, default=Path())
    options = parser.parse_args()
    for recipe in options.recipes:
        folder = Build(Workspace.open(options.workspace), recipe).folder("evaluation") / options.test
        evaluation = Evaluation.load(folder)
        print(f"{recipe}: {evaluation.queries:,} photos {evaluation.whose}")
        print(table(folder).to_string(index=False))
        alone = Diagnostics.load(folder).tables[ALONE]
        print("answered as single photos:")
        for reason, some in alone[alone["photos"] > 0].groupby("reason", sort=False):
            counts = ", ".join(f"{m} {n}" for m, n in zip(some["method"], some["photos"], strict=True))
            print(f"  {reason}: {counts}")
        print()
    tested(options.workspace, options.test)
    return 0


def tested(workspace: Path, test: str) -> None:
    """Print the claims on time, albums and people that what is built can test."""
    found = claims(Workspace.open(workspace), test).table
    found = found[found["claim"].isin({one.name for one in CONTEXT_CLAIMS}) & (found["verdict"] != NOT_BUILT)]
    print(f"claims ({int(found['asked'].max()) if len(found) else 0} were asked; p corrected for that):")
    for row in found.itertuples():
        of_bias = row.level == BIAS
        size = with_interval(
            row.difference,
            row.low,
            row.high,
            sign="+",
            digits=3 if of_bias else 1,
            scale=1.0 if of_bias else 100.0,
        )
        print(
            f"  {row.claim}, {row.level}: {row.verdict}; {size} {'nats' if of_bias else 'points'}, "
            f"p {p_text(row.p_corrected)}"
        )


if __name__ == "__main__":
    sys.exit(main())
