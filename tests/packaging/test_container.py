"""The container image: built by buildah, and run with the command, the user and the health check that it names."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LOGS, ROOT
from tests.servers.buildah import Buildah, alone
from tests.servers.net import wait_until

pytestmark = [pytest.mark.needs("buildah", "debian"), pytest.mark.slow, pytest.mark.xdist_group("container image")]

ADM = 4
"""The group that may read Debian's mail log."""

DOCS = (ROOT / "docs/containers.md").read_text()

PAGE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:19525{}', timeout=30).read().decode())"

READ_ONLY = """
mount --bind "$1" "$1"
mount --bind "$2" "$1/var/log"
mount --bind "$3" "$1/var/lib/bouncemeter"
mount -o remount,bind,ro "$1"
mount -o remount,bind,ro "$1/var/log"
shift 3
exec "$@"
"""
"""What `--read-only` and two volumes do, and what follows is the first process."""


@dataclass
class Image:
    """The image that was built, and its configuration."""

    buildah: Buildah
    name: str
    container: str
    config: dict[str, Any]

    @property
    def command(self) -> list[str]:
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    def inside(self, options: list[str], words: list[str]) -> list[str]:
        return self.buildah.inside(self.container, options, *words)

    @property
    def health(self) -> list[str]:
        kind, *words = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.inside([], words)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    folder = Path(tempfile.mkdtemp(prefix="bouncemeter-"))
    folder.chmod(0o755)
    buildah = Buildah(folder)
    buildah.build_base("localhost/debian-python")
    done = subprocess.run(
        ["make", "--no-print-directory", "image", f"ARGS={buildah.trusting} --build-arg BASE=localhost/debian-python"],
        cwd=ROOT,
        env={**os.environ, **buildah.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name = "localhost/bouncemeter"
    yield Image(buildah, name, buildah.container(name), buildah.config(name))
    shutil.rmtree(folder)


@pytest.fixture
def logs(server_dir: Path) -> Path:
    """A folder like /var/log, with a mail log as Debian has it, in which nothing is written yet."""
    folder = server_dir / "log"
    folder.mkdir()
    (folder / "mail.log").touch()
    os.chown(folder / "mail.log", 0, ADM)
    (folder / "mail.log").chmod(0o640)
    return folder


class Running:
    """A container that runs, in a network of its own, for use in a `with`."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def __enter__(self) -> Running:
        self.process = subprocess.Popen(alone(*self.command), stderr=subprocess.PIPE, text=True)
        wait_until(lambda: self.process.poll() is not None or self.page("/-/ready") != "", 120, "not ready", pause=0.3)
        return self

    def page(self, path: str = "/metrics") -> str:
        """A page of the exporter; empty if it has none yet."""
        network = f"--net=/proc/{self.process.pid}/ns/net"
        words = ["nsenter", network, sys.executable, "-c", PAGE.format(path)]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout

    def healthy(self, command: list[str]) -> bool:
        """Whether a health check says that all is well."""
        words = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", *command]
        return subprocess.run(words, stderr=subprocess.DEVNULL, check=False, timeout=120).returncode == 0

    def exporter(self) -> int:
        """The exporter's process: the last one of those that started one another."""
        last = self.process.pid
        while children := "".join(each.read_text() for each in Path(f"/proc/{last}/task").glob("*/children")).split():
            last = int(children[0])
        return last

    def stop(self) -> str:
        """Send SIGTERM; return what it said until it ended, as it should."""
        os.kill(self.exporter(), signal.SIGTERM)
        said = self.process.communicate(timeout=120)[1]
        assert self.process.returncode == 0, said
        return said

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.kill(self.exporter(), signal.SIGKILL)
            self.process.communicate(timeout=120)


def _counts(page: str) -> list[str]:
    return sorted(re.findall(r"^mail_(?:bounces|recipients|rejections)_total\{.*$", page, flags=re.MULTILINE))


EXPECTED = _counts((LOGS / "postfix/relay.prom").read_text())


def _shown(command: str) -> list[str]:
    """The lines that the page shows under a command, at each of its places."""
    lines = [line.strip() for line in DOCS.splitlines()]
    found: list[str] = []
    for number, line in enumerate(lines):
        if line == f"$ {command}":
            found += takewhile(lambda each: not each.startswith(("$ ", "```")), lines[number + 1 :])
    assert found, command
    return found


def _write(logs: Path) -> None:
    with (logs / "mail.log").open("ab") as log:
        log.write((LOGS / "postfix/relay.log").read_bytes())


def test_it_counts_and_tells_its_health(image: Image, logs: Path) -> None:
    options = ["--volume", f"{logs}:/var/log:ro", "--user", f"{image.config['User'].split(':')[0]}:{ADM}"]
    with Running(image.inside(options, image.command)) as running:
        _write(logs)
        wait_until(lambda: _counts(running.page()) == EXPECTED, 120, "not all is counted", pause=0.3)
        status = Path(f"/proc/{running.exporter()}/status").read_text()
        assert re.search(r"^Uid:\s+19525\s+19525", status, flags=re.MULTILINE)
        assert running.healthy(image.health)
        said = running.stop()
    assert _shown("docker logs bouncemeter")[:2] == said.splitlines()[:2]
    assert "Traceback" not in said
    assert subprocess.run(alone(*image.health), stderr=subprocess.DEVNULL, check=False, timeout=120).returncode != 0


def test_a_log_that_its_user_may_not_read_is_said(image: Image, logs: Path) -> None:
    _write(logs)
    command = image.inside(["--volume", f"{logs}:/var/log:ro"], image.command)
    done = subprocess.run(alone(*command), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert _shown("docker logs bouncemeter")[2] == done.stderr.splitlines()[0]


def test_root_without_capabilities_reads_a_log_that_only_root_may_read(image: Image, logs: Path) -> None:
    (logs / "mail.log").chmod(0o600)
    options = ["--volume", f"{logs}:/var/log:ro", "--user", "0", "--cap-drop", "ALL"]
    with Running(image.inside(options, [*image.command, "--state", "/var/lib/bouncemeter/of-root.db"])) as running:
        _write(logs)
        wait_until(lambda: _counts(running.page()) == EXPECTED, 120, "not all is counted", pause=0.3)
        running.stop()


@pytest.mark.parametrize(
    "words", re.findall(r"^\$ docker run --rm --interactive bouncemeter (.+)$", DOCS, re.MULTILINE)
)
def test_the_other_commands_run(image: Image, words: str) -> None:
    command = image.inside([], [*image.config["Entrypoint"], *words.partition(" <")[0].split()])
    with (LOGS / "postfix/relay.log").open() as log:
        done = subprocess.run(command, stdin=log, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\n".join(_shown(f"docker run --rm --interactive bouncemeter {words}")))


def test_its_root_may_be_read_only_and_its_counts_outlive_it(image: Image, logs: Path, server_dir: Path) -> None:
    root = image.buildah.run("mount", image.container)
    (state := server_dir / "state").mkdir()
    user = image.config["User"]
    os.chown(state, *map(int, user.split(":")))
    command = ["chroot", f"--userspec={user}", f"--groups={ADM}", root, "env", "-i", *image.config["Env"]]
    isolated = ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", READ_ONLY, "sh", root, str(logs), str(state)]
    with Running([*isolated, *command, *image.command]) as running:
        _write(logs)
        wait_until(lambda: _counts(running.page()) == EXPECTED, 120, "not all is counted", pause=0.3)
        running.stop()
    assert (state / "state.db").is_file()
    with Running([*isolated, *command, *image.command]) as running:
        assert _counts(running.page()) == EXPECTED
        running.stop()


def test_it_is_small_and_says_what_it_is(image: Image) -> None:
    size = image.buildah.size(image.name) - image.buildah.size("localhost/debian-python")
    print(f"{size / 1e6:.0f} MB on top of its base")
    assert size < 60e6
    assert image.config["ExposedPorts"] == {"19525/tcp": {}}
    assert image.config["Volumes"] == {"/var/lib/bouncemeter": {}}
    assert all(each in DOCS for each in (":/var/lib/bouncemeter", ":19525:19525", f"--group-add {ADM}"))
    labels = {name.removeprefix("org.opencontainers.image.") for name in image.config["Labels"]}
    assert {"title", "description", "source", "licenses"} <= labels
