"""Ports on loopback, and who answers there."""

from __future__ import annotations

import os
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

PORTS = range(10_000, 32_000)
"""Below those that the kernel gives to clients, so that no connection of another test is in the way."""

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
_ours = PORTS[_WORKER * len(PORTS) // 16 : (_WORKER + 1) * len(PORTS) // 16]
_next = random.SystemRandom().randrange(len(_ours))


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on, and that no other test is given for a long time."""
    global _next  # noqa: PLW0603 - ports are the process's
    for _ in _ours:
        _next = (_next + 1) % len(_ours)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", _ours[_next]))
            except OSError:
                continue
            return _ours[_next]
    raise OSError("no port is free")


def is_ready(port: int, path: str = "/-/ready") -> bool:
    """Whether a server on a port of 127.0.0.1 says at a path that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def accepts(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
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


@contextmanager
def stopping_on_failure(server: AbstractContextManager[object]) -> Iterator[None]:
    """Stop a server that was started if what follows fails, so that no process is left."""
    try:
        yield
    except BaseException:
        server.__exit__(None, None, None)
        raise


def wait_for(port: int) -> None:
    """Wait until something accepts connections on a port of 127.0.0.1."""
    wait_until(lambda: accepts(port), 120, f"nothing listens on 127.0.0.1:{port}")
