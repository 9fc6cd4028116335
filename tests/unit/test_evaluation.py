"""Accuracy, baselines and the whole evaluation, against loops written out and answers known beforehand."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.evaluation.evaluate import LEAVE_PHOTOGRAPHER_OUT_PROTOCOL, evaluate
from geoloc.evaluation.measures.accuracy import accuracy, accuracy_curve, error_km, summarise_errors, within
from geoloc.evaluation.measures.baselines import best_constant, densest_cell, random_reference, share_within
from geoloc.evaluation.result import TABLES, Evaluation
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.sphere import LEVELS_KM, destination, distance_km

FAST = EvaluationSettings(resamples=200, curve_points=11)


@dataclass(frozen=True)
class FakeAnswers:
    latitude: np.ndarray
    longitude: np.ndarray
    confidence: np.ndarray


def answers(latitude, longitude) -> FakeAnswers:
    return FakeAnswers(
        np.asarray(latitude, float), np.asarray(longitude, float), np.full(len(latitude), 0.5, np.float32)
    )


class FakePartition:
    """Two cells: west (3 photos, centroid 10, -20) and east (7 photos, centroid 40, 30; centre 41, 31)."""

    kind = "halves"

    def centroids(self):
        return np.array([[10.0, -20.0], [40.0, 30.0]])

    def photo_counts(self):
        return np.array([3, 7])

    def ceiling(self, latitude, longitude, levels_km=LEVELS_KM, answer="centroid"):
        points = self.centroids() + (0.0 if answer == "centroid" else 1.0)
        own = points[(np.asarray(longitude) >= 0).astype(int)]
        d = distance_km(latitude, longitude, own[:, 0], own[:, 1])
        return {level: float((d <= km).mean()) for level, km in levels_km.items()}


def world(n: int, seed: int, photographers: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "photo_id": [f"q{seed}-{i}" for i in range(n)],
            "latitude": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
            "longitude": rng.uniform(-180, 180, n),
            "photographer": [f"p{i}" for i in rng.integers(0, photographers, n)],
        }
    )


def test_a_photo_exactly_at_the_level_is_within_it_and_one_beyond_is_not():
    lat, lon = destination(48.0, 11.0, 90.0, 25.0)
    error = error_km([48.0], [11.0], [lat], [lon])
    exact = float(error[0])
    assert exact == pytest.approx(25.0, abs=1e-9)
    assert within(error, {"at": exact})[0, 0]
    assert not within(error, {"below": np.nextafter(exact, 0)})[0, 0]
    assert accuracy_curve(error, [np.nextafter(exact, 0), exact]).tolist() == [0.0, 1.0]


def test_abstained_and_unreadable_stay_in_the_denominator():
    nan = np.nan
    error = error_km(
        [0, 0, 0, 0], [0, 0, 0, 0], [0, nan, 0, 1], [0, nan, 0, 0], readable=[True, True, False, True]
    )
    assert error[:3].tolist() == [0.0, np.inf, np.inf]
    assert accuracy(error, {"street": 1.0, "all": 30_000.0}).tolist() == [0.25, 0.5]
    summary = summarise_errors(error, [True, True, False, True])
    assert (summary.answered, summary.abstained, summary.unreadable) == (2, 1, 1)
    one_degree = float(distance_km(0, 0, 1, 0))
    assert summary.mean_km == pytest.approx(one_degree / 2)
    assert summary.median_answered_km == pytest.approx(one_degree / 2)
    assert summary.median_km == np.inf  # half of the queries have no answer


@pytest.mark.parametrize("answer", [(np.nan, 5.0), (5.0, np.nan), (91.0, 0.0), (0.0, 181.0), (np.inf, 0.0)])
def test_an_answer_that_is_no_place_is_an_error(answer):
    with pytest.raises(ValueError, match="answer 1 is not a place"):
        error_km([0, 0], [0, 0], [1.0, answer[0]], [1.0, answer[1]])


@given(
    st.lists(st.one_of(st.floats(0, 20_016), st.just(np.inf)), min_size=1, max_size=40),
    st.lists(st.floats(0.01, 20_016), min_size=1, max_size=10),
)
def test_curve_counts_as_a_loop_does_and_never_falls(errors, distances):
    distances = sorted(distances)
    curve = accuracy_curve(errors, distances)
    assert curve.tolist() == [sum(e <= km for e in errors) / len(errors) for km in distances]
    assert (np.diff(curve) >= 0).all()


def test_share_within_is_the_share_of_a_loop_over_distances():
    points, references = world(40, 1), world(60, 2)
    references.loc[0, ["latitude", "longitude"]] = points.loc[0, ["latitude", "longitude"]]  # distance 0
    levels = {"tiny": 0.001, "near": 1500.0, "far": 9000.0, "everywhere": 20_100.0}
    own = (np.arange(40) % 3, np.arange(60) % 4)
    for clusters in (None, own):
        got = share_within(
            points["latitude"],
            points["longitude"],
            references["latitude"],
            references["longitude"],
            levels,
            clusters,
        )
        for i, p in points.iterrows():
            kept = references if clusters is None else references[own[1] != own[0][i]]
            d = distance_km(p["latitude"], p["longitude"], kept["latitude"], kept["longitude"])
            assert got[i] == pytest.approx([(d <= km).mean() for km in levels.values()])
    assert got[:, -1].tolist() == [1.0] * 40


def test_best_constant_is_the_best_of_all_reference_places_and_knows_no_query():
    references, queries = world(80, 3), world(30, 4)
    references.loc[40:, "latitude"] = references["latitude"][40:] / 20 + 50  # a crowd to be found
    references.loc[40:, "longitude"] = references["longitude"][40:] / 20 + 178  # across the antimeridian
    references["longitude"] = (references["longitude"] + 180) % 360 - 180
    baseline = best_constant(
        references["latitude"], references["longitude"], queries["latitude"], queries["longitude"], seed=0
    )
    table = distance_km(
        references["latitude"].to_numpy()[:, None],
        references["longitude"].to_numpy()[:, None],
        references["latitude"].to_numpy()[None, :],
        references["longitude"].to_numpy()[None, :],
    )
    for i, km in enumerate(LEVELS_KM.values()):
        best = (table <= km).sum(axis=1).max()
        here = distance_km(
            baseline.latitude[i], baseline.longitude[i], references["latitude"], references["longitude"]
        )
        assert (here <= km).sum() == best
        away = distance_km(
            baseline.latitude[i], baseline.longitude[i], queries["latitude"], queries["longitude"]
        )
        assert baseline.hits[:, i].tolist() == (away <= km).astype(float).tolist()


def test_sampled_candidates_follow_the_seed():
    r, q = world(300, 5), world(5, 6)
    args = (r["latitude"], r["longitude"], q["latitude"], q["longitude"])

    def chosen(seed):
        return best_constant(*args, seed=seed, max_candidates=10, max_references=100).latitude.tolist()

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_densest_cell_answers_the_centroid_of_the_cell_with_most_photos():
    baseline = densest_cell(FakePartition(), [40.0, 10.0], [30.0, -20.0])
    assert (baseline.latitude[0], baseline.longitude[0]) == (40.0, 30.0)
    assert baseline.hits.tolist() == [[1.0] * 5, [0.0] * 5]


def test_random_reference_is_what_drawing_many_references_gives():
    r, q = world(50, 7), world(20, 8)
    levels = {"near": 3000.0, "far": 9000.0}
    args = (r["latitude"], r["longitude"], q["latitude"], q["longitude"])
    expected = random_reference(*args, levels, seed=0).hits.mean(axis=0)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 50, (20_000, 20))
    d = distance_km(
        q["latitude"].to_numpy()[None], q["longitude"].to_numpy()[None],
        r["latitude"].to_numpy()[picks], r["longitude"].to_numpy()[picks],
    )  # fmt: skip
    drawn = [(d <= km).mean() for km in levels.values()]
    assert expected == pytest.approx(drawn, abs=0.005)


@pytest.fixture(scope="module")
def queries() -> pd.DataFrame:
    frame = world(60, 9)
    frame.loc[frame.index[:3], "photographer"] = None
    return frame


@pytest.fixture(scope="module")
def evaluation(queries) -> Evaluation:
    lat, lon = queries["latitude"].to_numpy(), queries["longitude"].to_numpy()
    near = destination(lat, lon, 45.0, np.where(np.arange(60) % 2 == 0, 0.5, 500.0))
    near[0][:4] = near[1][:4] = np.nan
    far = destination(lat, lon, 45.0, 5000.0)
    return evaluate(
        {"[L]NN": answers(*near), "[L]kNN σ=4": answers(*far)},
        queries,
        world(100, 10),
        {"halves": FakePartition()},
        FAST,
        seed=3,
        unreadable=[queries["photo_id"][5]],
        descriptions={"[L]NN": "nearest neighbour"},
    )


def test_accuracy_counts_every_query(evaluation):
    table = evaluation.accuracy.set_index(["method", "level"])
    # Of 60: the even ones are right, less 0 and 2 that abstained; 5, an odd one, is unreadable.
    assert table.loc[("[L]NN", "street"), "accuracy"] == pytest.approx(28 / 60)
    assert table.loc[("[L]NN", "country"), "accuracy"] == pytest.approx(55 / 60)
    assert (table["n"] == 60).all()
    inside = evaluation.accuracy
    assert ((inside["low"] <= inside["accuracy"]) & (inside["accuracy"] <= inside["high"])).all()
    assert list(inside["level"][:5]) == list(LEVELS_KM)
    errors = evaluation.errors.set_index("method").loc["[L]NN"]
    assert (errors["answered"], errors["abstained"], errors["unreadable"]) == (55, 4, 1)
    assert errors["mean_km"] == pytest.approx((28 * 0.5 + 27 * 500) / 55)
    assert errors["median_km"] == pytest.approx(500.0)
    assert errors["median_answered_km"] == pytest.approx(0.5)


def test_photographers_counts_each_unknown_as_one(evaluation, queries):
    assert evaluation.query_photographers == queries["photographer"].nunique() + 3


def test_per_photo_says_what_became_of_each_answer(evaluation, queries):
    own = evaluation.per_photo[evaluation.per_photo["method"] == "[L]NN"].reset_index(drop=True)
    assert own["photo_id"].tolist() == queries["photo_id"].tolist()
    assert own["status"].tolist()[:6] == ["abstained"] * 4 + ["answered", "unreadable"]
    assert own["error_km"].isna().sum() == 5
    assert own["latitude"].isna().tolist() == own["error_km"].isna().tolist()


def test_ceilings_and_curve_are_the_partitions(evaluation, queries):
    ceilings = evaluation.ceilings.set_index(["answer", "level"])["accuracy"]
    truth = (queries["latitude"].to_numpy(), queries["longitude"].to_numpy())
    for answer in ("centroid", "centre"):
        expected = FakePartition().ceiling(*truth, answer=answer)
        assert {level: ceilings[(answer, level)] for level in LEVELS_KM} == pytest.approx(expected)
    assert evaluation.curve.groupby(["kind", "name"]).size().to_dict() == {
        ("method", "[L]NN"): 11,
        ("method", "[L]kNN σ=4"): 11,
        ("baseline", "densest cell"): 11,
        ("ceiling", "ceiling of halves"): 11,
    }


def test_comparisons_are_differences_of_the_accuracies(evaluation):
    share = {
        (name, level): value
        for frame, column in ((evaluation.accuracy, "method"), (evaluation.baselines, "baseline"))
        for name, level, value in zip(frame[column], frame["level"], frame["accuracy"], strict=True)
    }
    for row in evaluation.comparisons.itertuples():
        assert row.difference == pytest.approx(share[row.method, row.level] - share[row.other, row.level])
        # The p-value says what the interval says; the verdict is corrected for the number asked.
        assert (row.p <= 0.05) == (row.low > 0 or row.high < 0)
        assert row.p <= row.p_corrected <= min(1, row.p * row.asked) + 1e-9
        side = "better" if row.difference > 0 else "worse"
        assert row.verdict == (side if row.p_corrected <= 0.05 else "undecided")
    with_baselines = evaluation.comparisons["other"].isin(evaluation.baselines["baseline"])
    for family in (with_baselines, ~with_baselines):
        assert (evaluation.comparisons.loc[family, "asked"] == family.sum()).all()
    pairs = set(zip(evaluation.comparisons["method"], evaluation.comparisons["other"], strict=True))
    assert ("[L]NN", "[L]kNN σ=4") in pairs
    assert {other for _, other in pairs} == {
        "[L]kNN σ=4", "densest cell", "best constant point", "random reference",
    }  # fmt: skip


def test_saved_and_loaded_is_equal_and_saves_to_the_same_bytes(evaluation, tmp_path):
    evaluation.save(tmp_path / "a")
    loaded = Evaluation.load(tmp_path / "a")
    # The report writes its columns in this order, and the JSON file has its keys sorted.
    assert list(loaded.levels_km) == ["street", "city", "region", "country", "continent"]
    loaded.save(tmp_path / "b")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "evaluation.json", "per_photo.parquet", *(f"{name}.csv" for name in TABLES),
    }  # fmt: skip
    for name in [*TABLES, "per_photo"]:
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(evaluation, name))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    assert loaded.to_dict() == evaluation.to_dict()
    assert pd.read_csv(tmp_path / "a" / "accuracy.csv")["accuracy"].tolist() == pytest.approx(
        evaluation.accuracy["accuracy"].tolist()
    )


def test_infinite_and_absent_numbers_survive_json(queries, tmp_path):
    nothing = answers(np.full(60, np.nan), np.full(60, np.nan))
    made = evaluate({"mute": nothing}, queries, None, None, FAST, seed=0)
    text = json.dumps(made.to_dict(), allow_nan=False)
    assert json.loads(text)["errors"][0]["median_km"] == "inf"
    assert json.loads(text)["errors"][0]["mean_km"] is None
    made.save(tmp_path)
    row = Evaluation.load(tmp_path).errors.iloc[0]
    assert row["median_km"] == np.inf
    assert np.isnan(row["mean_km"])
    assert made.accuracy["accuracy"].tolist() == [0.0] * 5
    assert len(made.baselines) == 0


def test_leave_photographer_out_random_reference_meets_no_own_photo():
    frame = world(12, 11, photographers=3)
    frame["latitude"], frame["longitude"] = (
        0.0,
        frame["photographer"].map({"p0": 0.0, "p1": 60.0, "p2": 120.0}),
    )
    frame.loc[0, "photographer"] = None  # alone: it must not meet itself, and stands where p? stands
    nothing = answers(np.full(12, np.nan), np.full(12, np.nan))
    made = evaluate(
        {"mute": nothing}, frame, frame, None, FAST, seed=0,
        protocol=LEAVE_PHOTOGRAPHER_OUT_PROTOCOL, leave_photographer_out=True,
    )  # fmt: skip
    row = made.baselines[(made.baselines["baseline"] == "random reference")].set_index("level").loc["street"]
    expected = []
    for i, q in frame.iterrows():
        same = (
            (frame["photographer"] == q["photographer"])
            if isinstance(q["photographer"], str)
            else frame.index == i
        )
        others = frame[~same]
        expected.append((others["longitude"] == q["longitude"]).mean())
    assert row["accuracy"] == pytest.approx(np.mean(expected))
    assert 0 < np.mean(expected) < 0.2
    assert made.protocol == "each photo against all photos by other photographers"
    # Where all at one place are near-duplicates of each other as well, nothing stands where the query does.
    copies = frame.assign(near_duplicates=[*frame["longitude"].astype(str)[:-1], None])
    made = evaluate({"mute": nothing}, copies, copies, None, FAST, seed=0, leave_photographer_out=True)
    shares = made.baselines.query("baseline == 'random reference' and level == 'street'")["accuracy"].item()
    by_hand = []
    for i, q in copies.iterrows():
        same = (copies["photographer"] == q["photographer"]) | (
            copies["near_duplicates"] == q["near_duplicates"]
        )
        others = copies[~(same.to_numpy() | (copies.index == i))]
        by_hand.append((others["longitude"] == q["longitude"]).mean() if len(others) else 0.0)
    assert shares == pytest.approx(np.mean(by_hand))
    assert np.mean(by_hand) < np.mean(expected)


def test_one_photographer_has_no_interval():
    frame = world(10, 12, photographers=1)
    made = evaluate(
        {"exact": answers(frame["latitude"], frame["longitude"])}, frame, None, None, FAST, seed=0
    )
    assert made.accuracy["accuracy"].tolist() == [1.0] * 5
    assert made.accuracy[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: {"queries": q.iloc[:0]}, "at least one photo"),
        (lambda q: {"queries": pd.concat([q, q.iloc[:1]])}, "unique photo_ids"),
        (lambda q: {"answers_by_method": {}}, "at least one method"),
        (lambda q: {"answers_by_method": {"[L]NN": answers([1.0], [1.0])}}, r"\[L\]NN: 1 answers for 6"),
        (lambda q: {"unreadable": ["nobody"]}, "nobody"),
        (lambda q: {"queries": q.assign(latitude=np.nan)}, "queries must have finite coordinates"),
        (
            lambda q: {"settings": EvaluationSettings(compare_with="x")},
            "evaluation.compare_with must be one of",
        ),
    ],
)
def test_wrong_input_is_refused_by_name(change, message):
    frame = world(6, 13)
    good = {
        "answers_by_method": {"m": answers(frame["latitude"], frame["longitude"])},
        "queries": frame,
        "settings": FAST,
        "seed": 0,
    }
    with pytest.raises(ValueError, match=message):
        evaluate(**(good | change(frame)))
