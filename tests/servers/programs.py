"""Where the real servers' programs are: unpacked by `tests/servers/install`, or installed on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["ROOT", "program", "use_unpacked"]

_CLONE = Path(__file__).parents[2]

ROOT = Path(
    os.environ.get("BOUNCEMETER_SERVERS") or ("/opt/bouncemeter-servers" if os.geteuid() == 0 else _CLONE / ".servers")
)
"""The folder that `tests/servers/install` unpacks into."""

_PROGRAMS = ("usr/lib/chromium", "usr/sbin", "usr/bin", "sbin", "bin", "lib/systemd", "usr/lib/systemd")
_LIBRARIES = ("usr/lib/postfix", "lib/{machine}", "usr/lib/{machine}", "usr/lib/{machine}/systemd")


def use_unpacked() -> None:
    """Let this process and those that it starts find the unpacked programs, and their libraries."""
    folders = [str(ROOT / each) for each in _PROGRAMS]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/lib/systemd"])
    machine = f"{os.uname().machine}-linux-gnu"
    libraries = [str(path) for each in _LIBRARIES if (path := ROOT / each.format(machine=machine)).is_dir()]
    if libraries:
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    os.environ.setdefault("GOGC", "400")  # programs in Go take more memory, and a quarter less of the processor


def program(*names: str) -> Path | None:
    """The first of some programs that is there; a program may have another name elsewhere."""
    return next((Path(found) for name in names if (found := shutil.which(name))), None)
