"""Reports: offline, escaped, equal bytes for equal input, and the numbers that were measured."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.land import land_rings, water_rings
from geoloc.reports import summary
from geoloc.reports.banner import SAMPLE_BANNER, SAMPLE_SOURCE
from geoloc.reports.examples import Example, ExampleNeighbour, ExampleSet, pick_examples, thumbnail
from geoloc.reports.figures import training_figure
from geoloc.reports.gallery import GalleryInput, GalleryPhoto
from geoloc.reports.maps import answer_map_html, error_map, great_circles, partition_map
from geoloc.reports.pages import image_uri, kilometres, percent, place
from geoloc.reports.report import (
    ReportInput,
    report_html,
    report_numbers,
    report_tables,
    write_report,
)
from geoloc.reports.style import ERROR_COLOURS, METHOD_DASHES, method_colour, method_dash
from geoloc.reports.world import land_path
from geoloc.sphere import LEVELS_KM, destination, distance_km

NASTY = "<script>alert('x')</script>\"&{{ 7*7 }}"
NASTY_METHOD = "[L]$x_{ <b onload=alert(1)>"


@dataclasses.dataclass(frozen=True)
class FakeAnswers:
    latitude: np.ndarray
    longitude: np.ndarray
    confidence: np.ndarray


class FakePartition:
    """Cells that are squares of ten degrees; their photo counts are given."""

    kind = "squares"

    def __init__(self, squares=((0.0, 0.0, 5), (40.0, -100.0, 500))):
        self.squares = squares

    @property
    def cell_count(self):
        return len(self.squares)

    @property
    def fitted_photos(self):
        return 7 + int(self.photo_counts().sum())

    def photo_counts(self):
        return np.array([n for *_, n in self.squares])

    def centroids(self):
        return np.array([[lat + 5, lon + 5] for lat, lon, _ in self.squares])

    def rings(self, cell):
        lat, lon, _ = self.squares[cell]
        return [np.array([[lat, lon], [lat, lon + 10], [lat + 10, lon + 10], [lat + 10, lon]])]

    def ceiling(self, latitude, longitude, levels_km=LEVELS_KM, answer="centroid"):
        return dict.fromkeys(levels_km, 0.5)


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.handlers, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))

    def handle_data(self, data):
        self.texts.append(data.strip())


def make_evaluation(method=NASTY_METHOD, km=(0.5, 30.0, 9000.0), n=24, photographers=8):
    rng = np.random.default_rng(1)
    queries = pd.DataFrame(
        {
            "photo_id": [NASTY, *(f"photo-{i}" for i in range(1, n))],
            "latitude": rng.uniform(-50, 60, n),
            "longitude": rng.uniform(-180, 180, n),
            "photographer": [f"p{i % photographers}" for i in range(n)],
        }
    )
    away = np.resize(km, n)
    lat, lon = destination(queries["latitude"], queries["longitude"], 70.0, away)
    lat[3], lon[3] = np.nan, np.nan
    far = destination(queries["latitude"], queries["longitude"], 70.0, np.full(n, 9000.0))
    return evaluate(
        {method: FakeAnswers(lat, lon, np.full(n, 0.25)), "[B]NN": FakeAnswers(*far, np.full(n, 0.5))},
        queries,
        queries,
        {"squares": FakePartition()},
        EvaluationSettings(resamples=50, curve_points=9),
        seed=0,
        unreadable=["photo-5"],
        descriptions={method: NASTY},
    )


@pytest.fixture(scope="module")
def evaluation():
    return make_evaluation()


def jpeg(width=64, height=48, colour=(200, 30, 30), exif=None):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, format="jpeg", **({"exif": exif} if exif else {}))
    return stream.getvalue()


@pytest.fixture(scope="module")
def full(evaluation):
    neighbour = ExampleNeighbour(NASTY, jpeg(), 1.0, 2.0, 0.9, NASTY)
    example = Example(NASTY, jpeg(), 10.0, 20.0, 11.0, 21.0, 150.0, 0.5, NASTY, "", (neighbour,))
    return ReportInput(
        workspace=NASTY,
        recipe=NASTY,
        data_version="0123456789abcdef0123",
        evaluation=evaluation,
        banner=f"built on generated photos {NASTY}",
        partitions={NASTY: FakePartition()},
        training={NASTY: pd.DataFrame({"epoch": [1, 2], "loss": [3.0, 2.0], "accuracy_25km": [0.1, 0.2]})},
        splits=pd.DataFrame({"split": ["train", NASTY], "photos": [12345, 7]}),
        checks=pd.DataFrame({"name": ["a", NASTY], "passed": [True, False], "detail": ["fine", NASTY]}),
        quarantine=pd.DataFrame({"reason": [NASTY], "count": [4321]}),
        examples=(ExampleSet(NASTY_METHOD, (example,), (example,)),),
        provenance={
            "data version": "0123456789abcdef0123",
            "Dagster run": NASTY,
            "MLflow run": None,
            "built at": "2026-01-02T03:04:05Z",
        },
    )


@pytest.fixture(scope="module")
def written(full, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(folder, full)


@pytest.fixture
def pictures(written):
    """The figures by name: for tests that change nothing that is drawn, which takes seconds."""
    return {file.stem: file.read_bytes() for file in written[1] if file.suffix == ".png"}


def test_the_page_needs_no_network_and_runs_nothing(written):
    page = Page((written[0] / "report.html").read_text(encoding="utf-8"))
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert sum(link.startswith("data:image/jpeg") for link in page.links) == 4
    assert not {"script", "iframe", "link", "object", "base", "form"} & set(page.tags)
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_a_gallery_is_written_beside_the_report_and_linked(full, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("geoloc.reports.report.report_figures", lambda report: pictures)
    gallery = GalleryInput("v", no_cue=(GalleryPhoto("p7", jpeg()),))
    files = write_report(tmp_path, dataclasses.replace(full, gallery=gallery))
    assert tmp_path / "gallery.html" in files
    assert 'href="report.html"' in (tmp_path / "gallery.html").read_text(encoding="utf-8")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {link for link in page.links if not link.startswith(("data:image/", "#"))} == {"gallery.html"}
    assert json.loads((tmp_path / "report.json").read_text())["gallery"]["no_cue"] == ["p7"]


@pytest.mark.parametrize("note", ["", "my photos", SAMPLE_BANNER, "built on the sample planet"])
def test_a_report_on_the_sample_planet_says_so_by_itself_and_once(full, pictures, note):
    report = dataclasses.replace(full, banner=note, sources={SAMPLE_SOURCE: 9})
    text = html.unescape(report_html(report, pictures))
    assert text.count(SAMPLE_BANNER) == 1
    assert text.index(SAMPLE_BANNER) < text.index("<main>")
    assert report_numbers(report)["banner"].count(SAMPLE_BANNER) == 1
    assert (note in text) == (note != "built on the sample planet")


def test_a_report_on_other_photos_says_nothing_of_the_sample_planet(full, pictures):
    report = dataclasses.replace(full, sources={"mine": 9})
    assert "sample planet" not in report_html(report, pictures)
    assert report_numbers(report)["banner"] == full.banner


def test_users_text_is_shown_as_it_is_and_never_becomes_markup(written):
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert page.handlers == []
    assert "b" in page.tags  # the template's own
    # Every place where a user's text goes shows it whole: nothing evaluated, nothing cut.
    shown = "\n".join(page.texts)
    assert shown.count(NASTY) >= 12
    assert shown.count(NASTY_METHOD) >= 4
    assert "49" not in html.unescape(NASTY)


def test_links_within_the_page_lead_somewhere(written):
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    for link in Page(text).links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in text, link


@pytest.mark.slow
def test_equal_input_gives_equal_bytes(full, written, tmp_path):
    folder, files = written
    with matplotlib.rc_context({"font.size": 30, "axes.labelsize": 30, "xtick.major.size": 25}):
        before = dict(matplotlib.rcParams)
        again = write_report(tmp_path / "again", full)
        assert dict(matplotlib.rcParams) == before
    assert [f.relative_to(folder) for f in files] == [f.relative_to(tmp_path / "again") for f in again]
    for one, two in zip(files, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_the_page_holds_the_numbers_that_were_measured(written, evaluation):
    texts = Page((written[0] / "report.html").read_text(encoding="utf-8")).texts
    for table in (evaluation.accuracy, evaluation.baselines, evaluation.ceilings):
        for share in table["accuracy"]:
            assert f"{100 * share:.1f}" in texts
    for row in evaluation.accuracy.itertuples():
        assert f"{100 * row.low:.1f}–{100 * row.high:.1f}" in texts
    for row in evaluation.comparisons.itertuples():
        assert f"{100 * row.difference:+.1f}".replace("-", "−") in texts
    assert {"12,345", "4,321", "1 of 2 checks failed.", "01234567890123456789"[:0]} <= set(texts)


def test_json_and_csv_are_the_same_numbers_without_run_or_time(written, evaluation, full):
    folder, _ = written
    numbers = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert numbers["evaluation"] == evaluation.to_dict()
    assert numbers["quarantine"] == [{"reason": NASTY, "count": 4321}]
    assert numbers["training"][NASTY][1] == {"epoch": 2, "loss": 2.0, "accuracy_25km": 0.2}
    assert "workspace" not in numbers  # a copy under another name has an equal report.json
    assert "03:04:05" not in (folder / "report.json").read_text(encoding="utf-8")
    assert json.loads((folder / "provenance.json").read_text(encoding="utf-8")) == full.provenance
    for name in ("accuracy", "baselines", "comparisons", "errors"):
        csv = pd.read_csv(folder / "tables" / f"{name}.csv")
        pd.testing.assert_frame_equal(csv, getattr(evaluation, name), check_dtype=False, check_exact=False)


def test_pngs_are_what_the_page_shows(written):
    folder, files = written
    text = (folder / "report.html").read_text(encoding="utf-8")
    pictures = [f for f in files if f.suffix == ".png"]
    assert {f.stem for f in pictures} == {
        "accuracy",
        "intervals",
        "errors-1",
        "errors-2",
        "cells-1",
        "training-1",
    }
    for file in pictures:
        assert image_uri(file.read_bytes()) in text
        with Image.open(file) as image:
            assert image.width > 800
            assert set(image.info) <= {"dpi"}  # no date, no version


def test_what_was_not_given_is_left_out_or_said(evaluation, pictures):
    bare = ReportInput("w", "r", "v", evaluation)
    text = report_html(bare, pictures)
    for absent in (
        'id="examples"',
        'id="cells"',
        'id="training"',
        'class="banner"',
        'href="#cells"',
        'id="further"',
        'id="thoughts"',
    ):
        assert absent not in text
    for said in (
        "Split sizes were not given",
        "Check results were not given",
        "Quarantine counts were not given",
    ):
        assert said in text
    nothing = dataclasses.replace(bare, quarantine=pd.DataFrame({"reason": [], "count": []}))
    assert "No input was rejected." in report_html(nothing, pictures)


def test_held_out_by_trip_is_said_at_the_top(full, evaluation, pictures):
    by_trip = dataclasses.replace(full, evaluation=dataclasses.replace(evaluation, unit="trips"))
    for report, told in ((full, False), (by_trip, True)):
        page, numbers = report_html(report, pictures), report_numbers(report)
        assert ("nothing about photos by other people" in page.partition("<h1>")[0]) == told
        assert len(numbers["warnings"]) == told
        assert ("photos of 8 trips" in numbers["summary"][0]) == told


def test_further_evaluations_have_their_own_numbers(full, evaluation, pictures):
    other = make_evaluation("[X]NN", km=(0.5, 0.5, 0.5, 9000.0))
    report = dataclasses.replace(full, further={"leave-photographer-out": other})
    page = Page(report_html(report, pictures | {"further-1-intervals": pictures["intervals"]}))
    assert {"leave-photographer-out", "[X]NN"} <= set(page.texts)
    shares = {f"{100 * x:.1f}" for x in other.accuracy["accuracy"]} - {
        f"{100 * x:.1f}" for x in evaluation.accuracy["accuracy"]
    }
    assert shares
    assert shares <= set(page.texts)
    pd.testing.assert_frame_equal(report_tables(report)["further-1-accuracy"], other.accuracy)


def test_a_picture_that_is_none_is_refused(full, pictures):
    example = Example("x", b"<svg onload=alert(1)>", 0, 0, 0, 0, 0.0)
    bad = dataclasses.replace(full, examples=(ExampleSet("m", (example,), ()),))
    with pytest.raises(ValueError, match="must be JPEG or PNG"):
        report_html(bad, pictures)


def test_the_summary_names_the_best_method_and_the_levels_that_no_method_wins(evaluation):
    said = summary.sentences(evaluation)
    city = evaluation.accuracy.query("level == 'city'").set_index("method").loc[NASTY_METHOD]
    assert NASTY_METHOD in said[0]
    assert f"{100 * city['accuracy']:.1f} % of 24 photos by 8 photographers within 25 km" in said[0]
    assert summary.headline(evaluation)[0] == "city"
    for level in LEVELS_KM:
        base = evaluation.baselines[evaluation.baselines["level"] == level]
        top = base.loc[base["accuracy"].idxmax(), "baseline"]
        rows = evaluation.comparisons
        wins = (rows[(rows["level"] == level) & (rows["other"] == top)]["verdict"] == "better").any()
        assert (level in summary.unbeaten_levels(evaluation)) == (not wins)
    # A third of the photos at street level: eight photographers do not show it, sixty do.
    assert "street" in summary.unbeaten_levels(evaluation)
    assert "street" not in summary.unbeaten_levels(make_evaluation(n=180, photographers=60))
    hopeless = make_evaluation(km=(9000.0,))
    assert summary.unbeaten_levels(hopeless) == list(LEVELS_KM)
    assert any("no method is shown to be better" in sentence for sentence in summary.sentences(hopeless))
    assert any("1 abstentions and 1 unreadable" in sentence for sentence in said)


def test_examples_are_the_extremes_and_vary_photographers(evaluation):
    best, worst = pick_examples(evaluation, NASTY_METHOD, 4)
    rows = evaluation.per_photo.query("method == @NASTY_METHOD and status == 'answered'")
    assert best["error_km"].tolist() == sorted(rows["error_km"])[:4]
    assert worst["error_km"].tolist() == sorted(rows["error_km"], reverse=True)[:4]
    ids = [NASTY, *(f"photo-{i}" for i in range(1, 24))]
    owner = pd.Series([f"p{i % 3}" for i in range(24)], index=ids)
    best, worst = pick_examples(evaluation, NASTY_METHOD, 4, owner)
    assert len(set(best["photo_id"].map(owner)[:3])) == 3  # three photographers first, then one again
    assert len(best) == len(worst) == 4
    assert not set(best["photo_id"]) & set(worst["photo_id"])
    with pytest.raises(ValueError, match="method must be one of"):
        pick_examples(evaluation, "nobody")


def test_thumbnails_are_small_and_carry_no_exif():
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    data = jpeg(800, 400, exif=exif)
    assert b"secret camera" in data
    small = thumbnail(data, side=100)
    assert b"secret camera" not in small
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (100, 50))
        assert np.abs(np.asarray(image, dtype=int).mean(axis=(0, 1)) - [200, 30, 30]).max() < 4
    with pytest.raises(UnidentifiedImageError):
        thumbnail(b"no picture")


coordinate = st.tuples(st.floats(-80, 80), st.floats(-179, 179))


@settings(deadline=None)
@given(coordinate, coordinate)
def test_great_circles_are_as_long_as_the_distance_and_never_jump(a, b):
    lines = great_circles(*(np.array([x]) for x in (*a, *b)))
    whole = float(distance_km(*a, *b))
    if whole < 0.001 or whole > 20_000:
        return
    length = 0.0
    for line in lines:
        assert np.abs(np.diff(line[:, 0])).max() <= 180
        length += distance_km(line[:-1, 1], line[:-1, 0], line[1:, 1], line[1:, 0]).sum()
    # Where a line is cut, the map's edge is met on a straight line between two of its 40 points.
    assert length == pytest.approx(whole, abs=1e-6 if len(lines) == 1 else 2 * whole / 39)


def test_great_circles_over_the_antimeridian_are_cut_there():
    lines = great_circles(np.array([10.0]), np.array([170.0]), np.array([10.0]), np.array([-170.0]))
    assert len(lines) == 2
    assert lines[0][-1].tolist() == pytest.approx([180.0, lines[1][0, 1]])
    assert lines[1][0, 0] == -180.0
    assert lines[0][:, 0].min() >= 170
    assert lines[1][:, 0].max() <= -170


def test_a_cut_line_meets_the_edge_where_the_great_circle_does():
    lines = great_circles(np.array([0.0]), np.array([178.0]), np.array([40.0]), np.array([-150.0]))
    length = sum(distance_km(x[:-1, 1], x[:-1, 0], x[1:, 1], x[1:, 0]).sum() for x in lines)
    assert len(lines) == 2
    assert length == pytest.approx(float(distance_km(0, 178, 40, -150)), abs=0.5)


def pixels(data, colour):
    """How many pixels of a PNG are exactly of a colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(io.BytesIO(data)) as image:
        return int((np.asarray(image.convert("RGB")) == wanted).all(axis=-1).sum())


def test_error_maps_colour_right_and_wrong_answers():
    right = error_map(make_evaluation("m", km=(0.5,)), "m")
    wrong = error_map(make_evaluation("m", km=(9000.0,)), "m")
    blue, red = ERROR_COLOURS[0], ERROR_COLOURS[-1]
    assert pixels(right, blue) > 3 * pixels(wrong, blue) > 0  # its legend has both
    assert pixels(wrong, red) > 3 * pixels(right, red) > 0
    with pytest.raises(ValueError, match="method must be one of"):
        error_map(make_evaluation("m"), "n")


@pytest.mark.slow
def test_partition_map_draws_cells_where_they_are(tmp_path):
    def changed(one, two):
        a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int) for data in (one, two))
        height = int(a.shape[0] * 0.8)  # the colour bar is below
        return np.argwhere(np.abs(a - b)[:height].sum(axis=-1) > 60)

    both = partition_map(FakePartition(((0.0, 0.0, 5), (40.0, -100.0, 500))), tmp_path / "cells.png")
    assert (tmp_path / "cells.png").read_bytes() == both
    swapped = partition_map(FakePartition(((0.0, 0.0, 500), (40.0, -100.0, 5))))
    moved = changed(both, swapped)
    with Image.open(io.BytesIO(both)) as image:
        width = image.width
    east, west = moved[moved[:, 1] > width / 2], moved[moved[:, 1] < width / 2]
    assert len(east) > 500
    assert len(west) > 500
    assert east[:, 0].mean() > west[:, 0].mean()  # the equator is below 45 degrees north
    assert west[:, 1].max() < width / 2 - 50


def test_training_figure_needs_a_loss_or_an_accuracy():
    with pytest.raises(ValueError, match="loss or accuracy"):
        training_figure(pd.DataFrame({"epoch": [1], "seconds": [2.0]}))
    one = training_figure(pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]}))
    two = training_figure(pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.5]}))
    assert one != two


def test_land_path_is_the_land():
    rings = [*land_rings(), *water_rings()]
    parts = land_path().split("M")[1:]
    assert len(parts) == len(rings)
    for text, ring in zip(parts, rings, strict=True):
        moves = [tuple(map(int, move.split())) for move in text.removesuffix("z").split("l")]
        points = np.cumsum(moves, axis=0) / 100
        assert np.abs(points - np.column_stack([ring[:, 1], -ring[:, 0]])).max() <= 0.005 + 1e-9


def answer(**change):
    return {
        "photo": "a.jpg", "method": "[L]2C", "latitude": 48.85, "longitude": 2.35, "place": "Paris", "confidence": 0.4,
        "alternatives": [
            {"latitude": -33.9, "longitude": 151.2, "place": "Sydney", "weight": 0.1, "why": "cell 6b1"},
        ],
        "error": None,
    } | change  # fmt: skip


def test_answer_map_shows_answer_alternatives_and_reasons_offline():
    text = answer_map_html([answer(thumbnail=jpeg(), outline=[[(1.0, 2.0), (1.0, 3.0), (2.0, 3.0)]])])
    page = Page(text)
    assert "M2.35000 -48.85000h0" in text
    assert "M151.20000 33.90000h0" in text
    assert "M2.000 -1.000L3.000 -1.000L3.000 -2.000z" in text
    assert {"48.850° N, 2.350° E · confidence 0.40 · [L]2C", "1. Sydney", "0.10", "cell 6b1"} <= set(
        page.texts
    )
    assert all(link.startswith(("data:image/jpeg", "#")) for link in page.links)
    assert page.tags.count("script") == 1
    assert text == answer_map_html([answer(thumbnail=jpeg(), outline=[[(1.0, 2.0), (1.0, 3.0), (2.0, 3.0)]])])


def test_answer_map_escapes_and_says_why_there_is_no_answer():
    mute = answer(photo=NASTY, latitude=None, longitude=None, place=None, alternatives=[], error=NASTY)
    odd = answer(
        photo=NASTY, place=NASTY, alternatives=[answer()["alternatives"][0] | {"place": NASTY, "why": NASTY}]
    )
    page = Page(answer_map_html([mute, odd], title=NASTY))
    assert page.tags.count("script") == 1
    assert page.handlers == []
    assert "\n".join(page.texts).count(NASTY) >= 7
    assert "No answer." in page.texts
    assert page.tags.count("ol") == 1


@pytest.mark.parametrize("bad", [[], [answer(latitude=91.0)], [answer(longitude=-181.0)]])
def test_answer_map_refuses_what_it_cannot_draw(bad):
    with pytest.raises(ValueError, match=r"at least one answer|outside the map"):
        answer_map_html(bad)


def test_numbers_for_people():
    assert [kilometres(x) for x in (0.4249, 8.34, 512.4, 4210.0, np.inf, np.nan, None)] == [
        "0.42", "8.3", "512", "4,210", "∞", "–", "–",
    ]  # fmt: skip
    assert percent(0.03371, 2) == "3.37"
    assert percent(float("nan")) == "–"
    assert place(-48.8566, -2.3522) == "48.857° S, 2.352° W"
    assert place(float("nan"), 3.0) == "–"


def test_no_two_methods_share_colour_and_dash():
    looks = [(method_colour(i), method_dash(i)) for i in range(100)]
    assert len(set(looks)) == 100
    assert {dash for _, dash in looks[:32]} == set(METHOD_DASHES)  # those that differ most come first


def styles(text: str) -> str:
    return re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]


def test_pages_follow_the_readers_dark_mode_and_figures_keep_their_paper(written):
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    for text in (page, answer_map_html([answer()])):
        css = styles(text)
        light, dark = re.findall(r":root\{([^}]*)\}", css)[:2]
        assert (
            css.count("@media screen and (prefers-color-scheme:dark){:root{") == 1
        )  # paper stays white in print
        names = [set(re.findall(r"--[a-z-]+(?=:)", values)) for values in (light, dark)]
        assert names[0] == names[1] >= set(re.findall(r"var\((--[a-z-]+)\)", css))
        plain = css.replace(light, "").replace(dark, "")
        # Figures are drawn on white: it is the only colour, but for print, that is the same in both.
        assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b", plain)) <= {"#fff", "#ccc"}
    figures = re.findall(r'<figure( class="drawn")?><img[^>]*src="data:image/png', page)
    assert len(figures) > 3
    assert all(figures)


def test_tables_keep_their_first_column_and_words_stay_whole(written):
    css = styles((written[0] / "report.html").read_text(encoding="utf-8"))
    assert "tr>:first-child{position:sticky;left:0;" in css
    for selector in ("tbody th", ".facts dd", ".neighbours figcaption"):
        rule = re.search(rf"(?m)^{re.escape(selector)}\{{([^}}]*)\}}", css)[1]
        assert "overflow-wrap:break-word" in rule


def test_the_data_version_stands_once_in_the_provenance(written):
    folder, _ = written
    footer = (folder / "report.html").read_text(encoding="utf-8").partition('<footer id="provenance">')[2]
    assert footer.count("0123456789abcdef0123") == 1
    assert json.loads((folder / "provenance.json").read_text())["data version"] == "0123456789abcdef0123"


def test_the_shapes_of_the_map_page_take_no_room():
    """As wide as the page, at its margin, they made it scroll sideways."""
    text = answer_map_html([answer()])
    assert '<svg class="shapes" aria-hidden="true"><defs>' in text
    assert ".shapes{position:absolute;width:0;height:0}" in text
    assert not re.search(r"(?m)^svg\{", text)
