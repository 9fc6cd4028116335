"""Who runs a command, for records of decisions."""

from __future__ import annotations

import getpass
import os


def person() -> str:
    """The name of the user of this process; `uid N` in a container whose user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # by version of Python and system
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
