"""What every test of ingest shares."""

from __future__ import annotations

import pytest

from orchestration.workspace import PHOTOGRAPHER_KEY_VARIABLE


@pytest.fixture(autouse=True)
def known_key(monkeypatch):
    """One key for all photographers, as splits of few photos depend on it."""
    monkeypatch.setenv(PHOTOGRAPHER_KEY_VARIABLE, "a key that is known to all tests")
