"""Ports on loopback, and who answers there."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    """Whether a server on a port of 127.0.0.1 says at `/-/ready` that it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def accepts(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(settled: Callable[[], bool], seconds: float, what: str, pause: float = 0.05) -> None:
    """Wait until something is so; `what` is said if it does not come."""
    end = time.monotonic() + seconds
    while not settled():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(pause)


def wait_for(port: int) -> None:
    """Wait until something accepts connections on a port of 127.0.0.1."""
    wait_until(lambda: accepts(port), 20, f"nothing listens on 127.0.0.1:{port}")
