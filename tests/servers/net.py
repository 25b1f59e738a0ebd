"""Ports on loopback, and who answers there."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request


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


def wait_until_ready(port: int, seconds: float = 30) -> None:
    """Wait until a server says that it is ready: it accepts connections some time before."""
    end = time.monotonic() + seconds
    while not is_ready(port):
        if time.monotonic() > end:
            raise TimeoutError(f"what listens on 127.0.0.1:{port} does not become ready")
        time.sleep(0.05)


def wait_for(port: int, seconds: float = 20) -> None:
    """Wait until something accepts connections on a port of 127.0.0.1."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise TimeoutError(f"nothing listens on 127.0.0.1:{port}") from None
            time.sleep(0.05)
        else:
            return
