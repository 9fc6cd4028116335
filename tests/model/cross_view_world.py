"""Made-up pairs: the tile has a coloured wedge, and the photo is as bright as the wedge is near its heading."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from PIL import Image

from geoloc.training.cross_view_pairs import CrossViewPairs, cross_view_pairs
from tests.model.training_world import MemoryPool

SIDE = 32


class Stored(MemoryPool):
    """Pictures in memory."""

    def put(self, pixels: np.ndarray) -> int:
        """Keep a picture; its offset."""
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=95)
        self.photos.append(stream.getvalue())
        return len(self.photos) - 1


def tile_with_wedge(colour: np.ndarray, bearing: float) -> np.ndarray:
    """A grey tile with a wedge of a colour at a bearing, 60 degrees wide."""
    south, east = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    off = (np.degrees(np.arctan2(east, -south)) - bearing + 180) % 360 - 180
    return np.where((np.abs(off) < 30)[:, :, None], colour, 90.0)


def made(
    count: int,
    seed: int,
    photos: Stored,
    tiles: Stored,
    headless: int = 0,
    cities: int = 4,
    easy: bool = False,
) -> CrossViewPairs:
    """Pairs of `count` places, 1 km apart; the first `headless` have no heading. The photo has the wedge's colour,
    on the side of the picture where the wedge is; if it is `easy`, photo and tile have it everywhere."""
    numbers = np.random.default_rng(seed)
    rows, stored_photos, stored_tiles = [], [], []
    for at in range(count):
        colour = numbers.uniform(0, 255, 3)
        heading, side = numbers.uniform(0, 360), numbers.uniform(-40, 40)
        column = round(SIDE / 2 + side / 90 * SIDE)
        photo = np.full((SIDE, SIDE, 3), 90.0)
        photo[:, 0 if easy else max(0, column - 6) : SIDE if easy else column + 6] = colour
        name = f"{seed}-{at}"
        stored_photos.append((f"p{name}", "s", photos.put(photo + numbers.normal(0, 4, photo.shape)), 1))
        tile = np.broadcast_to(colour, photo.shape) if easy else tile_with_wedge(colour, heading + side)
        stored_tiles.append((f"o{name}", "s", tiles.put(tile), 1))
        rows.append(
            {
                "pair_id": name, "photo_id": f"p{name}", "overhead_id": f"o{name}", "photographer": f"w{at % 7}",
                "latitude": 0.0, "longitude": at * 0.01, "tile_latitude": 0.0, "tile_longitude": at * 0.01,
                "heading": np.nan if at < headless else heading, "city": f"city {at % cities}",
            }
        )  # fmt: skip
    frames = (
        pd.DataFrame(one, columns=["photo_id", "shard", "offset", "length"])
        for one in (stored_photos, stored_tiles)
    )
    return cross_view_pairs(pd.DataFrame(rows), *frames, "training")
