"""What a content filter writes beside the mail server, and what its replies say."""

from __future__ import annotations

import pytest
from bouncemeter import exim, postfix
from bouncemeter.event import NOWHERE, Step, StepKind
from bouncemeter.filters import passed_to

from tests.parsers.test_hostile_text import one

PREFIX = "2026-01-02T04:13:36.4+00:00 mx pmg-smtp-filter[10]: C0FFEE0000000010: "
ACCEPTED = "accept mail to <a@dest.test> (B1B1B1) (rule: default-accept)"


@pytest.mark.parametrize(
    ("message", "what", "related"),
    [
        (ACCEPTED, StepKind.PASSED_ON, "B1B1B1"),
        ("accept mail to <a@dest.test> (B1B1B1)", StepKind.PASSED_ON, "B1B1B1"),
        ("moved mail for <a@dest.test> to spam quarantine - C0FFEE01 (rule: Spam)", StepKind.DROPPED, None),
        ("moved mail for <a@dest.test> to attachment quarantine", StepKind.DROPPED, None),
        ("block mail to <a@dest.test> (rule: Blacklist)", StepKind.DROPPED, None),
    ],
)
def test_a_filters_line_is_a_step_under_its_own_id(message: str, what: StepKind, related: str | None) -> None:
    reader = postfix.PARSER.reader()
    (step,) = reader(PREFIX + message)
    assert isinstance(step, Step)
    assert (step.what, step.queue_id, step.recipient) == (what, "C0FFEE0000000010", "a@dest.test")
    assert (step.related, step.peer, step.host) == (related, "[127.0.0.1]", "mx")


@pytest.mark.parametrize(
    "line",
    [
        PREFIX + "new mail message-id=<x@accept mail to <a@dest.test> (B1B1B1)>",
        PREFIX + "accept mail to <a@dest.test> (B1B1B1) and more",
        PREFIX + 'accept mail to <"a> (B1B1B1)"@dest.test>',
        PREFIX.replace("pmg-smtp-filter", "cron") + ACCEPTED,
    ],
)
def test_other_lines_are_not(line: str) -> None:
    assert not postfix.PARSER.reader()(line)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("250 2.5.0 OK (C0FFEE0000000010)", "C0FFEE0000000010"),
        ("250 2.0.0 Ok: queued as 4X1Y2Z", "4X1Y2Z"),
        ("250 2.7.0 Ok, discarded, id=00123-01 - spam", NOWHERE),
        ("250 2.7.1 Ok, discarded, id=00123-01 - VIRUS: Eicar", NOWHERE),
        ("250 2.0.0 Ok, discarded", NOWHERE),
        ("250 2.0.0 from MTA(smtp:[::1]:10025): 250 2.0.0 Ok: queued as 4X1Y2Z", "4X1Y2Z"),
        ("250 OK, we have never Ok, discarded mail", None),
        ("250 2.6.0 OK (message accepted)", None),
    ],
)
def test_a_reply_says_where_the_message_is_now(reply: str, expected: str | None) -> None:
    assert passed_to(reply) == expected
    line = "Nov 25 10:00:00 mx postfix/smtp[9]: 4B01A2: to=<a@dest.test>, relay=f[127.0.0.1]:10024, delay=1, dsn=2.0.0"
    assert one(postfix.PARSER, f"{line}, status=sent ({reply})").passed_to == expected


def test_exim_names_the_next_message_or_that_it_was_discarded() -> None:
    line = "2026-11-25 10:00:00 1xVsuB-0001DU-2n => a@dest.test R=r T=t H=filter [127.0.0.1] C="
    assert one(exim.PARSER, f'{line}"250 OK id=1xVsuB-0001DV-2n"').passed_to == "1xVsuB-0001DV-2n"
    assert one(exim.PARSER, f'{line}"250 2.7.0 Ok, discarded, id=00123-01 - spam"').passed_to == NOWHERE
    assert one(exim.PARSER, f'{line}"250 2.7.0 thanks"').passed_to is None
