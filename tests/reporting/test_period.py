"""`--since` and `--until`: the moments that people name, and the lines that a period covers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bouncemeter.plugin import parser
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.reporting.period import Part, Period, count_parts, moment
from bouncemeter_exporter.reporting.report import Report

from tests.conftest import Run

NOW = datetime(2026, 11, 26, 3, 14, 15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("today", datetime(2026, 11, 26)),
        ("Yesterday", datetime(2026, 11, 25)),
        ("2h", datetime(2026, 11, 26, 1, 14, 15)),
        ("1d12h", datetime(2026, 11, 24, 15, 14, 15)),
        ("30m ago", datetime(2026, 11, 26, 2, 44, 15)),
        ("02:30", datetime(2026, 11, 26, 2, 30)),
        ("02:30:05", datetime(2026, 11, 26, 2, 30, 5)),
        ("2026-11-24", datetime(2026, 11, 24)),
        ("2026-11-24 23:59", datetime(2026, 11, 24, 23, 59)),
        ("2026-11-24T23:59:59", datetime(2026, 11, 24, 23, 59, 59)),
        ("2026-11-24T23:59:59Z", datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC)),
        ("2026-11-24 23:59+02:00", datetime.fromisoformat("2026-11-24T21:59+00:00")),
    ],
)
def test_a_moment_is_what_its_text_names(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected.timestamp()


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "25:00", "2x", "-2h", "11/24/2026", "9" * 30 + "h"])
def test_no_other_text_names_a_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is not a moment such as"):
        moment(text, NOW)


def test_the_end_comes_after_the_beginning() -> None:
    with pytest.raises(ValueError, match="--until yesterday is not after --since today"):
        Period.of("today", "yesterday", NOW)


def line(hour: int, queue_id: str, rest: str) -> str:
    return f"2026-11-24T{hour:02}:00:00+00:00 mx1 postfix/{rest.replace('ID', queue_id)}\n"


def outcome(hour: int, queue_id: str, code: str, status: str) -> str:
    return line(
        hour,
        queue_id,
        f"smtp[1]: ID: to=<{queue_id.lower()}@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=1, delays=0/0/0/1,"
        f" dsn={code}, status={status} (host mx.dest.test[192.0.2.1] said: {code.replace('.', '')} {code} so)",
    )


def message(hour: int, queue_id: str, *outcomes: str) -> str:
    arrived = line(hour, queue_id, "smtpd[1]: ID: client=a.src.test[192.0.2.9]")
    queued = line(hour, queue_id, "qmgr[1]: ID: from=<s@src.test>, size=1, nrcpt=1 (queue active)")
    return arrived + queued + "".join(outcomes)


def removed(hour: int, queue_id: str) -> str:
    return line(hour, queue_id, "qmgr[1]: ID: removed")


DAY = (
    message(1, "AAA1F", outcome(1, "AAA1F", "4.2.2", "deferred"))  # soft before the period
    + message(2, "BBB2F", outcome(2, "BBB2F", "2.0.0", "sent"), removed(2, "BBB2F"))
    + outcome(6, "AAA1F", "4.2.2", "deferred")  # not soft again
    + message(6, "CCC3F", outcome(6, "CCC3F", "5.1.1", "bounced"), removed(6, "CCC3F"))
    + message(7, "DDD4F", outcome(7, "DDD4F", "4.7.1", "deferred"))
    + outcome(8, "AAA1F", "2.0.0", "sent")
    + removed(8, "AAA1F")
    + message(11, "EEE5F", outcome(11, "EEE5F", "5.7.1", "bounced"), removed(11, "EEE5F"))
    + outcome(12, "DDD4F", "2.0.0", "sent")
    + removed(12, "DDD4F")
)


@pytest.mark.parametrize("lines_in_a_block", [1, 3, 7, 1000])
def test_a_period_counts_what_it_covers_and_remembers_what_came_before(lines_in_a_block: int) -> None:
    begin, end = (datetime(2026, 11, 24, hour, tzinfo=UTC).timestamp() for hour in (5, 10))
    ledger, report, earlier = Ledger(), Report(), Report()
    parts = [Part(Period(begin, end), report), Part(Period(begin - 4 * 3600, begin), earlier)]
    reader, lines = parser("postfix").reader(), DAY.splitlines(keepends=True)
    for start in range(0, len(lines), lines_in_a_block):
        count_parts(ledger, reader.block("".join(lines[start : start + lines_in_a_block])), parts)  # type: ignore[attr-defined]
    found = report.as_json({}, ledger.memory.waiting.total())
    assert found["recipients"] == {"delivered": 1, "bounced": 1, "expired": 0, "waiting": 1}
    assert found["bounces"] == {"soft": 1, "hard": 1}
    assert found["attempts"] == {"delivered": 1, "deferred": 2, "bounced": 1, "expired": 0}
    assert (found["from"], found["to"]) == ("2026-11-24T06:00:00Z", "2026-11-24T08:00:00Z")
    assert earlier.as_json({}, 0)["bounces"] == {"soft": 1, "hard": 0}
    assert earlier.as_json({}, 0)["recipients"]["delivered"] == 1


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "mail.log"
    found.write_text(DAY)
    return found


def test_parse_prints_what_a_period_covers(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("parse", "--since", "2026-11-24T06:00Z", "--until", "2026-11-24T08:00Z", log).stdout
    assert [json.loads(each)["queue_id"] for each in printed.splitlines()] == ["AAA1F", "CCC3F", "DDD4F"]


def test_trace_tells_what_a_period_covers(bouncemeter: Run, log: Path) -> None:
    printed = bouncemeter("trace", "--since", "2026-11-24T02:00Z", "--format", "json", "AAA1F", log).stdout
    assert [each["outcome"] for each in json.loads(printed)["entries"] if "outcome" in each] == [
        "deferred",
        "delivered",
    ]


def test_a_wrong_moment_is_told_in_a_sentence(bouncemeter: Run, log: Path) -> None:
    done = bouncemeter("parse", "--since", "soon", log, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bouncemeter: 'soon' is not a moment such as")
