"""Embeddings that another program made: both files, what is refused, and what makes them out of date."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from geoloc.photos.splits import FACTS
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.external import FeaturesError, read_features
from geoloc.settings import SettingsError
from orchestration.assets import external_embeddings as stage
from orchestration.cli import main
from orchestration.lineage.audit import audit
from orchestration.lineage.stale import stale_stages
from orchestration.plan.chain import SPLITS_FILE, STAGES
from orchestration.plan.settings import load_settings
from orchestration.stores.pipeline import pipeline
from tests.unit.pretended import bare_workspace, pretend, write_recipe

IDS = ["p0", "p1", "p2"]
VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [-2.0, 0.0]], dtype=np.float32)


def write_npy(folder, vectors=VECTORS, ids=IDS, name="theirs"):
    np.save(folder / f"{name}.npy", vectors)
    (folder / f"{name}.txt").write_text("".join(f"{one}\n" for one in ids))
    return folder / f"{name}.npy"


def test_the_forms_are_one(tmp_path):
    frame = pd.DataFrame({"IMAGE": IDS, "netvlad": list(VECTORS)})
    frame.to_parquet(tmp_path / "lists.parquet")
    wide = pd.DataFrame(VECTORS, columns=["0", "1"]).assign(photo_id=IDS)
    wide.to_parquet(tmp_path / "wide.parquet")
    wide.set_index(pd.Index([7, 8, 9])).to_parquet(tmp_path / "chosen.parquet")  # pandas saves these numbers
    moved = write_npy(tmp_path).with_suffix(".txt").rename(tmp_path / "ids.txt")
    moved.write_text(moved.read_text(), "utf-8-sig")  # as some editors save it
    for files in (
        [tmp_path / "lists.parquet"],
        [tmp_path / "wide.parquet"],
        [tmp_path / "chosen.parquet"],
        [tmp_path / "theirs.npy", moved],
    ):
        found = read_features(*files)
        assert found.ids.tolist() == IDS
        assert found.dimensions == 2
        assert found.positions(["p2", "other", "p0"]).tolist() == [2, -1, 0]
        np.testing.assert_allclose(found.units(np.array([2, 0])), [[-1, 0], [0.6, 0.8]])


@pytest.mark.parametrize(
    "ids", [[7, 8, 9], [7.0, 8.0, 9.0], [b"7", b"8", b"9"]], ids=["int", "float", "bytes"]
)
def test_ids_of_any_type_are_text(tmp_path, ids):
    pd.DataFrame({"id": ids, "vector": list(VECTORS)}).to_parquet(tmp_path / "x.parquet")
    assert read_features(tmp_path / "x.parquet").ids.tolist() == ["7", "8", "9"]


def parquet(**columns):
    def write(folder):
        pd.DataFrame(columns).to_parquet(folder / "theirs.parquet")
        return folder / "theirs.parquet"

    return write


def text(name):
    def write(folder):
        (folder / name).write_text("no features")
        return folder / name

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: write_npy(folder, ids=IDS[:2]), r"theirs.txt has 2 ids, theirs.npy has 3 rows"),
        (lambda folder: write_npy(folder, ids=["p0", "", "p1"]), r"theirs.txt must .* line 2 is empty"),
        (lambda folder: write_npy(folder, ids=["p0", "p1", "p0"]), r"two embeddings of photo 'p0'"),
        (lambda folder: write_npy(folder, vectors=VECTORS[0], ids=["p0"]), r"got float32 of shape \(2,\)"),
        (lambda folder: write_npy(folder, vectors=VECTORS[:, :0]), r"shape \(3, 0\)"),
        (lambda folder: write_npy(folder, vectors=VECTORS.astype("U3")), r"must hold numbers .* got <U3"),
        (lambda folder: write_npy(folder, vectors=np.array([{}, {}, {}])), r"is not an array of numbers"),
        (text("theirs.npy"), r"theirs.npy is not an array of numbers in .npy format"),
        (text("theirs.parquet"), r"theirs.parquet cannot be read"),
        (text("theirs.pkl"), r"must end in .npy or .parquet \(no pickle is read\)"),
        (lambda folder: folder, r"is a folder, not a file"),
        (lambda folder: folder / "theirs.npy", r"theirs.npy is missing"),
        (parquet(a=[1.0], b=[2.0]), r"no column of photo ids \(photo_id, .*; it has a, b"),
        (parquet(id=["p0"]), r"must have a column of lists of numbers"),
        (parquet(id=["p0"], x=["far"]), r"must have a column of lists of numbers, or numbers in all"),
        (parquet(id=["p0"], x=[["far"]]), r"must have lists of numbers in its column x"),
        (parquet(id=["p0"], x=[[1.0]], y=[[1.0]]), r"must have one column of lists, .* got x, y"),
        (parquet(id=["p0", "p1"], x=[[1.0, 2.0], [1.0]]), r"photo 'p0' has 2, 'p1' 1"),
        (parquet(id=["p0", "p1"], x=[[1.0, 2.0], None]), r"no embedding of 1 photos, such as 'p1'"),
        (parquet(id=["p0", None], x=[[1.0], [2.0]]), r"rows without id"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(tmp_path, write, message):
    with pytest.raises(FeaturesError, match=message):
        read_features(write(tmp_path))


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN or infinite numbers"), (np.inf, "NaN"), (0, "zeros only")]
)
def test_a_vector_without_direction_is_told_with_its_photo(tmp_path, value, words):
    vectors = VECTORS.copy()
    vectors[1] = value
    found = read_features(write_npy(tmp_path, vectors))
    with pytest.raises(FeaturesError, match=f"theirs.npy has {words}.* 1 photos, such as 'p1'; leave"):
        found.units(np.arange(3))
    np.testing.assert_allclose(found.units(np.array([2])), [[-1, 0]])  # what is not asked for does not matter


@pytest.fixture
def workspace(tmp_path):
    return bare_workspace(tmp_path / "w", {"embeddings": {"models": []}})


def theirs(workspace, **values):
    given = {"name": "NetVLAD", "file": "features/theirs.npy"} | values
    return write_recipe(workspace, "theirs", {"embeddings": {"external": given}})


def run_stage(build, photos=4, **settings):
    table = pd.DataFrame({"photo_id": [f"p{i}" for i in range(photos)], "split": "train", "reason": ""})
    build.folder("splits").mkdir(parents=True, exist_ok=True)
    table.assign(**{name: "known" for name in FACTS}).to_parquet(build.folder("splits") / SPLITS_FILE)
    build.folder(stage.__name__.rpartition(".")[2]).mkdir(exist_ok=True)
    log = []
    run = SimpleNamespace(
        build=build, workspace=build.workspace, settings=load_settings(build.workspace, build.recipe),
        output=build.folder("external_embeddings"), input=build.folder, log=log.append,
    )  # fmt: skip
    return stage.build(run).metadata, log


def test_the_stage_matches_photos_by_id_and_names_those_that_are_missing(workspace):
    build = theirs(workspace)
    (workspace.root / "features").mkdir()
    write_npy(workspace.root / "features", ids=["p2", "p0", "elsewhere"])
    facts, log = run_stage(build)
    assert facts["missing in the file"] == "2 of 4 photos, such as p1, p3"
    assert (facts["photos"], facts["not in the pool"], facts["dimensions"]) == (2, 1, 2)
    assert any("theirs.npy lacks 2 of 4 photos, such as p1, p3" in line for line in log)
    found = Embeddings.load(build.folder("external_embeddings"))
    assert found.photo_ids.tolist() == ["p0", "p2"]
    np.testing.assert_allclose(found.vectors, [[1, 0], [0.6, 0.8]], atol=1e-3)
    assert found.unreadable["reason"].tolist() == ["not in theirs.npy"] * 2
    assert found.model

    with pytest.raises(
        SettingsError, match=r"embeddings.external.pca.dimensions must be at most 1 for 2 training"
    ):
        run_stage(theirs(workspace, pca={"dimensions": 2}))
    build = theirs(workspace)
    write_npy(workspace.root / "features", ids=["x0", "x1", "x2"])
    with pytest.raises(
        FeaturesError, match=r"none of the 4 photos: its ids are such as x0, x1, x2, theirs such as p0"
    ):
        run_stage(build)


def test_the_files_are_its_input(workspace):
    build = theirs(workspace)
    with pytest.raises(
        SettingsError, match=r"embeddings.external.file must be a file .* 'features/theirs.npy' is mis"
    ):
        pretend(build)
    (workspace.root / "features").mkdir()
    file = write_npy(workspace.root / "features")
    ids = file.with_suffix(".txt")
    kept = ids.read_bytes()
    ids.unlink()
    with pytest.raises(
        SettingsError, match=r"embeddings.external.ids must be a file .*'features/theirs.txt' is miss"
    ):
        pretend(build)
    ids.write_bytes(kept)
    pretend(build)
    assert not stale_stages(build, set(STAGES))
    deps = pipeline(workspace, ["theirs"])["stages"]["theirs-external_embeddings"]["deps"]
    assert {"features/theirs.npy", "features/theirs.txt"} < set(deps)
    leaves = {one["artefact"]: one["on_disk"] for one in audit(build, "external_embeddings")["made_from"]}
    assert leaves == {"theirs/splits": "intact", "external": "intact"}
    below = ["external_embeddings", "index", "evaluation", "report"]
    for changed in (file, ids):
        before = changed.read_bytes()
        changed.write_bytes(before + b"\n")
        assert list(stale_stages(build, set(STAGES))) == below
        assert stale_stages(build, set(STAGES))["external_embeddings"] == ["external changed"]
        changed.write_bytes(before)
    # Its name in tables is no part of it.
    assert list(stale_stages(theirs(workspace, name="Siamac"), set(STAGES))) == ["evaluation", "report"]
    assert "external_embeddings" not in stale_stages(
        write_recipe(workspace, "theirs", {"embeddings": {"external": None}}), set(STAGES)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"file": "theirs.pkl"},
            r"embeddings.external.file must be a path that ends in .npy or .parquet \(no pickle",
        ),
        ({"name": "l"}, r"embeddings.external.name must be .* got 'l'"),
        ({"name": "a b"}, r"embeddings.external.name must be ASCII letters"),
        (
            {"file": "a.parquet", "ids": "b.txt"},
            r"embeddings.external.ids must be empty where file is a .parquet",
        ),
    ],
)
def test_settings_that_cannot_be(workspace, values, message, capsys):
    theirs(workspace, **values)
    with pytest.raises(SettingsError, match=message):
        load_settings(workspace, "theirs")
    (workspace.recipes / "theirs.yaml").write_text(
        "embeddings: {external: {name: R, file: a.parquet}}\nmetric: {name: r}\n"
    )
    assert main(["--workspace", str(workspace.root), "build", "--recipe", "theirs"]) == 1
    assert "embeddings.external.name must not be that of the metric network, r" in capsys.readouterr().err
