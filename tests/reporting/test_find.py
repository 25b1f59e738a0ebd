"""`trace` finds messages by what people know of them, and shows nothing that others forged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bouncemeter.event import Entry, Event
from bouncemeter.plugin import parser
from bouncemeter_exporter.reporting import find
from bouncemeter_exporter.reporting.find import FoundMessages, find_messages
from bouncemeter_exporter.reporting.sought import By, readings, search_for
from bouncemeter_exporter.sources.log import LogReader
from bouncemeter_exporter.sources.search import FEW, Search, unescaped
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.test_commands import on_a_terminal
from tests.conftest import LOGS, Run

SENT = "relay=mx.dest.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok"

POSTFIX = f"""\
Nov  4 03:00:01 mx1 postfix/smtpd[1]: AAAA1: client=mail.src.test[192.0.2.9]
Nov  4 03:00:01 mx1 postfix/cleanup[1]: AAAA1: message-id=<one@src.test>
Nov  4 03:00:01 mx1 postfix/qmgr[1]: AAAA1: from=<Ann@src.test>, size=4, nrcpt=2 (queue active)
Nov  4 03:00:02 mx1 postfix/smtpd[1]: BBBB2: client=localhost[127.0.0.1]
Nov  4 03:00:02 mx1 postfix/cleanup[1]: BBBB2: message-id=<one@src.test>
Nov  4 03:00:02 mx1 postfix/qmgr[1]: BBBB2: from=<Ann@src.test>, size=4, nrcpt=2 (queue active)
Nov  4 03:00:02 mx1 postfix/smtp[1]: AAAA1: to=<bob@dest.test>, orig_to=<sales@src.test>,\
 relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as BBBB2)
Nov  4 03:00:02 mx1 postfix/smtp[1]: AAAA1: to=<cyd@dest.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=1,\
 delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as BBBB2)
Nov  4 03:00:02 mx1 postfix/qmgr[1]: AAAA1: removed
Nov  4 03:00:03 mx1 postfix/smtp[1]: BBBB2: to=<cyd@dest.test>, {SENT}: queued as DDDD4)
Nov  4 03:00:04 mx1 postfix/smtp[1]: BBBB2: to=<bob@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=2,\
 delays=0/0/0/1, dsn=5.2.2, status=bounced (host mx.dest.test[192.0.2.1] said: 552 5.2.2 Mailbox FULL \x1b[31m)
Nov  4 03:00:04 mx1 postfix/qmgr[1]: CCCC3: from=<>, size=4, nrcpt=1 (queue active)
Nov  4 03:00:04 mx1 postfix/bounce[1]: BBBB2: sender non-delivery notification: CCCC3
Nov  4 03:00:04 mx1 postfix/qmgr[1]: BBBB2: removed
Nov  4 03:00:05 mx1 postfix/smtp[1]: CCCC3: to=<ann@src.test>, {SENT})
Nov  4 04:00:05 mx1 postfix/smtpd[1]: DDDD4: client=stranger.test[192.0.2.77]
Nov  4 04:00:05 mx1 postfix/cleanup[1]: DDDD4: message-id=<two@other.test>
Nov  4 04:00:05 mx1 postfix/cleanup[1]: DDDD4: info: header Subject: message-id=<one@src.test> from x[192.0.2.77];\
 from=<eve@other.test> to=<bob@dest.test> proto=ESMTP helo=<x>: message-id=<one@src.test>
Nov  4 04:00:05 mx1 postfix/qmgr[1]: DDDD4: from=<eve@other.test>, size=4, nrcpt=1 (queue active)
Nov  4 04:00:06 mx1 postfix/smtp[1]: DDDD4: to=<bob@dest.test>, {SENT} message-id=<one@src.test> ann@src.test)
Nov  4 05:00:00 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from x.test[192.0.2.66]: 554 5.7.1\
 <x.test[192.0.2.66]>: Client host rejected: Access denied; from=<spam@bad.test> to=<bob@dest.test> proto=ESMTP helo=<x>
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "mail.log"
    found.write_text(POSTFIX)
    return found


def search(text: str, what: str, by: str | None = None, *, mta: str = "postfix", top: int = 50) -> FoundMessages | None:
    """What a search finds in a log."""

    def read(about: Search) -> Iterator[Entry]:
        reader = LogReader("log", parser(mta), about=about)
        yield from reader.read(text)

    return find_messages(readings(what, By(by) if by else None), read, top)


def queue_ids(found: FoundMessages | None) -> list[str]:
    return [",".join(message.queue_ids) for message in found.messages] if found else []


@pytest.mark.parametrize(
    ("what", "kinds", "text"),
    [
        ("4A1B2C3D57", ["queue-id"], "4A1B2C3D57"),
        ("1xVsuB-0001DU-2n", ["queue-id"], "1xVsuB-0001DU-2n"),
        ("Bob@Dest.test", ["recipient", "sender", "message-id"], "bob@dest.test"),
        ("@Dest.test", ["recipient", "sender"], "@dest.test"),
        (" <A.b@Dest.test> ", ["message-id"], "A.b@Dest.test"),
        ('"a b"@dest.test', ["recipient", "sender", "message-id"], '"a b"@dest.test'),
    ],
)
def test_the_form_of_a_text_decides_what_it_is(what: str, kinds: list[str], text: str) -> None:
    found = readings(what)
    assert [each.by for each in found] == kinds
    assert found[0].text == text


@pytest.mark.parametrize("by", [None, "reply", "recipient", "message-id", "queue-id"])
def test_there_must_be_something_to_look_for(by: str | None) -> None:
    with pytest.raises(ValueError, match="nothing to look for"):
        readings(" ", By(by) if by else None)


@pytest.mark.parametrize(
    ("what", "by", "found"),
    [
        ("cyd@dest.test", None, ["AAAA1,BBBB2"]),
        ("CYD@dest.test", "recipient", ["AAAA1,BBBB2"]),
        ("<cyd@dest.test>", "recipient", ["AAAA1,BBBB2"]),
        ("cyd@dest.test", "sender", []),
        ("yd@dest.test", None, []),
        ("sales@src.test", None, ["AAAA1,BBBB2"]),
        ("bob@dest.test", None, ["AAAA1,BBBB2", "DDDD4", ""]),
        ("@dest.test", None, ["AAAA1,BBBB2", "DDDD4", ""]),
        ("@est.test", None, []),
        ("ann@src.test", None, ["CCCC3"]),
        ("ann@src.test", "sender", ["AAAA1,BBBB2"]),
        ("eve@other.test", None, ["DDDD4"]),
        ("@other.test", None, ["DDDD4"]),
        ("spam@bad.test", None, [""]),
        ("<>", "sender", ["CCCC3"]),
        ("<one@src.test>", None, ["AAAA1,BBBB2"]),
        ("one@src.test", None, ["AAAA1,BBBB2"]),
        ("one@src.test", "message-id", ["AAAA1,BBBB2"]),
        ("<two@other.test>", None, ["DDDD4"]),
        ("<One@src.test>", None, []),
        ("mailbox full", "reply", ["BBBB2"]),
        ("access denied", "reply", [""]),
        ("message-id=<one@src.test>", "reply", ["DDDD4"]),
        ("no such words", "reply", []),
        ("BBBB2", "recipient", []),
    ],
)
def test_messages_of_postfix_are_found_by_what_is_known_of_them(what: str, by: str | None, found: list[str]) -> None:
    for text in (POSTFIX, POSTFIX.replace("Nov  4", "<22>Nov  4"), docker(POSTFIX)):
        got = queue_ids(search(text, what, by))
        assert [each.split(",")[-1] for each in got] == [each.split(",")[-1] for each in found]


def docker(text: str) -> str:
    """A log as Docker's json-file driver writes it, which escapes angle brackets."""
    lines = (json.dumps({"log": f"{line}\n", "stream": "stdout"}) for line in text.splitlines())
    return "".join(line.replace("<", "\\u003c").replace(">", "\\u003e") + "\n" for line in lines)


@pytest.mark.parametrize("queue_id", ["1xVsuB-0001DU-2n", "1abcDE-000000005vi-0003"])
def test_messages_of_exim_are_found_by_what_is_known_of_them(queue_id: str) -> None:
    other = queue_id[:-1] + "z"
    text = f"""\
2026-11-24 15:58:10 {queue_id} <= Ann@src.test H=mx.src.test [192.0.2.9] P=esmtps S=900 id=one@src.test\
 T="x id=two@src.test"
2026-11-24 15:58:11 {queue_id} => bob@dest.test <sales@src.test> R=dns T=smtp H=mx.dest.test [192.0.2.1]\
 C="250 OK id={other}"
2026-11-24 15:58:12 {queue_id} ** cyd@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1]: SMTP error from remote mail\
 server after RCPT TO:<cyd@dest.test>: 550 5.1.1 Unknown User S=1 id=two@src.test
2026-11-24 15:58:12 {queue_id} Completed
2026-11-24 15:59:10 {other} <= eve@other.test H=mx.other.test [192.0.2.7] P=esmtps S=900 id=two@src.test\
 T="S=1 id=one@src.test"
2026-11-24 15:59:12 {other} => bob@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1] C="250 OK id=one@src.test"
2026-11-24 15:59:12 {other} Completed
2026-11-24 16:00:00 H=(x) [192.0.2.66] F=<spam@bad.test> rejected RCPT <bob@dest.test>: relay not permitted
"""
    for what, by, found in [
        ("bob@dest.test", None, [queue_id, other, ""]),
        ("sales@src.test", None, [queue_id]),
        ("@src.test", "sender", [queue_id]),
        ("spam@bad.test", None, [""]),
        ("<one@src.test>", None, [queue_id]),
        ("<two@src.test>", None, [other]),
        ("two@src.test", None, [other]),
        ("unknown user", "reply", [queue_id]),
        ("RELAY not", "reply", [""]),
        ("three@src.test", None, []),
    ]:
        assert queue_ids(search(text, what, by, mta="exim")) == found, what


def test_messages_of_exchange_are_found_by_what_is_known_of_them(bouncemeter: Run) -> None:
    log = LOGS / "exchange" / "MSGTRK2026112409-1.LOG"
    for what, by, found in [
        ("bo@dest.example", "recipient", ["60129542144002"]),
        ("TEAM@contoso.example", "recipient", ["60129542144004"]),
        ("<b1@contoso.example>", "message-id", ["60129542144002"]),
        ("anna@contoso.example", "sender", ["60129542144002", "60129542144004"]),
        ("resolver.adr", "reply", ["60129542144004"]),
        ("Offer, version", "reply", []),
    ]:
        text = log.read_text("utf-8-sig")
        assert queue_ids(search(text, what, by, mta="exchange")) == found, what
    story = as_json(bouncemeter, "<b1@contoso.example>", log)["story"]
    assert {each["outcome"] for each in story["recipients"]} == {"delivered", "bounced", "expired"}


def test_what_a_filter_did_with_a_message_is_told() -> None:
    text = (LOGS / "postfix" / "filters.log").read_text()
    found = search(text, "@example.net")
    assert found is not None
    assert [message.outcomes for message in found.messages] == [
        {"bounced": 1},
        {"dropped": 3},
        {"dropped": 1},
        {"delivered": 1},  # another server may say what it likes
    ]
    assert found.messages[0].queue_ids == ["A1A1A1A101", "C0FFEE0000000010", "B1B1B1B1B1"]


def as_json(bouncemeter: Run, *words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bouncemeter("trace", "--format", "json", *words).stdout)
    return found


def test_one_message_is_shown_in_full_as_by_its_queue_id(bouncemeter: Run, log: Path) -> None:
    by_name = bouncemeter("trace", "AAAA1", log).stdout
    assert bouncemeter("trace", "cyd@dest.test", log).stdout == by_name
    assert bouncemeter("trace", "<one@src.test>", log).stdout == by_name
    assert "CCCC3, a bounce message" in by_name
    assert "stranger" not in by_name


def test_a_refusal_without_a_queue_id_is_shown_in_full(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("trace", "--by", "reply", "access DENIED", log).stdout
    assert printed.startswith("no queue ID: postfix on mx1, times in UTC")
    assert "Access denied" in printed
    found = as_json(bouncemeter, "--by", "reply", "access denied", log)
    assert [each["queue_id"] for each in found["story"]["entries"]] == [None]
    assert found["messages"][0]["outcomes"] == {"rejected": 1}


def test_several_messages_are_a_table(bouncemeter: Run, log: Path) -> None:
    assert (
        bouncemeter("trace", "bob@dest.test", log).stdout
        == """\
3 messages to bob@dest.test, times in UTC

time                  queue ID  sender          recipients        outcome    code
2026-11-04T03:00:01Z  AAAA1     Ann@src.test    bob@dest.test +1  bounced    5.2.2
2026-11-04T04:00:05Z  DDDD4     eve@other.test  bob@dest.test     delivered  2.0.0
2026-11-04T05:00:00Z  -         spam@bad.test   bob@dest.test     rejected   5.7.1

bouncemeter trace QUEUE_ID shows one of them in full.
"""
    )
    shown = on_a_terminal("trace", "bob@dest.test", str(log))
    assert "\x1b[1;31m5.2.2" in shown
    assert "AAAA1" in shown


def test_only_the_latest_messages_are_listed(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("trace", "--top", "2", "bob@dest.test", log).stdout
    assert printed.startswith("3 messages to bob@dest.test")
    assert "AAAA1" not in printed
    assert "And 1 more before these; --top 3 lists all." in printed
    found = as_json(bouncemeter, "--top", "1", "bob@dest.test", log)
    assert [each["queue_id"] for each in found["messages"]] == [None]
    assert (found["more"], found["story"]) == (2, None)


def test_the_keys_of_the_json_are_always_the_same(bouncemeter: Run, log: Path) -> None:
    several, one = (as_json(bouncemeter, what, log) for what in ("bob@dest.test", "cyd@dest.test"))
    assert list(several) == list(one) == ["by", "messages", "more", "story"]
    assert (several["by"], several["more"], several["story"]) == ("recipient", 0, None)
    assert several["messages"][0] == {
        "queue_id": "AAAA1",
        "queue_ids": ["AAAA1", "BBBB2"],
        "time": "2026-11-04T03:00:01Z",
        "mta": "postfix",
        "host": "mx1",
        "sender": "Ann@src.test",
        "recipients": [
            {"recipient": "bob@dest.test", "outcome": "bounced"},
            {"recipient": "cyd@dest.test", "outcome": "delivered"},
        ],
        "outcomes": {"bounced": 1},
        "code": "5.2.2",
        "text": "host mx.dest.test[192.0.2.1] said: 552 5.2.2 Mailbox FULL \x1b[31m",
    }
    assert list(several["messages"][2]) == list(several["messages"][0])
    assert one["story"] == as_json(bouncemeter, "AAAA1", log)
    assert [each["queue_id"] for each in one["messages"]] == ["AAAA1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["x@y.test"], "no message to x@y.test, or from x@y.test, or with the Message-ID <x@y.test>"),
        (["<x@y.test>"], "no message with the Message-ID <x@y.test>"),
        (["--by", "sender", "x@y.test"], "no message from x@y.test"),
        (["--by", "reply", "No such"], "no message with a reply or error that contains 'no such'"),
        (["--by", "queue-id", "x@y.test"], "no line about queue ID x@y.test"),
    ],
)
def test_what_is_not_found_is_named_in_one_sentence(
    bouncemeter: Run, log: Path, words: list[str], sentence: str
) -> None:
    done = bouncemeter("trace", *words, log, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"bouncemeter: {log}: {sentence}\n")


def test_wrong_arguments_of_a_search_are_explained(bouncemeter: Run, log: Path) -> None:
    done = bouncemeter("trace", "--by", "reply", " ", log, check=False)
    assert (done.returncode, done.stderr) == (2, "bouncemeter: there is nothing to look for in ''\n")
    assert bouncemeter("trace", "bob@dest.test", "-", check=False, stdin=b"").returncode == 2
    assert bouncemeter("trace", "--by", "subject", "x", log, check=False).returncode == 2


def test_compressed_logs_are_searched_in_a_period(bouncemeter: Run, tmp_path: Path) -> None:
    old = tmp_path / "mail.log.1.gz"
    old.write_bytes(gzip.compress(POSTFIX.replace("Nov  4", "2026-11-04").replace("04 0", "04T0").encode()))
    found = as_json(bouncemeter, "--since", "2026-11-04T04:30", "bob@dest.test", tmp_path)
    assert [each["sender"] for each in found["messages"]] == ["spam@bad.test"]
    found = as_json(bouncemeter, "--until", "2026-11-04T04:30", "bob@dest.test", tmp_path)
    assert [each["queue_id"] for each in found["messages"]] == ["AAAA1", "DDDD4"]


def test_a_parser_that_fails_on_a_message_id_loses_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("bouncemeter.postfix._Reader.message_id", fails)
    assert queue_ids(search(POSTFIX, "cyd@dest.test")) == ["AAAA1,BBBB2"]
    assert search(POSTFIX, "<one@src.test>") is None


def test_of_many_messages_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "MAX_FOUND", 30)
    text = "".join(
        f"Nov  4 03:00:{number:02} mx1 postfix/smtp[1]: A{number:04}: to=<bob@dest.test>, {SENT})\n"
        for number in range(50)
    )
    found = search(text, "bob@dest.test", top=5)
    assert found is not None
    assert found.is_limited
    assert found.more == 45
    assert queue_ids(found) == [f"A{number:04}" for number in range(45, 50)]


ADDRESSES = st.sampled_from(["bob@dest.test", "ann@src.test", "BOB@dest.test", "x+bob@dest.test", '"b b"@dest.test'])


@given(st.lists(st.tuples(ADDRESSES, ADDRESSES), min_size=1, max_size=40), ADDRESSES)
def test_a_search_finds_the_messages_that_reading_everything_finds(mail: list[tuple[str, str]], asked: str) -> None:
    lines = []
    for number, (sender, recipient) in enumerate(mail):
        lines += [
            f"Nov  4 03:00:00 mx1 postfix/qmgr[1]: A{number:04}: from=<{sender}>, size=4, nrcpt=1 (queue active)",
            f"Nov  4 03:00:01 mx1 postfix/smtp[1]: A{number:04}: to=<{recipient}>, {SENT} {sender}: queued as A0001)",
        ]
    text = "".join(f"{line}\n" for line in lines)
    for by, place in (("sender", 0), ("recipient", 1)):
        expected = [f"A{number:04}" for number, each in enumerate(mail) if each[place].lower() == asked.lower()]
        for log in (text, docker(text)):
            assert queue_ids(search(log, asked, by)) == expected


LINE_BY_LINE = sorted([*LOGS.glob("postfix/*.log"), *LOGS.glob("exim/*.log")])


@pytest.mark.parametrize("log", LINE_BY_LINE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_skipping_lines_hides_no_outcome(log: Path) -> None:
    """Every outcome is found by its own recipient, sender and text, though the parsers change some of them."""
    text = log.read_text(errors="backslashreplace")

    def read(about: Search) -> list[Entry]:
        return list(LogReader("log", parser(log.parent.name), about=about).read(text))

    entries = read(Search())
    for by, values in {
        By.RECIPIENT: {entry.recipient for entry in entries},
        By.SENDER: {entry.sender for entry in entries},
        By.REPLY: {entry.text for entry in entries if isinstance(entry, Event)},
    }.items():
        for value in values - {None, ""}:
            sought = readings(value or "", by)
            expected = [entry for entry in entries if sought[0].matches(entry)]
            assert expected or value != (value or "").strip()
            assert [entry for entry in read(search_for(sought)) if sought[0].matches(entry)] == expected, value


@given(st.sets(st.from_regex(r"[0-9A-F]{5,8}", fullmatch=True), max_size=3 * FEW), st.sampled_from([": ", "=", ")"]))
def test_lines_without_the_words_are_skipped(words: set[str], end: str) -> None:
    others = "no words\nxyz=<\n"
    text = "".join(f"x {word}{end}y\n" for word in sorted(words))
    assert Search(frozenset(words)).lines_of(text + others) == (text if words else others)


@given(st.text())
def test_the_part_that_is_looked_for_is_in_the_text_as_it_is(text: str) -> None:
    line = json.dumps({"log": text}).replace("<", "\\u003c").replace("+", "\\u002b")
    assert all(part in text and part in line for part in unescaped(text))
