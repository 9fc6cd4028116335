"""The S2 cell hierarchy in numpy: points to 64-bit leaf cells along the Hilbert curve, parents, children, centres.

The scheme is Google's S2 (quadratic projection, as in its C++ and Java libraries and in the Python package
s2sphere): the sphere is projected on the six faces of a cube; each face is a quad-tree of 30 levels whose cells
are numbered along a Hilbert curve. A cell id holds 3 bits of face, two bits of position a level, a 1, and zeros;
so the ids of all leaves in a cell are one range of integers around its own id. s2sphere does this one point at a
time in Python; here every function takes whole arrays. Each operation is done in s2sphere's own order, so that
leaves agree bit for bit where numpy's sine and cosine are the C library's (they are in numpy 2 for float64).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sphere import from_vectors, unit_vectors

MAX_LEVEL = 30
FACES = 6
IdArray = NDArray[np.uint64]

_ONE, _TWO = np.uint64(1), np.uint64(2)
_SIZE = 1 << MAX_LEVEL
_POSITION_BITS = 2 * MAX_LEVEL + 1
_CHUNK = 1 << 16  # points converted at a time: the temporaries stay in the processor's cache

# The Hilbert curve: for each orientation, which quadrant (2 i + j) each of the four positions is in, and how the
# orientation changes inside that position. Bit 0 of an orientation swaps i and j, bit 1 inverts both.
_QUADRANT = ((0, 1, 3, 2), (0, 2, 3, 1), (3, 2, 0, 1), (3, 1, 0, 2))
_TURN = (1, 0, 0, 3)
_TABLE_BITS = 4
_TABLE_STEPS = 8  # 8 steps of 4 bits cover the 30 bits of i and j, with 2 bits to spare


def _hilbert_tables() -> tuple[IdArray, IdArray]:
    """Four levels at once: (i, j, orientation) -> (position, orientation), and its inverse.

    Keys and values are packed as 8 bits of i and j (or position), then 2 bits of orientation.
    """
    to_position = np.zeros(1 << (2 * _TABLE_BITS + 2), dtype=np.uint64)
    to_ij = np.zeros_like(to_position)
    for start in range(4):
        entries = [(0, 0, 0, start)]  # i, j, position, orientation
        for _ in range(_TABLE_BITS):
            entries = [
                (
                    2 * i + (_QUADRANT[orientation][step] >> 1),
                    2 * j + (_QUADRANT[orientation][step] & 1),
                    4 * position + step,
                    orientation ^ _TURN[step],
                )
                for i, j, position, orientation in entries
                for step in range(4)
            ]
        for i, j, position, orientation in entries:
            ij = (i << _TABLE_BITS) + j
            to_position[(ij << 2) + start] = (position << 2) + orientation
            to_ij[(position << 2) + start] = (ij << 2) + orientation
    return to_position, to_ij


_TO_POSITION, _TO_IJ = _hilbert_tables()


def leaf_ids(latitude: ArrayLike, longitude: ArrayLike) -> IdArray:
    """The level-30 cell (about 1 cm wide) of each point: uint64, shape of the broadcast arguments, raveled.

    Degrees, finite, latitude in [-90, 90]; any finite longitude (360 degrees is a turn). The caller checks this:
    a NaN has no cell.
    """
    lat, lon = np.broadcast_arrays(
        np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    )
    lat, lon = lat.ravel(), lon.ravel()
    ids = np.empty(len(lat), dtype=np.uint64)
    for start in range(0, len(lat), _CHUNK):
        part = slice(start, start + _CHUNK)
        face, i, j = _face_ij(unit_vectors(lat[part], lon[part]))
        ids[part] = from_face_ij(face, i, j)
    return ids


def _face_ij(points: NDArray[np.float64]) -> tuple[IdArray, IdArray, IdArray]:
    """Face of the cube and leaf row and column on it, of unit vectors (N, 3)."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    # Ties between axes go as in s2sphere: z over x and y, y over x.
    axis = np.where((ax > ay) & (ax > az), 0, np.where((ax <= ay) & (ay > az), 1, 2))
    rows = np.arange(len(points))
    largest = points[rows, axis]
    face = axis + 3 * (largest < 0)
    # Numerators of u and v on each face, from s2sphere.valid_face_xyz_to_uv.
    u = np.choose(face, (y, -x, -x, z, z, -y)) / largest
    v = np.choose(face, (z, z, -y, y, -x, -x)) / largest
    return face.astype(np.uint64), _leaf_row(u), _leaf_row(v)


def _leaf_row(u: NDArray[np.float64]) -> IdArray:
    """Projected coordinate in [-1, 1] to leaf row in [0, 2**30): the quadratic transform that evens cell areas."""
    root = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    s = np.where(u >= 0, root, 1 - root)
    return np.clip(np.floor(_SIZE * s), 0, _SIZE - 1).astype(np.uint64)


def _projected(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of the quadratic transform: s in [0, 1] to u in [-1, 1]."""
    return np.where(s >= 0.5, (1 / 3) * (4 * s * s - 1), (1 / 3) * (1 - 4 * (1 - s) * (1 - s)))


def from_face_ij(face: IdArray, i: IdArray, j: IdArray) -> IdArray:
    """Leaf cell ids from face [0, 6) and leaf row and column [0, 2**30), uint64 (N,) each."""
    mask = np.uint64((1 << _TABLE_BITS) - 1)
    position = np.zeros(len(face), dtype=np.uint64)
    orientation = face & _ONE
    for step in range(_TABLE_STEPS - 1, -1, -1):
        shift = np.uint64(step * _TABLE_BITS)
        key = (((i >> shift) & mask) << np.uint64(_TABLE_BITS + 2)) | (((j >> shift) & mask) << _TWO)
        found = _TO_POSITION[key | orientation]
        position = (position << np.uint64(2 * _TABLE_BITS)) | (found >> _TWO)
        orientation = found & np.uint64(3)
    # 8 steps give 64 bits of position, of which the top 4 are zero; shifting by one makes place for the final 1.
    return (face << np.uint64(_POSITION_BITS)) | (position << _ONE) | _ONE


def to_face_ij(ids: IdArray) -> tuple[IdArray, IdArray, IdArray]:
    """Face, and the row and column of one leaf at each cell's middle: uint64 (N,) each."""
    face = ids >> np.uint64(_POSITION_BITS)
    position = (ids & np.uint64((1 << _POSITION_BITS) - 1)) >> _ONE
    i, j = np.zeros(len(ids), dtype=np.uint64), np.zeros(len(ids), dtype=np.uint64)
    orientation = face & _ONE
    mask = np.uint64((1 << 2 * _TABLE_BITS) - 1)
    for step in range(_TABLE_STEPS - 1, -1, -1):
        key = ((position >> np.uint64(2 * _TABLE_BITS * step)) & mask) << _TWO
        found = _TO_IJ[key | orientation]
        i = (i << np.uint64(_TABLE_BITS)) | (found >> np.uint64(_TABLE_BITS + 2))
        j = (j << np.uint64(_TABLE_BITS)) | ((found >> _TWO) & np.uint64((1 << _TABLE_BITS) - 1))
        orientation = found & np.uint64(3)
    return face, i, j


def lowest_bits(ids: IdArray) -> IdArray:
    """The final 1 of each id, which gives its level: 1 << 2 * (30 - level)."""
    return ids & (~ids + _ONE)


def levels(ids: IdArray) -> NDArray[np.int64]:
    """Level of each cell: 0 for a whole face, 30 for a leaf."""
    return MAX_LEVEL - (np.log2(lowest_bits(ids).astype(np.float64)).astype(np.int64) >> 1)


def lowest_bit_of_level(level: int) -> np.uint64:
    """The final 1 of the ids of one level."""
    return np.uint64(1 << 2 * (MAX_LEVEL - level))


def parents(ids: IdArray, level: int) -> IdArray:
    """The cells of `level` that enclose the cells `ids` (of that level or finer)."""
    low = lowest_bit_of_level(level)
    return np.asarray((ids & (~low + _ONE)) | low, dtype=np.uint64)


def children(ids: IdArray) -> IdArray:
    """The four cells one level down, uint64 (N, 4) in Hilbert order. Leaves have none: do not pass them."""
    low = lowest_bits(ids) >> _TWO
    first, step = ids - np.uint64(3) * low, _TWO * low
    return np.stack([first, first + step, first + _TWO * step, first + np.uint64(3) * step], axis=-1)


def face_ids() -> IdArray:
    """The six faces, in order."""
    return (np.arange(FACES, dtype=np.uint64) << np.uint64(_POSITION_BITS)) | lowest_bit_of_level(0)


def first_leaves(ids: IdArray) -> IdArray:
    """The smallest leaf id in each cell."""
    return ids - (lowest_bits(ids) - _ONE)


def last_leaves(ids: IdArray) -> IdArray:
    """The largest leaf id in each cell."""
    return ids + (lowest_bits(ids) - _ONE)


def centres(ids: IdArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitude and longitude of the middle of each cell (in S2's own projection), degrees, float64 (N,) each."""
    face, i, j = to_face_ij(ids)
    # Leaf rows of the cell start at i with its low bits cleared; the middle is half its size further. In halves
    # of a leaf, so that the middle of a leaf is a whole number too.
    size = np.uint64(1) << (np.uint64(MAX_LEVEL) - levels(ids).astype(np.uint64))
    clear = ~(size - _ONE)
    s = (((i & clear) << _ONE) + size).astype(np.float64) * (0.5 / _SIZE)
    t = (((j & clear) << _ONE) + size).astype(np.float64) * (0.5 / _SIZE)
    u, v, one = _projected(s), _projected(t), np.ones(len(ids))
    f = face.astype(np.int64)
    x = np.choose(f, (one, -u, -u, -one, v, v))
    y = np.choose(f, (u, one, -v, -v, -one, u))
    z = np.choose(f, (v, v, one, -u, -u, -one))
    return from_vectors(np.stack([x, y, z], axis=-1))


def tokens(ids: IdArray) -> list[str]:
    """S2's short name of each cell: its id in hexadecimal without the zeros at the end, like '47a1cbd5'."""
    return [f"{cell:016x}".rstrip("0") for cell in ids.tolist()]


_TOKEN = re.compile(r"[0-9a-f]{0,15}[1-9a-f]")


def from_tokens(names: Sequence[str]) -> IdArray:
    """Cell ids of tokens, uint64 (N,).

    Tokens are text and stay text: '47e7' is a cell, never 47 times ten to the seventh. Raises ValueError that
    names the first one that is not the canonical token of an S2 cell.
    """
    ids = np.zeros(len(names), dtype=np.uint64)
    for row, name in enumerate(names):
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            raise ValueError(
                f"{name!r} is not an S2 cell token: 1 to 16 of 0-9 and a-f, without zeros at the end"
            )
        ids[row] = int(name.ljust(16, "0"), 16)
    low = lowest_bits(ids)
    bad = ((ids >> np.uint64(_POSITION_BITS)) >= FACES) | ((low & np.uint64(0x1555555555555555)) == 0)
    if bad.any():
        raise ValueError(f"{names[int(np.argmax(bad))]!r} is not an S2 cell token: no such cell")
    return ids
