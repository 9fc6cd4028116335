"""Stage partition: the Earth cut into cells, in one way or several, each fitted on the training photos only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from geoloc.files import write_json
from geoloc.partitions.base import PartitionError
from geoloc.partitions.settings import PartitionSettings
from geoloc.partitions.thresholds import fit_partition
from geoloc.reports.maps import partition_map
from geoloc.settings import SettingsError
from orchestration.assets.inputs import PARTITIONS_FILE, photos_with_split
from orchestration.run.stage import StageResult, StageRun

MAP_FILE = "cells.png"
FACTS_FILE = "facts.json"


def build(run: StageRun) -> StageResult:
    photos = photos_with_split(run.workspace.pool, run.input("splits"))
    facts: dict[str, Any] = {}
    for name, settings in run.settings.partitions.items():
        told = _one(run, name, settings, photos)
        facts |= {f"{name}/{fact}": value for fact, value in told.items()}
    write_json(run.output / PARTITIONS_FILE, list(run.settings.partitions))
    return StageResult(facts)


def _one(run: StageRun, name: str, settings: PartitionSettings, photos: pd.DataFrame) -> dict[str, Any]:
    """Fit one partition into its folder, with its map and its facts."""
    train, test = (photos[photos["split"] == split] for split in ("train", "test"))
    try:
        partition = fit_partition(settings, train["latitude"], train["longitude"])
    except PartitionError as error:
        # Of wanted_cells the message starts with the key; the keys of a kind's section stand further on.
        joint = "." if str(error).startswith("wanted_cells ") else ": "
        raise SettingsError(f"partitions.{name}{joint}{error}") from None
    folder = run.output / name
    partition.save(folder)
    partition_map(partition, folder / MAP_FILE)
    counts = pd.Series(partition.photo_counts())
    ceiling = partition.ceiling(test["latitude"], test["longitude"])
    outside = {
        f"{split} photos in no cell": int(np.sum(partition.assign(some["latitude"], some["longitude"]) < 0))
        for split, some in (("training", train), ("test", test))
    }
    write_json(
        folder / FACTS_FILE,
        {
            "cells": partition.cell_count,
            **outside,
            "fewest photos in a cell": int(counts.min()),
            "median photos in a cell": float(counts.median()),
            "most photos in a cell": int(counts.max()),
            "ceiling on the test photos": ceiling,
        },
    )
    run.log(f"{name}: {partition!r}")
    return {
        "cells": partition.cell_count,
        "photos per cell": counts.describe().rename_axis("statistic").reset_index(name="photos"),
        **outside,
        "ceiling on the test photos": pd.DataFrame({"level": list(ceiling), "share": list(ceiling.values())}),
        "map": folder / MAP_FILE,
    }
