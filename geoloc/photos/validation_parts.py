"""Parts of the validation split: the epoch, the temperature and the regions are not chosen on the same photos.

A region fitted on the photos that chose the epoch and the temperature promises more than it keeps on others: both were
chosen because they fit these photos. So validation photographers are dealt to three uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from geoloc.photos.owners import photographer_keys
from geoloc.photos.splits import keyed_fractions

SELECTION, TEMPERATURE, REGIONS, SHARED = "selection", "temperature", "regions", "shared"
LEAST_PHOTOGRAPHERS = 20
"""With fewer, parts would be too small to choose anything: all three uses share all validation photos."""
_DEALT: Sequence[str] = (REGIONS, SELECTION, REGIONS, TEMPERATURE, REGIONS, SELECTION)


def validation_parts(photos: pd.DataFrame, seed: int) -> pd.Series:
    """The part of each of N validation photos (photo_id, photographer), text with the index of `photos`.

    Photographers in an order drawn by the seed are dealt in turn, half of them to regions, a third to selection, a
    sixth to temperature. All are "shared" with fewer than LEAST_PHOTOGRAPHERS photographers.
    """
    owner, owners = pd.factorize(photographer_keys(photos))
    if len(owners) < LEAST_PHOTOGRAPHERS:
        return pd.Series(SHARED, index=photos.index, dtype="str")
    turn = np.empty(len(owners), dtype=np.int64)
    turn[np.lexsort((owners, keyed_fractions(owners, seed, "validation part")))] = np.arange(len(owners))
    return pd.Series(
        np.array(_DEALT, dtype=object)[turn[owner] % len(_DEALT)], index=photos.index, dtype="str"
    )


def of_part(validation: pd.DataFrame, part: str) -> pd.DataFrame:
    """Returns the validation photos (column validation_part) for one use: those of the part, and the shared ones."""
    return validation[validation["validation_part"].isin([part, SHARED])].reset_index(drop=True)
