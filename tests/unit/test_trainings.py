"""The luck of one training: recipes with other seeds, and what comparisons know of it."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from scipy import stats

from geoloc.evaluation.claims.claim import Claim, Measured, evaluate_claims
from geoloc.evaluation.measures.comparison import compare
from geoloc.evaluation.measures.intervals import differences
from geoloc.evaluation.measures.trainings import pooled_luck
from geoloc.settings import SettingsError
from orchestration.graph.assets import asset_key
from orchestration.lineage.build import Build
from orchestration.lineage.stale import expected
from orchestration.plan.seeds import plain, training_seed, without_seed
from orchestration.plan.settings import known_recipes, load_settings
from orchestration.run.reuse import equal_output
from orchestration.stores.pipeline import pipeline
from tests.unit.pretended import bare_workspace, pretend, write_recipe


@pytest.fixture
def workspace(tmp_path):
    made = bare_workspace(tmp_path / "w", {"seed": 7, "splits": {"validation": {"share": 0.1}}})
    write_recipe(made, "fine", {"training": {"epochs": 3}})
    return made


def test_a_recipe_with_a_seed_is_the_recipe_with_another_training(workspace):
    fine, other = load_settings(workspace, "fine"), load_settings(workspace, "fine@8")
    assert (fine.training_seed, other.training_seed, other.seed, other.training.epochs) == (7, 8, 7, 3)
    assert load_settings(workspace, "default@8").training_seed == 8
    (workspace.root / "recipes" / "seeded.yaml").write_text(yaml.safe_dump({"training": {"seed": 5}}))
    assert load_settings(workspace, "seeded").training_seed == 5
    assert load_settings(workspace, "seeded@7").training_seed == 7
    for name, message in (
        ("fine@7", "recipe fine@7 is fine itself, whose training seed is 7"),
        ("seeded@5", "is seeded itself"),
        ("nothing@8", "recipe must be one of default, fine, seeded; got 'nothing@8'"),
        ("fine@x", "got 'fine@x'"),
        ("fine@8@9", "got 'fine@8@9'"),
    ):
        with pytest.raises(SettingsError, match=message):
            load_settings(workspace, name)
    (workspace.root / "recipes" / "fine@8.yaml").write_text("note: x")
    (workspace.root / "recipes" / "fine__seed8.yaml").write_text("note: x")
    assert known_recipes(workspace) == ["default", "fine", "seeded"]


def test_only_what_the_training_changes_is_built_again(workspace):
    pretend(Build(workspace, "fine"))
    other = Build(workspace, "fine@8")
    taken = []
    for stage in other.stages:
        if stage.name != "report" and equal_output(other, expected(other, stage)) is not None:
            taken.append(stage.name)
        if stage.name == "classifier":
            assert "training.seed" in other.settings.changes(
                Build(workspace, "fine").record("classifier").settings, stage.sections
            )
        pretend(other, {stage.name: "another training"} if stage.name == "classifier" else None)
    assert [name for name in taken if name != "photos"][:3] == ["splits", "partition", "features"]
    assert "classifier" not in taken


def test_names_in_dvc_and_dagster_have_no_at_sign(workspace):
    stages = pipeline(workspace, ["fine", "fine@8"])["stages"]
    assert "fine__seed8-classifier" in stages
    assert not any("@" in name for name in stages)
    assert stages["fine__seed8-classifier"]["cmd"].endswith("--recipe fine@8")
    assert stages["fine__seed8-classifier"]["params"] == stages["fine-classifier"]["params"]
    assert asset_key("fine@8", "classifier").path == ["fine__seed8", "classifier"]
    assert (without_seed("fine@8"), training_seed("fine@8"), plain("fine")) == ("fine", 8, "fine")


def hits_of(rng, ease, photographers=60, each=5):
    return (rng.random(photographers * each) < np.repeat(ease, each)).astype(float)


def test_a_recipe_against_its_own_other_seed_is_undecided_and_against_a_better_one_is_not():
    rng = np.random.default_rng(0)
    ease, clusters = rng.random(60), np.repeat(np.arange(60), 5)
    first = hits_of(rng, ease)
    lucky = np.where(rng.random(300) < 0.3, 1.0, first)  # many points better: a training that went well
    for_these = differences((lucky - first)[:, None], clusters)
    assert for_these.interval()[0][0] > 0.05
    luck = pooled_luck([np.array([[first.mean()], [lucky.mean()]])])
    assert luck.freedom == 1
    assert luck.variance[0] == pytest.approx(np.var([first.mean(), lucky.mean()], ddof=1))
    table = compare(
        [("fine@8", "fine")], ["fine", "fine@8"], np.stack([first, lucky], axis=1)[:, :, None], clusters,
        {"city": 25.0}, luck=luck, trainings={"fine": 1, "fine@8": 1},
    )  # fmt: skip
    assert table["verdict"].item() == "undecided"
    # An interval is the two sources together, each by its own t.
    (low,), (plain_low,) = for_these.widened(np.array([0.02]), 4).interval()[0], for_these.interval()[0]
    gap = for_these.estimate[0]
    assert gap - low == pytest.approx(np.hypot(gap - plain_low, 0.02 * stats.t.ppf(0.975, 4)))


@pytest.mark.slow
def test_verdicts_about_recipes_are_wrong_as_rarely_as_they_say():
    """Two recipes of equal worth, three trainings each; a training moves every photographer's chances a little."""
    wrong, before = 0, 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        ease, clusters = rng.normal(0, 1, 60), np.repeat(np.arange(60), 5)
        runs = {
            name: [hits_of(rng, 1 / (1 + np.exp(-(ease + rng.normal(0, 0.4)))), each=5) for _ in range(3)]
            for name in ("a", "b")
        }
        luck = pooled_luck([np.array([[hit.mean()] for hit in of]) for of in runs.values()])
        hits = np.stack([np.mean(of, axis=0) for of in runs.values()], axis=1)[:, :, None]
        known = {"luck": luck, "trainings": {"a": 3, "b": 3}}
        for options in (known, {}):
            table = compare([("a", "b")], ["a", "b"], hits, clusters, {"city": 25.0}, **options)
            decided = table["verdict"].item() != "undecided"
            wrong, before = (wrong + decided, before) if options else (wrong, before + decided)
    assert wrong <= 12  # 6 expected
    assert before > 30


def test_claims_know_the_luck_of_trainings_but_not_within_one_network():
    n = 300
    ids = np.array([f"p{i}" for i in range(n)], dtype=object)
    owners = np.array([f"u{i // 5}" for i in range(n)], dtype=object)

    def role(shares, training):
        right = np.stack([np.arange(n) % 100 < 100 * share for share in shares], axis=1)
        return Measured(ids, owners, np.where(right, 1.0, 9000.0), training)

    claim = Claim("a beats b", "It is so.", "A paper", ((1, "a"), (-1, "b")), "city")

    def verdict(a, b):
        return evaluate_claims([claim], {"a": a, "b": b}).iloc[0]

    once = verdict(role([0.6], "fine"), role([0.4], "coarse"))
    assert once["verdict"] == "holds"
    unlucky = verdict(role([0.6, 0.3, 0.9], "fine"), role([0.4], "coarse"))
    assert unlucky["difference"] == pytest.approx(0.2)
    assert unlucky["verdict"] == "undecided"
    steady = verdict(role([0.6, 0.59, 0.61], "fine"), role([0.4, 0.41, 0.39], "coarse"))
    assert steady["verdict"] == "holds"
    # Two answers of one network share its luck: the difference is the same in every training.
    within = verdict(role([0.6, 0.3, 0.9], "fine"), role([0.4, 0.1, 0.7], "fine"))
    assert within["verdict"] == "holds"
