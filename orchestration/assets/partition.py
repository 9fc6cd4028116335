"""Stage partition: one or several partitions of the Earth into cells, fitted on the training photos only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geoloc.files import write_json
from geoloc.partitions import load_partition
from geoloc.partitions.base import PartitionError
from geoloc.partitions.settings import PartitionSettings
from geoloc.partitions.thresholds import fit_partition
from geoloc.settings import SettingsError, used
from orchestration.assets.inputs import PARTITIONS_FILE, read_photos
from orchestration.run.stage import StageResult, StageRun

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


def build(run: StageRun) -> StageResult:
    photos = read_photos(run.input("splits"))
    train, test = (photos[photos["split"] == split] for split in ("train", "test"))
    facts: dict[str, Any] = {}
    for name, settings in run.settings.partitions.items():

        def make(folder: Path, name: str = name, settings: PartitionSettings = settings) -> None:
            _fit(name, settings, train).save(folder)

        partition = load_partition(run.part(name, used(settings), make))
        run.log(f"{name}: {partition!r}")
        facts |= {f"{name}/{fact}": value for fact, value in _facts(partition, train, test).items()}
    write_json(run.output / PARTITIONS_FILE, list(run.settings.partitions))
    return StageResult(facts)


def _fit(name: str, settings: PartitionSettings, train: pd.DataFrame) -> Partition:
    try:
        return fit_partition(settings, train["latitude"], train["longitude"])
    except PartitionError as error:
        # Messages about wanted_cells start with the key; in others, the key of a kind's section comes later.
        joint = "." if str(error).startswith("wanted_cells ") else ": "
        raise SettingsError(f"partitions.{name}{joint}{error}") from None


def _facts(partition: Partition, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Facts about a partition for people; not part of its content."""
    counts = pd.Series(partition.photo_counts())
    ceiling = partition.ceiling(test["latitude"], test["longitude"])
    outside = {
        f"{split} photos in no cell": int(np.sum(partition.assign(some["latitude"], some["longitude"]) < 0))
        for split, some in (("training", train), ("test", test))
    }
    return {
        "cells": partition.cell_count,
        "photos per cell": counts.describe().rename_axis("statistic").reset_index(name="photos"),
        **outside,
        "ceiling on the test photos": pd.DataFrame({"level": list(ceiling), "share": list(ceiling.values())}),
    }
