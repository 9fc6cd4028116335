"""The whole chain through Dagster, DVC and the command line, on a small generated collection."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import dagster as dg
import pandas as pd
import pytest
import yaml

from geoloc.files import read_json
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.reports.banner import SAMPLE_BANNER, SAMPLE_SOURCE
from geoloc.settings import parse
from orchestration.lineage.audit import audit, find_artefact
from orchestration.lineage.build import Build
from orchestration.lineage.stale import stale_stages
from orchestration.plan.chain import STAGES, artefact, inputs_of, output_folder, stages_of
from orchestration.plan.settings import BuildSettings
from orchestration.workspace import Workspace
from tests.pipeline.conftest import BELOW_PARTITION, geoloc

STAGE_NAMES = [stage.name for stage in stages_of(parse(BuildSettings, {}))]


def materializations(workspace: Workspace) -> dict[str, int]:
    """How often Dagster's history says that each stage was made."""
    workspace.set_environment()
    with dg.DagsterInstance.get() as instance:
        keys = {name: dg.AssetKey(artefact("default", name).split("/")) for name in STAGE_NAMES}
        return {name: len(instance.fetch_materializations(key, 100).records) for name, key in keys.items()}


def contents(workspace: Workspace) -> dict[str, str]:
    found = {name: Build(workspace).record(name) for name in STAGE_NAMES}
    return {name: record.content for name, record in found.items() if record is not None}


def test_every_stage_has_its_output_and_its_lineage(built):
    assert list(contents(built)) == STAGE_NAMES
    for name in STAGE_NAMES:
        record = Build(built).record(name)
        data = {"data"} if STAGES[name].looks_at_pool else set()
        checks = {"checks"} if STAGES[name].shows_checks else set()
        read = inputs_of(Build(built).settings, STAGES[name])
        assert set(read) | data | checks == set(record.inputs)
        assert all(re.fullmatch(r"[0-9a-f]{32,64}(\.dir)?", value) for value in record.inputs.values())
        assert record.dagster_run


def test_dagster_knows_content_versions_and_input_versions(built):
    built.set_environment()
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["default", "partition"]))
        tags = event.asset_materialization.tags
    records = contents(built)
    assert tags["dagster/data_version"] == records["partition"]
    assert tags["dagster/input_data_version/default/splits"] == records["splits"]


def test_the_source_was_observed_at_the_version_of_data_dvc(built):
    built.set_environment()
    pointer = yaml.safe_load(built.data_pointer.read_text())["outs"][0]["md5"]
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("photos"))
        assert event.asset_materialization.tags["dagster/input_data_version/data"] == pointer


def test_a_second_build_does_nothing(workspace, capsys):
    before = materializations(workspace)
    assert geoloc(workspace, "build") == 0
    assert "everything is up to date" in capsys.readouterr().out
    assert materializations(workspace) == before


def test_dvc_is_clean_after_a_build_and_has_nothing_to_do(workspace):
    dvc = [sys.executable, "-m", "dvc"]
    status = subprocess.run([*dvc, "status"], cwd=workspace.root, capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout
    before = materializations(workspace)
    subprocess.run([*dvc, "repro", "-q"], cwd=workspace.root, check=True)
    assert materializations(workspace) == before


@pytest.mark.parametrize(
    ("key", "value", "rebuilt"),
    [
        (("note",), "another note", ["report"]),
        (("evaluation", "resamples"), 60, ["evaluation", "report"]),
        (("index", "factory"), "Flat", ["index", "evaluation", "report"]),
        (("partitions", "fine", "s2", "max_photos"), 40, BELOW_PARTITION),
        (("model", "dropout"), 0.1, ["classifier", "embeddings", "index", "evaluation", "report"]),
        (("seed",), 4, STAGE_NAMES[1:]),
    ],
)
def test_a_changed_setting_makes_stale_exactly_what_depends_on_it(bare_workspace, key, value, rebuilt):
    params = bare_workspace.root / "params.yaml"
    values = yaml.safe_load(params.read_text())
    inner = values
    for part in key[:-1]:
        inner = inner.setdefault(part, {})
    inner[key[-1]] = value
    params.write_text(yaml.safe_dump(values))
    stale = stale_stages(Build(bare_workspace), set(STAGES))
    assert list(stale) == rebuilt
    assert key[0] in " ".join(stale[rebuilt[0]])


def test_a_changed_note_rebuilds_the_report_and_nothing_else(workspace):
    params = workspace.root / "params.yaml"
    params.write_text(params.read_text().replace("by the tests", "and <b>changed</b>"))
    before = materializations(workspace)
    assert geoloc(workspace, "build") == 0
    after = materializations(workspace)
    assert after == {**before, "report": before["report"] + 1}
    page = (output_folder(workspace, "default", "report") / "report.html").read_text()
    assert "&lt;b&gt;changed&lt;/b&gt;" in page


def test_building_again_gives_the_same_bytes(workspace, drawn):
    before = contents(workspace)
    assert geoloc(workspace, "build", "--force") == 0
    assert contents(workspace) == before


def test_changed_photos_that_data_dvc_does_not_know_stop_the_build(workspace, capsys):
    catalog = workspace.pool / "catalog.parquet"
    frame = pd.read_parquet(catalog)
    catalog.unlink()  # it may be a link into DVC's cache
    frame.iloc[:-1].to_parquet(catalog)
    assert geoloc(workspace, "build", "--force") == 1
    assert "data/ is not the version that data.dvc names" in capsys.readouterr().err


def test_a_wrong_setting_stops_at_once_with_key_value_and_limits(bare_workspace, capsys):
    params = bare_workspace.root / "params.yaml"
    params.write_text(params.read_text().replace("max_photos: 30", "max_photos: 0"))
    assert geoloc(bare_workspace, "build") == 1
    assert "partitions.fine.s2.max_photos must be at least 1, got 0" in capsys.readouterr().err


def test_audit_walks_from_the_report_to_the_photos(built, capsys):
    assert geoloc(built, "audit", "report", "--json") == 0
    tree = json.loads(capsys.readouterr().out)

    def ends(node: dict) -> set[str]:
        return set().union(*map(ends, node["made_from"])) if node["made_from"] else {node["artefact"]}

    assert ends(tree) == {"data"}
    assert tree["on_disk"] == "intact"
    assert tree["settings"]["note"] == "Built on generated photos by the tests."
    classifier = next(node for node in tree["made_from"] if node["stage"] == "classifier")
    assert classifier["mlflow_run"]
    assert geoloc(built, "audit", classifier["mlflow_run"]) == 0
    assert capsys.readouterr().out.startswith("default/classifier")


def test_audit_sees_a_changed_artefact(workspace):
    numbers = output_folder(workspace, "default", "evaluation") / "test" / "evaluation.json"
    text = numbers.read_text()
    numbers.unlink()  # it may be a link into DVC's cache
    numbers.write_text(text.replace("1", "2", 1))
    assert audit(Build(workspace), find_artefact(workspace, "default/evaluation")[1])["on_disk"] == "changed"


def test_mlflow_has_the_training_with_its_data_version_and_curves(built):
    import mlflow

    from orchestration.stores.tracking import tracking_uri

    record = Build(built).record("classifier")
    client = mlflow.MlflowClient(tracking_uri(built))
    run = client.get_run(record.mlflow_run)
    pointer = yaml.safe_load(built.data_pointer.read_text())["outs"][0]["md5"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["data_version"] == pointer
    assert run.data.tags["code_version"] == record.code_version
    assert run.inputs.dataset_inputs[0].dataset.digest == pointer
    assert run.data.params["training.epochs"] == "2"
    assert len(client.get_metric_history(run.info.run_id, "validation_loss")) == 2


def test_the_report_is_one_offline_file_and_its_json_agrees_with_the_csv(built):
    folder = output_folder(built, "default", "report")
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#|gallery\.html")""", page)
    assert "Built on generated photos by the tests." in page
    assert page.count(SAMPLE_BANNER.replace("'", "&#39;")) == 1
    pointer = yaml.safe_load(built.data_pointer.read_text())["outs"][0]["md5"]
    assert pointer in page
    numbers = read_json(folder / "report.json")
    table = pd.read_csv(folder / "tables" / "accuracy.csv")
    assert len(table) == 5 * len(read_json(folder / "report.json")["evaluation"]["errors"])
    assert [row["accuracy"] for row in numbers["evaluation"]["accuracy"]] == pytest.approx(
        table["accuracy"].tolist()
    )


def section(page: str, name: str) -> str:
    """A section of the report; empty where there is none."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    return found.group() if found else ""


def test_the_report_shows_what_the_classifier_thinks(built):
    folder = output_folder(built, "default", "report")
    shown = section((folder / "report.html").read_text(), "thoughts")
    kept = output_folder(built, "default", "evaluation") / "test" / "explanations"
    explained = pd.read_parquet(kept / "explained.parquet")
    assert len(explained) == 2
    assert set(explained["photo_id"]) <= set(pd.read_parquet(kept / "answers.parquet")["photo_id"])
    for photo_id in explained["photo_id"]:
        assert f'alt="World map of the classifier&#39;s probabilities for photo {photo_id}"' in shown
        assert f'alt="Photo {photo_id} and how its cell&#39;s probability changes' in shown
    figures = sorted(file.stem for file in (folder / "figures").iterdir())
    assert [name for name in figures if name.startswith("occlusion")] == ["occlusion-1", "occlusion-2"]
    assert shown.count("<img") == shown.count("<figcaption>") == 13
    # What covers no pixel is what the evaluation quotes: its confidence, after temperature scaling.
    windows = pd.read_parquet(kept / "occlusion.parquet").drop_duplicates(["photo_id", "cell"])
    whole = windows.set_index(["photo_id", "cell"])["whole"]
    for row in explained.itertuples():
        assert whole[row.photo_id, row.cell] == pytest.approx(row.confidence, abs=1e-4)
    built.set_environment()
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["default", "report"]))
        metadata = event.asset_materialization.metadata
    assert metadata["Probabilities on the world: probabilities-1"].value.startswith(
        "![probabilities-1](data:image/jpeg;base64,/9j/"
    )
    # Dagster's history keeps them for ever: three of them are enough there.
    assert {name for name in metadata if ": " in name} == {
        "Probabilities on the world: probabilities-1",
        "The surest photos of a cell: surest",
        "Is a confidence what it says?: calibration",
    }


def test_nothing_is_explained_where_nothing_is_asked_for_and_everyone_is_diagnosed(workspace):
    params = workspace.root / "params.yaml"
    values = yaml.safe_load(params.read_text())
    values["evaluation"] |= {"explained": 0, "confident_cells": 0, "leave_photographer_out": True}
    params.write_text(yaml.safe_dump(values))
    assert geoloc(workspace, "build") == 0
    page = (output_folder(workspace, "default", "report") / "report.html").read_text()
    shown = section(page, "thoughts")
    assert "The best of several answers" in shown
    assert "What it looks at" not in shown
    assert "Probabilities on the world" not in shown
    assert "The surest photos" not in shown
    assert "Accuracy by continent" in section(page, "further")
    kept = output_folder(workspace, "default", "evaluation") / "leave-photographer-out"
    table = pd.read_csv(kept / "accuracy_by_continent.csv")
    stored = read_catalog(workspace.pool)["shard"].notna().sum()
    assert table[(table["method"] == "[backbone]NN") & (table["level"] == "city")]["n"].sum() == stored
    # Reposts by somebody else are left out, and what they are worth is a row of its own.
    accuracy = pd.read_csv(kept / "accuracy.csv").set_index(["method", "level"])["accuracy"]
    assert accuracy["[backbone]NN with near-duplicates", "street"] > accuracy["[backbone]NN", "street"]
    splits = pd.read_parquet(output_folder(workspace, "default", "splits") / "splits.parquet")
    copied = splits.dropna(subset="near_duplicates").set_index("photo_id")
    answered = pd.read_parquet(kept / "per_photo.parquet").set_index(["method", "photo_id"])
    near = answered.loc["[backbone]NN"].loc[copied.index]
    places = copied.groupby("near_duplicates")[["latitude", "longitude"]].agg(set)
    told = [
        (row.latitude in places.loc[group, "latitude"]) and (row.longitude in places.loc[group, "longitude"])
        for row, group in zip(near.itertuples(), copied["near_duplicates"], strict=True)
    ]
    assert not any(told)


def test_the_gallery_stands_beside_the_report_and_shows_photos_of_the_pool(built):
    folder = output_folder(built, "default", "report")
    page = (folder / "gallery.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#|report\.html")""", page)
    assert len(page) < 3_000_000
    numbers = read_json(folder / "report.json")
    assert numbers["banner"].startswith(SAMPLE_BANNER)
    assert numbers["sources"] == {SAMPLE_SOURCE: len(read_catalog(built.pool))}
    shown = numbers["gallery"]
    assert shown["continents"]
    assert shown["albums"]
    assert {tuple(pair) for pair in shown["pairs"]} <= set(
        read_pairs(built.pool)[["photo_id", "overhead_id"]].itertuples(index=False, name=None)
    )
    assert len(shown["pairs"]) > 2


def test_the_photos_stage_counts_tiles_and_pairs(built):
    facts = read_json(output_folder(built, "default", "photos") / "summary.json")
    assert facts["pairs"] == len(read_pairs(built.pool)) > 0
    assert facts["overhead_tiles"] == len(read_catalog(overhead_pool(built.pool))) > 0
