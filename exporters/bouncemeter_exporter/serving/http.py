"""The HTTP server: `/metrics`, `/-/healthy`, `/-/ready` and a small page that links to them.

Each connection has a thread. The number of connections is limited, and so are the time and size of each request. If
there are too many connections, the one that has idled longest is closed: neither a crowd nor a slow client can keep
Prometheus out. The page is rendered once for all scrapes within a second.
"""

from __future__ import annotations

import gzip
import html
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from bouncemeter import __version__
from prometheus_client.exposition import choose_encoder

from bouncemeter_exporter.serving.access import Access
from bouncemeter_exporter.serving.exposition import Family, exposition
from bouncemeter_exporter.sources.address import resolve

__all__ = ["MetricsServer"]

MAX_CONNECTIONS = 256
MAX_HEAD = 32_768
"""Bytes that a request's head may have."""

HEAD_TIME = 10.0
ANSWER_TIME = 30.0
IDLE_TIME = 150.0
"""Seconds for receiving a request's head, for sending the answer, and for waiting for the connection's next request."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>bouncemeter</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:3em auto;max-width:40em;padding:0 1em}}</style></head>
<body><h1>bouncemeter</h1><p>Mail bounces by enhanced status code. Version {version}.</p>
<ul><li><a href="{metrics}">Metrics</a></li><li><a href="/-/healthy">Healthy</a></li>
<li><a href="/-/ready">Ready</a></li></ul></body></html>
"""


class _Head:
    """Reads the lines of a request's head, up to `MAX_HEAD` bytes in all."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.left = stream, MAX_HEAD

    def readline(self, limit: int = -1) -> bytes:
        line = self._stream.readline(self.left + 1 if limit < 0 else min(limit, self.left + 1))
        self.left -= len(line)
        if self.left < 0:
            raise http.client.LineTooLong("request head")
        return line

    def close(self) -> None:
        self._stream.close()


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = IDLE_TIME
    server_version = "bouncemeter"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self._head = _Head(self.rfile)  # type: ignore[arg-type]
        self.rfile = self._head  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        self._head.left = MAX_HEAD
        try:
            super().handle_one_request()
        except http.client.LineTooLong:
            self.close_connection = True

    def do_GET(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the server does not read bodies
        with self.server.answering(self.connection):
            if not self.server.access.allows(self.headers.get("Authorization")):
                self._answer(
                    HTTPStatus.UNAUTHORIZED, b"Unauthorized\n", more={"WWW-Authenticate": 'Basic realm="bouncemeter"'}
                )
                return
            try:
                path = urlsplit(self.path).path
            except ValueError:
                self._answer(HTTPStatus.BAD_REQUEST, b"Bad request\n")
            else:
                self._page(path)

    do_HEAD = do_GET  # noqa: N815 - the base class names it so

    def _page(self, path: str) -> None:
        if path == self.server.telemetry_path:
            self._metrics()
        elif path == "/-/healthy":
            self._answer(HTTPStatus.OK, b"bouncemeter is healthy.\n")
        elif path == "/-/ready":
            if self.server.is_ready():
                self._answer(HTTPStatus.OK, b"bouncemeter is ready.\n")
            else:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"bouncemeter is still catching up with the logs.\n")
        elif path == "/":
            page = PAGE.format(version=__version__, metrics=html.escape(self.server.telemetry_path))
            self._answer(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, b"Not found. The metrics are at " + self.server.telemetry_path.encode() + b"\n"
            )

    def _metrics(self) -> None:
        compressed = "gzip" in self.headers.get("Accept-Encoding", "")
        body, content_type = self.server.rendered(self.headers.get("Accept", ""), compressed=compressed)
        self._answer(HTTPStatus.OK, body, content_type, {"Content-Encoding": "gzip"} if compressed else {})

    def _answer(
        self,
        status: HTTPStatus,
        body: bytes,
        content_type: str = "text/plain; charset=utf-8",
        more: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": content_type, "Content-Length": str(len(body)), **self.server.access.headers}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Log nothing: a line for each scrape helps nobody."""


@dataclass(slots=True)
class _Connection:
    """An open connection.

    Attributes:
        socket: Its socket, below TLS.
        answering: A whole request has arrived and is being answered.
        deadline: When to close it, by the monotonic clock.
    """

    socket: socket.socket
    answering: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + HEAD_TIME)


class MetricsServer(ThreadingHTTPServer):
    """Serves metrics in threads of its own.

    Args:
        address: Host (empty for every address) and port (0 for any).
        telemetry_path: The path of the metrics.
        families: Returns the metrics to serve.
        is_ready: Returns whether `/-/ready` succeeds.
        version: Returns a number that changes whenever the metrics do.
        access: Who may connect, and how.

    Raises:
        OSError: The address is in use, or does not belong to this machine.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self,
        address: tuple[str, int],
        telemetry_path: str,
        families: Callable[[], Iterable[Family]],
        is_ready: Callable[[], bool],
        version: Callable[[], int],
        access: Access,
    ) -> None:
        self.telemetry_path, self._families, self.is_ready, self.access = telemetry_path, families, is_ready, access
        self._version = version
        self._lock, self._rendering = threading.Lock(), threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._rendered: dict[tuple[str, bool], tuple[tuple[int, int], bytes]] = {}
        self.address_family, resolved = resolve(*address, socket.SOCK_STREAM)
        super().__init__(resolved, _Handler)

    @property
    def url(self) -> str:
        """The URL of the page for a browser on this machine."""
        host, port = self.server_address[:2]
        name = "127.0.0.1" if ip_address(str(host)).is_unspecified else str(host)
        return f"{'https' if self.access.tls else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"

    def start(self) -> None:
        """Start serving, in a thread."""
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()

    def rendered(self, accept: str, *, compressed: bool) -> tuple[bytes, str]:
        """The metrics as bytes, and their content type."""
        _, content_type = choose_encoder(accept)
        with self._rendering:
            moment = (self._version(), int(time.monotonic()))
            known, body = self._rendered.get((content_type, compressed), (None, b""))
            if known != moment:
                body = exposition(self._families(), openmetrics="openmetrics" in content_type)
                body = gzip.compress(body, 1) if compressed else body
                self._rendered[content_type, compressed] = (moment, body)
        return body, content_type

    # --- connections --------------------------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Give a new connection a thread; if there are too many connections, close another."""
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                idle = [each for each in self._connections.values() if not each.answering]
                self._end(min(idle or self._connections.values(), key=lambda each: each.deadline))
            self._connections[request.fileno()] = _Connection(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """In the connection's thread, do the TLS handshake, then answer requests."""
        if not self.access.tls:
            super().finish_request(request, client_address)
            return
        request.settimeout(HEAD_TIME)
        with self.access.context().wrap_socket(request.dup(), server_side=True) as secured:
            self.access.check_certificate(secured)
            with self._lock:
                if (connection := self._connections.get(request.fileno())) is not None:
                    self._connections[secured.fileno()] = connection
            try:
                super().finish_request(secured, client_address)
            finally:
                with self._lock:
                    self._connections.pop(secured.fileno(), None)

    @contextmanager
    def answering(self, request: socket.socket) -> Iterator[None]:
        """Mark a connection as answering a request: idle connections are closed before it."""
        connection = self._connections.get(request.fileno()) or _Connection(request)
        connection.answering, connection.deadline = True, time.monotonic() + ANSWER_TIME
        try:
            yield
        finally:
            connection.answering, connection.deadline = False, time.monotonic() + IDLE_TIME

    def service_actions(self) -> None:
        """Close connections whose deadline has passed; called twice a second."""
        now = time.monotonic()
        with self._lock:
            for connection in self._connections.values():
                if connection.deadline < now:
                    self._end(connection)

    @staticmethod
    def _end(connection: _Connection) -> None:
        """Wake the connection's thread from whatever it waits for; the thread closes the connection."""
        connection.deadline = float("inf")
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Forget a connection and close it."""
        with self._lock:
            self._connections.pop(request.fileno(), None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: a client may break off at any time."""
