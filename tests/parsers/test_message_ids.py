"""A Message-ID is read from where the server writes it, and from nowhere else."""

from __future__ import annotations

import csv
import io
import json
import time
from contextlib import suppress

import pytest
from bouncemeter.blocks import UsualReader, read_lines
from bouncemeter.event import StepKind
from bouncemeter.plugin import MessageIDReader, UnparsedLineError, parser
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import LOGS

EXIM = "2026-11-24 15:58:10 1xVsuB-0001DU-2n <= a@src.test "
POSTFIX = "Nov  4 03:00:01 mx1 postfix/"
REAL, FORGED = "real@src.test", "forged@src.test"

PIECES = st.sampled_from(
    [
        *(
            " id=" + FORGED,
            " S=1",
            " S=2 ",
            " P=esmtp",
            f" S=1 id={FORGED}",
            f"message-id=<{FORGED}>",
            " H=x [192.0.2.7]",
        ),
        *(
            '"',
            "'",
            "(",
            ")",
            ") [192.0.2.7]",
            "[",
            "]",
            " ",
            ":",
            ": ",
            "<",
            ">",
            '" ',
            "a",
            "U=b",
            ' T="',
            ' DN="/CN=x',
        ),
        *("<= ", "4A1B2C3D57: ", "1xVsuB-0001DU-2n ", "\\", "=", ","),
    ]
)
HOSTILE = st.lists(PIECES, max_size=8).map("".join)


def read(mta: str, *lines: str) -> list[tuple[str, str | None]]:
    """The queue IDs and Message-IDs in the lines of a log."""
    reader = parser(mta).reader()
    assert isinstance(reader, MessageIDReader)
    found = []
    for line in lines:
        with suppress(UnparsedLineError):
            reader(line)
        step = reader.message_id(line)
        if step is not None:
            assert step.what is StepKind.NAMED
            found.append((step.queue_id, step.related))
    return found


def read_message_id(line: str) -> None:
    """Look for a Message-ID in a line of Exim."""
    reader = parser("exim").reader()
    assert isinstance(reader, MessageIDReader)
    reader.message_id(line)


@pytest.mark.parametrize("queue_id", ["1xVsuB-0001DU-2n", "1abcDE-000000005vi-0003"])
@pytest.mark.parametrize(
    "fields",
    [
        "H=mx.src.test [192.0.2.9] P=esmtp S=1234 id={}",
        "H=mx.src.test (helo) [192.0.2.9]:4242 I=[192.0.2.1]:25 P=esmtps L X=TLS1.3:foo:256 CV=no S=1234 id={}",
        'H=(helo) [192.0.2.9] P=esmtps DN="/CN=a b" A=plain:bob K S=12 M8S=0 DKIM=src.test RT=0.3s id={} T="x"',
        "H=mx.src.test [192.0.2.9] U=bob P=esmtps S=1234 id={} from <a@src.test> for a@b.test",
        "H=mx.src.test (h e l o) [192.0.2.9] P=esmtps S=1234 id={}",
        f'H=mx.src.test [192.0.2.9] P=esmtp S=1234 id={{}} T="x S=1 id={FORGED}"',
        f'U=root P=local S=1234 id={{}} T="x id={FORGED}"',
        "R=1xVsuB-0001DU-2m U=Debian-exim P=local S=1804 id={}",
    ],
)
@pytest.mark.parametrize("name", [REAL, f'"a id={FORGED} b"@src.test', "{x!#$%&'*+/=?^_`|}~-@[192.0.2.9]"])
def test_exim_writes_the_message_id_after_the_size(queue_id: str, fields: str, name: str) -> None:
    line = f"2026-11-24 15:58:10 {queue_id} <= a@src.test {fields.replace('{}', name)}"
    if name.count(" id=") and fields.count("U=bob") + fields.count("DN=") + fields.count("h e l"):
        assert read("exim", line) == []  # it could be read in two ways
    else:
        assert read("exim", line) == [(queue_id, name)]


@pytest.mark.parametrize(
    "line",
    [
        EXIM + f'H=mx.src.test [192.0.2.9] P=esmtp S=1234 T="x S=1 id={FORGED}"',
        EXIM + f'H=mx.src.test [192.0.2.9] P=esmtp S=1234 T="x" id={FORGED} "',
        EXIM + f"H=mx.src.test [192.0.2.9] U=x P=esmtp S=1 id={FORGED} P=esmtp S=1234 id={REAL}",
        EXIM + f"H=mx.src.test [192.0.2.9] U=x P=esmtp S=1 id={FORGED} P=esmtp S=1234",
        EXIM + f"H=mx.src.test (x) [192.0.2.7] P=esmtp S=1 id={FORGED}) [192.0.2.9] P=esmtp S=1234",
        EXIM + f'H=mx.src.test [192.0.2.9] P=esmtps DN="/CN=x" S=1 id={FORGED}" S=1234',
        EXIM.replace("a@src.test", "<>") + "R=1xVsuB-0001DU-2m U=Debian-exim P=local S=1804",
        EXIM.replace("<= a@src.test", "** a@dest.test: 550") + f"S=1 id={FORGED}",
        EXIM.replace("<= a@src.test", "=> a@dest.test") + f'C="250 OK id={FORGED}"',
        f"2026-11-24 15:58:10 H=x [192.0.2.9] rejected RCPT <a@b.test>: 1xVsuB-0001DU-2n <= a S=1 id={FORGED}",
        f"Nov  4 03:00:01 mx1 other[1]: 1xVsuB-0001DU-2n <= a@src.test S=1 id={FORGED}",
        "no line of a log",
    ],
)
def test_nothing_else_in_a_line_of_exim_is_a_message_id(line: str) -> None:
    assert read("exim", line) == []


@pytest.mark.parametrize("queue_id", ["4A1B2C3D57", "4jYndl5TbFzJLp6"])
@pytest.mark.parametrize(
    ("program", "text", "name"),
    [
        ("cleanup", f"message-id=<{REAL}>", f"<{REAL}>"),
        ("outbound/cleanup", f"message-id=<{REAL}>", f"<{REAL}>"),
        ("cleanup", f"message-id=<{REAL}> (comment)", f"<{REAL}> (comment)"),
        ("cleanup", f"resent-message-id=<{FORGED}>", None),
        ("cleanup", f"info: header Subject: message-id=<{FORGED}> from mx[192.0.2.9]; from=<a@b>", None),
        ("cleanup", f"reject: header Subject: message-id=<{FORGED}> from mx[192.0.2.9]; from=<a@b>: 5.7.1 no", None),
        ("smtp", f"message-id=<{FORGED}>", None),
        ("smtp", f"to=<a@b.test>, relay=x, dsn=5.0.0, status=bounced (550 4A1B2C3D57: message-id=<{FORGED}>)", None),
    ],
)
def test_only_cleanup_names_a_message_in_postfix(queue_id: str, program: str, text: str, name: str | None) -> None:
    line = f"{POSTFIX}{program}[1]: {queue_id}: {text}"
    expected = [] if name is None else [(queue_id, name)]
    assert read("postfix", line) == expected
    assert read("postfix", json.dumps({"log": f"{line}\n", "stream": "stdout"})) == expected


def test_message_ids_in_exchanges_tracking_and_send_logs_lead_to_the_message() -> None:
    tracking = (LOGS / "exchange" / "MSGTRK2026112409-1.LOG").read_text("utf-8-sig").splitlines()
    named = dict(read("exchange", *tracking))
    assert named["60129542144002"] == "<b1@contoso.example>"
    send = (LOGS / "exchange" / "SEND20261124-1.log").read_text("utf-8-sig").splitlines()
    assert ("60129542144002", "<b1@contoso.example>") in read("exchange", *send)


@given(HOSTILE)
def test_the_subject_and_other_texts_of_exchange_are_no_message_ids(text: str) -> None:
    header = (
        "#Fields: date-time,client-ip,event-id,source,internal-message-id,message-id,message-subject,sender-address"
    )
    out = io.StringIO()
    cells = ["2026-11-24T09:00:00.000Z", "192.0.2.9", "RECEIVE", "SMTP", "7", f"<{REAL}>", text, "a@src.test"]
    csv.writer(out, lineterminator="").writerow(cells)
    assert read("exchange", header, out.getvalue()) == [("7", f"<{REAL}>")]


@given(HOSTILE, HOSTILE)
def test_what_others_write_into_a_line_of_exim_forges_no_message_id(before: str, after: str) -> None:
    for field in ("U={}", '"{}"', "({}) [192.0.2.9]", 'DN="/CN={}"', 'DN="CN={}"'):
        where = f"H=mx.src.test [192.0.2.9] {field}" if field[0] != "(" else f"H=mx.src.test {field}"
        for end in (f"S=1234 id={REAL}", "S=1234"):
            line = f'{EXIM}{where.format(before)} P=esmtp {end} T="{after}"'
            assert {name for _, name in read("exim", line)} <= {REAL}, line


@given(HOSTILE)
def test_what_others_write_into_a_line_of_postfix_forges_no_message_id(text: str) -> None:
    lines = [
        f"{POSTFIX}cleanup[1]: 4A1B2C3D57: info: header Subject: {text} from mx[192.0.2.9]; from=<a@b.test>",
        f"{POSTFIX}cleanup[1]: 4A1B2C3D57: reject: header X: {text} from mx[192.0.2.9]; from=<a@b.test>: 5.7.1 no",
        f"{POSTFIX}smtp[1]: 4A1B2C3D57: to=<a@b.test>, relay=none, delay=1, dsn=4.0.0, status=deferred ({text})",
        f"{POSTFIX}qmgr[1]: 4A1B2C3D57: from=<{text}>, size=1, nrcpt=1 (queue active)",
        f"{POSTFIX}smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.9]: 550 5.7.1 {text}; proto=ESMTP helo=<{text}>",
    ]
    assert read("postfix", *lines) == []


@pytest.mark.parametrize("mta", ["postfix", "exim", "exchange"])
@given(st.text() | HOSTILE)
def test_no_line_breaks_the_search_for_message_ids(mta: str, line: str) -> None:
    read(mta, "#Fields: date-time,event-id,message-id", line.replace("\n", " "))


@pytest.mark.parametrize(
    "piece", [" U=", " id=", " S=1", " S=1 ", ' DN="', "(", ") [", " H=x (", " x=y", '"', " id=a S=1 U="]
)
def test_a_long_line_of_exim_takes_linear_time(piece: str) -> None:
    begun = time.process_time()
    for start in (
        "",
        "H=x [192.0.2.9] ",
        "H=x [192.0.2.9] U=",
        "H=x (",
        'H=x [192.0.2.9] P=x DN="/',
        "U=root P=local S=1 id=",
    ):
        read_message_id(EXIM + start + piece * (60_000 // len(piece)))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("mta", ["postfix", "exim"])
def test_reading_a_log_makes_no_steps_of_message_ids(mta: str) -> None:
    """They cost nothing where nobody asks for them."""
    text = (LOGS / mta / "forms.log").read_text()
    reader = parser(mta).reader()
    assert isinstance(reader, UsualReader)
    assert all(getattr(entry, "what", None) is not StepKind.NAMED for entry in reader.block(text))
    assert all(
        getattr(entry, "what", None) is not StepKind.NAMED for entry in read_lines(text.splitlines(), reader).entries
    )
