"""Whatever syslog daemons, containers and collectors put before or around a line, the line is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from bouncemeter.event import Event
from bouncemeter.exim import PARSER as EXIM
from bouncemeter.plugin import BlockReader, UnparsedLineError, detect
from bouncemeter.postfix import PARSER
from bouncemeter.wrappers import MAX_HELD, MAX_LINE, Unwrapper, unwrapped
from bouncemeter_exporter.sources.log import LogReader
from hypothesis import given
from hypothesis import strategies as st

CLOCK = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
MESSAGE = (
    "4B0000000F: to=<u@example.org>, relay=mx.example.org[192.0.2.1]:25, delay=9, delays=9/0/0/0, dsn=5.1.1,"
    " status=bounced (host mx.example.org[192.0.2.1] said: 550 5.1.1 no such user)"
)
USUAL = f"Nov 25 10:00:00 mx postfix/smtp[9]: {MESSAGE}"
AT_TEN = "2026-11-25T10:00:00+00:00"


def facts(line: str) -> tuple[str | None, str | None, str | None, str | None]:
    """Time, host, queue ID and recipient of the only event of a line; the same alone and in a block."""
    (event,) = PARSER.reader(lambda: CLOCK)(line)
    assert isinstance(event, Event)
    assert (event.outcome, str(event.code), event.text) == ("bounced", "5.1.1", MESSAGE[MESSAGE.index("host") : -1])
    reader = PARSER.reader(lambda: CLOCK)
    assert isinstance(reader, BlockReader)
    assert list(reader.block(line + "\n")) == [event]
    assert detect([line]) is PARSER
    time = None if event.time is None else datetime.fromtimestamp(event.time, UTC).isoformat()
    return time, event.host, event.queue_id, event.recipient


@pytest.mark.parametrize(
    ("prefix", "time", "host"),
    [
        ("Nov  5 10:00:00 mx postfix/smtp[9]: ", "2026-11-05T10:00:00+00:00", "mx"),
        ("Nov 5 10:00:00 mx postfix/smtp[9]: ", "2026-11-05T10:00:00+00:00", "mx"),
        ("Apr 06 15:16:46 2016 gateway outbound/smtp: ", "2016-04-06T15:16:46+00:00", "gateway"),
        ("Apr  6 15:16:46 2016 gateway outbound/smtp[9]: ", "2016-04-06T15:16:46+00:00", "gateway"),
        ("Wed Apr  6 15:16:46 2016 gateway postfix/smtp[9]: ", "2016-04-06T15:16:46+00:00", "gateway"),
        ("2016 Apr 6 15:16:46 gateway postfix-in/smtp[9]: ", "2016-04-06T15:16:46+00:00", "gateway"),
        ("2016 Apr  6 15:16:46.25 gateway postfix/smtp[9]: ", "2016-04-06T15:16:46.250000+00:00", "gateway"),
        ("Apr 6 2016 15:16:46 gateway postfix/smtp[9]: ", "2016-04-06T15:16:46+00:00", "gateway"),
        ("Nov 25 10:00:00 2016 postfix/smtp[9]: ", AT_TEN, "2016"),
        ("Nov 25 10:00:00 mail.info mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 mx mail.info postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 mx mail.warning postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 <mail.info> mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 mx <mail.info> postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 mail info mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 mx mail info postfix/smtp[9]: ", AT_TEN, "mx"),
        ("Nov 25 10:00:00 mail postfix/smtp[9]: ", AT_TEN, "mail"),
        ("2026-11-25T10:00:00+00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("2026-11-25T11:00:00.000+01:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("[1:mail1:postfix/lmtp] ", None, "mail1"),
        ("Nov 25 10:00:00 [1:mail1:postfix/lmtp] ", AT_TEN, "mail1"),
        ("mail-postfix-1  | Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("postfix_1 | Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("\x1b[36mpostfix_1  |\x1b[0m Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("\x1b[33mmail-1  | \x1b[0mpostfix/smtp[9]: ", None, None),
        ("mail-1  | 2026-11-25T10:00:00.000000000Z postfix/smtp[9]: ", AT_TEN, None),
        ("mail_postfix.1.x5k2@node1    | Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("2026-11-25T10:00:01.123456789Z Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("2026-11-25T10:00:00.000000000Z postfix/smtp[9]: ", AT_TEN, None),
        ("2026-11-25T10:00:01.123456789Z stdout F Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("2026-11-25T10:00:00.000000000Z stderr F postfix/smtp[9]: ", AT_TEN, None),
        ("[pod/mail-0/postfix] Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("[pod/mail-0/postfix] 2026-11-25T10:00:01.123456789Z Nov 25 10:00:00 mx postfix/smtp[9]: ", AT_TEN, "mx"),
        ("[pod/mail-0/postfix] 2026-11-25T10:00:00.000000000Z postfix/smtp[9]: ", AT_TEN, None),
    ],
)
def test_a_prefix_is_read(prefix: str, time: str | None, host: str | None) -> None:
    assert facts(prefix + MESSAGE) == (time, host, "4B0000000F", "u@example.org")


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ({"log": USUAL + "\n", "stream": "stdout", "time": "2026-11-25T10:00:01.123456789Z"}, "mx"),
        ({"log": f"postfix/smtp[9]: {MESSAGE}\n", "stream": "stdout", "time": AT_TEN}, None),
        ({"message": USUAL, "host": "node1", "file": "/var/log/mail.log", "timestamp": "2026-11-25T10:00:02Z"}, "mx"),
        ({"labels": {"job": "mail"}, "line": USUAL, "timestamp": "2026-11-25T10:00:02Z"}, "mx"),
        ({"msg": USUAL}, "mx"),
        ({"MESSAGE": USUAL, "SYSLOG_IDENTIFIER": "4f5e", "CONTAINER_NAME": "mail", "_HOSTNAME": "node1"}, "mx"),
        (
            {
                "MESSAGE": MESSAGE,
                "SYSLOG_IDENTIFIER": "postfix/smtp",
                "_PID": "9",
                "_HOSTNAME": "mx",
                "__REALTIME_TIMESTAMP": "1795600800000000",
            },
            "mx",
        ),
        ({"message": f" {MESSAGE}", "syslog-tag": "postfix/smtp[9]:", "host": "mx", "timestamp": AT_TEN}, "mx"),
        ({"msg": MESSAGE, "programname": "postfix", "hostname": "mx", "timereported": "Nov 25 10:00:00"}, "mx"),
        ({"message": MESSAGE, "appname": "postfix/smtp", "procid": 9, "hostname": "mx", "timestamp": AT_TEN}, "mx"),
        (
            {
                "message": MESSAGE,
                "process": {"name": "postfix/smtp", "pid": 9},
                "host": {"name": "mx"},
                "@timestamp": AT_TEN,
            },
            "mx",
        ),
        ({"rawmsg": "x", "msg": USUAL, "programname": "postfix", "hostname": "relay", "timereported": AT_TEN}, "mx"),
        ({"date": 1795600800.0, "MESSAGE": MESSAGE, "SYSLOG_IDENTIFIER": "postfix/smtp", "_HOSTNAME": "mx"}, "mx"),
        ({"MESSAGE": list(MESSAGE.encode()), "SYSLOG_IDENTIFIER": "postfix/smtp", "date": "1795600800"}, None),
    ],
)
def test_a_line_in_json_is_read(entry: dict[str, Any], host: str | None) -> None:
    assert facts(json.dumps(entry)) == (AT_TEN, host, "4B0000000F", "u@example.org")


def test_a_line_in_json_and_other_wrappers_is_read() -> None:
    line = json.dumps({"log": USUAL + "\n", "stream": "stdout"})
    assert facts(f"2026-11-25T10:00:01Z stdout F {line}") == (AT_TEN, "mx", "4B0000000F", "u@example.org")


EXIM_MESSAGE = "1xVsuB-0001DU-2n ** u@example.org R=r T=t H=mx.example.org [192.0.2.1]: 550 5.1.1 no such user"
EXIM_USUAL = f"2026-11-25 10:00:00 {EXIM_MESSAGE}"
IN_EXIM = [
    "mail-1  | {}",
    "\x1b[36mexim_1  |\x1b[0m {}",
    "2026-11-25T10:00:01.123456789Z {}",
    "2026-11-25T10:00:01.123456789Z stdout F {}",
    "[pod/mail-0/exim] {}",
    "[pod/mail-0/exim] 2026-11-25T10:00:01.123456789Z {}",
]


@pytest.mark.parametrize(
    "line",
    [
        *(wrapper.format(EXIM_USUAL) for wrapper in IN_EXIM),
        json.dumps({"log": EXIM_USUAL + "\n", "stream": "stdout", "time": "2026-11-25T10:00:01.123456789Z"}),
        json.dumps({"message": EXIM_USUAL, "host": "node1", "timestamp": "2026-11-25T10:00:02Z"}),
        json.dumps({"MESSAGE": EXIM_MESSAGE, "SYSLOG_IDENTIFIER": "exim", "_HOSTNAME": "mx", "date": 1795600800}),
        json.dumps({"MESSAGE": EXIM_USUAL, "SYSLOG_IDENTIFIER": "exim", "_HOSTNAME": "mx", "date": 1795600800}),
    ],
)
def test_an_exim_line_in_a_wrapper_is_read(line: str) -> None:
    reader = EXIM.reader(lambda: CLOCK)
    (event,) = reader(line)
    assert isinstance(event, Event)
    assert (event.outcome, str(event.code), event.queue_id) == ("bounced", "5.1.1", "1xVsuB-0001DU-2n")
    assert (event.recipient, event.time) == ("u@example.org", 1795600800)
    assert isinstance(reader, BlockReader)
    assert list(reader.block(line + "\n")) == [event]
    assert detect([line]) is EXIM


HOSTILE_MESSAGES = [
    f"4B0000000A: host x said: no\n{USUAL}",
    f"connect from x\r\n{USUAL}",
    f"mail-1  | {USUAL}",
    json.dumps({"MESSAGE": USUAL}),
]


@pytest.mark.parametrize(
    ("program", "message"),
    [*((program, message) for program in ("postfix/smtp", "sshd") for message in HOSTILE_MESSAGES), ("sshd", USUAL)],
)
def test_a_message_in_json_forges_no_line(message: str, program: str) -> None:
    """Where the collector names the program, its message is never taken for a line."""
    line = json.dumps({"MESSAGE": message, "SYSLOG_IDENTIFIER": program, "_HOSTNAME": "mx"})
    text = unwrapped(line)
    assert text is not None
    assert "\n" not in text
    assert list(PARSER.reader()(line)) == []


def test_a_line_feed_in_a_container_s_line_begins_no_other() -> None:
    line = json.dumps({"log": f"Nov 25 10:00:00 mx postfix/smtpd[9]: connect from x\n{USUAL}\n", "stream": "stdout"})
    assert list(PARSER.reader()(line)) == []


def test_parts_are_joined_for_each_stream_of_each_container() -> None:
    log = LogReader("x", clock=lambda: CLOCK)
    stamp = "2026-11-25T10:00:01.123456789Z"
    lines = [
        f"[pod/a/p] {stamp} stdout P {USUAL[:60]}",
        f"[pod/b/p] {stamp} stdout P {USUAL[:90]}",
        f"[pod/a/p] {stamp} stderr F something else: no",
        f"[pod/a/p] {stamp} stdout P {USUAL[60:100]}",
        f"[pod/b/p] {stamp} stdout F {USUAL[90:]}",
        f"[pod/a/p] {stamp} stdout F {USUAL[100:]}",
    ]
    entries = [entry for line in lines for entry in log.read(line + "\n")]
    entries += list(log.end())
    assert [(each.queue_id, each.text) for each in entries if isinstance(each, Event)] == [
        ("4B0000000F", MESSAGE[MESSAGE.index("host") : -1])
    ] * 2
    assert log.counts == {"event": 2, "other": 4, "unparsed": 0}


def test_parts_that_never_end_take_bounded_memory() -> None:
    unwrap = Unwrapper()
    for number in range(3 * MAX_HELD):
        for _ in range(3):
            assert unwrap(f"[pod/{number}/p] 2026-11-25T10:00:01Z stdout P {'x' * (MAX_LINE - 100)}") == ""
    assert len(unwrap.parts) <= MAX_HELD
    assert max(map(len, unwrap.parts.values())) == MAX_LINE


@given(st.one_of(st.text(), st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner)).map(json.dumps)))
def test_anything_can_be_unwrapped(text: str) -> None:
    found = unwrapped(text.replace("\n", ""))
    assert found is None or "\n" not in found


def test_an_outcome_without_a_program_is_unparsed() -> None:
    for line in (f"Nov 25 10:00:00 mx a b {MESSAGE}", "x: NOQUEUE: reject: RCPT from unknown[192.0.2.9]: 550 5.7.1 no"):
        with pytest.raises(UnparsedLineError, match="it has no program name before the message"):
            PARSER.reader()(line)
