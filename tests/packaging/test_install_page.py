"""The commands of docs/install.md, as they stand, in real Debians."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import LOGS, ROOT
from tests.servers.booted import Booted
from tests.servers.debian import Debian

pytestmark = [pytest.mark.needs("debian"), pytest.mark.slow]

PAGE = (ROOT / "docs" / "install.md").read_text()
SECTIONS = {
    title: re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
}
MADE = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ENVIRONMENT = f"export PIP_CERT=/srv/{CERTIFICATES.name} SSL_CERT_FILE=/srv/{CERTIFICATES.name} PIP_NO_COMPILE=1"


def _prepare(machine: Debian) -> None:
    """Put a clone and a log there."""
    shutil.copytree(ROOT, machine.root / "srv" / "bouncemeter", ignore=MADE)
    machine.bring(LOGS / "postfix" / "relay.log", "/srv")
    machine.bring(CERTIFICATES, "/srv")  # those inside may be written anew, without what this network needs
    (machine.root / "etc/sudoers.d/tests").write_text('Defaults env_keep += "PIP_CERT PIP_NO_COMPILE SSL_CERT_FILE"\n')
    (machine.root / "etc/apt/apt.conf.d/91tests").write_text(
        'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
    )


def _sh(machine: Debian, commands: str) -> str:
    return machine.run("bash", "-e", "-c", f"{ENVIRONMENT}\ncd /srv/bouncemeter\n{commands}").stdout


def _works(machine: Debian) -> None:
    assert re.fullmatch(r"bouncemeter \d+\.\d+\.\d+\n", _sh(machine, "bouncemeter --version"))
    assert "52 outcomes" in _sh(machine, "bouncemeter report /srv/relay.log")


def _is_gone(machine: Debian) -> None:
    assert not _sh(machine, "command -v bouncemeter || true")


@pytest.mark.parametrize("version", ["12", "13"])
def test_pipx_uv_and_a_virtual_environment_with_a_service(version: str) -> None:
    with Booted(version) as machine:
        _prepare(machine)
        for title in ("pipx", "uv", "A virtual environment"):
            *install, remove = SECTIONS[title]
            _sh(machine, "\n".join(install))
            _works(machine)
            if title != "A virtual environment":
                _sh(machine, remove)
                _is_gone(machine)
        machine.run("install", "--group=adm", "--mode=640", "/srv/relay.log", "/var/log/mail.log")
        machine.boot()
        serve, status, stop = SECTIONS["As a service"]
        _sh(machine, serve)
        log = machine.run("journalctl", "--unit=bouncemeter").stdout
        for line in re.findall(r"^bouncemeter: .*", PAGE, flags=re.MULTILINE):
            assert line in log
        assert "active (running)" in _sh(machine, status)
        _sh(machine, stop + remove)
        _is_gone(machine)
        assert not machine.run("find", "/etc", "/var/lib", "/opt", "-name", "*bouncemeter*").stdout


def test_the_debian_package_and_the_one_file() -> None:
    with Debian("12") as machine:
        _prepare(machine)
        install, remove = SECTIONS["Debian package"]
        _sh(machine, install)
        _works(machine)
        _sh(machine, remove)
        _is_gone(machine)
        build, use = SECTIONS["One file"]
        assert _sh(machine, build).splitlines()[-1].startswith("bouncemeter ")
        first, *rest = use.splitlines()
        _sh(machine, first)
        _works(machine)
        _sh(machine, "\n".join(rest))
        _is_gone(machine)
