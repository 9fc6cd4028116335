"""The asset graph as people see it in the UI."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from orchestration.graph import versions
from orchestration.graph.definitions import job_name, make_definitions
from orchestration.lineage import stale
from orchestration.lineage.build import Build
from orchestration.lineage.stale import stale_stages
from orchestration.plan.chain import STAGES, inputs_of
from orchestration.workspace import Workspace
from tests.pipeline.conftest import facts, geoloc, geoloc_process


def test_the_graph_is_the_chain(built):
    built.set_environment()
    definitions = make_definitions(built, ["default"])
    graph = definitions.resolve_asset_graph()
    expected = {dg.AssetKey("data"), dg.AssetKey("photos")}
    build = Build(built)
    expected |= {dg.AssetKey(["default", stage.name]) for stage in build.stages if stage.name != "photos"}
    expected |= {dg.AssetKey(["default", name]) for name in ("health", "promotion")}
    assert set(graph.get_all_asset_keys()) == expected
    for stage in build.stages:
        key = dg.AssetKey("photos" if stage.name == "photos" else ["default", stage.name])
        node = graph.get(key)
        parents = {path.path[-1] for path in node.parent_keys}
        inputs = inputs_of(build.settings, stage)
        assert parents == {*inputs, *stage.after, *(["data"] if stage.looks_at_pool else [])}
        assert node.description
        assert node.kinds
        assert node.owners == ["team:geoloc"]
        assert node.group_name == ("photos" if stage.name == "photos" else "default")
        assert node.code_version


def test_critical_checks_block(built):
    built.set_environment()
    graph = make_definitions(built, ["default"]).resolve_asset_graph()
    critical = [key for key in graph.asset_check_keys if key.asset_key.path[-1] != "health"]
    checks = {(key.asset_key.path[-1], key.name) for key in critical}
    assert checks == {
        ("photos", "workspace_matches_data_dvc"),
        ("photos", "catalog_suite"),
        ("splits", "splits_suite"),
        ("partition", "partition_suite_fine"),
        ("features", "embeddings_suite"),
        ("embeddings", "embeddings_suite"),
    }
    assert all(graph.get(key).blocking == (key in critical) for key in graph.asset_check_keys)


def test_the_graph_is_made_without_what_only_stages_need():
    """Else the UI, and a build of one stage without a network, would pay seconds of imports."""
    heavy = "[m for m in ('torch', 'mlflow', 'great_expectations', 'matplotlib') if m in sys.modules]"
    code = f"import sys, orchestration.graph.definitions, orchestration.quality.of_build; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_entry_point_loads(built, monkeypatch):
    built.set_environment()
    from orchestration.definitions import defs

    assert isinstance(defs(), dg.Definitions)


def test_each_recipe_is_a_group_and_what_they_share_is_one(bare_workspace):
    (bare_workspace.recipes / "other_2.yaml").write_text("seed: 5\n")
    graph = make_definitions(bare_workspace, ["default", "other_2"]).resolve_asset_graph()
    groups = {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert {key for key, group in groups.items() if group == "photos"} == {"data", "photos"}
    assert {group for key, group in groups.items() if key.startswith("other_2/")} == {"other_2"}
    assert {group for key, group in groups.items() if key.startswith("default/")} == {"default"}


def test_the_description_shows_the_maps_of_what_is_built(built):
    graph = make_definitions(built, ["default"]).resolve_asset_graph()
    shown = {stage.name: graph.get(key(stage.name)).description for stage in Build(built).stages}
    assert all(shown[stage.name].startswith(stage.description) for stage in Build(built).stages)
    with_picture = {name for name, text in shown.items() if "](data:image/png;base64," in text}
    assert with_picture == {"partition", "report"}
    assert all(len(text) < 40_000 for text in shown.values())  # each load of the UI carries them


def test_what_is_kept_or_taken_over_shows_its_facts(workspace, drawn):
    before = facts(workspace, "default", "partition")
    assert before["fine/cells"].value > 0
    job = make_definitions(workspace, ["default"]).resolve_job_def(job_name("default"))
    with dg.DagsterInstance.get() as instance:
        assert job.execute_in_process(
            instance=instance, asset_selection=[key("splits"), key("partition")], raise_on_error=False
        ).success
    kept = facts(workspace, "default", "partition")
    assert "unchanged since" in kept
    same = before.keys() - {"folder"}  # of this copy
    assert {name: kept[name] for name in same} == {name: before[name] for name in same}

    (workspace.recipes / "other.yaml").write_text("note: the same photos\n")
    assert geoloc(workspace, "build", "--recipe", "other", "--only", "splits", "partition") == 0
    taken = facts(workspace, "other", "partition")
    assert taken["taken from"].value == "default/partition"
    assert {name: taken[name] for name in before if name.startswith("fine/")} == {
        name: before[name] for name in before if name.startswith("fine/")
    }


def key(stage: str) -> dg.AssetKey:
    return dg.AssetKey("photos" if stage == "photos" else ["default", stage])


def stale_in_the_ui(workspace: Workspace) -> set[str]:
    """The stages that the UI calls out of date after its definitions are loaded."""
    graph = make_definitions(workspace, ["default"]).resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {
            stage.name
            for stage in Build(workspace).stages
            if resolver.get_status(key(stage.name)) != StaleStatus.FRESH
        }


def own_reasons(workspace: Workspace) -> set[str]:
    """The stages that `geoloc build` runs whatever becomes of those above."""
    found = stale_stages(Build(workspace), set(STAGES))
    return {name for name, why in found.items() if not why[0].startswith("if ")}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"evaluation": {"resamples": 51}},
        {"partitions": {"fine": {"s2": {"max_photos": 31, "min_photos": 5}}}},
        {"partitions": {"fine": {"s2": {"max_photos": 30, "min_photos": 5}, "kmeans": {"rounds": 7}}}},
        {"training": {"epochs": 3, "batch_size": 16}},
        {"note": "other words"},
    ],
    ids=str,
)
def test_the_ui_calls_out_of_date_what_a_build_would_run(workspace, changes):
    params = workspace.root / "params.yaml"
    params.write_text(yaml.safe_dump(yaml.safe_load(params.read_text()) | changes))
    assert stale_in_the_ui(workspace) == own_reasons(workspace)


def test_what_a_person_accepted_for_new_code_is_not_out_of_date(workspace, monkeypatch):
    for module in (stale, versions):
        found = module.code_version
        monkeypatch.setattr(
            module, "code_version", lambda name, found=found: found(name) + "x" * ("classif" in name)
        )
    assert stale_in_the_ui(workspace) == {"classifier"}
    assert geoloc(workspace, "accept", "classifier", "--reason", "renamed", "--no-commit") == 0
    assert stale_in_the_ui(workspace) == set()


def test_the_ui_starts_without_warnings_and_ends_when_told(bare_workspace):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = geoloc_process(
        bare_workspace, "ui", "--port", str(port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    query = b'{"query": "{ assetNodes { groupName } }"}'
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", query, {"content-type": "application/json"}
    )
    deadline, answer = time.monotonic() + 240, ""
    while "default" not in answer and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        try:
            answer = urllib.request.urlopen(asked, timeout=60).read().decode()
        except OSError as error:
            answer = str(error)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert '"groupName":"default"' in answer.replace(" ", "")
    assert process.returncode == 0
    assert said.splitlines() == [f"Dagster UI: http://127.0.0.1:{port}  (ctrl-C stops it)"]
