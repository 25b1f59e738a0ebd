"""On a Debian as it is installed today, mail is in the journal alone: the package's service finds it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.booted import Booted
from tests.servers.net import wait_until

FETCH = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:19525/metrics', timeout=60).read().decode())"
BOUNCED = 'mail_bounces_total{class="5.7",code="5.7.1",kind="hard",mta="postfix"'


@pytest.mark.needs("debian")
@pytest.mark.slow
@pytest.mark.parametrize("version", ["12", "13"])
def test_a_journal_without_log_files_is_found(version: str, built: Callable[[str], Path]) -> None:
    with Booted(version) as machine:
        policy = machine.root / "usr/sbin/policy-rc.d"  # nothing starts before systemd
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        package = machine.bring(built("build-deb"), "/root")
        machine.run("apt-get", "install", "-qq", "--no-install-recommends", "postfix", package)
        policy.unlink()
        machine.run("postconf", "-e", "transport_maps=inline:{ { refused.invalid = error:5.7.1 no } }")
        machine.boot()

        def told(*words: str) -> str:
            return machine.run("bouncemeter", *words, check=False).stdout

        # The service waits until there is mail to be found; then it follows the journal.
        wait_until(
            lambda: "no log was named: reading journal:" in machine.run("journalctl", "--no-pager").stdout,
            240,
            "the service does not find the journal",
        )
        wait_until(
            lambda: "bouncemeter_source_up" in machine.run("python3", "-c", FETCH, check=False).stdout, 120, "up"
        )
        send = "for n in 1 2 3; do echo Subject: test | sendmail -f root $n@refused.invalid; done"
        machine.run("sh", "-c", send)
        wait_until(lambda: BOUNCED in machine.run("python3", "-c", FETCH).stdout, 120, "no bounce is counted")
        wait_until(lambda: "hard bounces            3" in told("report"), 120, "the report lacks the bounces")
        report = told("report")
        assert report.startswith("bouncemeter: no log was named: reading journal:SYSLOG_FACILITY=2\n")
        assert "5.7.1" in report
        checked = told("check", "--config", "/etc/bouncemeter/bouncemeter.toml")
        assert "a log of postfix" in checked
        assert "a bouncemeter serves there already" in checked
        assert checked.splitlines()[-1] == "All is well."
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bouncemeter", "report"]
        refused = machine.run(*nobody, check=False).stdout
        assert "only root and the group systemd-journal may read it" in refused or "may enter" in refused
        assert "sudo usermod -aG systemd-journal nobody" in refused
