"""The HTTP server: `/metrics`, `/-/healthy`, `/-/ready`, the status page at `/` and messages below `/trace`.

Each connection has a thread. The number of connections is limited, and so are the time and size of each request. If
there are too many connections, the one that has idled longest is closed: neither a crowd nor a slow client can keep
Prometheus out. Each page is rendered once for all requests within a second.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from prometheus_client.exposition import choose_encoder

from bouncemeter_exporter.markup import style
from bouncemeter_exporter.serving.access import Access, is_loopback
from bouncemeter_exporter.serving.exposition import Family, exposition
from bouncemeter_exporter.serving.stories import PATH, Stories
from bouncemeter_exporter.sources.address import resolve

__all__ = ["MetricsServer", "takes_gzip"]

MAX_CONNECTIONS = 256
MAX_HEAD = 32_768
"""Bytes that a request's head may have."""

HEAD_TIME = 10.0
ANSWER_TIME = 30.0
IDLE_TIME = 150.0
"""Seconds for receiving a request's head, for sending the answer, and for waiting for the connection's next request."""

LATE = 5.0
"""Seconds by which a connection may be closed too late whose time became shorter meanwhile."""

TYPES = {
    False: "text/plain; version=0.0.4; charset=utf-8",
    True: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
"""The content type of a page, by whether it is OpenMetrics."""

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src '{style}'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""The headers of pages for browsers: nothing but the page itself, no script, and no copy of it. A header of the web
configuration comes before them."""


@cache
def page_headers() -> dict[str, str]:
    """The headers of pages, of which the style alone is allowed."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return {name: value.replace("{style}", f"sha256-{digest}") for name, value in PAGE_HEADERS.items()}


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
    wbufsize = -1
    disable_nagle_algorithm = True
    # The head and the body of an answer leave together: Nagle would wait with the body for the client.
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
        if not self.server.access.allows(self.headers.get("Authorization"), str(self.client_address[0])):
            self._answer(
                HTTPStatus.UNAUTHORIZED, b"Unauthorized\n", more={"WWW-Authenticate": 'Basic realm="bouncemeter"'}
            )
            return
        with self.server.answering(self.connection):
            try:
                url = urlsplit(self.path)
            except ValueError:
                self._answer(HTTPStatus.BAD_REQUEST, b"Bad request\n")
            else:
                self._page(url.path, url.query)

    do_HEAD = do_GET  # noqa: N815 - the base class names it so

    def _page(self, path: str, query: str) -> None:
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
            self._html(HTTPStatus.OK, self.server.status_page())
        elif self.server.stories is not None and (path == PATH or path.startswith(f"{PATH}/")):
            self._story(self.server.stories, path, query)
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, b"Not found. The metrics are at " + self.server.telemetry_path.encode() + b"\n"
            )

    def _metrics(self) -> None:
        compressed = takes_gzip(self.headers.get("Accept-Encoding", ""))
        _, wanted = choose_encoder(self.headers.get("Accept", ""))
        openmetrics = "openmetrics" in wanted
        body = self.server.rendered(openmetrics=openmetrics, compressed=compressed)
        more = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if compressed else {})
        self._answer(HTTPStatus.OK, body, TYPES[openmetrics], more)

    def _story(self, stories: Stories, path: str, query: str) -> None:
        """Answer with addresses, if this client may see them."""
        if reason := self.server.hidden(self.headers):
            self._answer(HTTPStatus.FORBIDDEN, f"{reason}\n".encode())
            return
        try:
            status, text = stories.answer(path, query)
        except ValueError:
            self._answer(HTTPStatus.BAD_REQUEST, b"Bad request\n")
            return
        later = {"Retry-After": "10"} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
        self._html(status, text.encode("utf-8", "replace"), later)

    def _html(self, status: HTTPStatus, body: bytes, more: Mapping[str, str] | None = None) -> None:
        headers = {**page_headers(), **self.server.access.headers, **(more or {})}
        self._answer(status, body, "text/html; charset=utf-8", headers)

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
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Log nothing: a line for each scrape helps nobody."""


@dataclass(slots=True)
class _Connection:
    """An open connection.

    Attributes:
        socket: Its socket, below TLS.
        answering: A whole request of somebody who may ask has arrived and is being answered.
        deadline: When to close it, by the monotonic clock.
        since: Since when it has waited for that, by the same clock.
    """

    socket: socket.socket
    answering: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + HEAD_TIME)
    since: float = field(default_factory=time.monotonic)


class MetricsServer(ThreadingHTTPServer):
    """Serves metrics in threads of its own.

    Args:
        address: Host (empty for every address) and port (0 for any).
        telemetry_path: The path of the metrics.
        families: Returns the metrics to serve.
        is_ready: Returns whether `/-/ready` succeeds.
        version: Returns a number that changes whenever the metrics do.
        status: Returns the status page.
        stories: Answers for the pages below `/trace`, which show addresses; None if there are none.
        access: Who may connect, and how.

    Raises:
        OSError: The address is in use, or does not belong to this machine.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on Windows it would let another process take the port
    block_on_close = False
    request_queue_size = 1024
    timeout = 0  # `handle_request` waits for nothing

    def __init__(
        self,
        address: tuple[str, int],
        telemetry_path: str,
        families: Callable[[], Iterable[Family]],
        is_ready: Callable[[], bool],
        version: Callable[[], int],
        status: Callable[[], str],
        stories: Stories | None,
        access: Access,
    ) -> None:
        self.telemetry_path, self._families, self.is_ready, self.access = telemetry_path, families, is_ready, access
        self._version, self._status, self.stories = version, status, stories
        self._lock, self._rendering = threading.Lock(), threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._rendered: dict[object, tuple[tuple[int, int], bytes]] = {}
        self.address_family, resolved = resolve(*address, socket.SOCK_STREAM)
        super().__init__(resolved, _Handler)
        self._stop, self._stopped = socket.socketpair()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The URL of the page for a browser on this machine."""
        host, port = self.server_address[:2]
        name = "127.0.0.1" if ip_address(str(host)).is_unspecified else str(host)
        return f"{'https' if self.access.tls else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"

    def start(self) -> None:
        """Start serving, in a thread."""
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Stop serving."""
        self._stop.close()
        if self._thread is not None:
            self._thread.join()
        self._stopped.close()

    def _serve(self) -> None:
        """Serve until `shutdown`. Only a new connection, and the end of one's time, wakes this thread."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopped, selectors.EVENT_READ)
            selector.register(self.socket, selectors.EVENT_READ)
            while not any(key.fileobj is self._stopped for key, _ in selector.select(self._close_late())):
                self.handle_request()

    def server_bind(self) -> None:
        """Bind the address; every address of IPv6 is also every address of IPv4."""
        if self.address_family is socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def hidden(self, headers: Message) -> str:
        """Why a page with addresses is not for a request with these headers; empty if it is.

        A page of another site may not embed it. Without a password or certificate it is for this machine alone, by a
        name that only this machine has: no name that another site points here.
        """
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Dest") != "document":
            return "Other sites may link to this page, but not embed it."
        if self.access.asks_who:
            return ""
        try:
            host = urlsplit(f"//{headers.get('Host', '')}").hostname or ""
        except ValueError:
            host = ""
        if is_loopback(str(self.server_address[0])) and (host == "localhost" or is_loopback(host)):
            return ""
        return "Without a password or a client certificate, this page is for http://localhost alone."

    def rendered(self, *, openmetrics: bool, compressed: bool) -> bytes:
        """The metrics as bytes."""

        def render() -> bytes:
            body = exposition(self._families(), openmetrics=openmetrics)
            return gzip.compress(body, 1) if compressed else body

        return self._once_a_second((openmetrics, compressed), render)

    def status_page(self) -> bytes:
        """The status page as bytes."""
        return self._once_a_second("status", lambda: self._status().encode())

    def _once_a_second(self, name: object, render: Callable[[], bytes]) -> bytes:
        """A page, rendered anew if its numbers have changed or a second has begun."""
        with self._rendering:
            moment = (self._version(), int(time.monotonic()))
            known, body = self._rendered.get(name, (None, b""))
            if known != moment:
                body = render()
                self._rendered[name] = (moment, body)
        return body

    # --- connections --------------------------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Give a new connection a thread; if there are too many connections, close another."""
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                idle = [each for each in self._connections.values() if not each.answering]
                self._end(min(idle or self._connections.values(), key=lambda each: each.since))
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
            now = time.monotonic()
            connection.answering, connection.since, connection.deadline = False, now, now + IDLE_TIME

    def _close_late(self) -> float | None:
        """Close connections whose deadline has passed. Returns seconds to the next look; None if there are none."""
        now = time.monotonic()
        with self._lock:
            for connection in self._connections.values():
                if connection.deadline < now:
                    self._end(connection)
            deadlines = [each.deadline - now for each in self._connections.values()]
        return min(*deadlines, LATE) if deadlines else None

    @staticmethod
    def _end(connection: _Connection) -> None:
        """Wake the connection's thread from whatever it waits for; the thread closes the connection."""
        connection.deadline = connection.since = float("inf")
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Forget a connection and close it."""
        with self._lock:
            self._connections.pop(request.fileno(), None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: a client may break off at any time."""


def takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip, by its `Accept-Encoding` (RFC 9110, 12.5.3): `gzip;q=0` refuses it."""
    weights = {}
    for each in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[name] = re.fullmatch(r"0(\.0*)?", quality.strip()) is None
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))
