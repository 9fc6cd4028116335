"""Classifiers on frozen features as localizers of a build, against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax
from sklearn.svm import LinearSVC

from geoloc.files import read_json
from geoloc.localizers.frozen.knn import FrozenKnn
from geoloc.localizers.frozen.localizer import fit_frozen, frozen_table, vectors_of
from geoloc.localizers.frozen.svm import FrozenSvm
from geoloc.localizers.settings import FrozenSettings, LocalizerSettings
from geoloc.retrieval.embeddings import Embeddings
from geoloc.settings import SettingsError, parse, replace
from tests.unit.localizer_world import nested, photos

LAT, LON = photos(300)
FINE, COARSE, _ = nested(LAT, LON)
PARTITIONS = {"fine": FINE, "coarse": COARSE}
FRAME = pd.DataFrame(
    {"photo_id": [f"p{i}" for i in range(300)], "photographer": None, "latitude": LAT, "longitude": LON}
)
TRAIN, VALIDATION, TEST = FRAME[:180], FRAME[180:240], FRAME[240:]
BOTH = LocalizerSettings(frozen=FrozenSettings(kinds=("svm", "knn"), k=7))
UNREADABLE = ["p3", "p200", "p250"]


def embeddings():
    """Noisy directions of the places, in another order than the photos; three photos have none."""
    rng = np.random.default_rng(4)
    angles = np.radians(np.stack([LAT, LON], axis=1))
    vectors = np.concatenate([np.sin(angles), np.cos(angles), rng.normal(0, 0.4, (300, 8))], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation([i for i in range(300) if f"p{i}" not in UNREADABLE])
    return Embeddings(FRAME["photo_id"].to_numpy(dtype=object)[order], vectors[order].astype(np.float16))


EMBEDDINGS = embeddings()
BY_ID = dict(zip(EMBEDDINGS.photo_ids, EMBEDDINGS.vectors.astype(np.float64), strict=True))


def fitted(settings=BOTH, partitions=PARTITIONS, **keywords):
    return {
        one.name: one
        for one in fit_frozen(partitions, settings, EMBEDDINGS, TRAIN, VALIDATION, seed=3, **keywords)
    }


def learned(partition):
    """What there is to learn from: vectors and cells of the training photos that have both."""
    rows = [
        (BY_ID[photo], cell)
        for photo, cell in zip(
            TRAIN["photo_id"], partition.assign(TRAIN["latitude"], TRAIN["longitude"]), strict=True
        )
        if cell >= 0 and photo in BY_ID
    ]
    return np.array([vector for vector, _ in rows]), np.array([cell for _, cell in rows])


def test_there_is_one_a_kind_and_partition_named_as_the_house_does():
    fine, coarse = FINE.cell_count, COARSE.cell_count
    names = [f"[backbone]{a} {cells}C" for a in ("SVM", "kNN") for cells in (fine, coarse)]
    assert list(fitted()) == names
    centre = replace(BOTH, answers=("centre", "centroid"))
    assert list(fitted(centre)) == [f"{name} centre" for name in names]
    same = fitted(partitions={"one": COARSE, "two": COARSE})
    assert list(same) == [f"[backbone]{a} {coarse}C {n}" for a in ("SVM", "kNN") for n in ("one", "two")]
    assert fitted(LocalizerSettings()) == {}


@pytest.mark.parametrize("name", list(PARTITIONS))
def test_answers_are_points_of_the_cells_that_an_independent_classifier_finds(name):
    partition = PARTITIONS[name]
    vectors, cells = learned(partition)
    asked = [photo for photo in TEST["photo_id"] if photo in BY_ID]
    svm = LinearSVC(random_state=3).fit(vectors, cells)
    want = {"SVM": svm.predict(np.array([BY_ID[photo] for photo in asked])), "kNN": []}
    for photo in asked:
        near = np.argsort(np.linalg.norm(vectors - BY_ID[photo], axis=1), kind="stable")[:7]
        want["kNN"].append(np.bincount(cells[near]).argmax())
    for approach, expected in want.items():
        one = fitted()[f"[backbone]{approach} {partition.cell_count}C"]
        answers = one.locate(vectors_of(EMBEDDINGS, TEST["photo_id"]))
        assert answers.abstained.tolist() == [photo == "p250" for photo in TEST["photo_id"]]
        points = partition.centroids()[np.asarray(expected)]
        np.testing.assert_allclose(answers.latitude[~answers.abstained], points[:, 0])
        np.testing.assert_allclose(answers.longitude[~answers.abstained], points[:, 1])
        assert one.classifier.photos == len(vectors)


def test_calibration_chooses_the_temperature_by_the_validation_photos():
    plain, scaled = fitted(), fitted(replace(BOTH, calibrate=True))
    truth = FINE.assign(VALIDATION["latitude"], VALIDATION["longitude"])
    used = [i for i, photo in enumerate(VALIDATION["photo_id"]) if photo in BY_ID and truth[i] >= 0]
    vectors = np.array([BY_ID[VALIDATION["photo_id"].iloc[i]] for i in used])
    name = f"[backbone]SVM {FINE.cell_count}C"
    one, p = scaled[name], plain[name].classifier.predict_probabilities(vectors).astype(np.float64)
    logs = np.log(np.maximum(p, np.finfo(np.float32).tiny))
    grid = np.geomspace(0.01, 100, 3000)  # all that TemperatureScaling looks at
    loss = [-log_softmax(logs / t, axis=1)[range(len(used)), truth[used]].mean() for t in grid]
    assert one.temperature.temperature == pytest.approx(grid[np.argmin(loss)], rel=0.01)
    assert one.temperature.photos == len(used)
    answers = one.locate(vectors.astype(np.float16))
    sure = softmax(logs / one.temperature.temperature, axis=1).max(axis=1)
    np.testing.assert_allclose(answers.confidence, sure, rtol=1e-3)
    before = plain[name].locate(vectors.astype(np.float16))
    np.testing.assert_array_equal(answers.latitude, before.latitude)


def test_votes_are_shares_and_no_temperature_makes_them_less():
    knn = fitted(replace(BOTH, calibrate=True))[f"[backbone]kNN {FINE.cell_count}C"]
    assert knn.temperature is None
    vectors, cells = learned(FINE)
    confidence = knn.locate(vectors[:20].astype(np.float16)).confidence
    for vector, sure in zip(vectors[:20], confidence, strict=True):
        near = np.argsort(np.linalg.norm(vectors - vector, axis=1), kind="stable")[:7]
        assert sure == pytest.approx(np.bincount(cells[near]).max() / 7)


def test_what_was_fitted_is_saved_and_answers_alike(tmp_path):
    asked = vectors_of(EMBEDDINGS, TEST["photo_id"])
    for one in fitted(replace(BOTH, calibrate=True)).values():
        if isinstance(one.classifier, FrozenKnn):
            assert (
                one.save(tmp_path) == []
            )  # photos' embeddings are stored once, where a photo can be taken out
            continue
        file, temperature = one.save(tmp_path)
        assert file.name == f"frozen-{one.partition}-svm.safetensors"
        np.testing.assert_array_equal(FrozenSvm.load(file).scores(asked), one.classifier.scores(asked))
        assert read_json(temperature)["temperature"] == one.temperature.temperature
    assert len(list(tmp_path.iterdir())) == 4


def test_an_svm_that_has_not_converged_is_told_everywhere():
    lines: list[str] = []
    hasty = replace(BOTH, frozen=FrozenSettings(kinds=("svm", "knn"), max_iterations=1, c=1000.0))
    svm, knn = fitted(hasty, {"fine": FINE}, log=lines.append).values()
    assert "(not converged in 1 iterations)" in svm.describe()
    assert "not converged" not in knn.describe()
    told = [line for line in lines if "raise localizers.frozen.max_iterations" in line]
    assert len(told) == 1
    assert svm.name in told[0]
    assert frozen_table([svm, knn])["converged"].tolist() == ["no", "yes"]
    assert "not converged" not in fitted()[svm.name].describe()


def test_what_cannot_be_learned_names_the_setting():
    for kind in ("svm", "knn"):
        alone = LocalizerSettings(frozen=FrozenSettings(kinds=(kind,)))
        cell = FINE.assign(LAT, LON)
        one = FRAME[cell == np.bincount(cell[cell >= 0]).argmax()]
        message = (
            f"localizers.frozen.kinds {kind} cannot be done for partition fine: .* at least 2 cells, got 1"
        )
        with pytest.raises(SettingsError, match=message):
            fit_frozen({"fine": FINE}, alone, EMBEDDINGS, one, VALIDATION)
    nobody = replace(BOTH, calibrate=True)
    with pytest.raises(
        SettingsError, match=r"localizers\.calibrate cannot be done for a frozen svm of partit"
    ):
        fit_frozen({"fine": FINE}, nobody, EMBEDDINGS, TRAIN, FRAME[200:201])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": ["svm", "tree"]}, r"localizers\.frozen\.kinds\[1\] must be one of svm, knn; got 'tree'"),
        ({"kinds": ["svm", "svm"]}, r"localizers\.frozen\.kinds must name each value once"),
        ({"k": 0}, r"localizers\.frozen\.k must be at least 1, got 0"),
        ({"c": 0}, r"localizers\.frozen\.c must be at least"),
        ({"max_iterations": 0}, r"localizers\.frozen\.max_iterations must be at least 1, got 0"),
    ],
)
def test_wrong_settings_name_key_and_value(values, message):
    with pytest.raises(SettingsError, match=message):
        parse(LocalizerSettings, {"frozen": values}, "localizers")
