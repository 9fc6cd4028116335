"""Epoch, temperature and regions are chosen on photos by different photographers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoloc.photos.validation_parts import REGIONS, SELECTION, SHARED, TEMPERATURE, of_part, validation_parts


def photos(photographers, each=7):
    owner = np.repeat([f"u{i}" for i in range(photographers)], each)
    return pd.DataFrame({"photo_id": [f"p{i}" for i in range(len(owner))], "photographer": owner})


def test_parts_are_apart_by_photographer_and_drawn_by_the_seed():
    frame = photos(24)
    frame["validation_part"] = validation_parts(frame, 3)
    assert frame.groupby("photographer")["validation_part"].nunique().eq(1).all()
    parts = {part: set(of_part(frame, part)["photographer"]) for part in (SELECTION, TEMPERATURE, REGIONS)}
    assert {part: len(found) for part, found in parts.items()} == {SELECTION: 8, TEMPERATURE: 4, REGIONS: 12}
    assert sum(len(of_part(frame, part)) for part in parts) == len(frame)
    shuffled = frame.sample(frac=1, random_state=0)
    assert validation_parts(shuffled, 3).sort_index().equals(frame["validation_part"])
    assert not validation_parts(frame, 4).equals(frame["validation_part"])


def test_too_few_photographers_share_all_photos():
    frame = photos(19)
    frame["validation_part"] = validation_parts(frame, 3)
    assert frame["validation_part"].eq(SHARED).all()
    assert len(of_part(frame, REGIONS)) == len(frame)
    empty = photos(0)
    assert len(validation_parts(empty, 3)) == 0
