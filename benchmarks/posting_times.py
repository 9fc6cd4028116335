"""Times of posting on real metadata, from a YFCC100M table without pictures to p(cell | time): the data path of models
of time. Prints what is known, and what the time of posting says of the cell of photos by other photographers.

    python benchmarks/posting_times.py --yfcc ../shared/data/yfcc4k.tsv --figure posting-times.png
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from geoloc.evaluation.measures.bootstrap import interval, photographer_clusters, resampled_means
from geoloc.models.posting_time import TimePrior, time_parts
from geoloc.models.time_settings import TimePriorSettings
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.photos.catalog import read_catalog
from geoloc.photos.ingest import ingest
from geoloc.photos.owners import photographer_keys
from geoloc.photos.settings import IngestSettings
from geoloc.photos.sources import open_source
from geoloc.photos.splits import keyed_fractions
from geoloc.reports.track_figures import posting_figure

CELLS = S2Settings(max_photos=120, min_photos=10)


def main() -> int:
    """Print the table; write the figure."""
    parser = argparse.ArgumentParser(description="times of posting on real metadata")
    parser.add_argument("--yfcc", type=Path, required=True, help="YFCC100M metadata, tab-separated")
    parser.add_argument("--figure", type=Path, help="draw hours of posting by longitude, as PNG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder)
        source = open_source("yfcc", str(options.yfcc))
        ingest(pool, source, source="yfcc", photographer_key=b"a benchmark", settings=IngestSettings())
        photos = read_catalog(pool)
    known = photos["posted_at"].notna()
    print(
        f"{len(photos):,} photos by {photos['photographer'].nunique():,} photographers; time of posting "
        f"{known.sum():,}, camera's time {photos['taken_at'].notna().sum():,}, album {photos['album'].notna().sum():,}"
    )
    posted = photos.loc[known, "posted_at"]
    print(f"posted {posted.min():%Y-%m-%d} to {posted.max():%Y-%m-%d}")
    hours = np.bincount(time_parts(posted)[:, 0], minlength=24)
    print(
        f"quietest hour {hours.argmin()} UTC ({hours.min()} photos), busiest {hours.argmax()} ({hours.max()})"
    )
    owners = photographer_keys(photos)
    u = keyed_fractions(owners, 0, "posting times benchmark")
    train, held_out, test = ((u >= low) & (u < high) for low, high in ((0, 0.6), (0.6, 0.75), (0.75, 1)))
    partition = S2Partition(CELLS).fit(photos.loc[train, "latitude"], photos.loc[train, "longitude"])
    cells = partition.assign(photos["latitude"], photos["longitude"]).astype(np.int64)
    counts = np.bincount(cells[train & (cells >= 0)], minlength=partition.cell_count) + 1.0
    shares = np.tile((counts / counts.sum()).astype(np.float32), (len(photos), 1))
    prior = TimePrior.count(
        cells[train], photos.loc[train, "posted_at"], partition.answers(), TimePriorSettings()
    )
    prior = prior.calibrated(shares[held_out], photos.loc[held_out, "posted_at"], cells[held_out])
    used = np.flatnonzero(test & (cells >= 0) & known.to_numpy())
    timed = prior.apply(shares[used], photos["posted_at"].iloc[used])
    rows = np.arange(len(used))
    gain = np.log(timed[rows, cells[used]]) - np.log(shares[used][rows, cells[used]])
    clusters = photographer_clusters(owners.iloc[used])
    low, high = interval(resampled_means(gain[:, None], clusters, resamples=2000, seed=0))
    print(
        f"{partition.cell_count} cells; power {prior.power:.2f}; {len(used):,} test photos: log p(cell | time) - "
        f"log p(cell) = {gain.mean():+.3f} nats [{low[0]:+.3f}, {high[0]:+.3f}], by photographer"
    )
    if options.figure:
        options.figure.write_bytes(posting_figure(photos["longitude"], photos["posted_at"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
