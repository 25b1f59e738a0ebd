"""What Postfix refuses, in each form of a line, with the stage, the code and whom it is about."""

from __future__ import annotations

import pytest
from bouncemeter.event import Event, Stage
from bouncemeter.knowledge.reasons import reason_of
from bouncemeter.plugin import BlockReader, UnparsedLineError
from bouncemeter.postfix import PARSER

START = "Nov 25 10:00:00 mx "


def entries(message: str, program: str = "postfix/smtpd") -> list[object]:
    """The entries of a message; the same alone and in a block."""
    line = f"{START}{program}[9]: {message}"
    alone = list(PARSER.reader()(line))
    reader = PARSER.reader()
    assert isinstance(reader, BlockReader)
    assert list(reader.block(line + "\n")) == alone
    return list(alone)


def refused(message: str, program: str = "postfix/smtpd") -> Event:
    (event,) = entries(message, program)
    assert isinstance(event, Event)
    assert event.outcome == "rejected"
    return event


@pytest.mark.parametrize(
    ("message", "stage", "reply_code"),
    [
        ("Connection rate limit exceeded: 61 from unknown[192.0.2.9] for service smtp", Stage.CONNECT, 421),
        ("Connection concurrency limit exceeded: 51 from unknown[192.0.2.9] for service smtp", Stage.CONNECT, 421),
        ("New TLS session rate limit exceeded: 7 from unknown[192.0.2.9] for service smtps", Stage.HELO, 421),
        ("AUTH command rate limit exceeded: 7 from unknown[192.0.2.9] for service smtp", Stage.HELO, 450),
        ("AUTH rate limit exceeded: 7 from unknown[192.0.2.9] for service smtp", Stage.HELO, 450),
        ("Message delivery request rate limit exceeded: 7 from unknown[192.0.2.9] for service smtp", Stage.MAIL, 450),
        ("Recipient address rate limit exceeded: 7 from unknown[192.0.2.9] for service smtp", Stage.RCPT, 450),
    ],
)
def test_a_client_over_a_limit_is_refused(message: str, stage: Stage, reply_code: int) -> None:
    event = refused(f"warning: {message}")
    assert (event.stage, event.reply_code, str(event.code)) == (stage, reply_code, "4.7.0")
    assert (event.relay, event.queue_id, event.recipient) == ("unknown[192.0.2.9]", None, None)
    assert event.text == message.partition(":")[0]


@pytest.mark.parametrize(
    ("message", "facts"),
    [
        (
            (
                "NOQUEUE: reject: VRFY from unknown[192.0.2.9]: 450 4.1.1 <x@example.org>: Recipient address"
                " rejected: User"
                " unknown in local recipient table; to=<x@example.org> proto=SMTP helo=<h>"
            ),
            (Stage.RCPT, "4.1.1", None, None, "x@example.org"),
        ),
        (
            (
                "NOQUEUE: reject: ETRN from unknown[192.0.2.9]: 554 5.7.1 <x.test>: Etrn command rejected:"
                " Access denied;"
                " proto=SMTP helo=<h>"
            ),
            (Stage.HELO, "5.7.1", None, None, None),
        ),
        (
            (
                "NOQUEUE: reject: CONNECT from unknown[192.0.2.9]: 554 5.7.1 <unknown[192.0.2.9]>: Client host"
                " rejected:"
                " Access denied; proto=SMTP"
            ),
            (Stage.CONNECT, "5.7.1", None, None, None),
        ),
        (
            (
                "4B0000000F: reject: BDAT from h[192.0.2.9]: 552 5.3.4 Message size exceeds fixed limit;"
                " from=<a@example.net>"
                " to=<b@example.org> proto=ESMTP helo=<h>"
            ),
            (Stage.DATA, "5.3.4", "4B0000000F", "a@example.net", "b@example.org"),
        ),
        (
            (
                "4B0000000F: reject: DATA from h[192.0.2.9]: 503 5.5.0 <DATA>: Data command rejected: Improper"
                " use of SMTP"
                " command pipelining; from=<> to=<b@example.org> proto=ESMTP helo=<h>"
            ),
            (Stage.DATA, "5.5.0", "4B0000000F", "", "b@example.org"),
        ),
        (
            (
                "4B0000000F: reject: END-OF-MESSAGE from h[192.0.2.9]: 554 5.7.1 <END-OF-MESSAGE>: End-of-data"
                " rejected:"
                " no; from=<a@example.net> to=<b@example.org> proto=ESMTP helo=<h>"
            ),
            (Stage.DATA, "5.7.1", "4B0000000F", "a@example.net", "b@example.org"),
        ),
        (
            (
                "NOQUEUE: milter-reject: MAIL from h[192.0.2.9]: 451 4.7.1 try again later;"
                " from=<a@example.net> proto=ESMTP"
                " helo=<h>"
            ),
            (Stage.MAIL, "4.7.1", None, "a@example.net", None),
        ),
        (
            (
                "4B0000000F: milter-reject: END-OF-MESSAGE from localhost[127.0.0.1]: 5.7.1 no; from=<a@example.net>"
                " to=<b@example.org>"
            ),
            (Stage.DATA, "5.7.1", "4B0000000F", "a@example.net", "b@example.org"),
        ),
        (
            (
                "NOQUEUE: reject: RCPT from h[192.0.2.9]: 550 5.1.1 <b@example.org>: Recipient address"
                " rejected: undeliverable"
                " address: host mx[192.0.2.1] said: 550 5.1.1 <c@d.test>: Recipient address rejected: User"
                " unknown (in reply"
                " to RCPT TO command); from=<a b@example.net> to=<b@example.org> proto=ESMTP helo=<h>"
            ),
            (Stage.RCPT, "5.1.1", None, "a b@example.net", "b@example.org"),
        ),
    ],
)
def test_a_refusal_says_whom_it_is_about(message: str, facts: tuple[object, ...]) -> None:
    event = refused(message)
    assert (event.stage, str(event.code), event.queue_id, event.sender, event.recipient) == facts


@pytest.mark.parametrize("word", ["virus", "zen.spamhaus.org", "spam", "mailbox full", "a> virus <b", "user unknown"])
@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("504 5.5.2 <{}>: Helo command rejected: need fully-qualified hostname", "protocol"),
        ("554 5.7.1 <{}[192.0.2.9]>: Client host rejected: Access denied", "policy"),
        ("554 5.7.1 <{}@example.net>: Relay access denied", "relay_denied"),
    ],
)
def test_the_client_s_words_decide_no_reason(word: str, verdict: str, reason: str) -> None:
    text = verdict.format(word)
    event = refused(f"NOQUEUE: reject: RCPT from unknown[192.0.2.9]: {text}; proto=SMTP helo=<{word}>")
    assert reason_of(event) == reason
    assert event.text is not None
    assert event.text.endswith(text.rpartition(">: ")[2])


def test_a_listed_name_decides_nothing_beside_its_list() -> None:
    event = refused(
        "NOQUEUE: reject: RCPT from unknown[192.0.2.9]: 554 5.7.1 Service unavailable; Helo command [virus.example.net]"
        " blocked using dbl.example.org; from=<a@example.net> to=<b@example.org> proto=SMTP helo=<virus.example.net>"
    )
    assert event.text == "Service unavailable; Helo command [<virus.example.net>] blocked using dbl.example.org"
    assert reason_of(event) == "blocklisted"


def test_a_checked_address_keeps_the_other_server_s_reply() -> None:
    text = (
        "<b@example.org>: Recipient address rejected: undeliverable address: host mx[192.0.2.1] said: 550 5.1.1"
        " <b@example.org>: Recipient address rejected: mailbox full (in reply to RCPT TO command)"
    )
    event = refused(f"NOQUEUE: reject: RCPT from h[192.0.2.9]: 550 5.1.1 {text}; from=<> to=<b@example.org> proto=SMTP")
    assert event.text == text


@pytest.mark.parametrize(
    ("message", "recipient", "original"),
    [
        (
            (
                "4B0000000F: to=u@example.org, relay=mx.example.org[192.0.2.1]:25, delay=9, delays=9/0/0/0, dsn=5.1.1,"
                " status=bounced (no)"
            ),
            "u@example.org",
            None,
        ),
        (
            "4B0000000F: to=u@example.org, orig_to=v@example.org, relay=none, delay=9, dsn=5.1.1, status=bounced (no)",
            "u@example.org",
            "v@example.org",
        ),
    ],
)
def test_a_recipient_without_brackets_is_read(message: str, recipient: str, original: str | None) -> None:
    (event,) = entries(message, "postfix/smtp")
    assert isinstance(event, Event)
    assert (event.outcome, str(event.code), event.recipient, event.original_recipient) == (
        "bounced",
        "5.1.1",
        recipient,
        original,
    )


@pytest.mark.parametrize(
    "message",
    [
        "4B0000000F: to=<u@example.org>, relay=none, delay=9, status=",
        "4B0000000F: to=u@example.org, delay=9, status=bounced (no)",
        "4B0000000F: from=<a@example.net>, status=abandoned, returned to sender",
        "400000ABCz: to=<u@example.org>, relay=none, delay=9, delays=9/0/0/0, dsn=5.1.1, status=bounced (no)",
        "4B-1.x: to=<u@example.org>, relay=none, delay=9, delays=9/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)",
        "400000ABCz: milter-reject: something new",
        "NOQUEUE: reject: something new",
        "NOQUEUE: milter-reject: something new",
        "warning: Connection rate limit exceeded: many",
    ],
)
def test_an_outcome_of_an_unknown_form_is_unparsed(message: str) -> None:
    line = f"{START}postfix/smtpd[9]: {message}"
    with pytest.raises(UnparsedLineError, match="it records an outcome in an unknown form"):
        PARSER.reader()(line)
    reader = PARSER.reader()
    assert isinstance(reader, BlockReader)
    assert reader.block(line + "\n").unparsed == 1


@pytest.mark.parametrize(
    "message",
    [
        "too many errors after RCPT from unknown[192.0.2.9]",
        "improper command pipelining after EHLO from unknown[192.0.2.9]: QUIT",
        "lost connection after DATA from unknown[192.0.2.9]",
        "NOQUEUE: reject_warning: RCPT from unknown[192.0.2.9]: 554 5.7.1 no; proto=SMTP",
        (
            "4B0000000F: warning: header Subject: to=<x>, relay=none, status=bounced (no) from"
            " h[192.0.2.9]; from=<a@b.test>"
        ),
        "4B0000000F: discard: RCPT from unknown[192.0.2.9]: <b@example.org>: Recipient address; proto=SMTP",
        "warning: unknown[192.0.2.9]: SASL LOGIN authentication failed: authentication failure",
    ],
)
def test_what_refuses_no_mail_is_of_no_interest(message: str) -> None:
    assert entries(message) == []


def test_a_client_that_logs_in_names_no_earlier_queue_id() -> None:
    (step,) = entries("4B0000000F: client=h[192.0.2.9], sasl_method=PLAIN, sasl_sender=x, orig_queue_id=4B00000001")
    assert step is not None
    assert getattr(step, "related", "") is None
