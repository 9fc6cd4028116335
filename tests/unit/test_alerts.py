"""Failed checks and runs are told once, to a file and a webhook; the address is a secret."""

from __future__ import annotations

import json
import threading
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from geoloc.settings import SettingsError
from orchestration.graph.alerts import alert_sensor
from orchestration.lineage.build import Build
from orchestration.operations.alerts import alert
from orchestration.plan.alert_settings import AlertSettings
from orchestration.workspace import Workspace, WorkspaceError
from tests.unit.pretended import bare_workspace


@pytest.fixture
def webhook(monkeypatch):
    """A server that keeps what is posted to it; `status` is what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if server.status == 200:
                server.posted.append(json.loads(body))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.posted, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TEST_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret-token")
    yield server
    server.shutdown()


def workspace_with(tmp_path, **alerts):
    return bare_workspace(tmp_path / "w", {"alerts": alerts})


@dg.asset
def again():
    raise ValueError("again")


@pytest.fixture
def failed(tmp_path):
    """Dagster's history with a check that passed, two that failed, and a run that failed, stored as a workspace's."""

    @dg.asset(check_specs=[dg.AssetCheckSpec(name, asset="numbers") for name in ("good", "bad", "worse")])
    def numbers():
        yield dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(check_name="good", passed=True),
                dg.AssetCheckResult(check_name="bad", passed=False, description="3 of 4"),
                dg.AssetCheckResult(check_name="worse", passed=False, severity=dg.AssetCheckSeverity.WARN),
            ]
        )

    @dg.asset
    def broken():
        raise ValueError("no such thing")

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        dg.materialize([numbers], instance=instance)
        dg.materialize([broken], instance=instance, raise_on_error=False)
        yield instance


def look(workspace, instance, cursor=None):
    """One look of the sensor; returns what it says and its cursor."""
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        said = alert_sensor(workspace)(context)
        return said.skip_message, context.cursor


def lines(workspace, file="alerts.jsonl"):
    path = workspace.root / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_each_failure_is_told_once_in_the_file_and_by_the_webhook(tmp_path, webhook, failed):
    workspace = workspace_with(tmp_path, file="alerts.jsonl", webhook="TEST_WEBHOOK")
    said, cursor = look(workspace, failed)
    assert said == "3 alerts sent"
    told = lines(workspace)
    assert [one.get("check", one["kind"]) for one in told] == ["bad", "worse", "run"]
    assert told[0]["text"] == "numbers failed its check bad: 3 of 4"
    assert webhook.posted == told
    assert look(workspace, failed, cursor) == ("nothing failed", cursor)
    dg.materialize([again], instance=failed, raise_on_error=False)
    assert look(workspace, failed, cursor)[0] == "1 alert sent"
    assert [one["job"] for one in lines(workspace)[3:]] == ["__ephemeral_asset_job__"]


def test_what_the_webhook_did_not_take_is_told_again_and_the_address_never(tmp_path, webhook, failed):
    workspace = workspace_with(tmp_path, file="alerts.jsonl", webhook="TEST_WEBHOOK")
    webhook.status = 503
    with pytest.raises(Exception, match="TEST_WEBHOOK answered with status 503") as error:
        look(workspace, failed)
    assert "secret-token" not in str(error.value)
    assert lines(workspace) == []
    webhook.status = 200
    assert look(workspace, failed)[0] == "3 alerts sent"


def test_an_address_that_is_not_set_or_no_address_is_one_line(tmp_path, monkeypatch, failed):
    workspace = workspace_with(tmp_path, webhook="TEST_WEBHOOK")
    monkeypatch.delenv("TEST_WEBHOOK", raising=False)
    with pytest.raises(Exception, match="the environment variable TEST_WEBHOOK, which is not set"):
        look(workspace, failed)
    monkeypatch.setenv("TEST_WEBHOOK", "file:///etc/passwd")
    with pytest.raises(Exception, match="does not hold an http"):
        look(workspace, failed)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:secret-token/x",
        "http://127.0.0.1/secret-token x",
        "http://[secret-token",
        "http://secret-token\u2100/x",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown_either(tmp_path, monkeypatch, address):
    monkeypatch.setenv("TEST_WEBHOOK", address)
    with pytest.raises(WorkspaceError, match="TEST_WEBHOOK") as error:
        alert(Workspace(tmp_path), AlertSettings(webhook="TEST_WEBHOOK"), {"text": "a check failed"})
    assert "secret-token" not in "".join(traceback.format_exception(error.value))


def test_a_line_end_after_the_address_does_no_harm(tmp_path, monkeypatch, webhook):
    monkeypatch.setenv("TEST_WEBHOOK", f"http://127.0.0.1:{webhook.server_port}/secret-token\n")
    alert(Workspace(tmp_path), AlertSettings(webhook="TEST_WEBHOOK"), {"text": "a check failed"})
    assert webhook.posted == [{"text": "a check failed"}]


def test_without_a_place_for_alerts_nothing_is_done(tmp_path, failed):
    assert "alerts go nowhere" in look(workspace_with(tmp_path), failed)[0]


@pytest.mark.parametrize(
    ("alerts", "told"),
    [
        (
            {"webhook": "https://example.org/token"},
            "alerts.webhook must be the name of an environment variable",
        ),
        ({"file": "../outside"}, "alerts.file must be a path inside the workspace"),
        ({"file": "/tmp/x"}, "alerts.file must be a path inside the workspace"),
    ],
)
def test_addresses_and_outside_paths_are_refused_without_showing_a_secret(tmp_path, alerts, told):
    with pytest.raises(SettingsError, match=told) as error:
        _ = Build(workspace_with(tmp_path, **alerts)).settings
    assert "token" not in str(error.value)
