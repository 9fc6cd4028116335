"""Which errors are for users: they get a line, not a traceback."""

from __future__ import annotations


class UsageError(ValueError):
    """A command was called with a value that is not allowed, or with options that exclude each other.

    The message names them.
    """


def is_for_users(error: Exception) -> bool:
    """True for the project's own error classes and for missing or forbidden files.

    Any other error is a bug in the program, and its traceback is needed.
    """
    ours = type(error).__module__.split(".")[0] in ("geoloc", "orchestration")
    return ours or isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError)
