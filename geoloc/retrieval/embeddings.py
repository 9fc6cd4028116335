"""Embeddings of photos: extracted by a model in parts that survive a kill, stored as npy and Parquet.

A folder of embeddings holds, for each part of `shard_rows` photos,

    vectors-00000.npy       [readable photos, D] float16 or float32, L2-normalised
    photos-00000.parquet    photo_id, readable, reason, content: every photo of the part, in order

and unreadable.parquet (photo_id, reason) and meta.json, which says whether all is finished. A part is
finished when its photos file is there, because its vectors are written before. If the folder has pca.safetensors, its
embeddings are the principal components of those vectors.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import DamagedFile, damage_named, read_json, read_parquet, write_json, write_parquet
from geoloc.models.settings import LayerSettings
from geoloc.retrieval.parts import (
    EarlierParts,
    batch_names,
    contents,
    ids_hash,
    photos_frame,
    photos_path,
    read_part,
    vectors_path,
    write_part,
)
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.retrieval.settings import EmbeddingSettings
from geoloc.settings import settings_hash, used

if TYPE_CHECKING:
    import torch
    from torch import nn

    from geoloc.photos.shards import ShardReader

FORMAT = 1
_META, _UNREADABLE = "meta.json", "unreadable.parquet"
SHIFTED = "shifted"
"""In meta.json, where photos were taken down: see EarlierParts."""
_NOT_OF_A_RUN = ("models", "layer", "pca", "external")
"""Settings that change no vector of a network: the layer is part of it, and components are of finished embeddings."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N photos: `photo_ids` (N, text, unique) and `vectors` (N, D) float16 or float32,
    L2-normalised.

    `unreadable` has a row (photo_id, reason) for each photo that has none. `model` is the `model_hash` of what made
    them, empty if unknown.
    """

    photo_ids: NDArray[np.object_]
    vectors: NDArray[Any]
    unreadable: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {"photo_id": pd.Series(dtype=str), "reason": pd.Series(dtype=str)}
        ),
        repr=False,
    )
    model: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.photo_ids):
            raise ValueError(
                f"{len(self.photo_ids)} photo ids do not fit vectors of shape {self.vectors.shape}"
            )

    def __len__(self) -> int:
        return len(self.photo_ids)

    def __repr__(self) -> str:
        n, d = self.vectors.shape
        kind = self.vectors.dtype
        return f"Embeddings({n:,} photos, {d} dimensions, {kind}, {len(self.unreadable):,} unreadable)"

    def positions(self, photo_ids: Sequence[str] | pd.Series) -> NDArray[np.int64]:
        """Row of each photo in `vectors`, int64; -1 where it has no embedding. Raises ValueError for repeats
        here."""
        index = pd.Index(self.photo_ids)
        if not index.is_unique:
            raise ValueError(f"photo {index[index.duplicated()][0]!r} has two embeddings")
        return index.get_indexer(pd.Index(np.asarray(photo_ids, dtype=object))).astype(np.int64)

    def subset(self, photo_ids: Sequence[str] | pd.Series) -> Embeddings:
        """The embeddings of these photos, in this order. Raises KeyError for a photo without one."""
        position = self.positions(photo_ids)
        if (position < 0).any():
            first = np.asarray(photo_ids, dtype=object)[position < 0][0]
            raise KeyError(f"photo {first!r} has no embedding ({int((position < 0).sum())} such photos)")
        return Embeddings(self.photo_ids[position], self.vectors[position], self.unreadable, self.model)

    @classmethod
    def load(cls, folder: Path | str) -> Embeddings:
        """Read a finished folder. Raises FileNotFoundError if there is none, DamagedFile if it is unfinished
        or its parts disagree."""
        folder = Path(folder)
        meta = read_json(folder / _META, dict)
        with damage_named(folder / _META):
            return cls._load(folder, meta)

    @classmethod
    def _load(cls, folder: Path, meta: dict[str, Any]) -> Embeddings:
        if meta.get("format") != FORMAT:
            raise DamagedFile(
                folder, f"it holds embeddings of format {meta.get('format')}, this code reads {FORMAT}"
            )
        if not meta["finished"]:
            raise DamagedFile(folder, "it is unfinished: run the extraction again, it goes on")
        pca = Pca.load(folder / PCA_FILE) if (folder / PCA_FILE).exists() else None
        stored_dtype, stored_size = np.dtype(meta["settings"]["dtype"]), meta["dimension"]
        if pca is not None and meta["readable"] and pca.mean.shape != (stored_size,):
            raise DamagedFile(
                folder / PCA_FILE, f"it is of {len(pca.mean)} dimensions, the embeddings have {stored_size}"
            )
        size = stored_size if pca is None else pca.dimensions
        vectors = np.empty((meta["readable"], size), dtype=stored_dtype)
        ids, filled = [], 0
        for part in range(meta["parts"]):
            for path in (photos_path(folder, part), vectors_path(folder, part)):
                if not path.exists():
                    raise DamagedFile(
                        folder,
                        f"{path.name} is missing, {_META} says {meta['parts']} parts: run the extraction again",
                    )
            photos, stored = read_part(folder, part)
            if len(stored) and (stored.dtype != stored_dtype or stored.shape[1:] != (stored_size,)):
                raise DamagedFile(
                    vectors_path(folder, part), f"it is {stored.dtype} {stored.shape}, unlike {_META}"
                )
            if filled + len(stored) > len(vectors):
                raise DamagedFile(folder, f"it holds more vectors than {_META} says ({meta['readable']})")
            if len(stored):  # a part without a readable photo does not know how long an embedding is
                vectors[filled : filled + len(stored)] = stored if pca is None else pca.transform(stored)
            filled += len(stored)
            ids.append(photos.loc[photos["readable"], "photo_id"].to_numpy(dtype=object))
        if filled != len(vectors):
            raise DamagedFile(folder, f"it holds {filled} vectors, {_META} says {meta['readable']}")
        photo_ids = np.concatenate(ids) if ids else np.empty(0, dtype=object)
        model = meta.get("model", "")
        model = model if pca is None else pca.model_of(model)
        return cls(photo_ids, vectors, read_parquet(folder / _UNREADABLE), model)


def extract_embeddings(
    model: nn.Module,
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    folder: Path | str,
    settings: EmbeddingSettings | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    earlier: Path | str | None = None,
) -> Embeddings:
    """Embed the photos of `rows` (photo_id, shard, offset, length; sha256 if known) into `folder`, and load
    them.

    `model` has `.embed(images) -> [B, D]` and `.preprocess`, and runs as in models.prediction.run_network. A
    folder that an earlier run left, killed or finished, is taken up: its parts are kept where model, settings
    and photos are the same, so photos appended to `rows` cost only their own part. Model and settings that
    differ start afresh. The bytes are the same however often a run was interrupted (with the same number of
    processor threads; the order of float sums depends on it).

    `earlier` is a finished folder that the same code wrote on the same engine and threads: where its model and settings
    are these, batches of photos that it has are copied from there, which gives the same bytes. So photos appended to
    `rows` cost their own batches, and one that is gone those from its own on.

    A photo that cannot be decoded, or whose embedding is not finite or all zero, has no vector; it is listed
    with the reason. `on_progress` gets {"done", "total", "unreadable", "copied", "photos_per_second"} after each
    batch. Raises ValueError for absent columns or repeated photo ids.
    """
    settings = settings or EmbeddingSettings()
    folder = Path(folder)
    missing = [c for c in ("photo_id", "shard", "offset", "length") if c not in rows.columns]
    if missing:
        raise ValueError(
            f"rows need the columns photo_id, shard, offset, length; absent: {', '.join(missing)}"
        )
    rows = rows.reset_index(drop=True)
    repeated = rows["photo_id"].duplicated()
    if repeated.any():
        raise ValueError(f"photo {rows.loc[repeated, 'photo_id'].iloc[0]!r} stands twice among the rows")
    size = part_rows(settings)
    stored = {name: value for name, value in used(settings).items() if name not in _NOT_OF_A_RUN}
    run = {
        "format": FORMAT,
        "model": model_hash(model),
        "settings": stored | {"shard_rows": size},
    }
    todo = _take_up(folder, run, rows, size)
    if todo:
        known = None if earlier is None else _earlier_parts(Path(earlier), run, settings.batch_size)
        _extract_parts(model, pool, rows, folder, settings, todo, on_progress, known)
    return _finished(folder, run, rows)


def write_embeddings(
    folder: Path | str,
    rows: pd.DataFrame,
    vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    reasons: Sequence[str | None],
    settings: EmbeddingSettings,
    model: str,
) -> Embeddings:
    """Write the embeddings of `rows` (as extract_embeddings has them) by another program, and load them.

    `vectors` gives L2-normalised embeddings [M, D] of the rows at some positions. `reasons` say why a row has none;
    None where it has one. `model` is the hash that names what made them.
    """
    folder, size, missing = Path(folder), part_rows(settings), pd.Series(list(reasons), dtype=object)
    run = {"format": FORMAT, "model": model, "settings": {"dtype": settings.dtype, "shard_rows": size}}
    rows = rows.reset_index(drop=True)
    for part in _take_up(folder, run, rows, size):
        places = np.arange(part * size, min(len(rows), (part + 1) * size))
        of_part = missing.iloc[places]
        found = vectors(places[of_part.isna().to_numpy()]).astype(settings.dtype)
        write_part(folder, part, rows.iloc[places], found, of_part.tolist())
    return _finished(folder, run, rows)


def _finished(folder: Path, run: dict[str, Any], rows: pd.DataFrame) -> Embeddings:
    """Write what is written of finished parts, and load the folder."""
    parts = -(-len(rows) // run["settings"]["shard_rows"])
    pairs = [read_part(folder, part) for part in range(parts)]
    photos = [photo for photo, _ in pairs]
    everything = pd.concat(photos, ignore_index=True) if photos else photos_frame(rows, [])
    unreadable = everything.loc[~everything["readable"], ["photo_id", "reason"]].reset_index(drop=True)
    write_parquet(folder / _UNREADABLE, unreadable)
    dimensions = {vectors.shape[1] for _, vectors in pairs if len(vectors)}
    write_json(
        folder / _META,
        run
        | {
            "finished": True,
            "photos": len(rows),
            "readable": int(everything["readable"].sum()),
            "dimension": dimensions.pop() if dimensions else 0,
            "parts": parts,
            "photo_ids": ids_hash(rows),
        },
    )
    return Embeddings.load(folder)


def part_rows(settings: EmbeddingSettings) -> int:
    """Photos in one part: `shard_rows` rounded up to whole batches."""
    return -(-settings.shard_rows // settings.batch_size) * settings.batch_size


def model_hash(model: nn.Module) -> str:
    """SHA-256 of a model's weights (names, types, shapes, bytes) and of its preprocessing settings; of an exported
    network, that of its graph, because its embeddings differ from torch's in the last digits."""
    from geoloc.models.engine import ExportedNetwork  # imports torch, and reading embeddings does not need it

    if isinstance(model, ExportedNetwork):
        return model.graph.content
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
        digest.update(_raw_bytes(array))
    digest.update(settings_hash(model.preprocess).encode())
    if (layer := getattr(model, "layer", None)) is not None and isinstance(layer, LayerSettings):
        digest.update(settings_hash(layer).encode())  # one network has an embedding for each of its layers
    return digest.hexdigest()


def _raw_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a contiguous tensor of any type (numpy knows no bfloat16)."""
    import torch  # five seconds to import, and reading embeddings does not need it

    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _take_up(folder: Path, run: dict[str, Any], rows: pd.DataFrame, part_rows: int) -> list[int]:
    """Make the folder ready and say which parts are still to do; parts of another run are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    before = read_json(folder / _META, dict) if (folder / _META).exists() else {}
    same = all(before.get(name) == value for name, value in run.items())
    parts = -(-len(rows) // part_rows)
    todo = [
        part
        for part in range(parts)
        if not (same and _part_is_done(folder, part, rows.iloc[part * part_rows : (part + 1) * part_rows]))
    ]
    kept = set(range(parts)) - set(todo)
    for path in [*folder.glob("photos-*.parquet"), *folder.glob("vectors-*.npy"), *folder.glob(".*.part")]:
        if not path.stem.split("-")[-1].isdigit() or int(path.stem.split("-")[-1]) not in kept:
            path.unlink()
    write_json(folder / _META, run | {"finished": False})
    return todo


def _earlier_parts(folder: Path, run: dict[str, Any], batch_size: int) -> EarlierParts | None:
    """The finished parts in a folder by the same model and settings; None without them."""
    try:
        before = read_json(folder / _META, dict)
        if before.get("finished") and all(before.get(name) == value for name, value in run.items()):
            return EarlierParts(folder, before["parts"], batch_size, before.get(SHIFTED))
    except (FileNotFoundError, DamagedFile):
        pass
    return None


def _part_is_done(folder: Path, part: int, rows: pd.DataFrame) -> bool:
    """Whether a stored part holds exactly these photos with these bytes."""
    if not photos_path(folder, part).exists():
        return False
    try:
        photos, _ = read_part(folder, part)
    except (ValueError, FileNotFoundError):  # damaged from outside: made again
        return False
    return photos["photo_id"].tolist() == rows["photo_id"].tolist() and (
        photos["content"].tolist() == contents(rows).tolist()
    )


def _extract_parts(
    model: nn.Module,
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    folder: Path,
    settings: EmbeddingSettings,
    todo: list[int],
    on_progress: Callable[[dict[str, Any]], None] | None,
    known: EarlierParts | None,
) -> None:
    """Embed the photos of some parts in one stream, so that decoding never waits at the end of a part."""
    size = part_rows(settings)
    positions = np.concatenate([np.arange(p * size, min(len(rows), (p + 1) * size)) for p in todo])
    bounds = np.cumsum([min(len(rows), (p + 1) * size) - p * size for p in todo])
    wanted = rows.iloc[positions].reset_index(drop=True)
    done, failed, copied, started = 0, 0, 0, time.perf_counter()
    part, vectors, reasons = 0, [], []
    for batch_vectors, batch_reasons, was_known in _all_batches(model, pool, wanted, settings, known):
        if batch_vectors is not None:
            vectors.append(batch_vectors)
        reasons.extend(batch_reasons)
        done += len(batch_reasons)
        copied += len(batch_reasons) * was_known
        failed += sum(reason is not None for reason in batch_reasons)
        if done == bounds[part]:
            span = wanted.iloc[done - len(reasons) : done]
            write_part(folder, todo[part], span, _joined(vectors, settings.dtype), reasons)
            part, vectors, reasons = part + 1, [], []
        if on_progress is not None:
            rate = (done - copied) / max(time.perf_counter() - started, 1e-9)
            total = len(rows)
            on_progress(
                {
                    "done": total - len(wanted) + done,
                    "total": total,
                    "unreadable": failed,
                    "copied": copied,
                    "photos_per_second": rate,
                }
            )


def _all_batches(
    model: nn.Module,
    pool: Path | str | ShardReader,
    rows: pd.DataFrame,
    settings: EmbeddingSettings,
    known: EarlierParts | None,
) -> Iterator[tuple[NDArray[Any] | None, list[str | None], bool]]:
    """For each batch, in order: its vectors and reasons as `_embedded_batches` gives them, and whether they are copied
    from `known`."""
    if known is None:
        for vectors, reasons in _embedded_batches(model, pool, rows, settings):
            yield vectors, reasons, False
        return
    size = settings.batch_size
    names = batch_names(rows["photo_id"], contents(rows), size)
    new = np.array([name not in known for name in names], dtype=bool)
    unknown = rows[np.repeat(new, size)[: len(rows)]].reset_index(drop=True)
    with closing(_embedded_batches(model, pool, unknown, settings)) as computed:
        for name, is_new in zip(names, new, strict=True):
            if is_new:
                yield *next(computed), False
            else:
                yield *known[name], True


def _embedded_batches(
    model: nn.Module, pool: Path | str | ShardReader, rows: pd.DataFrame, settings: EmbeddingSettings
) -> Generator[tuple[NDArray[Any] | None, list[str | None]]]:
    """For each batch, in order: vectors of its readable photos, and for every photo None or why it has none."""
    # Five seconds to import, and reading embeddings does not need it.
    from geoloc.models.batches import iter_batches
    from geoloc.models.prediction import unit_embeddings

    preprocess: Any = model.preprocess  # no part of nn.Module
    photos, done = iter_batches(pool, rows, preprocess, settings.batch_size, settings.workers), 0
    for batch, found in unit_embeddings(model, photos, settings.precision):
        reasons: list[str | None] = [None] * (len(batch.row_indices) + len(batch.unreadable_indices))
        for position, reason in zip(batch.unreadable_indices.tolist(), batch.reasons, strict=True):
            reasons[position - done] = reason
        vectors = None
        if found is not None:
            sound = np.isfinite(found["norms"]) & (found["norms"] > 0)
            for position in batch.row_indices[~sound].tolist():
                reasons[position - done] = "the network gave no finite embedding, or all zeros"
            vectors = found["vectors"][sound].astype(settings.dtype)
        done += len(reasons)
        yield vectors, reasons


def _joined(vectors: list[NDArray[Any]], dtype: str) -> NDArray[Any]:
    return np.concatenate(vectors) if vectors else np.empty((0, 0), dtype=dtype)
