"""What the classifier thinks: which photos are explained, what is kept of them, what a reader of the report sees."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from geoloc.evaluation.diagnostics import diagnose
from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.explaining.explanations import FOLDER, Explanations, explain, pick_explained
from geoloc.evaluation.measures.groups import density_groups
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.confidence.kept import CellFacts
from geoloc.models.preprocess import Preprocess
from geoloc.reports.pages import image_uri
from geoloc.reports.report import ReportInput, report_figures, report_html, write_report
from geoloc.reports.thoughts import gather_thoughts
from geoloc.settings import SettingsError, parse, replace

SETTINGS = EvaluationSettings(resamples=20, curve_points=9)


class Squares:
    """Four cells of ten degrees along the equator, from 0 to 40 degrees east."""

    kind, cell_count, fitted_photos = "squares", 4, 40

    def assign(self, latitude, longitude):
        lat, lon = np.asarray(latitude), np.asarray(longitude)
        return np.where((np.abs(lat) <= 5) & (lon >= 0) & (lon < 40), lon // 10, -1).astype(np.int32)

    def centres(self):
        return np.array([[0.0, 5.0 + 10 * i] for i in range(4)])

    def centroids(self):
        return np.where(np.arange(4)[:, None] == 3, np.nan, self.centres())  # the last has no photo

    def photo_counts(self):
        return np.array([20, 10, 10, 0])

    def rings(self, cell):
        west = 10.0 * cell
        return [np.array([[-5, west], [-5, west + 10], [5, west + 10], [5, west]])]

    def ceiling(self, latitude, longitude, levels_km=None, answer="centroid"):
        return dict.fromkeys(levels_km or {}, 0.5)


class Toy(nn.Module):
    """Two heads; the scores of the second, `fine`, are how red, green and blue a photo is, and a constant."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 64))
        self.preprocess = Preprocess(resize_short_side=24, image_size=20)
        self.heads = {"coarse": 2, "fine": 4}

    def forward(self, images):
        colours = images.float().mean(dim=(2, 3)) * self.scale
        constant = torch.ones_like(colours[:, :1])
        return torch.cat([9 * constant, 9 * constant, colours, constant], dim=1)

    def split(self, scores):
        return dict(zip(self.heads, scores.split([2, 4], dim=1), strict=True))


def jpeg(colour):
    stream = io.BytesIO()
    Image.new("RGB", (30, 24), colour).save(stream, format="jpeg", quality=95)
    return stream.getvalue()


class Reader:
    """Photos by their place in a shard: photo i at offset i."""

    def __init__(self, data):
        self.data = data

    def read(self, shard, offset, length):
        return self.data[offset]


COLOURS = [
    (250, 0, 0),
    (200, 0, 0),
    (0, 240, 0),
    (0, 200, 0),
    (0, 0, 250),
    (120, 0, 0),
    (0, 90, 0),
    (9, 9, 9),
]


@pytest.fixture(scope="module")
def world():
    """Eight photos; the classifier answers 0 0 1 1 2 0 1 3, the truth is 0 0 1 0 2 none 0 1; the last is unreadable."""
    photos = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(8)],
            "photographer": ["a", "a", "b", "c", "d", "e", None, "f"],
            "latitude": [0.0, 1, 0, 0, 0, 60, 0, 0],
            "longitude": [5.0, 5, 15, 5, 25, -150, 6, 15],
            "shard": "s",
            "offset": range(8),
            "length": 1,
        }
    )
    data = [jpeg(colour) for colour in COLOURS]
    data[7] = b"no picture"
    model = Toy()
    with torch.no_grad():
        pictures = torch.stack([torch.tensor(c).float()[:, None, None].expand(3, 20, 20) for c in COLOURS])
        raw = model.split(model(pictures))["fine"].softmax(1).numpy()
    scaled = raw**0.5 / (raw**0.5).sum(axis=1, keepdims=True)  # a temperature of 2
    raw[7], scaled[7] = np.nan, np.nan
    return photos, Reader(data), model, raw, scaled


def explained(world, **changes):
    photos, reader, model, raw, scaled = world
    settings = replace(SETTINGS, **changes)
    answers = ClassLocalizer(Squares(), alternatives=3).locate(scaled)
    missed = [p for p, row in zip(photos["photo_id"], scaled, strict=True) if np.isnan(row).any()]
    evaluation = evaluate(
        {"[L]4C": answers, "[L]NN": answers},
        photos,
        photos,
        {"fine": Squares()},
        settings,
        seed=0,
        unreadable=missed,
    )
    facts = CellFacts.of(raw, scaled, Squares().assign(photos["latitude"], photos["longitude"]))
    found = explain(
        evaluation, photos, answers.alternatives, model, ("fine", Squares()), facts, lambda rows: scaled[rows], reader,
        settings, temperature=2.0,
    )  # fmt: skip
    return evaluation, found


def bytes_of(world):
    photos, reader = world[:2]
    return lambda photo_id: reader.data[list(photos["photo_id"]).index(photo_id)]


def test_the_surest_right_answers_and_the_worst_errors_are_explained(world):
    _, found = explained(world)
    sides = found.explained.set_index("photo_id")["side"].to_dict()
    # p0 is surest, then p4; p1 is by p0's photographer. Of the wrong ones p5 is farthest, then p3 and p6.
    assert sides == {"p4": "right", "p0": "right", "p5": "wrong", "p3": "wrong"}
    assert list(found.explained["side"]) == ["right", "right", "wrong", "wrong"]
    assert list(explained(world, explained=1)[1].explained["side"]) == ["right"]
    many = explained(world, explained=50)[1].explained
    assert sorted(many["photo_id"]) == [f"p{i}" for i in range(7)]  # all but the unreadable one, each once
    assert list(many["side"]) == ["right"] * 4 + ["wrong"] * 3
    assert list(many["photo_id"][3:4]) == ["p1"]  # a photographer's second comes last of its side
    assert explained(world, explained=0)[1].explained.empty
    evaluation = explained(world)[0]
    none_right = explained(world)[1].answers.assign(true_cell=-1)
    assert list(pick_explained(evaluation, none_right, 4)["side"]) == ["wrong"] * 4  # they make up for it


def test_what_is_kept_is_what_the_classifier_says_of_the_main_partition(world):
    photos, _, _, raw, scaled = world
    _, found = explained(world)
    assert found.answers["cell"].tolist() == [0, 0, 1, 1, 2, 0, 1, -1]
    assert found.answers["true_cell"].tolist() == [0, 0, 1, 0, 2, -1, 0, 1]
    np.testing.assert_allclose(found.answers["probability"][:7], scaled[:7].max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.answers["uncalibrated"][:7], raw[:7].max(axis=1), rtol=1e-6)
    assert np.isnan(found.answers["probability"][7])
    position = [list(photos["photo_id"]).index(p) for p in found.explained["photo_id"]]
    np.testing.assert_allclose(found.probabilities, scaled[position], rtol=1e-6)
    for row, p in zip(found.explained.itertuples(), position, strict=True):
        maps = found.occlusion[row.photo_id]
        # The answer's cell, then the true one where there is another; by the head `fine` alone, at the temperature.
        assert [m.cell for m in maps] == [
            row.cell,
            *([row.true_cell] if row.true_cell not in (-1, row.cell) else []),
        ]
        for one in maps:
            assert one.whole == pytest.approx(scaled[p, one.cell], abs=0.01)  # but for what JPEG does
            assert one.window == 4
            assert one.pixels.shape == (20, 20)
    # The best of k: p3 was taken in cell 0, which was no first answer.
    assert found.best_of_k.shape == (8, 3)
    assert found.best_of_k[3, 0] > 1000 > found.best_of_k[3, 2]
    assert np.isinf(found.best_of_k[7]).all()
    # Cells 0 and 1 are the answer three times each; cell 2 once.
    assert list(dict.fromkeys(explained(world, confident_cells=2)[1].confident["cell"])) == [0, 1]
    assert explained(world, confident_cells=0)[1].confident.empty


def test_explanations_come_back_from_their_files_which_have_equal_bytes(world, tmp_path):
    _, found = explained(world)
    found.save(tmp_path / "one")
    explained(world)[1].save(tmp_path / "two")
    names = sorted(f.name for f in (tmp_path / "one").iterdir())
    assert names == [
        "answers.parquet", "confident.parquet", "explained.parquet", "explanations.json", "occlusion.parquet",
        "probabilities.parquet",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    back = Explanations.load(tmp_path / "one")
    for table in ("answers", "explained", "confident"):
        pd.testing.assert_frame_equal(getattr(back, table), getattr(found, table))
    np.testing.assert_array_equal(back.probabilities, found.probabilities)
    np.testing.assert_array_equal(back.best_of_k, found.best_of_k)
    assert (back.temperature, back.seen, back.crops, back.partition) == (2.0, 20 / 24, 1, "fine")
    dataclasses.replace(found, crops=5).save(tmp_path / "five")
    assert Explanations.load(tmp_path / "five").crops == 5
    assert list(back.occlusion) == list(found.occlusion)
    for photo_id, maps in found.occlusion.items():
        for one, other in zip(maps, back.occlusion[photo_id], strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert (one.cell, one.whole, one.window) == (other.cell, other.whole, other.window)


@pytest.mark.slow
def test_a_reader_sees_the_figures_each_with_what_it_shows(world, tmp_path):
    evaluation, found = explained(world, explained=2, confident_cells=1)
    groups = gather_thoughts(evaluation, found, Squares(), bytes_of(world))
    assert {group.title: len(group.figures) for group in groups} == {
        "Probabilities on the world": 2,
        "What it looks at": 2,
        "The surest photos of a cell": 1,
        "The best of several answers": 1,
        "How wrong are the surest answers?": 4,  # by class and by neighbour, at two levels
        "Is a confidence what it says?": 1,
    }
    files = write_report(tmp_path, ReportInput("w", "r", "v", evaluation, thoughts=groups))
    text = files[0].read_text(encoding="utf-8")
    assert '<a href="#thoughts">' in text
    section = text[text.index('<section id="thoughts">') :]
    section = section[: section.index("</section>")]
    assert section.count("<img") == section.count("<figcaption>") == 11
    assert all(re.findall(r'alt="([^"]*)"', section))
    assert "crop" not in section  # there is but one
    for row in found.explained.itertuples():
        assert section.count(f"{row.photo_id}, {row.side}: taken at") == 2
        assert f"with confidence {row.confidence:.2f}" in section
    for source in ("figures 1 and 6", "figure 10", "figure 8", "figure 3", "Guo", "Geifman"):
        assert source in section
    assert "7 photos, 4 of them in their true cell; 1 are in no cell" in section
    for group in groups:
        for one in group.figures:
            (file,) = [f for f in files if f.stem == one.name]
            with Image.open(file) as image:
                assert image.format == {".jpg": "JPEG", ".png": "PNG"}[file.suffix]
            assert image_uri(one.data) in section


@pytest.mark.slow
def test_a_map_of_the_centre_says_so_where_the_confidence_is_of_several_crops(world):
    evaluation, found = explained(world, explained=1, confident_cells=0)
    groups = gather_thoughts(evaluation, dataclasses.replace(found, crops=5), Squares(), bytes_of(world))
    (caption,) = [f.caption for g in groups if g.title == "What it looks at" for f in g.figures]
    assert caption.endswith(" are of the centre crop alone; the confidence is of the mean over 5 crops.")


@pytest.mark.slow
def test_what_there_is_nothing_of_is_left_out(world):
    evaluation, found = explained(world, explained=0, confident_cells=0)
    titles = [g.title for g in gather_thoughts(evaluation, found, Squares(), bytes_of(world))]
    assert titles == [
        "The best of several answers", "How wrong are the surest answers?", "Is a confidence what it says?",
    ]  # fmt: skip
    # No classifier was tried: neighbours alone.
    (only,) = gather_thoughts(evaluation, None, None, bytes_of(world))
    assert only.title == "How wrong are the surest answers?"
    # Bytes that are no longer in the pool: a map still, but nothing to lay an occlusion map over.
    few = explained(world, explained=1, confident_cells=0)
    without = {g.title: g for g in gather_thoughts(*few, Squares(), lambda photo_id: None)}
    assert len(without["Probabilities on the world"].figures) == 1
    assert "What it looks at" not in without


def test_photos_that_cannot_be_read_are_no_error(world, tmp_path):
    photos, reader, model, raw, _ = world
    nothing = np.full_like(raw, np.nan)
    evaluation, found = explained((photos, reader, model, nothing, nothing))
    assert found.explained.empty
    assert found.confident.empty
    assert (found.answers["cell"] == -1).all()
    found.save(tmp_path / FOLDER)
    back = Explanations.load(tmp_path / FOLDER)
    titles = [g.title for g in gather_thoughts(evaluation, back, Squares(), bytes_of(world))]
    assert titles == ["The best of several answers", "How wrong are the surest answers?"]


@pytest.mark.parametrize("key", ["explained", "confident_cells"])
def test_the_settings_have_limits(key):
    for value, limit in ((-1, "at least 0"), (101, "at most 100")):
        with pytest.raises(SettingsError, match=f"evaluation.{key} must be {limit}, got {value}"):
            parse(EvaluationSettings, {key: value}, "evaluation")


# Diagnostics of a leave-photographer-out evaluation


def test_density_without_ones_own_photos_is_a_loop():
    rng = np.random.default_rng(0)
    lat, lon, owner = rng.uniform(0, 1, 60), rng.uniform(0, 1, 60), rng.integers(0, 5, 60)
    found = density_groups(lat, lon, lat, lon, 30.0, 4, owner=owner, reference_owner=owner)
    degrees = 30.0 / 111.195
    for i, label in enumerate(found):
        near = np.hypot(lat - lat[i], (lon - lon[i]) * np.cos(np.radians((lat + lat[i]) / 2))) <= degrees
        low, high = re.match(r"(\d+)(?: to (\d+))? within 30 km", label).groups()
        assert int(low) <= (near & (owner != owner[i])).sum() <= int(high or low)


@pytest.mark.slow
def test_a_leave_photographer_out_evaluation_is_diagnosed_without_a_classifier(world):
    photos = world[0]
    far = Answers(photos["latitude"].to_numpy(), photos["longitude"].to_numpy() * 0.9, np.linspace(0, 1, 8))
    evaluation = evaluate({"[B]NN": far}, photos, photos, None, SETTINGS, seed=0, leave_photographer_out=True)
    found = diagnose(evaluation, {}, {}, photos, photos, {}, leave_photographer_out=True)
    assert set(found.tables) == {
        "accuracy_by_continent", "accuracy_by_country", "accuracy_by_density", "selective", "risk_coverage",
    }  # fmt: skip
    report = ReportInput(
        "w",
        "r",
        "v",
        evaluation,
        further={"everyone": evaluation},
        further_diagnostics={"everyone": found.overview()},
    )
    text = report_html(report, report_figures(report))
    assert "Details of the accuracy of [B]NN" in text
    assert "Accuracy by continent" in text
