"""Which errors are meant for users: they read a line, not a traceback."""

from __future__ import annotations


class UsageError(ValueError):
    """A command was called with a value that is not allowed, or with options that exclude each other.

    The message names them.
    """


def is_for_users(error: Exception) -> bool:
    """True for the project's own error classes and for files that are absent or forbidden.

    Anything else is a mistake in the program, and its traceback is wanted.
    """
    ours = type(error).__module__.split(".")[0] in ("geoloc", "orchestration")
    return ours or isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError)
