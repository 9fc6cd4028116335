"""Recipes: all parse, full ones say what was published (stated here a second time), networks and cells exist."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.first_steps import PUBLISHED_HEADS
from geoloc.models.backbones import make_backbone
from geoloc.models.classifier import Classifier
from geoloc.models.hierarchy import nested_parents
from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import RECIPE
from geoloc.partitions.thresholds import fit_partition
from geoloc.settings import SettingsError, replace
from geoloc.training.metric_settings import CLASSIFIER
from geoloc.training.schedules import learning_rate_share
from orchestration.plan.chain import STAGES
from orchestration.plan.settings import DEFAULT_RECIPE, known_recipes, load_settings, settings_files
from orchestration.stores.pipeline import pipeline, pipeline_recipes
from orchestration.workspace import Workspace

WORKSPACE = Workspace.open(Path(__file__).parents[2])
RECIPES = known_recipes(WORKSPACE)
FULL = [name for name in RECIPES if name.endswith("_full")]
FIRST_HALVES = [name for name in FULL if name.endswith("_cycles_full")]
"""Full recipes that another full one starts from, and that have no counterpart at the sample's scale."""
COMPARED = ("fine", "boxes", "triangles", "coarse", "coarse_from_fine", "multi")
"""Recipes that differ from the default one in their partitions only."""
RANKED = ("revisiting_r", "revisiting_r1", "revisiting_r2", "revisiting_r3")
"""Recipes with a metric network that starts from the classifier of revisiting_l7011."""
CHAPTER_5 = ("revisiting_r1_full", "revisiting_r2_full", "revisiting_r3_full")
SCALED = [name.removesuffix("_full") for name in FULL if name not in FIRST_HALVES]

REVISITING = ("revisiting_1060_full", "revisiting_l7011_full", "revisiting_l359_full", "revisiting_m_full")
MESHES = ("coarse", "fine", "finep")
M1 = tuple(f"m1_{mesh}_full" for mesh in MESHES)
M1_CYCLES = tuple(f"m1_{mesh}_cycles_full" for mesh in MESHES)
CITIES = ("cities_alexnet_full", "cities_googlenet_full")
ALBUMS = ("planet_albums_full",)
M3 = ("m3_coarse_full", "m3_fine_full")

CROSS_VIEW = tuple(name for name in FULL if name.startswith("cross_view_"))
EXHAUSTIVE = ("cross_view_edbl_full", "cross_view_resnet_full")
SCORING = ("cross_view_classification_full", "cross_view_hybrid_full")
TOWERS = ("separate", "shared_last_layer", "shared_but_batch_norm", "shared")
LAYERS = tuple(f"cross_view_{towers}_full" for towers in TOWERS)
ALEXNETS = tuple(name for name in CROSS_VIEW if "resnet" not in name and name not in LAYERS)
SCRATCH = (*ALEXNETS, EXHAUSTIVE[1])
ONE_NEGATIVE = tuple(name for name in ALEXNETS if name not in (*EXHAUSTIVE, *SCORING))

PUBLISHED = [
    # Vo's dissertation, sections 3.3, 3.5 and tables 3.1 to 3.3
    (SCRATCH, "cross_view.model.weights", "none"),
    (CROSS_VIEW, "cross_view.splits.test", 3),
    (CROSS_VIEW, "cross_view.search.rotations", 16),
    (CROSS_VIEW, "cross_view.polar", False),
    (ALEXNETS, "cross_view.model.backbone", "alexnet"),
    (ALEXNETS, "cross_view.grid", 6),
    (EXHAUSTIVE[1:], "cross_view.model.backbone", "resnet101"),
    (EXHAUSTIVE, "cross_view.batch_size", 128),
    (EXHAUSTIVE, "cross_view.negatives", "all"),
    (ONE_NEGATIVE, "cross_view.batch_size", 64),
    (ONE_NEGATIVE, "cross_view.negatives", "one"),
    ((*EXHAUSTIVE, *ONE_NEGATIVE), "cross_view.loss.distance", "squared_euclidean"),
    ((*EXHAUSTIVE, *ONE_NEGATIVE), "cross_view.loss.normalise", False),
    (("cross_view_siamese_full",), "cross_view.loss.kind", "contrastive"),
    (("cross_view_siamese_dbl_full",), "cross_view.loss.kind", "dbl_pairs"),
    (("cross_view_siamese_dbl_full",), "cross_view.loss.margin", 10.0),
    (("cross_view_triplet_full",), "cross_view.loss.kind", "hinge_triplet"),
    ((*EXHAUSTIVE, "cross_view_triplet_dbl_full"), "cross_view.loss.kind", "soft_triplet"),
    ((*SCORING, "cross_view_siamese_full", "cross_view_triplet_dbl_full"), "cross_view.rotation_range", 90),
    (EXHAUSTIVE, "cross_view.rotation_range", 360),
    *(
        ((f"cross_view_ri{degrees}_full",), "cross_view.rotation_range", degrees)
        for degrees in (0, 45, 180, 360)
    ),
    (("cross_view_ri360_full", "cross_view_triplet_dbl_full"), "cross_view.orientation", None),
    (("cross_view_ri90_or_full", "cross_view_ri360_or_full"), "cross_view.orientation.weight", 1.0),
    # Vo's dissertation, section 4.5.5 and figure 4.11
    (LAYERS, "cross_view.model.backbone", "resnet18"),
    (LAYERS, "cross_view.model.weights", "registry"),
    *(((f"cross_view_{towers}_full",), "cross_view.towers", towers) for towers in TOWERS),
    # PlaNet, section 4
    (("planet_full",), "partitions.fine.kind", "s2"),
    (("planet_full",), "partitions.fine.s2.max_photos", 10_000),
    (("planet_full",), "partitions.fine.s2.min_photos", 50),
    (("planet_full",), "model.backbone", "timm/inception_v3"),  # by Multi-modal Geolocation, section 3.1.2
    (("planet_full",), "model.weights", "none"),
    (("planet_full",), "model.softmax", "flat"),
    (("planet_full",), "training.optimiser", "adagrad"),
    (("planet_full",), "training.learning_rate", 0.045),
    (("planet_full",), "training.schedule", "constant"),
    (("planet_full",), "training.label_smoothing", 0.0),  # the target is 1.0 for one cell, 0.0 for all others
    # Revisiting IM2GPS, figure 3
    (REVISITING, "model.backbone", "vgg16"),
    (REVISITING, "model.pooling", "max"),
    # Vo's dissertation, section 2.4.6
    (REVISITING, "training.optimiser", "sgd"),
    (REVISITING, "training.learning_rate", 0.01),
    (REVISITING, "training.batch_size", 32),
    (REVISITING, "training.momentum", 0.9),
    (REVISITING, "training.weight_decay", 0.0005),
    (REVISITING[:1], "model.weights", "registry"),
    (REVISITING[1:], "model.weights", "recipe:revisiting_1060_full"),
    # Revisiting IM2GPS, section 4
    (REVISITING, "splits.test.count", 3000),
    # Revisiting IM2GPS, section 4, and Vo's dissertation, section 5.3.1: metric networks
    (("revisiting_r_full",), "metric.loss.kind", "hinge_triplet"),
    (CHAPTER_5, "model.backbone", "resnet50"),
    (CHAPTER_5, "partitions.finest.wanted_cells", 17_000),
    (CHAPTER_5, "metric.loss.distance", "euclidean"),
    (CHAPTER_5[:2], "metric.loss.kind", "soft_triplet"),
    (CHAPTER_5[2:], "metric.loss.kind", "soft_sets"),
    *(
        ((f"revisiting_{name}_full",), f"metric.{key}", value)
        for name, batch, each in (("r1", 32, 4), ("r2", 256, 4), ("r3", 2048, 32))
        for key, value in (("batch_size", batch), ("images_per_group", each), ("start", CLASSIFIER))
    ),
    # Diving Deeper, sections III and IV.B
    (CITIES, "partitions.cities.kind", "cities"),
    (CITIES, "partitions.cities.cities.min_photos", 11_000),
    (CITIES, "splits.test.share", 0.1),
    (CITIES[:1], "model.backbone", "alexnet"),
    (CITIES[1:], "model.backbone", "googlenet"),
    # Multi-modal Geolocation, table 1 and section 3.1.1
    (("m1_coarse_full", "m1_coarse_cycles_full"), "partitions.coarse.delaunay.max_photos", 8000),
    (("m1_coarse_full", "m1_coarse_cycles_full"), "partitions.coarse.delaunay.min_photos", 1000),
    (("m1_fine_full", "m1_fine_cycles_full"), "partitions.fine.delaunay.max_photos", 5000),
    (("m1_fine_full", "m1_fine_cycles_full"), "partitions.fine.delaunay.min_photos", 500),
    (("m1_finep_full", "m1_finep_cycles_full"), "partitions.finep.delaunay.max_photos", 10_000),
    (("m1_finep_full", "m1_finep_cycles_full"), "partitions.finep.delaunay.min_photos", 50),
    *(((f"m1_{m}_full", f"m1_{m}_cycles_full"), f"partitions.{m}.kind", "delaunay") for m in MESHES),
    *(((f"m1_{m}_full", f"m1_{m}_cycles_full"), f"partitions.{m}.delaunay.rows", 31) for m in MESHES),
    *(((f"m1_{m}_full", f"m1_{m}_cycles_full"), f"partitions.{m}.delaunay.columns", 31) for m in MESHES),
    # Multi-modal Geolocation, sections 3.1.2 and A.1
    (M1 + M1_CYCLES, "model.backbone", "timm/inception_v4"),
    (M1_CYCLES, "model.weights", "registry"),
    (M1_CYCLES, "training.optimiser", "adagrad"),
    (M1_CYCLES, "training.curriculum.examples_per_cell", 200),
    (M1_CYCLES, "training.curriculum.growth", 0.06),
    (M1, "training.curriculum", None),
    (M1, "training.optimiser", "sgd"),
    (M1, "training.schedule", "linear"),
    *(((f"m1_{m}_full",), "model.weights", f"recipe:m1_{m}_cycles_full") for m in MESHES),
    # PlaNet, "Sequence Geolocation with LSTMs" and table 2b
    (ALBUMS, "partitions.fine.s2.max_photos", 10_000),
    (ALBUMS, "albums.averages", ("album",)),
    (ALBUMS, "albums.hmm.divide_by", "counted"),
    (ALBUMS, "albums.hmm.decode", "viterbi"),
    *(
        (ALBUMS, f"albums.networks.{name}.{key}", value)
        for name, kind, offset, length in (
            ("LSTM", "lstm", 0, None),
            ("LSTM off1", "lstm", 1, None),
            ("LSTM off2", "lstm", 2, None),
            ("LSTM rep", "repeated", 0, None),
            ("LSTM rep 25", "repeated", 0, 25),
            ("BLSTM 25", "bidirectional", 0, 25),
        )
        for key, value in (("network.kind", kind), ("network.offset", offset), ("length", length))
    ),
    # Multi-modal Geolocation, sections 3.2, 3.3 and A.2, table 2
    (M3, "time.network.top", 10),
    (M3, "time.network.hidden", 542 * 3),
    (M3, "time.network.dropout", 0.5),
    (M3, "time.learning_rate", 0.005),
    (M3, "albums.averages", ("user",)),
    (M3, "albums.networks.M3.network.kind", "bidirectional"),
    (M3, "albums.networks.M3.sequences.by", "user"),
    (M3, "albums.networks.M3.sequences.clock", "posted"),
    (M3, "albums.networks.M3.length", 24),
    (M3, "albums.networks.M3.one_per_group", True),
]
"""Recipes, a setting, and what was published: read from the papers, not from the recipes."""


@cache
def settings_of(recipe):
    return load_settings(WORKSPACE, recipe)


def value_of(recipe, dotted):
    value = settings_of(recipe)
    for name in dotted.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_parses_and_says_what_it_is(recipe):
    assert settings_of(recipe).recipe == recipe
    if recipe != DEFAULT_RECIPE:
        assert (WORKSPACE.recipes / f"{recipe}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("mesh", ["coarse", "fine"])
def test_models_of_people_are_over_the_image_models_of_m1(mesh):
    """As published: only the splits differ, and what the weights come from."""
    assert settings_of(f"m1_{mesh}").partitions == settings_of(f"m3_{mesh}").partitions
    for kind in ("_cycles_full", "_full"):
        one, other = (settings_of(f"{model}_{mesh}{kind}") for model in ("m1", "m3"))
        assert one.partitions == other.partitions
        assert one.training == other.training
        assert replace(one.model, weights="none") == replace(other.model, weights="none")
        assert other.splits.context is not None


@pytest.mark.parametrize("recipe", RANKED)
def test_ranking_networks_start_from_a_classifier_that_another_recipe_has_trained(recipe):
    """Else a build would train it once more."""
    for stage in ("splits", "partition", "classifier"):
        sections = STAGES[stage].sections
        assert settings_of(recipe).sections(sections) == settings_of("revisiting_l7011").sections(sections)
    assert settings_of(recipe).metric.start == CLASSIFIER


@pytest.mark.parametrize(
    ("recipes", "first"),
    [(CHAPTER_5, CHAPTER_5[0]), (("revisiting_r_full",), "revisiting_l7011_full")],
    ids=["L3", "L"],
)
def test_full_ranking_networks_share_their_classifier(recipes, first):
    for recipe in recipes:
        for stage in ("splits", "partition", "classifier"):
            sections = STAGES[stage].sections
            assert settings_of(recipe).sections(sections) == settings_of(first).sections(sections)


def test_small_and_large_batches_differ_in_nothing_else():
    """Else `geoloc claims` would not compare them."""
    small, large = (settings_of(name).metric for name in ("revisiting_r1", "revisiting_r2"))
    assert small.batch_size < large.batch_size
    alike = {"name": small.name, "batch_size": small.batch_size, "learning_rate": small.learning_rate}
    assert replace(large, **alike) == small


def test_every_full_recipe_has_one_for_the_sample():
    assert len(FULL) == len(FIRST_HALVES) + len(SCALED)
    assert set(SCALED) < set(RECIPES)
    for recipe in FIRST_HALVES:
        assert (
            value_of(recipe.replace("_cycles", ""), "model.weights") == RECIPE + recipe
        )  # else it is of no use


@pytest.mark.parametrize(("recipes", "setting", "published"), PUBLISHED)
def test_full_recipes_have_the_published_values(recipes, setting, published):
    for recipe in recipes:
        assert value_of(recipe, setting) == published, recipe


@pytest.mark.parametrize("recipe", FULL)
def test_full_recipes_are_the_same_over_any_params_yaml(recipe, tmp_path):
    """The documented `cp recipes/im2gps3k.yaml params.yaml` must not change a published setting."""
    shutil.copytree(WORKSPACE.recipes, tmp_path / "recipes")
    own = WORKSPACE.recipes / f"{recipe}.yaml"
    for params in (
        "",
        (WORKSPACE.recipes / "im2gps3k.yaml").read_text(),
        "seed: 5\nsplits: {max_hamming: 3}\n",
    ):
        (tmp_path / "params.yaml").write_text(params)
        workspace = Workspace.open(tmp_path)
        assert load_settings(workspace, recipe) == settings_of(recipe)
        assert settings_files(workspace, recipe) == (tmp_path / "recipes" / own.name,)
    for stage in pipeline(workspace, [recipe])["stages"].values():
        assert not [given for given in stage.get("params", []) if isinstance(given, str)]  # from params.yaml
    # What a cross-view recipe publishes is not its photo classifier.
    assert settings_of(recipe).training.mode == "fine_tune" or settings_of(recipe).cross_view is not None


def test_standalone_is_true_or_false_and_only_for_recipes(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "params.yaml").write_text("seed: 5\n")
    (tmp_path / "recipes" / "mine.yaml").write_text("standalone: maybe\n")
    workspace = Workspace.open(tmp_path)
    with pytest.raises(
        SettingsError, match=r"recipes/mine.yaml: standalone must be true or false, got 'maybe'"
    ):
        load_settings(workspace, "mine")
    (tmp_path / "recipes" / "mine.yaml").write_text("standalone: false\n")
    assert load_settings(workspace, "mine").seed == 5
    (tmp_path / "params.yaml").write_text("standalone: true\n")
    with pytest.raises(SettingsError, match=r"params.yaml: .*standalone"):
        load_settings(workspace)


@pytest.mark.parametrize("recipe", REVISITING)
def test_the_rate_of_revisiting_falls_from_a_hundredth_to_a_hundred_thousandth(recipe):
    training = settings_of(recipe).training
    starts = [epoch * 10 for epoch in range(training.epochs + 1)]
    rates = [
        training.learning_rate * learning_rate_share(training, step, starts) for step in range(starts[-1])
    ]
    assert (max(rates), min(rates)) == (pytest.approx(0.01), pytest.approx(0.00001))
    assert len(set(rates)) > 2  # "several times"
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("recipe", M1)
def test_the_rate_of_m1_falls_by_four_per_cent_each_epoch(recipe):
    training = settings_of(recipe).training
    starts = [epoch * 10 for epoch in range(training.epochs + 1)]
    shares = [learning_rate_share(training, step, starts) for step in starts[:-1]]
    np.testing.assert_allclose(-np.diff(shares), 0.04)
    assert 0.004 <= training.learning_rate <= 0.02  # section A.1


@pytest.mark.parametrize(("recipe", "cells"), zip(M1_CYCLES, (538, 6565, 4771), strict=True))
def test_each_cycle_of_m1_goes_on_until_all_photos_are_in(recipe, cells):
    """Section A.1: 200 examples a cell, 6 % more each epoch; section 2: 12.2 million photos."""
    curriculum = settings_of(recipe).training.curriculum
    last = cells * 200 * 1.06 ** (curriculum.cycle_epochs - 1)
    assert last / 1.06 < 12_200_000 <= last
    assert curriculum.biases[0] == 1.0  # "all classes were initially equally represented"
    assert settings_of(recipe).training.epochs == curriculum.cycle_epochs * len(curriculum.biases)


@cache
def network(backbone, image_size):
    """The backbone without any numbers: on the meta device only shapes are computed, and those once for all recipes."""
    with torch.device("meta"):
        made = make_backbone(backbone, image_size)
        features = {(2, 3, image_size, image_size): made(torch.zeros(2, 3, image_size, image_size))}
    made.forward = lambda photos: features[photos.shape]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_network_exists_and_takes_the_recipes_photos(recipe):
    model = settings_of(recipe).model
    heads = PUBLISHED_HEADS.get(recipe, dict.fromkeys(settings_of(recipe).partitions, 3))
    assert list(heads) == list(settings_of(recipe).partitions)
    # The parents that a hierarchical softmax needs are of fitted cells: they are tested below.
    flat = replace(model, softmax="flat")
    with torch.device("meta"):
        plain = Classifier(network(model.backbone, model.image_size), heads, flat, Preprocess())
        scores = plain(torch.zeros(2, 3, model.image_size, model.image_size))
    assert scores.shape == (2, sum(heads.values()))


@pytest.mark.slow
def test_parameters_of_the_published_networks():
    def count(name, size, cells):
        backbone = network(name, size)
        return sum(p.numel() for p in backbone.parameters()) + (backbone.feature_count + 1) * cells

    # VGG-16's 138,357,544 less its three fully connected layers (Simonyan and Zisserman, table 2, to the digit).
    fully_connected = 25_088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert count("vgg16", 224, 0) == 138_357_544 - fully_connected
    # What planet_full.yaml says beside PlaNet's 97,321,048.
    assert count("timm/inception_v3", 299, 26_263) == pytest.approx(75.6e6, rel=1e-3)


@cache
def geotags():
    """700 geotags in and around ten cities, from much to little photographed, and a few anywhere."""
    rng = np.random.default_rng(4)
    cities = np.array(
        [
            (48.85, 2.35), (35.68, 139.69), (40.71, -74.0), (51.5, -0.12), (-33.87, 151.2),
            (41.9, 12.5), (-22.9, -43.2), (30.04, 31.24), (19.07, 72.88), (37.77, -122.42),
        ]
    )  # fmt: skip
    city = np.repeat(np.arange(10), np.linspace(110, 25, 10).astype(int))
    near = cities[city] + rng.normal(scale=0.05, size=(len(city), 2))
    anywhere = np.stack([rng.uniform(-60, 70, 40), rng.uniform(-180, 180, 40)], axis=1)
    both = np.concatenate([near, anywhere])
    return both[:, 0], both[:, 1]


@cache
def fitted(settings):
    return fit_partition(settings, *geotags())


@pytest.mark.parametrize("recipe", [DEFAULT_RECIPE, *COMPARED, *SCALED])
def test_partitions_of_the_samples_recipes_fit_a_few_hundred_photos(recipe):
    settings = settings_of(recipe)
    few = {
        name: replace(one, wanted_cells=min(one.wanted_cells, 20))
        for name, one in settings.partitions.items()
    }
    partitions = {name: fitted(one) for name, one in few.items()}
    for name, partition in partitions.items():
        assert partition.kind == settings.partitions[name].kind
        assert partition.cell_count >= 2
        assert (partition.assign(*geotags()) >= 0).mean() > 0.4
    counts = [partition.cell_count for partition in partitions.values()]
    assert counts == sorted(counts, reverse=True)  # the finest is the main one
    if settings.model.softmax == "hierarchical":
        assert list(nested_parents(partitions)) == list(partitions)[:-1]


@pytest.mark.slow
def test_full_recipes_are_in_no_pipeline_until_they_are_built():
    assert not set(FULL) & set(pipeline_recipes(WORKSPACE))
    # Each can be one: its stages and where its weights come from are known without photos or weights.
    stages = pipeline(WORKSPACE, FULL)["stages"]
    assert "build/m1_fine_cycles_full/stamps/classifier.json" in stages["m1_fine_full-classifier"]["deps"]
    assert "weights/alexnet_places205.safetensors" in stages["cities_alexnet_full-classifier"]["deps"]


@pytest.mark.parametrize("recipe", [DEFAULT_RECIPE, *COMPARED, *SCALED])
def test_the_samples_recipes_need_nothing_that_is_not_here(recipe):
    model, training = settings_of(recipe).model, settings_of(recipe).training
    assert model.weights in ("none", "package") or model.weights.removeprefix(RECIPE) in ("fine", *SCALED)
    assert model.image_size <= 128
    assert training.epochs <= (15 if training.mode == "fine_tune" else 40)  # a head alone takes seconds
    cross_view = settings_of(recipe).cross_view
    if cross_view is not None:
        assert cross_view.model.weights in ("none", "package")
        assert cross_view.model.image_size <= 96
        assert cross_view.epochs <= 12
    metric = settings_of(recipe).metric
    assert metric is None or (metric.epochs <= 5 and metric.batch_size <= 128)  # minutes, in memory
