"""Settings of metric learning. No heavy imports: the command line reads these."""

from __future__ import annotations

import re
from typing import Literal

from geoloc.losses.settings import MetricLossSettings
from geoloc.models.settings import NAMED_WEIGHTS, RECIPE, Augmentation
from geoloc.settings import Name, Number, Settings, SettingsError, setting
from geoloc.training.loop_settings import LoopSettings

CLASSIFIER = "classifier"
"""The value of `start` for the backbone of the same recipe's trained classifier."""
METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,31}")
TAKEN_NAMES = ("L", "M", "backbone")
"""Names of other networks in tables, where the case of letters does not tell two apart."""
_BY_RADIUS = ("radius", "closest_in_radius")


class PositivesSettings(Settings):
    """Which pairs of training photos are positives and which negatives, by place.

    A pair of near-duplicates is neither: its pixels agree wherever it was taken.
    """

    kind: Literal["cell", "radius", "closest_in_radius"] = setting(
        "cell",
        help="cell: photos of one cell are positives; radius: photos within radius_km; closest_in_radius: the most "
        "similar of those (NetVLAD)",
    )
    partition: Name | None = setting(
        None, when=("kind", ("cell",)), help="the partition whose cells count; null: the first one"
    )
    radius_km: Number = setting(
        1.0, minimum=0.001, when=("kind", _BY_RADIUS), help="largest distance of positives"
    )
    closest: int = setting(
        1,
        minimum=1,
        when=("kind", ("closest_in_radius",)),
        help="positives of an anchor: its most similar photos within the radius",
    )
    negative_km: Number = setting(
        0.0,
        minimum=0.0,
        help="smallest distance of negatives; nearer photos that are no positives count as neither",
    )
    other_photographers: bool = setting(
        True,
        help="whether positives must be by two photographers; else cameras and outings teach what place should",
    )


class MiningSettings(Settings):
    """Hard negatives from all training photos: their embeddings are computed anew after every few epochs, and batches
    get photos from the neighbourhoods of the most similar photos that are negatives."""

    every_epochs: int = setting(1, minimum=1, help="epochs between two computations of all embeddings")
    nearest: int = setting(10, minimum=1, help="hard negatives per photo: the most similar ones")
    share: Number = setting(
        0.5, minimum=0.0, maximum=0.9, help="share of a batch's groups that are around hard negatives"
    )


class MetricSettings(LoopSettings):
    """How a metric network is trained: the settings of the loop and those of metric learning.

    A batch has batch_size / images_per_group groups of photos that are positive to each other (dissertation 5.3.1:
    8 × 4 in [R1], 64 × 32 in [R3]).
    """

    name: str = setting("R", help="the network's name in tables, without brackets: [R]NN, [R]kNN")
    start: str = setting(
        CLASSIFIER,
        help="initial weights: classifier (the backbone of this recipe's trained classifier), or a value of "
        "model.weights: none, package, registry, recipe:NAME (the backbone of that recipe's trained classifier; "
        "recipe:NAME/classifier if it also has a metric network), recipe:NAME/metric (that recipe's metric network, "
        "with its projection if embedding_size is equal) or a path to a .safetensors file",
    )
    batch_size: int = setting(32, minimum=2, help="photos per step")
    images_per_group: int = setting(
        4,
        minimum=2,
        help="photos of a cell (or neighbourhood) in a batch; it has batch_size / this many groups",
    )
    steps_per_epoch: int = setting(
        0, minimum=0, help="steps of an epoch; 0: as many as use each photo once on average"
    )
    embedding_size: int | None = setting(
        None, minimum=1, help="dimensions of a linear projection of the features; null: no projection"
    )
    trainable_blocks: int | None = setting(
        None, minimum=0, help="number of last blocks of the backbone that learn; null: all"
    )
    batch_norm: Literal["train", "eval"] | None = setting(
        None,
        help="eval: running statistics stay fixed in this training, as chunk_size needs; null: as model.batch_norm",
    )
    loss: MetricLossSettings = setting(MetricLossSettings(), help="what is minimised")
    positives: PositivesSettings = setting(PositivesSettings(), help="which pairs should be near each other")
    mining: MiningSettings | None = setting(None, help="hard negatives from all photos; null: random groups")
    chunk_size: int | None = setting(
        None,
        minimum=1,
        help="photos in the network at a time (dissertation algorithm 1): the memory of a small batch, for up to half "
        "more time; null: the whole batch",
    )
    augmentation: Augmentation | None = setting(
        Augmentation(), help="random changes of training photos; null: the centre crop"
    )
    select_by: Literal["recall_at_1", "accuracy_25km", "last"] = setting(  # type: ignore[assignment]
        "recall_at_1",
        help="the measure of validation photos that chooses the epoch whose weights are kept; last: the last epoch",
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        super().check(key)
        if not METHOD_NAME.fullmatch(self.name) or self.name.lower() in map(str.lower, TAKEN_NAMES):
            raise SettingsError(
                f"{key}.name must be ASCII letters, digits, _, + and -, at most 32, and none of "
                f"{', '.join(TAKEN_NAMES)}, which name other networks; got {self.name!r}"
            )
        named = self.start in (CLASSIFIER, *NAMED_WEIGHTS) or self.start.startswith(RECIPE)
        if not named and not self.start.endswith(".safetensors"):
            raise SettingsError(
                f"{key}.start must be {CLASSIFIER}, {', '.join(NAMED_WEIGHTS)}, recipe:NAME or a path that ends in "
                f".safetensors (no pickle is read); got {self.start!r}"
            )
        if self.batch_size % self.images_per_group or self.batch_size == self.images_per_group:
            raise SettingsError(
                f"{key}.batch_size must be 2 or more times images_per_group ({self.images_per_group}), "
                f"got {self.batch_size}"
            )
        if self.chunk_size is not None and self.batch_norm == "train":
            raise SettingsError(
                f"{key}.batch_norm must be eval with chunk_size, got train: the statistics would be those of a chunk"
            )
        if self.trainable_blocks == 0 and self.embedding_size is None:
            raise SettingsError(
                f"{key}.trainable_blocks must be at least 1, or null, when embedding_size is null: nothing would learn"
            )
