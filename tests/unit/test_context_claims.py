"""Claims about time, albums and people: who plays which role, and the bias of answered cells by photographer."""

from __future__ import annotations

import numpy as np
import pytest

from geoloc.evaluation.claims.bias import bias_difference
from geoloc.evaluation.claims.claim import BIAS, evaluate_claims
from geoloc.evaluation.claims.context import CONTEXT_CLAIMS, cells_of
from geoloc.evaluation.claims.evaluated import Choice
from geoloc.evaluation.claims.roles import bind_roles, measure_roles
from geoloc.evaluation.measures.class_bias import class_bias
from tests.unit.test_claim_roles import COARSE, FINE, built, name


def method(role, partition, end=""):
    return f"[L]{role} {partition.cell_count}C{end}"


def test_roles_of_one_paper_are_played_in_the_recipe_that_has_most_of_them():
    albums = [method(role, FINE) for role in ("album average", "LSTM", "LSTM rep")]
    people = [method(role, COARSE) for role in ("M2", "user average", "M3")]
    recipes = [
        built("default", {"cells": FINE}),
        built("few", {"cells": FINE}, extra=albums[:1]),
        built("albums", {"cells": FINE}, extra=albums),
        built("people", {"cells": COARSE}, extra=people),
    ]
    roles = bind_roles(recipes)
    assert roles["single"] == Choice("albums", name(FINE))
    assert roles["LSTM"] == Choice("albums", albums[1])
    assert "LSTM off1" not in roles
    assert {roles[role] for role in ("M1", "M2", "M3")} == {
        Choice("people", one) for one in (name(COARSE), people[0], people[2])
    }
    by_hand = bind_roles(recipes, {"album average": Choice("few", albums[0])})
    assert by_hand["single"] == Choice("few", name(FINE))
    assert "LSTM" not in by_hand


def test_claims_are_tested_on_accuracy_and_on_bias():
    """Of equal answers no claim is decided for one side, and equal bias is none."""
    people = [method(role, COARSE) for role in ("M2", "user average", "M3")]
    recipes = [built("people", {"cells": COARSE}, extra=people)]
    measured = measure_roles(recipes, bind_roles(recipes))
    table = evaluate_claims(CONTEXT_CLAIMS, measured).set_index(["claim", "level"])
    lowers = table.loc[("the time of posting lowers bias", BIAS)]
    assert (lowers["difference"], lowers["verdict"], lowers["n"]) == (0, "undecided", 40)
    assert table.loc[("the time of posting helps a little", "city"), "difference"] == 0
    assert "not measured" in table.loc[("an LSTM beats averaging", "city"), "note"]


def test_the_cell_of_an_answer_is_that_whose_point_it_is():
    one = built("people", {"cells": COARSE})
    method_name = name(COARSE)
    rows = one.evaluation.per_photo
    at = np.arange(len(rows)) % COARSE.cell_count
    points = COARSE.centroids()[at]
    rows[["latitude", "longitude"]] = points
    cells, count = cells_of(one, method_name)
    mine = at[(rows["method"] == method_name).to_numpy()]
    assert count == COARSE.cell_count
    np.testing.assert_array_equal(cells[:, 1], mine)


def test_bias_is_that_of_class_bias_and_photographers_are_resampled():
    drawn = np.random.default_rng(3)
    truth = drawn.integers(0, 6, 400)
    narrow = np.where(truth < 4, 0, truth)  # answers one cell much too often
    answered = np.stack([narrow, truth], axis=1)
    of_photos = bias_difference([1, -1], truth, answered, 9, np.arange(400))
    expected = class_bias(truth, narrow, 9).kl_divergence - class_bias(truth, truth, 9).kl_divergence
    assert of_photos.estimate == pytest.approx(expected)
    low, high = of_photos.interval(0.95)
    assert 0 < low < of_photos.estimate < high
    assert of_photos.p_value() < 0.01
    # 20 people of 20 equal photos each know less than 400 people.
    same = np.repeat(np.arange(20), 20)
    few = bias_difference([1, -1], truth[same], answered[same], 9, same)
    width = np.diff(few.interval(0.95))[0]
    assert width > 2 * (high - low)
    assert bias_difference([1, -1], truth, answered[:, [0, 0]], 9, same).p_value() == 1
