"""A build for `geoloc locate` that is put together by hand: no training, and answers that can be worked out again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from geoloc.files import write_json, write_parquet
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.models.classifier import build_classifier, load_model, save_model
from geoloc.models.embedder import build_embedder
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.photos.catalog import read_catalog
from geoloc.photos.ingest import ingest
from geoloc.photos.settings import IngestSettings
from geoloc.photos.sources import open_source
from geoloc.photos.splits import FACTS
from geoloc.retrieval.embeddings import Embeddings, extract_embeddings
from geoloc.retrieval.index import ReferenceIndex
from orchestration.assets.inputs import load_partitions, model_settings
from orchestration.lineage.build import Build
from orchestration.plan.chain import MODEL_FILE, STAGES, output_folder
from orchestration.workspace import Workspace
from tests.photo_fixtures import KEY, jpeg
from tests.pipeline.conftest import geoloc
from tests.unit.localizer_world import photos
from tests.unit.pretended import bare_workspace, record_as_built

SETTINGS = {
    "seed": 4,
    "partitions": {"fine": {"s2": {}}, "coarse": {"s2": {}}},
    "model": {"backbone": "squeezenet1_1", "image_size": 40, "resize_short_side": 40},
    "localizers": {"crops": 5},
}
TEMPERATURE = 0.4
COUNT, TRAINING = 44, 40


def make(root: Path) -> Workspace:
    """A workspace with 44 photos, two nested partitions of 40 of them, and a network nobody trained."""
    workspace = bare_workspace(root, SETTINGS)
    latitude, longitude = photos(COUNT, seed=2)
    folder = root / "files"
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    table = pd.DataFrame(
        {"photo_id": [f"p{i}" for i in range(COUNT)], "file": [f"{i}.jpg" for i in range(COUNT)]}
    )
    table.assign(latitude=latitude, longitude=longitude, photographer="a").to_csv(
        folder / "t.csv", index=False
    )
    ingest(
        workspace.pool,
        open_source("table", str(folder / "t.csv")),
        source="tests",
        photographer_key=KEY,
        settings=IngestSettings(),
    )
    catalog = read_catalog(workspace.pool)
    assert len(catalog) == COUNT
    split = np.where(np.arange(COUNT) < TRAINING, "train", "test")
    splits = catalog[["photo_id", *FACTS]].assign(split=split, reason="")
    write_parquet(output_folder(workspace, "default", "splits") / "splits.parquet", splits)
    record(workspace, "splits")
    put_partitions(workspace, {"fine": 3, "coarse": 15})
    put_network(workspace)
    put_index(workspace)
    put_calibration(workspace, {"fine": {0.5: 0.55, 0.9: 0.93}, "coarse": {0.9: float("inf")}})
    return workspace


def record(workspace: Workspace, *stages: str) -> None:
    """Record what is in the folders of these stages as built just now."""
    for stage in stages:
        record_as_built(Build(workspace), STAGES[stage])


def put_partitions(workspace: Workspace, most: dict[str, int]) -> None:
    train = read_catalog(workspace.pool).head(TRAINING)
    folder = output_folder(workspace, "default", "partition")
    for name, count in most.items():
        settings = S2Settings(max_photos=count, min_photos=1, max_level=10)
        S2Partition(settings).fit(train["latitude"], train["longitude"]).save(folder / name)
    write_json(folder / "partitions.json", list(most))
    record(workspace, "partition")


def put_network(workspace: Workspace, seed: int = 1) -> None:
    partitions = load_partitions(output_folder(workspace, "default", "partition"))
    heads = {name: partition.cell_count for name, partition in partitions.items()}
    network = build_classifier(Build(workspace).settings.model, heads, seed=seed)
    with torch.no_grad():
        network.head.weight *= 3  # so that it is not equally unsure of all cells
    save_model(output_folder(workspace, "default", "classifier") / MODEL_FILE, network)
    record(workspace, "classifier")


def put_index(workspace: Workspace) -> None:
    """Embeddings by the network, and by its backbone with its first weights, and an index over them."""
    build, catalog = Build(workspace), read_catalog(workspace.pool)
    networks = {
        "features": build_embedder(model_settings(build), build.settings.seed).eval(),
        "embeddings": load_model(build.folder("classifier") / MODEL_FILE),
    }
    for stage, network in networks.items():
        extract_embeddings(network, workspace.pool, catalog, build.folder(stage), build.settings.embeddings)
        record(workspace, stage)
    for stage, model in (("features", "backbone"), ("embeddings", "classifier")):
        made = Embeddings.load(build.folder(stage))
        index = ReferenceIndex.build(made, catalog.head(TRAINING), build.settings.index, seed=4)
        index.save(build.folder("index") / model)
    record(workspace, "index")


def put_calibration(workspace: Workspace, thresholds: dict[str, dict[float, float]]) -> None:
    temperatures, regions = {}, {}
    for name, of in thresholds.items():
        temperatures[name] = TemperatureScaling()
        temperatures[name].temperature = TEMPERATURE
        regions[name] = tuple(ConformalRegions(coverage) for coverage in of)
        for one, threshold in zip(regions[name], of.values(), strict=True):
            one.threshold = threshold
    folder = output_folder(workspace, "default", "evaluation")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluations.json", [])
    Calibration(temperatures, regions).save(folder)
    record(workspace, "evaluation")


def files(workspace: Workspace, *numbers: int) -> list[str]:
    return [str(workspace.root / "files" / f"{number}.jpg") for number in numbers]


def ask(workspace: Workspace, capsys, *options: str) -> list[dict]:
    """The answers in JSON."""
    assert geoloc(workspace, "locate", *options, "--json") == 0
    return json.loads(capsys.readouterr().out)
