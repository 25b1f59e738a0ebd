"""By hour, sender, account, domain, relay and client: each number is what a scripted log says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.reporting import breakdown

from tests.conftest import Run


def postfix(moment: str, program: str, text: str) -> str:
    return f"2026-11-24T{moment}:00+00:00 mx1 postfix/{program}[1]: {text}\n"


def sent(
    moment: str, queue_id: str, recipient: str, *, relay: str = "mx.dest.test[192.0.2.1]:25", delay: str = "2"
) -> str:
    return postfix(
        moment,
        "smtp",
        f"{queue_id}: to=<{recipient}>, relay={relay}, delay={delay}, delays=0/0/0/2, dsn=2.0.0, status=sent (250 ok)",
    )


def failed(moment: str, queue_id: str, recipient: str, code: str, status: str, said: str) -> str:
    return postfix(
        moment,
        "smtp",
        f"{queue_id}: to=<{recipient}>, relay=mx.dest.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn={code},"
        f" status={status} (host mx.dest.test[192.0.2.1] said: {said})",
    )


def message(moment: str, queue_id: str, sender: str, login: str, *outcomes: str) -> str:
    client = f"client=pc.src.test[192.0.2.9]{f', sasl_method=PLAIN, sasl_username={login}' if login else ''}"
    lines = [
        postfix(moment, "smtpd", f"{queue_id}: {client}"),
        postfix(moment, "qmgr", f"{queue_id}: from=<{sender}>, size=1, nrcpt=1 (queue active)"),
        *outcomes,
        postfix(moment, "qmgr", f"{queue_id}: removed"),
    ]
    return "".join(lines)


REJECTED = (
    "NOQUEUE: reject: RCPT from bad.test[198.51.100.{}]: 554 5.7.1 Service unavailable; Client host [198.51.100.7]"
    " blocked using zen.spamhaus.org; from=<a@b.test> to=<c@src.test> proto=ESMTP helo=<bad.test>"
)
LOG = (
    message("01:10", "AAAA1", "Ann@src.test", "ann", sent("01:11", "AAAA1", "x@dest.test"))
    + message(
        *("01:20", "AAAA2", "ann@src.test", "ann"),
        sent("01:21", "AAAA2", "x@DEST.test", delay="4"),
        failed("01:22", "AAAA2", "y@dest.test", "5.1.1", "bounced", "550 5.1.1 <y@dest.test>: unknown"),
    )
    + message("03:00", "AAAA3", "bob@src.test", "bob", sent("03:01", "AAAA3", "z@slow.test", delay="4000"))
    + message(
        *("03:10", "AAAA4", "", ""),  # a bounce message: apart
        failed("03:11", "AAAA4", "ann@src.test", "5.1.1", "bounced", "550 5.1.1 gone"),
    )
    + postfix("03:20", "smtpd", "AAAA5: client=localhost[127.0.0.1]")
    + postfix("03:20", "qmgr", "AAAA5: from=<news+k7=dest.test@src.test>, size=1, nrcpt=1 (queue active)")
    + failed("03:21", "AAAA5", "k@dest.test", "4.7.1", "deferred", "450 4.7.1 <k@dest.test>: try again in 30 s")
    + failed("04:21", "AAAA5", "k@dest.test", "4.7.1", "deferred", "450 4.7.1 <k@dest.test>: try again in 60 s")
    + postfix("03:30", "smtpd", REJECTED.format(7))
    + postfix("03:31", "smtpd", REJECTED.format(200))
)
EXPECTED: dict[str, Any] = {
    "arrivals": 5,
    "hours": [
        {"hour": "2026-11-24T01:00:00Z", "delivered": 2, "soft": 0, "hard": 1, "rejected": 0},
        {"hour": "2026-11-24T02:00:00Z", "delivered": 0, "soft": 0, "hard": 0, "rejected": 0},
        {"hour": "2026-11-24T03:00:00Z", "delivered": 1, "soft": 1, "hard": 0, "rejected": 2},
    ],
    "senders": [
        {"sender": "ann@src.test", "delivered": 2, "soft": 0, "hard": 1},
        {"sender": "news*@src.test", "delivered": 0, "soft": 1, "hard": 0},
        {"sender": "bob@src.test", "delivered": 1, "soft": 0, "hard": 0},
    ],
    "accounts": [
        {"account": "ann", "delivered": 2, "soft": 0, "hard": 1},
        {"account": "bob", "delivered": 1, "soft": 0, "hard": 0},
    ],
    "recipient_domains": [
        {"domain": "dest.test", "delivered": 2, "soft": 1, "hard": 1},
        {"domain": "slow.test", "delivered": 1, "soft": 0, "hard": 0},
    ],
    "relays": [{"relay": "mx.dest.test", "delivered": 3, "soft": 1, "hard": 1}],
    "slowest": [
        {"domain": "slow.test", "delivered": 1, "mean_seconds": 4000.0, "longest_seconds": 4000.0},
        {"domain": "dest.test", "delivered": 2, "mean_seconds": 3.0, "longest_seconds": 4.0},
    ],
    "clients": [{"client": "pc.src.test", "messages": 4}, {"client": "localhost", "messages": 1}],
    "rejection_reasons": [{"reason": "blocklisted", "stage": "rcpt", "code": "5.7.1", "rejections": 2}],
    "client_networks": [{"network": "198.51.100.0/24", "rejections": 2, "reason": "blocklisted"}],
    "replies": [
        {
            "code": "5.1.1",
            "provider": "other",
            "replies": [
                {
                    "time": "2026-11-24T01:22:00Z",
                    "queue_id": "AAAA2",
                    "text": "host mx.dest.test[192.0.2.1] said: 550 5.1.1 <y@dest.test>: unknown",
                }
            ],
        },
        {
            "code": "4.7.1",
            "provider": "other",
            "replies": [
                {
                    "time": "2026-11-24T03:21:00Z",
                    "queue_id": "AAAA5",
                    "text": "host mx.dest.test[192.0.2.1] said: 450 4.7.1 <k@dest.test>: try again in 30 s",
                }
            ],
        },
    ],
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "mail.log"
    found.write_text(LOG)
    return found


def test_each_table_is_what_happened(bouncemeter: Run, log: Path) -> None:
    found = json.loads(bouncemeter("report", "--format", "json", log).stdout)
    assert {key: found[key] for key in EXPECTED} == EXPECTED
    within = {row["within_seconds"]: row["recipients"] for row in found["delays"] if row["recipients"]}
    assert within == {5.0: 2, 14400.0: 1}


def test_a_table_has_as_many_rows_as_are_asked_for(bouncemeter: Run, log: Path) -> None:
    found = json.loads(bouncemeter("report", "--format", "json", "--top", "1", log).stdout)
    assert [found[name] for name in ("senders", "accounts", "clients")] == [
        EXPECTED[name][:1] for name in ("senders", "accounts", "clients")
    ]
    assert found["hours"] == EXPECTED["hours"]


def test_only_the_tables_that_are_asked_for_are_shown(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("report", "--by", "account", "--by", "hour", log).stdout
    assert "bob" in printed
    assert "2026-11-24 02:00" in printed
    assert "Codes" not in printed


def test_two_periods_are_shown_side_by_side(bouncemeter: Run, log: Path) -> None:
    words = ("--since", "2026-11-24T03:00Z", "--until", "2026-11-24T05:00Z", "--compare", "2h", log)
    found = json.loads(bouncemeter("report", "--format", "json", *words).stdout)
    assert found["recipients"] == {"delivered": 1, "bounced": 0, "expired": 0, "waiting": 1}
    assert found["compared_with"]["recipients"] == {"delivered": 2, "bounced": 1, "expired": 0}
    assert [(row["code"], row["before"], row["new"]) for row in found["codes"]] == [
        ("4.7.1", 0, True),
        ("5.1.1", 1, False),  # only an attempt, of a bounce message
    ]
    printed = bouncemeter("report", *words).stdout
    assert "compared with 2026-11-24T01:10:00Z to 2026-11-24T01:22:00Z" in printed
    assert "new" in printed


def test_a_comparison_begins_before_the_period(bouncemeter: Run, log: Path) -> None:
    done = bouncemeter("report", "--since", "2026-11-24", "--compare", "2026-11-25", log, check=False)
    assert (done.returncode, "is not before" in done.stderr) == (2, True)


def test_periods_do_not_overlap(bouncemeter: Run, log: Path) -> None:
    words = ("--since", "2026-11-24T03:00Z", "--until", "2026-11-24T05:00Z", "--compare", "1h", log)
    done = bouncemeter("report", *words, check=False)
    assert (done.returncode, "ends within the other one" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ann@src.test", "ann@src.test"),
        ("news+ann=dest.test@src.test", "news*@src.test"),
        ("prvs=0123456789=alice@src.test", "alice@src.test"),
        ("prvs==0123456789=alice@src.test", "alice@src.test"),
    ],
)
def test_a_sender_is_told_from_what_systems_write_into_it(address: str, name: str) -> None:
    assert breakdown._sender(address) == name


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch, bouncemeter: Run, tmp_path: Path) -> None:
    monkeypatch.setattr(breakdown, "MAX_NAMES", 3)
    found = breakdown.Breakdown()
    for number in range(10):
        found.arrival(f"host{number}.test[192.0.2.{number}]")
    assert dict(found.arrivals)["other"] == 7
    assert found.folds


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("bad.test[198.51.100.7]", "198.51.100.0/24"),
        ("(x [192.0.2.1]) [198.51.100.7]:25", "198.51.100.0/24"),  # what the client calls itself says nothing,
        ("unknown[IPv6:2001:db8:1:2::3]", "2001:db8:1::/48"),
        ("[2001:db8::1]", "2001:db8::/48"),
        ("x[999.1.1.1]", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_client_is_of_a_network(client: str, network: str) -> None:
    assert breakdown._network(client) == network


@pytest.mark.parametrize(
    ("relay", "name"),
    [
        ("mx.Dest.test[192.0.2.1]:25", "mx.dest.test"),
        ("unknown[192.0.2.1]", "192.0.2.1"),
        ("mx.dest.test (helo.test) [192.0.2.1]:25", "mx.dest.test"),
        ("(helo [192.0.2.7]) [192.0.2.1]:25", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("local", "local"),
        ("private/dovecot-lmtp", "private/dovecot-lmtp"),
        ("|/usr/bin/vacation", "(file or command)"),
        ("", "(local)"),
    ],
)
def test_a_relay_has_a_name(relay: str, name: str) -> None:
    assert breakdown._relay(relay) == name
