"""A Debian of its own in a folder: what a package, an installation or a container image is tried in."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from .programs import ROOT, program

MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("ca-certificates", "python3", "sudo", "systemd")
SUITES = {"12": "bookworm", "13": "trixie"}

_SETTINGS = {
    "etc/apt/apt.conf.d/90tests": 'Acquire::Languages "none";\n',
    "etc/dpkg/dpkg.cfg.d/tests": "force-unsafe-io\n",
}
"""What makes installing quick."""

_OLD = 86_400
"""Seconds after which the lists of packages are fetched again."""

_OUTSIDE = ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt")
"""How this machine reaches the world holds inside as well."""

ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
    "PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
    "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
)


def base(version: str = "12") -> Path:
    """The folder with a minimal Debian, Python, systemd and fresh lists of packages, which debootstrap makes once.
    Nobody may change what is in it."""
    folder = ROOT / f"debian-{version}"
    with (ROOT / f"debian-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete, made_of = folder / "complete", " ".join(PACKAGES)
        if not complete.exists() or complete.read_text() != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run(
                [
                    *("sh", str(program("debootstrap")), "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                    *(SUITES[version], str(folder), MIRROR),
                ],
                check=True,
                capture_output=True,
                timeout=1200,
                env={**os.environ, "DEBOOTSTRAP_DIR": _scripts()},
            )
            for each in map(Path, _OUTSIDE):
                if (source := "/" / each).exists():
                    (folder / each).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, folder / each)
            for name, text in _SETTINGS.items():
                (folder / name).write_text(text)
        if not complete.exists() or time.time() - complete.stat().st_mtime > _OLD:
            subprocess.run(["chroot", str(folder), "apt-get", "update", "-qq"], check=True, timeout=600)
            complete.write_text(made_of)
    return folder


def _scripts() -> str:
    unpacked = ROOT / "usr/share/debootstrap"
    return str(unpacked if unpacked.is_dir() else "/usr/share/debootstrap")


class Debian:
    """A Debian that a test may do with as it likes, for use in a `with`. Only root can.

    Attributes:
        root: Its root folder.
    """

    def __init__(self, version: str = "12") -> None:
        self.version = version

    def __enter__(self) -> Self:
        self.root = Path(tempfile.mkdtemp(prefix="bouncemeter-debian-"))
        subprocess.run(["cp", "-a", "--reflink=auto", f"{base(self.version)}/.", str(self.root)], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", str(self.root / "proc")], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if (process / "root").readlink() == self.root:
                    os.kill(int(process.name), signal.SIGKILL)
        subprocess.run(["umount", "--lazy", str(self.root / "proc")], check=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def command(self, *words: str | Path) -> Sequence[str]:
        """The command, for `subprocess`, that runs another one inside."""
        return ["chroot", str(self.root), "env", "-i", *ENVIRONMENT, *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root, and return what it printed.

        Raises:
            AssertionError: It failed; the text says what it printed.
        """
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}"
        return done

    def bring(self, source: Path, target: str = "/tmp") -> Path:
        """Copy a file or folder inside; return its path there."""
        where = self.root / target.lstrip("/")
        where.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, where / source.name)
        return Path(target) / source.name
