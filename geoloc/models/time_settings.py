"""Settings of models of the time of posting. No heavy imports: the command line reads these."""

from __future__ import annotations

from geoloc.settings import Number, Settings, setting


class TimePriorSettings(Settings):
    """The prior p(cell | time) in closed form (posting_time.py)."""

    smoothing: Number = setting(
        20.0, minimum=0.001, help="photos of its surroundings that the times of a cell are drawn to"
    )


class TimeNetworkSettings(Settings):
    """The network of Multi-modal Geolocation, table 2 (M2); defaults are the paper's."""

    top: int = setting(10, minimum=1, help="most probable cells of the image model that the network sees")
    first: int | None = setting(
        None, minimum=1, help="neurons of the first layer; null: as many as inputs, cells + 4"
    )
    hidden: int = setting(1626, minimum=1, help="neurons of each of the three hidden layers; 542 × 3")
    dropout: Number = setting(
        0.5, minimum=0.0, maximum=0.95, help="dropout after each layer but the last, in training"
    )
