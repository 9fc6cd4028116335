"""R@1 of each layer of networks, of training photos and of unseen classes (dissertation, figures 4.2 to 4.5)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.ticker import MaxNLocator

from geoloc.reports.style import drawing, method_colour, new_figure, png

_PARTS = (("train", (0, (5, 1.5))), ("test", "-"))
_COLUMNS = 3


def layers_figure(table: pd.DataFrame, net: str, k: int = 1) -> bytes:
    """A PNG of R@k of all layers of one network after its last epoch, from input to output: figure 4.2.

    `table` has the columns net, layer, part, epoch, k, recall of evaluation.which_layer.study.
    """
    of_net = table[(table["net"] == net) & (table["k"] == k)]
    of_net = of_net[of_net["epoch"] == of_net["epoch"].max()]
    layers = list(dict.fromkeys(of_net["layer"]))
    with drawing():
        figure = new_figure(7.5, 3.6)
        axes = figure.add_subplot()
        for number, (part, dash) in enumerate(_PARTS):
            values = 100 * of_net[of_net["part"] == part].set_index("layer")["recall"].reindex(layers)
            axes.plot(layers, values, marker="o", ms=4, ls=dash, color=method_colour(number), label=part)
        axes.set_ylabel(f"R@{k}, %")
        axes.set_title(f"{net}: R@{k} of each layer")
        axes.tick_params(axis="x", rotation=45)
        axes.legend()
        return png(figure, dpi=110)


def epochs_figure(table: pd.DataFrame, nets: Sequence[str], layers: int = 4, k: int = 1) -> bytes:
    """A PNG of R@k of the last `layers` layers of networks over the epochs, a panel a network: figures 4.3 to 4.5.

    Dashed lines are of the training photos. `table` is as `layers_figure` has it. Raises ValueError without a network.
    """
    if not nets:
        raise ValueError("epochs_figure needs at least one network, got none")
    chosen = table[(table["k"] == k) & table["net"].isin(nets)]
    colours: dict[str, str] = {}
    rows = -(-len(nets) // _COLUMNS)
    with drawing():
        figure = new_figure(3.6 * min(len(nets), _COLUMNS) + 0.4, 3.1 * rows)
        panels = figure.subplots(rows, min(len(nets), _COLUMNS), squeeze=False, sharex=True, sharey=True)
        for axes, net in zip(panels.ravel(), nets, strict=False):
            of_net = chosen[chosen["net"] == net]
            for layer in list(dict.fromkeys(of_net["layer"]))[-layers:]:
                colour = colours.setdefault(layer, method_colour(len(colours)))
                for part, dash in _PARTS:
                    line = of_net[(of_net["layer"] == layer) & (of_net["part"] == part)].sort_values("epoch")
                    label = layer if part == "test" else None
                    axes.plot(line["epoch"], 100 * line["recall"], ls=dash, color=colour, label=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_title(net)
            axes.legend(fontsize=8)
            axes.set_xlabel("epoch")
        for unused in panels.ravel()[len(nets) :]:
            unused.set_visible(False)
        panels[0, 0].set_ylabel(f"R@{k}, % (dashed: training photos)")
        return png(figure, dpi=110)
