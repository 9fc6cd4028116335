"""Checks belong to the output: a result is of one output and one suite, and a failed one blocks until it is mended."""

from __future__ import annotations

import dataclasses

import pytest

from geoloc.files import write_text
from orchestration.lineage.accept import accept_check
from orchestration.lineage.audit import audit
from orchestration.lineage.build import Build
from orchestration.lineage.checks import read_results, require_checked, unmet_checks, write_result
from orchestration.lineage.shown import audit_lines
from orchestration.lineage.stale import stale_stages, why_stale
from orchestration.plan.chain import STAGES
from orchestration.workspace import WorkspaceError
from tests.unit.pretended import bare_workspace, new_data, pretend, pretend_stage


@pytest.fixture
def build(tmp_path) -> Build:
    made = Build(bare_workspace(tmp_path / "w", {}))
    pretend(made)
    return made


def fail(build: Build, stage: str) -> None:
    """The stage's first check found a critical fault."""
    found = next(iter(read_results(build, stage).values()))
    write_result(build, stage, dataclasses.replace(found, critical=1, summary="all vectors are equal"))


def test_a_failed_check_makes_its_stage_run_again_and_blocks_what_is_below(build):
    fail(build, "embeddings")
    assert stale_stages(build, {"embeddings"}) == {
        "embeddings": ["it failed its check embeddings_suite: all vectors are equal"]
    }
    with pytest.raises(
        WorkspaceError,
        match=r"default/embeddings must not be used: it failed its check embeddings_suite: all vectors are equal; .* "
        r"geoloc accept embeddings --recipe default --check NAME --reason TEXT",
    ):
        require_checked(build, "embeddings")


@pytest.mark.parametrize("stage", ["photos", "splits", "partition", "features", "embeddings"])
def test_an_output_that_was_not_checked_is_not_used(build, stage):
    build.checks_path(stage).unlink()
    assert all("has not run on this output" in why for why in unmet_checks(build, stage))
    assert unmet_checks(build, stage)


def test_a_result_is_of_the_output_that_was_checked(build):
    """Equal content made from other photos was not checked: the catalog behind the counts may be another."""
    new_data(build.workspace, "second")
    pretended = read_results(build, "photos")["catalog_suite"]
    pretend_stage(build, STAGES["photos"])
    write_result(build, "photos", pretended)
    assert unmet_checks(build, "photos") == ["its check catalog_suite has not run on this output"]


def test_a_result_is_of_the_suite_as_it_was(build):
    assert unmet_checks(build, "splits") == []
    write_text(build.workspace.expectations / "splits.json", "{}")
    assert unmet_checks(build, "splits") == ["its check splits_suite has not run on this output"]


def test_a_damaged_result_is_none(build):
    write_text(build.checks_path("splits"), "[{]")
    assert unmet_checks(build, "splits") == ["its check splits_suite has not run on this output"]


def test_a_person_may_accept_a_failed_check_by_name_and_the_audit_shows_it(build):
    fail(build, "embeddings")
    accept_check(build, "embeddings", "embeddings_suite", "one photographer, one street")
    assert unmet_checks(build, "embeddings") == []
    lines = "\n".join(audit_lines(audit(build, "report")))
    assert "check embeddings_suite: accepted (all vectors are equal; accepted by " in lines
    assert ": one photographer, one street)" in lines
    assert "check splits_suite: passed" in lines


def test_what_shows_the_checks_is_out_of_date_when_they_find_something_else(build):
    fail(build, "embeddings")
    accept_check(build, "embeddings", "embeddings_suite", "one photographer, one street")
    assert why_stale(build, STAGES["report"]) == ["checks changed"]
    assert why_stale(build, STAGES["evaluation"]) == []


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("embeddings_suite", " ", "--reason must say why"),
        (
            "splits_suite",
            "good",
            r"--check must be one of embeddings_suite, the checks of embeddings; got splits",
        ),
        (
            "embeddings_suite",
            "good",
            r"embeddings_suite of default/embeddings needs no acceptance: it did not fail",
        ),
    ],
)
def test_what_cannot_be_accepted(build, name, reason, message):
    with pytest.raises(WorkspaceError, match=message):
        accept_check(build, "embeddings", name, reason)
    build.checks_path("embeddings").unlink()
    with pytest.raises(WorkspaceError):
        accept_check(build, "embeddings", name, reason)
