"""Bounces by sender, through real servers: directly, through a filter, and from a local program."""

from __future__ import annotations

import os
import pwd
import re
import smtplib
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.servers.exim import Exim
from tests.servers.exporter import Exporter
from tests.servers.net import wait_until
from tests.servers.postfix import Postfix
from tests.servers.smtp import FateServer, Filter

CONFIG = f"""
[senders.news]
domains = ["news.test"]

[senders.local]
accounts = ["{pwd.getpwuid(os.getuid()).pw_name}"]
"""

EACH = [("ann@news.test", "news"), ("bounces+ann=x@mail.news.test", "news"), ("bob@oldnews.test", "other")]
"""Senders, each with its group."""

FATES = {"unknown": "5.1", "blocked": "5.7", "grey": "4.2", "ok": None}
"""What happens to a recipient, and the class that it counts as."""


def send(port: int, name: str) -> Counter[tuple[str, str]]:
    """Send mail of each sender by SMTP. Returns the recipients that bounce, by group and class."""
    expected = Counter[tuple[str, str]]()
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=120) as client:
        for number, (sender, group) in enumerate(EACH):
            for fate, code_class in FATES.items():
                recipients = [f"{fate}-{name}{number}x{place}@dest.test" for place in range(3)]
                client.sendmail(sender, recipients, "Subject: test\n\nHello.\n")
                if code_class:
                    expected[group, code_class] += len(recipients)
    return expected


def counted(exporter: Exporter) -> Counter[tuple[str, str]]:
    found = Counter[tuple[str, str]]()
    pattern = r'^mail_bounces_by_sender_total\{class="(.+)",kind=".+",mta=".+",sender="(.+)"\} (\S+)$'
    for code_class, sender, number in re.findall(pattern, exporter.page(), re.M):
        found[sender, code_class] += int(float(number))
    return +found


@pytest.mark.needs("postfix")
def test_bounces_by_sender_of_postfix(server_dir: Path) -> None:
    (server_dir / "bouncemeter.toml").write_text(CONFIG)
    with FateServer() as server:
        postfix = Postfix(server_dir, server.port)
        postfix.add_filter()
        exporter = Exporter("--config", server_dir / "bouncemeter.toml", "--from-start", postfix.log)
        with Filter(postfix.filter, postfix.back), postfix, exporter:
            expected = send(postfix.port, "a") + send(postfix.filtered, "b")
            wait_until(lambda: counted(exporter) == expected, 120, f"not counted; see {postfix.log}")


@pytest.mark.needs("exim")
def test_bounces_by_sender_of_exim(server_dir: Path) -> None:
    (server_dir / "bouncemeter.toml").write_text(CONFIG)
    with FateServer() as server, Exim(server_dir, server.port) as exim:
        exporter = Exporter("--config", server_dir / "bouncemeter.toml", "--from-start", exim.log)
        with exporter:
            expected = send(exim.port, "a")
            # A local program's mail has the name of its user.
            submission = [str(exim.binary), "-C", str(exim.config), "-f", "ann@news.test", "unknown-1@dest.test"]
            subprocess.run(submission, input=b"Subject: test\n\nHello.\n", check=True, timeout=60)
            expected["local", "5.1"] += 1
            exim.drain()
            wait_until(lambda: counted(exporter) == expected, 120, f"not counted; see {exim.log}")
