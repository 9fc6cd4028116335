"""The facts of an output are kept for people, and are those of this output."""

from __future__ import annotations

import dataclasses
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from geoloc.files import write_text
from orchestration.lineage.build import Build
from orchestration.run.facts import facts_folder, keep_facts, read_facts
from orchestration.workspace import Workspace
from tests.unit.pretended import bare_workspace, pretend


@pytest.fixture
def build(tmp_path) -> Build:
    made = Build(bare_workspace(tmp_path / "w", {"seed": 1}))
    pretend(made)
    return made


def test_facts_are_read_as_they_were_wherever_the_workspace_is(build, tmp_path):
    picture = build.folder("splits") / "figures" / "a.png"
    table = pd.DataFrame({"split": ["train|er", "test"], "photos": np.array([3, 2])})
    given = {
        "n": np.int64(7),
        "share": 0.25,
        "lost": math.nan,
        "by": {"a": 1},
        "table": table,
        "shown": picture,
    }
    before = build.content("splits")
    keep_facts(build, build.built("splits"), given)
    assert build.content("splits") == before
    shutil.move(build.workspace.root, tmp_path / "moved")
    moved = Build(Workspace.open(tmp_path / "moved"))
    found = read_facts(moved, moved.built("splits"))
    assert list(found) == list(given)
    assert (found["n"], found["share"], found["by"]) == (7, 0.25, {"a": 1})
    assert math.isnan(found["lost"])
    assert found["table"].splitlines()[2].replace(" ", "") == "|train\\|er|3|"
    assert found["shown"] == moved.folder("splits") / "figures" / "a.png"


def test_facts_of_another_output_or_damaged_ones_are_none(build):
    record = build.built("splits")
    keep_facts(build, record, {"n": 7})
    assert read_facts(build, dataclasses.replace(record, content="another")) == {}
    write_text(facts_folder(build, "splits") / "facts.json", "[")
    assert read_facts(build, record) == {}
