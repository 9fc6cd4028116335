"""`geoloc locate --method neighbours` and `combined` on a build that is put together by hand."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from geoloc.files import write_json
from geoloc.localizers.chosen.choice import Choice, save_choices
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.localizers.confidence.scaling import ScoreScaling
from geoloc.photos.catalog import read_catalog
from geoloc.retrieval.density import densest
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.settings import DensitySettings
from geoloc.sphere import distance_km
from orchestration.assets.inputs import load_partitions
from orchestration.lineage.build import Build
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.pipeline.located_world import COUNT, TRAINING, ask, files, make, put_index, put_network, record
from tests.pipeline.test_locate import scaled

QUERIES = range(TRAINING, COUNT)
CHOICES = [
    Choice(k=12, sigma=3.0, accuracy=0.4, photos=9),
    Choice(level="city", k=5, sigma=0.5, accuracy=0.3, photos=9),
    Choice("product", k=20, sigma=2.0, weight=2.0, accuracy=0.5, photos=9),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    workspace = make(tmp_path_factory.mktemp("chosen") / "w")
    put_choices(workspace, CHOICES)
    return workspace


@pytest.fixture
def changed(made, tmp_path) -> Workspace:
    shutil.copytree(made.root, tmp_path / "w")
    return Workspace.open(tmp_path / "w")


def put_choices(workspace: Workspace, choices: list[Choice]) -> None:
    """What an evaluation would have chosen and calibrated."""
    folder = output_folder(workspace, "default", "evaluation")
    scaling = ScoreScaling.from_dict({"slope": 0.5, "offset": -0.25, "photos": 9})
    save_choices(
        folder / "neighbour-choices-classifier.json",
        [dataclasses.replace(one, scaling=scaling) for one in choices],
    )
    for kind, threshold in (("alone", 0.6), ("combined", 0.8)):
        region = ConformalRegions(0.7)
        region.threshold = threshold
        Calibration({}, {"fine": (region,)}).save(folder / f"{kind}-classifier")
    write_json(folder / "evaluations.json", [])
    record(workspace, "evaluation")


def neighbours_of(workspace: Workspace, k: int):
    build = Build(workspace)
    vectors = Embeddings.load(build.folder("embeddings"))
    ids = read_catalog(workspace.pool)["photo_id"].iloc[TRAINING:]
    index = ReferenceIndex.load(build.folder("index") / "classifier")
    return index.search(vectors.subset(ids).vectors, k)


@pytest.mark.parametrize(("options", "choice"), [([], CHOICES[0]), (["--level", "city"], CHOICES[1])])
def test_neighbours_answer_with_the_k_and_sigma_that_were_chosen(options, choice, made, capsys):
    found = ask(made, capsys, *files(made, *QUERIES), "--method", "neighbours", *options)
    n = neighbours_of(made, choice.k)
    expected = densest(n.latitude, n.longitude, n.similarity, DensitySettings(k=choice.k, sigma=choice.sigma))
    assert [one["latitude"] for one in found] == pytest.approx(expected.latitude.tolist())
    km = {"city": 25.0, None: 200.0}[choice.level]
    name = "[M]kNN for 25 km" if choice.level else "[M]kNN"
    assert {(one["method"], one["within_km"], one["scaled"]) for one in found} == {(name, km, True)}
    for one in found:
        assert len(one["nearby"]["neighbours"]) == choice.k
        assert one["nearby"]["photographers"] == 1
        assert one["nearby"]["sigma"] == choice.sigma
        assert f"neighbours within {km:g} km" in one["alternatives"][0]["why"]
        assert 0 < one["confidence"] < 1
        assert sum(mode["mass"] for mode in one["nearby"]["modes"]) == pytest.approx(1, abs=0.011 * choice.k)
        assert sum(mode["neighbours"] for mode in one["nearby"]["modes"]) <= choice.k
        (region,) = one["regions"]
        assert (region["coverage"], region["partition"]) == (0.7, "fine")


def test_combined_multiplies_the_density_and_the_class_probability(made, capsys):
    choice = CHOICES[2]
    partition = load_partitions(output_folder(made, "default", "partition"))["fine"]
    found = ask(made, capsys, *files(made, *QUERIES), "--method", "combined")
    n, p = neighbours_of(made, choice.k), scaled(made, "fine")
    for row, one in enumerate(found):
        cells = partition.assign(n.latitude[row], n.longitude[row])
        weights = (2 - 2 * n.similarity[row].astype(float)) ** -5
        weights /= weights.sum()
        km = distance_km(
            n.latitude[row][:, None], n.longitude[row][:, None], n.latitude[row], n.longitude[row]
        )
        density = np.exp(-0.5 * (km / 6371.0088 / np.radians(choice.sigma)) ** 2) @ weights
        best = int((density * p[row][cells] ** 2).argmax())
        assert (one["latitude"], one["longitude"]) == pytest.approx(
            (n.latitude[row, best], n.longitude[row, best])
        )
        assert one["method"] == f"[M]{partition.cell_count}C+kNN"
        assert one["within_km"] == 200
        assert len(one["nearby"]["neighbours"]) == 20
        assert one["regions"][0]["coverage"] == 0.7


def test_neighbours_and_modes_are_said_and_drawn(made, capsys, tmp_path):
    page = tmp_path / "map.html"
    command = ["locate", *files(made, 40), "--method", "combined", "--map", str(page)]
    assert geoloc(made, *command) == 0
    shown = capsys.readouterr().out
    assert "\n  20 neighbours by 1 photographer, density with σ 2°\n" in shown
    assert "\n  mode 1: " in shown
    text = page.read_text()
    assert text.count('<path class="near" d="M') == 1
    assert text.split('<path class="near" d="')[1].split('"')[0].count("h0") == 20
    assert '<path class="mode" stroke-width="' in text
    assert "20 neighbours by 1 photographer" in text
    assert geoloc(made, "locate", *files(made, 40), "--method", "nn", "--map", str(page)) == 0
    shown = capsys.readouterr().out
    assert "5 neighbours by 1 photographer" in shown
    assert "mode 1" not in shown
    assert '<path class="mode"' not in page.read_text()
    assert geoloc(made, "locate", *files(made, 40), "--map", str(page)) == 0
    assert '<path class="near"' not in page.read_text()
    assert "neighbours by" not in capsys.readouterr().out


@pytest.mark.parametrize("method", ["neighbours", "combined"])
def test_without_choices_the_settings_answer_and_a_line_says_so(method, changed, capsys):
    for change in ("another index", "no choices"):
        if change == "another index":
            put_network(changed, seed=2)
            put_index(changed)
        else:
            shutil.rmtree(output_folder(changed, "default", "evaluation"))
        assert geoloc(changed, "locate", *files(changed, 40), "--method", method) == 0
        shown = capsys.readouterr()
        assert "k and sigma are those of localizers" in shown.err, change
        assert "40 neighbours by 1 photographer" in shown.out  # localizers.k is 100, the index has 40
        assert " of being within" not in shown.out


def test_damaged_choices_are_an_error_that_says_what_to_build(changed, capsys):
    file = output_folder(changed, "default", "evaluation") / "neighbour-choices-classifier.json"
    file.unlink()
    file.write_text('[{"way": "alone"}]')
    record(changed, "evaluation")
    assert geoloc(changed, "locate", *files(changed, 40), "--method", "neighbours") == 1
    error = capsys.readouterr().err
    assert "neighbour-choices-classifier.json" in error
    assert "geoloc build --recipe default --only evaluation --force" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["--method", "combined", "--level", "city"],
            ["--level city", "--method combined", "class and neighbours"],
        ),
        (["--method", "neighbours", "--partition", "fine"], ["--partition fine", "--method neighbours"]),
        (["--method", "combined", "--combine", "product"], ["--combine product", "--method combined"]),
        (["--model", "backbone"], ["--model backbone", "neighbours and combined"]),
    ],
)
def test_options_that_exclude_each_other_are_both_named(options, named, tmp_path, capsys):
    assert geoloc(Workspace(tmp_path), "locate", "photo.jpg", *options) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in named), error
