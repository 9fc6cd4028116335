"""What makes an output out of date: only what can change its bytes (design.md), asked of pretended builds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from geoloc.files import file_hashes, write_text
from orchestration.lineage import stale
from orchestration.lineage.accept import accept
from orchestration.lineage.audit import audit
from orchestration.lineage.build import Build
from orchestration.lineage.shown import audit_lines
from orchestration.lineage.stale import expected, stale_stages, why_stale
from orchestration.plan.chain import STAGES, stages_of
from orchestration.plan.settings import known_recipes
from orchestration.run.reuse import equal_output, equal_part, link_tree, part_content
from orchestration.workspace import Workspace, WorkspaceError
from tests.unit.pretended import bare_workspace, new_data, pretend, pretend_stage, record, write_recipe

PARAMS = {
    "partitions": {"fine": {"kind": "s2", "s2": {"max_photos": 60, "min_photos": 8}}},
    "training": {"optimiser": "adamw", "epochs": 3},
}
NAMES = [stage.name for stage in STAGES.values()]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    made = bare_workspace(tmp_path / "w", PARAMS)
    pretend(Build(made))
    return made


def again(build: Build) -> Build:
    """The same recipe with its settings read anew."""
    return Build(build.workspace, build.recipe)


def settle(workspace: Workspace, **changes: object) -> Build:
    """Another params.yaml."""
    values = {**PARAMS, **changes}
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Build(workspace)


def certain(build: Build) -> list[str]:
    """The stages that must run whatever becomes of those above them."""
    found = stale_stages(build, set(NAMES))
    return [name for name, why in found.items() if not why[0].startswith("if ")]


def test_nothing_is_stale_after_a_build(workspace):
    assert stale_stages(Build(workspace), set(NAMES)) == {}


def test_a_folder_copied_from_another_recipe_is_built_again_even_if_all_is_equal(workspace):
    twin = write_recipe(workspace, "twin", {})
    for part in ("partition", "lineage", "checks"):
        shutil.copytree(workspace.build / "default" / part, workspace.build / "twin" / part)
    assert why_stale(twin, STAGES["partition"]) == ["its record is of default/partition"]
    assert stale_stages(twin, {"partition"}) == {"partition": ["its record is of default/partition"]}


def test_another_data_version_runs_what_looks_at_the_pool_and_nothing_below_it(workspace):
    """One overhead tile more."""
    new_data(workspace, "second")
    build = Build(workspace)
    assert certain(build) == ["photos", "splits", "report"]
    assert stale_stages(build, set(NAMES))["classifier"] == ["if splits or partition changes"]
    for name in ("photos", "splits"):
        pretend_stage(build, STAGES[name])
    assert stale_stages(build, set(NAMES)) == {"report": ["data changed"]}


def test_a_photo_more_runs_what_is_made_of_the_photos(workspace):
    new_data(workspace, "second")
    build = Build(workspace)
    pretend(build, {"splits": "one photo more"})
    assert stale_stages(build, set(NAMES)) == {}
    for name in ("partition", "features", "classifier"):
        assert build.record(name).inputs["splits"] == build.record("splits").content


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        (
            {"partitions": {"fine": {"kind": "s2", **PARAMS["partitions"]["fine"], "kmeans": {"rounds": 9}}}},
            [],
        ),
        ({"training": {**PARAMS["training"], "momentum": 0.5}}, []),
        ({"training": {**PARAMS["training"], "workers": 3, "progress_steps": 7}}, []),
        ({"training": {**PARAMS["training"], "optimiser": "sgd"}}, ["classifier"]),
        ({"training": {**PARAMS["training"], "epochs": 4}}, ["classifier"]),
        ({"model": {"dropout": 0.2}}, ["classifier"]),
        ({"model": {"gem_power": 5.0}}, []),
        ({"model": {"pooling": "gem"}}, ["features", "classifier"]),
        ({"embeddings": {"dtype": "float32"}}, ["features", "embeddings"]),
        ({"embeddings": {"workers": 2}}, []),
        ({"localizers": {"frozen": {"k": 3}}}, []),
        ({"index": {"factory": "Flat"}}, ["index", "evaluation"]),
        ({"note": "other photos"}, ["report"]),
        ({"seed": 9}, ["splits", "features", "classifier", "index", "evaluation"]),
    ],
    ids=str,
)
def test_only_settings_that_are_used_count(workspace, changes, stages):
    assert certain(settle(workspace, **changes)) == stages


def test_the_reason_names_the_key(workspace):
    build = settle(workspace, partitions={"fine": {"s2": {"max_photos": 61, "min_photos": 8}}})
    assert why_stale(build, STAGES["partition"]) == ["settings changed: partitions.fine.s2.max_photos"]


def test_a_setting_that_the_record_does_not_know_counts_as_its_default(workspace):
    """A version of geoloc with one setting more."""
    path = Build(workspace).record_path("classifier")
    values = json.loads(path.read_text())
    del values["settings"]["training"]["gradient_clip"]
    write_text(path, json.dumps(values))
    assert why_stale(Build(workspace), STAGES["classifier"]) == []
    changed = settle(workspace, training={**PARAMS["training"], "gradient_clip": 1.0})
    assert why_stale(changed, STAGES["classifier"]) == ["settings changed: training.gradient_clip"]


def test_a_family_is_there_when_its_setting_is(workspace):
    build = settle(workspace, embeddings={"models": ["classifier"]})
    assert "features" not in [stage.name for stage in build.stages]
    assert "features" not in expected(build, STAGES["index"]).inputs
    assert why_stale(build, STAGES["index"]) == ["features is no longer read"]


def test_changed_files_are_seen(workspace):
    write_text(Build(workspace).folder("partition") / "content.json", "changed")
    assert stale_stages(Build(workspace), {"partition"}) == {
        "partition": ["its files were changed or removed"]
    }


class TestSharing:
    def test_an_equal_output_of_another_recipe_is_taken_and_no_other(self, workspace):
        other = write_recipe(workspace, "other", {"training": {"epochs": 5}})
        folder, found = equal_output(other, expected(other, STAGES["splits"]))
        assert (folder, found.artefact) == (Build(workspace).folder("splits"), "default/splits")
        pretend_stage(other, STAGES["splits"])
        pretend_stage(other, STAGES["partition"])
        assert equal_output(other, expected(other, STAGES["features"])) is not None
        assert equal_output(other, expected(other, STAGES["classifier"])) is None

    def test_it_is_taken_by_hard_links_which_a_replaced_source_does_not_change(self, workspace):
        source, taken = Build(workspace).folder("splits"), workspace.build / "other" / "splits"
        link_tree(source, taken)
        assert (taken / "content.json").samefile(source / "content.json")
        before = (taken / "content.json").read_text()
        write_text(source / "content.json", "another output")
        assert (taken / "content.json").read_text() == before

    def test_a_damaged_output_is_nobodys_source(self, workspace):
        other = write_recipe(workspace, "other", {})
        write_text(Build(workspace).folder("splits") / "content.json", "damaged")
        assert equal_output(other, expected(other, STAGES["splits"])) is None

    def test_a_report_names_its_recipe_and_is_never_shared(self, workspace):
        other = write_recipe(workspace, "other", {})
        pretend(other)
        assert equal_output(other, expected(other, STAGES["evaluation"])) is not None
        assert equal_output(other, expected(other, STAGES["report"])) is None

    def test_partitions_are_shared_one_by_one_whatever_their_names(self, workspace):
        build = Build(workspace)
        folder = build.folder("partition")
        write_text(folder / "fine" / "cells.json", "cells")
        wanted = expected(build, STAGES["partition"])
        cells = {"content": part_content(folder / "fine"), "settings": {"kind": "s2"}, "taken_from": None}
        record(
            build, "partition", inputs=wanted.inputs, settings=build.used(STAGES["partition"]),
            code=wanted.code_version, parts={"fine": cells},
        )  # fmt: skip
        other = write_recipe(workspace, "other", {"partitions": {"a": {}, "b": {"kind": "kmeans"}}})
        pretend_stage(other, STAGES["splits"])
        wanted = expected(other, STAGES["partition"])
        assert equal_part(other, wanted, {"kind": "s2"}) == (folder / "fine", "default/partition")
        assert equal_part(other, wanted, {"kind": "kmeans"}) is None
        write_text(folder / "fine" / "cells.json", "damaged")
        assert equal_part(other, wanted, {"kind": "s2"}) is None

    @pytest.mark.parametrize(
        ("chosen", "most"), [("all", (11, 27, 43)), ("scaled", (2, 8, 21))], ids=["all", "scaled"]
    )
    def test_recipes_share_what_is_equal(self, chosen, most):
        """At most so many splits, features of first weights, and partitions one by one."""
        workspace = Workspace.open(Path(__file__).parents[2])
        splits, features, partitions = set(), set(), set()
        for recipe in known_recipes(workspace):
            if chosen == "scaled" and recipe.endswith(
                ("_full", "two_sources", "im2gps3k", "im2gps3k_metric")
            ):
                continue
            build = Build(workspace, recipe)
            photos = key(build.used(STAGES["splits"]))
            splits.add(photos)
            if STAGES["features"] in stages_of(build.settings):
                features.add((photos, key(build.used(STAGES["features"]))))
            for one in build.used(STAGES["partition"])["partitions"]:
                partitions.add((photos, key({k: v for k, v in one.items() if k != "name"})))
        assert tuple(map(len, (splits, features, partitions))) <= most
        assert all(a <= b for a, b in zip(map(len, (splits, features, partitions)), most, strict=True))


def key(value: object) -> str:
    return json.dumps(value, sort_keys=True)


class TestAccept:
    @pytest.fixture
    def changed(self, workspace, monkeypatch) -> Build:
        """The classifier's code is another one now."""
        before = stale.code_version
        monkeypatch.setattr(
            stale, "code_version", lambda module: before(module) if "classifier" not in module else "new code"
        )
        return Build(workspace)

    def test_an_accepted_output_is_up_to_date_and_the_audit_shows_who_and_why(self, changed):
        assert why_stale(changed, STAGES["classifier"]) == ["code changed"]
        accept(changed, ["classifier"], "only a name changed")
        assert stale_stages(changed, set(NAMES)) == {}
        (word,) = changed.record("classifier").accepted
        assert (word.code_version, word.reason) == ("new code", "only a name changed")
        told = "\n".join(audit_lines(audit(changed, "report")))
        assert f"accepted for code new code by {word.by} on {word.at}: only a name changed" in told

    def test_what_changed_otherwise_is_not_accepted(self, changed):
        build = settle(changed.workspace, training={**PARAMS["training"], "epochs": 9})
        with pytest.raises(
            WorkspaceError, match=r"settings changed: training\.epochs; build it again with: geoloc"
        ):
            accept(build, ["classifier"], "why not")
        with pytest.raises(WorkspaceError, match=r"--reason must say why"):
            accept(changed, ["classifier"], " ")
        with pytest.raises(
            WorkspaceError, match=r"default/index needs no acceptance: its code did not change"
        ):
            accept(changed, ["index"], "to be sure")
        settle(changed.workspace)
        write_text(changed.folder("classifier") / "content.json", "damaged")
        with pytest.raises(WorkspaceError, match="its files were changed or removed"):
            accept(again(changed), ["classifier"], "why not")

    def test_what_was_accepted_is_taken_over_with_the_word(self, changed):
        accept(changed, ["classifier"], "only a name changed")
        other = write_recipe(changed.workspace, "other", {"note": "other"})
        for name in ("splits", "partition"):
            pretend_stage(other, STAGES[name])
        _, found = equal_output(other, expected(other, STAGES["classifier"]))
        assert found.accepted[0].reason == "only a name changed"


def test_a_file_that_is_no_content_is_tied_to_the_record(workspace):
    """The report's page holds run ids and times: it is in no content hash, yet it is what people read."""
    build, stage = Build(workspace), STAGES["report"]
    page = build.folder("report") / "report.html"
    write_text(page, "12.3 %")
    found = build.built("report")
    files = file_hashes(build.folder("report"))
    assert build.content("report") == found.content
    dataclasses.replace(found, files=files).write(build.record_path("report"))
    assert why_stale(build, stage) == []
    for change in (lambda: write_text(page, "98.7 %"), page.unlink):
        change()
        assert why_stale(build, stage) == ["its files were changed or removed: report.html"]
        assert audit(build, "report")["on_disk"] == "changed"
        assert build.content("report") == found.content
    write_text(page, "12.3 %")
    write_text(page.with_name("new.txt"), "added")
    assert why_stale(build, stage) == ["its files were changed or removed: new.txt"]


def test_a_damaged_record_is_an_error_that_names_the_file(workspace):
    path = Build(workspace).record_path("index")
    whole = path.read_text()
    for text in ("{", "[]", '{"stage": "index"}', whole.replace('"inputs": {', '"inputs": 3, "x": {')):
        write_text(path, text)
        with pytest.raises(WorkspaceError, match=r"index\.json is damaged or of another version of geoloc"):
            why_stale(Build(workspace), STAGES["index"])


def test_the_record_survives_its_file(workspace):
    build = Build(workspace)
    before = build.record("classifier")
    assert dataclasses.replace(before, taken_from="x") != before
    before.write(build.record_path("classifier"))
    assert build.record("classifier") == before


def test_an_evaluation_looks_at_the_pool_only_where_it_limits_the_references(workspace):
    """The facts that limit them, such as times, are in no other output."""
    limits = {"localizers": {"references": {"taken_until": "2012-01-01"}}}
    new_data(workspace, "second")
    assert "evaluation" not in certain(Build(workspace))
    build = settle(workspace, **limits)
    pretend(build)
    assert certain(build) == []
    assert build.built("evaluation").inputs["data"] == "second.dir"
    new_data(workspace, "third")
    assert "evaluation" in certain(build)
    pretend(build)
    assert certain(settle(workspace)) == ["evaluation"]
