"""How long it takes to answer a collection by album: averages, the Markov model and the networks of a built recipe.

    python benchmarks/album_pass.py --workspace DIR --recipe planet_albums --photos 20000 100000

The test photos of the build are repeated, each time as other people's, until there are enough. It times what the
evaluation does: parts of whole people, sequences, and the answers of every method from stored probabilities and
embeddings. Prints seconds by method, and what a million photos would take at the rate of the largest run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from geoloc.localizers.by_album.context import AlbumModels, ContextMethods, SeenPhotos, by_person
from geoloc.localizers.settings import AlbumSettings
from geoloc.models.stored_probabilities import StoredProbabilities
from geoloc.photos.splits import TEST
from geoloc.retrieval.embeddings import Embeddings
from geoloc.settings import replace
from orchestration.assets.context_answers import CELLS_AT_ONCE
from orchestration.assets.inputs import load_partitions
from orchestration.lineage.build import Build
from orchestration.workspace import Workspace


def test_photos(build: Build) -> SeenPhotos:
    """The build's test photos with their probabilities and embeddings."""
    stored = StoredProbabilities.load(build.folder("class_probabilities"))
    photos = stored.photos[stored.photos["split"] == TEST].reset_index(drop=True)
    vectors = Embeddings.load(build.folder("embeddings")).subset(photos["photo_id"]).vectors
    return SeenPhotos(photos, stored.of(photos), vectors.astype(np.float32))


def repeated(seen: SeenPhotos, count: int) -> SeenPhotos:
    """`count` photos, or a few more: the given ones again and again, by other people each time."""
    times = -(-count // len(seen.photos))
    rows = np.tile(np.arange(len(seen.photos)), times)
    copy = pd.Series(np.repeat(np.arange(times), len(seen.photos)).astype(str))
    more = seen.take(rows)
    for column in ("photo_id", "photographer", "album"):
        known = more.photos[column].notna()
        more.photos[column] = (more.photos[column].astype(str) + "-" + copy).where(known)
    return more


def parts_of(settings: AlbumSettings) -> dict[str, AlbumSettings]:
    """Settings that have one method each, by name."""
    nothing = replace(settings, averages=[], hmm=None, networks={})
    found = {f"{by} average": replace(nothing, averages=[by]) for by in settings.averages}
    if settings.hmm is not None:
        found["HMM"] = replace(nothing, hmm=settings.hmm)
    return found | {name: replace(nothing, networks={name: one}) for name, one in settings.networks.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="seconds of an album pass")
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--recipe", default="planet_albums")
    parser.add_argument("--photos", type=int, nargs="+", default=[20_000, 100_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    build = Build(Workspace.open(options.workspace), options.recipe)
    settings = build.settings.albums
    assert settings is not None, f"{options.recipe} has no section albums"
    partition = next(iter(load_partitions(build.folder("partition")).values()))
    base, models = test_photos(build), AlbumModels.load(build.folder("album_models"), settings)
    methods = {}
    for name, one in parts_of(settings).items():
        networks = {network: models.networks[network] for network in one.networks}
        methods[name] = ContextMethods(partition, None, AlbumModels(one, models.transitions, networks))
    size = 0 if base.vectors is None else base.vectors.shape[1]
    print(f"{options.recipe}: {partition.cell_count} cells, embeddings of {size} numbers, one thread")
    print(f"{'seconds of processor time, by photos':<40}" + "".join(f"{n:>12,}" for n in options.photos))
    table: dict[str, list[float]] = {name: [] for name in methods}
    for count in options.photos:
        seen = repeated(base, count)
        for name, one in methods.items():
            started = time.process_time()
            for rows in by_person(seen.photos, max(CELLS_AT_ONCE // partition.cell_count, 1)):
                one.answers(seen.take(rows))
            table[name].append(time.process_time() - started)
    for name, seconds in table.items():
        print(f"{name:<40}" + "".join(f"{one:>12.1f}" for one in seconds))
    total = [sum(column) for column in zip(*table.values(), strict=True)]
    print(f"{'all':<40}" + "".join(f"{one:>12.1f}" for one in total))
    print(
        f"a million photos, all methods, at the last rate: {total[-1] * 1e6 / options.photos[-1] / 60:.1f} minutes"
    )


if __name__ == "__main__":
    main()
