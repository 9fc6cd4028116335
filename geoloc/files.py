"""Files that are either complete or missing: atomic writes, and content hashes of files and folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd  # takes half a second, which `geoloc --help` avoids


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends, removed if it raises.

    Readers see the old file or the new one, never a partial one. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name per write: two threads may write the same path, and the last to finish wins.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """A new temporary folder beside `folder`; replaces it when the block ends, removed if it raises.

    A process killed at any moment leaves the old folder, the new one or, between two renames, none: never a partial
    one.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    temporary.chmod(0o755)
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        if folder.is_dir():
            folder.rename(
                old
            )  # deleting it in place would expose a partial folder to readers, or leave one after a kill
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_temporary(folder: Path | str) -> None:
    """Remove what killed `atomic_path` and `atomic_folder` left in `folder` itself. No-op if it is missing.

    The caller makes sure that nobody is writing there.
    """
    for pattern in (".*.part", ".*.old"):
        for path in Path(folder).glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically, keys sorted, indent 2, so that equal values give equal bytes. Raises ValueError for
    NaN."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The value of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a data frame to Parquet atomically, without its index."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def content_hash(*paths: Path | str) -> str:
    """SHA-256 over files and folders: relative names and bytes, in sorted order; times and owners do not count.

    Raises FileNotFoundError for a missing path.
    """
    digest = hashlib.sha256()
    for path in (Path(p).absolute() for p in paths):  # "." has a name too
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing, so it has no content hash")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path.parent).as_posix()
            with file.open("rb") as stream:
                inner = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{name}\0{inner}\n".encode())
    return digest.hexdigest()
