"""Alerts: what failed is appended to a file and posted to a webhook, as the settings say."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from orchestration.plan.alert_settings import AlertSettings
from orchestration.workspace import Workspace, WorkspaceError

_TIMEOUT_SECONDS = 10.0


def alert(workspace: Workspace, settings: AlertSettings, failure: Mapping[str, Any]) -> None:
    """Report one failure: first to the webhook, then in the file, so that a webhook that fails is asked again and the
    file has each alert once.

    Raises WorkspaceError, which never shows the address, if the variable is not set or the webhook does not take it.
    """
    if settings.webhook:
        _post(settings.webhook, failure)
    if settings.file:
        file = workspace.root / settings.file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:  # one write, which others that append do not split
            stream.write(json.dumps(dict(failure), ensure_ascii=False, sort_keys=True) + "\n")


def _post(variable: str, failure: Mapping[str, Any]) -> None:
    address = os.environ.get(variable, "").strip()  # a file of secrets often ends its lines
    if not _is_address(address):
        what = "is not set" if not address else "does not hold an http:// or https:// address"
        raise WorkspaceError(f"alerts.webhook names the environment variable {variable}, which {what}")
    request = urllib.request.Request(
        address,
        data=json.dumps(dict(failure), ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "geoloc"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        raise WorkspaceError(f"the webhook in {variable} answered with status {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Only these texts: others, such as InvalidURL's, show the address.
        why = error.reason if type(error) is urllib.error.URLError else type(error).__name__
        raise WorkspaceError(f"the webhook in {variable} cannot be reached: {why}") from None


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for one that is no number
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
    )
