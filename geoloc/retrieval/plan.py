"""Which index for how many references: the choice of `index.factory: auto`, with its size and its reasons.

Without a limit of memory the choice follows the number of references:

    under 100,000        Flat                                exact
    under 1,000,000      IVF{n},Flat                         exact within the lists probed
                         HNSW32                              instead, for a recall of 0.98 or more
    from there           IVF{n},PQ{d/2}x4fs,Refine(SQfp16)   0.6 of the memory, 20 times Flat's speed

with n the power of two nearest to 4 √references. Measured on one million 512-number vectors (benchmarks/index.py), the
last finds 97 % of the true 100 nearest (the density uses 100) at 1,964 queries a second where Flat does 88. With
`index.memory_gb`, the first of these that fits is taken, then smaller ones: re-ranking by 8-bit numbers, and none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from geoloc.retrieval.settings import IndexSettings
from geoloc.settings import SettingsError

EXACT_BELOW = 100_000
REFINED_FROM = 1_000_000
HNSW_RECALL = 0.98
_GB = 1e9
_ID_BYTES = 8


@dataclass(frozen=True)
class IndexPlan:
    """A FAISS factory string, the bytes that the index takes in memory (and about as many on disk), and the reason for
    the choice, for people."""

    factory: str
    bytes: int
    reason: str


def plan_index(references: int, dimension: int, settings: IndexSettings | None = None) -> IndexPlan:
    """Returns the index for so many vectors of `dimension` numbers: `settings.factory`, or what "auto" chooses by
    `memory_gb` and `recall`.

    Raises SettingsError if nothing fits into the memory.
    """
    settings = settings or IndexSettings()
    what = f"{references:,} references × {dimension}"
    if settings.factory != "auto":
        size = index_bytes(settings.factory, references, dimension)
        return IndexPlan(settings.factory, size, f"{settings.factory}: as index.factory says")
    smallest: int | None = None
    skipped: list[str] = []
    for factory, why in _candidates(references, dimension, settings.recall):
        size = index_bytes(factory, references, dimension)
        if not settings.memory_gb or size <= settings.memory_gb * _GB:
            beside = (
                f"; not {', '.join(skipped)}: over index.memory_gb {settings.memory_gb:g}" if skipped else ""
            )
            return IndexPlan(factory, size, f"{factory} for {what}, {_in_gb(size)}: {why}{beside}")
        skipped.append(f"{factory} ({_in_gb(size)})")
        smallest = size if smallest is None else min(smallest, size)
    assert smallest is not None
    raise SettingsError(
        f"index.memory_gb {settings.memory_gb:g} is too small for {what} at index.recall {settings.recall:g}:"
        f" the smallest index needs {_in_gb(smallest)}"
    )


def index_bytes(factory: str, references: int, dimension: int) -> int:
    """Returns the bytes of vectors, codes, ids, links and centroids of an index by its factory string; what the parts
    of the string do not say counts as nothing."""
    vector, refine = 4.0 * dimension, 0.0
    links = lists = 0
    for part in factory.replace("(", ",").replace(")", "").split(","):
        name, _, tail = part.removesuffix("np").partition("x")
        if part.startswith("IVF"):
            lists = int(part[3:]) if part[3:].isdigit() else 0
        elif part.startswith("HNSW"):
            links = 2 * int(part[4:] or 32) if (part[4:] or "32").isdigit() else 64
        elif part.startswith("PQ") and name[2:].isdigit():
            bits = int(tail.removesuffix("fs") or 8) if tail.removesuffix("fs").isdigit() or not tail else 8
            vector = int(name[2:]) * bits / 8
        elif part in _SCALAR_BYTES:
            size = _SCALAR_BYTES[part] * dimension
            vector, refine = (vector, size) if "Refine" in factory else (size, refine)
        elif part == "RFlat":
            refine = 4.0 * dimension
    each = vector + refine + 4 * links + _ID_BYTES * (2 if "Refine" in factory else 1)
    return int(references * each + lists * dimension * 4)


_SCALAR_BYTES = {"SQfp16": 2, "SQbf16": 2, "SQ8": 1, "SQ6": 0.75, "SQ4": 0.5}


def _candidates(references: int, dimension: int, recall: float) -> Iterator[tuple[str, str]]:
    """Factory strings with their reason, the preferred one first; each next one that can replace it is smaller."""
    if recall >= 1:
        yield "Flat", "index.recall 1 needs the exact one"
        return
    if references < EXACT_BELOW:
        yield "Flat", f"exact, and fast enough below {EXACT_BELOW:,} references"
    lists = 2 ** max(0, round(np.log2(4 * np.sqrt(max(references, 1)))))
    # k-means with fewer than 39 vectors a list warns, and its lists mean little
    lists = max(1, min(lists, 2 ** int(np.log2(max(1, references // 39)))))
    wanted = f"index.recall {recall:g} is reached by tuning how much is searched"
    if EXACT_BELOW <= references < REFINED_FROM:
        if recall >= HNSW_RECALL:
            yield (
                "HNSW32",
                (
                    f"index.recall {recall:g} is reached with fewer comparisons than by lists; built in one thread, so"
                    " that equal seeds give equal bytes"
                ),
            )
        yield f"IVF{lists},Flat", f"exact within the lists that it probes; {wanted}"
    if dimension % 4:
        yield (
            f"IVF{lists},Flat",
            f"{dimension} numbers are no multiple of 4, so no product quantiser; {wanted}",
        )
        yield f"IVF{lists},SQfp16", f"16-bit numbers; {wanted}"
        yield f"IVF{lists},SQ8", f"8-bit numbers; {wanted}"
        return
    codes = f"IVF{lists},PQ{dimension // 2}x4fs"
    yield f"{codes},Refine(SQfp16)", f"scans 4-bit codes and ranks the best again by 16-bit numbers; {wanted}"
    yield f"{codes},Refine(SQ8)", f"scans 4-bit codes and ranks the best again by 8-bit numbers; {wanted}"
    for parts in (2, 4):
        yield (
            f"IVF{lists},PQ{dimension // parts}x4fs",
            (
                f"4-bit codes only, without ranking again: the recall that is measured may stay below {recall:g}"
            ),
        )


def _in_gb(size: float) -> str:
    return f"{size / _GB:.3g} GB"
