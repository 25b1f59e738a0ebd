"""The commands and files of docs/tutorial.md, as they stand, in a real Debian with its own systemd."""

from __future__ import annotations

import calendar
import email
import re
import socket
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.servers.booted import Booted
from tests.servers.net import wait_until

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
INSTALL, COUNT, EXPORT, CONFIGURE, ARGUMENTS, START, QUERY, CHECK, REFUSE, FLOOD, READ = re.findall(
    r"```sh\n(.*?)```", PAGE, flags=re.DOTALL
)
SENT = 30

ANSWERS = """\
postfix postfix/main_mailer_type select Internet Site
postfix postfix/mailname string mail.example.org
"""


def _prepare(machine: Booted, package: Path) -> None:
    policy = machine.root / "usr/sbin/policy-rc.d"  # nothing starts before systemd
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (machine.root / "etc/apt/apt.conf.d/91tests").write_text('APT::Get::Assume-Yes "true";\n')
    machine.run("bash", "-c", f"debconf-set-selections <<'EOF'\n{ANSWERS}EOF")
    machine.run("bash", "-e", "-c", INSTALL)
    machine.run("apt-get", "install", "-qq", "--no-install-recommends", machine.bring(package, "/root"))
    policy.unlink()
    with (machine.root / "etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.1.1 {socket.gethostname()}\n")  # sudo looks for it


@pytest.mark.needs("debian")
@pytest.mark.slow
def test_a_flood_becomes_a_mail_by_the_tutorials_own_commands(built: Callable[[str], Path]) -> None:
    with Booted("12") as machine:
        _prepare(machine, built("build-deb"))
        machine.boot()

        def sh(commands: str, *, check: bool = True) -> str:
            return machine.run("bash", "-e", "-c", commands, check=check).stdout

        log = machine.root / "var/log/mail.log"
        wait_until(lambda: log.exists() and log.stat().st_size > 0, 120, "Postfix logs nothing")
        # Without a private address it has failed, too often and just now for another start.
        sh("systemctl stop prometheus-alertmanager; systemctl reset-failed; systemctl start bouncemeter")
        wait_until(lambda: sh(COUNT, check=False) in PAGE.splitlines(keepends=True), 120, "the count is not there")
        assert "rule_files" in sh(EXPORT)
        sh(CONFIGURE + ARGUMENTS)
        assert sh(START).count("SUCCESS") >= 2
        wait_until(lambda: "=> 0 @" in sh(QUERY, check=False), 240, "Prometheus does not know the count")
        shown = re.search(r"```text\n(ok .*?)```", PAGE, flags=re.DOTALL)
        assert shown is not None
        wait_until(lambda: sh(CHECK, check=False).endswith(shown[1]), 120, "not all is well")
        sh(REFUSE)
        begun = time.time()
        sh(FLOOD)
        wait_until(lambda: "</html>" in sh(READ, check=False), 300, "no mail came")
        print(f"{time.time() - begun:.0f} seconds from the flood to the mail")
        text = sh(READ)
        assert log.read_text().count("status=bounced (Alarm test)") == 2 * SENT, "the mails and the notices of them"
        assert f"}} {SENT}.0" in sh(COUNT)
    _reads_well(email.message_from_string(text.partition("\n")[2], policy=default), begun)


def _reads_well(mail: EmailMessage, begun: float) -> None:
    assert mail["Subject"] == (
        "Critical: Other servers refuse our mail with 5.7.x, far more than usual: mail.example.org"
    )
    plain, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert html is not None
    text = plain.get_content()
    assert "<no value>" not in text + html.get_content()
    number = re.search(r"^(\d+) recipients were refused with 5.7.x in ten minutes on mail.example.org", text, re.M)
    assert number is not None, text
    assert 20 <= int(number[1]) <= SENT * 1.1  # of the whole flood or its first part, extrapolated by Prometheus
    assert re.search(r"Most: \d+ by other, reason \w+", text)
    assert "There is no history yet to compare with." in text
    since = re.search(r"^Since: +(.+) UTC$", text, re.M)
    assert since is not None, text
    started = calendar.timegm(time.strptime(f"{since[1]} {time.gmtime(begun).tm_year}", "%A %d %B %H:%M %Y"))
    assert -60 <= started - begun <= 300
    assert re.search(r"^First: +\w", text, re.M)
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for part in (text, html.get_content()):
        links = re.findall(r"https?://[^\s\"<]+", part)
        assert links
        for link in links:
            base, _, anchor = link.partition("#")
            assert base == "https://github.com/bouncemeter/bouncemeter/blob/main/docs/runbook.md"
            assert anchor in anchors
