"""Roles of claims: who is bound by default and by hand, and what is measured then, against hand-computed numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from geoloc.evaluation.claims.claim import evaluate_claims
from geoloc.evaluation.claims.evaluated import Built, Choice, Ranked
from geoloc.evaluation.claims.published import PUBLISHED_CLAIMS
from geoloc.evaluation.claims.roles import (
    CEILINGS,
    ROLES,
    ClaimRoleError,
    bind_roles,
    measure_roles,
    parse_roles,
)
from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.partitions.delaunay import DelaunayPartition
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.partitions.settings import DelaunaySettings
from geoloc.sphere import destination
from tests.unit.localizer_world import nested, photos

LAT, LON = photos(40)
PHOTOS = pd.DataFrame(
    {
        "photo_id": [f"p{i}" for i in range(40)],
        "photographer": [f"by {i % 10}" for i in range(40)],
        "latitude": LAT,
        "longitude": LON,
        # 10 outdoor, 20 indoor, 10 unknown
        "prob_indoor": pd.array([0.1] * 10 + [0.5, 0.9] * 10 + [None] * 10, dtype="Float64"),
    }
)
FINE, COARSE, MIDDLE = nested(*photos())
"""Partitions of many, few and some cells, in this order."""


def built(recipe, partitions, *, hits=20, answers=("centroid",), extra=(), **keywords):
    """A recipe whose methods are 2 km off on the first `hits` of 40 photos (city level, not street), else 300 km."""
    model = "L" if len(partitions) == 1 else "M"
    names = [one.name for _, one in class_localizers(partitions, answers, model)] + ["[L]NN", *extra]
    lat, lon = destination(LAT, LON, 90.0, np.where(np.arange(40) < hits, 2.0, 300.0))
    answer = Answers(lat, lon, np.ones(40, dtype=np.float32))
    made = evaluate(dict.fromkeys(names, answer), PHOTOS, settings=EvaluationSettings(resamples=10), seed=1)
    return Built(recipe, made, PHOTOS, partitions, model, **keywords)


def name(partition, model="L"):
    return f"[{model}]{partition.cell_count}C"


def methods(roles):
    return {role: str(choice) for role, choice in roles.items()}


def test_one_recipe_is_fine_and_there_is_no_coarse():
    roles = methods(bind_roles([built("default", {"cells": MIDDLE})]))
    method = f"default:{name(MIDDLE)}"
    assert roles == {
        "fine": method,
        "fine ceiling": "default:cells",
        "fine ceiling centre": "default:cells",
        "outdoor": method,
        "all photos": method,
        "fine-tuned": method,
        "classification": method,
        "NN": "default:[L]NN",
    }


def test_fine_and_coarse_have_most_and_fewest_cells_of_one_setup_and_kind():
    assert FINE.cell_count > MIDDLE.cell_count > COARSE.cell_count
    one = [
        built("some", {"cells": MIDDLE}, setup="a"),
        built("few", {"cells": COARSE}, setup="a", answers=("centroid", "centre")),
        built("many", {"cells": FINE}, setup="a"),
    ]
    roles = methods(bind_roles(one))
    assert roles["fine"] == f"many:{name(FINE)}"
    assert roles["coarse"] == f"few:{name(COARSE)}"
    assert "fine centre" not in roles
    assert roles["coarse centre"] == f"few:{name(COARSE)} centre"
    assert [roles[role] for role in CEILINGS] == ["many:cells", "many:cells", "few:cells", "few:cells"]
    # Another setup is another experiment: its cells are not compared with these.
    other = [one[0], built("few", {"cells": COARSE}, setup="b"), one[2]]
    assert methods(bind_roles(other))["coarse"] == f"some:{name(MIDDLE)}"


def test_a_role_by_hand_moves_those_that_hang_on_it():
    recipes = [built(n, {"cells": p}) for n, p in (("many", FINE), ("some", MIDDLE), ("few", COARSE))]
    roles = methods(bind_roles(recipes, parse_roles([f"fine=some:{name(MIDDLE)}"])))
    assert (roles["fine"], roles["coarse"]) == (f"some:{name(MIDDLE)}", f"few:{name(COARSE)}")
    assert roles["fine ceiling"] == "some:cells"
    assert roles["all photos"] == roles["fine"]
    roles = methods(bind_roles(recipes, parse_roles([f"coarse = some:{name(MIDDLE)}"])))
    assert (roles["fine"], roles["coarse ceiling"]) == (f"many:{name(FINE)}", "some:cells")
    # A method that is none by class has no cells, so that nothing can be said to be coarser.
    assert "coarse" not in bind_roles(recipes, {"fine": Choice("many", "[L]NN")})


def test_ceilings_are_also_of_partitions_whose_network_has_several_heads():
    recipes = [built("one", {"cells": FINE}), built("two", {"fine": FINE, "coarse": COARSE})]
    roles = methods(bind_roles(recipes))
    assert "coarse" not in roles
    assert (roles["fine ceiling"], roles["coarse ceiling"]) == ("one:cells", "two:coarse")


def test_several_heads_meet_networks_over_the_same_cells():
    several = built("m", {"middle": MIDDLE, "fine": FINE, "coarse": COARSE}, setup="a")
    single = built("l", {"cells": FINE}, setup="a")
    again = built("l2", {"cells": COARSE}, setup="from l", starts_from="l")
    scratch = built("scratch", {"cells": COARSE}, setup="a")
    want = {
        "M fine": f"m:{name(FINE, 'M')}",
        "M coarse": f"m:{name(COARSE, 'M')}",
        "L fine": f"l:{name(FINE)}",
        "L2 coarse": f"l2:{name(COARSE)}",
    }
    roles = methods(bind_roles([several, scratch, again, single]))
    assert {role: roles.get(role) for role in want} == want
    # Other cells, other training, weights of no network: nobody to compare with.
    roles = bind_roles([several, scratch, built("l", {"cells": MIDDLE}, setup="a")])
    assert "L fine" not in roles
    assert "L2 coarse" not in roles
    assert "L fine" not in bind_roles([several, built("l", {"cells": FINE}, setup="b")])


def test_triangles_meet_the_quadtree_of_about_as_many_cells():
    lat, lon = photos()
    triangles = DelaunayPartition(DelaunaySettings(max_photos=40, min_photos=2)).fit(lat, lon)
    trees = {
        tree.cell_count: tree
        for most in range(10, 80, 2)
        for tree in [S2Partition(S2Settings(max_photos=most, min_photos=2)).fit(lat, lon)]
    }
    nearest = min(trees, key=lambda cells: abs(np.log(cells / triangles.cell_count)))
    assert nearest / triangles.cell_count == pytest.approx(1, abs=0.05)
    mesh, far = built("mesh", {"cells": triangles}), built("far", {"cells": COARSE})
    near = built("near", {"cells": trees[nearest]})
    roles = methods(bind_roles([far, near, mesh]))
    assert (roles["triangles"], roles["quadtree"]) == (
        f"mesh:{name(triangles)}",
        f"near:{name(trees[nearest])}",
    )
    for others in ([far, mesh], [built("near", {"cells": trees[nearest]}, setup="b"), mesh]):
        assert not {"triangles", "quadtree"} & set(bind_roles(others))
    by_hand = bind_roles([far, mesh], {"quadtree": Choice("far", name(COARSE))})
    assert "triangles" not in by_hand


def test_frozen_features_of_any_name_are_given_by_hand_and_bring_their_fine_tuned_network():
    recipes = [
        built("other", {"cells": FINE}),
        built("cities", {"cells": COARSE}, setup="c", extra=["SVM"]),
        built("frozen", {"cells": COARSE}, setup="f", extra=["SVM"], fine_tuned=False),
    ]
    assert "frozen SVM" not in bind_roles(recipes)
    roles = bind_roles(recipes, parse_roles(["frozen SVM=cities:SVM"]))
    assert str(roles["fine-tuned"]) == f"cities:{name(COARSE)}"
    assert "fine-tuned" not in bind_roles(recipes, parse_roles(["frozen SVM=frozen:SVM"]))


def frozen(partition, *kinds, end=""):
    return [f"[backbone]{kind} {partition.cell_count}C{end}" for kind in kinds]


def test_frozen_features_are_of_the_fine_tuned_network_over_its_cells():
    svm, knn = frozen(FINE, "SVM", "kNN")
    recipes = [
        built("few", {"cells": COARSE}, extra=frozen(COARSE, "SVM", "kNN")),
        built("many", {"cells": FINE}, extra=[knn, svm]),
    ]
    want = {"fine-tuned": f"many:{name(FINE)}", "frozen SVM": f"many:{svm}", "frozen kNN": f"many:{knn}"}
    roles = methods(bind_roles(recipes))
    assert {role: roles[role] for role in want} == want
    # Given by hand, the others follow it.
    for role, method in (("fine-tuned", name(COARSE)), ("frozen kNN", frozen(COARSE, "kNN")[0])):
        roles = methods(bind_roles(recipes, {role: Choice("few", method)}))
        assert {roles[one] for one in want} == {
            f"few:{one}" for one in [name(COARSE), *frozen(COARSE, "SVM", "kNN")]
        }


def test_where_the_fine_network_has_no_frozen_features_another_is_fine_tuned():
    several = {"fine": FINE, "coarse": COARSE}
    recipes = [
        built("many", {"cells": FINE}),
        built("head", {"cells": COARSE}, extra=frozen(COARSE, "SVM"), fine_tuned=False),
        built("m", several, extra=frozen(COARSE, "SVM")),
    ]
    roles = methods(bind_roles(recipes))
    assert roles["fine"] == f"many:{name(FINE)}"
    assert roles["fine-tuned"] == f"m:{name(COARSE, 'M')}"
    assert roles["frozen SVM"] == f"m:{frozen(COARSE, 'SVM')[0]}"
    assert "frozen kNN" not in roles
    assert methods(bind_roles(recipes[:2]))["fine-tuned"] == f"many:{name(FINE)}"
    by_hand = {"frozen SVM": Choice("m", frozen(COARSE, "SVM")[0])}
    assert methods(bind_roles(recipes, by_hand))["fine-tuned"] == f"m:{name(COARSE, 'M')}"


def test_networks_and_frozen_features_answer_alike():
    recipes = [
        built(
            "one",
            {"cells": FINE},
            answers=("centre", "centroid"),
            extra=frozen(FINE, "SVM", end=" centre"),
        )
    ]
    roles = methods(bind_roles(recipes))
    assert roles["fine"] == f"one:{name(FINE)}"
    assert roles["fine-tuned"] == f"one:{name(FINE)} centre"
    assert roles["frozen SVM"] == f"one:{frozen(FINE, 'SVM', end=' centre')[0]}"
    # By hand at centroids: nothing answers like it.
    assert "frozen SVM" not in bind_roles(recipes, {"fine-tuned": Choice("one", name(FINE))})


SEARCH = ("[L]kNN σ=1", "[L]kNN σ=4", "[L]kNN σ=16", "[L]kNN σ=64 k=10", "[L]kNN σ=32 flat", "[backbone]NN")
"""Methods by neighbour beside [L]NN."""


def ranking(recipe, name, batch_size, setup="", **keywords):
    """A recipe with a metric network."""
    ranked = Ranked(name, batch_size, setup=setup)
    extra = (*SEARCH, f"[{name}]NN", f"[{name}]kNN σ=4")
    return built(recipe, {"cells": MIDDLE}, extra=extra, ranked=ranked, **keywords)


def test_one_network_answers_by_class_by_the_nearest_and_by_density():
    recipes = [built("few", {"cells": COARSE}), built("many", {"cells": FINE}, extra=SEARCH)]
    roles = methods(bind_roles(recipes))
    assert roles["classification"] == roles["fine"] == f"many:{name(FINE)}"
    assert (roles["NN"], roles["first NN"]) == ("many:[L]NN", "many:[backbone]NN")
    # Other k and flat degrees are other methods than the paper's.
    assert (roles["kNN narrow"], roles["kNN wide"]) == ("many:[L]kNN σ=1", "many:[L]kNN σ=16")
    fewer = built(
        "many",
        {"cells": FINE},
        extra=[*SEARCH, "[backbone]NN of 0.25 of the references", "[L]NN of 0.25 of it"],
    )
    assert methods(bind_roles([fewer]))["NN of fewer"] == "many:[L]NN of 0.25 of it"
    assert "NN of fewer" not in roles
    # By hand, the others follow, to its recipe and its network.
    by_hand = methods(bind_roles(recipes, parse_roles(["NN=few:[L]NN"])))
    assert by_hand["classification"] == f"few:{name(COARSE)}"
    assert "kNN narrow" not in by_hand
    metric = ranking("r", "R1", 32)
    by_hand = methods(bind_roles([*recipes, metric], parse_roles(["NN=r:[R1]NN"])))
    assert by_hand["kNN narrow"] == "r:[R1]kNN σ=4"
    assert "kNN wide" not in by_hand  # one width is narrow and wide


def test_first_weights_are_those_that_no_recipe_has_trained():
    def first(*recipes):
        return methods(bind_roles(recipes)).get("first NN")

    own = built("own", {"cells": FINE}, extra=SEARCH, features="max pooling")
    assert first(own) == "own:[backbone]NN"
    passed_on = replace(own, recipe="on", starts_from="own")
    assert first(passed_on) is None
    assert first(passed_on, own) == "own:[backbone]NN"
    assert first(passed_on, replace(own, features="average pooling")) is None
    assert first(passed_on, replace(own, pretrained=False)) is None


def test_neither_first_weights_nor_another_programs_embeddings_are_the_luck_of_a_training():
    one = built("own", {"cells": FINE}, external="NetVLAD")
    methods = ("[L]NN", "[L]9C+[NetVLAD]kNN", "[backbone]NN", "[NetVLAD]NN", "[NetVLAD]kNN")
    assert [one.trained(method) for method in methods] == [True, True, False, False, False]
    assert built("own", {"cells": FINE}).trained("[L]NN")


def test_metric_networks_meet_their_classifier_and_each_other():
    recipes = [
        built("fine", {"cells": FINE}, extra=SEARCH),
        ranking("r", "R", 32, setup="hinge"),
        ranking("r1", "R1", 32, setup="soft"),
        ranking("r2", "R2", 256, setup="soft"),
        ranking("r4", "R4", 64, setup="soft"),
    ]
    roles = methods(bind_roles(recipes))
    assert (roles["small batch NN"], roles["large batch NN"]) == ("r1:[R1]NN", "r2:[R2]NN")
    assert (roles["metric NN"], roles["classifier NN"]) == ("r1:[R1]NN", "r1:[L]NN")
    assert roles["NN"] == "r1:[L]NN"  # one network in all claims about retrieval
    assert roles["fine"] == f"fine:{name(FINE)}"
    # Alone, a network has none to be compared with by its batches.
    roles = methods(bind_roles(recipes[:2]))
    assert "small batch NN" not in roles
    assert roles["metric NN"] == "r:[R]NN"
    by_hand = methods(bind_roles(recipes, parse_roles(["small batch NN=r4:[R4]NN", "metric NN=r:[R]NN"])))
    assert (by_hand["large batch NN"], by_hand["classifier NN"]) == ("r2:[R2]NN", "r:[L]NN")
    elsewhere = replace(recipes[1], ranked=Ranked("R", 32, from_classifier=False))
    assert "metric NN" not in bind_roles([elsewhere])


def test_roles_are_measured_as_by_hand():
    recipes = [built("many", {"cells": FINE}, hits=32), built("few", {"cells": COARSE}, hits=12)]
    roles = bind_roles(recipes)
    measured = measure_roles(recipes, roles)
    assert {role: len(one) for role, one in measured.items() if role != "outdoor"} == {
        role: 40 for role in roles if role != "outdoor"
    }
    # Below 0.5, so not at it; of unknown ones nothing is said.
    assert measured["outdoor"].photo_id.tolist() == [f"p{i}" for i in range(10)]
    for role, partition in (("fine", FINE), ("coarse", COARSE)):
        for answer, end in (("centroid", ""), ("centre", " centre")):
            hits = (measured[f"{role} ceiling{end}"].error_km <= 200).mean()
            assert hits == partition.ceiling(LAT, LON, answer=answer)["region"]
    table = evaluate_claims(PUBLISHED_CLAIMS, measured).set_index(["claim", "level"])
    finer = table.loc[("finer wins at fine levels", "city")]
    assert (finer["difference"], finer["verdict"], finer["n"]) == (0.5, "holds", 40)  # 32/40 - 12/40
    assert table.loc[("coarser wins at coarse levels", "country"), "difference"] == 0
    outdoor = table.loc[("outdoor photos are easier", "city")]
    assert (outdoor["difference"], outdoor["n"]) == (pytest.approx(0.2), 40)  # 10/10 - 32/40


def test_photos_of_unknown_surroundings_bind_no_outdoor():
    one = built("default", {"cells": FINE})
    unknown = PHOTOS.assign(prob_indoor=pd.array([None] * 40, dtype="Float64"))
    roles = bind_roles([Built("default", one.evaluation, unknown, one.partitions)])
    assert "outdoor" not in roles
    assert "all photos" in roles


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fine", "must be NAME=RECIPE:METHOD.*got 'fine'"),
        ("fine=default", "must be NAME=RECIPE:METHOD"),
        ("finest=default:[L]NN", "role must be one of fine, .*frozen kNN; got 'finest'"),
        ("fine=defualt:[L]NN", "fine: recipe must be one of default; got 'defualt'"),
        ("fine=default:[L]9C", r"fine: method of default must be one of .*\[L\]NN; got '\[L\]9C'"),
        ("fine ceiling=default:[L]NN", r"partition of default must be one of cells; got '\[L\]NN'"),
    ],
)
def test_wrong_roles_are_told_with_what_is_allowed(text, message):
    with pytest.raises(ClaimRoleError, match=message):
        bind_roles([built("default", {"cells": FINE})], parse_roles([text]))


def test_a_role_given_twice_is_refused_and_signs_in_methods_are_kept():
    with pytest.raises(ClaimRoleError, match="fine is given twice"):
        parse_roles(["fine=a:b", "fine=a:c"])
    assert parse_roles(["fine=a:[L]kNN σ=4"]) == {"fine": Choice("a", "[L]kNN σ=4")}


def test_every_role_of_the_published_claims_is_described():
    assert {role for claim in PUBLISHED_CLAIMS for role in claim.roles} == set(ROLES)
