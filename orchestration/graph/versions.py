"""The code version of an asset as Dagster sees it: the code and the settings that make an output, as one text.

Dagster calls an output out of date if this differs from what it was made with, or if an input has another data version.
So it agrees with `geoloc build`, which compares both with the record.
"""

from __future__ import annotations

from geoloc.files import sha256_bytes
from geoloc.settings import settings_hash
from orchestration.lineage.build import Build
from orchestration.lineage.code import code_version
from orchestration.lineage.record import Record
from orchestration.lineage.stale import changed_in_itself
from orchestration.plan.chain import Stage


def version_now(build: Build, stage: Stage) -> str:
    """The version of an output made now: that of the present one, if a record says that it would come out equal.

    So an output that a person accepted for new code, or whose record lacks a setting that has its default, stays up to
    date.
    """
    record, changed = build.record(stage.name), changed_in_itself(build, stage)
    if record is not None and not changed:
        return version_of(record)
    now = _version(code_version(stage.module), settings_hash(build.used(stage)))
    if record is not None and now == version_of(record):  # what changed is neither code nor settings
        return f"{now}-{sha256_bytes('; '.join(changed).encode())[:8]}"
    return now


def version_of(record: Record) -> str:
    """The version with which an output was made."""
    return _version(record.code_version, record.settings_hash)


def _version(code: str, settings: str) -> str:
    return f"{code}-{settings[:16]}"
