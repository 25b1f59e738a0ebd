"""A Debian that runs its own systemd, in namespaces of its own: what a unit is tried in."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .debian import ENVIRONMENT, Debian
from .net import wait_until

BOOT = """
set -e
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd
"""


class Booted(Debian):
    """A Debian whose systemd is installed and running, once `boot` was called. Its network is its own."""

    process: subprocess.Popen[str] | None = None

    def boot(self) -> None:
        """Start its systemd, and wait until it has started everything."""
        self.process = subprocess.Popen(
            [
                *("unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net", "--fork"),
                *("sh", "-c", BOOT, "boot", str(self.root)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_until(self._has_started, 300, "systemd does not start")

    def _has_started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()[0]
        return bool(self._init()) and self.run("systemctl", "is-system-running", check=False).stdout.strip() in (
            "running",
            "degraded",
        )

    def _init(self) -> str:
        """The process ID of its systemd, as this machine counts."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().strip()

    def __exit__(self, *words: object) -> None:
        if self.process is not None:
            if init := self._init():
                os.kill(int(init), signal.SIGKILL)  # and with it everything in its namespace
            self.process.communicate(timeout=120)
        super().__exit__(*words)

    def command(self, *words: str | Path) -> Sequence[str]:
        """The command, for `subprocess`, that runs another one inside, among its processes once it has booted."""
        if self.process is None:
            return super().command(*words)
        return ["nsenter", "--all", "--target", self._init(), "env", "-i", *ENVIRONMENT, *map(str, words)]
