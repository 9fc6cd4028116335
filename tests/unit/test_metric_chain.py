"""The metric family in the chain: its stages, what makes them out of date, where its first weights come from."""

from __future__ import annotations

import re

import pytest

from geoloc.settings import SettingsError, parse
from orchestration.assets.inputs import initial_metric
from orchestration.assets.unseen import refuse_seen_tests, trained_before
from orchestration.cli import main
from orchestration.lineage.audit import audit
from orchestration.lineage.build import Build
from orchestration.lineage.stale import expected, stale_stages
from orchestration.lineage.verify import require_recorded
from orchestration.plan.chain import MODEL_FILE, STAGES, borrowed, inputs_of
from orchestration.plan.settings import BuildSettings, load_settings, weights_file
from orchestration.stores.pipeline import pipeline
from orchestration.workspace import Workspace, WorkspaceError
from tests.unit.pretended import bare_workspace, pretend, pretend_stage, record_as_built, write_recipe
from tests.unit.test_unseen import split_as

BELOW = ["metric_embeddings", "index", "evaluation", "report"]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    params = {"partitions": {"fine": {"s2": {"max_photos": 60}}}, "seed": 3, "model": {"backbone": "alexnet"}}
    workspace = bare_workspace(tmp_path, params)
    write_recipe(workspace, "plain", {})
    return workspace


def ranked(workspace: Workspace, **metric: object) -> Build:
    return write_recipe(workspace, "ranked", {"metric": metric})


def stale_after(workspace: Workspace, before: dict[str, object], **changed: object) -> list[str]:
    """The stages that a change of settings makes out of date, those below for certain or perhaps."""
    pretend(write_recipe(workspace, "ranked", before))
    return list(stale_stages(write_recipe(workspace, "ranked", before | changed), set(STAGES)))


def test_a_recipe_has_the_family_by_its_section(workspace):
    def names(build: Build) -> list[str]:
        return [stage.name for stage in build.stages]

    ranking = ranked(workspace)
    assert [name for name in names(ranking) if name not in names(Build(workspace, "plain"))] == [
        "metric",
        "metric_embeddings",
    ]
    write_recipe(workspace, "off", {"metric": None})
    assert names(Build(workspace, "off")) == names(Build(workspace, "plain"))
    for stage in ("index", "evaluation"):
        assert "metric_embeddings" in inputs_of(ranking.settings, STAGES[stage])
    stages = pipeline(workspace, ["ranked"])["stages"]
    assert "build/ranked/metric_embeddings" in stages["ranked-index"]["deps"]
    assert "build/ranked/classifier" in stages["ranked-metric"]["deps"]


def test_it_reads_only_what_its_settings_ask_for(workspace):
    def inputs(**metric: object) -> tuple[str, ...]:
        return inputs_of(ranked(workspace, **metric).settings, STAGES["metric"])

    by_radius = {"positives": {"kind": "radius"}}
    assert inputs() == ("splits", "partition", "classifier")
    assert inputs(start="none") == ("splits", "partition")
    assert inputs(**by_radius) == ("splits", "classifier")
    assert inputs(start="none", **by_radius) == ("splits",)


def test_each_setting_makes_the_stages_that_use_it_out_of_date(workspace):
    metric = {"start": "none", "positives": {"kind": "radius"}}
    before = {"metric": metric}
    everything = ["metric", *BELOW]
    assert stale_after(workspace, before, metric=metric | {"loss": {"kind": "info_nce"}}) == everything
    assert stale_after(workspace, before, metric=metric | {"name": "R2"}) == ["evaluation", "report"]
    assert stale_after(workspace, before, metric=metric | {"workers": 3}) == []
    # Neither the classifier nor the first weights of the model go into it.
    for section in ({"training": {"epochs": 2}}, {"model": {"weights": "recipe:plain"}}):
        pretend(Build(workspace, "plain"))
        found = stale_after(workspace, before, **section)
        assert "classifier" in found
        assert "metric" not in found
    assert "metric" in stale_after(workspace, {"metric": {}}, training={"epochs": 2})
    assert "metric" in stale_after(workspace, before, model={"dropout": 0.5})


def test_its_batch_norm_is_its_own(workspace):
    """As the chunks of a large batch need fixed statistics, and the classifier none."""
    for given, found in ({"batch_norm": "eval"}, "eval"), ({}, "train"):
        assert initial_metric(ranked(workspace, start="none", **given)).settings.batch_norm == found
    before = {"metric": {"start": "none"}}
    assert stale_after(workspace, before, metric={"start": "none", "batch_norm": "eval"}) == [
        "metric",
        *BELOW,
    ]


def test_its_first_weights_are_another_recipes_classifier(workspace):
    build = ranked(workspace, start="recipe:plain")
    assert borrowed(build.settings, STAGES["metric"]) == {"weights": ("plain", "classifier")}
    assert borrowed(build.settings, STAGES["classifier"]) == {}
    assert "build/plain/classifier" in pipeline(workspace, ["ranked"])["stages"]["ranked-metric"]["deps"]
    pretend(Build(workspace, "plain"))
    pretend(build)
    assert "plain/classifier" in [one["artefact"] for one in audit(build, "metric")["made_from"]]
    assert expected(build, STAGES["metric"]).inputs["weights"] == Build(workspace, "plain").content(
        "classifier"
    )
    with pytest.raises(SettingsError, match=r"metric\.start must name one of .* plain; got none_such"):
        load_settings(ranked(workspace, start="recipe:none_such").workspace, "ranked")


def test_its_first_weights_are_a_file(workspace):
    build = ranked(workspace, start="weights/mine.safetensors", positives={"kind": "radius"})
    assert "weights/mine.safetensors" in pipeline(workspace, ["ranked"])["stages"]["ranked-metric"]["deps"]
    pretend(Build(workspace, "plain"))
    with pytest.raises(
        SettingsError, match=r"metric\.start must be .* 'weights/mine.safetensors' is missing"
    ):
        pretend(build)
    (workspace.root / "weights").mkdir()
    (workspace.root / "weights" / "mine.safetensors").write_bytes(b"one")
    pretend(build)
    assert not stale_stages(build, {"metric"})
    assert [(one["artefact"], one["on_disk"]) for one in audit(build, "metric")["made_from"]] == [
        ("ranked/splits", "intact"),
        ("weights", "intact"),
    ]
    (workspace.root / "weights" / "mine.safetensors").write_bytes(b"two")
    assert stale_stages(build, {"metric"}) == {"metric": ["weights changed"]}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"start": "classifer"}, r"metric\.start must be classifier, none, .* got 'classifer'"),
        ({"start": "model.pth"}, r"metric\.start must be .*no pickle is read.* got 'model.pth'"),
        ({"name": "L"}, r"metric\.name must be .* which name other networks; got 'L'"),
        ({"name": "m"}, r"metric\.name must be .* which name other networks; got 'm'"),
        ({"name": "R]NN"}, r"metric\.name must be ASCII letters, .* got 'R\]NN'"),
        ({"name": ""}, r"metric\.name must be .* got ''"),
        (
            {"positives": {"partition": "coarse"}},
            r"metric\.positives\.partition must be one of .* fine.*got coarse",
        ),
        ({"batch_size": 30}, r"metric\.batch_size must be 2 or more times images_per_group"),
        (
            {"chunk_size": 8, "batch_norm": "train"},
            r"metric\.batch_norm must be eval with chunk_size, got train",
        ),
        ({"los": {}}, r"metric\.los is unknown"),
    ],
)
def test_what_cannot_be_is_refused(metric, message):
    with pytest.raises(SettingsError, match=message):
        parse(BuildSettings, {"metric": metric})


def test_a_seed_in_a_recipes_name_is_that_of_both_trainings(workspace):
    ranked(workspace)
    settings = load_settings(workspace, "ranked@8")
    assert (settings.training_seed, settings.metric_seed, settings.seed) == (8, 8, 3)
    assert load_settings(workspace, "ranked").metric_seed == 3


def test_weights_that_have_seen_a_test_photo_are_refused(workspace):
    split_as(Build(workspace, "plain"), "xvxu")
    asking = split_as(ranked(workspace, start="recipe:plain"), "xvtu")
    with pytest.raises(
        SettingsError, match=r"metric\.start must name a recipe .* got plain, trained on 1 of the 1"
    ):
        refuse_seen_tests(asking, "metric")
    refuse_seen_tests(asking)  # the classifier starts from none
    # Through the recipe's own classifier.
    through = write_recipe(workspace, "through", {"metric": {}, "model": {"weights": "recipe:plain"}})
    assert [other.recipe for _, other, _ in trained_before(through, "metric")] == ["plain"]


def test_its_first_weights_are_another_recipes_metric_network(workspace):
    first = ranked(workspace)
    second = write_recipe(workspace, "second", {"metric": {"start": "recipe:ranked/metric"}})
    assert borrowed(second.settings, STAGES["metric"]) == {"weights": ("ranked", "metric")}
    assert "build/ranked/metric" in pipeline(workspace, ["second"])["stages"]["second-metric"]["deps"]
    file = weights_file(workspace, second.settings, "metric.start")
    assert file == first.folder("metric") / MODEL_FILE
    pretend(first)
    pretend(second)
    assert not stale_stages(second, {"metric"})
    assert "ranked/metric" in [one["artefact"] for one in audit(second, "metric")["made_from"]]
    pretend(first, {"metric": "trained again"})
    assert stale_stages(second, {"metric"}) == {"metric": ["weights changed"]}
    # A classifier may start from it too.
    third = write_recipe(workspace, "third", {"model": {"weights": "recipe:ranked/metric"}})
    assert borrowed(third.settings, STAGES["classifier"]) == {"weights": ("ranked", "metric")}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("recipe:plain/metric", r"metric\.start must name a recipe with a section metric; plain has none"),
        ("recipe:second/metric", r"metric\.start must not lead back to the same recipe: second from second"),
        ("recipe:ranked/index", r"metric\.start must name one of the recipes .*; got ranked/index"),
        (
            "recipe:ranked",
            r"metric\.start must say which network of ranked, .*recipe:ranked/metric or recipe:ranked/classifier",
        ),
    ],
)
def test_a_network_that_is_not_there_or_not_clear_is_refused(workspace, start, message, capsys):
    ranked(workspace)
    write_recipe(workspace, "second", {"metric": {"start": start}})
    assert main(["--workspace", str(workspace.root), "build", "--recipe", "second"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    clear = write_recipe(workspace, "second", {"metric": {"start": "recipe:ranked/classifier"}})
    assert borrowed(clear.settings, STAGES["metric"]) == {"weights": ("ranked", "classifier")}


def test_a_metric_network_passes_on_what_it_has_seen(workspace):
    """Its own training, and that of the classifier that it started from."""
    split_as(Build(workspace, "plain"), "xvtu")
    first = split_as(write_recipe(workspace, "ranked", {"metric": {"start": "recipe:plain"}}), "xvtu")
    pretend_stage(first, STAGES["metric"])
    second = write_recipe(workspace, "second", {"metric": {"start": "recipe:ranked/metric"}})
    refuse_seen_tests(split_as(second, "xvtu"), "metric")
    split_as(Build(workspace, "plain"), "xvxu")
    with pytest.raises(
        SettingsError, match=r"metric\.start must name .*got plain, trained on 1 of the 1 test"
    ):
        refuse_seen_tests(second, "metric")
    (first.folder("splits") / "content.json").write_text("other")
    record_as_built(first, STAGES["splits"])
    with pytest.raises(WorkspaceError, match="the photos that ranked/metric was trained on are not known"):
        refuse_seen_tests(second, "metric")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"metric": {"start": "recipe:plain"}, "model": {"backbone": "resnet18"}}, r"metric\.start"),
        ({"model": {"backbone": "resnet18", "weights": "recipe:plain"}}, r"model\.weights"),
        (
            {"cross_view": {"model": {"backbone": "resnet18", "weights": "recipe:plain"}}},
            r"cross_view\.model\.weights",
        ),
    ],
)
def test_weights_of_another_backbone_are_refused_before_anything_is_built(workspace, values, key):
    with pytest.raises(
        SettingsError, match=rf"{key} must name a recipe with the backbone resnet18; plain has alexnet"
    ):
        load_settings(write_recipe(workspace, "second", values).workspace, "second")


def test_an_index_of_another_network_is_refused(workspace):
    build = ranked(workspace)
    pretend(build)
    loaded = (["metric", "index"], ["metric_embeddings"])
    assert list(require_recorded(build, *loaded)) == ["metric", "metric_embeddings", "index"]
    pretend(build, {"metric": "another training"})
    path = build.record_path("metric_embeddings")
    path.write_text(path.read_text().replace(build.built("metric").content, "0" * 64))
    with pytest.raises(WorkspaceError, match="ranked/metric_embeddings was made from another ranked/metric"):
        require_recorded(build, *loaded)


def test_locate_by_a_metric_network_that_is_not_there(workspace, tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"no photo")
    ranked(workspace)
    asked = ["--workspace", str(workspace.root), "locate", str(photo), "--method", "nn", "--model", "metric"]
    assert main([*asked, "--recipe", "plain"]) == 1
    assert (
        "--model metric needs a recipe with a section metric, which plain does not have"
        in capsys.readouterr().err
    )
    assert main([*asked, "--recipe", "ranked"]) == 1
    assert "ranked has no metric, index yet; build it with" in capsys.readouterr().err
