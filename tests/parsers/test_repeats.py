"""`message repeated N times` counts N outcomes, where it is certain which."""

from __future__ import annotations

import pytest
from bouncemeter.blocks import read_lines
from bouncemeter.event import Event
from bouncemeter.plugin import BlockReader
from bouncemeter.postfix import PARSER
from bouncemeter.repeats import MAX_REPEATS

REFUSAL = (
    "NOQUEUE: reject: RCPT from unknown[192.0.2.9]: 554 5.7.1 <b@example.org>: Relay access denied;"
    " from=<a@example.net> to=<b@example.org> proto=ESMTP helo=<x>"
)
FIRST = f"Nov 25 10:00:00 mx postfix/smtpd[9]: {REFUSAL}"


def count(*lines: str) -> int:
    """The refusals in lines, alone and in a block."""
    alone = read_lines(lines, PARSER.reader())
    reader = PARSER.reader()
    assert isinstance(reader, BlockReader)
    together = reader.block("".join(f"{line}\n" for line in lines))
    assert [str(each) for each in together] == [str(each) for each in alone.entries]
    assert (together.events, together.other, together.unparsed) == (alone.events, alone.other, alone.unparsed)
    assert {each.recipient for each in alone.entries if isinstance(each, Event)} <= {"b@example.org"}
    assert alone.unparsed == 0
    return len(alone.entries)


def repeated(number: int) -> str:
    return f"Nov 25 10:00:02 mx postfix/smtpd[9]: message repeated {number} times: [ {REFUSAL}]"


def test_a_message_in_brackets_counts_as_often_as_it_says() -> None:
    assert count(FIRST, repeated(3)) == 4
    assert count(repeated(1)) == 1
    assert count(repeated(999_999)) == MAX_REPEATS
    twice = repeated(300).replace(REFUSAL, f"message repeated 20 times: [ {REFUSAL}]")
    assert count(twice) == 6000
    assert count(twice.replace(" 20 ", " 999999 ")) == MAX_REPEATS


@pytest.mark.parametrize(
    "line",
    [
        "Nov 25 10:00:05 mx last message repeated 3 times",
        "Nov 25 10:00:05 mx --- last message repeated 3 times ---",
        "2026-11-25T10:00:05+00:00 mx last message repeated 3 times",
        (
            "Nov 25 10:00:05 mx postfix/smtpd[9]: Last message 'NOQUEUE: reject: RC' repeated 3 times, suppressed by"
            " syslog-ng on mx"
        ),
    ],
)
def test_the_last_message_is_the_line_before(line: str) -> None:
    assert count(FIRST, line) == 4
    assert count(FIRST, line, line) == 7
    assert count(line, FIRST) == 1
    assert count(FIRST, "Nov 25 10:00:01 mx sshd[1]: x", line) == 1
    assert count(FIRST.replace(" mx ", " mx2 "), line) == 1


def test_the_last_message_is_found_in_the_block_before() -> None:
    reader = PARSER.reader()
    assert isinstance(reader, BlockReader)
    assert len(list(reader.block(FIRST + "\n"))) == 1
    assert len(list(reader.block("Nov 25 10:00:05 mx last message repeated 2 times\n"))) == 2


def test_a_last_message_with_another_beginning_is_not_the_one() -> None:
    line = "Nov 25 10:00:05 mx postfix/smtpd[9]: Last message 'connect from x' repeated 3 times, suppressed by y on z"
    assert count(FIRST, line) == 1


def test_a_message_that_is_no_outcome_stays_none() -> None:
    assert (
        count("Nov 25 10:00:02 mx postfix/smtpd[9]: message repeated 2 times: [ connect from unknown[192.0.2.9]]") == 0
    )
