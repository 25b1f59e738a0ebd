"""Which real servers this machine has. Tests without theirs are left out, but never in CI."""

from __future__ import annotations

import os
import shutil

import pytest

from . import exim

_PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

_PRESENT = {
    "postfix": lambda: shutil.which("postfix", path=_PATHS) is not None and os.geteuid() == 0,
    "exim": lambda: exim.BINARY.exists() and os.geteuid() == 0,
    "prometheus": lambda: shutil.which("prometheus") is not None and shutil.which("promtool") is not None,
}


def need(name: str) -> None:
    """Leave the test out where a server is missing; fail it in CI.

    Args:
        name: `postfix`, `exim` or `prometheus`.
    """
    if _PRESENT[name]():
        return
    sentence = f"{name} is not installed, or this is not root: run tests/servers/install as root on Debian or Ubuntu"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)
