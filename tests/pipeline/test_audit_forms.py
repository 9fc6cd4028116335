"""`geoloc audit` from answers, materializations and replaced outputs; forward; as a page and as OpenLineage events."""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from datetime import datetime
from xml.etree import ElementTree

import pandas as pd
import pytest

from geoloc.photos.catalog import read_catalog
from orchestration.lineage.answered import made_by
from orchestration.lineage.build import Build
from orchestration.lineage.earlier import keep_earlier
from orchestration.stores.data_version import data_version
from tests.pipeline.conftest import geoloc
from tests.pipeline.test_audit_command import asked, refused


@pytest.fixture
def replaced(workspace):
    """The record of an index that was replaced, with its content; the present one has another content."""
    build = Build(workspace)
    earlier = build.built("index")
    now = dataclasses.replace(earlier, content="f" * 64, mlflow_run=None, dagster_run=str(uuid.uuid4()))
    keep_earlier(build, now)
    now.write(build.record_path("index"))
    return earlier


def answers(workspace, folder, stages=("partition", "classifier")):
    """Answers as `geoloc locate --json` prints them."""
    build = Build(workspace)
    maker = made_by("default", {stage: build.built(stage) for stage in stages}, {"method": "class"})
    file = folder / "answers.json"
    rows = [
        {"photo": f"a/{name}", "method": "[L]9C", "latitude": place, "longitude": 2.0, "made_by": maker}
        for name, place in (("one.jpg", 48.0), ("two.jpg", None))
    ]
    file.write_text(json.dumps(rows))
    return file


def test_a_materialization_is_named_by_run_and_asset(built, capsys):
    run = Build(built).built("index").dagster_run
    for words in (f"{run}:default/index", f"{run}/index", f"{run[:8]}:index", f"{run}:default__index"):
        answer = asked(built, capsys, words)
        assert answer["artefact"] == "default/index", words
        assert run in answer["named_by"]
    assert "is not known in this workspace" in refused(built, capsys, f"{run}:default/nothing")


def test_an_output_that_was_replaced_is_told_of_by_its_record(workspace, capsys, replaced):
    for words in (replaced.content, f"{replaced.dagster_run}:default/index"):
        answer = asked(workspace, capsys, words)
        assert (answer["content"], answer["on_disk"]) == (replaced.content, "replaced")
        assert answer["settings"] == json.loads(json.dumps(replaced.settings))
        assert {one["artefact"] for one in answer["made_from"]} >= {"default/embeddings", "default/splits"}


def test_answers_lead_to_the_outputs_that_gave_them(workspace, tmp_path, capsys):
    file = answers(workspace, tmp_path)
    found = asked(workspace, capsys, str(file))
    assert found["answers"] == {"photos": 2, "located": 1}
    assert [one["artefact"] for one in found["made_from"]] == ["default/partition", "default/classifier"]
    assert found["photos"]["data_version"] == data_version(workspace)
    for words in ("a/one.jpg", "one.jpg", "0"):
        assert asked(workspace, capsys, f"{file}#{words}")["answer"]["latitude"] == 48.0
    assert "must name one of its photos" in refused(workspace, capsys, f"{file}#three.jpg")


def test_answers_of_a_replaced_output_say_so(workspace, tmp_path, capsys):
    file = answers(workspace, tmp_path, ("index",))
    build = Build(workspace)
    before = build.built("index")
    now = dataclasses.replace(before, content="e" * 64)
    keep_earlier(build, now)
    now.write(build.record_path("index"))
    found = asked(workspace, capsys, str(file))
    assert [(one["content"], one["on_disk"]) for one in found["made_from"]] == [(before.content, "replaced")]


def test_answers_of_an_older_geoloc_are_refused_in_one_line(workspace, tmp_path, capsys):
    file = tmp_path / "old.json"
    file.write_text(json.dumps([{"photo": "a.jpg", "method": "[L]9C", "latitude": 1.0}]))
    assert "does not say what gave its answers" in refused(workspace, capsys, str(file))


def forward(workspace, capsys, words):
    capsys.readouterr()
    assert geoloc(workspace, "audit", "--uses", words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_training_photo_went_into_everything_below_the_training(built, capsys):
    splits = pd.read_parquet(Build(built).folder("splits") / "splits.parquet").set_index("photo_id")["split"]
    found = forward(built, capsys, f"photo:{splits.index[splits == 'train'][0]}")
    direct = {(one["how"], one["artefact"]) for one in found["outputs"]}
    assert {("trained", "default/classifier"), ("reference in", "default/index/classifier")} <= direct
    assert {one["artefact"] for one in found["made_from_those"]} >= {"default/evaluation", "default/report"}
    assert [one["artefact"] for one in found["reports"]] == ["default/report"]
    tested = forward(built, capsys, f"photo:{splits.index[splits == 'test'][0]}")
    assert "default/classifier" not in {
        one["artefact"] for one in [*tested["outputs"], *tested["made_from_those"]]
    }
    assert [one["artefact"] for one in tested["reports"]] == ["default/report"]


def test_a_photographer_is_counted_by_photos(built, capsys):
    catalog = read_catalog(built.pool, ["photo_id", "photographer"])
    who, photos = next(iter(catalog.groupby("photographer")["photo_id"]))
    found = forward(built, capsys, f"photographer:{who}")
    assert found["photos"] == sorted(photos)
    splits = next(one for one in found["outputs"] if one["artefact"] == "default/splits")
    assert splits["photos"] == len(photos)


def test_a_data_version_leads_to_all_that_was_made_from_it(workspace, capsys, replaced):
    version = data_version(workspace)
    found = forward(workspace, capsys, f"data-version:{version[:10]}")
    names = {one["artefact"] for one in found["outputs"]}
    assert {"photos", "default/classifier", "default/report"} <= names
    assert [one["content"] for one in found["earlier"]] == [replaced.content]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--uses", "p1-000002"], "--uses must be photo:ID, photographer:ID or data-version:HASH"),
        (["--uses", "photo:nobody"], "no photo of this workspace is photo:nobody"),
        (["--uses", "data-version:00000000"], "must be one that this workspace knows"),
        (["--uses", "photo:a", "--verify"], "--uses and --verify exclude each other"),
        (["report", "--uses", "photo:a"], "--uses and WHAT exclude each other"),
        (["--html", "x.html", "--verify"], "--html needs WHAT"),
        ([], "name what to look at"),
    ],
)
def test_what_cannot_be_asked_is_one_line(built, capsys, words, told):
    capsys.readouterr()
    assert geoloc(built, "audit", *words) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_the_page_is_whole_and_offline_and_draws_every_artefact(built, tmp_path, capsys):
    assert geoloc(built, "audit", "report", "--html", str(tmp_path / "page.html")) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!#)|<script|@import|url\((?!#)', text)
    svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", text, re.DOTALL)[0])
    drawn = {one.text for one in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"data", "default/splits", "default/classifier", "default/index", "default/report"} <= drawn
    links = {one.get("href") for one in svg.iter("{http://www.w3.org/2000/svg}a")}
    assert all(f'id="{link[1:]}"' in text for link in links)


REQUIRED = {"eventTime", "producer", "schemaURL", "run", "job"}
"""Of a RunEvent, by the OpenLineage specification 2-0-2."""


def facets(event):
    """All facets of an event."""
    yield from event["run"]["facets"].values()
    yield from event["job"]["facets"].values()
    for dataset in (*event["inputs"], *event["outputs"]):
        yield from {**dataset.get("facets", {}), **dataset.get("inputFacets", {})}.values()


def test_the_events_have_what_openlineage_requires(built, tmp_path):
    file = tmp_path / "events.ndjson"
    assert geoloc(built, "audit", "report", "--openlineage", str(file)) == 0
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for event in found:
        assert set(event) >= REQUIRED
        assert event["eventType"] in {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
        uuid.UUID(event["run"]["runId"])
        for named in (event["job"], *event["inputs"], *event["outputs"]):
            assert named["namespace"]
            assert named["name"]
        for facet in facets(event):
            assert {"_producer", "_schemaURL"} <= set(facet)
    done = {event["job"]["name"]: event for event in found if event["eventType"] == "COMPLETE"}
    build = Build(built)
    assert set(done) == {build.name(one.name) for one in build.stages} - {"photos"}
    read = {
        one["name"]: one["facets"]["version"]["datasetVersion"] for one in done["default/index"]["inputs"]
    }
    assert read["default/embeddings"] == build.built("embeddings").content
    again = tmp_path / "again.ndjson"
    assert geoloc(built, "audit", "default/index", "--openlineage", str(again)) == 0
    runs = {json.loads(line)["run"]["runId"] for line in again.read_text(encoding="utf-8").splitlines()}
    assert runs <= {event["run"]["runId"] for event in found}  # one run has one id in every export
