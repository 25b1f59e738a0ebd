"""Container images, built and run by buildah in folders of its own. Only root can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .debian import base

PREPARE = """\
FROM scratch
ADD debian.tar /
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null \\
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
"""

LEFT_OUT = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
"""What a slim image does not have either."""

LOOPBACK = """
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""


def alone(*command: str | Path) -> list[str]:
    """A command in a network of its own, where every port is free."""
    return ["unshare", "--net", sys.executable, "-c", LOOPBACK, *map(str, command)]


class Buildah:
    """buildah with its images and containers in a folder.

    Args:
        folder: The folder; the containers' users must be able to enter it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (folder / "registries.conf").touch()
        storage = {"driver": "vfs", "graphroot": folder / "root", "runroot": folder / "run"}
        lines = "".join(f'{name} = "{value}"\n' for name, value in storage.items())
        (folder / "storage.conf").write_text(f"[storage]\n{lines}")
        self.environment = {
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        self.trusting = f"--signature-policy={folder / 'policy.json'}"

    def command(self, *words: str | Path) -> list[str]:
        """The command, for `subprocess`."""
        return ["env", *map("=".join, self.environment.items()), "buildah", *map(str, words)]

    def run(self, *words: str | Path) -> str:
        """Run a command of buildah to its end, and return what it printed.

        Raises:
            AssertionError: It failed; the text says what it printed.
        """
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def build_base(self, name: str) -> None:
        """Build an image of a minimal Debian that has Python with venv."""
        context = self.folder / "base"
        context.mkdir()
        (context / "Containerfile").write_text(PREPARE)
        left_out = [f"--exclude=./{each}/*" for each in LEFT_OUT]
        subprocess.run(["tar", "-C", base("13"), *left_out, "-cf", context / "debian.tar", "."], check=True)
        self.run("build", self.trusting, "--tag", name, context)

    def container(self, image: str) -> str:
        """Make a container of an image; return its name."""
        return self.run("from", self.trusting, image)

    def inside(self, container: str, options: Sequence[str | Path], *words: str) -> list[str]:
        """The command, for `subprocess`, that runs another one in a container."""
        return self.command("run", *options, container, "--", *words)

    def config(self, image: str) -> dict[str, Any]:
        """What an image says about how to run it, as Docker has it."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))["Docker"]["config"]
        return found

    def size(self, image: str) -> int:
        """The bytes of an image, unpacked."""
        (found,) = json.loads(self.run("images", "--json", image))
        number, unit = found["size"].split()
        return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])
