"""A private rsyslogd that sends what it gets on its own socket to other places."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from .net import stopping_on_failure, wait_until
from .programs import ROOT


class Rsyslog:
    """Sends every message to each of some actions, for use in a `with`.

    Args:
        base: Where it keeps its files.
        actions: Configuration lines that send.
    """

    def __init__(self, base: Path, actions: list[str]) -> None:
        self.socket, self._pid = base / "rsyslog.sock", base / "rsyslog.pid"
        self._config = base / "rsyslog.conf"
        own = f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{self.socket}")\n'
        self._config.write_text(f'global(workDirectory="{base}")\n{own}' + "\n".join(actions) + "\n")

    def __enter__(self) -> Rsyslog:
        modules = ROOT / "usr/lib" / f"{os.uname().machine}-linux-gnu" / "rsyslog"
        where = ["-M", str(modules)] if modules.is_dir() else []
        self._process = subprocess.Popen(["rsyslogd", *where, "-n", "-f", str(self._config), "-i", str(self._pid)])
        with stopping_on_failure(self):
            wait_until(self.socket.exists, 120, "rsyslogd does not listen")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=120)

    def log(self, tag: str, text: str) -> None:
        """Log as syslog(3) does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(self.socket))
            client.send(f"<22>Nov  4 03:00:00 {tag}: {text}".encode())
