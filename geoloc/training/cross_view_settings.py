"""Settings of cross-view matching: street photos and overhead tiles. No heavy imports: the command line reads these."""

from __future__ import annotations

from typing import Annotated, Literal

from geoloc.losses.settings import MetricLossSettings
from geoloc.models.settings import Augmentation, ModelSettings
from geoloc.photos.pair_settings import PairSplitSettings
from geoloc.settings import Number, Settings, SettingsError, WholeNumber, setting
from geoloc.training.loop_settings import LoopSettings

EMBEDDING = ("embedding",)
WITH_TWO_VIEWS = ("embedding", "hybrid")

Rotations = Annotated[Literal[1, 4, 16], WholeNumber]


class OrientationSettings(Settings):
    """The auxiliary head that tells where the photo looks on the tile, from both features (dissertation 3.4.2).

    It regresses the sine and cosine of the angle: the angle itself jumps from 360 to 0 degrees at north, where the
    squared error would pull the answer to 180.
    """

    weight: Number = setting(1.0, minimum=0.0, help="weight of the orientation loss in the sum")
    hidden: int = setting(128, minimum=1, help="units of the head's hidden layer")


class HardPairsSettings(Settings):
    """Batches with hard negatives (Deuser et al., Sample4Geo, 2023): pairs whose tiles are hard to tell apart."""

    by: Literal["place", "embedding"] = setting(
        "place",
        help="place: the nearest pairs on the Earth; embedding: those whose tiles are most similar to the photo by the "
        "network as it is",
    )
    nearest: int = setting(16, minimum=1, help="candidates for the hard negatives of a pair")
    share: Number = setting(
        0.5, minimum=0.0, maximum=0.9, help="share of a batch's pairs that are hard negatives of the others"
    )
    every_epochs: int = setting(
        1, minimum=1, when=("by", ("embedding",)), help="epochs between two computations of all embeddings"
    )


class OverheadSearchSettings(Settings):
    """How photos are matched with tiles whose orientation relative to the photo is unknown (dissertation 3.4.1)."""

    rotations: Rotations = setting(16, help="rotations of each tile")
    matching: Literal["best", "sequence", "average"] = setting(
        "best",
        help="best: the best rotation; sequence: the best run of neighbouring rotations, as long as the network is "
        "invariant to; average: one embedding per tile, the mean over all rotations",
    )
    batch_size: int = setting(64, minimum=1, help="photos or tiles in the network at a time")

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        if self.matching != "best" and self.rotations == 1:
            raise SettingsError(f"{key}.rotations must be 4 or 16 when matching is {self.matching}, got 1")


class CrossViewSettings(LoopSettings):
    """How street photos are matched with overhead tiles: network, loss, rotations, search (dissertation, chapter 3).

    A batch has batch_size pairs of a photo and its tile.
    """

    splits: PairSplitSettings = setting(PairSplitSettings(), help="which pairs are held out")
    model: ModelSettings = setting(ModelSettings(), help="backbone and input size of both towers")
    kind: Literal["embedding", "classification", "hybrid"] = setting(
        "embedding",
        help="embedding: photo and tile are compared by the distance of their embeddings; classification: one network "
        "over both images as six channels; hybrid: a classifier over the features of both. The last two score pairs "
        "and cannot be indexed",
    )
    towers: Literal["separate", "shared_last_layer", "shared_but_batch_norm", "shared"] = setting(
        "separate", when=("kind", WITH_TWO_VIEWS), help="which weights the towers of photos and tiles share"
    )
    grid: int = setting(
        1,
        minimum=1,
        maximum=16,
        help="the last feature map is averaged over this many parts each way, in place of model.pooling, so that where "
        "things are stays known; 1: model.pooling",
    )
    embedding_size: int | None = setting(
        256,
        minimum=1,
        when=("kind", EMBEDDING),
        help="dimensions of a linear projection; null: no projection",
    )
    hidden: int = setting(
        512, minimum=1, when=("kind", ("hybrid",)), help="units of the hybrid's hidden layer"
    )
    batch_size: int = setting(32, minimum=2, help="pairs per step")
    trainable_blocks: int | None = setting(
        None, minimum=0, help="number of last blocks of each backbone that learn; null: all"
    )
    loss: MetricLossSettings = setting(
        MetricLossSettings(distance="squared_euclidean"),
        when=("kind", EMBEDDING),
        help="loss of embeddings; a kind of pairs (contrastive, dbl_pairs) makes a Siamese network, one of triplets "
        "(hinge_triplet, soft_triplet) a triplet network, info_nce the symmetric contrastive loss",
    )
    negatives: Literal["all", "one"] = setting(
        "all",
        when=("kind", EMBEDDING),
        help="all: every other pair of the batch is a negative, in both directions (exhaustive: eDBL); one: each photo "
        "has one random tile",
    )
    negative_km: Number = setting(
        0.05, minimum=0.0, help="smallest distance of negatives: nearer tiles show the place too"
    )
    mining: HardPairsSettings | None = setting(None, help="hard negatives in batches; null: random batches")
    rotation_range: Annotated[Literal[0, 45, 90, 180, 360], WholeNumber] = setting(
        360,
        help="degrees of rotation that the network should be invariant to: in training tiles are turned by up to half "
        "of it either way from the photo's heading",
    )
    orientation: OrientationSettings | None = setting(
        None, when=("kind", EMBEDDING), help="orientation regression; null: none"
    )
    polar: bool = setting(
        False, help="polar transform of tiles: columns are bearings, rows distances (Shi et al., SAFA, 2019)"
    )
    field_of_view: Number | None = setting(
        None,
        minimum=1.0,
        maximum=360.0,
        help="photos are panoramas, centred on their heading, of which this many degrees are used; null: plain photos",
    )
    tile_jitter: Number = setting(
        0.1, minimum=0.0, maximum=0.5, help="largest relative change of a tile's scale in training"
    )
    augmentation: Augmentation | None = setting(
        Augmentation(minimum_area=0.7, flip=False),
        help="random crops of training photos; null: the centre crop",
    )
    select_by: Literal["reciprocal_rank", "recall_at_1", "verification_accuracy", "last"] = setting(  # type: ignore[assignment]
        "reciprocal_rank",
        help="the measure of validation pairs that chooses the epoch whose weights are kept; last: the last epoch",
    )
    search: OverheadSearchSettings = setting(
        OverheadSearchSettings(),
        help="how the trained network is searched with; the training does not use it",
    )

    @property
    def indexed(self) -> bool:
        """Whether tiles can be indexed: they have embeddings."""
        return self.kind == "embedding"

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        super().check(key)
        if self.augmentation is not None and self.augmentation.flip:
            raise SettingsError(f"{key}.augmentation.flip must be false: a mirrored photo is of no place")
        if self.model.softmax != "flat":
            raise SettingsError(f"{key}.model.softmax must be flat, got {self.model.softmax}")
        if self.kind != "embedding" and self.select_by not in ("verification_accuracy", "last"):
            raise SettingsError(
                f"{key}.select_by must be verification_accuracy or last when kind is {self.kind}, got {self.select_by}"
            )
        if self.towers == "shared_last_layer" and self.embedding_size is None and self.kind == "embedding":
            raise SettingsError(
                f"{key}.embedding_size must be a number when towers is shared_last_layer: without a projection there "
                "is no last layer to share"
            )
        if self.towers == "shared_last_layer" and self.kind == "hybrid":
            raise SettingsError(f"{key}.towers must not be shared_last_layer when kind is hybrid")
        if self.kind != "embedding" and self.mining is not None and self.mining.by == "embedding":
            raise SettingsError(f"{key}.mining.by must be place when kind is {self.kind}, got embedding")
        if self.trainable_blocks == 0 and self.embedding_size is None and self.kind == "embedding":
            raise SettingsError(
                f"{key}.trainable_blocks must be at least 1, or null, when embedding_size is null: nothing would learn"
            )
