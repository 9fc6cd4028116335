"""Settings of alerts: where failed checks and failed runs are reported."""

from __future__ import annotations

from geoloc.settings import Settings, SettingsError, setting


class AlertSettings(Settings):
    """Where alerts go. The address of a webhook is a secret, so the settings only name the variable that holds it."""

    file: str = setting(
        "", help="a file in the workspace that alerts are appended to, as lines of JSON; empty: none"
    )
    webhook: str = setting(
        "", help="the environment variable with the address that alerts are posted to as JSON; empty: none"
    )
    seconds: int = setting(60, minimum=5, help="how often Dagster looks for failures")

    def check(self, key: str) -> None:
        """Raise SettingsError for an address in place of a variable's name, and a file outside the workspace."""
        if self.webhook and not self.webhook.isidentifier():
            raise SettingsError(
                f"{key}.webhook must be the name of an environment variable that holds the address, such as "
                "GEOLOC_ALERT_WEBHOOK; got a text that is no such name"
            )
        if self.file.startswith("/") or ".." in self.file.split("/"):
            raise SettingsError(f"{key}.file must be a path inside the workspace; got {self.file!r}")
