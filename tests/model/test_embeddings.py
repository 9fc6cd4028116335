"""Embeddings: what is stored is the network's own answer, and an interrupted run ends in the same bytes."""

import io
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from geoloc.files import content_hash, read_json
from geoloc.models.preprocess import Preprocess
from geoloc.retrieval.embeddings import Embeddings, EmbeddingSettings, extract_embeddings, model_hash
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.retrieval.settings import PcaSettings
from geoloc.retrieval.takedown import take_from_embeddings
from geoloc.settings import SettingsError, parse

SETTINGS = EmbeddingSettings(batch_size=4, shard_rows=7, dtype="float32", workers=2)  # parts of 8 photos
BROKEN = {5: b"no jpeg", 12: b""}
COUNT = 27


class TinyNetwork(nn.Module):
    """One convolution and a mean; photo 20 is black and the network has no bias, so its embedding is all zero."""

    preprocess = Preprocess(resize_short_side=16, image_size=12, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv2d(3, 6, 3, bias=False)
        self.drop = nn.Dropout(0.5)  # wrong if the network is left in training mode

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.layer(images)).abs().mean(dim=(2, 3))


class FolderOfBytes:
    """A pool of one file; `read` counts what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reads = folder, 0

    def read(self, shard: str, offset: int, length: int) -> bytes:
        self.reads += 1
        with (self.folder / shard).open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)


def make_pool(folder: Path) -> pd.DataFrame:
    """COUNT small photos, two of them broken, in one file; the catalog's columns for them."""
    rng = np.random.default_rng(0)
    rows, data = [], b""
    for i in range(COUNT):
        stream = io.BytesIO()
        pixels = rng.integers(0, 255, (16, 20, 3)).astype(np.uint8) * (i != 20)
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=95)
        photo = BROKEN.get(i, stream.getvalue())
        rows.append({"photo_id": f"p{i}", "shard": "a", "offset": len(data), "length": len(photo)})
        data += photo
    folder.mkdir(exist_ok=True)
    (folder / "a").write_bytes(data)
    return pd.DataFrame(rows)


@pytest.fixture
def pool(tmp_path):
    rows = make_pool(tmp_path / "pool")
    return FolderOfBytes(tmp_path / "pool"), rows


def test_what_is_stored_is_the_networks_answer_for_each_readable_photo(pool, tmp_path):
    reader, rows = pool
    model = TinyNetwork().train()
    seen = []
    found = extract_embeddings(model, reader, rows, tmp_path / "e", SETTINGS, seen.append)
    assert model.training, "the model is left as it was"
    readable = [i for i in range(COUNT) if i not in (5, 12, 20)]
    assert found.photo_ids.tolist() == [f"p{i}" for i in readable]
    for i, vector in zip(readable, found.vectors, strict=True):
        data = reader.read("a", int(rows["offset"][i]), int(rows["length"][i]))
        pixels = np.asarray(Image.open(io.BytesIO(data)))[2:14, 4:16]  # the centre of 16 x 20
        image = torch.tensor(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            answer = model.eval().layer(image).abs().mean(dim=(2, 3))[0].double().numpy()
        np.testing.assert_allclose(vector, answer / np.linalg.norm(answer), atol=1e-5)
    assert found.unreadable["photo_id"].tolist() == ["p5", "p12", "p20"]
    assert "no bytes" in found.unreadable["reason"][1]
    assert "all zeros" in found.unreadable["reason"][2]
    assert found.unreadable["reason"].notna().all()
    assert seen[-1]["done"] == seen[-1]["total"] == COUNT
    assert seen[-1]["unreadable"] == 3
    assert [s["done"] for s in seen] == [4, 8, 12, 16, 20, 24, 27]
    names = sorted(p.name for p in (tmp_path / "e").iterdir())
    parts = [
        f"{kind}-{i:05d}.{end}" for kind, end in (("photos", "parquet"), ("vectors", "npy")) for i in range(4)
    ]
    assert names == sorted([*parts, "meta.json", "unreadable.parquet"])


def test_float16_is_the_rounded_float32(pool, tmp_path):
    reader, rows = pool
    full = extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "full", SETTINGS)
    half_settings = EmbeddingSettings(batch_size=4, shard_rows=7)
    half = extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "half", half_settings)
    assert half.vectors.dtype == np.float16
    np.testing.assert_array_equal(half.vectors, full.vectors.astype(np.float16))
    np.testing.assert_allclose(np.linalg.norm(half.vectors.astype(np.float64), axis=1), 1, atol=1e-3)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [4, 8, 12, 24, 27])
def test_an_interrupted_run_ends_in_the_same_bytes_and_reads_no_finished_part_again(pool, tmp_path, stop_at):
    reader, rows = pool
    extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "whole" / "e", SETTINGS)

    def stop(state):
        if state["done"] == stop_at:
            raise Stop

    folder = tmp_path / "cut" / "e"
    with pytest.raises(Stop):
        extract_embeddings(TinyNetwork(), reader, rows, folder, SETTINGS, stop)
    with pytest.raises(ValueError, match="unfinished"):
        Embeddings.load(folder)
    reader.reads, seen = 0, []
    extract_embeddings(TinyNetwork(), reader, rows, folder, SETTINGS, seen.append)
    assert reader.reads == COUNT - min(COUNT, stop_at // 8 * 8 if stop_at < COUNT else COUNT)
    assert not seen or (seen[0]["done"], seen[-1]["done"]) == (min(COUNT, stop_at // 8 * 8 + 4), COUNT)
    assert content_hash(folder) == content_hash(tmp_path / "whole" / "e")


def test_what_an_earlier_folder_has_is_copied_and_the_bytes_are_those_of_a_full_run(pool, tmp_path):
    reader, rows = pool
    known, whole, grown = (tmp_path / name / "e" for name in ("known", "whole", "grown"))
    extract_embeddings(TinyNetwork(), reader, rows.head(19), known, SETTINGS)  # 4 whole batches and 3 photos
    extract_embeddings(TinyNetwork(), reader, rows, whole, SETTINGS)
    # Principal components beside them are of what was loaded then: what is copied is what the network gave.
    Pca.fit(Embeddings.load(known).vectors, PcaSettings(dimensions=2)).save(known / PCA_FILE)
    reader.reads, seen = 0, []
    extract_embeddings(TinyNetwork(), reader, rows, grown, SETTINGS, seen.append, earlier=known)
    assert reader.reads == COUNT - 16
    assert seen[-1]["copied"] == 16
    assert content_hash(grown) == content_hash(whole)

    for name, of, model, settings, copied in (
        ("one photo has other bytes", rows.assign(length=rows["length"] - (rows.index == 6)), 0, {}, 12),
        ("one is gone", rows.drop(index=9), 0, {}, 8),
        ("another network", rows, 1, {}, 0),
        ("other settings", rows, 0, {"dtype": "float16"}, 0),
    ):
        seen, using = [], SETTINGS.model_copy(update=settings)
        extract_embeddings(TinyNetwork(model), reader, of, tmp_path / name / "full" / "e", using)
        extract_embeddings(TinyNetwork(model), reader, of, tmp_path / name / "e", using, seen.append, known)
        assert seen[-1]["copied"] == copied, name
        assert content_hash(tmp_path / name / "e") == content_hash(tmp_path / name / "full" / "e"), name


def test_batches_that_a_take_down_changed_are_not_copied(pool, tmp_path):
    reader, rows = pool
    known, whole, made = (tmp_path / name / "e" for name in ("known", "whole", "made"))
    extract_embeddings(TinyNetwork(), reader, rows, known, SETTINGS)
    for gone in (14, 9):  # of the second part
        take_from_embeddings(known, {rows["photo_id"].iloc[gone]: "group"})
    left, seen = rows.drop(index=[9, 14]), []
    extract_embeddings(TinyNetwork(), reader, left, whole, SETTINGS)
    extract_embeddings(TinyNetwork(), reader, left, made, SETTINGS, seen.append, earlier=known)
    assert seen[-1]["copied"] == 8  # the first part's: photo 8 is now in a batch with photo 12
    assert content_hash(made) == content_hash(whole)


def test_kill_9_then_resume_ends_in_the_same_bytes(pool, tmp_path):
    reader, rows = pool
    extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "whole" / "e", SETTINGS)

    def die(state):
        if state["done"] == 20:
            os.kill(os.getpid(), signal.SIGKILL)

    # A fork, not a new interpreter, which would import torch again.
    child = multiprocessing.get_context("fork").Process(
        target=extract_embeddings, args=(TinyNetwork(), reader, rows, tmp_path / "cut" / "e", SETTINGS, die)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "cut" / "e").glob("photos-*")) == [
        "photos-00000.parquet",
        "photos-00001.parquet",
    ]
    (tmp_path / "cut" / "e" / ".vectors-00002.npy.77.part").write_bytes(b"half a file")
    extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "cut" / "e", SETTINGS)
    assert content_hash(tmp_path / "cut" / "e") == content_hash(tmp_path / "whole" / "e")


def test_only_what_changed_is_done_again(pool, tmp_path):
    reader, rows = pool
    folder = tmp_path / "e"

    def reads(model=None, rows=rows, settings=SETTINGS):
        reader.reads = 0
        extract_embeddings(model or TinyNetwork(), reader, rows, folder, settings)
        return reader.reads

    assert reads(rows=rows.iloc[:16]) == 16
    assert reads() == COUNT - 16, "appended photos cost only their own parts"
    assert reads() == 0
    assert reads(settings=EmbeddingSettings(batch_size=4, shard_rows=8, dtype="float32", workers=1)) == 0
    assert reads(model=TinyNetwork(seed=1)) == COUNT
    assert reads(settings=EmbeddingSettings(batch_size=4, shard_rows=7, dtype="float16")) == COUNT
    assert reads() == COUNT
    moved = rows.assign(sha256=[f"h{i}" for i in range(COUNT)])
    assert reads(rows=moved) == COUNT
    assert reads(rows=moved.assign(offset=rows["offset"])) == 0, "known content may lie anywhere"
    assert reads(rows=moved.assign(sha256=moved["sha256"].where(moved.index != 9, "other"))) == 8
    assert reads(rows=moved.iloc[:8]) == 0
    assert not (folder / "vectors-00001.npy").exists()
    whole = folder / "vectors-00000.npy"
    whole.write_bytes(whole.read_bytes()[:-4])
    assert reads(rows=moved.iloc[:8]) == 8, "a damaged part is made again"
    assert len(Embeddings.load(folder)) == 7


def test_the_models_hash_is_that_of_weights_and_preprocessing():
    one, two = TinyNetwork(), TinyNetwork()
    assert model_hash(one) == model_hash(two)
    assert model_hash(one) == model_hash(two.to(memory_format=torch.channels_last))
    two.preprocess = Preprocess(resize_short_side=17, image_size=12)
    assert model_hash(one) != model_hash(two)
    with torch.no_grad():
        one.layer.weight[0, 0, 0, 0] += 1e-3
    assert model_hash(one) != model_hash(TinyNetwork())


def test_subsets_and_positions(pool, tmp_path):
    reader, rows = pool
    found = extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "e", SETTINGS)
    assert found.positions(["p6", "p5", "x", "p0"]).tolist() == [5, -1, -1, 0]
    some = found.subset(["p6", "p0"])
    np.testing.assert_array_equal(some.vectors, found.vectors[[5, 0]])
    assert repr(found) == "Embeddings(24 photos, 6 dimensions, float32, 3 unreadable)"
    with pytest.raises(KeyError, match=r"'p5' has no embedding \(1 such photos\)"):
        found.subset(["p6", "p5"])
    with pytest.raises(ValueError, match="'a' has two embeddings"):
        Embeddings(np.array(["a", "a"], dtype=object), np.zeros((2, 3))).positions(["a"])


def test_nothing_readable_and_nothing_at_all(pool, tmp_path):
    reader, rows = pool
    none = extract_embeddings(TinyNetwork(), reader, rows.iloc[[5, 12]], tmp_path / "none", SETTINGS)
    assert len(none) == 0
    assert none.unreadable["photo_id"].tolist() == ["p5", "p12"]
    assert len(extract_embeddings(TinyNetwork(), reader, rows.iloc[:0], tmp_path / "empty", SETTINGS)) == 0
    # A part without a readable photo between others.
    order = [*range(4), 5, 12, 20, 5]
    mixed = rows.iloc[order].assign(photo_id=[f"q{i}" for i in range(8)])
    settings = EmbeddingSettings(batch_size=2, shard_rows=2, dtype="float32")
    found = extract_embeddings(TinyNetwork(), reader, mixed, tmp_path / "mixed", settings)
    assert found.photo_ids.tolist() == ["q0", "q1", "q2", "q3"]


def test_wrong_input_is_named(pool, tmp_path):
    reader, rows = pool
    with pytest.raises(ValueError, match="absent: length"):
        extract_embeddings(TinyNetwork(), reader, rows.drop(columns="length"), tmp_path / "e")
    with pytest.raises(ValueError, match="'p1' stands twice"):
        extract_embeddings(TinyNetwork(), reader, rows.iloc[[1, 1]], tmp_path / "e")
    with pytest.raises(FileNotFoundError):
        Embeddings.load(tmp_path / "nothing")
    with pytest.raises(SettingsError, match=r"embeddings\.dtype must be one of float16, float32; got 'int8'"):
        parse(EmbeddingSettings, {"dtype": "int8"}, "embeddings")
    extract_embeddings(TinyNetwork(), reader, rows, tmp_path / "e", SETTINGS)
    part = tmp_path / "e" / "vectors-00001.npy"
    np.save(part, np.load(part)[:-1])
    with pytest.raises(ValueError, match="photos are readable"):
        Embeddings.load(tmp_path / "e")
    assert read_json(tmp_path / "e" / "meta.json")["photos"] == COUNT
