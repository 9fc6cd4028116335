"""Atomic writes: whole or absent, whatever happens; and content hashes that see content and names, nothing else."""

import contextlib
import hashlib
import math
import os
import pickle
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.files import (
    DamagedFile,
    atomic_folder,
    atomic_path,
    combined_hash,
    content_hash,
    file_hashes,
    read_arrow,
    read_json,
    read_parquet,
    sha256_bytes,
    write_json,
    write_parquet,
    write_text,
)
from geoloc.yaml_files import read_yaml


class Stop(Exception):
    """Raised inside a block to see what is left behind."""


def half_written(temporary):
    temporary.write_text("half")
    raise Stop


def names(folder):
    return sorted(p.name for p in folder.iterdir())


class TestAtomicPath:
    def test_the_old_file_stands_until_the_block_ends(self, tmp_path):
        target = tmp_path / "deep" / "er" / "file.txt"
        with atomic_path(target) as temporary:
            assert temporary.parent == target.parent
            temporary.write_text("one")
            assert not target.exists()
        with atomic_path(str(target)) as temporary:
            temporary.write_text("two")
            assert target.read_text() == "one"
        assert target.read_text() == "two"
        assert names(target.parent) == ["file.txt"]

    def test_a_block_that_raises_changes_nothing(self, tmp_path):
        target = tmp_path / "file.txt"
        target.write_text("old")
        with pytest.raises(Stop), atomic_path(target) as temporary:
            half_written(temporary)
        assert target.read_text() == "old"
        assert names(tmp_path) == ["file.txt"]

    def test_a_block_that_writes_nothing_is_an_error(self, tmp_path):
        target = tmp_path / "file.txt"
        target.write_text("old")
        with pytest.raises(FileNotFoundError), atomic_path(target):
            pass
        assert target.read_text() == "old"

    def test_two_threads_on_one_path_do_not_share_a_temporary(self, tmp_path):
        both, seen = threading.Barrier(2), []

        def write(text):
            with atomic_path(tmp_path / "file.txt") as temporary:
                seen.append(temporary)
                temporary.write_text(text)
                both.wait(timeout=10)
                seen.append(temporary.read_text() == text)
                both.wait(timeout=10)

        threads = [threading.Thread(target=write, args=(text,)) for text in ("aaa", "bbb")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen.count(True) == 2
        assert (tmp_path / "file.txt").read_text() in ("aaa", "bbb")
        assert names(tmp_path) == ["file.txt"]


class TestAtomicFolder:
    def test_the_new_folder_replaces_the_old_one_wholly(self, tmp_path):
        target = tmp_path / "deep" / "folder"
        with atomic_folder(target) as temporary:
            (temporary / "a").write_text("1")
            assert not target.exists()
        with atomic_folder(target) as temporary:
            (temporary / "b").write_text("2")
            assert names(target) == ["a"]
        assert names(target) == ["b"]
        assert names(target.parent) == ["folder"]
        assert stat.S_IMODE(target.stat().st_mode) == 0o755

    def test_a_block_that_raises_changes_nothing(self, tmp_path):
        target = tmp_path / "folder"
        target.mkdir()
        (target / "a").write_text("1")
        with pytest.raises(Stop), atomic_folder(target) as temporary:
            half_written(temporary / "b")
        assert names(target) == ["a"]
        assert names(tmp_path) == ["folder"]

    def test_a_process_killed_anywhere_in_the_swap_leaves_no_part(self, tmp_path):
        """Kill at each call that removes or renames: the folder is the old one, the new one or absent, never less."""
        script = """
import os, shutil, sys
from pathlib import Path
from geoloc.files import atomic_folder
count, stop = 0, int(sys.argv[2])
def counted(inner):
    def call(*a, **k):
        global count
        count += 1
        if count == stop: os._exit(9)
        return inner(*a, **k)
    return call
with atomic_folder(sys.argv[1]) as new:
    for k in range(3): (new / f"new{k}").write_text("x")
    for module, name in ((os, "unlink"), (os, "rmdir"), (os, "rename"), (os, "replace")):
        setattr(module, name, counted(getattr(module, name)))
"""
        outcomes = set()
        for stop in range(1, 9):
            target = tmp_path / str(stop) / "folder"
            target.mkdir(parents=True)
            for k in range(3):
                (target / f"old{k}").write_text("x")
            ended = subprocess.run(
                [sys.executable, "-c", script, str(target), str(stop)], check=False
            ).returncode
            found = names(target) if target.exists() else []
            assert found in (["old0", "old1", "old2"], ["new0", "new1", "new2"], [])
            outcomes.add((ended, tuple(found)))
        assert {ended for ended, _ in outcomes} >= {9}
        assert (9, ("old0", "old1", "old2")) in outcomes
        assert (9, ("new0", "new1", "new2")) in outcomes


class TestContents:
    def test_text_is_utf8_and_json_is_canonical(self, tmp_path):
        write_text(tmp_path / "t.txt", "Zürich – 東京\n")
        assert (tmp_path / "t.txt").read_bytes() == "Zürich – 東京\n".encode()
        value = {"b": [1, 2.5, None, True], "a": {"place": "Zürich"}}
        write_json(tmp_path / "one.json", value)
        write_json(tmp_path / "two.json", dict(reversed(value.items())))
        assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
        assert (tmp_path / "one.json").read_text(encoding="utf-8") == (
            '{\n  "a": {\n    "place": "Zürich"\n  },\n  "b": [\n    1,\n    2.5,\n    null,\n    true\n  ]\n}\n'
        )
        assert read_json(tmp_path / "one.json") == value

    @pytest.mark.parametrize("value", [math.nan, math.inf, {"x": [-math.inf]}, {1, 2}])
    def test_what_json_cannot_hold_is_an_error_and_writes_nothing(self, tmp_path, value):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "x.json", value)
        assert names(tmp_path) == []

    def test_read_json_says_when_it_is_not(self, tmp_path):
        (tmp_path / "x.json").write_text("{")
        with pytest.raises(DamagedFile, match=r"x\.json is damaged: not JSON \(Expecting property name"):
            read_json(tmp_path / "x.json")

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "empty"),
            (b"\xff{}", r"not UTF-8 text \(byte 0xff at position 0\)"),
            (b"[1]", "it must hold a mapping, got a list"),
            (b"3", "it must hold a mapping, got 3"),
            (b"[" * 100_000, "not JSON"),
        ],
    )
    def test_json_that_is_not_what_it_must_be(self, tmp_path, data, why):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(DamagedFile, match=rf"x\.json is damaged: {why}"):
            read_json(tmp_path / "x.json", dict)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("a: 1\nb: 2\na: 3\n", r"not YAML \(line 3: the key a is given twice\)"),
            ("a: {b: 1, b: 1}\n", r"not YAML \(line 1: the key b is given twice\)"),
            ("a:\n\t- 1\n", r"not YAML \(line 2: found character"),
            ("a: \0\n", r"not YAML \(character 0x00 at position 3\)"),
            ("<<<<<<< HEAD\na: 1\n=======\n", r"not YAML \(line"),
            ("a: 2026-99-99\n", r"not YAML \(month must be in"),
            ("- 1\n", "it must hold a mapping, got a list"),
        ],
    )
    def test_yaml_that_is_not_what_it_must_be(self, tmp_path, text, why):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(DamagedFile, match=rf"x\.yaml is damaged: {why}") as caught:
            read_yaml(tmp_path / "x.yaml", dict)
        assert "\n" not in str(caught.value)

    def test_yaml_may_be_empty_and_may_merge(self, tmp_path):
        (tmp_path / "x.yaml").write_text("")
        assert read_yaml(tmp_path / "x.yaml", dict) is None
        (tmp_path / "x.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: {x: 1}\n")
        assert read_yaml(tmp_path / "x.yaml", dict) == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 1}}

    def test_a_yaml_value_is_its_readers_own(self, tmp_path):
        (tmp_path / "x.yaml").write_text("a: {x: [1]}\n")
        read_yaml(tmp_path / "x.yaml")["a"]["x"].append(2)
        assert read_yaml(tmp_path / "x.yaml") == {"a": {"x": [1]}}

    @given(st.data())
    def test_a_truncated_file_is_damaged_wherever_it_ends(self, whole_files, data):
        """JSON of a mapping and Parquet both say where they end."""
        for path, read in whole_files.items():
            whole = path.read_bytes()
            end = data.draw(st.integers(0, len(whole.rstrip()) - 1), label=path.name)
            cut = path.with_name(f"cut-{path.name}")
            cut.write_bytes(whole[:end])
            with pytest.raises(DamagedFile, match=f"{cut.name} is damaged: ") as caught:
                read(cut)
            assert "\n" not in str(caught.value)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_or_damaged(self, whole_files, data):
        folder = next(iter(whole_files)).parent
        (folder / "any").write_bytes(data)
        for read in (read_json, read_yaml, read_parquet):
            with contextlib.suppress(DamagedFile):
                read(folder / "any")

    @pytest.fixture(scope="class")
    def whole_files(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole")
        write_json(folder / "x.json", {"a": [1, 2.5, "ü"], "b": {"c": None}})
        write_parquet(folder / "x.parquet", pd.DataFrame({"a": ["x", None], "b": [1.5, 2.5]}))
        schema = pa.schema([pa.field("a", pa.string()), pa.field("b", pa.float64(), nullable=False)])
        write_parquet(folder / "y.parquet", pd.DataFrame({"a": ["x", None], "b": [1.5, 2.5]}))
        return {
            folder / "x.json": read_json,
            folder / "x.parquet": read_parquet,
            folder / "y.parquet": lambda path: read_arrow(path, schema),
        }

    def test_a_foreign_table_lacks_columns_or_has_other_types(self, tmp_path):
        write_parquet(tmp_path / "x.parquet", pd.DataFrame({"a": ["x"], "b": ["north"]}))
        with pytest.raises(DamagedFile, match=r"x\.parquet is damaged: it lacks the columns c, d"):
            read_parquet(tmp_path / "x.parquet", ("a", "c", "d"))
        schema = pa.schema([pa.field("a", pa.string()), pa.field("b", pa.float64(), nullable=False)])
        with pytest.raises(DamagedFile, match=r"x\.parquet is damaged: .*north"):
            read_arrow(tmp_path / "x.parquet", schema)
        write_parquet(tmp_path / "y.parquet", pd.DataFrame({"b": [1, 2], "more": ["x", "y"]}))
        table = read_arrow(tmp_path / "y.parquet", schema)
        assert table.column_names == ["a", "b"]
        assert table["a"].to_pylist() == [None, None]
        assert table["b"].to_pylist() == [1.0, 2.0]

    def test_folders_and_missing_files_are_not_damaged_silently(self, tmp_path):
        for read in (read_json, read_yaml, read_parquet):
            with pytest.raises(DamagedFile, match="a folder, not a file"):
                read(tmp_path)
            with pytest.raises(FileNotFoundError, match=r"none\.x"):
                read(tmp_path / "none.x")

    def test_the_error_survives_a_process(self):
        again = pickle.loads(pickle.dumps(DamagedFile("x.json", "empty")))
        assert (str(again), again.path, again.why) == ("x.json is damaged: empty", Path("x.json"), "empty")

    def test_parquet_comes_back_without_its_index_and_with_equal_bytes(self, tmp_path):
        frame = pd.DataFrame({"token": ["47e7", "1e4", None], "x": [1.5, 2.5, float("nan")]}, index=[5, 6, 7])
        write_parquet(tmp_path / "a.parquet", frame)
        write_parquet(tmp_path / "b.parquet", frame.reset_index(drop=True))
        back = pd.read_parquet(tmp_path / "a.parquet")
        pd.testing.assert_frame_equal(back, frame.reset_index(drop=True))
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
        assert names(tmp_path) == ["a.parquet", "b.parquet"]


class TestHashes:
    def test_the_content_of_a_folder_follows_from_the_hashes_of_its_files(self, tmp_path):
        """What was recorded before files were named stays up to date."""
        for name in ("b/z.txt", "b-a.txt", "a.txt", "b/a.txt"):
            write_text(tmp_path / "x" / name, name)
        hashes = file_hashes(tmp_path / "x")
        assert combined_hash(hashes.items()) == content_hash(*sorted((tmp_path / "x").iterdir()))
        assert hashes["b/z.txt"] == sha256_bytes(b"b/z.txt")

    def test_sha256(self):
        assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    @pytest.fixture
    def folder(self, tmp_path):
        made = tmp_path / "data"
        (made / "sub").mkdir(parents=True)
        (made / "b.txt").write_bytes(b"bee")
        (made / "sub" / "a.txt").write_bytes(b"ay")
        return made

    def test_is_names_and_inner_hashes_in_order(self, folder):
        lines = "".join(
            f"{name}\0{hashlib.sha256(data).hexdigest()}\n"
            for name, data in (("data/b.txt", b"bee"), ("data/sub/a.txt", b"ay"))
        )
        assert content_hash(folder) == hashlib.sha256(lines.encode()).hexdigest()

    def test_times_places_and_spellings_of_a_path_do_not_count(self, folder, tmp_path, monkeypatch):
        before = content_hash(folder)
        os.utime(folder / "b.txt", (1, 1))
        assert content_hash(folder) == content_hash(str(folder)) == before
        (tmp_path / "elsewhere").mkdir()
        folder.rename(tmp_path / "elsewhere" / "data")
        assert content_hash(tmp_path / "elsewhere" / "data") == before
        monkeypatch.chdir(tmp_path / "elsewhere" / "data")
        assert content_hash(".") == before
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert content_hash("data") == before

    def test_every_change_of_content_counts(self, folder):
        seen = {content_hash(folder)}
        (folder / "b.txt").write_bytes(b"bef")
        seen.add(content_hash(folder))
        (folder / "b.txt").rename(folder / "c.txt")
        seen.add(content_hash(folder))
        (folder / "c.txt").rename(folder / "sub" / "c.txt")
        seen.add(content_hash(folder))
        (folder / "empty").write_bytes(b"")
        seen.add(content_hash(folder))
        seen.add(content_hash(folder / "empty"))
        seen.add(content_hash(folder / "empty", folder / "sub" / "c.txt"))
        seen.add(content_hash(folder / "sub" / "c.txt", folder / "empty"))
        assert len(seen) == 8

    def test_a_file_that_is_absent_has_no_hash(self, folder):
        with pytest.raises(FileNotFoundError, match="nothing is missing"):
            content_hash(folder, folder / "nothing")
