"""Claims about time, albums and people: PlaNet's table 2b, and Multi-modal Geolocation's tables 6 and 7; and which
methods play their roles. All roles of one paper are played in one recipe, so that only what a claim is about differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.claims.claim import BIAS, Claim
from geoloc.evaluation.claims.evaluated import Built, Choice
from geoloc.partitions.base import Partition

ALBUM_ROLES = {
    "single": "[L] by class, in a recipe with a section albums, such as planet_albums",
    "album average": "the mean over all photos of the album (albums.averages: [album])",
    "HMM": "a hidden Markov model over the album (albums.hmm)",
    "LSTM": "a network of albums.networks called LSTM, as in planet_albums",
    "LSTM off1": "the same that answers one photo later, called LSTM off1",
    "LSTM off2": "the same that answers two photos later, called LSTM off2",
    "LSTM rep": "the same that sees the album twice, called LSTM rep",
    "LSTM rep 25": "the same on at most 25 photos, called LSTM rep 25",
    "BLSTM 25": "the same in both directions on at most 25 photos, called BLSTM 25",
}
TIME_ROLES = {
    "M1": "[L] by class, in a recipe with a section time, such as m3_coarse",
    "M2": "the same corrected by the time of posting (time.network)",
    "user average": "the mean over all photos of a person (albums.averages: [user])",
    "M3": "a network of albums.networks called M3, over the photos of a person, as in m3_coarse",
}
CONTEXT_ROLES = {**ALBUM_ROLES, **TIME_ROLES}
"""What each role is, and so what must be built for it."""

_PLANET = "PlaNet, table 2b"
_MULTI_MODAL = "Multi-modal Geolocation, section 4.2, table 6"
_BIAS = "Multi-modal Geolocation, section 4.2, table 7"
_MARGIN = 0.02


def _pair(
    levels: tuple[str, ...],
    name: str,
    finding: str,
    source: str,
    better: str,
    worse: str,
    margin: float = 0.0,
) -> list[Claim]:
    direction = "not less" if margin else "greater"
    return [
        Claim(name, finding, source, ((1, better), (-1, worse)), level, direction, margin) for level in levels
    ]


CONTEXT_CLAIMS: tuple[Claim, ...] = tuple(
    [
        *_pair(
            ("street", "city", "country"), "averaging over an album helps",
            "PlaNet avg already yields a significant improvement over single-image PlaNet.",
            _PLANET, "album average", "single",
        ),
        *_pair(
            ("street", "city", "country"), "an LSTM beats single photos",
            "The LSTM improves on the single-image model by 44.1 per cent, relative, at street level.",
            _PLANET, "LSTM", "single",
        ),
        *_pair(
            ("city", "country"), "an LSTM beats averaging",
            "The LSTM model clearly outperforms the averaging and HMM.",
            _PLANET, "LSTM", "album average",
        ),
        *_pair(
            ("city", "country"), "an LSTM beats a Markov model",
            "The LSTM model clearly outperforms the averaging and HMM.",
            _PLANET, "LSTM", "HMM",
        ),
        *_pair(
            ("city", "country"), "seeing the album twice beats one pass",
            "Repeated sequences outperform the single-pass LSTMs.",
            _PLANET, "LSTM rep", "LSTM",
        ),
        *_pair(
            ("city", "country"), "both directions beat twice at equal length",
            "BLSTMs clearly outperform repeated LSTMs (both on at most 25 photos).",
            _PLANET, "BLSTM 25", "LSTM rep 25",
        ),
        *_pair(
            ("city", "country"), "an offset of one photo does not help",
            "Using offsets does not improve localization accuracy.",
            _PLANET, "LSTM", "LSTM off1", _MARGIN,
        ),
        *_pair(
            ("city", "country"), "an offset of two photos does not help",
            "Using offsets does not improve localization accuracy.",
            _PLANET, "LSTM", "LSTM off2", _MARGIN,
        ),
        *_pair(
            ("city", "region", "country"), "the time of posting helps a little",
            "A small persistent advantage of using time, at all resolutions.",
            _MULTI_MODAL, "M2", "M1",
        ),
        *_pair(
            ("city", "region", "country"), "averaging over a person helps",
            "User-averaging appears to be more accurate than predicting individual images.",
            _MULTI_MODAL, "user average", "M1",
        ),
        *_pair(
            ("city", "country"), "an LSTM over a person's photos beats the time alone",
            "Coarse mesh, user albums (M3) against time inputs (M2).",
            _MULTI_MODAL, "M3", "M2",
        ),
        *_pair((BIAS,), "the time of posting lowers bias",
               "Time input models appear to have lower-bias class probabilities.", _BIAS, "M1", "M2"),
        *_pair((BIAS,), "averaging over a person raises bias",
               "User-averaging biases cell count frequency.", _BIAS, "user average", "M1"),
        *_pair((BIAS,), "an LSTM over a person's photos has the lowest bias",
               "LSTMs on user albums had the lowest class bias of any model considered.", _BIAS, "M2", "M3"),
    ]
)  # fmt: skip


def bind_context(roles: dict[str, Choice], built: Sequence[Built]) -> None:
    """Add the roles of CONTEXT_ROLES to `roles`: of each paper's, those of the recipe that plays most of them."""
    for of_paper, first in ((ALBUM_ROLES, "single"), (TIME_ROLES, "M1")):
        given = {roles[role].recipe for role in of_paper if role in roles}
        best: dict[str, Choice] = {}
        for one in built:
            found = _players(one, [role for role in of_paper if role != first])
            if (given and one.recipe not in given) or len(found) <= len(best):
                continue
            cells = next(iter(one.partitions.values())).cell_count
            single = f"[{one.model}]{cells}C"
            best = ({first: Choice(one.recipe, single)} if single in one.evaluation.methods else {}) | found
        for role, choice in best.items():
            roles.setdefault(role, choice)


def _players(one: Built, roles: Sequence[str]) -> dict[str, Choice]:
    """The methods of a recipe that are called as roles, over its main partition, at the first of its answer points."""
    cells = next(iter(one.partitions.values())).cell_count
    named = {
        role: method
        for role in roles
        for method in (f"[{one.model}]{role} {cells}C", f"[{one.model}]{role} {cells}C centre")
        if method in one.evaluation.methods
    }
    return {role: Choice(one.recipe, method) for role, method in named.items()}


def cells_of(one: Built, method: str) -> tuple[NDArray[np.int64], int]:
    """The true and the answered main cell of each of the recipe's photos, int64 (N, 2), -1 for none, and the number of
    cells. An answer is a point of a cell, which need not lie in it."""
    partition = next(iter(one.partitions.values()))
    rows = one.evaluation.per_photo
    rows = rows[rows["method"] == method].set_index("photo_id").loc[one.photos["photo_id"]]
    truth = partition.assign(one.photos["latitude"], one.photos["longitude"])
    answered = _cells_at(partition, rows["latitude"].to_numpy(), rows["longitude"].to_numpy())
    return np.stack([np.asarray(truth, dtype=np.int64), answered], axis=1), partition.cell_count


def _cells_at(
    partition: Partition, latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> NDArray[np.int64]:
    points: dict[tuple[float, float], int] = {}
    for of_cells in (partition.centres(), partition.centroids()):
        points |= {(float(a), float(b)): cell for cell, (a, b) in enumerate(of_cells)}
    found = np.full(len(latitude), -1, dtype=np.int64)
    placed = np.flatnonzero(~np.isnan(latitude))
    inside = partition.assign(latitude[placed], longitude[placed])
    for row, cell in zip(placed, inside, strict=True):
        found[row] = points.get((float(latitude[row]), float(longitude[row])), int(cell))
    return found
