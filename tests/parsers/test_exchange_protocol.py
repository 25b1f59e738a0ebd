"""SMTP protocol logs of Exchange: which command a reply answers, and to which message it belongs."""

from __future__ import annotations

import pytest
from bouncemeter.event import Entry, Event, Outcome, Stage
from bouncemeter.plugin import parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger

SENT, HOLD, FAIL = Outcome.DELIVERED, Outcome.DEFERRED, Outcome.BOUNCED
COLUMNS = "date-time,connector-id,session-id,sequence-number,local-endpoint,remote-endpoint,event,data,context"


def dialogue(*rows: str, kind: str = "Send", session: str = "08DE2B4FA5C7E001") -> list[Event]:
    """The outcomes of a session, from rows such as `> RCPT TO:<a@dest.test>`; `* data | context` is information."""
    read = parser("exchange").reader()
    read(f"#Log-type: SMTP {kind} Protocol Log")
    read(f"#Fields: {COLUMNS}")
    found = list[Entry]()
    for number, row in enumerate(rows):
        data, _, context = row[2:].partition(" | ")
        quoted = data.replace('"', '""')
        start = f"2026-11-24T09:10:{number:02}.000Z,C,{session},{number},10.0.0.11:40001,192.0.2.25:25"
        found += read(f'{start},{row[0]},"{quoted}",{context}')
    return [each for each in found if isinstance(each, Event)]


def answers(events: list[Event]) -> list[tuple[Outcome, str | None, str]]:
    return [(each.outcome, each.recipient, str(each.code)) for each in events]


MAIL = ("+ ", "< 220 mx.dest.test ESMTP", "> EHLO ex01.a.test")
HELLO = ("< 250-mx.dest.test Hello", "< 250-PIPELINING", "< 250 HELP")
START = "> MAIL FROM:<ann@a.test>"
THREE = (START, *(f"> RCPT TO:<{name}@dest.test>" for name in "abc"), "< 250 2.1.0 Ok")


@pytest.mark.parametrize(
    "middle", ["550-5.1.1 ask 550 others", "550-5.1.1 see 550 5.1.1 below", "550-", "550-550 5.7.1 x"]
)
@pytest.mark.parametrize("first", ["550-5.1.1 unknown", "550-5.1.1 the 550 box is full"])
def test_a_line_that_looks_like_the_last_one_does_not_shift_the_answers(first: str, middle: str) -> None:
    answer = (f"< {first}", f"< {middle}", "< 550 5.1.1 end")
    rest = ("< 250 2.1.5 Ok", "< 452 4.2.2 full", "> DATA", "< 354 go on", "< 250 2.0.0 Ok", "- ")
    events = dialogue(*MAIL, *HELLO, *THREE, *answer, *rest)
    assert answers(events) == [
        (FAIL, "a@dest.test", "5.1.1"),
        (HOLD, "c@dest.test", "4.2.2"),
        (SENT, "b@dest.test", "2.0.0"),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("< 421 4.7.0 too many connections",), [(HOLD, "b@dest.test", "4.7.0")]),
        (("< 421 4.7.0 too many connections", "> QUIT"), [(HOLD, "b@dest.test", "4.7.0")]),
        (("< 550 5.7.1 blocked",), [(FAIL, "b@dest.test", "5.7.1")]),
        (("< 250 2.1.0 Ok",), [(HOLD, "b@dest.test", "4.0.0")]),
        ((), [(HOLD, "b@dest.test", "4.0.0")]),
    ],
)
def test_recipients_without_an_answer_share_that_of_the_connection(
    answer: tuple[str, ...], expected: list[tuple[Outcome, str, str]]
) -> None:
    events = dialogue(*MAIL, *HELLO, START, "> RCPT TO:<b@dest.test>", *answer, "- ")
    assert answers(events) == expected


def test_a_reply_whose_lines_are_all_in_one_row_is_whole() -> None:
    hello = ("< 250-mx.dest.test Hello 250-PIPELINING 250 HELP",)
    refused = "< 550-5.1.1 The account does not exist. 550-5.1.1 Check the spelling. 550 5.1.1 https://dest.test/"
    events = dialogue(*MAIL, *hello, *THREE, refused, "< 250 2.1.5 Ok", "< 452 4.2.2 full", "> QUIT", "< 221 Bye")
    assert answers(events) == [(FAIL, "a@dest.test", "5.1.1"), (HOLD, "c@dest.test", "4.2.2")]


@pytest.mark.parametrize(
    ("row", "identity"),
    [
        ("*  | sending message with RecordId 601 and InternetMessageId <m1@a.test>", "601 <m1@a.test>"),
        ("*  | sending message with RecordId 601", None),
        ("* 601 | sending message", None),
    ],
)
def test_several_attempts_of_one_record_are_one_message(row: str, identity: str | None) -> None:
    ledger, counters = Ledger(), Counters()
    for session, reply in (("A1", "< 451 4.7.1 later"), ("A2", "< 451 4.7.1 later"), ("A3", "< 250 2.1.5 Ok")):
        rows = (row, START, "< 250 Ok", "> RCPT TO:<a@dest.test>", reply, "> DATA", "< 354 go", "< 250 Ok", "- ")
        events = dialogue(*rows, session=session)
        assert {(each.queue_id, each.identity) for each in events} == {("601", identity)}
        for event in events:
            counters.count(event, ledger.facts(event))
    assert {labels[1]: number for labels, number in counters.recipients.values.items()} == {"delivered": 1}
    assert sum(counters.bounces.values.values()) == 1


def test_equal_records_of_two_servers_are_different_messages() -> None:
    ledger = Ledger()
    facts = []
    for name in ("m1", "m2"):
        row = f"*  | sending message with RecordId 7 and InternetMessageId <{name}@a.test>"
        rows = (row, START, "< 250 Ok", "> RCPT TO:<a@dest.test>", "< 550 5.1.1 no")
        facts += [fact for event in dialogue(*rows) for fact in ledger.facts(event)]
    assert len(facts) == 2


def test_a_sender_that_is_refused_before_the_recipients_are_sent_leaves_no_recipient() -> None:
    """docs/exchange.md says so."""
    assert dialogue(*MAIL, *HELLO, START, "< 550 5.7.1 you are blocked", "> QUIT", "< 221 Bye", "- ") == []


def test_a_sender_that_is_refused_after_the_recipients_were_sent_decides_for_all() -> None:
    answer = ("< 550 5.7.1 you are blocked", *["< 503 5.5.1 no sender"] * 3)
    assert answers(dialogue(*MAIL, *HELLO, *THREE[:4], *answer)) == [(FAIL, f"{n}@dest.test", "5.7.1") for n in "abc"]


@pytest.mark.parametrize(
    ("rows", "stage"),
    [
        (("> 421 4.3.2 Service not available",), Stage.CONNECT),
        (("< EHLO x", "> 501 5.5.4 Invalid domain name"), Stage.HELO),
        (("< MAIL FROM:<x@spam.test>", "> 550 5.7.1 blocked"), Stage.MAIL),
        (("< RCPT TO:<a@a.test>", "> 550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"), Stage.RCPT),
        (("< DATA", "> 354 Start mail input; end with <CRLF>.<CRLF>", "> 550 5.7.1 Message rejected"), Stage.DATA),
        (("< BDAT 100 LAST", "> 550 5.7.1 Message rejected"), Stage.DATA),
        (("< BDAT 100", "> 550 5.7.1 Message rejected"), Stage.DATA),
    ],
)
def test_our_own_refusal_has_a_stage(rows: tuple[str, ...], stage: Stage) -> None:
    events = dialogue("+ ", *rows, kind="Receive")
    assert [(each.outcome, each.stage) for each in events] == [(Outcome.REJECTED, stage)]


@pytest.mark.parametrize(
    "rows",
    [
        ("< AUTH LOGIN", "> 334 <authentication response>", "> 334 <authentication response>", "> 535 5.7.3 no"),
        ("< AUTH NTLM", "> 504 5.7.4 Unrecognized authentication type"),
        ("> 535 5.7.3 Authentication unsuccessful",),
        ("< AUTH LOGIN", "> 454 4.7.0 Temporary authentication failure"),
    ],
)
def test_a_failed_login_is_not_refused_mail(rows: tuple[str, ...]) -> None:
    assert dialogue("+ ", *rows, kind="Receive") == []


def test_probes_are_not_mail() -> None:
    probe = ("> MAIL FROM:<HealthMailbox6d8f2b1@a.test>", "< 250 Ok", "> RCPT TO:<a@dest.test>", "< 550 5.1.1 no")
    assert dialogue(*MAIL, *HELLO, *probe) == []
    to_probe = ("< MAIL FROM:<x@a.test>", "> 250 Ok", "< RCPT TO:<extest_4f2a1b@a.test>", "> 550 5.1.1 no")
    assert dialogue(*to_probe, kind="Receive") == []


def test_a_message_of_several_in_a_session_has_its_own_record() -> None:
    one = "*  | sending message with RecordId 601 and InternetMessageId <m1@a.test>"
    two = "*  | sending message with RecordId 602 and InternetMessageId <m2@a.test>"
    events = dialogue(
        *MAIL, *HELLO, one, *THREE[:2], "< 250 Ok", "< 550 5.1.1 no", two, START, "> RCPT TO:<d@dest.test>", "< 250 Ok",
        "< 550 5.1.1 no",
    )  # fmt: skip
    assert [(each.queue_id, each.recipient) for each in events] == [("601", "a@dest.test"), ("602", "d@dest.test")]
