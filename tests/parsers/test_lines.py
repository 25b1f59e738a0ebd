"""Bytes become lines, whatever their encoding and length; stamps without a year or zone become times."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from bouncemeter.stamps import Stamps
from bouncemeter_exporter.sources.lines import MAX_LINE, Lines
from hypothesis import given
from hypothesis import strategies as st


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"").lstrip(b"\0")), max_size=20),
    st.integers(),
)
def test_lines_do_not_depend_on_how_the_bytes_are_split(lines: list[bytes], seed: int) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    cutter, found, chance = Lines(), "", random.Random(seed)
    while stream:
        size = chance.randint(1, 40)
        found += cutter.feed(stream[:size])
        stream = stream[size:]
    assert found == "".join(line.removesuffix(b"\r").decode("utf-8", "backslashreplace") + "\n" for line in lines)
    assert cutter.end() == "rest\n"


@pytest.mark.parametrize("piece", [1, 1000, MAX_LINE, 10 * MAX_LINE])
@pytest.mark.parametrize("hole", [1, 4096, 3 * MAX_LINE])
def test_a_hole_before_a_line_costs_it_nothing(hole: int, piece: int) -> None:
    stream = b"one\n" + bytes(hole) + b"two\nthr\0ee\n" + bytes(hole)
    cutter, text = Lines(), ""
    for start in range(0, len(stream), piece):
        text += cutter.feed(stream[start : start + piece])
    assert text + cutter.end() == "one\ntwo\nthr\0ee\n"


@pytest.mark.parametrize("piece", [1000, MAX_LINE, 10 * MAX_LINE])
def test_an_endless_line_takes_bounded_memory_and_loses_no_other_line(piece: int) -> None:
    stream = b"one\n" + b"x" * (5 * MAX_LINE) + b"\ntwo\n"
    cutter, text = Lines(), ""
    for start in range(0, len(stream), piece):
        text += cutter.feed(stream[start : start + piece])
        assert cutter.held <= MAX_LINE
    assert text.endswith("\n")
    found = text.split("\n")[:-1]
    assert [found[0], found[-1]] == ["one", "two"]
    assert [len(line) for line in found] == [3, MAX_LINE, 3]


def test_bytes_that_are_not_utf8_stay_visible() -> None:
    assert Lines().feed(b"a\xff\x00b\r\n") == "a\\xff\x00b\n"


def seconds(stamp: str, now: str) -> str | None:
    stamps = Stamps(lambda: datetime.fromisoformat(now).timestamp())
    found = stamps.seconds(stamp)
    return None if found is None else datetime.fromtimestamp(found, UTC).isoformat()


@pytest.mark.parametrize(
    ("stamp", "now", "time"),
    [
        ("Nov 24 15:55:42", "2026-11-24T16:00:00+00:00", "2026-11-24T15:55:42+00:00"),
        ("Dec 31 23:59:59", "2027-01-01T00:00:05+00:00", "2026-12-31T23:59:59+00:00"),
        ("Jan  1 00:00:01", "2026-12-31T23:59:58+00:00", "2027-01-01T00:00:01+00:00"),
        ("Nov 26 00:00:00", "2026-11-24T16:00:00+00:00", "2025-11-26T00:00:00+00:00"),
        ("Feb 29 12:00:00", "2027-03-01T00:00:00+00:00", "2024-02-29T12:00:00+00:00"),
        ("Feb 31 12:00:00", "2027-03-01T00:00:00+00:00", None),
        ("Nov 24 15:55:42.25", "2026-11-24T16:00:00+00:00", "2026-11-24T15:55:42.250000+00:00"),
        ("2026-11-24T15:55:42.5+01:00", "2027-01-01T00:00:00+00:00", "2026-11-24T14:55:42.500000+00:00"),
        ("2026-11-24 15:55:42.123 +0100", "2027-01-01T00:00:00+00:00", "2026-11-24T14:55:42.123000+00:00"),
        ("2026-11-24 15:55:42", "2027-01-01T00:00:00+00:00", "2026-11-24T15:55:42+00:00"),
        ("2026-13-24 15:55:42", "2027-01-01T00:00:00+00:00", None),
        ("", "2027-01-01T00:00:00+00:00", None),
        ("Nov 4 15:55:42", "2026-11-24T16:00:00+00:00", "2026-11-04T15:55:42+00:00"),
        ("Apr 06 15:16:46 2016", "2026-11-24T16:00:00+00:00", "2016-04-06T15:16:46+00:00"),
        ("2016 Apr 6 15:16:46.5", "2026-11-24T16:00:00+00:00", "2016-04-06T15:16:46.500000+00:00"),
        ("Wed, Apr  6 2016 15:16:46", "2026-11-24T16:00:00+00:00", "2016-04-06T15:16:46+00:00"),
        ("Feb 31 2016 15:16:46", "2026-11-24T16:00:00+00:00", None),
        ("Nov", "2026-11-24T16:00:00+00:00", None),
    ],
)
def test_a_stamp_without_a_year_gets_the_latest_year_that_fits(stamp: str, now: str, time: str | None) -> None:
    assert seconds(stamp, now) == time


def test_a_live_log_crosses_the_turn_of_the_year() -> None:
    now = [datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()]
    stamps = Stamps(lambda: now[0])
    before = stamps.seconds("Dec 31 23:59:59")
    now[0] += 1
    assert stamps.seconds("Jan  1 00:00:00") == (before or 0) + 1


@pytest.mark.parametrize(
    ("stamps", "span"),
    [
        ({"Nov 24 10:00:00", "Nov 24 09:00:00", "Nov 24 11:00:00"}, ("Nov 24 09:00:00", "Nov 24 11:00:00")),
        ({"Nov 30 10:00:00", "Nov 31 09:00:00", "Nov 30 09:00:00"}, ("Nov 30 09:00:00", "Nov 30 10:00:00")),
        ({"Sep 30 10:00:00", "Oct  1 09:00:00"}, ("Sep 30 10:00:00", "Oct  1 09:00:00")),
        (
            {"2026-10-25T02:59:00+02:00", "2026-10-25T02:01:00+01:00"},
            ("2026-10-25T02:59:00+02:00", "2026-10-25T02:01:00+01:00"),
        ),
        (
            {"2026-10-25 02:59:00.5", "2026-10-25 02:59:00.25", "2026-10-25 02:59:00"},
            ("2026-10-25 02:59:00", "2026-10-25 02:59:00.5"),
        ),
        ({"Feb 31 10:00:00"}, None),
        (set(), None),
    ],
)
def test_the_span_of_stamps_is_their_earliest_and_latest(stamps: set[str], span: tuple[str, str] | None) -> None:
    read = Stamps(lambda: 1_796_000_000.0)
    assert read.span(stamps) == (span and (read.seconds(span[0]), read.seconds(span[1])))


def test_many_stamps_have_the_times_of_each_of_them() -> None:
    days = (
        "2026-10-25 ",
        "2026-10-25T",
        "2026-02-31 ",
        "Oct 25 ",
        "Oct  5 ",
        "Feb 31 ",
        "Oct 25 2026 ",
        "2026 Oct 25 ",
    )
    clocks = ("02:59:58", "02:59:00", "02:59:60", "02:60:07", "03:00:59", "2:59:58", "02:59")
    ends = ("", ".5", ".58", " 2026", " +0100", "+01:00", "+01:30", "-00:58", "Z", ":07", " 2007", ":07:08")
    stamps = {"", "x", ":00:00"} | {f"{day}{clock}{end}" for day in days for clock in clocks for end in ends}
    alone, together = Stamps(lambda: 1_796_000_000.0), Stamps(lambda: 1_796_000_000.0)
    times = together.times(stamps)
    assert times == {each: alone.seconds(each) for each in stamps}
    assert sum(time is not None for time in times.values()) > 100


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1969-12-31T00:00:00Z"])
def test_a_stamp_at_the_edge_of_the_calendar_is_no_time(stamp: str) -> None:
    assert Stamps().seconds(stamp) is None
