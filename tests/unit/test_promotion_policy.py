"""The policy of promotion on made-up contests, and which photos a contest may ask."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from geoloc.settings import SettingsError, parse
from orchestration.lineage.person import person
from orchestration.operations.contest import COLUMNS, FROZEN, NEW, Contest, comparable
from orchestration.operations.decision import decide
from orchestration.plan.operations_settings import PromotionSettings
from orchestration.plan.settings import load_settings
from tests.unit.pretended import bare_workspace, write_recipe


def row(measure: str = "city", difference: float = 0.1, p: float = 0.01, **other) -> dict:
    return {
        "test": "test", "photos": FROZEN, "method": "class", "measure": measure, "champion": 0.3,
        "challenger": 0.3 + difference, "difference": difference, "low": difference - 0.05,
        "high": difference + 0.05, "p": p, "n": 500, "photographers": 40, **other,
    }  # fmt: skip


def decided(*rows: dict, **policy) -> tuple[bool, tuple[str, ...]]:
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    found = decide(Contest(table, {}), parse(PromotionSettings, policy, "promotion"))
    return found.better, found.reasons


@pytest.mark.parametrize(
    ("rows", "policy", "better", "why"),
    [
        ([row()], {}, True, "better by city"),
        ([row(p=0.2)], {}, False, "not shown to be better by city"),
        ([row(p=0.2)], {"significance": 0.3}, True, "better by city"),
        ([row(difference=-0.1)], {}, False, "not better by city"),
        ([row()], {"better_by": 0.2}, False, "20 points are asked for"),
        ([row(p=np.nan)], {}, False, "photos by one photographer show nothing"),
        ([row(), row("street", -0.03)], {}, False, "worse by street (class)"),
        ([row(), row("street", -0.03)], {"worse_by": 0.03}, True, "nowhere worse by more than 3 points"),
        ([row(), row("street", 0.0)], {"judged_by": "interval"}, False, "worse by street"),
        ([row(), row(photos=NEW, difference=-0.2)], {}, False, f"on {NEW} photos"),
        ([row(), row("geoscore", 0.3)], {"measure": "geoscore"}, True, "better by geoscore"),
        ([row(photos=NEW)], {}, False, "nothing to compare on"),
        ([], {}, False, "nothing to compare on"),
        ([row(test="abroad", difference=-0.5, p=0.001), row()], {}, False, "of 'abroad'"),
    ],
)
def test_the_policy_decides(rows, policy, better, why) -> None:
    found, reasons = decided(*rows, **policy)
    assert found == better, reasons
    assert any(why in one for one in reasons), reasons


def test_the_same_network_with_more_references_needs_only_not_be_worse() -> None:
    rows = pd.DataFrame([row(difference=0.0, p=1.0), row("city", 0.0, method="nn")], columns=list(COLUMNS))
    assert decide(Contest(rows, {}), PromotionSettings(), refreshed=True).better
    rows.loc[1, "difference"] = -0.1
    assert not decide(Contest(rows, {}), PromotionSettings(), refreshed=True).better


def table(**splits: str) -> pd.DataFrame:
    """A table of splits: each photo is called by its photographer and a number, and has its own bytes."""
    photos = list(splits)
    return pd.DataFrame(
        {
            "photo_id": photos,
            "photographer": [one.rstrip("0123456789") for one in photos],
            "latitude": 0.0,
            "longitude": 0.0,
            "sha256": [f"bytes of {one}" for one in photos],
            "split": list(splits.values()),
            "near_duplicates": None,
        }
    )


def test_only_photos_that_the_champion_has_not_learned_from_are_asked() -> None:
    then = table(ann1="train", bob1="test", bob2="test", cid1="validation", dan1="unused")
    now = table(
        ann1="test", ann2="test", bob1="test", bob2="test", bob3="test", cid2="test", dan1="test", eve1="test",
        fay1="test", gus1="train",
    )  # fmt: skip
    now.loc[now["photo_id"] == "bob2", "sha256"] = "encoded again"
    now.loc[now["photo_id"].isin(["fay1", "ann1"]), "near_duplicates"] = "ann1"
    asked, left_out = comparable(then, now)
    assert asked.set_index("photo_id")["group"].to_dict() == {"bob1": FROZEN, "eve1": NEW}
    assert left_out == {
        "the champion has learned from them": 1,
        "by photographers the champion has learned from": 2,  # ann2, cid2
        "new, by photographers whom the champion knew": 3,  # bob2, bob3, dan1
        "near-duplicates of what the champion has learned from": 1,
    }


def test_the_policy_is_of_the_workspace_not_of_a_recipe(tmp_path) -> None:
    workspace = bare_workspace(tmp_path, {"promotion": {"measure": "country"}})
    write_recipe(workspace, "fine", {"promotion": {"worse_by": 0.5}})
    with pytest.raises(SettingsError, match=r"recipes/fine.yaml: promotion is of the workspace"):
        load_settings(workspace, "fine")
    for text in ("seed: 4\n", "standalone: true\nseed: 4\n"):
        (workspace.recipes / "fine.yaml").write_text(text)
        assert load_settings(workspace, "fine").promotion.measure == "country"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"promotion": {"measure": "town"}}, "promotion.measure"),
        ({"promotion": {"methods": []}}, "promotion.methods must name at least one"),
        ({"promotion": {"methods": ["class", "class"]}}, "promotion.methods must name at least one"),
        ({"promotion": {"worse_by": 2}}, "promotion.worse_by must be at most 1"),
        ({"growth": {"admit": "never"}}, "growth.admit"),
        ({"growth": {"retrain_cron": "weekly"}}, "growth.retrain_cron must be a cron expression"),
        ({"growth": {"recipes": ["fine"]}}, "growth.recipes must name some of default; got 'fine'"),
        ({"growth": {"retrain_share": 0}}, "growth.retrain_share must be at least"),
    ],
)
def test_a_wrong_policy_is_named(tmp_path, values, why) -> None:
    with pytest.raises(SettingsError, match=why):
        load_settings(bare_workspace(tmp_path, values))


def test_a_user_without_a_name_is_recorded_by_number(monkeypatch) -> None:
    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", no_name)
    assert person() == f"uid {os.getuid()}"
