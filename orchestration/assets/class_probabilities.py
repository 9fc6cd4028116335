"""Stage class_probabilities: what the classifier says of photos that it was not trained on, for models of time and
albums; with the album and the times of every photo, which these need of the pool."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.by_class.probabilities import photo_parts
from geoloc.models.engine import engine_name
from geoloc.models.prediction import predict_probabilities
from geoloc.models.stored_probabilities import write_probabilities
from geoloc.photos.catalog import read_catalog
from geoloc.photos.splits import CONTEXT, TRAIN, UNUSED
from orchestration.assets.inputs import load_partitions, load_trained, read_photos, stored, with_pixels
from orchestration.run.stage import StageResult, StageRun

_OF_POOL = ["photo_id", "source", "photographer", "album", "taken_at", "posted_at"]


def build(run: StageRun) -> StageResult:
    limits = run.settings.localizers
    photos = with_pixels(run.workspace.pool, stored(read_photos(run.input("splits"))))
    photos = photos[photos["split"] != UNUSED]
    # The person, where the splits have trips.
    photos = photos.drop(columns=[*_OF_POOL[1:]], errors="ignore").merge(
        read_catalog(run.workspace.pool, _OF_POOL), on="photo_id", validate="1:1"
    )
    # Without a split of their own, models of time and albums learn from photos that the classifier knows.
    seen = () if (photos["split"] == CONTEXT).any() else (TRAIN,)
    photos["predicted"] = (photos["split"] != TRAIN) | photos["split"].isin(seen)
    if seen:
        run.log(
            "warning: models of time and albums learn from photos that the classifier was trained on, where it is "
            "surer than on others; keep some apart with splits.context"
        )
    asked = photos[photos["predicted"]].reset_index(drop=True)
    partitions = load_partitions(run.input("partition"))
    main, partition = next(iter(partitions.items()))
    model = load_trained(run.build, partitions)
    run.log(f"class probabilities of {len(asked):,} photos over {partition.cell_count:,} cells")
    unread = 0

    def parts() -> Iterator[NDArray[np.float32]]:
        nonlocal unread
        cells = sum(one.cell_count for one in partitions.values())
        for part in photo_parts(len(asked), cells, limits.batch_size):
            found, missed = predict_probabilities(
                model, run.workspace.pool, asked.iloc[part], limits.batch_size, crops=limits.crops
            )
            unread += len(missed)
            yield found[main]

    write_probabilities(run.output, photos, partition.cell_count, parts())
    known = photos.groupby("split").agg(
        photos=("photo_id", "size"), people=("photographer", "nunique"),
        with_album=("album", _known), with_camera_time=("taken_at", _known), with_time_of_posting=("posted_at", _known),
    )  # fmt: skip
    return StageResult(
        {"engine": engine_name(model), "unreadable": unread, "what is known of photos": known.reset_index()}
    )


def _known(column: pd.Series) -> int:
    return int(column.notna().sum())
