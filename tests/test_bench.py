"""The log that `make bench` reads is like a real log."""

from __future__ import annotations

import pytest
from bouncemeter_exporter.sources.log import LogReader

from tests.bench.traffic import day


@pytest.mark.parametrize("mta", ["postfix", "exim"])
def test_a_day_of_mail_is_the_same_each_time_and_about_a_quarter_outcomes(mta: str) -> None:
    lines = list(day(mta, 20_000))
    assert lines == list(day(mta, 20_000))
    log = LogReader("day")
    log.read("".join(f"{line}\n" for line in lines))
    assert log.parser is not None
    assert log.parser.name == mta
    assert log.counts["unparsed"] == 0
    assert 0.2 < log.counts["event"] / len(lines) < 0.4
