"""Settings of retrieval, apart from the heavy modules that use them."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, setting


class EmbeddingSettings(Settings):
    """How embeddings are extracted and stored."""

    models: tuple[Literal["classifier", "backbone"], ...] = setting(
        ("classifier", "backbone"),
        help="whose embeddings a build extracts: the trained classifier's, its initial backbone's",
    )
    batch_size: int = setting(32, minimum=1, help="photos in one forward pass")
    dtype: Literal["float16", "float32"] = setting("float16", help="of the stored numbers")
    shard_rows: int = setting(
        16_384,
        minimum=1,
        help="photos in one part; rounded up to whole batches, so that a resumed run batches alike",
    )
    workers: int = setting(0, minimum=0, counts=False, help="decoding threads; 0: as many as processors")
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", help="of the forward pass (autocast)"
    )

    @property
    def of_backbone(self) -> bool:
        """Whether embeddings by the backbone with its first weights are wanted."""
        return "backbone" in self.models

    @property
    def of_classifier(self) -> bool:
        """Whether embeddings by the trained classifier are wanted."""
        return "classifier" in self.models


class IndexSettings(Settings):
    """Which FAISS index, and how hard it searches."""

    factory: str = setting("auto", help='a FAISS factory string, or "auto": by the number of references')
    nprobe: int = setting(0, minimum=0, help="lists probed by an IVF index; 0: a sixteenth of them")
    k_factor: int = setting(10, minimum=1, help="Refine: candidates re-ranked for each neighbour asked for")
    blas_threshold: int = setting(
        20, minimum=0, help="FAISS's distance_compute_blas_threshold while searching; 0: leave FAISS's own"
    )


class DensitySettings(Settings):
    """Equation 1's parameters; k = 100 and m = 10 are the paper's, which varies σ over 1, 4 and 16."""

    k: int = setting(100, minimum=1, help="neighbours that vote")
    m: Number = setting(10.0, minimum=0.0, help="power of the similarity: a neighbour weighs s^m")
    sigma: Number = setting(4.0, minimum=1e-6, help="width of the Gaussian kernel, degrees")
    flat: bool = setting(False, help="flat degrees as printed in the paper, instead of the sphere")
    alternatives: int = setting(5, minimum=1, help="peaks to report, the answer included")
