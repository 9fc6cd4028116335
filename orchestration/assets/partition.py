"""Stage partition: the Earth cut into cells, fitted on the training photos only."""

from __future__ import annotations

import pandas as pd

from geoloc.partitions import make_partition
from geoloc.reports.maps import partition_map
from orchestration.assets.data import PARTITION_FOLDER, photos_with_split
from orchestration.stage_run import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    photos = photos_with_split(run.workspace.pool, run.input("splits"))
    train = photos[photos["split"] == "train"]
    partition = make_partition(run.settings.partition).fit(train["latitude"], train["longitude"])
    partition.save(run.output / PARTITION_FOLDER)
    partition_map(partition, run.output / "cells.png")
    counts = pd.Series(partition.photo_counts())
    test = photos[photos["split"] == "test"]
    ceiling = partition.ceiling(test["latitude"], test["longitude"])
    run.log(f"{partition!r}")
    return StageResult(
        {
            "cells": partition.cell_count,
            "photos per cell": counts.describe().rename_axis("statistic").reset_index(name="photos"),
            "training photos in no cell": int(
                (partition.assign(train["latitude"], train["longitude"]) < 0).sum()
            ),
            "ceiling on the test photos": pd.DataFrame(
                {"level": list(ceiling), "share": list(ceiling.values())}
            ),
            "map": run.output / "cells.png",
        }
    )
