"""The model in service: the version of MLflow's registered model `geoloc` that has the alias `champion`.

A version is a whole build (network, partitions, calibration, index), so one write of the alias changes all of them.
Read from MLflow's database: importing MLflow takes seconds, and `geoloc locate` asks at every call.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.plan.chain import SPLITS_FILE
from orchestration.stores.databases import check_mlflow, mlflow_database
from orchestration.stores.serving import CONTENT, SPLITS_FOLDER, content_of, registered_name
from orchestration.workspace import Workspace, WorkspaceError

MODEL = "geoloc"
"""The registered model of all that were promoted. The builds of a recipe are versions of `geoloc-<recipe>`."""
ALIAS = "champion"
RECIPE, CHALLENGER, BEFORE, RECORD = "recipe", "geoloc.challenger", "geoloc.before", "geoloc.record"
"""Tags of a promoted version, beside CONTENT: its recipe; which version of that it is; the champion before it; and the
MLflow run with the decision."""
_SERVED = "served.json"
_DELETED = "Deleted_Internal"
"""The stage of versions that a person has deleted: MLflow keeps their rows."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model: a packed build in `folder` (geoloc.localizers.served), logged by `run_id`."""

    name: str
    number: int
    model_id: str
    run_id: str
    folder: Path
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def recipe(self) -> str:
        return self.tags.get(RECIPE, "")

    @property
    def before(self) -> int | None:
        """The number of the champion before this one; None if it was the first."""
        found = self.tags.get(BEFORE, "")
        return int(found) if found else None

    def content(self) -> str:
        """The hash of its files as they are on disk."""
        return content_of(self.folder)

    def require_whole(self) -> None:
        """Raise WorkspaceError if the files of a promoted version are not those that were promoted."""
        found = self.content() if self.folder.is_dir() else "missing"
        if found != self.tags.get(CONTENT):
            raise WorkspaceError(
                f"{self} is not what was promoted ({self.folder} has content {found[:12]}, recorded "
                f"{self.tags.get(CONTENT, 'none')[:12]}); restore it, or serve the one before it: geoloc rollback "
                "--reason TEXT"
            )


def champion(workspace: Workspace) -> Version | None:
    """The model in service; None if none was ever promoted. Raises DamagedFile for a damaged store."""
    numbers = _rows(
        workspace, "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", (MODEL, ALIAS)
    )
    return promoted(workspace, numbers[0][0]) if numbers else None


def promoted(workspace: Workspace, number: int) -> Version:
    """A version that was promoted. Raises WorkspaceError if there is none of this number."""
    if found := versions(workspace, MODEL, number):
        return found[0]
    known = ", ".join(str(one.number) for one in versions(workspace, MODEL)) or "none"
    raise WorkspaceError(f"{MODEL} has no version {number}; it has {known}")


def registered(workspace: Workspace, recipe: str, number: int | None = None) -> Version:
    """The version of a recipe's builds with this number, or the newest. Raises WorkspaceError if there is none."""
    found = versions(workspace, registered_name(recipe), number)
    if found:
        return found[-1]
    known = [str(one.number) for one in versions(workspace, registered_name(recipe))]
    if known:
        raise WorkspaceError(f"{registered_name(recipe)} has no version {number}; it has {', '.join(known)}")
    raise WorkspaceError(
        f"no build of {recipe} is registered: {registered_name(recipe)} is missing in MLflow; build it with: geoloc "
        f"build --recipe {recipe} (a classifier that could not be exported is not registered, the build says so)"
    )


def versions(workspace: Workspace, name: str, number: int | None = None) -> list[Version]:
    """The versions of a registered model by number, or the one with this number."""
    only = "" if number is None else " AND version = ?"
    asked = (name,) if number is None else (name, number)
    rows = _rows(
        workspace,
        f"SELECT version, source, run_id FROM model_versions WHERE name = ?{only} AND current_stage != ? "
        "ORDER BY version",
        (*asked, _DELETED),
    )
    return [
        Version(name, version, model, str(run), _folder(workspace, model), _tags(workspace, name, version))
        for version, model, run in ((row[0], str(row[1]).removeprefix("models:/"), row[2]) for row in rows)
    ]


def splits_of(workspace: Workspace, version: Version) -> Path:
    """The table of splits that a version was made from. Raises WorkspaceError if its run does not have it."""
    file = workspace.mlflow / "artifacts" / version.run_id / "artifacts" / SPLITS_FOLDER / SPLITS_FILE
    if not file.is_file():
        raise WorkspaceError(
            f"{version} cannot be compared: {file.relative_to(workspace.root)} is missing, so it is not known what it "
            f"has seen; build it again with: geoloc build --recipe {version.recipe} --only evaluation --force"
        )
    return file


def all_versions(workspace: Workspace) -> list[Version]:
    """The versions of all registered models."""
    names = _rows(workspace, "SELECT DISTINCT name FROM model_versions ORDER BY name", ())
    return [one for (name,) in names for one in versions(workspace, str(name))]


def restate_contents(workspace: Workspace, which: Iterable[tuple[str, int]]) -> None:
    """Record the files of registered versions, by name and number, as they are now: a take-down has changed them."""
    database = mlflow_database(workspace)
    if not database.is_file():
        return
    for name, number in which:
        for version in versions(workspace, name, number):
            with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
                connection.execute(
                    "UPDATE model_version_tags SET value = ? WHERE key = ? AND name = ? AND version = ?",
                    (version.content(), CONTENT, name, number),
                )


def whole_versions(workspace: Workspace) -> list[tuple[str, int]]:
    """The registered versions, by name and number, whose files are those that were registered."""
    found = [one for one in all_versions(workspace) if one.folder.is_dir() and CONTENT in one.tags]
    return [(one.name, one.number) for one in found if one.content() == one.tags[CONTENT]]


def has_tag(workspace: Workspace, key: str) -> bool:
    """Whether any run has a tag with this key."""
    return bool(_rows(workspace, "SELECT 1 FROM tags WHERE key = ? LIMIT 1", (key,)))


def _folder(workspace: Workspace, model: str) -> Path:
    """The folder of a logged model's packed build. Relative to the workspace, which may have been moved."""
    inside = workspace.mlflow / "artifacts" / "models" / model / "artifacts" / "artifacts"
    return next((file.parent for file in sorted(inside.glob(f"*/{_SERVED}"))), inside / "missing")


def _tags(workspace: Workspace, name: str, number: int) -> dict[str, str]:
    rows = _rows(
        workspace, "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", (name, number)
    )
    return {str(key): str(value) for key, value in rows}


def _rows(workspace: Workspace, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    file = mlflow_database(workspace)
    if not file.is_file():
        return []
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=60)
        ) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # MLflow was killed while it made its store: nothing is registered
            return []
        raise WorkspaceError(f"{file} cannot be read: {error}") from None
    except sqlite3.DatabaseError:
        check_mlflow(workspace)  # says what to do
        raise
