"""`geoloc locate` on a build that is put together by hand: what it answers, and how."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from geoloc.localizers.by_class.methods import class_methods
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.classifier import load_model
from geoloc.models.prediction import predict_probabilities
from geoloc.partitions.areas import polygon_area_km2
from geoloc.photos.catalog import read_catalog
from geoloc.photos.decoding import check_and_normalise, decode_rgb
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.assets.inputs import load_partitions, read_photos
from orchestration.lineage.build import Build
from orchestration.lineage.code import imported_modules
from orchestration.locate.by_class import ByClass
from orchestration.locate.question import LEVELS, Question
from orchestration.plan.chain import MODEL_FILE, output_folder
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.pipeline.located_world import (
    COUNT,
    TEMPERATURE,
    TRAINING,
    ask,
    files,
    make,
    put_network,
    put_partitions,
    record,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    return make(tmp_path_factory.mktemp("located") / "w")


@pytest.fixture
def changed(made, tmp_path) -> Workspace:
    """A copy, free to change."""
    shutil.copytree(made.root, tmp_path / "w")
    return Workspace.open(tmp_path / "w")


def scaled(workspace, name):
    """What the network says of photos 40 to 43 by one partition, read from the pool as the evaluation does."""
    network = load_model(output_folder(workspace, "default", "classifier") / MODEL_FILE)
    queries = read_catalog(workspace.pool).iloc[TRAINING:]
    p = predict_probabilities(network, workspace.pool, queries, 8, crops=5)[0][name].astype(float)
    raised = p ** (1 / TEMPERATURE)
    return raised / raised.sum(axis=1, keepdims=True)


QUERIES = range(TRAINING, COUNT)


def test_every_localizer_answers_as_in_the_evaluation(made, capsys):
    partitions = load_partitions(output_folder(made, "default", "partition"))
    everything = read_photos(output_folder(made, "default", "splits"))
    train = everything[everything["split"] == "train"]
    settings = LocalizerSettings(combine=("product", "overlay"), within_levels=True)
    methods = class_methods(
        partitions, settings, train["latitude"], train["longitude"], model_name="M", seed=4
    )
    options = [
        ["--partition", "fine"],
        ["--partition", "coarse"],
        ["--combine", "product"],
        ["--combine", "overlay"],
    ]
    options += [["--level", level] for level in LEVELS]
    p = {name: scaled(made, name) for name in partitions}
    assert len(methods) == len(options)
    for method, option in zip(methods, options, strict=True):
        expected = method.locate(p)
        found = ask(made, capsys, *files(made, *QUERIES), *option)
        assert {one["method"] for one in found} == {method.localizer.name}
        np.testing.assert_allclose([one["confidence"] for one in found], expected.confidence, atol=1e-4)
        assert [one["latitude"] for one in found] == pytest.approx(expected.latitude.tolist())
        assert [one["longitude"] for one in found] == pytest.approx(expected.longitude.tolist())
        # A combination multiplies what is scaled already, and has no temperature of its own.
        assert {one["scaled"] for one in found} == {"--combine" not in option}
        assert all(other["why"] for one in found for other in one["alternatives"])


def test_a_level_is_a_question_and_its_confidence_the_probability_of_being_within(made, capsys):
    partitions = load_partitions(output_folder(made, "default", "partition"))
    train = read_catalog(made.pool).head(TRAINING)
    cells = partitions["fine"].assign(train["latitude"], train["longitude"])
    p = scaled(made, "fine")
    answers = {}
    for level in ("street", "continent"):
        found = ask(made, capsys, *files(made, *QUERIES), "--level", level)
        answers[level] = [(one["latitude"], one["longitude"]) for one in found]
        for one, of in zip(found, p, strict=True):
            km = distance_km(one["latitude"], one["longitude"], train["latitude"], train["longitude"])
            share = [(np.asarray(km)[cells == cell] <= LEVELS_KM[level]).mean() for cell in range(len(of))]
            assert one["confidence"] == pytest.approx(float(of @ share), abs=1e-4)
            assert one["within_km"] == LEVELS_KM[level]
    assert answers["street"] != answers["continent"]
    assert geoloc(made, "locate", *files(made, 40), "--level", "street") == 0
    assert re.search(r"confidence 0\.\d\d of being within 1 km, \[M\]\d+C for 1 km", capsys.readouterr().out)


def test_levels_are_those_of_the_sphere():
    assert tuple(LEVELS_KM) == LEVELS


def test_regions_have_cells_and_area_and_are_drawn(made, capsys, tmp_path):
    page = tmp_path / "map.html"
    found = ask(made, capsys, *files(made, *QUERIES), "--map", str(page))
    partition = load_partitions(output_folder(made, "default", "partition"))["fine"]
    areas = np.array([polygon_area_km2(partition.polygon(cell)) for cell in range(partition.cell_count)])
    outlines = re.findall(r'<path class="cell" d="([^"]*)"', page.read_text())
    for one, p, outline in zip(found, scaled(made, "fine"), outlines, strict=True):
        assert [region["coverage"] for region in one["regions"]] == [0.5, 0.9]
        for region, threshold in zip(one["regions"], (0.55, 0.93), strict=True):
            # The most probable cells whose sum, each included, is within the threshold; the first in any case.
            order = np.argsort(-p)
            chosen = order[: max(1, int((np.cumsum(p[order]) <= threshold).sum()))]
            assert region["cells"] == len(chosen)
            assert set(region["tokens"]) == {partition.tokens()[cell] for cell in chosen}
            assert region["area_km2"] == pytest.approx(areas[chosen].sum())
        rings = [
            ring
            for token in one["regions"][1]["tokens"]
            for ring in partition.rings(partition.tokens().index(token))
        ]
        assert outline.count("z") == len(rings)
    assert "outlined cells" in page.read_text()
    assert re.search(r"outlined: 90 % region: \d+ cells?, [\d.,]+ (million )?km²", page.read_text())
    assert geoloc(made, "locate", *files(made, 40)) == 0
    assert re.search(r"^  90 % region: \d+ cells?, [\d.,]+ (million )?km²$", capsys.readouterr().out, re.M)


def test_a_region_that_is_all_cells_is_anywhere_and_not_drawn(made, capsys, tmp_path):
    page = tmp_path / "map.html"
    command = ["locate", *files(made, 40), "--partition", "coarse", "--map", str(page)]
    assert geoloc(made, *command) == 0
    assert "\n  90 % region: anywhere\n" in capsys.readouterr().out
    assert "90 % region: anywhere" in page.read_text()
    assert '<path class="cell"' not in page.read_text()
    region = ask(made, capsys, *command[1:])[0]["regions"][0]
    assert (region["anywhere"], region["area_km2"], region["tokens"]) == (True, None, None)


def test_without_an_evaluation_nothing_is_said_of_regions(changed, capsys):
    before = ask(changed, capsys, *files(changed, 40))[0]
    shutil.rmtree(output_folder(changed, "default", "evaluation"))
    assert geoloc(changed, "locate", *files(changed, 40)) == 0
    shown = capsys.readouterr()
    assert "region:" not in shown.out
    assert shown.err == ""
    after = ask(changed, capsys, *files(changed, 40))[0]
    assert after["regions"] is None
    assert (before["scaled"], after["scaled"]) == (True, False)
    assert after["confidence"] < before["confidence"]  # a temperature below 1 made it surer


def test_an_evaluation_of_another_classifier_scales_nothing_and_a_line_says_so(changed, capsys):
    put_network(changed, seed=2)
    assert geoloc(changed, "locate", *files(changed, 40), "--json") == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out)[0]["scaled"], json.loads(shown.out)[0]["regions"]) == (False, None)
    assert "evaluation of default used another classifier" in shown.err
    assert "geoloc build --recipe default" in shown.err


def test_an_answer_below_the_wanted_confidence_is_not_given_and_that_is_said(made, capsys, tmp_path):
    sure = [one["confidence"] for one in ask(made, capsys, *files(made, *QUERIES))]
    assert len(set(sure)) > 1
    limit = (min(sure) + max(sure)) / 2
    page = tmp_path / "map.html"
    found = ask(made, capsys, *files(made, *QUERIES), "--abstain-below", str(limit), "--map", str(page))
    assert [one["latitude"] is None for one in found] == [confidence < limit for confidence in sure]
    silent = found[int(np.argmin(sure))]
    assert [one["confidence"] for one in found] == sure  # also of those that are not given
    assert {one["scaled"] for one in found} == {True}
    assert silent["alternatives"] == []
    shown = re.fullmatch(rf"the confidence, (0\.\d+), is below {limit:g}", silent["error"])
    assert float(shown.group(1)) == pytest.approx(silent["confidence"], abs=1e-4)
    assert silent["regions"]  # what is known of the photo all the same
    assert "is below" in page.read_text()
    assert geoloc(made, "locate", *files(made, *QUERIES), "--abstain-below", "1") == 1
    shown = capsys.readouterr()
    assert shown.out.count("no answer: the confidence, 0.") == len(QUERIES)
    assert shown.err == "geoloc: no photo was located\n"


def test_an_unreadable_photo_has_the_method_of_the_others(made, capsys, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    for options, scaled_and_within in (
        ([], (True, None)),
        (["--level", "city"], (True, LEVELS_KM["city"])),
        (["--combine", "product"], (False, None)),
    ):
        found = ask(made, capsys, str(damaged), *files(made, 40), *options)
        assert [(one["scaled"], one["within_km"]) for one in found] == [scaled_and_within] * 2
        assert found[0]["method"] == found[1]["method"]
        assert (found[0]["latitude"], found[0]["confidence"]) == (None, 0)
        assert found[0]["error"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--combine", "product", "--level", "street"], ["--combine product", "--level street"]),
        (["--combine", "overlay", "--partition", "fine"], ["--combine overlay", "--partition fine"]),
        (["--level", "city", "--method", "nn"], ["--level city", "--method nn"]),
        (["--combine", "product", "--method", "knn"], ["--combine product", "--method knn"]),
        (["--partition", "fine", "--method", "knn"], ["--partition fine", "--method knn"]),
        (["--model", "backbone"], ["--model backbone", "--method class"]),
        (["--abstain-below", "1.5"], ["--abstain-below must be between 0 and 1, got 1.5"]),
        (["--abstain-below", "nan"], ["--abstain-below must be between 0 and 1, got nan"]),
    ],
)
def test_options_that_exclude_each_other_are_both_named(options, named, tmp_path, capsys):
    assert geoloc(Workspace(tmp_path), "locate", "photo.jpg", *options) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in named), error


def test_what_the_build_lacks_is_an_error_with_the_command_that_makes_it(made, changed, capsys):
    shutil.rmtree(output_folder(changed, "default", "splits"))
    for options in (["--level", "city"], ["--combine", "overlay"]):
        assert geoloc(changed, "locate", *files(changed, 40), *options) == 1
        error = capsys.readouterr().err
        assert " ".join(options) in error
        assert "geoloc build --recipe default --only splits" in error
    assert geoloc(changed, "locate", *files(changed, 40), "--combine", "product") == 0  # needs no photos
    shutil.copytree(output_folder(made, "default", "splits"), output_folder(changed, "default", "splits"))
    put_partitions(changed, {"fine": 3})
    put_network(changed)
    capsys.readouterr()
    assert geoloc(changed, "locate", *files(changed, 40), "--combine", "overlay") == 1
    assert "needs a build with at least two partitions; default has one: fine" in capsys.readouterr().err
    put_partitions(changed, {"fine": 4})
    assert geoloc(changed, "locate", *files(changed, 40)) == 1
    error = capsys.readouterr().err
    assert "default/classifier was made from another default/partition than the one there now" in error
    assert "geoloc build --recipe default" in error
    damaged = output_folder(changed, "default", "evaluation") / "temperature-fine.json"
    damaged.write_text("{}")
    put_network(changed)
    record(changed, "evaluation")  # whole, but of another format
    assert geoloc(changed, "locate", *files(changed, 40)) == 1
    assert "geoloc build --recipe default --only evaluation --force" in capsys.readouterr().err


def test_locate_needs_neither_dagster_nor_mlflow():
    """As a static fact: a process that shows it takes ten seconds of imports."""
    heavy = {"dagster", "mlflow", "dvc", "great_expectations", "matplotlib"}
    for module, file in imported_modules("orchestration.locate.locate").items():
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & heavy, module


def test_probabilities_are_those_of_the_evaluation_to_the_bit(made):
    """Read from files here, from the pool there; one implementation of the mean over crops, in one layout."""
    pixels = [
        decode_rgb(check_and_normalise(Path(file).read_bytes()).bytes) for file in files(made, *QUERIES)
    ]
    asked = ByClass.open(Build(made), Question(partition="coarse"), print)
    network = load_model(output_folder(made, "default", "classifier") / MODEL_FILE)
    queries = read_catalog(made.pool).iloc[TRAINING:]
    limits = Build(made).settings.localizers
    stored, _ = predict_probabilities(
        network.to(memory_format=torch.channels_last),
        made.pool,
        queries,
        limits.batch_size,
        crops=limits.crops,
    )
    expected = asked.method.locate(asked.calibration.scaled(stored))
    answers = asked.locate(pixels).answers
    assert asked.settings.crops == limits.crops
    assert answers.confidence.tobytes() == expected.confidence.tobytes()
    assert answers.alternatives.weight.tobytes() == expected.alternatives.weight.tobytes()
    assert answers.latitude.tobytes() == expected.latitude.tobytes()
