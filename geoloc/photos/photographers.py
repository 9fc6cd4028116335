"""Photographers as keyed hashes: the pool can tell them apart, and only who holds the key can tell who they are."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

SHORTEST_KEY = 5
"""Bytes: a guard against an empty key, no measure of a good one (32 random bytes)."""

_HEX_DIGITS = 16


_WHOLE = re.compile(r"\d+\.0+", re.ASCII)
_UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"
"""Marks without width, which are copied along with a name."""


def normal_form(photographer: str) -> str:
    """What is hashed of a photographer's name or number: one text for one person, however it was written.

    Trimmed, in Unicode's form NFC (macOS writes NFD), and a number that a spreadsheet made `12345.0` is `12345` again.
    Case counts: many sites tell people apart by it.
    """
    name = unicodedata.normalize("NFC", photographer).strip().strip(_UNSEEN).strip()
    return name.split(".")[0] if _WHOLE.fullmatch(name) else name


def photographer_id(photographer: str, key: bytes) -> str:
    """`p` and the first 16 hex digits of HMAC-SHA256(key, `normal_form` in UTF-8) (RFC 2104).

    64 bits: among ten million photographers the chance that any two collide is below 1 in 300,000. Without the
    key a list of known names cannot be tried. Raises ValueError for a key shorter than SHORTEST_KEY.
    """
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"photographer_key must be at least {SHORTEST_KEY} bytes, got {len(key)}")
    name = normal_form(photographer).encode("utf-8")
    return "p" + hmac.new(key, name, hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def photographer_ids(photographers: pa.Array | pa.ChunkedArray, key: bytes) -> pa.Array:
    """`photographer_id` of each; null stays null: nobody knows who took the photo."""
    encoded = pc.dictionary_encode(photographers)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    hashed = pa.array([photographer_id(name, key) for name in encoded.dictionary.to_pylist()], pa.string())
    return hashed.take(encoded.indices)
