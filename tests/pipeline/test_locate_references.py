"""The references of `geoloc locate`: which may be found, how many vote, and an index that is not the network's."""

from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from geoloc.files import file_hashes
from geoloc.photos.catalog import read_catalog, write_catalog
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.retrieval.settings import PcaSettings
from orchestration.lineage.build import Build
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.pipeline.located_world import SETTINGS, TRAINING, ask, files, make, record

NN, KNN = ("--method", "nn"), ("--method", "knn")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    """Of the 40 references the first ten are of another source and of 2012; the others have no time."""
    workspace = make(tmp_path_factory.mktemp("references") / "w")
    catalog = read_catalog(workspace.pool)
    catalog.loc[:9, "source"], catalog.loc[:9, "taken_at"] = "first", pd.Timestamp("2012-06-01")
    write_catalog(workspace.pool, catalog)
    return workspace


@pytest.fixture
def changed(made, tmp_path) -> Workspace:
    shutil.copytree(made.root, tmp_path / "w")
    return Workspace.open(tmp_path / "w")


@pytest.fixture(autouse=True)
def _no_dvc(monkeypatch):
    """There is neither git nor DVC here: a data version has the photos whose numbers end with its last digit."""
    monkeypatch.setattr("orchestration.locate.references.verify_data", lambda workspace: "")
    monkeypatch.setattr(
        "orchestration.assets.subsets.photos_of_version",
        lambda workspace, version: frozenset(f"p{i}" for i in range(int(version[-1]), 100, 10)),
    )


def refused(workspace, capsys, *options: str) -> tuple[int, str]:
    status = geoloc(workspace, "locate", *files(workspace, 41), *options)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return status, lines[0]


def found(workspace, answers: list[dict]) -> set[int]:
    """The numbers of the references that the alternatives are."""
    catalog = read_catalog(workspace.pool)
    numbers = {
        place: i for i, place in enumerate(zip(catalog["latitude"], catalog["longitude"], strict=True))
    }
    return {numbers[one["latitude"], one["longitude"]] for a in answers for one in a["alternatives"]}


def test_only_the_references_that_are_asked_for_are_found(made, capsys):
    def of(*limits: str) -> set[int]:
        wanted = [word for limit in limits for word in ("--references", limit)]
        return found(made, ask(made, capsys, *files(made, 40, 41), *NN, "--alternatives", "40", *wanted))

    assert of() == set(range(40))
    assert of("source=first") == of("from=2012-06-01") == set(range(10))
    assert of("source=first", "source=tests") == set(range(40))
    assert of("source=tests", "version=" + "0" * 31 + "5") == {15, 25, 35}


def test_the_settings_limit_the_references_of_locate_unless_an_option_does(changed, capsys):
    limited = {**SETTINGS["localizers"], "references": {"taken_until": "2013-01-01"}}
    (changed.root / "params.yaml").write_text(yaml.safe_dump({**SETTINGS, "localizers": limited}))
    options = (*files(changed, 41), *NN, "--alternatives", "40")
    assert found(changed, ask(changed, capsys, *options)) == set(range(10))
    others = ask(changed, capsys, *options, "--references", "source=tests")
    assert found(changed, others) == set(range(10, 40))
    assert others[0]["method"] == "[M]NN among source=tests"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*KNN, "--k", "41"), "--k must be at most 40, the number of references to search; got 41"),
        ((*KNN, "--k", "11", "--references", "source=first"), "--k must be at most 10, .*; got 11"),
        ((*NN, "--model", "external"), "--model must be one of .*; got 'external' .another program's embeddings are"),
        ((*NN, "--k", "3"), "--k 3 and --method nn exclude each other"),
        (("--references", "source=first"), "--references source=first and --method class exclude each other"),
        ((*NN, "--references", "origin=first"), "--references must be source=VALUE, .*; got 'origin=first'"),
        ((*NN, "--references", "source="), "--references must be source=VALUE, .*; got 'source='"),
        ((*NN, "--references", "source=frist"), "no reference is of the source 'frist'; sources: first, tests"),
        ((*NN, "--references", "from=2015-01-01"), "none of the 40 references is one of: photos taken from 2015"),
        ((*NN, "--references", "from=yesterday"), "taken_from must be a date or time .* got 'yesterday'"),
        ((*NN, "--references", "until=2010-01-01", "--references", "until=2011-01-01"), "until must be given once"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_an_error_of_one_line(options, words, made, capsys):
    status, line = refused(made, capsys, *options)
    assert status == 2
    assert re.search(words, line)


def test_as_many_neighbours_vote_as_are_asked_for(made, capsys):
    (answer,) = ask(made, capsys, *files(made, 41), *KNN, "--k", "3", "--alternatives", "1")
    assert answer["method"].endswith("k=3")
    assert " of 3 neighbours within" in answer["alternatives"][0]["why"]


@pytest.mark.parametrize("case", ["another network", "another dimension", "empty"])
def test_an_index_that_is_not_the_networks_answers_nothing(case, changed, capsys):
    build = Build(changed)
    made, rows = Embeddings.load(build.folder("embeddings")), read_catalog(changed.pool).head(TRAINING)
    if case == "another network":
        made = dataclasses.replace(made, model="f" * 64)
    if case == "another dimension":
        made = dataclasses.replace(made, vectors=np.ascontiguousarray(made.vectors[:, :7]))
    index = ReferenceIndex.build(made, rows, build.settings.index, seed=4)
    if case == "empty":
        index.remove(rows["photo_id"].tolist())
    index.save(build.folder("index") / "classifier")
    record(changed, "index")
    status, line = refused(changed, capsys, *NN)
    assert status == 1
    assert {
        "another network": "default/index holds embeddings by the model ffffffffffff, and classifier of default is ",
        "another dimension": "default/index holds embeddings of 7 numbers, classifier of default makes 512",
        "empty": "default/index holds no references by classifier; build it again with: ",
    }[case] in line


def test_photos_are_embedded_by_the_components_that_the_index_is_of(changed, capsys):
    settings = {**SETTINGS, "embeddings": {"pca": {"dimensions": 6}}, "localizers": {"crops": 5, "k": 5}}
    (changed.root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    build, catalog = Build(changed), read_catalog(changed.pool)
    folder = build.folder("embeddings")
    pca = Pca.fit(Embeddings.load(folder).vectors, PcaSettings(dimensions=6))

    def put(components: Pca) -> None:
        components.save(folder / PCA_FILE)
        record(changed, "features", "embeddings", "index")
        as_built = dataclasses.replace(build.built("embeddings"), files=file_hashes(folder))
        as_built.write(build.record_path("embeddings"))

    pca.save(folder / PCA_FILE)
    made = Embeddings.load(folder)
    index = ReferenceIndex.build(made, catalog.head(TRAINING), build.settings.index, seed=4)
    index.save(build.folder("index") / "classifier")
    put(pca)
    nearest = index.search(made.subset(catalog["photo_id"].iloc[[41]]).vectors, 5)
    for method in ("nn", "knn", "neighbours", "combined"):
        (answer,) = ask(changed, capsys, *files(changed, 41), "--method", method)
        near = answer["nearby"]["neighbours"]
        assert [one["photo"] for one in near] == nearest.photo_ids()[0].tolist(), method

    put(dataclasses.replace(pca, mean=pca.mean + 0.1))
    status, line = refused(changed, capsys, *NN)
    assert status == 1
    assert "default/index holds embeddings by the model " in line
