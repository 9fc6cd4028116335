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
IndexArray = NDArray[np.int64]

_ONE, _TWO = np.uint64(1), np.uint64(2)
_SIZE = 1 << MAX_LEVEL
_POSITION_BITS = 2 * MAX_LEVEL + 1
_CHUNK = 1 << 16  # points converted at a time: the temporaries stay in the processor's cache

# The Hilbert curve: for each orientation, which quadrant (2 i + j) each of the four positions is in, and how the
# orientation changes inside that position. Bit 0 of an orientation swaps i and j, bit 1 inverts both.
_QUADRANT = ((0, 1, 3, 2), (0, 2, 3, 1), (3, 2, 0, 1), (3, 1, 0, 2))
_TURN = (1, 0, 0, 3)
_TABLE_BITS = 5  # levels in one look-up: six look-ups are the 30 levels


def _hilbert_tables() -> tuple[IndexArray, IndexArray]:
    """Five levels at once: (i, j, orientation) -> (position, orientation), and its inverse.

    Keys and values are packed as 10 bits of i and j (or position), then 2 bits of orientation.
    """
    to_position = np.zeros(1 << (2 * _TABLE_BITS + 2), dtype=np.int64)
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


def _face_ij(points: NDArray[np.float64]) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Face of the cube and leaf row and column on it, of unit vectors (N, 3)."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    # Ties between axes go as in s2sphere: z over x and y, y over x.
    along_x = (ax > ay) & (ax > az)
    along_y = (ax <= ay) & (ay > az)
    along_z = ~(along_x | along_y)
    largest = np.where(along_x, x, np.where(along_y, y, z))
    # The six cases of s2sphere.valid_face_xyz_to_uv: three pairs, swapped on the faces behind the centre.
    one = _leaf_row(np.where(along_x, y, -x) / largest)
    other = _leaf_row(np.where(along_z, -y, z) / largest)
    behind = largest < 0
    face = along_y + 2 * along_z + 3 * behind
    return face, np.where(behind, other, one), np.where(behind, one, other)


def _leaf_row(u: NDArray[np.float64]) -> IndexArray:
    """Projected coordinate in [-1, 1] to leaf row in [0, 2**30): the quadratic transform that evens cell areas."""
    root = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    s = np.where(u >= 0, root, 1 - root)
    return np.minimum((_SIZE * s).astype(np.int64), _SIZE - 1)  # s is not negative, so this rounds down


def _projected(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of the quadratic transform: s in [0, 1] to u in [-1, 1]."""
    return np.where(s >= 0.5, (1 / 3) * (4 * s * s - 1), (1 / 3) * (1 - 4 * (1 - s) * (1 - s)))


def from_face_ij(face: IndexArray, i: IndexArray, j: IndexArray) -> IdArray:
    """Leaf cell ids from face [0, 6) and leaf row and column [0, 2**30), int64 (N,) each."""
    mask = (1 << _TABLE_BITS) - 1
    position = np.zeros(len(face), dtype=np.int64)
    orientation = face & 1
    for shift in range(MAX_LEVEL - _TABLE_BITS, -1, -_TABLE_BITS):
        key = (((i >> shift) & mask) << (_TABLE_BITS + 2)) | (((j >> shift) & mask) << 2) | orientation
        found = _TO_POSITION[key]
        position = (position << (2 * _TABLE_BITS)) | (found >> 2)
        orientation = found & 3
    return (face.astype(np.uint64) << np.uint64(_POSITION_BITS)) | (position.astype(np.uint64) << _ONE) | _ONE


def to_face_ij(ids: IdArray) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Face, and the row and column of one leaf at each cell's middle: int64 (N,) each."""
    face = (ids >> np.uint64(_POSITION_BITS)).astype(np.int64)
    position = ((ids >> _ONE) & np.uint64((1 << 2 * MAX_LEVEL) - 1)).astype(np.int64)
    i, j = np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    orientation = face & 1
    for shift in range(MAX_LEVEL - _TABLE_BITS, -1, -_TABLE_BITS):
        key = ((position >> (2 * shift)) & ((1 << 2 * _TABLE_BITS) - 1)) << 2 | orientation
        found = _TO_IJ[key]
        i = (i << _TABLE_BITS) | (found >> (_TABLE_BITS + 2))
        j = (j << _TABLE_BITS) | ((found >> 2) & ((1 << _TABLE_BITS) - 1))
        orientation = found & 3
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
    size = 1 << (MAX_LEVEL - levels(ids))
    s, t = ((2 * (row & -size) + size) * (0.5 / _SIZE) for row in (i, j))
    u, v, one = _projected(s), _projected(t), np.ones(len(ids))
    x = np.choose(face, (one, -u, -u, -one, v, v))
    y = np.choose(face, (u, one, -v, -v, -one, u))
    z = np.choose(face, (v, v, one, -u, -u, -one))
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
