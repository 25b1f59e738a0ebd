"""Where the metrics are served: `/metrics`, `/-/healthy`, `/-/ready` and a small page that leads to them."""

from __future__ import annotations

import gzip
import html
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import urlsplit

from bouncemeter import __version__
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

__all__ = ["MetricsServer", "parse_listen_address"]

TIMEOUT = 10.0
"""Seconds that a client may take for its request."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>bouncemeter</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:3em auto;max-width:40em;padding:0 1em}}</style></head>
<body><h1>bouncemeter</h1><p>Mail bounces by enhanced status code. Version {version}.</p>
<ul><li><a href="{metrics}">Metrics</a></li><li><a href="/-/healthy">Healthy</a></li>
<li><a href="/-/ready">Ready</a></li></ul></body></html>
"""


def parse_listen_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` (every address) or `[::1]:PORT`.

    Raises:
        ValueError: The text is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not an address to listen on; write HOST:PORT, :PORT or [IPv6]:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = TIMEOUT
    server_version = "bouncemeter"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == self.server.telemetry_path:
            self._metrics()
        elif path == "/-/healthy":
            self._answer(HTTPStatus.OK, b"bouncemeter is healthy.\n")
        elif path == "/-/ready":
            if self.server.is_ready():
                self._answer(HTTPStatus.OK, b"bouncemeter is ready.\n")
            else:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"bouncemeter is reading what was there at its start.\n")
        elif path == "/":
            page = PAGE.format(version=__version__, metrics=html.escape(self.server.telemetry_path))
            self._answer(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, b"Not found. The metrics are at " + self.server.telemetry_path.encode() + b"\n"
            )

    do_HEAD = do_GET  # noqa: N815 - the base class names it so

    def _metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self._answer(HTTPStatus.OK, gzip.compress(body, 1), content_type, "gzip")
        else:
            self._answer(HTTPStatus.OK, body, content_type)

    def _answer(
        self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8", encoding: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: a line for each scrape helps nobody."""


class MetricsServer(ThreadingHTTPServer):
    """Serves a registry in threads of its own.

    Args:
        address: Host (empty for every address) and port (0 for any).
        telemetry_path: Where the metrics are.
        registry: What is served.
        is_ready: Asked for `/-/ready`.
    """

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        telemetry_path: str,
        registry: CollectorRegistry,
        is_ready: Callable[[], bool],
    ) -> None:
        self.telemetry_path, self.registry, self.is_ready = telemetry_path, registry, is_ready
        host, port = address
        self.address_family, *_, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        super().__init__((str(place[0]), port), _Handler)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host, port = self.server_address[:2]
        name = "127.0.0.1" if ip_address(str(host)).is_unspecified else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def start(self) -> None:
        """Serve from now on, in a thread."""
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that broke off is its own affair."""
