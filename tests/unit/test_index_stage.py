"""The stage index: what it tells people of each index, how it grows, and that `geoloc audit` shows it."""

from types import SimpleNamespace

import numpy as np
import pytest

from geoloc.files import write_json, write_parquet
from geoloc.photos.splits import FACTS
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.settings import IndexSettings
from orchestration.assets import index as stage
from orchestration.cli import main
from orchestration.lineage.build import Build
from orchestration.plan.chain import SPLITS_FILE
from orchestration.run.facts import keep_facts
from tests.unit.indexed import clustered
from tests.unit.pretended import bare_workspace, pretend


def write_embeddings(folder, embeddings):
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.asarray(embeddings.photo_ids)
    write_parquet(folder / "unreadable.parquet", embeddings.unreadable)
    photos = embeddings.unreadable.assign(readable=[], content=[]).reindex(range(len(ids)))
    write_parquet(folder / "photos-00000.parquet", photos.assign(photo_id=ids, readable=True, content=""))
    np.save(folder / "vectors-00000.npy", embeddings.vectors)
    meta = {
        "format": 1,
        "finished": True,
        "readable": len(ids),
        "dimension": embeddings.vectors.shape[1],
        "parts": 1,
    }
    write_json(folder / "meta.json", meta | {"model": embeddings.model, "settings": {"dtype": "float32"}})


@pytest.fixture
def build(tmp_path):
    return Build(bare_workspace(tmp_path / "w", {}))


def run_stage(build, count, settings, output="index", start=0):
    """The stage's own code over photos `start` to `count` of made-up ones. Returns its facts and its log."""
    embeddings, rows = clustered(2100, model="m")
    rows = rows.iloc[start:count].reset_index(drop=True)
    for name in ("features", "embeddings"):
        write_embeddings(build.folder(name), embeddings)
    facts = {name: rows.get(name, "known") for name in FACTS}
    photos = rows[["photo_id"]].assign(split="train", reason="", near_duplicates=None, **facts)
    build.folder("splits").mkdir(parents=True, exist_ok=True)
    write_parquet(build.folder("splits") / SPLITS_FILE, photos)
    log = []
    run = SimpleNamespace(
        build=build,
        settings=SimpleNamespace(index=IndexSettings(**settings), seed=1),
        output=build.folder(output),
        input=build.folder,
        log=log.append,
    )
    return stage.build(run).metadata, log


def test_small_collections_are_exact_and_the_facts_say_why(build):
    facts, _ = run_stage(build, 120, {})
    assert facts["backbone/reason"].startswith("Flat for 120 references × 16, ")
    assert facts["backbone/search"] == "exact"
    assert not [name for name in facts if "history" in name or "retraining" in name]


def test_facts_tell_how_it_searches_and_when_it_wants_training(build):
    settings = {"factory": "IVF8,Flat", "nprobe": 1, "tune_queries": 20, "grow": True}
    facts, log = run_stage(build, 500, settings)
    assert facts["classifier/history"] == "built anew: there was none"
    assert facts["classifier/search"].startswith("nprobe 1, recall@100 0.")
    assert any("no search tried reaches index.recall 0.95; the best has 0." in line for line in log)
    facts, log = run_stage(build, 2100, settings, start=50)
    assert facts["classifier/history"] == "grown from 500 references: 1,600 added, 50 removed"
    assert facts["classifier/retraining"].startswith("it has 2,050 references and was trained for 500")
    assert f"classifier: train the index again: {facts['classifier/retraining']}" in log
    facts, _ = run_stage(build, 2100, settings | {"grow": False}, start=50)
    assert "classifier/retraining" not in facts
    assert ReferenceIndex.load(build.folder("index") / "classifier").trained.references == 2050


def test_geoloc_audit_shows_the_facts_of_an_output(build, capsys):
    pretend(build)
    keep_facts(
        build, build.built("index"), {"backbone/reason": "Flat for 3", "table": "| a |\n| b |", "n": 3}
    )
    words = ["--workspace", str(build.workspace.root), "audit", "default/index"]
    main(words)
    told = capsys.readouterr().out
    assert "    backbone/reason: Flat for 3\n    n: 3\n" in told
    assert "| a |" not in told
