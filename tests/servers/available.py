"""Which real servers this machine has. Tests without theirs are left out, but never in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from . import exim

_PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

_PRESENT = {
    "postfix": lambda: shutil.which("postfix", path=_PATHS) is not None and os.geteuid() == 0,
    "exim": lambda: exim.BINARY.exists() and os.geteuid() == 0,
    "another user": lambda: os.geteuid() == 0,
    "journal": lambda: shutil.which("journalctl") is not None and Path("/lib/systemd/systemd-journal-remote").exists(),
    "logrotate": lambda: shutil.which("logrotate", path=_PATHS) is not None and os.geteuid() == 0,
    "rsyslog": lambda: shutil.which("rsyslogd", path=_PATHS) is not None,
    "alertmanager": lambda: (
        shutil.which("prometheus-alertmanager") is not None or shutil.which("alertmanager") is not None
    ),
    "prometheus": lambda: shutil.which("prometheus") is not None and shutil.which("promtool") is not None,
}


def need(name: str) -> None:
    """Leave the test out where a server is missing; fail it in CI.

    Args:
        name: One of the names above.
    """
    if _PRESENT[name]():
        return
    sentence = f"{name} is not installed, or this is not root: run tests/servers/install as root on Debian or Ubuntu"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)
