"""A workspace with registered builds that always answer one place: made in seconds, without a training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import torch

from geoloc.files import write_parquet
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.served import pack
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.classifier import build_classifier
from geoloc.models.export import export_network
from geoloc.models.settings import ModelSettings
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.photos.catalog import read_catalog
from orchestration.plan.chain import SPLITS_FILE, output_folder
from orchestration.stores.serving import log_served_build
from orchestration.stores.tracking import tracked_run
from orchestration.workspace import Workspace
from tests.photo_fixtures import jpeg
from tests.pipeline.conftest import geoloc

HERE, THERE = (10.0, 20.0), (-30.0, 140.0)
PEOPLE = 12
"""Photographers: the first four train, the fifth and sixth validate, the others are tested."""


def add_photos(workspace: Workspace, folder: Path, numbers: range, source: str = "tests") -> None:
    """Ingest photos by PEOPLE photographers in turn; each fourth photo of a person is THERE, the others are HERE."""
    folder.mkdir(exist_ok=True)
    places = [THERE if (i // PEOPLE) % 4 == 0 else HERE for i in numbers]
    for i in numbers:
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    pd.DataFrame(
        {
            "photo_id": [f"photo-{i:03d}" for i in numbers],
            "file": [f"{i}.jpg" for i in numbers],
            "latitude": [
                latitude + 0.05 + i / 1000 for i, (latitude, _) in zip(numbers, places, strict=True)
            ],
            "longitude": [longitude for _, longitude in places],
            "photographer": [f"person {i % PEOPLE}" for i in numbers],
        }
    ).to_csv(folder / "t.csv", index=False)
    assert geoloc(workspace, "ingest", "table", str(folder / "t.csv"), "--source", source) == 0


def splits(workspace: Workspace) -> pd.DataFrame:
    """A table of splits: photos 0, 12, 24, ... are by person 0."""
    found = read_catalog(workspace.pool)[
        ["photo_id", "photographer", "latitude", "longitude", "prob_indoor", "sha256"]
    ]
    person = found["photo_id"].str.removeprefix("photo-").astype(int) % PEOPLE
    split = person.map(lambda one: "train" if one < 4 else "validation" if one < 6 else "test")
    return found.assign(split=split, reason=None, near_duplicates=None, weight=1.0)


def export(folder: Path) -> Path:
    """An untrained network with a head of one cell."""
    model = build_classifier(
        ModelSettings(backbone="squeezenet1_1", weights="none", image_size=64, resize_short_side=64),
        {"fine": 1},
        0,
    )
    export_network(model.eval(), folder / "network.onnx", torch.zeros((2, 3, 64, 64), dtype=torch.uint8))
    return folder / "network.onnx"


def register(
    workspace: Workspace,
    graph: Path,
    place: tuple[float, float],
    recipe: str = "default",
    table: pd.DataFrame | None = None,
) -> None:
    """Register a build that answers `place` for every photo, and was made from these splits."""
    write_parquet(
        output_folder(workspace, recipe, "splits") / SPLITS_FILE,
        splits(workspace) if table is None else table,
    )
    made = workspace.scratch / "partition"
    partition = S2Partition(S2Settings(max_photos=1000, min_photos=1)).fit([place[0]] * 3, [place[1]] * 3)
    assert partition.cell_count == 1
    partition.save(made)
    packed = workspace.scratch / "served"
    pack(
        packed,
        graph=graph,
        partitions={"fine": made},
        calibration=Calibration.none(),
        references=None,
        settings=LocalizerSettings(),
        model_name="L",
    )
    with tracked_run(workspace, "evaluation", settings={}, tags={"recipe": recipe}, data_version="x") as run:
        pass
    log_served_build(workspace, run.run_id, recipe, packed)
    shutil.rmtree(packed)
    shutil.rmtree(made)
