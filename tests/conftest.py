"""For every test: one thread in each process, and an order that keeps all cores busy until the end."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import settings

# Few examples, and the same ones each time: the whole suite runs on every change, which is then to blame for a failure.
# `pytest --hypothesis-profile thorough` looks for rare ones.
settings.register_profile("few", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("few")

# Before torch, numpy and faiss are imported, and inherited by the processes that tests start: pytest-xdist runs a
# worker on each core, and threads of one would only take the cores of the others.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

FOLDERS = ("model", "data", "pipeline", "unit")
"""Their order. Files are handed to the workers whole and in this order, see PYTEST in the Makefile."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what takes long first, and end with the many short files, which fill the cores evenly.

    The first worker makes the workspace that the tests of tests/pipeline copy, and mypy takes the second. The others
    find tests that need neither, until the workspace is there.
    """

    def place(item: pytest.Item) -> int:
        folder, name = item.path.parent.name, item.path.name
        if name in ("test_build.py", "test_style.py"):
            return -1
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)

    items.sort(key=place)  # stable: within a folder as collected


def pytest_collection_finish() -> None:
    """What is imported by now is never garbage. To look for some in it, again and again, took 4 of the 58 CPU seconds
    of a test that builds all."""
    gc.collect()
    gc.freeze()
    # Nor is much garbage in cycles: with Python's thresholds of 700, 10 and 10, to look for it took 100 of the suite's
    # 1,500 CPU seconds, and with ten times as many calls as now 10.
    gc.set_threshold(500_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Dagster and MLflow read the files of all their migrations for each database that they open: 20 CPU seconds."""
    with pytest.MonkeyPatch.context() as patched:
        read = ScriptDirectory.from_config
        kept: dict[tuple[str | None, str | None], ScriptDirectory] = {}

        def from_config(config: Config) -> ScriptDirectory:
            key = config.config_file_name, config.get_main_option("script_location")
            if key not in kept:
                kept[key] = read(config)
            return kept[key]

        patched.setattr(ScriptDirectory, "from_config", from_config)
        yield
