"""Photographers as keyed hashes: the pool can tell them apart, and only who holds the key can tell who they are."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from geoloc.files import read_json, write_json

SHORTEST_KEY = 5
"""Bytes: a guard against an empty key, no measure of a good one (32 random bytes)."""

_HEX_DIGITS = 16
KEY_FILE = "photographers.json"
"""In the pool: the fingerprint of the key, by which nobody can find the key."""

_FINGERPRINT = "key_fingerprint"
RESTORE = "restore it; if it is lost for good, remove {path}, and every known photographer looks new"


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


class PhotographerKeyError(ValueError):
    """The key for hashing photographers is no key, or not the one of the pool."""


def check_length(key: bytes) -> None:
    """Raises PhotographerKeyError for a key shorter than SHORTEST_KEY."""
    if len(key) < SHORTEST_KEY:
        raise PhotographerKeyError(f"photographer_key must be at least {SHORTEST_KEY} bytes, got {len(key)}")


def check_key(pool: Path, key: bytes) -> None:
    """Notice another key before it makes a stranger of every known photographer.

    The first key leaves its fingerprint in the pool; call it with the pool locked. Raises PhotographerKeyError.
    """
    check_length(key)
    path = Path(pool) / KEY_FILE
    mine = hmac.new(key, b"geoloc: fingerprint of the photographer key", hashlib.sha256).hexdigest()
    known = key_fingerprint(pool)
    if known is None:
        write_json(path, {_FINGERPRINT: mine[:_HEX_DIGITS]})
    elif known != mine[:_HEX_DIGITS]:
        raise PhotographerKeyError(
            f"photographers in {pool} were hashed with another key than this one (fingerprint {known},"
            f" not {mine[:_HEX_DIGITS]}); {RESTORE.format(path=path)}"
        )


def key_fingerprint(pool: Path) -> str | None:
    """The fingerprint of the key that hashed the photographers of a pool; None where none is recorded. Raises
    PhotographerKeyError for a damaged record."""
    path = Path(pool) / KEY_FILE
    try:
        value = read_json(path)[_FINGERPRINT]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        value = None
    if not isinstance(value, str):
        raise PhotographerKeyError(f"{path} must hold the {_FINGERPRINT} of the photographer key")
    return value


def photographer_id(photographer: str, key: bytes) -> str:
    """`p` and the first 16 hex digits of HMAC-SHA256(key, `normal_form` in UTF-8) (RFC 2104).

    64 bits: among ten million photographers the chance that any two collide is below 1 in 300,000. Without the
    key a list of known names cannot be tried. Raises PhotographerKeyError for a key shorter than SHORTEST_KEY.
    """
    check_length(key)
    name = normal_form(photographer).encode("utf-8")
    return "p" + hmac.new(key, name, hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def photographer_ids(photographers: pa.Array | pa.ChunkedArray, key: bytes) -> pa.Array:
    """`photographer_id` of each; null stays null: nobody knows who took the photo."""
    encoded = pc.dictionary_encode(photographers)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    hashed = pa.array([photographer_id(name, key) for name in encoded.dictionary.to_pylist()], pa.string())
    return hashed.take(encoded.indices)
