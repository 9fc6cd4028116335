"""The asset graph as people see it in the UI."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg

from orchestration.graph.definitions import make_definitions
from orchestration.plan.chain import CHAIN


def test_the_graph_is_the_chain(built):
    built.set_environment()
    definitions = make_definitions(built, ["default"])
    graph = definitions.resolve_asset_graph()
    expected = {dg.AssetKey("data"), dg.AssetKey("photos")}
    expected |= {dg.AssetKey(["default", stage.name]) for stage in CHAIN if stage.name != "photos"}
    assert set(graph.get_all_asset_keys()) == expected
    for stage in CHAIN:
        key = dg.AssetKey("photos" if stage.name == "photos" else ["default", stage.name])
        node = graph.get(key)
        parents = {path.path[-1] for path in node.parent_keys}
        assert parents == ({*stage.inputs, *stage.after} or {"data"})
        assert node.description
        assert node.kinds
        assert node.owners == ["team:geoloc"]
        assert node.group_name == stage.group
        assert node.code_version


def test_critical_checks_block(built):
    built.set_environment()
    graph = make_definitions(built, ["default"]).resolve_asset_graph()
    checks = {(key.asset_key.path[-1], key.name) for key in graph.asset_check_keys}
    assert checks == {
        ("photos", "workspace_matches_data_dvc"),
        ("photos", "catalog_suite"),
        ("splits", "splits_suite"),
        ("partition", "partition_suite_fine"),
        ("features", "embeddings_suite"),
        ("embeddings", "embeddings_suite"),
    }
    assert all(graph.get(key).blocking for key in graph.asset_check_keys)


def test_the_graph_is_made_without_what_only_stages_need():
    """Else the UI, and a build of one stage without a network, would pay seconds of imports."""
    heavy = "[m for m in ('torch', 'mlflow', 'great_expectations', 'matplotlib') if m in sys.modules]"
    code = f"import sys, orchestration.graph.definitions, orchestration.quality.of_build; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_entry_point_loads(built, monkeypatch):
    built.set_environment()
    from orchestration.definitions import defs

    assert isinstance(defs(), dg.Definitions)
