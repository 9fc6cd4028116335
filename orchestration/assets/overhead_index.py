"""Stage overhead_index: the tiles of the test cities as an index that street photos are matched with."""

from __future__ import annotations

import dataclasses

import numpy as np

from geoloc.localizers.by_overhead.calibration import Calibration, calibrate
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import make_index
from geoloc.models.cross_view_prediction import embed_tiles, headings_of
from geoloc.models.matching import bearings, distances, indexed_rotations
from geoloc.photos.splits import TEST, VALIDATION
from geoloc.training.cross_view import embed_pairs
from geoloc.training.cross_view_pairs import PairSource
from orchestration.assets.inputs import cross_view_settings, pair_sources
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun

CALIBRATED = 5000
"""The most validation pairs that the calibration is of: each is compared with all."""


def build(run: StageRun) -> StageResult:
    settings = cross_view_settings(run.build)
    search = settings.search
    embedder = CrossViewEmbedder.open(run.input("cross_view_model") / MODEL_FILE, search.batch_size)
    network = embedder.network
    test, validation = pair_sources(run.build, network, (TEST, VALIDATION))

    calibration = _calibration(run, embedder, validation)
    once = test.pairs.rows.drop_duplicates("overhead_id")
    every = once.index.to_numpy()
    tiles = once[["overhead_id", "tile_latitude", "tile_longitude", "metres_per_pixel", "city"]].rename(
        columns={"tile_latitude": "latitude", "tile_longitude": "longitude"}
    )
    vectors = embed_tiles(
        network,
        test.tiles(np.arange(len(test)), search.batch_size),
        len(test),
        bearings(search.rotations),
        settings.precision,
    )[every]
    index = make_index(embedder, tiles.reset_index(drop=True), vectors, search, calibration)
    index.write(run.output)
    run.log(f"{index!r}, {len(once) - len(index)} tiles unreadable")
    facts = {"tiles": len(index), "rotations": index.vectors.shape[1], "dimensions": index.vectors.shape[2]}
    if calibration is not None:
        facts |= {
            f"calibration/{name.replace('_', ' ')}": value
            for name, value in vars(calibration).items()
            if value is not None
        }
    return StageResult({**facts, "unreadable": len(once) - len(index)})


def _calibration(run: StageRun, embedder: CrossViewEmbedder, validation: PairSource) -> Calibration | None:
    """What validation pairs tell: what a match is, how sure it is, and how far headings are off at the own tile."""
    settings, network = cross_view_settings(run.build), embedder.network
    search, shape = settings.search, network.shape
    if len(validation) > CALIBRATED:
        kept = np.linspace(0, len(validation) - 1, CALIBRATED).astype(np.int64)
        validation = dataclasses.replace(validation, pairs=validation.pairs.only(kept))
    photos, turned = embed_pairs(network, validation, search.rotations, search.batch_size, settings.precision)
    held, up = indexed_rotations(turned, search.matching, shape.rotation_range, shape.normalise)
    apart, best = distances(photos, held)
    own = np.arange(len(photos))
    if search.matching != "average":
        found = headings_of(network, photos, held[own, best[own, own]], up[best[own, own]])
    elif network.tells_orientation:
        found = headings_of(network, photos, turned[:, 0], np.zeros(len(photos)))
    else:
        found = np.full(len(photos), np.nan)
    wrong = validation.pairs.unmatched(settings.negative_km, run.settings.seed)
    errors = (found - validation.pairs.heading + 180) % 360 - 180
    return calibrate(apart, apart[own, wrong][wrong >= 0], errors)
