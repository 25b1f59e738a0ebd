"""What a remote server or a sender writes stays text: it forges no field, loses no line, and slows no parser down."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from bouncemeter.event import Event, Outcome, StepKind
from bouncemeter.exchange import PARSER as EXCHANGE
from bouncemeter.exim import PARSER as EXIM
from bouncemeter.grammar import quoted_local_part
from bouncemeter.knowledge.reasons import reason_of
from bouncemeter.plugin import Parser, UnparsedLineError
from bouncemeter.postfix import PARSER as POSTFIX
from hypothesis import assume, example, given
from hypothesis import strategies as st

PARSERS: list[Parser] = [POSTFIX, EXIM, EXCHANGE]

# Pieces that look like fields of a log, so that random text is likely to imitate them.
PIECE_TEXTS = [
    *(
        "to=<x@forged.test>, ",
        "relay=none, ",
        "dsn=2.0.0, ",
        "status=sent (",
        ")",
        "(",
        ", ",
        " ",
        ": ",
        ";",
        ",",
        "\\n",
    ),
    *(
        " => x@forged.test",
        " ** ",
        " R=r",
        " T=t",
        " H=h [1.1.1.1]",
        ' C="250 ok"',
        " Completed",
        '"',
        "<",
        ">",
        "}",
    ),
    *(
        "550 5.1.1",
        "250 2.0.0 ok",
        "queued as 4A1B2C3D62",
        "retry timeout exceeded",
        " DT=0.1s",
        "};{LED=250 2.0.0",
    ),
    *(
        "}];[{LED=450 4.1.1",
        "status=expired, ",
        "from=<>",
        "\x1b[31m",
        "é",
        "\u2028",
        "SMTP error after x: 250 2.0.0 ",
    ),
    *(
        ' <"',
        '"@x>',
        '\\"',
        '": 550 5.1.1 x',
        '" QT=9d',
        " F=<x@forged.test>",
        " rejected RCPT <x@forged.test>: 5.1.1 no",
        " temporarily rejected MAIL <x@forged.test>",
        ") [203.0.113.1] ",
        " U=root",
        " defer (-1): ",
    ),
]
PIECES = st.sampled_from(PIECE_TEXTS)
HOSTILE = st.lists(st.one_of(PIECES, st.text(st.characters(exclude_characters="\n\r"), max_size=10)), max_size=12).map(
    "".join
)


def one(parser: Parser, line: str) -> Event:
    """The only event of a line."""
    (event,) = parser.reader()(line)
    assert isinstance(event, Event)
    return event


def facts(event: Event) -> tuple[Outcome, str, str | None, str | None, str | None]:
    return event.outcome, str(event.code), event.queue_id, event.recipient, event.relay


@given(HOSTILE)
def test_a_reply_cannot_change_a_postfix_line(text: str) -> None:
    line = (
        "Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=<a@dest.test>, relay=mx.test[192.0.2.1]:25, delay=1,"
        f" delays=0/0/0/1, dsn=5.7.1, status=bounced (host mx.test[192.0.2.1] said: 550 5.7.1 {text})"
    )
    event = one(POSTFIX, line)
    assert facts(event) == (Outcome.BOUNCED, "5.7.1", "BD2052108B2", "a@dest.test", "mx.test[192.0.2.1]:25")
    assert event.reply_code == 550
    assert event.text == f"host mx.test[192.0.2.1] said: 550 5.7.1 {text}"


@given(HOSTILE)
def test_a_reply_cannot_change_an_exim_failure(text: str) -> None:
    line = (
        "2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@dest.test R=dns T=smtp H=mx.test [192.0.2.1]: SMTP error from remote"
        f" mail server after RCPT TO:<a@dest.test>: 550 5.7.1 {text}"
    )
    event = one(EXIM, line)
    assert facts(event) == (Outcome.BOUNCED, "5.7.1", "1xVsuB-0001DU-2n", "a@dest.test", "mx.test [192.0.2.1]")


@given(HOSTILE)
def test_a_reply_cannot_change_an_exim_deferral(text: str) -> None:
    line = (
        "2026-11-24 15:58:10 1xVsuB-0001DU-2n == a@dest.test R=dns T=smtp defer (-44) H=mx.test [192.0.2.1]: SMTP error"
        f" from remote mail server after RCPT TO:<a@dest.test>: 451 4.7.1 {text}"
    )
    event = one(EXIM, line)
    assert facts(event) == (Outcome.DEFERRED, "4.7.1", "1xVsuB-0001DU-2n", "a@dest.test", "mx.test [192.0.2.1]")


@given(HOSTILE)
def test_a_reply_cannot_change_an_exim_delivery(text: str) -> None:
    escaped = f"250 2.0.0 {text}".replace("\\", "\\\\").replace('"', '\\"')
    line = f'2026-11-24 15:58:10 1xVsuB-0001DU-2n => a@dest.test R=dns T=smtp H=mx.test [192.0.2.1] C="{escaped}" QT=2s'
    event = one(EXIM, line)
    assert facts(event) == (Outcome.DELIVERED, "2.0.0", "1xVsuB-0001DU-2n", "a@dest.test", "mx.test [192.0.2.1]")
    assert event.delay == 2


@given(HOSTILE)
def test_a_reply_cannot_change_an_exchange_row(text: str) -> None:
    status = f"[{{LRT=}};{{LED=550 5.7.1 {text}}};{{FQDN=mx.test}};{{IP=192.0.2.1}}]".replace('"', '""')
    line = (
        "2026-11-24T09:00:00.000Z,,,,EX01,,C,SMTP,FAIL,601,<m@x>,n,a@dest.test,"
        f'"{status}",1,1,,,subject,s@x,s@x,,,,,,,Email,l,15.2'
    )
    event = one(EXCHANGE, line)
    assert facts(event) == (Outcome.BOUNCED, "5.7.1", "601", "a@dest.test", "mx.test[192.0.2.1]")


@given(HOSTILE, HOSTILE, HOSTILE)
def test_a_client_a_message_id_or_a_subject_cannot_change_an_exchange_row(
    host: str, message: str, subject: str
) -> None:
    host, message, subject = (text.replace('"', '""') for text in (host, message, subject))
    line = (
        f'2026-11-24T09:00:00.000Z,192.0.2.66,"{host}",,EX01,,EX01\\Default Frontend EX01,SMTP,FAIL,601,"{message}",n,'
        f'a@dest.test,550 5.7.1 no,1,1,,,"{subject}",s@x,s@x,,,,,,,Email,l,15.2'
    )
    event = one(EXCHANGE, line)
    assert (event.outcome, str(event.code), event.queue_id) == (Outcome.REJECTED, "5.7.1", "601")
    assert (event.host, event.recipient, event.text) == ("EX01", "a@dest.test", "550 5.7.1 no")


def quoted(local: str, domain: str) -> str:
    """An address as RFC 5321 writes it."""
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + f'"@{domain}'


LOCAL_PART = (
    st.lists(st.one_of(PIECES, st.sampled_from(list("abc .,<>@()[]:;=/\\"))), min_size=1, max_size=6)
    .map("".join)
    .filter(lambda text: text.isascii() and text.isprintable() and len(text) <= 60)
)


@given(LOCAL_PART)
def test_a_recipient_cannot_change_a_postfix_line(local: str) -> None:
    quoted = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"@dest.test'
    line = (
        f"Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=<{quoted}>, relay=mx.test[192.0.2.1]:25, delay=1,"
        " delays=0/0/0/1, dsn=5.1.1, status=bounced (host mx.test[192.0.2.1] said: 550 5.1.1 no)"
    )
    assert facts(one(POSTFIX, line)) == (Outcome.BOUNCED, "5.1.1", "BD2052108B2", quoted, "mx.test[192.0.2.1]:25")


def quoted_form(local: str) -> str:
    """An RFC 5321 quoted string."""
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


EXIM_OUTCOMES = {
    Outcome.DELIVERED: ("=>", ' C="250 2.0.0 ok" QT=3s', "2.0.0"),
    Outcome.BOUNCED: ("**", ": SMTP error from remote mail server after RCPT TO:<{}>: 550 5.1.1 no", "5.1.1"),
    Outcome.DEFERRED: ("==", ": SMTP error from remote mail server after RCPT TO:<{}>: 450 4.7.1 no", "4.7.1"),
}


@pytest.mark.parametrize("outcome", EXIM_OUTCOMES)
@given(local=LOCAL_PART)
def test_a_recipient_cannot_change_an_exim_line(outcome: Outcome, local: str) -> None:
    quoted = quoted_form(local) + "@dest.test"
    flag, end, code = EXIM_OUTCOMES[outcome]
    line = (
        f"2026-11-24 15:58:10 1xVsuB-0001DU-2n {flag} {local.lower()}@dest.test <{quoted}> R=dns T=smtp"
        f"{' defer (-44)' if flag == '==' else ''} H=mx.test [192.0.2.1]{end.format(quoted)}"
    )
    event = one(EXIM, line)
    assert facts(event) == (outcome, code, "1xVsuB-0001DU-2n", quoted, "mx.test [192.0.2.1]")
    assert event.delay == (3 if flag == "=>" else None)


# A certificate's name: GnuTLS escapes quotes in it, OpenSSL does not but writes 255 characters at most.
NAME = HOSTILE.filter(lambda text: text.isascii() and text.isprintable()).map(lambda text: text[:200])
CERTIFICATES = NAME.map(lambda name: f"/CN={name}") | NAME.map(
    lambda name: "CN=" + name.replace("\\", "\\\\").replace('"', '\\"')
)


@pytest.mark.parametrize("outcome", EXIM_OUTCOMES)
@given(certificate=CERTIFICATES)
def test_a_servers_certificate_cannot_change_an_exim_line(outcome: Outcome, certificate: str) -> None:
    flag, end, code = EXIM_OUTCOMES[outcome]
    line = (
        f"2026-11-24 15:58:10 1xVsuB-0001DU-2n {flag} a@dest.test R=dns T=smtp"
        f"{' defer (-44)' if flag == '==' else ''} H=mx.test [192.0.2.1] X=TLS1.3:A:256"
        f' CV=no DN="{certificate}"{end.format("a@dest.test")}'
    )
    event = one(EXIM, line)
    assert facts(event) == (outcome, code, "1xVsuB-0001DU-2n", "a@dest.test", "mx.test [192.0.2.1]")
    assert event.delay == (3 if flag == "=>" else None)


@given(HOSTILE)
def test_a_reply_cannot_change_an_exim_line_with_a_certificate(text: str) -> None:
    for certificate in ("CN=mx.test", "/CN=mx.test"):
        line = (
            "2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@dest.test R=dns T=smtp H=mx.test [192.0.2.1] X=TLS1.3:A:256"
            f' CV=no DN="{certificate}": SMTP error from remote mail server after RCPT TO:<a@dest.test>: 550 5.7.1'
            f" {text}"
        )
        event = one(EXIM, line)
        assert facts(event) == (Outcome.BOUNCED, "5.7.1", "1xVsuB-0001DU-2n", "a@dest.test", "mx.test [192.0.2.1]")
        assert event.delay is None


def refusal_or_unparsed(line: str) -> Event | None:
    """The only event of a line, which is a refusal; None if the line cannot be read."""
    try:
        event = one(EXIM, line)
    except UnparsedLineError:
        return None
    assert event.outcome is Outcome.REJECTED
    return event


REFUSED = "F=<s@src.test> rejected RCPT <c@dest.test>: 5.7.1 no"


@given(certificate=CERTIFICATES)
def test_a_clients_certificate_cannot_change_an_exim_refusal(certificate: str) -> None:
    event = refusal_or_unparsed(f'2026-11-24 15:58:10 H=(h) [192.0.2.9] X=T CV=no DN="{certificate}" {REFUSED}')
    if event is not None:
        assert (str(event.code), event.recipient, event.text) == ("5.7.1", "c@dest.test", "5.7.1 no")
        assert (event.sender, event.relay) == ("s@src.test", "(h) [192.0.2.9]")


IDENTS = NAME.map(lambda text: text.strip()[:127]).filter(bool)


@given(ident=IDENTS)
@example(ident="to=<x@forged.test>,  F=<x@forged.test> H=h [1.1.1.1]")
@example(ident="x DS H=h [1.1.1.1]")
@example(ident="x P=esmtp H=h [1.1.1.1]")
@example(ident="x rejected RCPT <x@forged.test>: 5.1.1 no H=h [1.1.1.1]")
def test_an_ident_cannot_change_an_exim_refusal(ident: str) -> None:
    event = refusal_or_unparsed(f"2026-11-24 15:58:10 H=(h) [192.0.2.9] U={ident} {REFUSED}")
    if event is not None:
        assert (str(event.code), event.recipient, event.text) == ("5.7.1", "c@dest.test", "5.7.1 no")
        assert (event.sender, event.relay) == ("s@src.test", "(h) [192.0.2.9]")


@given(ident=IDENTS)
@example(ident="x F=<x@forged.test>")
@example(ident="x P=esmtp H=h [1.1.1.1]")
@example(ident="x F=x@forged.test H=h [1.1.1.1] P=esmtp rejected by local_scan(): 5.1.1 no")
@example(ident="x temporarily rejected by local_scan(): 5.1.1 no")
@example(ident="x F=<x@forged.test> temporarily rejected RCPT <x@forged.test>: 4.1.1 no")
def test_an_ident_cannot_change_a_refusal_by_local_scan(ident: str) -> None:
    event = refusal_or_unparsed(
        f"2026-11-24 15:58:10 1xVsuB-0001DU-2n F=s@src.test H=(h) [192.0.2.9] U={ident} P=esmtp rejected by"
        " local_scan(): 5.7.1 no"
    )
    if event is not None:
        assert facts(event) == (Outcome.REJECTED, "5.7.1", "1xVsuB-0001DU-2n", None, "(h) [192.0.2.9]")
        assert (event.sender, event.text) == ("s@src.test", "5.7.1 no")


NO_REFUSALS = [
    "SMTP connection from ({}) [192.0.2.9] closed by QUIT",
    "SMTP connection from ({}) [192.0.2.9] I=[192.0.2.1]:25 D=3s closed by DROP in ACL",
    "SMTP connection from ({}) [192.0.2.9] closed after SIGTERM",
    "SMTP connection from ({}) [192.0.2.9] lost",
    "SMTP connection from ({}) [192.0.2.9] lost D=1m5s",
    "SMTP connection from ({}) [192.0.2.9] lost while reading message data (header)",
    "SMTP connection from ({}) [192.0.2.9] (TCP/IP connection count = 1)",
    "H=({}) [192.0.2.9] incomplete transaction (QUIT) from <a@b.test>",
    "H=({}) [192.0.2.9] sender verify fail for <a@b.test>: no",
    "H=({}) [192.0.2.9] Warning: no",
    "H=(h) [192.0.2.9] U={} incomplete transaction (QUIT) from <a@b.test>",
    "H=(h) [192.0.2.9] U={} sender verify fail for <a@b.test>: no",
    "H=(h) [192.0.2.9] U={} Warning: no",
]


@pytest.mark.parametrize("line", NO_REFUSALS)
@given(name=IDENTS)
@example(name="x) [1.1.1.1] dropped by 'rcpt' ACL: 5.1.1 no (h")
@example(name="x) [1.1.1.1] F=<x@forged.test> rejected RCPT <x@forged.test>: 5.1.1 no (h")
@example(name="x) [1.1.1.1] rejected EHLO or HELO x: 5.1.1 no (h")
@example(name="x F=<x@forged.test> temporarily rejected RCPT <x@forged.test>: 4.1.1 no")
def test_a_clients_name_cannot_make_a_refusal(line: str, name: str) -> None:
    assume(not name.endswith(":"))  # `U=x rejected MAIL <a@b.test>: Warning: no` is also the line of a refusal
    with suppress(UnparsedLineError):
        assert not EXIM.reader()(f"2026-11-24 15:58:10 {line.format(name)}")


CLIENT = "mx.src.test (helo.test) [192.0.2.1]"


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        *(
            (f"H={CLIENT} F=<s@s.test> rejected RCPT <b@d.test>: {text}", (CLIENT, "s@s.test", "b@d.test", text))
            for text in (
                "550 blocked (see http://x) [ref 1] Warning: account closed",
                "x) [ sender verify fail for <q",
                "JunkMail rejected - (mail.x) [1.2.3.4]:1337 is in an RBL, Warning: see x",
                "550 x) [6.6.6.6] rejected RCPT <v@v>: no",
            )
        ),
        (
            f'H={CLIENT} F=<s@s.test> rejected RCPT "a) [6.6.6.6] rejected RCPT <v@v>" <b@d.test>: no',
            (CLIENT, "s@s.test", "b@d.test", "no"),
        ),
        (
            f"H={CLIENT} dropped by 'connect' ACL: ) [6.6.6.6] rejected RCPT <v@v>: no",
            (CLIENT, None, None, ") [6.6.6.6] rejected RCPT <v@v>: no"),
        ),
        (
            f'H={CLIENT} DN="/CN=x" F=<s@s.test> rejected RCPT <b@d.test>: 450 x rejected RCPT <v@v>: 550 no',
            (CLIENT, "s@s.test", "b@d.test", "450 x rejected RCPT <v@v>: 550 no"),
        ),
        (
            f'H={CLIENT} U=abc rejected MAIL "x rejected RCPT <v@v>: y" <b@d.test>: no',
            (CLIENT, None, None, "no"),
        ),
        (
            f"H={CLIENT} U=x dropped by 'connect' ACL F=<s@s.test> rejected RCPT <b@d.test>: no",
            (CLIENT, "s@s.test", "b@d.test", "no"),
        ),
    ],
)
def test_a_text_or_a_command_cannot_change_an_exim_refusal(line: str, facts: tuple[str | None, ...]) -> None:
    event = one(EXIM, f"2026-11-24 15:58:10 {line}")
    assert (event.relay, event.sender, event.recipient, event.text) == facts


@pytest.mark.parametrize(
    "line",
    [
        f"H={CLIENT} rejected VRFY x) [6.6.6.6] Warning: y: no",
        f'H={CLIENT} F=<s@s.test> rejected RCPT "a) [6.6.6.6] Warning: y" <b@d.test>: no',
        f"H={CLIENT} U=x F=<s@s.test> rejected RCPT <b@d.test>: 550 x Warning: y",
        f"H={CLIENT} U=x F=<s@s.test> rejected RCPT <b@d.test>: no incomplete transaction (QUIT) from <s@s.test>",
        f"H={CLIENT} U=x rejected sender verify fail for <s@s.test>: Unrouteable address",
        f'H={CLIENT} U=x sender verify fail for <" rejected RCPT <v@v>: no"@s.test>: Unrouteable address',
        f'H={CLIENT} U=x incomplete transaction (QUIT) from <" rejected after DATA: no"@s.test> for b@d.test',
        f"H={CLIENT} U=x Warning: y rejected RCPT <v@v>: no",
        f"H={CLIENT} U=x rejected Warning: hello",
        f"H={CLIENT} U=x dropped by 'connect' ACL Warning: hello",
        f'H={CLIENT} F=<" U= rejected RCPT <v@v>: x"@s.test> RCPT <b@d.test>: discarded by RCPT ACL',
    ],
)
def test_a_line_that_may_be_of_another_kind_is_unparsed(line: str) -> None:
    with pytest.raises(UnparsedLineError):
        EXIM.reader()(f"2026-11-24 15:58:10 {line}")


@given(greeting=NAME)
def test_a_greeting_cannot_change_an_exim_refusal(greeting: str) -> None:
    event = refusal_or_unparsed(f"2026-11-24 15:58:10 H=({greeting}) [192.0.2.9] {REFUSED}")
    if event is not None:
        assert (str(event.code), event.recipient, event.text) == ("5.7.1", "c@dest.test", "5.7.1 no")
        assert event.sender == "s@src.test"
        assert event.relay == f"({greeting}) [192.0.2.9]" or ")" in greeting


@given(local=LOCAL_PART)
def test_a_sender_cannot_change_an_exim_refusal(local: str) -> None:
    sender = quoted_form(local) + "@src.test"
    event = one(EXIM, f"2026-11-24 15:58:10 H=(h) [192.0.2.9] F=<{sender}> rejected RCPT <c@dest.test>: 5.7.1 no")
    assert facts(event) == (Outcome.REJECTED, "5.7.1", None, "c@dest.test", "(h) [192.0.2.9]")
    assert (event.sender, event.text) == (sender, "5.7.1 no")


@given(local=LOCAL_PART, comment=st.sampled_from(["", " (: 5.1.1 x)", " NOTIFY=NEVER"]))
def test_a_command_cannot_change_an_exim_refusal(local: str, comment: str) -> None:
    recipient = quoted_form(local) + "@dest.test"
    argument = f"<{recipient}>{comment}"
    for text in ("5.7.1 no", 'not "a" user'):
        event = one(
            EXIM, f"2026-11-24 15:58:10 H=(h) [192.0.2.9] F=<s@src.test> rejected RCPT {argument[:100]}: {text}"
        )
        assert (event.outcome, event.sender, event.relay) == (Outcome.REJECTED, "s@src.test", "(h) [192.0.2.9]")
        if len(argument) <= 100:
            assert (event.recipient, event.text) == (recipient, text)
        else:  # Exim cuts it off
            assert (event.recipient in (recipient, None), event.text in (text, None)) == (True, True)


@given(LOCAL_PART)
def test_a_sender_cannot_end_a_message(local: str) -> None:
    quoted = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"@src.test'
    line = f"Nov 24 15:55:42 mta postfix/qmgr[1]: BD2052108B2: from=<{quoted}>, size=1, nrcpt=1 (queue active)"
    (step,) = POSTFIX.reader()(line)
    assert not isinstance(step, Event)
    assert step.sender == quoted


# What smtpd(8) takes for a HELO: one line, without spaces at its ends.
HELO = st.lists(
    st.one_of(
        PIECES,
        st.sampled_from(
            [
                "; from=<f@forged.test> to=<t@forged.test>",
                " proto=SMTP helo=<h",
                " sasl_username=<s",
                ">: Helo command rejected: ",
                "virus",
                "zen.spamhaus.org",
                "a",
            ]
        ),
    ),
    min_size=1,
    max_size=6,
).map(lambda pieces: "".join(pieces).strip() or "x")
OWN_VERDICT = "Helo command rejected: need fully-qualified hostname"


def refusal(line: str) -> tuple[str | None, str | None, str, str | None, str | None, str | None]:
    event = one(POSTFIX, line)
    assert (event.outcome, event.reply_code, event.relay) == (Outcome.REJECTED, 504, "unknown[192.0.2.9]")
    return event.sender, event.recipient, str(event.code), event.queue_id, event.stage, reason_of(event)


@given(HELO)
def test_a_helo_cannot_change_its_own_refusal(helo: str) -> None:
    """At RCPT TO the real envelope is there, and at EHLO none is: it is that, or it is not read."""
    start = f"Nov 24 15:55:42 mta postfix/smtpd[1]: NOQUEUE: reject: %s from unknown[192.0.2.9]: 504 5.5.2 <{helo}>: "
    end = f"proto=SMTP helo=<{helo}>"
    early = refusal(f"{start % 'EHLO'}{OWN_VERDICT}; {end}")
    assert early == (None, None, "5.5.2", None, "helo", "protocol")
    late = refusal(f"{start % 'RCPT'}{OWN_VERDICT}; from=<s@src.test> to=<r@dest.test> {end}")
    assert late == ("s@src.test", "r@dest.test", "5.5.2", None, "rcpt", "protocol")


@given(HELO)
def test_a_helo_cannot_change_another_refusal(helo: str) -> None:
    event = one(
        POSTFIX,
        "Nov 24 15:55:42 mta postfix/smtpd[1]: 4B00000001: reject: RCPT from unknown[192.0.2.9]: 554"
        " 5.7.1 <r@dest.test>:"
        f" Relay access denied; from=<s@src.test> to=<r@dest.test> proto=SMTP helo=<{helo}>",
    )
    assert (event.sender, event.recipient) in {("s@src.test", "r@dest.test"), (None, None)}
    assert (event.text, str(event.code)) == ("<r@dest.test>: Relay access denied", "5.7.1")
    assert (event.queue_id, event.stage, reason_of(event)) == ("4B00000001", "rcpt", "relay_denied")


def unquoted(local: str) -> str:
    """As Postfix writes it with info_log_address_format = internal."""
    return f"{local}@src.test"


ADDRESS_FORMS = st.sampled_from([unquoted, lambda local: quoted(local, "src.test")])
SENDER_PIECES = [
    "a>, status=expired, returned to sender",
    "a>, status=force-expired, returned to sender (",
    ">, size=1, nrcpt=1 (queue active)",
    "> orig_id=4B00000009",
    "; from=<f@forged.test> to=<t@forged.test> proto=SMTP helo=<h>",
]
HOSTILE_SENDER = st.lists(st.one_of(PIECES, st.sampled_from(SENDER_PIECES)), min_size=1, max_size=4).map("".join)


@given(HOSTILE_SENDER.filter(lambda text: text.isascii() and text.isprintable()), ADDRESS_FORMS)
def test_a_sender_cannot_forge_an_expiry_or_a_notification(local: str, form: Callable[[str], str]) -> None:
    sender, start = form(local), "Nov 24 15:55:42 mta postfix/qmgr[1]: BD2052108B2: "
    (queued,) = POSTFIX.reader()(f"{start}from=<{sender}>, size=12, nrcpt=1 (queue active)")
    assert not isinstance(queued, Event)
    assert (queued.what, queued.sender) == (StepKind.QUEUED, sender)
    (expired,) = POSTFIX.reader()(f"{start}from=<{sender}>, status=expired, returned to sender")
    assert isinstance(expired, Event)
    assert (expired.outcome, expired.sender) == (Outcome.EXPIRED, sender)
    (submitted,) = POSTFIX.reader()(f"{start}uid=1000 from=<{sender}>")
    assert not isinstance(submitted, Event)
    assert (submitted.what, submitted.sender, submitted.related) == (StepKind.ARRIVED, sender, None)
    event = one(
        POSTFIX,
        "Nov 24 15:55:42 mta postfix/smtpd[1]: 4B00000001: reject: RCPT from unknown[192.0.2.9]: 554"
        " 5.7.1 <r@dest.test>:"
        f" Relay access denied; from=<{sender}> to=<r@dest.test> proto=ESMTP helo=<h>",
    )
    assert (event.sender, event.recipient) in {(sender, "r@dest.test"), (None, None)}
    assert event.text == "<r@dest.test>: Relay access denied"


@given(HOSTILE)
def test_a_header_cannot_change_its_refusal(header: str) -> None:
    event = one(
        POSTFIX,
        f"Nov 24 15:55:42 mta postfix/cleanup[1]: 4B00000001: reject: header Subject: {header} from h[192.0.2.9];"
        " from=<s@src.test> to=<r@dest.test> proto=ESMTP helo=<h>: 5.7.1 no lottery here",
    )
    assert (event.outcome, str(event.code), event.text) == (Outcome.REJECTED, "5.7.1", "no lottery here")


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
@given(line=st.one_of(HOSTILE, st.text()))
def test_any_line_is_read_or_reported_as_unparsed(parser: Parser, line: str) -> None:
    parser.recognises(line)
    try:
        parser.reader()(line)
    except UnparsedLineError as error:
        assert str(error)  # noqa: PT017 - both results are right


ADVERSARIAL = [
    "2026-11-24 15:58:10 1xVsuB-0001DU-2n ** " + ' <"' * 20_000,
    "2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@b" + " R=x" * 15_000 + "\x00",
    "2026-11-24 15:58:10 1xVsuB-0001DU-2n => a@b" + ' DN="' * 12_000,
    "2026-11-24 15:58:10 1xVsuB-0001DU-2n == a@b R=r: SMTP error from remote mail server after RCPT TO:<"
    + "\\<" * 30_000,
    "2026-11-24 15:58:10 H=x [1.1.1.1] " + "rejected " * 7_000,
    "2026-11-24 15:58:10 H=(x) [1.1.1.1] U=a" + " F=<a> rejected RCPT <b>:" * 2_500,
    '2026-11-24 15:58:10 H=(x) [1.1.1.1] DN="/' + '" F=<' * 12_000,
    "2026-11-24 15:58:10 H=(x) [1.1.1.1] rejected RCPT <" + '(":' * 20_000,
    '2026-11-24 15:58:10 1xVsuB-0001DU-2n => a@b H=x [1.1.1.1] DN="' + '" A=" C="' * 7_000,
    '2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@b H=x [1.1.1.1] DN="/' + '": SMTP error from remote mail' * 2_000,
    "2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a" + ' <"a"@b>' * 8_000,
    "Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=<" + ">, " * 20_000,
    "Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=<a>, relay=x, " + "a=b, " * 13_000,
    "Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=<a>, relay=x, dsn=2.0.0, status=sent ("
    + "queued as " * 6_000,
    "Nov 24 15:55:42 mta postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[1]: 550 5.1.1 " + "; from=<" * 8_000,
    "Nov 24 15:55:42 mta postfix/cleanup[1]: BD2052108B2: reject: header " + ": 5.1.1 " * 8_000,
    "Nov 24 15:55:42 mta postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[1]: 550 5.1.1 <"
    + ">: Helo command rejected: " * 2_500
    + " helo=<>",
    "Nov 24 15:55:42 mta postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[1]: 550 5.1.1 x; from=<" + "> to=<" * 10_000,
    "Nov 24 15:55:42 mta postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[1]: 550 5.1.1 x" + "; proto=SMTP" * 5_000,
    "Nov 24 15:55:42 mta postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[1]: 550 [" + "] blocked using " * 4_000,
    "Nov 24 15:55:42 mta postfix/qmgr[1]: BD2052108B2: from=<" + ">, size=1, nrcpt=1 (queue active) " * 1_900,
    "Nov 24 15:55:42 mta postfix/qmgr[1]: BD2052108B2: from=<" + ">, status=expired, returned to sender " * 1_700,
    "Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=a" + ", status=" * 7_000,
    "x" + ": reject: RCPT from " * 3_200,
    "x" + ": to=a, status=" * 4_000,
    "mail-1  | " * 6_000,
    "2026-11-24T15:55:42Z stdout F " * 2_100,
    '{"log":' * 9_000,
    '{"log": "' + "\\n" * 32_000 + '"}',
    "Nov 24 15:55:42 mta last message repeated 2 times" + " last message repeated 2 times" * 2_000,
    "<22>1 2026-11-04T02:00:04Z h postfix/smtp 1 - " + '[a="' * 16_000,
    "2026-11-24T09:00:00.000Z," + '"' * 65_000,
    "2026-11-24T09:00:00.000Z,,,,EX01,,C,SMTP,FAIL,601,<m>,n,"
    + ";" * 3_000
    + ',"[{LED='
    + "};{LED=" * 8_000
    + '",1,1,,,s,s,s,,,,,,,E,l,1',
]


@pytest.mark.parametrize("line", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_no_line_takes_long(line: str) -> None:
    """A line of 64 KiB, the longest that parsers see, takes well under a second in every parser: backtracking is at
    most linear. (A quadratic pattern takes minutes.)"""
    start = time.process_time()
    for parser in PARSERS:
        parser.recognises(line)
        try:
            parser.reader()(line)
        except UnparsedLineError:
            continue
    assert time.process_time() - start < 5


def test_a_header_that_lacks_columns_loses_no_line() -> None:
    read = EXCHANGE.reader()
    read("#Fields: event-id,internal-message-id,recipient-address,recipient-status,a,b,c,d,e")
    (event,) = read("FAIL,601,a@dest.test,550 5.1.1 no,,,,,")
    assert isinstance(event, Event)
    assert (event.time, event.recipient, str(event.code)) == (None, "a@dest.test", "5.1.1")


def test_the_pattern_of_quoted_local_parts_is_possessive() -> None:
    """Pieces built from it cannot backtrack into a quoted string."""
    assert quoted_local_part.endswith('*+"')
