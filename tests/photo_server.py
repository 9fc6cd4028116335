"""A server on loopback that gives photos, and fails in every way that servers fail."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.photo_fixtures import jpeg


class PhotoServer(ThreadingHTTPServer):
    """asked: how often each path was asked for. agents: every User-Agent. busiest: requests at a time, at most."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.agents: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.good_after: dict[str, int] = {}
        self.elsewhere = ""
        self.pause = 0.0
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that clients close are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PhotoServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, path = self.server, urlsplit(self.path).path
        with server.lock:
            server.asked[path] += 1
            server.times.setdefault(path, []).append(time.monotonic())
            server.agents.add(self.headers.get("User-Agent", ""))
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            time.sleep(server.pause)
            self.answer(path, server.asked[path])
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, path: str, time_asked: int) -> None:
        kind, _, rest = path.lstrip("/").partition("/")
        if path in self.server.files:
            self.send(200, self.server.files[path])
        elif kind == "photo":  # /photo/7.jpg
            self.send(200, jpeg(int(rest.partition(".")[0])))
        elif kind == "status":  # /status/404/...
            self.send(int(rest.partition("/")[0]), b"no", "text/plain")
        elif kind == "after":  # /after/3/503/7.jpg: 503 twice, then the photo
            good, status, name = rest.split("/")
            if time_asked < int(good):
                self.send(int(status), b"wait", "text/plain", {"Retry-After": "0"})
            else:
                self.send(200, jpeg(int(name.partition(".")[0])))
        elif kind == "wait":  # /wait/SECONDS/...: 429 for ever
            self.send(429, b"", "text/plain", {"Retry-After": rest.partition("/")[0]})
        elif kind == "html":
            self.send(200, b"<!DOCTYPE html><p>this photo is no longer available", "text/html")
        elif kind == "htmljpg":
            self.send(200, b"<html>moved", "image/jpeg")
        elif kind == "empty":
            self.send(200, b"")
        elif kind == "torn":
            self.send(200, jpeg(5)[:200])
        elif kind == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(10**12))
            self.end_headers()
        elif kind == "endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(10_000):
                    self.wfile.write(b"\xff\xd8\xff" + bytes(65536))
        elif kind == "short":
            data = jpeg(6)
            self.send(200, data[:100], extra={"Content-Length": str(len(data))})
            self.close_connection = True
        elif kind == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"\xff")
                    self.wfile.flush()
                    time.sleep(0.1)
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif kind == "circle":
            self.send(302, b"", extra={"Location": f"/circle/{1 - int(rest)}"})
        elif kind == "chain":
            self.send(302, b"", extra={"Location": f"/chain/{int(rest) + 1}"})
        elif kind == "moved":
            self.send(301, b"", extra={"Location": f"/photo/{rest}"})
        elif kind == "away":
            self.send(302, b"", extra={"Location": f"{self.server.elsewhere}/photo/{rest}"})
        else:
            self.send(404, b"", "text/plain")

    def send(
        self, status: int, data: bytes, kind: str = "image/jpeg", extra: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "ETag": f'"{len(data)}"'}
        for name, value in {**headers, **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def photo_server() -> Iterator[PhotoServer]:
    server = PhotoServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
