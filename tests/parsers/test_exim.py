"""Exim's refusals, failures and deferrals in their less usual forms, and the lines that only look like them."""

from __future__ import annotations

import pytest
from bouncemeter.event import Event, Outcome
from bouncemeter.exim import PARSER
from bouncemeter.plugin import UnparsedLineError
from bouncemeter.repeats import MAX_REPEATS

STAMP = "2026-11-25 10:00:00 "
ID = "1xVsuB-0001DU-2n "


def read(line: str) -> Event | None:
    """The only entry of a line, which is an event; None if it has none."""
    entries = PARSER.reader()(line if line.startswith(("Nov", "exim")) else STAMP + line)
    if not entries:
        return None
    (event,) = entries
    assert isinstance(event, Event)
    return event


@pytest.mark.parametrize(
    ("line", "code", "stage", "recipient", "text"),
    [
        ("connection from [192.0.2.9] refused (IP options)", "5.0.0", "connect", None, "(IP options)"),
        ('rejected "EHLO zen.example.net" from H=(zen.example.net) [192.0.2.9]', "5.0.0", "helo", None, None),
        ('temporarily rejected "HELO x.test" from (x.test) [192.0.2.9] U=a b', "4.0.0", "helo", None, None),
        ("H=[192.0.2.9] dropped by 'connect' ACL", "5.0.0", "connect", None, None),
        ("H=(x) [192.0.2.9]:4 I=[192.0.2.1]:25 dropped by 'rcpt' ACL: banned", "5.0.0", "rcpt", None, "banned"),
        ("SMTP connection from [192.0.2.9] dropped by 'connect' ACL", "5.0.0", "connect", None, None),
        ("H=(virus) [192.0.2.9] F=<a@b.test> rejected RCPT <c@d.test>", "5.0.0", "rcpt", "c@d.test", None),
        ("H=(h) [192.0.2.9] temporarily rejected RCPT <c@d.test>: 4.7.1 a", "4.7.1", "rcpt", "c@d.test", "4.7.1 a"),
        ("H=[192.0.2.9] U=root F=<> temporarily rejected RCPT <c@d.test>: Could not complete sender verify callout",
         "4.0.0", "rcpt", "c@d.test", "Could not complete sender verify callout"),
        ('H=(h) [192.0.2.9] CV=no SNI="a b" F=<> rejected RCPT <c@d.test>: no', "5.0.0", "rcpt", "c@d.test", "no"),
        ("H=(h) [192.0.2.9] F=s@x.test rejected RCPT c@d.test: no", "5.0.0", "rcpt", "c@d.test", "no"),
        ("H=(h) [192.0.2.9] rejected MAIL s@x.test: no", "5.0.0", "mail", None, "no"),
        ("H=(h) [192.0.2.9] rejected RCPT <c@d.test>: 5.7.1 No", "5.7.1", "rcpt", "c@d.test", "5.7.1 No"),
        # A code of the other class is not what Exim sent.
        ("H=(h) [192.0.2.9] rejected RCPT <c@d.test>: 451 4.7.1 No", "5.0.0", "rcpt", "c@d.test", "451 4.7.1 No"),
        ("H=(h) [192.0.2.9] U=root rejected EHLO or HELO [IPv6:2001:db8::1]: no", "5.0.0", "helo", None, "no"),
        ("U=root temporarily rejected after DATA: later", "4.0.0", "data", None, "later"),
        ("U=unknown temporarily rejected ATRN x.test: 453 No mail", "4.0.0", "helo", None, "453 No mail"),
        ("H=(h) [192.0.2.9] rejected AUTH PLAIN: no", "5.0.0", "helo", None, "no"),
        ("H=(h) [192.0.2.9] rejected VRFY c@d.test: no", "5.0.0", "rcpt", "c@d.test", "no"),
        ("H=(h) [192.0.2.9] rejected STARTTLS : no", "5.0.0", "helo", None, "no"),
        ("rejected HELO from [192.0.2.9] U=virus: syntactically invalid argument(s): virus", "5.0.0", "helo", None,
         "syntactically invalid argument(s)"),
        ("rejected EHLO from root: syntactically invalid argument(s): (no argument given)", "5.0.0", "helo", None,
         "syntactically invalid argument(s)"),
        ('SMTP call from [192.0.2.9] dropped: too many syntax or protocol errors (last command was "a b", C=MAIL)',
         "5.0.0", "connect", None, "too many syntax or protocol errors"),
        ('SMTP call from root dropped: too many nonmail commands (last was "virus")', "5.0.0", "connect", None,
         "too many nonmail commands"),
        (f"{ID}F=a@b.test H=(h) [192.0.2.9] P=esmtp temporarily rejected by local_scan(): down", "4.0.0", "data", None,
         "down"),
        (f"{ID}H=(h) [192.0.2.9] F=<a@b.test> rejected by local_scan(): Rejected: hits=7.5", "5.0.0", "data", None,
         "Rejected: hits=7.5"),
        (f"{ID}local_scan() function timed out - message temporarily rejected (size 9)", "4.0.0", "data", None,
         "local_scan() function timed out"),
        (f"{ID}H=(h) [192.0.2.9] F=<a@b.test> rejected during MIME ACL checks: no", "5.0.0", "data", None, "no"),
        (f"{ID}PRDR R=<c@d.test> temporary refusal", "4.0.0", "data", "c@d.test", None),
        (f"{ID}PRDR R=<c@d.test> refusal", "5.0.0", "data", "c@d.test", None),
        (f'{ID}H=(h) [192.0.2.9] c@d.test F=<> rejected after DATA: R=r T=t H=mx.test [192.0.2.1] C="550 5.7.1 no"',
         "5.7.1", "data", "c@d.test", "550 5.7.1 no"),
        # The failing address is the sender's own text.
        (f'{ID}H=(h) [192.0.2.9] F=<> rejected after DATA: domain missing: failing address in "To:" header is: virus@',
         "5.0.0", "data", None, "domain missing"),
    ],
)  # fmt: skip
def test_a_refusal_is_read(line: str, code: str, stage: str, recipient: str | None, text: str | None) -> None:
    event = read(line)
    assert event is not None
    assert event.outcome is Outcome.REJECTED
    assert (str(event.code), event.stage, event.recipient, event.text) == (code, stage, recipient, text)
    assert event.queue_id == (ID.strip() if line.startswith(ID) else None)


@pytest.mark.parametrize(
    "line",
    [
        "H=(h) [192.0.2.9] Warning: message would be rejected by DMARC",
        "H=(h) [192.0.2.9] F=<a@b.test> RCPT <c@d.test>: discarded by RCPT ACL: rejected elsewhere",
        "H=(h) [192.0.2.9] sender verify fail for <a@b.test>: mx.test [192.0.2.1] : 550 rejected",
        "H=(h) [192.0.2.9] sender verify defer for <a@b.test>: Could not connect: Connection refused",
        "H=(h) [192.0.2.9] incomplete transaction (QUIT) from <rejected@b.test>",
        "SMTP connection from (h) [192.0.2.9] closed by DROP in ACL",
        "SMTP command timeout on connection from (rejected) [192.0.2.9]",
        "SMTP data timeout (message abandoned) on connection from (h) [192.0.2.9] F=<a rejected b@b.test>",
        'SMTP syntax error in "rejected RCPT <c@d.test>" H=(h) [192.0.2.9] unrecognized command',
        "no MAIL in SMTP connection from (rejected) [192.0.2.9] D=0s C=EHLO",
        "no host name found for IP address 192.0.2.9",
        "VRFY failed for a rejected b@d.test H=(h) [192.0.2.9]",
        "login authenticator failed for (h) [192.0.2.9]: 535 Incorrect authentication data (set_id= rejected )",
        f"{ID}H=mx.test [192.0.2.1] Connection refused",
        f"{ID}H=mx.test [192.0.2.1]: SMTP error from remote mail server after RCPT TO:<c@d.test>: 451 rejected for now",
        f"{ID}=> blackhole (RCPT ACL discarded recipients)",
        f"{ID}=> discarded (system filter)",
        f"{ID}== c@d.test R=r T=t defer (-53): Retry time not yet reached",
        f"{ID}== d@d.test Retry time not yet reached",
        f"{ID}== c@d.test R=r T=t defer (-57): concurrency limit reached for transport",
        f"{ID}== c@d.test routing defer (-52): retry time not reached",
        f"{ID}== c@d.test R=r T=t defer (0): SMTP delivery explicitly queued",
        f"{ID}== c@d.test R=r T=t defer (0): first-pass only routing due to -odqs, queue_smtp_domains or control=queue",
        f"{ID}== c@d.test R=r T=t defer (-53): connection limit reached for all hosts for 'd.test'",
    ],
)  # fmt: skip
def test_a_line_that_refuses_and_tries_nothing_has_no_event(line: str) -> None:
    assert read(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "H=(h) [192.0.2.9] refused a new command",
        "H=(h) [192.0.2.9] U=u X=a b rejected RCPT <c@d.test>",
        "session from [192.0.2.9] refused by policy",
        "message rejected",
        f"{ID}message temporarily rejected for a new reason",
        f"{ID}** ",
        "1abcDEF-000001-AB ** c@d.test R=r T=t: 550 no",
        "1abcDE-0000000005vi-00000-1 == c@d.test R=r T=t defer (0): 450 no",
        "1abcDE-1 => c@d.test R=r T=t",
    ],
)
def test_a_refusal_or_an_outcome_in_an_unknown_form_is_unparsed(line: str) -> None:
    with pytest.raises(UnparsedLineError, match="in an unknown form"):
        read(line)


@pytest.mark.parametrize(
    ("line", "recipient", "text"),
    [
        ("** mua_wrapper is set but recipients cannot all be delivered in one transaction", None,
         "mua_wrapper is set but recipients cannot all be delivered in one transaction"),
        ("** c@d.test mua_wrapper forced failure for deferred delivery", "c@d.test",
         "mua_wrapper forced failure for deferred delivery"),
        ("** c@d.test routing yielded a local delivery", "c@d.test", "routing yielded a local delivery"),
    ],
)  # fmt: skip
def test_a_wrapper_of_a_mail_client_never_tries_again(line: str, recipient: str | None, text: str) -> None:
    event = read(ID + line)
    assert event is not None
    assert (event.outcome, event.recipient, event.text) == (Outcome.BOUNCED, recipient, text)


@pytest.mark.parametrize(
    "prefix",
    [
        "Nov 25 10:00:00 mx exim[12]: ",
        "Nov 25 10:00:00 mx exim[12]: [4711] ",
        "Nov 25 10:00:00 mx exim4[12]: [1/2] [4711] ",
        "Nov 25 10:00:00 mx exim[12]: 2026-11-25 10:00:00.123 +0000 [4711] ",
        "exim[12]: [4711] ",
    ],
)
def test_syslog_may_leave_out_any_part_of_exims_own_start(prefix: str) -> None:
    outcome = read(f"{prefix}{ID}** c@d.test R=r: Unrouteable address")
    assert outcome is not None
    assert (outcome.outcome, outcome.queue_id, outcome.recipient) == (Outcome.BOUNCED, ID.strip(), "c@d.test")
    refusal = read(f"{prefix}H=(h) [192.0.2.9] F=<a@b.test> rejected RCPT <c@d.test>: no")
    assert refusal is not None
    assert (refusal.outcome, refusal.recipient) == (Outcome.REJECTED, "c@d.test")
    assert PARSER.recognises(f"{prefix}{ID}Completed")


@pytest.mark.parametrize(
    ("logged", "recipient"),
    [
        # RCPT TO:<"A b"@d.test>, and the local part that the issue tells of
        ('a b@d.test <"A b"@d.test>', '"A b"@d.test'),
        (' <"\\a"> r=x: retry timeout exceeded f@x <" <\\"\\\\a\\"> r=x: retry timeout exceeded f"@x>',
         '" <\\"\\\\a\\"> r=x: retry timeout exceeded f"@x'),
        ('a.b> c: 5.7.1@d.test <a."b> c: 5.7.1"@d.test>', 'a."b> c: 5.7.1"@d.test'),
        ('a@b.test <"a"@b.test> r=x: 550 5.1.1 x@d.test <"a@b.test <\\"a\\"@b.test> r=x: 550 5.1.1 x"@d.test>',
         '"a@b.test <\\"a\\"@b.test> r=x: 550 5.1.1 x"@d.test'),
    ],
)  # fmt: skip
def test_a_quoted_local_part_ends_where_both_of_its_forms_agree(logged: str, recipient: str) -> None:
    event = read(f"{ID}** {logged} R=dns T=smtp: SMTP error from remote mail server after end of data: 554 5.6.0 no")
    assert event is not None
    assert (event.outcome, str(event.code), event.recipient) == (Outcome.BOUNCED, "5.6.0", recipient)


def test_an_alias_of_a_quoted_address_keeps_both() -> None:
    event = read(f'{ID}** new@e.test <"old one"@d.test> R=dns T=smtp: 550 5.1.1 no')
    assert event is not None
    assert (event.recipient, event.original_recipient) == ("new@e.test", '"old one"@d.test')


@pytest.mark.parametrize("inside", ["", "2026-11-25 10:00:00 ", "[7] ", "2026-11-25 10:00:00.123 [7] "])
def test_messages_that_syslog_says_were_repeated_count_each_time(inside: str) -> None:
    start = "Nov 25 10:00:00 mx exim[7]: "
    refusal = f"{inside}H=(x) [203.0.113.5] F=<s@x.test> rejected RCPT <b@d.test>: relay not permitted"
    lines = [f"{start}message repeated 2 times: [ {refusal}]"]
    lines += [f"{start}message repeated 3 times: [ {inside}1wAbCd-000097-2X ** b@d.test: Unknown user]"]
    lines += [f"{start}{refusal}", "Nov 25 10:00:01 mx last message repeated 2 times"]
    read, block = PARSER.reader(), "".join(f"{line}\n" for line in lines)
    events = [[(each.outcome, each.recipient) for each in read(line) if isinstance(each, Event)] for line in lines]
    rejected, bounced = (Outcome.REJECTED, "b@d.test"), (Outcome.BOUNCED, "b@d.test")
    assert events == [[rejected] * 2, [bounced] * 3, [rejected], [rejected] * 2]
    assert len(list(PARSER.reader().block(block))) == 8  # type: ignore[attr-defined]
    nested = f"{start}message repeated 999999 times: [ {inside}message repeated 999999 times: [ {refusal}]]"
    assert len(read(nested)) == MAX_REPEATS
