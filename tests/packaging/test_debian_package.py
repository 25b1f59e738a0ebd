"""The Debian package in a real Debian with a real systemd: installed, upgraded, removed and purged."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
import zstandard

from tests.conftest import LOGS
from tests.packaging.conftest import build
from tests.servers.booted import Booted
from tests.servers.debian import Debian
from tests.servers.net import wait_until

pytestmark = [pytest.mark.needs("debian"), pytest.mark.slow]

LOG = LOGS / "postfix" / "relay.log"
SETTINGS = "etc/bouncemeter/bouncemeter.toml"
UNIT = "/usr/lib/systemd/system/bouncemeter.service"
STATE = "var/lib/bouncemeter/state.db"
BOUNCE = "QUEUE: to=<a@example.org>, relay=mx.example.org[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=5.7.1, status=bounced (host mx.example.org[192.0.2.1] said: 550 5.7.1 no)"  # noqa: E501

FETCH = """
import sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:19525" + sys.argv[2], headers={"Authorization": sys.argv[1]})
try:
    print(urllib.request.urlopen(request, timeout=60).read().decode())
except urllib.error.HTTPError as error:
    print("status", error.code)
except OSError:
    print("nobody listens")
"""


def _metrics(machine: Debian, password: str = "", path: str = "/metrics") -> str:
    credentials = base64.b64encode(f"prometheus:{password}".encode()).decode()
    return machine.run("python3", "-c", FETCH, f"Basic {credentials}", path).stdout


def _wait_for(machine: Debian, text: str, password: str = "") -> str:
    page = ""

    def shows() -> bool:
        nonlocal page
        page = _metrics(machine, password)
        return text in page

    try:
        wait_until(shows, 120, text)
    except TimeoutError as error:
        log = machine.run("journalctl", "--no-pager", "--unit=bouncemeter", check=False).stdout
        raise AssertionError(f"no {text} in:\n{page}\n{log}") from error
    return page


def _settings(machine: Debian, text: str) -> None:
    (machine.root / SETTINGS).write_text(text)


def _newer(package: Path, folder: Path) -> Path:
    """The package with a higher version, and with other settings."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99", control.read_text()))
    with (tree / SETTINGS).open("a") as settings:
        settings.write("# new in 99\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-z1", "--build", tree, folder / "newer.deb"], check=True)
    return folder / "newer.deb"


@pytest.fixture(params=["12", "13"])
def machine(request: pytest.FixtureRequest, built: Callable[[str], Path]) -> Iterator[Booted]:
    """A Debian in which the package was installed with all that it recommends, and which was then started."""
    with Booted(request.param) as machine:
        machine.run("apt-get", "install", "-qq", machine.bring(built("build-deb"), "/root"))
        machine.bring(LOG, "/root")
        (machine.root / "root" / "relay.log.zst").write_bytes(zstandard.compress(LOG.read_bytes()))
        (machine.root / "var/log/mail.log").write_bytes(LOG.read_bytes())
        machine.run("chown", "root:adm", "/var/log/mail.log")
        machine.run("chmod", "640", "/var/log/mail.log")
        _settings(machine, "from_start = true\n")
        machine.boot()
        yield machine


def test_from_installing_to_purging(machine: Booted, built: Callable[[str], Path], tmp_path: Path) -> None:
    version = built("build-deb").name.split("_")[1]
    assert machine.run("bouncemeter", "--version").stdout == f"bouncemeter {version}\n"
    for name in ("relay.log", "relay.log.zst"):
        assert "190 lines: 52 outcomes" in machine.run("bouncemeter", "report", f"/root/{name}").stdout

    # systemd finds nothing wrong with the unit, and little that is open: 1.4, of which setpriority(2) is 0.1.
    assert not machine.run("systemd-analyze", "verify", "--man=no", UNIT).stdout
    machine.run("systemd-analyze", "security", "--offline=yes", "--threshold=14", UNIT)

    # The service runs since the machine started, and reads the machine's log as adm may.
    golden = LOG.with_suffix(".prom").read_text()
    page = _wait_for(machine, 'mail_recipients_total{mta="postfix",outcome="bounced"')
    bounces = [line for line in golden.splitlines() if line.startswith("mail_bounces_total{")]
    assert bounces
    assert not set(bounces) - set(page.splitlines())
    assert machine.run("stat", "-L", "-c", "%a", f"/{STATE}").stdout == "600\n"

    # A newer package restarts it, and keeps the settings. It reads what needs other rights than a file.
    sources = ["journal:", "unix:/run/bouncemeter/log", "udp:127.0.0.1:5514", "tcp:127.0.0.1:5514"]
    _settings(
        machine,
        f"from_start = true\nsources = {sources}\n[web]\ntrace = true\nconfig_file = '/etc/bouncemeter/web.yml'\n",
    )
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (machine.root / "etc/bouncemeter/web.yml").write_text(f"basic_auth_users: {{prometheus: {hashed}}}\n")
    machine.run("chown", "root:bouncemeter", "/etc/bouncemeter/web.yml")
    machine.run("chmod", "640", "/etc/bouncemeter/web.yml")
    newer = machine.bring(_newer(built("build-deb"), tmp_path), "/root")
    machine.run("apt-get", "install", "-qq", "--option=Dpkg::Options::=--force-confold", newer)
    _wait_for(machine, "bouncemeter_source_up", "secret")
    assert _metrics(machine, "wrong") == "status 401\n"
    assert "sources = " in (machine.root / SETTINGS).read_text()
    assert (machine.root / f"{SETTINGS}.dpkg-dist").read_text().endswith("# new in 99\n")
    for number, words in enumerate(
        ([], ["--socket=/run/bouncemeter/log"], ["--server=127.0.0.1", "--udp"], ["--server=127.0.0.1", "--tcp"])
    ):
        line = BOUNCE.replace("QUEUE", f"C342821229{number}")
        machine.run(
            "logger", *words, *("--port=5514" for _ in words[1:]), "--tag=postfix/smtp", "--id=1234", "--", line
        )
        _wait_for(
            machine,
            f'bouncemeter_lines_total{{mta="postfix",result="event",source="{sources[number]}"}} 1.0',
            "secret",
        )

    # A search for a message is a process of its own, with the same rights.
    story = _metrics(machine, "secret", "/trace/C3428212290")
    assert "a@example.org" in story, story
    assert "not searched" in _metrics(machine, "secret", "/trace").lower()

    # It takes settings over when told to, and says so.
    with (machine.root / SETTINGS).open("a") as settings:
        settings.write("[reasons]\nmailbox_full = ['box of * is resting']\n")
    machine.run("systemctl", "reload", "bouncemeter")
    wait_until(
        lambda: "Read the configuration again" in machine.run("journalctl", "--unit=bouncemeter").stdout, 120, "reload"
    )

    # Removed, it leaves settings and state; purged, nothing.
    machine.run("apt-get", "remove", "-qq", "bouncemeter")
    assert _metrics(machine) == "nobody listens\n"
    assert machine.run("test", "-s", f"/{STATE}")
    assert (machine.root / SETTINGS).exists()
    assert not (machine.root / "usr/lib/bouncemeter").exists()
    machine.run("rm", "/etc/bouncemeter/web.yml")
    machine.run("apt-get", "purge", "-qq", "bouncemeter")
    left = machine.run("find", "/", "-xdev", "-name", "*bouncemeter*", "-not", "-path", "/root/*").stdout
    assert not left
    assert "bouncemeter" not in machine.run("getent", "passwd").stdout + machine.run("getent", "group").stdout


def test_the_same_commit_gives_the_same_bytes(built: Callable[[str], Path], tmp_path: Path) -> None:
    again = build("build-deb", tmp_path, TZ="Asia/Tokyo", LC_ALL="C", TMPDIR=str(tmp_path))
    assert again.read_bytes() == built("build-deb").read_bytes()
