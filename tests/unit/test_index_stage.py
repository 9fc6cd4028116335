"""The stage index: what it tells people of each index, how it grows, and that `geoloc audit` shows it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from geoloc.files import write_json, write_parquet
from geoloc.localizers.settings import LocalizerSettings
from geoloc.photos.splits import FACTS
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.settings import EmbeddingSettings, IndexSettings
from orchestration.assets import index as stage
from orchestration.assets.answers import by_neighbour
from orchestration.cli import main
from orchestration.errors import is_for_users
from orchestration.lineage.build import Build
from orchestration.plan.chain import SPLITS_FILE
from orchestration.plan.operations_settings import GrowthSettings
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


def run_stage(
    build, count, settings, output="index", start=0, damage=lambda folder, vectors: None, admit="always"
):
    """The stage's own code over photos `start` to `count` of made-up ones. Returns its facts and its log."""
    embeddings, rows = clustered(2100, model="m")
    rows = rows.iloc[start:count].reset_index(drop=True)
    for name in ("features", "embeddings"):
        write_embeddings(build.folder(name), embeddings)
        damage(build.folder(name), embeddings.vectors)
    facts = {name: rows.get(name, "known") for name in FACTS}
    photos = rows[["photo_id"]].assign(split="train", reason="", near_duplicates=None, **facts)
    build.folder("splits").mkdir(parents=True, exist_ok=True)
    write_parquet(build.folder("splits") / SPLITS_FILE, photos)
    log = []
    run = SimpleNamespace(
        build=build,
        settings=SimpleNamespace(index=IndexSettings(**settings), seed=1, growth=GrowthSettings(admit=admit)),
        output=build.folder(output),
        input=build.folder,
        log=log.append,
    )
    return stage.build(run).metadata, log


def test_photos_that_wait_are_added_to_the_index_if_they_may_be_found(build):
    run_stage(build, 120, {"grow": True})
    _, rows = clustered(2100, model="m")
    late = rows.iloc[120:130].reset_index(drop=True)
    facts = {name: late.get(name, "known") for name in FACTS}
    late = late[["photo_id"]].assign(split="reference", reason="", **facts)
    late.loc[7:, ["split", "reason"]] = ["unused", "waits for the next training"]
    build.folder("growth").mkdir(parents=True)
    write_parquet(build.folder("growth") / SPLITS_FILE, late)
    facts, _ = run_stage(build, 120, {"grow": True}, admit="retraining")
    assert facts["backbone/history"] == "grown from 120 references: 7 added, 0 removed"


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


def overwritten(number):
    """The embedding of photo p3 is nothing but a number."""

    def damage(folder, vectors):
        vectors = vectors.copy()
        vectors[3] = number
        np.save(folder / "vectors-00000.npy", vectors)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (overwritten(np.nan), "the embedding of photo 'p3' has NaN or infinite numbers; leave such photos out"),
        (overwritten(0), "the embedding of photo 'p3' has only zeros; leave such photos out of the index"),
        (lambda folder, _: (folder / "vectors-00000.npy").unlink(), "vectors-00000.npy is missing, meta.json says 1"),
        (lambda folder, vectors: np.save(folder / "vectors-00000.npy", vectors[:9]), "2100 photos are readable"),
    ],
)  # fmt: skip
def test_embeddings_that_cannot_be_indexed_are_an_error_of_a_line(build, damage, words):
    with pytest.raises(ValueError, match=words) as caught:
        run_stage(build, 120, {}, damage=damage)
    assert is_for_users(caught.value)


@pytest.mark.parametrize(
    ("settings", "count", "words"),
    [
        ({"factory": "IFV8,Flat"}, 120, r"index\.factory 'IFV8,Flat' is not one that FAISS takes: "),
        ({"memory_gb": 1e-6}, 120, r"index\.memory_gb 1e-06 is too small for 120 references"),
        ({}, 0, "nothing to index: none of the 0 rows has an embedding"),
    ],
)
def test_an_index_that_cannot_be_made_is_an_error_of_a_line(build, settings, count, words):
    with pytest.raises(ValueError, match=words) as caught:
        run_stage(build, count, settings)
    assert is_for_users(caught.value)


@pytest.mark.parametrize("case", ["model", "dimension", "empty", "k"])
def test_an_evaluation_by_an_index_that_does_not_fit_names_both_sides(build, case):
    run_stage(build, 120, {})
    embeddings, _ = clustered(2100, 7 if case == "dimension" else 16, model="o" if case == "model" else "m")
    write_embeddings(build.folder("embeddings"), embeddings)
    if case == "empty":
        index = ReferenceIndex.load(build.folder("index") / "classifier")
        index.remove(index.references["photo_id"].tolist())
        index.save(build.folder("index") / "classifier")
    settings = SimpleNamespace(
        localizers=LocalizerSettings(k=121 if case == "k" else 100),
        metric=None,
        embeddings=EmbeddingSettings(),
        evaluation=None,
        seed=1,
    )
    run = SimpleNamespace(
        build=build, settings=settings, input=build.folder, workspace=build.workspace, log=print
    )
    words = {
        "model": "the index holds embeddings by the model m, these are by o",
        "dimension": "embeddings have 7 numbers, the index 16",
        "empty": "the index holds no references",
        "k": r"localizers\.k must be at most 120, the number of references to search; got 121",
    }[case]
    with pytest.raises(ValueError, match=words) as caught:
        by_neighbour(run, "classifier", {"fine": None})("test", pd.DataFrame({"photo_id": ["p7"]}))
    assert is_for_users(caught.value)


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
