"""Which errors are for users: they get a line, not a traceback."""

from __future__ import annotations

from pathlib import Path

from geoloc.files import NO_ROOM, DamagedFile, DiskFullError


class UsageError(ValueError):
    """A command was called with a value that is not allowed, or with options that exclude each other.

    The message names them.
    """


def is_for_users(error: Exception) -> bool:
    """True for the project's own error classes and for files that the system refuses.

    Any other error is a bug in the program, and its traceback is needed.
    """
    ours = type(error).__module__.split(".")[0] in ("geoloc", "orchestration")
    return ours or (isinstance(error, OSError) and (error.filename is not None or error.errno in NO_ROOM))


def told(error: Exception, workspace: Path) -> str:
    """The line for users: the error's message, and for a damaged file of the workspace how to get it back."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return str(DiskFullError(error.filename or workspace.absolute(), error.strerror or "no room"))
    if not isinstance(error, DamagedFile):
        return str(error)
    path, root = error.path.absolute(), workspace.absolute()
    inside = path.relative_to(root).parts if path.is_relative_to(root) else ("",)
    if inside[0] == "data":
        return f"{error}; restore it with: dvc checkout data.dvc"
    if inside[0] == "build":
        recipe = f" --recipe {inside[1]}" if len(inside) > 2 and inside[1] != "photos" else ""
        return f"{error}; build it again with: geoloc build{recipe}"
    if inside[0] in ("data.dvc", "dvc.yaml", "dvc.lock", "params.yaml", "recipes", "expectations", ".dvc"):
        return f"{error}; mend it, or restore it with: git checkout -- {'/'.join(inside)}"
    return str(error)
