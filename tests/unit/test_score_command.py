"""`geoloc score` on small files: what is measured, how photos are matched, and what is refused or told."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.external.score import score
from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.intervals import differences
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.cli import main


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder, and in it truth.csv: twelve photos by four photographers."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = pd.DataFrame(
        {
            "photo_id": [str(1000 + i) for i in range(12)],
            "latitude": rng.uniform(-40, 40, 12).round(4),
            "longitude": rng.uniform(91, 170, 12).round(4),  # exchanged, these are off the map
            "photographer": [f"p{i % 4}" for i in range(12)],
        }
    )
    truth.to_csv("truth.csv", index=False)
    return tmp_path, truth


def answers(truth, degrees=0.1, **columns):
    """Predictions that are off to the north."""
    return truth[["photo_id", "longitude"]].assign(latitude=truth["latitude"] + degrees, **columns)


def scored(capsys, *arguments):
    assert main(["score", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments) -> str:
    assert main(["score", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("geoloc: ")
    assert captured.err.count("\n") == 1
    return captured.err


def value(found, measure, method="p"):
    return next(
        row["value"] for row in found["scores"] if (row["method"], row["measure"]) == (method, measure)
    )


def accuracy(found, level, method="p"):
    return next(
        row["accuracy"] for row in found["accuracy"] if (row["method"], row["level"]) == (method, level)
    )


def notes(found, method="p"):
    return "\n".join(found["notes"][method])


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet"])
def test_any_table_gives_the_same_numbers(files, capsys, kind):
    _, truth = files
    table = answers(truth)
    if kind == "parquet":
        table.assign(photo_id=table["photo_id"].astype(int)).to_parquet("p.parquet")  # ids as numbers
    else:
        table.to_csv(f"p.{kind}", index=False, sep="\t" if kind == "tsv" else ",")
    found = scored(capsys, f"p.{kind}", "truth.csv")
    assert found["methods"] == ["p"]
    assert (found["photos"], found["photographers"]) == (12, 4)
    assert accuracy(found, "street") == 0
    assert accuracy(found, "city") == 1
    km = float(distance_km(0, 0, 0.1, 0))
    assert value(found, "GeoScore") == pytest.approx(5000 * math.exp(-km / 1492.7), rel=1e-6)
    assert notes(found) == ""


def test_columns_of_other_names_are_found_or_named(files, capsys):
    _, truth = files
    usual = answers(truth).rename(columns={"photo_id": "IMG_ID", "latitude": "LAT", "longitude": "Lng"})
    usual.to_csv("p.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert accuracy(found, "city") == 1
    assert "columns: photo_id = IMG_ID, latitude = LAT, longitude = Lng" in notes(found)
    odd = answers(truth).rename(columns={"photo_id": "key", "latitude": "y", "longitude": "x"})
    odd.to_csv("p.csv", index=False)
    assert "p.csv has no column 'photo_id'; it has key, x, y; say which one with --column" in refused(
        capsys, "p.csv", "truth.csv"
    )
    names = ["--column", "photo_id=key", "--column", "latitude=y", "--column", "longitude=x"]
    assert accuracy(scored(capsys, "p.csv", "truth.csv", *names), "city") == 1
    assert "--column latitude=why: no table has that column" in refused(
        capsys, "p.csv", "truth.csv", *names, "--column", "latitude=why"
    )
    assert "--column must name one of" in refused(capsys, "p.csv", "truth.csv", "--column", "lat=y")
    assert "--column must be FIELD=NAME" in refused(capsys, "p.csv", "truth.csv", "--column", "y")


def test_one_table_may_hold_both_answers_and_truth(files, capsys):
    _, truth = files
    both = truth.assign(pred_lat=truth["latitude"] + 0.1, pred_lon=truth["longitude"])
    both.to_csv("p.csv", index=False)
    assert accuracy(scored(capsys, "p.csv", "p.csv"), "street") == 0
    named = ["--column", "latitude=pred_lat", "--column", "longitude=pred_lon"]
    found = scored(capsys, "p.csv", "p.csv", *named)
    assert (accuracy(found, "street"), accuracy(found, "city")) == (0, 1)
    answers(truth, 0).to_csv("p.csv", index=False)
    assert "every answer is exactly the true place" in notes(scored(capsys, "p.csv", "truth.csv"))


@pytest.mark.parametrize(
    ("form", "rule"),
    [
        (lambda i: f"images/{i}.jpg", "by file name, without folders and extension"),
        (lambda i: f"C:\\images\\{i}", "by file name, without folders"),
        (lambda i: f"{i}.0", "as whole numbers (12.0 is 12)"),
        (lambda i: f" {i} ", ""),
    ],
)
def test_ids_are_matched_by_one_rule_that_is_told(files, capsys, form, rule):
    _, truth = files
    table = answers(truth)
    table.assign(photo_id=table["photo_id"].map(form)).iloc[::-1].to_csv("p.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert accuracy(found, "city") == 1
    assert notes(found) == (f"ids are compared {rule}" if rule else "")


def test_a_rule_that_makes_two_photos_one_is_not_used(files, capsys):
    _, truth = files
    twins = truth.assign(photo_id=[f"{'ab'[i % 2]}/{i // 2}.jpg" for i in range(12)])
    twins.to_csv("truth.csv", index=False)
    table = answers(twins)
    table.to_csv("p.csv", index=False)
    assert accuracy(scored(capsys, "p.csv", "truth.csv"), "city") == 1
    table.assign(photo_id=[f"{i // 2}" for i in range(12)]).to_csv("p.csv", index=False)
    assert "none of its 12 ids is a photo of the truth: '0'" in refused(capsys, "p.csv", "truth.csv")


def test_photos_without_an_answer_count_as_wrong(files, capsys):
    _, truth = files
    table = answers(truth).iloc[:9]
    table["latitude"] = table["latitude"].astype(str)
    for i, text in enumerate(["", "NaN", "None"]):
        table.loc[i, "latitude"] = text
    table.loc[1, "longitude"] = np.nan
    table.loc[3, "latitude"] = "123.4"
    table.to_csv("p.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert accuracy(found, "city") == pytest.approx(5 / 12)
    assert found["errors"][0]["abstained"] == 7
    assert "2 answers with one coordinate only, such as in row 1," in notes(found)
    assert "1 answers off the map" in notes(found)
    assert "such as in row 4, count as unanswered" in notes(found)
    assert "7 of 12 photos are unanswered and count as wrong (3 have no row)" in notes(found)


def test_ids_that_match_no_photo_are_an_error(files, capsys):
    _, truth = files
    table = answers(truth)
    table.loc[4, "photo_id"] = "9999"
    table.to_csv("p.csv", index=False)
    told = refused(capsys, "p.csv", "truth.csv")
    assert "1 of its 12 ids are no photos of the truth: '9999' (row 5)" in told
    assert "--ignore-unmatched" in told
    found = scored(capsys, "p.csv", "truth.csv", "--ignore-unmatched")
    assert accuracy(found, "city") == pytest.approx(11 / 12)
    assert "1 rows of photos that are not in the truth are left out" in notes(found)
    table.assign(photo_id="x").to_csv("p.csv", index=False)
    assert "none of its 12 ids is a photo of the truth" in refused(
        capsys, "p.csv", "truth.csv", "--ignore-unmatched"
    )


def test_two_predictions_for_one_photo_are_an_error(files, capsys):
    _, truth = files
    table = answers(truth)
    pd.concat([table, table.iloc[[2, 2, 5]]]).to_csv("p.csv", index=False)
    told = refused(capsys, "p.csv", "truth.csv")
    assert "several predictions for 2 photos: '1002' (3 times), '1005' (2 times)" in told


@pytest.mark.parametrize(
    "ending",
    [
        "mean,140.0,0.5\n",
        ",,\n",
        "Accuracy @ 25 km: 12 %\n",
        "Average,12\nstd,140.0,0.5\n",
        "all 12 photos,,\n",
        "id,x at 1 km,y at 25 km\n1,0,0\n",
    ],
)
def test_rows_at_the_end_that_sum_up_are_named_and_left_out(files, capsys, ending):
    path, truth = files
    answers(truth).to_csv("p.csv", index=False)
    with (path / "p.csv").open("a") as stream:
        stream.write(ending)
    found = scored(capsys, "p.csv", "truth.csv")
    assert accuracy(found, "city") == 1
    assert "rows at the end that are of no photo are left out: row 13" in notes(found)
    lines = (path / "p.csv").read_text().splitlines()
    (path / "p.csv").write_text(
        "\n".join([lines[0], *lines[13:], *lines[1:13]]) + "\n"
    )  # at the top they are not
    refused(capsys, "p.csv", "truth.csv")


def test_published_results_of_each_photo_come_out_as_printed(files, capsys):
    """The form of GeoEstimation's results: answers and truth in one file, and at its end what they come to."""
    path, _ = files
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "img_id": [f"{rng.integers(10**9)}_{i:010x}_7_{i // 9:08d}@N00.jpg" for i in range(237)],
            "gt_lat": rng.uniform(-60, 60, 237).round(6),
            "predicted_lat": 0.0,
            "gt_long": rng.uniform(-180, 180, 237).round(6),
        }
    )
    away = np.minimum(
        10 ** rng.uniform(-1, 4, 237) / 111.195, 100
    )  # degrees, towards the other side of the equator
    rows["predicted_lat"] = (rows["gt_lat"] - np.sign(rows["gt_lat"]) * away).round(6)
    rows["predicted_long"] = rows["gt_long"]
    km = distance_km(rows["gt_lat"], rows["gt_long"], rows["predicted_lat"], rows["predicted_long"])
    rows["great_circle_distance"] = km.round(2)
    shares = within(km).mean(axis=0)
    printed = ",".join(f"{share:.6f}".rstrip("0") for share in shares)
    rows.to_csv("ours.csv", index=False)
    with (path / "ours.csv").open("a") as stream:
        stream.write(
            "\nstreet acc (1km),city acc (25km),region acc (200km),country acc (750km),continent acc (2500km),"
            f"mean deviation (km)\n{printed},{km.mean():.2f}\n"
        )
    authors = [name.removesuffix(".jpg").partition("_")[2] for name in rows["img_id"]]
    meta = pd.DataFrame(
        {"IMG_ID": rows["img_id"], "AUTHOR": authors, "LAT": rows["gt_lat"], "LON": rows["gt_long"]}
    )
    meta.to_csv("meta.csv", index=False)
    for truth in ("meta.csv", "ours.csv"):
        found = scored(capsys, "ours.csv", truth)
        assert found["photos"] == 237
        assert found["photographers"] == 27  # the owners at the end of AUTHOR, or of the ids
        assert [row["accuracy"] for row in found["accuracy"]] == pytest.approx(shares, abs=1e-9)
        assert found["errors"][0]["mean_km"] == pytest.approx(km.mean())
        assert "left out: row 238 ('street acc (1km)'), row 239 ('0." in notes(found, "ours")
        assert main(["score", "ours.csv", truth]) == 0
        table = capsys.readouterr().out
        assert all(f"{100 * share:.2f} [" in table for share in shares)


def test_answers_at_zero_and_swapped_coordinates_are_noticed(files, capsys):
    _, truth = files
    table = answers(truth)
    table.loc[:2, ["latitude", "longitude"]] = 0
    table.to_csv("p.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert "3 answers are (0, 0)" in notes(found)
    assert found["errors"][0]["answered"] == 12
    swapped = answers(truth).rename(columns={"latitude": "longitude", "longitude": "latitude"})
    swapped.to_csv("p.csv", index=False)
    told = refused(capsys, "p.csv", "truth.csv")
    assert "latitude and longitude look swapped: exchanged, 12 of 12 answers are nearer" in told
    assert "12 are off the map" in told
    near = truth.assign(longitude=truth["longitude"] - 90)  # where both ways are on the map
    near.to_csv("truth.csv", index=False)
    swapped = answers(near).rename(columns={"latitude": "longitude", "longitude": "latitude"})
    swapped.to_csv("p.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert "latitude and longitude look swapped" in notes(found)
    assert accuracy(found, "city") < 1


def test_tables_as_programs_write_them_are_read(files, capsys):
    """With an index without a name, answers in words that have lines, commas and quotes, and Windows' ends of lines."""
    _, truth = files
    words = 'I think, by the "signs":\nParis, 1.5, 2.5, 3\n1001,2,3,4\nsure'
    answers(truth, response=words).to_csv("p.csv", lineterminator="\r\n", encoding="utf-8-sig")
    found = scored(capsys, "p.csv", "truth.csv")
    assert accuracy(found, "city") == 1
    assert notes(found) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(latitude=t["latitude"].astype(str).str.replace(".", ",")), "which is no number; leave it"),
        (lambda t: t.drop(columns="latitude"), "p.csv has no column 'latitude'"),
        (lambda t: t.assign(lat=1.0, LAT=2.0).drop(columns="latitude"), "has the columns lat, LAT for latitude"),
        (lambda t: t.iloc[:0], "p.csv has no predictions"),
        (lambda t: t.assign(alternatives="[1, 2]"), "alternatives in row 1 must be [[latitude, longitude], ...]"),
        (lambda t: t.assign(alternatives="[[91, 2]]"), "alternatives in row 1 must be [[latitude, longitude], ...]"),
        (lambda t: t.assign(log_probability=0.5), "log_probability must be at most 0, got 0.5"),
        (lambda t: t.assign(confidence="high"), "row 1 has the confidence 'high', which is no number"),
    ],
)  # fmt: skip
def test_bad_predictions_are_one_line(files, capsys, change, message):
    _, truth = files
    change(answers(truth)).to_csv("p.csv", index=False)
    assert message in refused(capsys, "p.csv", "truth.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(photo_id="1"), "truth.csv: row 2 has the photo_id of another ('1')"),
        (lambda t: t.assign(latitude=None), "row 1 has the place (None, "),
        (lambda t: t.assign(latitude=t["longitude"], longitude=t["latitude"]), "latitude and longitude look swapped"),
        (lambda t: t.iloc[:0], "truth.csv has no photos"),
        (lambda t: t.drop(columns="longitude"), "say which one with --truth-column longitude=NAME"),
    ],
)  # fmt: skip
def test_a_truth_that_is_none_is_one_line(files, capsys, change, message):
    _, truth = files
    answers(truth).to_csv("p.csv", index=False)
    change(truth).to_csv("truth.csv", index=False)
    assert message in refused(capsys, "p.csv", "truth.csv")


def test_files_that_are_no_tables_are_one_line(files, capsys):
    path, truth = files
    answers(truth).to_csv("p.csv", index=False)
    assert "none.csv is missing" in refused(capsys, "none.csv", "truth.csv")
    (path / "folder.csv").mkdir()
    assert "folder.csv is a folder, not a file" in refused(capsys, "p.csv", "folder.csv")
    (path / "p.json").write_text("{}")
    assert "p.json must end in .parquet, .csv or .tsv" in refused(capsys, "p.json", "truth.csv")
    (path / "p.parquet").write_bytes(b"PAR1 no more")
    assert "p.parquet cannot be read" in refused(capsys, "p.parquet", "truth.csv")
    whole = gzip.compress((path / "p.csv").read_bytes())
    (path / "p.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "p.csv.gz cannot be read" in refused(capsys, "p.csv.gz", "truth.csv")
    assert main(["score", "p.csv", "truth.csv", "--report", "p.csv"]) == 2
    assert "--report must name a folder" in capsys.readouterr().err


def test_files_are_paired_by_photo_and_compared_with_the_first(files, capsys):
    _, truth = files
    answers(truth, 0.1).to_csv("good.csv", index=False)
    mixed = answers(truth, np.where(np.arange(12) % 3 == 0, 30.0, 0.1))
    mixed.iloc[::-1].to_csv("mixed.csv", index=False)
    found = scored(capsys, "good.csv", "worse=mixed.csv", "truth.csv")
    assert found["methods"] == ["good", "worse"]
    rows = {row["level"]: row for row in found["differences"]}
    assert {(row["method"], row["other"]) for row in found["differences"]} == {("worse", "good")}
    right = np.where(np.arange(12) % 3 == 0, 0.0, 1.0) - 1
    expected = differences(right[:, None], photographer_clusters(truth["photographer"]))
    low, high = expected.interval()
    city = rows["city"]
    assert city["difference"] == pytest.approx(-4 / 12)
    assert (city["low"], city["high"]) == pytest.approx((low[0], high[0]))
    assert "two files are called 'good'" in refused(capsys, "good.csv", "good=mixed.csv", "truth.csv")
    told = refused(capsys, "random reference=good.csv", "truth.csv")
    assert "'random reference' is a baseline; call the file something else: NAME=FILE" in told
    odd = answers(truth).rename(columns={"latitude": "north"})
    odd.to_csv("other.csv", index=False)
    found = scored(
        capsys, "truth=other.csv", "references=mixed.csv", "truth.csv", "--column", "latitude=north"
    )
    assert found["methods"] == ["truth", "references"]


def test_one_file_may_hold_several_methods(files, capsys):
    """As GeoEstimation writes them: a row for each photo and partition."""
    _, truth = files
    rows = [answers(truth, d).assign(p_key=name) for name, d in (("coarse", 1.0), ("fine", 0.1))]
    pd.concat(rows).to_csv("p.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert found["methods"] == ["coarse", "fine"]
    assert [accuracy(found, "city", name) for name in found["methods"]] == [0, 1]


def test_intervals_are_by_the_photographers_that_the_truth_names(files, capsys):
    _, truth = files
    answers(truth).to_csv("p.csv", index=False)
    truth.rename(columns={"photographer": "who"}).to_csv("truth.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv")
    assert found["photographers"] == 12
    assert "no column of photographers: each photo counts for itself" in notes(found, "")
    assert scored(capsys, "p.csv", "truth.csv", "--photographer", "who")["photographers"] == 4
    assert "--truth-column photographer=whom: no table has that column; there are" in refused(
        capsys, "p.csv", "truth.csv", "--photographer", "whom"
    )
    truth.rename(columns={"photographer": "AUTHOR"}).to_csv("truth.csv", index=False)
    assert scored(capsys, "p.csv", "truth.csv")["photographers"] == 4


def test_references_give_baselines_and_are_checked_for_leaks(files, capsys):
    _, truth = files
    answers(truth).to_csv("p.csv", index=False)
    known = truth.assign(photo_id=[f"r{i}" for i in range(12)], photographer="someone")
    known.to_csv("known.csv", index=False)
    found = scored(capsys, "p.csv", "truth.csv", "--references", "known.csv")
    places = known[["latitude", "longitude"]].to_numpy()
    away = np.concatenate([distance_km(*place, truth["latitude"], truth["longitude"]) for place in places])
    share = {level: np.mean(away <= km) for level, km in LEVELS_KM.items()}
    for row in found["baselines"]:
        if row["baseline"] == "random reference":
            assert row["accuracy"] == pytest.approx(share[row["level"]])
    assert found["notes"][""] == []
    truth.to_csv("known.csv", index=False)
    told = notes(scored(capsys, "p.csv", "truth.csv", "--references", "known.csv"), "")
    assert "12 photos are among the references too" in told
    assert "4 photographers are among the references too" in told
    assert "no references were given" in notes(scored(capsys, "p.csv", "truth.csv"), "")


def test_the_report_is_the_page_of_a_build(files, capsys):
    path, truth = files
    best = [
        json.dumps([[float(a), float(b), 0.9], [0, 0, 0.1]])
        for a, b in truth[["latitude", "longitude"]].to_numpy()
    ]
    table = answers(truth, 1.0, confidence=0.5, alternatives=best, log_probability=-1.0)
    table.to_csv("p.csv", index=False)
    assert main(["score", "p.csv", "truth.csv", "--report", "made"]) == 0
    printed = capsys.readouterr().out
    assert "report: made/report.html" in printed
    blocks = printed.split("\n\n")
    scores = next(block.splitlines() for block in blocks if "NLL, nats" in block)
    assert all(
        len(line) == len(scores[0]) for line in scores
    )  # a table, and no text that Markdown takes for a row
    page = (path / "made/report.html").read_text()
    for text in (
        "truth.csv",
        "GeoScore",
        "right country",
        "NLL",
        "Error maps",
        "Accuracy by country",
        "Top k",
    ):
        assert text in page
    numbers = json.loads((path / "made/report.json").read_text())
    top = pd.DataFrame(numbers["diagnostics"]["top k"]).set_index("k")["city"]
    assert top.loc[1] == 0  # the answer itself, which comes before the alternatives
    assert top.loc[2] == 100
    assert value({"scores": numbers["evaluation"]["scores"]}, "NLL") == 1
    assert (path / "made/tables/scores.csv").is_file()


def test_the_library_scores_data_frames_in_ten_lines():
    """As docs/scores.md shows it, with a model that always answers Paris."""
    truth = pd.DataFrame(
        {
            "photo_id": ["a", "b"],
            "latitude": [48.85, 52.52],
            "longitude": [2.35, 13.40],
            "photographer": ["x", "y"],
        }
    )
    rows = [
        {"photo_id": photo.photo_id, "latitude": 48.8566, "longitude": 2.3522, "confidence": 0.9}
        for photo in truth.itertuples()
    ]
    result = score({"always Paris": pd.DataFrame(rows)}, truth)
    assert result.table().loc["always Paris", ["city", "right country"]].tolist() == [50, 50]
    assert "always Paris" in str(result)
    errors = distance_km(truth["latitude"], truth["longitude"], 48.8566, 2.3522)
    hits = within(errors).mean(axis=0)
    assert result.evaluation.accuracy["accuracy"].tolist() == pytest.approx(hits.tolist())
