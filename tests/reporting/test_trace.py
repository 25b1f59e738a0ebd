"""`trace` shows all of one message, and nothing of any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bouncemeter.event import EnhancedCode, Entry, Event, Outcome
from bouncemeter.plugin import parser
from bouncemeter_exporter.reporting.trace import MAX_MESSAGES, trace_message
from bouncemeter_exporter.sources.search import Search

from tests.conftest import LOGS, Run

FORMS = LOGS / "postfix" / "forms.log"

FILTERED = """\
Nov  4 03:00:01 mx1 postfix/smtpd[1]: AAAA1: client=mail.src.test[192.0.2.9]
Nov  4 03:00:01 mx1 postfix/qmgr[1]: AAAA1: from=<ann@src.test>, size=4, nrcpt=2 (queue active)
Nov  4 03:00:02 mx1 postfix/smtpd[1]: BBBB2: client=localhost[127.0.0.1]
Nov  4 03:00:02 mx1 postfix/qmgr[1]: BBBB2: from=<ann@src.test>, size=4, nrcpt=1 (queue active)
Nov  4 03:00:02 mx1 postfix/smtp[1]: AAAA1: to=<bob@dest.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=1,\
 delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as BBBB2)
Nov  4 03:00:02 mx1 postfix/smtp[1]: AAAA1: to=<cyd@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=1,\
 delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as DDDD4)
Nov  4 03:00:02 mx1 postfix/qmgr[1]: AAAA1: removed
Nov  4 03:00:03 mx1 postfix/smtp[1]: BBBB2: to=<bob@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=1,\
 delays=0/0/0/1, dsn=4.2.2, status=deferred (host mx.dest.test[192.0.2.1] said: 452 4.2.2 full \x1b[31m)
Nov  4 03:00:04 mx1 postfix/smtp[1]: BBBB2: to=<bob@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=2,\
 delays=0/0/0/1, dsn=5.1.1, status=bounced (host mx.dest.test[192.0.2.1] said: 550 5.1.1 gone)
Nov  4 03:00:04 mx1 postfix/qmgr[1]: CCCC3: from=<>, size=4, nrcpt=1 (queue active)
Nov  4 03:00:04 mx1 postfix/bounce[1]: BBBB2: sender non-delivery notification: CCCC3
Nov  4 03:00:04 mx1 postfix/qmgr[1]: BBBB2: removed
Nov  4 03:00:05 mx1 postfix/smtp[1]: CCCC3: to=<ann@src.test>, relay=mail.src.test[192.0.2.9]:25, delay=1,\
 delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)
Nov  4 03:00:05 mx1 postfix/smtpd[1]: DDDD4: client=stranger.test[192.0.2.77]
Nov  4 03:00:05 mx1 postfix/smtp[1]: DDDD4: to=<eve@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=1,\
 delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)
Nov  4 03:00:06 mx1 postfix/qmgr[1]: EEEE5: from=<x@src.test>, status=expired, returned to sender
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "mail.log"
    found.write_text(FILTERED)
    return found


def trace(bouncemeter: Run, queue_id: str, *logs: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bouncemeter("trace", "--format", "json", queue_id, *logs).stdout)
    return found


@pytest.mark.parametrize("asked", ["AAAA1", "BBBB2", "CCCC3"])
def test_a_trace_follows_a_message_through_a_filter_and_to_its_bounce(bouncemeter: Run, log: Path, asked: str) -> None:
    found = trace(bouncemeter, asked, log)
    assert {each["queue_id"] for each in found["messages"]} == {"AAAA1", "BBBB2", "CCCC3"}
    assert found["messages"][0] == {"queue_id": asked, "what": "the message"}
    outcomes = {(each["queue_id"], each["recipient"]): each["outcome"] for each in found["recipients"]}
    assert outcomes == {
        ("AAAA1", "bob@dest.test"): "handed on",
        ("AAAA1", "cyd@dest.test"): "delivered",
        ("BBBB2", "bob@dest.test"): "bounced",
        ("CCCC3", "ann@src.test"): "delivered",
    }
    times = [each["time"] for each in found["entries"]]
    assert times == sorted(times)


def test_a_remote_server_cannot_add_another_message_to_a_trace(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("trace", "AAAA1", log).stdout
    assert "stranger" not in printed
    assert "eve@dest.test" not in printed
    assert [each["queue_id"] for each in trace(bouncemeter, "DDDD4", log)["messages"]] == ["DDDD4"]


def test_a_remote_server_that_gets_a_message_twice_cannot_either(bouncemeter: Run, log: Path) -> None:
    again = [line.replace("03:00:02", "03:00:06") for line in FILTERED.splitlines() if "cyd@dest.test" in line]
    log.write_text(FILTERED + "\n".join(again) + "\n")
    assert "stranger" not in bouncemeter("trace", "AAAA1", log).stdout
    assert "stranger" not in bouncemeter("trace", "cyd@dest.test", log).stdout


def test_a_trace_shows_each_reply_in_full_with_its_meaning(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("trace", "BBBB2", log).stdout
    for words in ("said: 452 4.2.2 full \\x1b[31m", "Mailbox full", "client localhost[127.0.0.1]", "see CCCC3"):
        assert words in printed
    assert "\x1b" not in printed
    for entry in trace(bouncemeter, "BBBB2", log)["entries"]:
        if entry.get("outcome") in ("deferred", "bounced"):
            assert len(entry["meaning"]) > 10


def test_a_trace_of_an_expired_message_says_that_the_server_gave_up(bouncemeter: Run, log: Path) -> None:
    assert "Given up" in bouncemeter("trace", "EEEE5", log).stdout


@pytest.mark.parametrize(
    ("queue_id", "mta", "outcomes"),
    [
        ("60129542144002", "exchange", {"delivered", "bounced", "expired"}),
        ("1abcDE-000000005vi-0003", "exim", {"delivered"}),
    ],
)
def test_trace_works_for_exchange_and_exim(bouncemeter: Run, queue_id: str, mta: str, outcomes: set[str]) -> None:
    logs = [each for each in (LOGS / mta).iterdir() if each.suffix == ".LOG" or each.name == "forms.log"]
    assert {each["outcome"] for each in trace(bouncemeter, queue_id, *logs)["recipients"]} == outcomes


def test_an_unknown_queue_id_is_answered_by_one_sentence(bouncemeter: Run, log: Path) -> None:
    done = bouncemeter("trace", "FFFF6", log, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bouncemeter: {log}: no line about queue ID FFFF6\n"
    assert bouncemeter("trace", "FFFF6", "-", check=False, stdin=b"").returncode == 2


def test_a_long_chain_of_messages_is_cut_off_after_a_few_reads() -> None:
    """Each message is handed on as the next one, in a long chain: a trace stops at a limit."""
    lines = []
    for number in range(4000):
        here, there = f"A{number:05}", f"A{number + 1:05}"
        sent = f"status=sent (250 2.0.0 Ok: queued as {there})"
        lines += [
            f"Nov  4 03:00:01 mx1 postfix/smtpd[1]: {there}: client=localhost[127.0.0.1]",
            f"Nov  4 03:00:02 mx1 postfix/smtp[1]: {here}: to=<a@x>, relay=127.0.0.1[127.0.0.1]:25, dsn=2.0.0, {sent}",
        ]
    entries = [entry for line in lines for entry in parser("postfix").reader()(line)]
    turns = 0

    def read(_: Search) -> list[Any]:
        nonlocal turns
        turns += 1
        return entries

    found = trace_message("A02000", read)
    assert found is not None
    assert 1 < len(found.names) <= MAX_MESSAGES
    assert turns <= 10


def test_a_message_of_exchange_is_traced_under_the_ids_of_all_services() -> None:
    """The delivery service has small IDs of its own, which other messages have had as well."""

    def event(queue_id: str, identity: str, outcome: Outcome) -> Event:
        code = EnhancedCode.parse("2.0.0" if outcome is Outcome.DELIVERED else "4.2.1")
        return Event("exchange", outcome, code, queue_id=queue_id, identity=identity, recipient="a@a.test", host="EX01")

    entries: list[Entry] = [
        event("601", "net-1", Outcome.DEFERRED),
        event("7", "net-2", Outcome.DELIVERED),
        event("7", "net-1", Outcome.DELIVERED),
    ]
    story = trace_message("601", lambda _: iter(entries))
    assert story is not None
    assert set(story.names) == {"601", "7"}
    assert story.entries == [entries[0], entries[2]]
    assert story.recipients == {("601", "a@a.test"): "delivered"}
