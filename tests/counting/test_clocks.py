"""Clocks that jump: whatever the stamps say, each recipient counts once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from bouncemeter.plugin import BlockReader, parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger

from tests.bench.soak import lives
from tests.counting.test_lives import WRITERS, Life, Truth

Clock = Callable[[float], datetime]
"""What a server's clock shows at a moment, in seconds since 1970 UTC."""

MESSAGES, EVERY = 600, 5.0


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def jumps(begin: float, seconds: float, last: float = 1e9) -> Clock:
    """A clock that is wrong by some seconds from a moment on, perhaps for a while."""
    return lambda now: datetime.fromtimestamp(now + (seconds if begin <= now < begin + last else 0), UTC)


def local(zone: str) -> Clock:
    return lambda now: datetime.fromtimestamp(now, ZoneInfo(zone))


NOON = moment("2026-11-20T12:00:00Z")
CLOCKS: dict[str, tuple[float, Clock]] = {
    "an hour back": (NOON, jumps(NOON + 1500, -3600)),
    "an hour forward": (NOON, jumps(NOON + 1500, 3600)),
    "a day forward for ten minutes": (NOON, jumps(NOON + 1500, 86_400, 600)),
    "a day back for ten minutes": (NOON, jumps(NOON + 1500, -86_400, 600)),
    "ten days back": (NOON, jumps(NOON + 1500, -864_000)),
    "five days forward": (NOON, jumps(NOON + 1500, 5 * 86_400)),
    "the end of summer time": (moment("2026-10-25T00:30:00Z"), local("Europe/Berlin")),
    "the beginning of summer time": (moment("2026-03-29T00:30:00Z"), local("Europe/Berlin")),
    "half an hour of summer time": (moment("2026-04-04T14:30:00Z"), local("Australia/Lord_Howe")),
    "a leap day": (moment("2028-02-28T23:30:00Z"), local("UTC")),
    "after a leap day": (moment("2028-02-29T23:30:00Z"), local("UTC")),
    "no leap day": (moment("2027-02-28T23:30:00Z"), local("UTC")),
    "new year": (moment("2026-12-31T23:30:00Z"), local("UTC")),
    "new year in local time": (moment("2026-12-31T22:30:00Z"), local("Europe/Berlin")),
}


def log(mta: str, begin: float, clock: Clock, truth: Truth) -> Iterator[tuple[float, str]]:
    """The lines of scripted messages in the order in which they come, as a server with this clock writes them."""
    chance, lines = random.Random(1), list[tuple[float, str]]()
    for number, (sender, recipients) in enumerate(islice(lives(chance), MESSAGES)):
        life = Life("mx1", f"{0xA0000 + number:X}F", sender, begin + number * EVERY, recipients)
        truth.add(life)
        lines += WRITERS[mta](life, chance)
    for now, text in sorted(lines):
        shown = clock(now)
        head, _, rest = text[15:].partition(": ")
        own = f"{shown:%Y-%m-%d %H:%M:%S}{rest[19:]}" if mta == "exim" else rest
        yield now, f"{shown:%b %e %H:%M:%S}{head}: {own}"


@pytest.mark.parametrize("mta", ["postfix", "exim"])
@pytest.mark.parametrize("kind", CLOCKS)
@pytest.mark.parametrize("size", [1, 500])
def test_the_counts_match_whatever_the_clock_shows(mta: str, kind: str, size: int) -> None:
    begin, clock = CLOCKS[kind]
    truth, now = Truth(), [begin]
    lines = list(log(mta, begin, clock, truth))
    read, counters = parser(mta).reader(lambda: now[0]), Counters()
    ledger = Ledger(clock=lambda: now[0])
    assert isinstance(read, BlockReader)
    for place in range(0, len(lines), size):
        piece = lines[place : place + size]
        now[0] = piece[-1][0]
        ledger.count(read.block("".join(f"{text}\n" for _, text in piece)), counters)
    ends = Counter[str]()
    for (_, outcome, _), number in counters.recipients.values.items():
        ends[outcome] += number
    kinds = Counter[str]()
    for (_, each, _), number in counters.bounces_by_class.values.items():
        kinds[each] += number
    assert ends == truth.recipients
    assert kinds == Counter(soft=truth.soft, hard=truth.hard)
    assert sum(counters.bounced_messages.values.values()) == truth.soft_messages + truth.hard_messages
    assert ledger.memory.waiting.total() == truth.waiting
    assert all(delays.total >= 0 for delays in counters.delays.values())
