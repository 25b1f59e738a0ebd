"""Syslog from other programs and machines: UDP, TCP (RFC 6587, both framings) and unix sockets; RFC 3164 and 5424."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser

from bouncemeter_exporter.sources.address import parse_listen_address, resolve
from bouncemeter_exporter.sources.lines import MAX_LINE, SourceError, one_line
from bouncemeter_exporter.sources.source import LineCounts
from bouncemeter_exporter.sources.stream import TURN, Stream

__all__ = ["SCHEMES", "Datagrams", "Frames", "StreamSocket", "line_of", "syslog_source"]

SCHEMES = ("udp:", "tcp:", "unix:", "unix-stream:")
"""What the name of a syslog source begins with: `udp:HOST:PORT`, `tcp:HOST:PORT`, `unix:/PATH` (like /dev/log),
`unix-stream:/PATH`."""

RECEIVE_BUFFER = 8_388_608
"""Bytes of receive buffer to ask the kernel for; its settings may allow fewer."""

MAX_CONNECTIONS = 256
"""Connections at a time; a new one replaces the one that has been silent for longest."""

_BATCH = 1000
"""Messages that are parsed together."""


def syslog_source(name: str, parser: Parser | None, lines: LineCounts) -> Datagrams | StreamSocket:
    """The source for a name that begins with one of `SCHEMES`.

    Raises:
        ValueError: The address is not valid.
        SourceError: Listening on it failed.
    """
    scheme, _, where = name.partition(":")
    kind = socket.SOCK_DGRAM if scheme in ("udp", "unix") else socket.SOCK_STREAM
    try:
        listener = _unix(Path(where), kind) if scheme.startswith("unix") else _inet(where, kind)
    except OSError as error:
        raise SourceError(f"cannot listen on {name}: {error.strerror or error}") from error
    source = Datagrams if kind is socket.SOCK_DGRAM else StreamSocket
    return source(name, parser, lines, listener)


def _inet(where: str, kind: socket.SocketKind) -> socket.socket:
    family, address = resolve(*parse_listen_address(where), kind)
    listener = socket.socket(family, kind)
    # On Windows it would let another process take the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind is socket.SOCK_STREAM and os.name == "posix")
    return _bound(listener, address, kind)


def _unix(path: Path, kind: socket.SocketKind) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no unix sockets")
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, kind) as probe:
                try:
                    probe.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink()  # left by a process that ended
    listener = _bound(socket.socket(socket.AF_UNIX, kind), str(path), kind)
    path.chmod(0o660)
    return listener


def _bound(listener: socket.socket, address: str | tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    try:
        listener.bind(address)
        if kind is socket.SOCK_STREAM:
            listener.listen(MAX_CONNECTIONS)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


_PRIORITY = re.compile(r"<[0-9]{1,3}>(?![1-9][0-9]? )")
"""The priority of RFC 3164's form; that of RFC 5424 is part of a header that the parsers understand."""


def line_of(message: bytes) -> str:
    """A message as one line of a log, whatever it holds."""
    text = message.lstrip(b"\0")[:MAX_LINE].rstrip(b"\r\n\0").decode("utf-8", "backslashreplace")
    return one_line(_PRIORITY.sub("", text, count=1) if text.startswith("<") else text)


class Datagrams(Stream):
    """A socket on which each datagram is a message."""

    def __init__(self, name: str, parser: Parser | None, lines: LineCounts, listener: socket.socket) -> None:
        super().__init__(name, parser, lines)
        self._socket = listener
        self._inode = os.fstat(listener.fileno()).st_ino
        self._size = 65_536

    def descriptors(self) -> Iterator[int]:
        """The socket."""
        return iter([self._socket.fileno()])

    def poll(self) -> Iterator[Block]:
        """Read what has come."""
        left = TURN
        while left > 0:
            messages = list[bytes]()
            with suppress(BlockingIOError):
                while left > 0 and len(messages) < _BATCH:
                    message = self._socket.recv(self._size)
                    left -= len(message) + 1
                    self.offset += len(message)
                    messages.append(message)
            if not messages:
                break
            yield self._log.read("".join(f"{line_of(each)}\n" for each in messages if each.strip()))
        self.dropped = max(self.dropped, self._lost())

    def _lost(self) -> int:
        """Datagrams that the kernel had no room for, which Linux counts for UDP sockets."""
        for table in ("/proc/net/udp", "/proc/net/udp6"):
            with suppress(OSError):
                for row in Path(table).read_text("ascii").splitlines()[1:]:
                    columns = row.split()
                    if columns[9] == str(self._inode):
                        return int(columns[12])
        return 0

    def close(self) -> None:
        """Close the socket."""
        _close(self._socket)


class StreamSocket(Stream):
    """A socket that others connect to."""

    def __init__(self, name: str, parser: Parser | None, lines: LineCounts, listener: socket.socket) -> None:
        super().__init__(name, parser, lines)
        self._socket = listener
        self._connections: dict[socket.socket, Frames] = {}  # silent for longest first
        self._last: list[bytes] = []

    def descriptors(self) -> Iterator[int]:
        """The socket and all connections."""
        return iter([self._socket.fileno(), *(each.fileno() for each in self._connections)])

    def poll(self) -> Iterator[Block]:
        """Read what has come."""
        self._accept()
        left = TURN
        for connection in list(self._connections):
            while left > 0 and (block := self._receive(connection)):
                left -= len(block)
                self.offset += len(block)
                yield self._block(self._connections[connection].feed(block))
            if left <= 0:
                break
        if self._last:
            last, self._last = self._last, []
            yield self._block(last)

    def _block(self, messages: list[bytes]) -> Block:
        return self._log.read("".join(f"{line_of(each)}\n" for each in messages if each.strip()))

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                connection.settimeout(0)
                if len(self._connections) >= MAX_CONNECTIONS:
                    self._end(next(iter(self._connections)))
                self._connections[connection] = Frames()

    def _receive(self, connection: socket.socket) -> bytes:
        """The next block; empty if there is none yet, or the connection ended."""
        try:
            block = connection.recv(65_536)
        except BlockingIOError:
            return b""
        except OSError:
            block = b""
        if not block:
            self._end(connection)
        else:
            self._connections[connection] = self._connections.pop(connection)
        return block

    def _end(self, connection: socket.socket) -> None:
        self._last += self._connections.pop(connection).end()
        connection.close()

    def close(self) -> None:
        """Close the socket and all connections."""
        for connection in list(self._connections):
            self._end(connection)
        _close(self._socket)


def _close(listener: socket.socket) -> None:
    if listener.family is getattr(socket, "AF_UNIX", None):
        with suppress(OSError):
            Path(listener.getsockname()).unlink()
    listener.close()


class Frames:
    """Cuts a stream into messages, each with its length before it, or a line feed or a NUL after it (RFC 6587).

    Whichever of the two ends the first message ends all of a stream: the other is a part of a message, in which it may
    have been written by a stranger. A message longer than `MAX_LINE` is cut there.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._overlong = False
        self._trailer = b""

    def feed(self, block: bytes) -> list[bytes]:
        """The messages that the next block completes."""
        messages: list[bytes] = []
        self._buffer += block
        begin = 0
        while (end := self._next(begin, messages)) is not None:
            begin = end
        del self._buffer[:begin]
        return messages

    def end(self) -> list[bytes]:
        """The last message, if the stream ended without a line feed after it. One that lacks bytes is none."""
        whole = not (self._skip or self._overlong or self._COUNT.match(self._buffer))
        return bytes(self._buffer).split(self._trailer or b"\0") if whole else []

    _COUNT = re.compile(rb"([1-9][0-9]{0,8}) (?=<)")

    def _next(self, begin: int, messages: list[bytes]) -> int | None:
        """Take the message at a place in the buffer. Returns where the next begins; None if it is unfinished."""
        if begin >= len(self._buffer):
            return None
        if self._skip:
            passed = min(self._skip, len(self._buffer) - begin)
            self._skip -= passed
            return begin + passed
        if not self._overlong and self._buffer[begin] == 0:
            return begin + 1
        count = None if self._overlong else self._COUNT.match(self._buffer, begin)
        if count is not None:
            return self._counted(count.end(), int(count[1]), messages)
        return self._terminated(begin, messages)

    _TRAILER = re.compile(rb"\n|\0(?=\0*<[0-9]{1,3}>)")

    def _counted(self, start: int, size: int, messages: list[bytes]) -> int | None:
        taken = min(size, MAX_LINE)
        if len(self._buffer) - start < taken:
            return None
        messages.append(bytes(self._buffer[start : start + taken]))
        self._skip = size - taken
        return start + taken

    def _terminated(self, begin: int, messages: list[bytes]) -> int | None:
        if not self._trailer and (found := self._TRAILER.search(self._buffer, begin)) is not None:
            self._trailer = found[0]
        end = self._buffer.find(self._trailer, begin) if self._trailer else -1
        ended = end >= 0
        if not ended:
            end = len(self._buffer)
            if end - begin <= MAX_LINE:
                return None
        if not self._overlong:
            messages.append(bytes(self._buffer[begin : min(end, begin + MAX_LINE)]))
        self._overlong = not ended
        return end + 1 if ended else end
