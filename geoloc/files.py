"""Files that are either complete or missing: atomic writes, readers that name what is damaged, and content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pandas as pd  # takes half a second, which `geoloc --help` avoids
    import pyarrow as pa


_BATCH_ROWS = 100_000


class DamagedFile(ValueError):
    """A file or folder does not hold what it must: truncated, overwritten or foreign. The message is one line that
    names it."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(path, why)  # both, so that it can be pickled
        self.path = Path(path)
        self.why = why

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.why}"


class UnfitFileError(OSError):
    """A file that is not read although it could be opened. `strerror` says why, without the path."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(None, why, str(path))

    def __str__(self) -> str:
        return f"{self.filename} is {self.strerror}"


class NotAFileError(UnfitFileError):
    """The path names something else than a file: a folder, a pipe, a socket, a device."""


class FileTooLargeError(UnfitFileError):
    """The file is larger than the caller reads."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk is full, or what a user may have of it."""


class DiskFullError(RuntimeError):
    """There is no room for what is written. The message is one line that names the folder.

    No OSError, as a file that cannot be read is: that loses one photo, and this stops the run.
    """

    def __init__(self, folder: Path | str, why: str) -> None:
        super().__init__(folder, why)
        self.folder = Path(folder)
        self.why = why

    def __str__(self) -> str:
        return f"{self.folder}: {self.why}; make room there, then run the same command again to continue"


@contextlib.contextmanager
def disk_full_named(folder: Path | str) -> Iterator[None]:
    """For a block that writes into `folder`: no room on the disk, or in the user's quota, is a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFullError(folder, error.strerror or os.strerror(error.errno)) from error
        raise


@contextlib.contextmanager
def open_regular(path: Path | str, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """A file, open for reading; anything else is not opened, so a pipe never blocks and no device is touched.

    Raises NotAFileError for what is no regular file, FileTooLargeError above `most_bytes`, before any byte is read, and
    OSError.
    """
    path = Path(path)
    _check_regular(path, path.stat().st_mode)
    # not to block if a pipe takes the file's place between these two lines
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        _check_regular(path, found.st_mode)
        if most_bytes is not None and found.st_size > most_bytes:
            raise FileTooLargeError(path, _too_large(found.st_size, most_bytes))
        yield stream


def read_regular(path: Path | str, most_bytes: int) -> bytes:
    """The bytes of a file. Raises as `open_regular`; memory is never more than `most_bytes`, also if the file grows."""
    with open_regular(path, most_bytes) as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise FileTooLargeError(Path(path), _too_large(len(data), most_bytes))
    return data


def _too_large(size: int, most: int) -> str:
    return f"{size} bytes large; the limit is {most} bytes"


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    raise NotAFileError(path, f"{kinds.get(stat.S_IFMT(mode), 'something else')}, not a file")


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


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """A hard link to a file, or its bytes if the file system has none. Safe for files that are replaced, never
    edited."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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


KINDS = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
"""How messages name types."""


def read_text(path: Path | str) -> str:
    """The text of a UTF-8 file. Raises DamagedFile for a folder and for other bytes."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DamagedFile(path, f"not UTF-8 text (byte 0x{byte:02x} at position {error.start})") from error
    except IsADirectoryError as error:
        raise DamagedFile(path, "a folder, not a file") from error


def read_json(path: Path | str, kind: type = object) -> Any:
    """The value of a JSON file. Raises DamagedFile for other content, and for a value that is not a `kind`, such as
    dict."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"not JSON ({one_line(error)})" if text.strip() else "empty") from error
    if not isinstance(value, kind):
        raise DamagedFile(path, f"it must hold {KINDS[kind]}, got {KINDS.get(type(value), repr(value))}")
    return value


@contextlib.contextmanager
def damage_named(path: Path | str) -> Iterator[None]:
    """For a block that only reads `path` and takes its content apart: whatever that raises becomes DamagedFile. Files
    that are missing or forbidden keep their own errors, which name them."""
    try:
        yield
    except (DamagedFile, FileNotFoundError, PermissionError):
        raise
    # What parsers raise for bad bytes is not documented and differs by version; a bug shows under `--debug`.
    except Exception as error:
        raise DamagedFile(path, one_line(error)) from error


def one_line(error: Exception) -> str:
    """The message of an error as one line of moderate length."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"{text} is missing" if isinstance(error, KeyError) else text
    return text if len(text) <= 200 else f"{text[:197]}..."


def read_parquet(path: Path | str, needs: Collection[str] = ()) -> pd.DataFrame:
    """A Parquet file as a data frame. Raises DamagedFile for other content, and if it lacks a column of `needs`."""
    import pandas as pd

    _require_file(path)
    with damage_named(path):
        frame = pd.read_parquet(path)
    _require_columns(path, needs, [str(name) for name in frame.columns])
    return frame


def read_arrow(path: Path | str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file as an Arrow table with the columns of `schema`, or some of them, in that order.

    A column that may be null and that the file lacks is null: files of older versions have fewer. Raises DamagedFile
    for other content, if the file lacks a column that may not be null, and if a column is not of its type.
    """
    import pyarrow.parquet as pq

    wanted, found = _wanted(path, schema, columns)
    with damage_named(path):
        return _as_wanted(pq.read_table(path, columns=found), wanted)


def arrow_batches(
    path: Path | str, schema: pa.Schema, columns: Sequence[str] | None = None, *, first: int = 0
) -> Iterator[pa.Table]:
    """As `read_arrow` from row `first` on, in tables of at most 100,000 rows: memory is bounded."""
    import pyarrow.parquet as pq

    wanted, found = _wanted(path, schema, columns)
    with damage_named(path), pq.ParquetFile(path) as file:
        groups, start = [], 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start + rows > first:
                groups.append(group)
            else:
                first, start = first - rows, start - rows
            start += rows
        for batch in file.iter_batches(_BATCH_ROWS, groups, columns=found):
            skipped = min(first, batch.num_rows)
            first -= skipped
            if skipped < batch.num_rows:
                yield _as_wanted(batch.slice(skipped), wanted)


def _wanted(
    path: Path | str, schema: pa.Schema, columns: Sequence[str] | None
) -> tuple[list[pa.Field], list[str]]:
    """The wanted fields of `schema`, and the names of those that a Parquet file has."""
    import pyarrow.parquet as pq

    _require_file(path)
    with damage_named(path):
        names = pq.read_schema(path).names
    wanted = [schema.field(name) for name in (schema.names if columns is None else columns)]
    _require_columns(path, [field.name for field in wanted if not field.nullable], names)
    return wanted, [field.name for field in wanted if field.name in names]


def _as_wanted(found: pa.Table | pa.RecordBatch, wanted: list[pa.Field]) -> pa.Table:
    import pyarrow as pa

    arrays = [
        found.column(field.name).cast(field.type)
        if field.name in found.schema.names
        else pa.nulls(found.num_rows, field.type)
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(wanted))


def _require_file(path: Path | str) -> None:
    """Raise for a missing file and for a folder, which Parquet readers take for a data set."""
    if Path(path).is_dir():
        raise DamagedFile(path, "a folder, not a file")
    Path(path).stat()


def _require_columns(path: Path | str, needs: Collection[str], found: Collection[str]) -> None:
    if missing := [name for name in needs if name not in found]:
        raise DamagedFile(path, f"it lacks the columns {', '.join(missing)}")


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
    absolute = (Path(path).absolute() for path in paths)  # "." has a name too
    return combined_hash(
        (file.relative_to(path.parent).as_posix(), sha256)
        for path in absolute
        for file, sha256 in _hashed(path)
    )


def file_hashes(folder: Path | str) -> dict[str, str]:
    """SHA-256 of each file below a folder, by relative name, in sorted order. Raises FileNotFoundError for a missing
    folder."""
    return {file.relative_to(folder).as_posix(): sha256 for file, sha256 in _hashed(Path(folder))}


def combined_hash(files: Iterable[tuple[str, str]]) -> str:
    """The content hash of files with these relative names and hashes, in sorted order."""
    digest = hashlib.sha256()
    for name, sha256 in files:
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


def _hashed(path: Path) -> Iterator[tuple[Path, str]]:
    """A file, or the files below a folder in sorted order, each with the SHA-256 of its bytes."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, so it has no content hash")
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            yield file, hashlib.file_digest(stream, "sha256").hexdigest()
