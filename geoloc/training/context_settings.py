"""Settings of models of time, albums and people. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.models.sequence_settings import SequenceNetworkSettings
from geoloc.models.time_settings import TimeNetworkSettings, TimePriorSettings
from geoloc.photos.settings import SequenceSettings
from geoloc.settings import Number, SettingsError, setting
from geoloc.training.loop_settings import LoopSettings


class TimeSettings(LoopSettings):
    """How the answers of an image model are corrected by the time of posting: the section `time`."""

    network: TimeNetworkSettings | None = setting(
        TimeNetworkSettings(), help="Multi-modal Geolocation's M2; null: none"
    )
    prior: TimePriorSettings | None = setting(
        TimePriorSettings(),
        help="p(cell | time) in closed form, its power fitted on validation photos; null: none",
    )
    daylight: bool = setting(
        False, help="also weigh cells by whether the sun is up there when the camera's clock shows the hour"
    )


class SequenceModelSettings(LoopSettings):
    """How a network over sequences is trained: `albums.networks`, by name. Rows of PlaNet's table 2b and of M3
    are values of these: see benchmarks/albums.py."""

    network: SequenceNetworkSettings = setting(SequenceNetworkSettings())
    sequences: SequenceSettings = setting(SequenceSettings())
    inputs: Literal["embeddings", "top_cells"] = setting(
        "embeddings",
        help="embeddings: of the image model; top_cells: its most probable cells, their sum, and the time of posting",
    )
    train_on: Literal["context", "all"] = setting(
        "context",
        help="context: photos of the split context; all: of train too, whose embeddings are as those of new photos "
        "where the backbone has not learned from them",
    )
    length: int | None = setting(
        None, minimum=1, help="longer sequences are cut into pieces of so many photos; null: whole"
    )
    one_per_group: bool = setting(
        False, help="train on one random sequence of each album or person an epoch (M3); else on all"
    )
    batch_size: int = setting(16, minimum=1, help="sequences per step")
    gradient_clip: Number = setting(1.0, minimum=0.0, help="largest norm of the gradient; 0: no limit")

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        super().check(key)
        if self.train_on == "all" and self.inputs != "embeddings":
            raise SettingsError(
                f"{key}.train_on must be context where inputs is {self.inputs}: of train there are no probabilities by "
                "a classifier that has not seen it; got all"
            )
        if self.network.kind == "transformer" and self.length is None:
            raise SettingsError(
                f"{key}.length must be given when network.kind is transformer, whose memory grows with its square"
            )
