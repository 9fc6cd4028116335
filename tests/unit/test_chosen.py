"""What is chosen on validation photos, and the answers by it, against loops written from the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geoloc.files import DamagedFile
from geoloc.localizers.chosen.cells import (
    PRIOR,
    CellSearch,
    cell_votes,
    experts,
    share_of_cells,
)
from geoloc.localizers.chosen.choice import (
    CELLS,
    PRODUCT,
    Choice,
    Evidence,
    choose,
    default_choice,
    load_choices,
    save_choices,
)
from geoloc.localizers.chosen.neighbourhood import Neighbourhood
from geoloc.localizers.confidence.scaling import ScoreScaling
from geoloc.localizers.settings import LocalizerSettings
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.settings import SettingsError, parse
from geoloc.sphere import EARTH_RADIUS_KM, LEVELS_KM, distance_km
from tests.unit.indexed import clustered, true_nearest
from tests.unit.localizer_world import photos, probabilities

SETTINGS = {
    "sigmas": [1, 4, 16],
    "neighbours": {
        "methods": ["levels", "product", "cells"],
        "ks": [3, 12],
        "sigmas": [0.2, 3, 20],
        "weights": [0.5, 2],
        "cells": [1, 2],
    },
}


@pytest.fixture(scope="module")
def world():
    """300 references and 40 queries in towns; the references' vectors know a little of where they are."""
    lat, lon = photos(340, seed=4)
    embeddings, rows = clustered(340, dimension=12, seed=1)
    rows["latitude"], rows["longitude"] = lat, lon
    partition = S2Partition(S2Settings(max_photos=40, min_photos=1, max_level=8)).fit(lat[:300], lon[:300])
    index = ReferenceIndex.build(embeddings, rows.iloc[:300])
    asked = rows.iloc[300:].reset_index(drop=True)
    p = probabilities(40, partition.cell_count, seed=3)
    return index, partition, embeddings.vectors[300:], asked, p


@pytest.fixture(scope="module")
def evidence(world) -> Evidence:
    index, partition, vectors, _, p = world
    return Neighbourhood.over(index, partition).evidence(vectors, 12, p, (1, 2))


def answer_by_loops(choice, neighbours, log_class, q):
    """The answer of one photo, from equation 1 and the power of the cell's probability."""
    best, top = None, -1.0
    near = [
        (float(a), float(b), (1 / math.sqrt(max(2 - 2 * float(s), 1e-6))) ** choice.m)
        for a, b, s in zip(
            neighbours.latitude[q, : choice.k],
            neighbours.longitude[q, : choice.k],
            neighbours.similarity[q, : choice.k],
            strict=True,
        )
        if not math.isnan(a)
    ]
    for i, (lat, lon, _) in enumerate(near):
        value = sum(
            w
            * math.exp(
                -0.5 * (math.degrees(distance_km(lat, lon, a, b) / EARTH_RADIUS_KM) / choice.sigma) ** 2
            )
            for a, b, w in near
        )
        value *= math.exp(choice.weight * log_class[q, i]) if choice.way == PRODUCT else 1
        if value > top * (1 + 1e-9):
            best, top = (lat, lon), value
    return best


def test_the_best_trial_at_each_level_is_chosen(world, evidence):
    asked = world[3]
    settings = parse(LocalizerSettings, SETTINGS, "localizers")
    chosen, trials = choose(evidence, asked["latitude"], asked["longitude"], settings)
    assert len(trials) == 2 * 3 * (1 + 2 + 2)
    truth = asked["latitude"].to_numpy(), asked["longitude"].to_numpy()
    right = {}
    for row in trials.itertuples():
        choice = Choice(row.way, None, row.k, settings.m, row.sigma, row.weight, row.cells)
        found = [
            answer_by_loops(choice, evidence.of(choice), evidence.log_class, q) for q in range(len(asked))
        ]
        error = distance_km(*truth, *np.array(found).T)
        right[row.Index] = [(error <= km).mean() for km in LEVELS_KM.values()]
        assert [getattr(row, level) for level in LEVELS_KM] == pytest.approx(right[row.Index])
    assert [(one.way, one.level) for one in chosen[:6]] == [("alone", level) for level in (None, *LEVELS_KM)]
    alone = [i for i in right if trials["way"][i] == "alone"]
    assert chosen[0].accuracy == pytest.approx(max(np.mean(right[i]) for i in alone))
    for level, one in enumerate(chosen[1:6]):
        assert one.accuracy == pytest.approx(max(right[i][level] for i in alone))
    assert chosen[6].way != "alone"
    assert chosen[6].accuracy == pytest.approx(max(np.mean(right[i]) for i in right if i not in alone))
    assert {one.photos for one in chosen} == {40}


@pytest.mark.parametrize("way", [PRODUCT, CELLS])
def test_answers_and_confidences_are_those_of_the_formulas(way, world, evidence):
    choice = Choice(
        way, None, 10, 10.0, 2.0, weight=1.5 if way == PRODUCT else 0.0, cells=2 if way == CELLS else 0
    )
    answers = choice.answer(evidence)
    found = evidence.of(choice)
    for q in range(len(answers)):
        expected = answer_by_loops(choice, found, evidence.log_class, q)
        assert (answers.latitude[q], answers.longitude[q]) == pytest.approx(expected)
        weights = (2 - 2 * found.similarity[q, :10].astype(float)) ** -5
        if way == PRODUCT:
            weights *= np.exp(1.5 * evidence.log_class[q, :10])
        near = distance_km(*expected, found.latitude[q, :10], found.longitude[q, :10]) <= 200
        share = np.nansum(weights * near) / np.nansum(weights)
        assert answers.confidence[q] == pytest.approx(share, rel=1e-4)
    assert (np.diff(np.nan_to_num(answers.alternatives.weight), axis=1) <= 1e-7).all()
    modes = choice.modes(evidence)
    np.testing.assert_allclose(modes.mass.sum(axis=1), 1, atol=1e-9)


def test_a_search_within_cells_finds_the_nearest_there(world):
    index, partition, vectors, _, p = world
    cells = partition.assign(index.references["latitude"], index.references["longitude"])
    # A cell without references is never searched, however probable.
    p = np.concatenate([p / 2, np.full((len(p), 1), 0.5)], axis=1)
    found = CellSearch(index, cells, partition.cell_count + 1).search(vectors, p, (1, 3), 8)
    everything, _ = clustered(340, dimension=12, seed=1)
    stored = everything.vectors[:300]
    order = np.argsort(-p[:, :-1], axis=1, kind="stable")
    for n in (1, 3):
        within = np.stack([np.isin(cells, row[:n]) for row in order])
        rows = index.references
        wanted = true_nearest(vectors, stored, rows, 8, left=within)
        ids = found[n].photo_ids()
        for q in range(len(vectors)):
            most = min(8, int(within[q].sum()))
            assert ids[q, :most].tolist() == wanted[q, :most].tolist()
            assert (found[n].row[q, most:] == -1).all()


def test_only_references_that_may_be_found_are_evidence(world):
    index, partition, vectors, _, p = world
    allowed = np.arange(len(index)) % 3 == 0
    found = Neighbourhood.over(index, partition, allowed).evidence(vectors, 20, p, (2,))
    for neighbours in (found.neighbours, found.within[2]):
        assert allowed[neighbours.row[neighbours.row >= 0]].all()
    assert (found.neighbours.row >= 0).all()


def test_photos_without_any_embedding_are_no_evidence_and_have_no_answer(world):
    index, partition, vectors, _, p = world
    found = Neighbourhood.over(index, partition).evidence(vectors[:0], 12, p[:0], (1, 2))
    for choice in (Choice(k=5), Choice(PRODUCT, k=5, weight=1.0), Choice(CELLS, k=5, cells=2)):
        assert choice.answer(found).spread([], 3).abstained.all()


def test_votes_of_cells_and_their_product_with_a_classifier():
    cell = np.array([[0, 2, 2, -1], [-1, -1, -1, -1], [1, 1, 1, 1]])
    similarity = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6], [np.nan] * 4], dtype=np.float32)
    prior = share_of_cells(np.array([0, 0, 1, -1, 2]), 3)
    assert prior.tolist() == pytest.approx([3 / 7, 2 / 7, 2 / 7])
    votes = cell_votes(cell, similarity, prior, 3, 4.0)
    w = (2 - 2 * similarity[0, :3].astype(float)) ** -2
    by_hand = (1 - PRIOR) * np.array([w[0], 0, w[1] + w[2]]) / w.sum() + PRIOR * prior
    np.testing.assert_allclose(votes[0], by_hand, rtol=1e-5)
    np.testing.assert_allclose(votes[1], prior, rtol=1e-6)  # neighbours in no cell
    assert np.isnan(votes[2]).all()  # no neighbour at all
    p = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])
    made = experts(p, votes, 2.0)
    np.testing.assert_allclose(made[0], p[0] ** 2 * by_hand / (p[0] ** 2 * by_hand).sum(), rtol=1e-5)
    assert np.isnan(made[2]).all()
    assert made[:2].sum(axis=1) == pytest.approx(1)


def test_scaling_finds_the_line_that_made_the_truth_and_never_turns_it_round():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, 40_000)
    odds = 0.6 * np.log(scores / (1 - scores)) - 1.2
    right = rng.random(len(scores)) < 1 / (1 + np.exp(-odds))
    made = ScoreScaling().fit(scores, right)
    assert (made.slope, made.offset) == (pytest.approx(0.6, abs=0.04), pytest.approx(-1.2, abs=0.04))
    assert made.predict([0.5, np.nan])[0] == pytest.approx(1 / (1 + math.exp(-made.offset)))
    assert np.isnan(made.predict([np.nan])).all()
    turned = ScoreScaling().fit(scores, ~right & (scores < 0.5))
    assert turned.slope == 0
    assert turned.predict([0.1])[0] == turned.predict([0.9])[0]
    sure = ScoreScaling().fit([0.2, 0.3, 0.8, 0.9], [False, False, True, True])
    assert 0.1 < sure.predict(0.2) < sure.predict(0.9) < 0.9  # four photos prove little
    assert ScoreScaling.from_dict(sure.to_dict()).predict(0.7) == sure.predict(0.7)
    with pytest.raises(ValueError, match="a score and a truth for each photo"):
        ScoreScaling().fit([], [])
    with pytest.raises(ValueError, match="from 0 to 1"):
        made.predict([1.2])
    with pytest.raises(ValueError, match="not fitted yet"):
        ScoreScaling().predict([0.5])


def test_confidences_are_scaled_on_other_photos_than_those_chosen_on(world, evidence):
    asked = world[3]
    choice = Choice(level="continent", k=12, sigma=4.0)
    scaled = choice.scaled_on(evidence, asked["latitude"], asked["longitude"])
    raw, after = choice.answer(evidence), scaled.answer(evidence)
    right = distance_km(asked["latitude"], asked["longitude"], raw.latitude, raw.longitude) <= 2500
    assert after.confidence.mean() == pytest.approx(right.mean(), abs=0.04)
    np.testing.assert_array_equal(raw.latitude, after.latitude)
    order = np.argsort(raw.confidence, kind="stable")
    assert (np.diff(after.confidence[order]) >= -1e-6).all()


def test_choices_are_read_as_they_were_written(tmp_path, evidence, world):
    asked = world[3]
    chosen, _ = choose(
        evidence, asked["latitude"], asked["longitude"], parse(LocalizerSettings, SETTINGS, "localizers")
    )
    chosen = [chosen[0].scaled_on(evidence, asked["latitude"], asked["longitude"]), *chosen[1:]]
    save_choices(tmp_path / "c.json", chosen)
    again = load_choices(tmp_path / "c.json")
    assert again[1:] == chosen[1:]
    assert again[0].answer(evidence).confidence.tobytes() == chosen[0].answer(evidence).confidence.tobytes()
    for text in ("{}", '[{"way": "alone"}]', '[{"k": 3, "scaling": {"slope": 1}}]', "nothing"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(DamagedFile):
            load_choices(tmp_path / "c.json")


def test_names_are_the_fields():
    assert Choice().name("L") == "[L]kNN"
    assert Choice(level="city").name("R") == "[R]kNN for 25 km"
    assert Choice(PRODUCT).name("L", "[L]70C") == "[L]70C+kNN"
    assert Choice(CELLS).name("R", "[L]70C") == "[L]70C+[R]kNN"
    default = default_choice(parse(LocalizerSettings, SETTINGS, "localizers"), PRODUCT)
    assert (default.k, default.sigma, default.weight) == (100, 4.0, 1.0)
    assert "not chosen" in default.describe()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"methods": ["levels", "levels"]}, "neighbours.methods must name each value once"),
        (
            {"methods": ["votes"]},
            "neighbours.methods.*'levels', 'product' or 'cells'.*votes|methods.* must be one of",
        ),
        ({"ks": []}, "neighbours.ks must have at least one value to try, got none"),
        ({"ks": [0]}, "neighbours.ks.* at least 1, got 0"),
        ({"sigmas": [0]}, "neighbours.sigmas.* at least"),
        ({"weights": [0]}, "neighbours.weights.* above 0|neighbours.weights.*0"),
        ({"weights": [5]}, "neighbours.weights.* at most 4"),
        ({"cells": [1, 1]}, "neighbours.cells must name each value once"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(values, said):
    with pytest.raises(SettingsError, match=said):
        parse(LocalizerSettings, {"neighbours": values}, "localizers")
