"""Which real servers this machine has. Tests without theirs are left out, but never in CI."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from .programs import program


def _is_root() -> bool:
    return os.geteuid() == 0


_PRESENT: dict[str, Callable[[], bool]] = {
    "postfix": lambda: program("postfix") is not None and _is_root(),
    "exim": lambda: program("exim4", "exim") is not None and _is_root(),
    "another user": _is_root,
    "journal": lambda: program("journalctl") is not None and program("systemd-journal-remote") is not None,
    "logrotate": lambda: program("logrotate") is not None and _is_root(),
    "debian": lambda: program("debootstrap") is not None and _is_root(),
    "buildah": lambda: program("buildah") is not None and _is_root(),
    "pflogsumm": lambda: program("pflogsumm") is not None,
    "eximstats": lambda: program("eximstats") is not None,
    "java": lambda: program("java") is not None,
    "chromium": lambda: program("chromium") is not None,
    "victoria-metrics": lambda: program("victoria-metrics") is not None,
    "node exporter": lambda: program("prometheus-node-exporter") is not None,
    "rsyslog": lambda: program("rsyslogd") is not None,
    "alertmanager": lambda: program("prometheus-alertmanager", "alertmanager") is not None,
    "prometheus": lambda: program("prometheus") is not None and program("promtool") is not None,
}


def need(name: str) -> None:
    """Leave the test out where a server is missing; fail it in CI.

    Args:
        name: One of the names above.
    """
    if _PRESENT[name]():
        return
    sentence = f"{name} is missing, or this is not root: run tests/servers/install, and the tests as root"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)
