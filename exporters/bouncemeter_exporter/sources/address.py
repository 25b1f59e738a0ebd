"""Listen addresses, in the form that Prometheus exporters use."""

from __future__ import annotations

import socket

__all__ = ["parse_listen_address", "resolve"]


def parse_listen_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` (every address) or `[::1]:PORT`.

    Raises:
        ValueError: The text has none of these forms.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not an address to listen on; write HOST:PORT, :PORT or [IPv6]:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def resolve(host: str, port: int, kind: socket.SocketKind) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The family and address to bind for a host (empty for every address, of IPv6 too where there is IPv6) and port.

    Raises:
        OSError: There is no such host.
    """
    if not host and kind is socket.SOCK_STREAM and socket.has_dualstack_ipv6():
        host = "::"
    family, *_, address = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)[0]
    return family, (str(address[0]), port)
