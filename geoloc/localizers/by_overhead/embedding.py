"""A trained cross-view network, ready to embed decoded photos and tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.batches import batches_of_pixels
from geoloc.models.cross_view import CrossViewNetwork, load_cross_view
from geoloc.models.cross_view_prediction import embed_photos, embed_tiles
from geoloc.models.matching import bearings

Pictures = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]


@dataclass(frozen=True)
class CrossViewEmbedder:
    """A network of kind embedding, and the SHA-256 of its file, `model`. Make it with `open`."""

    network: CrossViewNetwork
    model: str
    batch_size: int = 64

    @classmethod
    def open(cls, file: Path | str, batch_size: int = 64) -> CrossViewEmbedder:
        """The network in a file of save_cross_view. Raises WeightsError for a damaged file, ValueError for a network
        that scores pairs and has no embeddings."""
        network = load_cross_view(file)
        if network.shape.kind != "embedding":
            raise ValueError(
                f"cross_view.kind must be embedding to index tiles and locate photos: {file} has a network of kind "
                f"{network.shape.kind}, which scores one pair at a time"
            )
        return cls(network, sha256_bytes(Path(file).read_bytes()), batch_size)

    def photos(self, photos: Pictures) -> NDArray[np.float32]:
        """Embeddings of Q decoded photos, uint8 [H, W, 3] each: float32 (Q, D)."""
        pictures = list(photos)
        batches = batches_of_pixels(pictures, self.network.photo_preprocess, self.batch_size)
        return embed_photos(self.network, batches, len(pictures))

    def tiles(self, tiles: Pictures, rotations: int) -> NDArray[np.float32]:
        """Embeddings of N decoded tiles, uint8 [H, W, 3] each, square and north up, in R rotations: float32
        (N, R, D). Raises ValueError for a tile that is not square."""
        pictures = list(tiles)
        for tile in pictures:
            if tile.shape[0] != tile.shape[1]:
                raise ValueError(f"tiles must be square, got {tile.shape[1]} x {tile.shape[0]} pixels")
        batches = batches_of_pixels(pictures, self.network.tile_preprocess, self.batch_size)
        return embed_tiles(self.network, batches, len(pictures), bearings(rotations))
