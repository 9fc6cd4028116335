"""World maps of several partitions, one panel each, with one colour scale: as figure 2 of Revisiting IM2GPS."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, NullFormatter

from geoloc.partitions.base import Partition
from geoloc.reports.maps import world_axes
from geoloc.reports.style import drawing, new_figure, png

_COLUMNS = 2
_SMALL_CELL = 2.5  # degrees: if all cells of a kind are smaller (cities), only dots are visible


def partition_panels(partitions: Mapping[str, Partition]) -> bytes:
    """Returns maps of fitted partitions as one PNG, in order, without Antarctica.

    Each panel has the partition's name, its number of cells, and the number of equal cells that would be as hard to
    guess. Colours are shares of the photos that it was fitted on, on the same scale in all panels. Raises ValueError
    without partitions.
    """
    if not partitions:
        raise ValueError("partition_panels needs at least one partition, got none")
    shares = {name: one.photo_counts() / one.fitted_photos for name, one in partitions.items()}
    low = min(float(some[some > 0].min()) for some in shares.values())
    high = max(float(some.max()) for some in shares.values())
    norm = LogNorm(low, max(high, 1.001 * low))
    rows = -(-len(partitions) // _COLUMNS)
    with drawing():
        figure = new_figure(13.0, 2.8 * rows + 0.6)
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.8 * rows, 0.6]).ravel()
        parts = above.subfigures(rows, _COLUMNS, squeeze=False).ravel()
        for part, (name, partition) in zip(parts, partitions.items(), strict=False):
            outlines = [
                (ring[:, ::-1], cell)
                for cell in range(partition.cell_count)
                for ring in partition.rings(cell)
            ]
            rings, owner = [ring for ring, _ in outlines], np.array([cell for _, cell in outlines])
            here = world_axes(part)
            shown = np.maximum(shares[name][owner], low)
            cells = PolyCollection(
                rings, cmap="viridis_r", norm=norm, linewidths=0.3, edgecolors="#ffffff", alpha=0.75, zorder=2
            )
            cells.set_array(shown)
            here.add_collection(cells)
            if max(float(np.ptp(ring, axis=0).max()) for ring in rings) < _SMALL_CELL:
                middles = np.array([(ring.min(axis=0) + ring.max(axis=0)) / 2 for ring in rings])
                across, up = middles.T
                here.scatter(across, up, s=9, c=shown, cmap="viridis_r", norm=norm, linewidths=0, zorder=4)
            here.set_title(
                f"{name}: {partition.cell_count:,} cells, as hard to guess as "
                f"{partition.effective_classes():,.0f} equal ones",
                fontsize=10,
            )
        bar = below.colorbar(
            ScalarMappable(norm, "viridis_r"),
            cax=below.add_axes((0.3, 0.7, 0.4, 0.2)),
            orientation="horizontal",
        )
        bar.outline.set_visible(False)
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
        bar.set_label("share of all photos in a cell (log scale)", fontsize=8.5)
        return png(figure, dpi=110)
