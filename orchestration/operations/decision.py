"""Whether a challenger becomes the champion: the policy applied to the contest, with reasons in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from geoloc.evaluation.result import table_records
from geoloc.settings import to_dict
from orchestration.operations.contest import COLUMNS, FROZEN, Contest
from orchestration.plan.operations_settings import PromotionSettings
from orchestration.tables import markdown, p_text, with_interval

MAIN_TEST = "test"
REFRESHED = "the champion's network over the same partitions, with other references: it need not be better"


@dataclass(frozen=True, eq=False)
class Decision:
    """Whether the challenger becomes the champion by the policy, why, and the table of the contest (COLUMNS)."""

    better: bool
    reasons: tuple[str, ...]
    table: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    left_out: Mapping[str, int] = field(default_factory=dict)
    policy: PromotionSettings = field(default_factory=PromotionSettings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "better": self.better,
            "reasons": list(self.reasons),
            "left_out": dict(self.left_out),
            "policy": to_dict(self.policy),
            "table": table_records(self.table),
        }

    def table_text(self) -> str:
        """The table as Markdown: shares in per cent, differences in points."""
        rows = [
            [
                row.test, row.photos, row.method, row.measure, f"{100 * row.champion:.1f}",
                f"{100 * row.challenger:.1f}", with_interval(row.difference, row.low, row.high, sign="+"),
                p_text(row.p), f"{row.n:,}", f"{row.photographers:,}",
            ]
            for row in self.table.itertuples()
        ]  # fmt: skip
        return markdown(rows, [name for name in COLUMNS if name not in ("low", "high")]) if rows else ""


def decide(found: Contest, policy: PromotionSettings, *, refreshed: bool = False) -> Decision:
    """Apply the policy. `refreshed`: the challenger is the champion's network over the same partitions, with other
    references; it need not be better, and must not be worse."""
    frozen = found.table[found.table["photos"] == FROZEN]
    if frozen.empty:
        return Decision(
            False,
            (
                "no photo is a test photo of both that neither has learned from, so there is nothing to compare on",
            ),
            found.table,
            found.left_out,
            policy,
        )
    tests = list(frozen["test"])
    test = MAIN_TEST if MAIN_TEST in tests else tests[0]
    main = frozen[
        (frozen["test"] == test)
        & (frozen["method"] == policy.methods[0])
        & (frozen["measure"] == policy.measure)
    ].iloc[0]
    better, why = (True, REFRESHED) if refreshed else _better(main, policy)
    judged = found.table["low" if policy.judged_by == "interval" else "difference"]
    worse = found.table[judged.isna() | (judged < -policy.worse_by)]  # without an interval nothing is shown
    allowed = f"more than {100 * policy.worse_by:g} points are not allowed"
    harm = [
        f"worse by {row.measure} ({row.method}) on {row.photos} photos of {row.test!r}: "
        f"{with_interval(row.difference, row.low, row.high, sign='+')} points; {allowed}"
        for row in worse.itertuples()
    ]
    nowhere = f"nowhere worse by more than {100 * policy.worse_by:g} points ({len(found.table)} comparisons)"
    luck = (
        f"intervals know the luck of one training, from {found.trainings} trainings"
        if found.trainings
        else "each was trained once: intervals are of these two networks and do not know the luck of one training"
    )
    return Decision(
        better and not harm, (why, *(harm or [nowhere]), luck), found.table, found.left_out, policy
    )


def _better(main: Any, policy: PromotionSettings) -> tuple[bool, str]:
    """Whether the challenger is better by what the policy names, and the sentence that says so."""
    what = (
        f"{policy.measure} ({main['method']}) on the {main['n']:,} frozen photos of {main['test']!r} by "
        f"{main['photographers']:,} photographers: {100 * main['champion']:.1f} → {100 * main['challenger']:.1f}, "
        f"{with_interval(main['difference'], main['low'], main['high'], sign='+')} points"
    )
    if pd.isna(main["p"]):
        return False, f"{what}; photos by one photographer show nothing"
    what += f", p = {p_text(main['p'])}"
    if main["difference"] <= 0 or main["difference"] < policy.better_by:
        return False, f"not better by {what}; {100 * policy.better_by:g} points are asked for"
    if main["p"] > policy.significance:
        return False, f"not shown to be better by {what}; at most {policy.significance:g} is asked for"
    return True, f"better by {what}"
