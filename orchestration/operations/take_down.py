"""Take-down: a photo, or all of a photographer, leaves a workspace, and does not come back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from geoloc.photos.photographers import photographer_id
from geoloc.photos.takedown import Gone, find_gone, take_down
from orchestration.errors import UsageError
from orchestration.operations.outputs import (
    changed_stages,
    external_files_with,
    look_at_outputs,
    saw,
    take_from_outputs,
)
from orchestration.operations.traces import SHORTEST_ID, Words, clean_builds, clean_history, clean_mlflow
from orchestration.stores.champion import restate_contents, whole_versions
from orchestration.stores.data_version import (
    collect_garbage,
    data_version,
    dvc_config,
    record_data,
    verify_data,
)
from orchestration.stores.lock import build_lock, photos_lock, promotion_lock
from orchestration.stores.pipeline import forget_stages
from orchestration.stores.stamps import versions_builds
from orchestration.stores.take_downs import end_journal, read_journal, write_journal
from orchestration.workspace import Workspace, WorkspaceError

CACHE, REMOTE = "cache", "remote"


@dataclass(frozen=True)
class Done:
    """A finished take-down: the number of photos, the models that saw them, with how many, the data versions, and the
    files by other programs (`external`) that still have them."""

    photos: int
    photographer: bool
    models: dict[str, int]
    before: str
    after: str
    collected: tuple[str, ...]
    short_ids: tuple[str, ...]
    external: tuple[str, ...] = ()


def forget(
    workspace: Workspace,
    *,
    photo: str | None = None,
    photographer: str | None = None,
    reason: str,
    gc: Collection[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Done:
    """Take a photo, or all photos by a photographer, down everywhere in a workspace.

    `photographer` is the hash in the catalog, or what it is a hash of. `gc` names what DVC's garbage is collected from:
    the cache, or the remote (and the cache); older data versions are lost with it. If an earlier take-down was
    interrupted, it is finished first. Raises WorkspaceError for an unknown photo or photographer, for photos that are
    not the version in data.dvc, and while a build or an ingest runs.
    """
    _check_gc(workspace, gc)
    with ExitStack() as held:
        held.enter_context(photos_lock(workspace, "geoloc forget", taking_down=True))
        held.enter_context(build_lock(workspace, "geoloc forget"))
        held.enter_context(promotion_lock(workspace, "geoloc forget", taking_down=True))
        if (journal := read_journal(workspace)) is not None:
            say("finishing the take-down that was interrupted")
            finished = _carry_out(workspace, journal)
            asked = journal["asked"] == {"photo": photo, "photographer": photographer}
            if asked and set(gc) <= set(finished.collected):
                return finished
            if asked:
                return _carry_out(workspace, journal | {"gc": sorted(gc)})
        key = workspace.photographer_key()
        photos, who = _find(workspace, photo, photographer, key)
        journal = {
            "asked": {"photo": photo, "photographer": photographer},
            "photographer": who,
            "reason": reason,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "gc": sorted(gc),
            "before": verify_data(workspace),
            "photos": [one.to_dict() | {"group": f"group-{secrets.token_hex(8)}"} for one in photos],
        }
        journal["outputs"] = look_at_outputs(workspace, _groups(journal))
        journal["served"] = whole_versions(workspace)
        write_journal(workspace, journal)
        return _carry_out(workspace, journal)


def finish(workspace: Workspace) -> Done | None:
    """Finish a take-down that was interrupted; None if there is none."""
    with (
        photos_lock(workspace, "geoloc forget", taking_down=True),
        build_lock(workspace, "geoloc forget"),
        promotion_lock(workspace, "geoloc forget", taking_down=True),
    ):
        journal = read_journal(workspace)
        return None if journal is None else _carry_out(workspace, journal)


def collect(workspace: Workspace, gc: Collection[str]) -> None:
    """Collect DVC's garbage of earlier take-downs."""
    _check_gc(workspace, gc)
    with (
        photos_lock(workspace, "geoloc forget", taking_down=True),
        build_lock(workspace, "geoloc forget"),
    ):
        verify_data(workspace)
        collect_garbage(workspace, remote=REMOTE in gc)


def steps(workspace: Workspace, journal: dict[str, Any]) -> list[Callable[[], object]]:
    """The steps of a take-down, in order. Each can be repeated, so an interrupted one is finished by all of them."""
    photos = [Gone(**{name: one[name] for name in Gone.__dataclass_fields__}) for one in journal["photos"]]
    groups, words, noted = _groups(journal), Words.of(photos, journal["photographer"]), journal["outputs"]

    def from_pool() -> None:
        take_down(
            workspace.pool,
            photos,
            workspace.photographer_key(),
            at=datetime.fromisoformat(journal["at"]),
            reason=journal["reason"],
            photographer=journal["photographer"],
        )

    def from_mlflow() -> None:
        clean_mlflow(workspace, groups, words)
        restate_contents(workspace, [(name, number) for name, number in journal.get("served", [])])

    def from_lock_file() -> None:
        if versions_builds(workspace):
            forget_stages(workspace, changed_stages(noted))

    def from_dvc() -> None:
        if journal["gc"]:
            collect_garbage(workspace, remote=REMOTE in journal["gc"])

    return [
        from_pool,
        lambda: record_data(workspace),
        lambda: take_from_outputs(workspace, groups, noted),
        lambda: clean_builds(workspace, words),
        from_mlflow,
        lambda: clean_history(workspace, words),
        from_lock_file,
        from_dvc,
    ]


def _carry_out(workspace: Workspace, journal: dict[str, Any]) -> Done:
    for step in steps(workspace, journal):
        step()
    end_journal(workspace)
    ids = [one["photo_id"] for one in journal["photos"]]
    return Done(
        photos=len(ids),
        photographer=journal["photographer"] is not None,
        models=saw(journal["outputs"]),
        before=journal["before"],
        after=data_version(workspace),
        collected=tuple(journal["gc"]),
        short_ids=tuple(one for one in ids if len(one) < SHORTEST_ID),
        external=tuple(external_files_with(workspace, _groups(journal))),
    )


def _groups(journal: dict[str, Any]) -> dict[str, str]:
    return {one["photo_id"]: one["group"] for one in journal["photos"]}


def _find(
    workspace: Workspace, photo: str | None, photographer: str | None, key: bytes
) -> tuple[Sequence[Gone], str | None]:
    """The photos, and the hash of the photographer. Raises WorkspaceError if there are none."""
    if photo is not None:
        if found := find_gone(workspace.pool, photo_id=photo):
            return found, None
        raise WorkspaceError(
            f"the pool of {workspace.root} has no photo {photo}; --photo takes an id of the catalog"
        )
    assert photographer is not None
    for who in (photographer, photographer_id(photographer, key)):
        if found := find_gone(workspace.pool, photographer=who):
            return found, who
    raise WorkspaceError(
        f"the pool of {workspace.root} has no photo by {photographer}; --photographer takes the hash in the catalog, "
        "or the name or number that ingest was given"
    )


def _check_gc(workspace: Workspace, gc: Collection[str]) -> None:
    if REMOTE in gc and dvc_config(workspace).get("core", "remote", fallback=None) is None:
        raise UsageError(
            "--gc remote needs a default DVC remote, which .dvc/config does not name (core.remote)"
        )
