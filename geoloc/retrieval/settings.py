"""Settings of retrieval, separate from the heavy modules that use them."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from geoloc.models.settings import LayerSettings
from geoloc.settings import Number, Settings, SettingsError, setting

METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,31}")
"""Names of networks in tables, without their brackets."""
EXTERNAL_NAMES_TAKEN = ("L", "M", "backbone")
EXTERNAL_KINDS = (".npy", ".parquet")


class PcaSettings(Settings):
    """Principal components of the training photos' embeddings, in place of the embeddings."""

    dimensions: int = setting(128, minimum=1, help="number of components, those with the most variance")
    whiten: bool = setting(
        True,
        help="divide each component by its standard deviation (Jegou and Chum, Negative evidences, 2012)",
    )
    max_photos: int = setting(
        200_000, minimum=2, help="training photos to fit on; of more, a random sample by the seed"
    )
    seed: int = setting(0, minimum=0, help="seed of that sample")


class ExternalSettings(Settings):
    """Embeddings that another program made, of the photos of this pool."""

    name: str = setting(
        help="the model's name in tables, without brackets: NetVLAD gives [NetVLAD]NN, [NetVLAD]kNN"
    )
    file: str = setting(
        help="path to the embeddings: .parquet (a column of ids, a column of lists or a column a dimension), or .npy "
        "(a row a photo) with `ids`"
    )
    ids: str = setting(
        "",
        help="of .npy: path to a text file with the photo id of each row, a line each; empty: FILE.txt beside it",
    )

    pca: PcaSettings | None = setting(None, help="reduce them to principal components; null: no")

    def check(self, key: str) -> None:
        """Raise SettingsError for a name or file that cannot be."""
        if not METHOD_NAME.fullmatch(self.name) or self.name.lower() in map(str.lower, EXTERNAL_NAMES_TAKEN):
            raise SettingsError(
                f"{key}.name must be ASCII letters, digits, _, + and -, at most 32, and none of "
                f"{', '.join(EXTERNAL_NAMES_TAKEN)}, which name other networks; got {self.name!r}"
            )
        if not self.file.lower().endswith(EXTERNAL_KINDS):
            raise SettingsError(
                f"{key}.file must be a path that ends in {' or '.join(EXTERNAL_KINDS)} (no pickle is read); "
                f"got {self.file!r}"
            )
        if self.ids and not self.file.lower().endswith(".npy"):
            raise SettingsError(
                f"{key}.ids must be empty where file is a .parquet, which has ids; got {self.ids!r}"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that are read: the embeddings, and the ids of .npy."""
        if not self.file.lower().endswith(".npy"):
            return (self.file,)
        return (self.file, self.ids or f"{self.file[:-4]}.txt")


class EmbeddingSettings(Settings):
    """How embeddings are extracted and stored."""

    models: tuple[Literal["classifier", "backbone"], ...] = setting(
        ("classifier", "backbone"),
        help="models whose embeddings are extracted: the trained classifier, its initial backbone",
    )
    batch_size: int = setting(32, minimum=1, help="photos in one forward pass")
    dtype: Literal["float16", "float32"] = setting("float16", help="dtype of the stored embeddings")
    shard_rows: int = setting(
        16_384,
        minimum=1,
        help="photos in one part; rounded up to whole batches, so that a resumed run has the same batches",
    )
    workers: int = setting(0, minimum=0, counts=False, help="decoding threads; 0: one per processor")
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", help="precision of the forward pass (autocast)"
    )

    layer: LayerSettings | None = setting(
        None,
        help="embed with the output of this layer of each network; null: the last one",
    )
    pca: PcaSettings | None = setting(
        None, help="reduce the models' embeddings to principal components; null: no"
    )
    external: ExternalSettings | None = setting(
        None, help="embeddings that another program made, beside those of the models; null: none"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError for a repeated model."""
        if len(set(self.models)) < len(self.models):
            raise SettingsError(f"{key}.models must name each value once, got {list(self.models)}")

    @property
    def of_backbone(self) -> bool:
        """Whether embeddings by the backbone with its first weights are extracted."""
        return "backbone" in self.models

    @property
    def of_classifier(self) -> bool:
        """Whether embeddings by the trained classifier are extracted."""
        return "classifier" in self.models


class IndexSettings(Settings):
    """The type of FAISS index, and how thoroughly it searches."""

    factory: str = setting(
        "auto",
        help='a FAISS factory string, or "auto": chosen by the number of references, memory and recall',
    )
    memory_gb: Number = setting(
        0.0, minimum=0.0, help="auto: the most memory that the index may take, in GB; 0: no limit"
    )
    recall: Number = setting(
        0.95,
        minimum=0.5,
        maximum=1.0,
        help="wanted share of the true 100 nearest; 1: the exact index. What is not exact is tuned to it",
    )
    tune_queries: int = setting(
        200, minimum=0, help="references with which recall is measured and tuned; 0: not at all"
    )
    nprobe: int = setting(
        0, minimum=0, help="IVF index: number of lists to probe; 0: tuned, or a sixteenth of all"
    )
    ef_search: int = setting(
        0, minimum=0, help="HNSW index: length of the list of candidates; 0: tuned, or FAISS's default"
    )
    k_factor: int = setting(
        10,
        minimum=1,
        help="Refine: candidates to re-rank per requested neighbour; tuning takes half to 4 times as many",
    )
    train_per_list: int = setting(
        256, minimum=39, help="IVF index: references per list with which it is trained, chosen at random"
    )
    shard_rows: int = setting(
        1_000_000,
        minimum=1,
        help="IVF index without fast scan: references of one shard; shards are filled at the same time and merged",
    )
    workers: int = setting(0, minimum=0, counts=False, help="shards filled at a time; 0: one per processor")
    grow: bool = setting(
        False,
        help="add what is new to the index before, without training again, rather than build anew: the index then "
        "depends on how the collection grew",
    )
    drift: Number = setting(
        1.5,
        minimum=1.0,
        help="growth of the imbalance of the lists since training that asks for training again",
    )
    device: Literal["cpu", "auto"] = setting(
        "cpu",
        help="where it searches; auto: on a GPU where there is one, Flat and plain IVF indexes only; similarities then "
        "differ in the last bits",
    )
    blas_threshold: int = setting(
        20, minimum=0, help="FAISS's distance_compute_blas_threshold while searching; 0: FAISS's default"
    )


def _iso(value: Any) -> Any:
    """A date or time that YAML has read, as text."""
    return value.isoformat() if isinstance(value, date) else value


IsoTime = Annotated[str, BeforeValidator(_iso)]
"""A date or time as ISO 8601 writes it, such as 2012-05-31; empty: none."""


class ReferenceSettings(Settings):
    """Which references may be found; all that is given must hold. The index itself is of all training photos."""

    sources: tuple[str, ...] = setting((), help="photos of these sources; empty: of any")
    taken_from: IsoTime = setting(
        "", help="photos taken at this time or later, such as 2012-05-31; empty: any"
    )
    taken_until: IsoTime = setting("", help="photos taken before this time; empty: any")
    data_version: str = setting(
        "", help="photos that this data version had already (md5 in its data.dvc); empty: any"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if nothing is given, and for what is no time or an empty span."""
        if self == ReferenceSettings():
            raise SettingsError(
                f"{key} must give at least one of {', '.join(type(self).model_fields)}; got none"
            )
        times = []
        for name in ("taken_from", "taken_until"):
            value = getattr(self, name)
            try:
                times.append(datetime.fromisoformat(value).replace(tzinfo=None) if value else None)
            except ValueError:
                raise SettingsError(
                    f"{key}.{name} must be a date or time such as 2012-05-31, got {value!r}"
                ) from None
        first, last = times
        if first is not None and last is not None and first >= last:
            raise SettingsError(
                f"{key}.taken_from must be before taken_until, {self.taken_until}; got {self.taken_from}"
            )


class DensitySettings(Settings):
    """Parameters of equation 1. k = 100 and m = 10 are the paper's values; it tries σ = 1, 4 and 16."""

    k: int = setting(100, minimum=1, help="number of neighbours that vote")
    m: Number = setting(10.0, minimum=0.0, help="power of the similarity s: a neighbour has weight s^m")
    sigma: Number = setting(4.0, minimum=1e-6, help="width of the Gaussian kernel in degrees")
    flat: bool = setting(False, help="use flat degrees, as printed in the paper, instead of the sphere")
    alternatives: int = setting(5, minimum=1, help="number of peaks to report, including the answer")
