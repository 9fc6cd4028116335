"""Blocks that keep freed memory: only the last one to end gives it back."""

import ctypes
import sys

import pytest

from geoloc.memory import freed_memory_kept


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_nested_blocks_keep_memory_until_the_outer_one_ends(monkeypatch):
    calls = []

    class Library:
        def mallopt(self, name, value):
            calls.append((name, value))

        def malloc_trim(self, pad):
            calls.append("trim")

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    with freed_memory_kept():
        kept = dict(calls)
        with pytest.raises(KeyError), freed_memory_kept():
            raise KeyError
        assert "trim" not in calls
        assert dict(calls) == kept
    assert calls.count("trim") == 1
    assert all(value < kept[name] for name, value in calls[-4:-1])
    with freed_memory_kept():
        assert dict(calls[-3:]) == kept
