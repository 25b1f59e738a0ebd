"""Addresses to listen on, as the Prometheus world writes them."""

from __future__ import annotations

import socket

__all__ = ["parse_listen_address", "resolve"]


def parse_listen_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` (every address) or `[::1]:PORT`.

    Raises:
        ValueError: The text is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not an address to listen on; write HOST:PORT, :PORT or [IPv6]:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def resolve(host: str, port: int, kind: socket.SocketKind) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and address to bind, of a host (empty for every address) and port.

    Raises:
        OSError: There is no such host.
    """
    family, *_, place = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)[0]
    return family, (str(place[0]), port)
