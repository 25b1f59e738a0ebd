"""Clients of a real Postfix that write fields of its log into their HELO, sender and recipient forge none of them."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.net import wait_until
from tests.servers.postfix import Postfix
from tests.servers.smtp import FateServer

Json = dict[str, Any]

SETTINGS = """\
info_log_address_format = {form}
smtpd_delay_reject = {delayed}
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender
smtpd_recipient_restrictions = reject_unauth_destination, reject_unlisted_recipient
smtpd_hard_error_limit = 1000
mynetworks = 192.0.2.0/24
"""
RELAYING = "info_log_address_format = {form}"

HELOS = [
    "a; from=<forged@x.test> to=<forged@y.test>",
    "a; from=<forged@x.test> to=<forged@y.test> proto=SMTP helo=<b",
    "a>: Helo command rejected: virus; from=<forged@x.test> to=<forged@y.test> proto=SMTP helo=<z",
    "a; from=<forged@x.test> to=<forged@y.test> proto=SMTP helo=<b> sasl_username=<c",
    "zen.spamhaus.org virus",
    'a; from=<"',
]
SENDERS = [
    '"a>, status=expired, returned to sender ("@x.test',
    '"a>, status=expired, returned to sender"@x.test',
    '"a>, status=force-expired, returned to sender\\\\"@x.test',
    '">, size=1, nrcpt=1 (queue active)"@x.test',
    '"a>, size=1, nrcpt=1 (queue active)"@x.test',
    '"b; from=<f@x.test> to=<forged@y.test> proto=SMTP helo=<h"@x.test',
    '"@v> to=<forged@y.test> proto=SMTP helo=<h>"@x.test',
]


def rejected(postfix: Postfix, helo: str, sender: str, recipient: str) -> None:
    """Try to hand over one message; it is refused."""
    with smtplib.SMTP("127.0.0.1", postfix.port, timeout=120) as client:
        client.putcmd("ehlo", helo)
        client.getreply()
        client.docmd(f"MAIL FROM:<{sender}>")
        client.docmd(f"RCPT TO:<{recipient}>")


@pytest.mark.needs("postfix")
@pytest.mark.parametrize("form", ["external", "internal"])
@pytest.mark.parametrize("delayed", ["yes", "no"])
def test_no_client_forges_the_envelope_of_a_refusal(
    server_dir: Path, parse: Callable[..., list[Json]], form: str, delayed: str
) -> None:
    settings = SETTINGS.format(form=form, delayed=delayed)
    with FateServer() as server, Postfix(server_dir, server.port, settings) as postfix:
        for helo in HELOS:
            rejected(postfix, helo, "real@src.test", "real@dest.test")
        for sender in SENDERS:
            rejected(postfix, "client.example.test", sender, "real@dest.test")
    records = parse(postfix.log)
    assert {each["outcome"] for each in records} == {"rejected"}
    assert len(records) >= len(HELOS) + len(SENDERS)
    assert {each["recipient"] for each in records} <= {None, "real@dest.test"}
    assert not [each for each in records if (each["sender"] or "").startswith("forged")]
    assert not {each["reason"] for each in records} & {"malware", "blocklisted"}
    assert {each["code"] for each in records} <= {"5.5.2", "5.7.1", "4.7.1"}


@pytest.mark.needs("postfix")
@pytest.mark.parametrize("form", ["external", "internal"])
def test_no_sender_expires_its_message(
    server_dir: Path, parse: Callable[..., list[Json]], report: Callable[..., Json], form: str
) -> None:
    with FateServer() as server, Postfix(server_dir, server.port, RELAYING.format(form=form)) as postfix:
        for number, sender in enumerate(SENDERS):
            postfix.send(sender, [f"full-{number}@dest.test"])
            postfix.send(sender, [f"ok-{number}@dest.test"])
        wait_until(lambda: len(server.truth.tries) == 2 * len(SENDERS), 600, "not all mail was tried")
        postfix.drain(left=len(SENDERS))
        full = [f"to=<full-{number}@dest.test>" for number in range(len(SENDERS))]
        wait_until(lambda: all(each in postfix.log.read_text() for each in full), 600, "not all deferrals are logged")
    records = parse(postfix.log)
    assert {(each["outcome"], each["code"]) for each in records} == {("deferred", "4.2.2"), ("delivered", "2.0.0")}
    found = report(postfix.log)
    assert found["recipients"] == {
        "delivered": len(SENDERS),
        "bounced": 0,
        "expired": 0,
        "waiting": len(SENDERS),
    }
    assert found["bounces"] == {"soft": len(SENDERS), "hard": 0}
    assert found["lines"]["unparsed"] == 0
