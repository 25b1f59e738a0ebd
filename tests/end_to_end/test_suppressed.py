"""A suppression list of mail through real servers: exactly what the server that answered knows to have happened."""

from __future__ import annotations

import json
import smtplib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.servers.exim import Exim
from tests.servers.net import wait_until
from tests.servers.postfix import Postfix
from tests.servers.smtp import FATES, OK, FateServer

UNKNOWN = FATES["unknown"][0]
FULL = FATES["full"][0]
LIVES = {
    "back": (UNKNOWN, OK),
    "gone": (OK, UNKNOWN),
    "waited": (FULL, OK, OK),
    "later": (OK, FULL),
}
"""Further fates of two messages."""

EXPECTED = {
    "unknown": ("remove", "user_unknown", 2),
    "bare": ("remove", "user_unknown", 2),
    "gone": ("remove", "user_unknown", 1),
    "full": ("pause", "mailbox_full", 2),
    "later": ("pause", "mailbox_full", 1),
    "blocked": ("keep", "blocklisted", 2),
    "multi": ("keep", "authentication", 2),
    "greyhard": ("keep", "policy", 2),
}
"""What the list must say; all others were delivered to last."""


@pytest.fixture(autouse=True)
def _fates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, replies in LIVES.items():
        monkeypatch.setitem(FATES, name, replies)


def address(fate: str) -> str:
    """The address of a fate; mail to `expire.test` is given up soon by either server of the tests."""
    return f"{fate}-1@{'expire' if fate in ('full', 'later') else 'dest'}.test"


def send_to_all(port: int, number: int) -> None:
    """A message to each fate."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=300) as client:
        for fate in (*EXPECTED, "ok", "grey", "back", "waited"):
            client.sendmail("sender@src.test", [address(fate)], f"Subject: {number}\n\nHello.\n")


def check(bouncemeter: Run, log: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(bouncemeter("suppress", "--format", "json", log).stdout)
    found = {row["address"]: (row["verdict"], row["reason"], row["messages"]) for row in rows}
    assert found == {address(fate): truth for fate, truth in EXPECTED.items()}
    printed = bouncemeter("suppress", "--format", "list", log).stdout.split()
    assert set(printed) == {address(fate) for fate, truth in EXPECTED.items() if truth[0] != "keep"}


@pytest.mark.needs("postfix")
def test_postfix_and_two_messages_to_each(server_dir: Path, bouncemeter: Run) -> None:
    with FateServer() as server, Postfix(server_dir, server.port, lifetime="12s") as postfix:
        for number in range(2):
            send_to_all(postfix.port, number)
            wait_until(lambda: postfix.queued() == 0, 240, f"mail is queued; see {postfix.log}", 0.3)
        check(bouncemeter, postfix.log)


@pytest.mark.needs("exim")
def test_exim_and_two_messages_to_each(server_dir: Path, bouncemeter: Run) -> None:
    with FateServer() as server, Exim(server_dir, server.port, lifetime=2) as exim:
        for number in range(2):
            send_to_all(exim.port, number)
            exim.drain(seconds=60)
        check(bouncemeter, exim.log)
