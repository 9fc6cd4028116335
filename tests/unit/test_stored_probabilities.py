"""Stored class probabilities: what is written is read, and photos that are taken down leave no trace."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geoloc.files import DamagedFile
from geoloc.models.stored_probabilities import (
    COLUMNS,
    VALUES_FILE,
    StoredProbabilities,
    take_from_probabilities,
    write_probabilities,
)

VALUES = np.random.default_rng(0).dirichlet(np.ones(3), 4).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    photos = pd.DataFrame({name: [None] * 6 for name in COLUMNS if name != "row"})
    photos = photos.assign(photo_id=[f"p{i}" for i in range(6)], latitude=1.0, longitude=2.0)
    photos["predicted"] = [True, False, True, True, False, True]
    write_probabilities(tmp_path, photos, 3, [VALUES[:3], VALUES[3:]])
    return tmp_path


def test_what_is_written_is_read_and_photos_without_are_nan(folder):
    stored = StoredProbabilities.load(folder)
    assert stored.photos["row"].tolist() == [0, -1, 1, 2, -1, 3]
    found = stored.of(stored.photos.iloc[[5, 1, 0]])
    np.testing.assert_array_equal(found[[0, 2]], VALUES[[3, 0]])
    assert np.isnan(found[1]).all()


def test_another_number_of_probabilities_is_refused(folder, tmp_path):
    photos = StoredProbabilities.load(folder).photos.drop(columns="row").assign(predicted=True)
    for parts in ([VALUES], [VALUES, VALUES]):
        with pytest.raises(ValueError, match="6 photos"):
            write_probabilities(tmp_path, photos, 3, parts)


def test_photos_that_are_taken_down_are_gone_and_the_others_as_before(folder):
    before = (folder / VALUES_FILE).read_bytes()
    take_from_probabilities(folder, ["other"])
    assert (folder / VALUES_FILE).read_bytes() == before
    take_from_probabilities(folder, ["p2", "p4"])
    stored = StoredProbabilities.load(folder)
    assert stored.photos["photo_id"].tolist() == ["p0", "p1", "p3", "p5"]
    np.testing.assert_array_equal(stored.values, VALUES[[0, 2, 3]])
    assert VALUES[1].tobytes() not in (folder / VALUES_FILE).read_bytes()


def test_a_damaged_file_is_named(folder):
    (folder / VALUES_FILE).write_bytes(b"nothing")
    with pytest.raises(DamagedFile, match=VALUES_FILE):
        StoredProbabilities.load(folder)
