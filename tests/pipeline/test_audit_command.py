"""`geoloc audit` takes what people have, and ends at the photos."""

from __future__ import annotations

import hashlib
import json
import re

import pandas as pd
import pytest

from geoloc.evaluation.result import Evaluation
from geoloc.files import sha256_bytes
from geoloc.photos.catalog import read_catalog
from orchestration.lineage.build import Build
from orchestration.stores.data_version import data_version
from orchestration.stores.pipeline import read_stages
from tests.pipeline.conftest import geoloc


def asked(workspace, capsys, *words):
    """The answer as JSON."""
    capsys.readouterr()
    assert geoloc(workspace, "audit", *words, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(workspace, capsys, words):
    """The one line of an error."""
    capsys.readouterr()
    assert geoloc(workspace, "audit", words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def names(workspace):
    """What people may have of an output, and the output."""
    build = Build(workspace)
    trained = build.built("classifier")
    index = build.folder("index") / "classifier" / "index.faiss"
    locked = read_stages(workspace.root / "dvc.lock")["default-index"]["outs"][0]["md5"]
    return {
        "report": "report",
        "default/report": "report",
        "build/default/report/report.html": "report",
        str(index): "index",
        "build/default/lineage/splits.json": "splits",
        trained.content: "classifier",
        trained.content[:8].upper(): "classifier",
        trained.mlflow_run: "classifier",
        f"mlflow/artifacts/{trained.mlflow_run}": "classifier",
        sha256_bytes(index.read_bytes())[:12]: "index",
        locked: "index",
        "photos": "photos",
    }


def test_an_output_is_found_by_what_people_have_of_it(built, capsys):
    for words, stage in names(built).items():
        answer = asked(built, capsys, words)
        assert answer["stage"] == stage, words
        assert answer["differs"] == []
        assert answer["photos"]["data_version"] == data_version(built)


def test_a_registered_model_leads_to_its_training(workspace, capsys):
    import mlflow

    from orchestration.stores.tracking import tracking_uri

    trained = Build(workspace).built("classifier")
    client = mlflow.MlflowClient(tracking_uri(workspace), tracking_uri(workspace))
    client.create_registered_model("where")
    client.create_model_version("where", f"runs:/{trained.mlflow_run}/model", run_id=trained.mlflow_run)
    client.set_registered_model_alias("where", "champion", "1")
    for words in ("where/1", "models:/where/1", "models:/where@champion"):
        answer = asked(workspace, capsys, words)
        assert answer["content"] == trained.content
        assert trained.mlflow_run in answer["named_by"]
    assert "models:/where/2 is not known" in refused(workspace, capsys, "models:/where/2")


def test_every_audit_ends_at_the_photos_by_split_and_source(built, capsys):
    splits = pd.read_parquet(Build(built).folder("splits") / "splits.parquet")
    source = read_catalog(built.pool, ["photo_id", "source"]).set_index("photo_id")["source"]
    photos = asked(built, capsys, "default/index")["photos"]
    for split, counts in photos["splits"].items():
        assert counts == source[splits.loc[splits["split"] == split, "photo_id"]].value_counts().to_dict()
    assert photos["photos"] == len(splits)
    assert sum(photos["quarantined"].values()) > 0
    assert geoloc(built, "audit", "default/index") == 0
    told = capsys.readouterr().out
    train = int((splits["split"] == "train").sum())
    assert re.search(rf"^ +train +{train}\b", told, re.MULTILINE)
    assert re.search(rf"^ +quarantined +{sum(photos['quarantined'].values())}\b", told, re.MULTILINE)
    assert told.endswith("on disk: all as recorded\n")


@pytest.mark.parametrize("spelled", ["[L]NN/city", "[l]nn/25", "[L] NN/25 km"])
def test_a_number_is_shown_with_its_interval_and_what_made_it(built, capsys, spelled):
    evaluation = Evaluation.load(Build(built).folder("evaluation") / "test")
    rows = evaluation.accuracy.set_index(["method", "level"])
    answer = asked(built, capsys, f"report:test/{spelled}")
    expected = rows.loc[("[L]NN", "city")]
    found = answer["number"]
    assert [found["value"], found["low"], found["high"], found["n"]] == list(
        expected[["accuracy", "low", "high", "n"]]
    )
    assert answer["artefact"] == "default/report"
    assert asked(built, capsys, f"default/evaluation:test/{spelled}")["artefact"] == "default/evaluation"
    assert geoloc(built, "audit", f"default/report:test/{spelled}") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"test, [L]NN, city (within 25 km): {100 * expected['accuracy']:.1f} %")
    assert f"of {int(expected['n']):,} photos" in first


def test_numbers_of_baselines_ceilings_and_errors_are_numbers_too(built, capsys):
    evaluation = Evaluation.load(Build(built).folder("evaluation") / "test")
    baseline = evaluation.baselines.iloc[0]
    found = asked(built, capsys, f"report:test/{baseline['baseline']}/{baseline['level']}")["number"]
    assert found["value"] == baseline["accuracy"]
    found = asked(built, capsys, "report:test/ceiling of fine centroid/region")["number"]
    ceilings = evaluation.ceilings.set_index(["partition", "answer", "level"])
    assert found["value"] == ceilings.loc[("fine", "centroid", "region"), "accuracy"]
    score = evaluation.scores.set_index(["method", "measure"]).loc[("[L]NN", "GeoScore")]
    found = asked(built, capsys, "report:test/[L]NN/geoscore")["number"]
    assert [found[k] for k in ("value", "low", "high", "unit")] == [
        *score[["value", "low", "high"]],
        "points",
    ]
    assert geoloc(built, "audit", "report:test/[L]NN/right country") == 0
    assert "test, [L]NN, right country: " in capsys.readouterr().out
    found = asked(built, capsys, "report:test/[L]NN/median")["number"]
    assert found["value"] == evaluation.errors.set_index("method").loc["[L]NN", "median_km"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("report:test/[L]N/city", r"METHOD of report:TEST/METHOD/LEVEL must be one of \[L\].*did you mean \[L\]NN"),
        ("report:tset/[L]NN/city", r"TEST of .* must be one of test; got 'tset' \(did you mean test\?\)"),
        ("report:test/[L]NN/village", r"LEVEL of .* must be one of street, city, region, country, continent, median"),
        ("report:test/densest cell/median", r"LEVEL of .* one of .*continent, GeoScore, right country, right region;"),
        ("report:test", r"a number is named report:TEST/METHOD/LEVEL, such as report:test/\[L\]NN/city"),
        ("elsewhere/report:test/[L]NN/city", r"elsewhere has no build"),
        ("reprot", r"not known in this workspace; accepted: .*models:/NAME/VERSION.*; near: report"),
        ("photo:nobody", r"photo:nobody is not known"),
        ("deadbeefdeadbeef", r"deadbeefdeadbeef is not known in this workspace; accepted: a stage"),
        ("params.yaml", r"params\.yaml is not known"),
    ],
)  # fmt: skip
def test_what_names_nothing_is_one_line_with_what_is_accepted(built, capsys, words, told):
    assert re.search(told, refused(built, capsys, words))


def test_what_names_several_outputs_is_one_line_with_all(workspace, capsys):
    build = Build(workspace)
    other = build.built("splits").__class__(
        **{**vars(build.built("splits")), "recipe": "other", "artefact": "other/splits"}
    )
    other.write(build.of("other").record_path("splits"))
    assert refused(workspace, capsys, "splits").endswith("it could be default/splits, other/splits")


def test_a_photo_is_shown_with_its_split_and_what_uses_it(built, capsys):
    splits = pd.read_parquet(Build(built).folder("splits") / "splits.parquet").set_index("photo_id")["split"]
    catalog = read_catalog(built.pool).set_index("photo_id")
    used = {
        "train": ["trained default/partition", "trained default/classifier", "reference in default/index/backbone",
                  "reference in default/index/classifier"],
        "validation": ["validated default/classifier"],
        "test": ["query of default/evaluation test"],
    }  # fmt: skip
    for split, outputs in used.items():
        photo = splits.index[splits == split][0]
        for words in (
            photo,
            f"photo:{photo}",
            catalog.loc[photo, "sha256"],
            catalog.loc[photo, "sha256"][:10],
        ):
            answer = asked(built, capsys, words)
            assert answer["photo_id"] == photo
            assert answer["facts"]["source"] == catalog.loc[photo, "source"]
            assert answer["builds"] == {"default": {"split": split, "reason": None, "used": outputs}}
            assert answer["data"]["on_disk"] == "intact"


def test_a_photo_in_quarantine_is_found_by_its_id_and_its_place_in_the_source(built, capsys):
    away = pd.read_parquet(built.pool / "quarantine.parquet")
    row = away[(away["severity"] == "photo") & away["photo_id"].notna()].iloc[0]
    for words in (row["photo_id"], row["reference"]):
        found = asked(built, capsys, f"photo:{words}")
        assert row["reason"] in [one["reason"] for one in found["quarantine"]]


def test_a_picture_leads_to_the_photo_that_was_stored_of_it(built, capsys, tmp_path):
    from geoloc.photos.shards import ShardReader

    row = read_catalog(built.pool).iloc[0]
    with ShardReader(built.pool) as reader:
        (tmp_path / "mine.jpg").write_bytes(reader.read(row["shard"], int(row["offset"]), int(row["length"])))
    assert asked(built, capsys, str(tmp_path / "mine.jpg"))["photo_id"] == row["photo_id"]


def test_data_and_a_shard_end_at_the_photos(built, capsys):
    version = data_version(built)
    for words in ("data", "data.dvc", "data/catalog.parquet", version, version[:8]):
        answer = asked(built, capsys, words)
        assert answer["data"] == {
            "artefact": "data",
            "content": version,
            "on_disk": "intact",
            "made_from": [],
        }
    catalog = read_catalog(built.pool, ["photo_id", "shard"])
    shard = catalog["shard"].dropna().iloc[0]
    found = asked(built, capsys, f"data/shards/{shard}")["shard_photos"]
    assert found == catalog.loc[catalog["shard"] == shard, "photo_id"].tolist()


@pytest.mark.parametrize("file", ["report.html", "provenance.json", "gallery.html", "tables/accuracy.csv"])
def test_a_changed_byte_of_any_file_of_the_report_is_seen(workspace, capsys, file):
    build = Build(workspace)
    path = build.folder("report") / file
    before = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    path.write_bytes(before[:-2] + bytes([before[-2] ^ 1]) + before[-1:])
    answer = asked(workspace, capsys, "report")
    assert answer["changed_files"] == [file]
    assert answer["differs"] == [f"default/report: changed: {file}"]
    assert geoloc(workspace, "audit", "report") == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith(f"changed: {file}")
    assert last == f"    default/report: changed: {file}"


def test_a_changed_report_page_is_built_again(workspace, capsys):
    path = Build(workspace).folder("report") / "report.html"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text(text.replace("%", "&", 1), encoding="utf-8")
    assert geoloc(workspace, "build", "--no-commit") == 0
    told = capsys.readouterr().out
    assert re.search(r"default/report +its files were changed or removed: report\.html\n", told)
    assert path.read_text(encoding="utf-8").count("%") == text.count("%")
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest() == Build(workspace).built("report").files["report.html"]
    )
