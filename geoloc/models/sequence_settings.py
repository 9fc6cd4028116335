"""Settings of networks over sequences of photos. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, setting


class SequenceNetworkSettings(Settings):
    """A network that answers for all photos of a sequence (sequence_network.py)."""

    kind: Literal["lstm", "repeated", "bidirectional", "transformer"] = setting(
        "lstm",
        help="lstm: sees earlier photos; repeated: an LSTM that sees all twice and answers at the second time; "
        "bidirectional: one LSTM from each end; transformer: sees all photos with the time between them",
    )
    hidden: int = setting(256, minimum=1, help="size of the state (of each direction)")
    layers: int = setting(1, minimum=1, help="number of layers")
    dropout: Number = setting(0.0, minimum=0.0, maximum=0.95, help="dropout of the states, in training")
    offset: int = setting(
        0,
        minimum=0,
        when=("kind", ("lstm",)),
        help="how many photos later a photo is answered for (PlaNet's label offset)",
    )
    heads: int = setting(
        4, minimum=1, when=("kind", ("transformer",)), help="attention heads; hidden is a multiple of them"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        if self.offset and self.kind != "lstm":
            raise SettingsError(f"{key}.offset must be 0 when kind is {self.kind}, got {self.offset}")
        if self.kind == "transformer" and self.hidden % self.heads:
            raise SettingsError(
                f"{key}.hidden must be a multiple of heads ({self.heads}) when kind is transformer, got {self.hidden}"
            )
