"""Recipes that limit the references or ask for more neighbours than there are, and embeddings from those before."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from geoloc.evaluation.diagnostics import REFERENCE_SIZE, Diagnostics
from geoloc.evaluation.result import Evaluation
from geoloc.files import write_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.retrieval.index import ReferenceIndex
from orchestration.assets.inputs import read_photos
from orchestration.lineage.build import Build
from orchestration.plan.chain import SPLITS_FILE, STAGES, output_folder
from orchestration.stores.data_version import data_version, photos_of_version
from orchestration.workspace import WorkspaceError
from tests.pipeline.conftest import facts, geoloc
from tests.unit.pretended import record_as_built


def recipe(workspace, name, **localizers):
    (workspace.recipes / f"{name}.yaml").write_text(yaml.safe_dump({"localizers": localizers}))


def test_references_are_limited_by_a_recipe_which_shares_all_but_its_evaluation(workspace, capfd):
    taken = read_catalog(workspace.pool, ["photo_id", "taken_at"]).set_index("photo_id")["taken_at"]
    references = ReferenceIndex.load(output_folder(workspace, "default", "index") / "classifier").references
    middle = taken.reindex(references["photo_id"]).median().floor("D")
    kept = int((taken.reindex(references["photo_id"]) < middle).sum())
    recipe(workspace, "early", references={"taken_until": middle.date()}, quantised=True)
    recipe(workspace, "many", k=500)
    stages = ["splits", "features", "partition", "classifier", "embeddings", "index", "evaluation"]
    assert geoloc(workspace, "build", "--recipe", "early", "--only", *stages, "--no-commit") == 0
    record = Build(workspace, "early").built("evaluation")
    assert "data" in record.inputs
    assert Build(workspace, "early").built("index").taken_from == "default/index"

    folder = output_folder(workspace, "early", "evaluation") / "test"
    evaluation, plain = (
        Evaluation.load(output_folder(workspace, name, "evaluation") / "test")
        for name in ("early", "default")
    )
    cells = evaluation.methods[0].removeprefix("[L]").partition("C")[0]
    assert f"[L]NN in {cells}C" in evaluation.methods
    assert f"[L]NN in {cells}C" not in plain.methods
    assert evaluation.descriptions["[L]NN"].endswith(f"; {kept} of these may be found")
    near = pd.read_parquet(folder.parent / "neighbours-test-classifier.parquet")
    assert (taken.reindex(near["neighbour"]) < middle).all()
    sizes = Diagnostics.load(folder).tables[REFERENCE_SIZE]
    assert sizes["references"].max() == kept
    whole = sizes[(sizes["references"] == kept) & (sizes["method"] == "[L]NN")].set_index("level")["accuracy"]
    measured = evaluation.accuracy[evaluation.accuracy["method"] == "[L]NN"].set_index("level")["accuracy"]
    pd.testing.assert_series_equal(whole, measured, rtol=1e-9)

    capfd.readouterr()
    assert geoloc(workspace, "build", "--recipe", "many", "--only", *stages, "--no-commit") == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"geoloc: many/evaluation failed: localizers.k must be at most {len(references)}, the number of references to "
        "search; got 500"
    )


def test_the_photos_of_a_data_version_are_read_from_dvcs_cache(built):
    ids, version = set(read_catalog(built.pool, ["photo_id"])["photo_id"]), data_version(built)
    assert photos_of_version(built, version) == photos_of_version(built, version.removesuffix(".dir")) == ids
    with pytest.raises(WorkspaceError, match=r"the data version 0{32} is not in DVC's cache"):
        photos_of_version(built, "0" * 32)
    with pytest.raises(WorkspaceError, match=f"such as {version}; got 'first'"):
        photos_of_version(built, "first")


def test_features_of_photos_that_the_output_before_has_are_copied_from_it(workspace):
    """The bytes are those of a full computation. Fewer photos, because that needs no ingest: the last are gone."""
    build, batch = Build(workspace), 32
    splits = read_photos(build.folder("splits"))
    assert build.settings.embeddings.batch_size == batch
    count = len(splits) // batch * batch - 5
    file = build.folder("splits") / SPLITS_FILE
    file.unlink()  # copies of the workspace share it
    write_parquet(file, splits.head(count))
    record_as_built(build, STAGES["splits"])
    made = []
    for options, copied in (((), count // batch * batch), (("--force",), 0)):
        assert geoloc(workspace, "build", "--only", "features", "--no-commit", *options) == 0
        assert facts(workspace, "default", "features")["copied from the output before"].value == copied
        made.append(Build(workspace).built("features").content)
    assert made[0] == made[1]
