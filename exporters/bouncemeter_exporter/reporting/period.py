"""Periods of time, as `--since` and `--until` name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import NamedTuple

from bouncemeter.blocks import Block
from bouncemeter.event import Entry

from bouncemeter_exporter.config import seconds
from bouncemeter_exporter.counting.facts import Counts, Fact
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.ordinary import OrdinaryMail

__all__ = ["ALWAYS", "Part", "Period", "count_parts", "earlier", "moment"]


@dataclass(frozen=True, slots=True)
class Period:
    """A period of log time.

    Attributes:
        since: Its beginning, in seconds since 1970 UTC; None if it has none.
        until: Its end, which is no longer part of it; None if it has none.
    """

    since: float | None = None
    until: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether it has a beginning or an end."""
        return self.since is not None or self.until is not None

    def covers(self, moment: float | None) -> bool:
        """Whether a moment is part of it. What has no time is part of a period without bounds alone."""
        if moment is None:
            return not self.bounded
        return (self.since is None or moment >= self.since) and not self.ended(moment)

    def ended(self, moment: float | None) -> bool:
        """Whether it has ended at a moment."""
        return self.until is not None and moment is not None and moment >= self.until

    @staticmethod
    def of(since: str | None, until: str | None, now: datetime | None = None) -> Period:
        """A period by the texts of its beginning and its end; see `moment`.

        Raises:
            ValueError: A text names no moment, or the end is not after the beginning.
        """
        now = now or datetime.now()  # noqa: DTZ005 - local time, as people name it
        found = Period(*(None if text is None else moment(text, now) for text in (since, until)))
        if found.since is not None and found.until is not None and found.until <= found.since:
            raise ValueError(f"--until {until} is not after --since {since}")
        return found


ALWAYS = Period()


def moment(text: str, now: datetime | None = None) -> float:
    """The moment that a text names, in seconds since 1970 UTC.

    Args:
        text: A date (its midnight), a date and a time, a time of today, `now`, `today`, `yesterday`, or how long ago,
            such as `2h` or `1d12h`. Without a zone it is local time.
        now: The current time.

    Raises:
        ValueError: It names none.
    """
    now = now or datetime.now()  # noqa: DTZ005 - local time, as people name it
    text = text.strip()
    midnight = datetime.combine(now.date(), time.min)
    words = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if text.lower() in words:
        return words[text.lower()].timestamp()
    try:
        return now.timestamp() - seconds(text.removesuffix(" ago"))
    except ValueError:
        pass
    try:
        if re.match(r"[0-9]{2}:", text):
            return datetime.combine(now.date(), time.fromisoformat(text)).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{text!r} is not a moment such as 2026-11-25, '2026-11-25 14:00', 14:00, yesterday or 2h (two hours ago)"
    )


def earlier(period: Period, text: str, now: datetime | None = None) -> Period:
    """A period as long as another one, to compare with it.

    Args:
        period: The other one, which has a beginning; without an end, it lasts until now.
        text: When it begins: a moment, or how long before the other one, such as `7d`; `yesterday` is a day before.
        now: The current time.

    Raises:
        ValueError: The text names no moment, or one that is not before the other period.
    """
    now = now or datetime.now()  # noqa: DTZ005 - local time, as people name it
    begin = datetime.fromtimestamp(period.since or 0.0)
    if text.strip().lower() == "yesterday":
        start = (begin - timedelta(days=1)).timestamp()
    else:
        try:
            start = begin.timestamp() - seconds(text.strip())
        except ValueError:
            start = moment(text, now)
    if start >= begin.timestamp():
        raise ValueError(f"--compare {text} is not before {begin:%Y-%m-%d %H:%M}, where the period begins")
    end = (now.timestamp() if period.until is None else period.until) - begin.timestamp() + start
    if end > begin.timestamp():
        raise ValueError(
            f"--compare {text} names a period that ends within the other one; take an earlier time, or a shorter period"
            " by --until"
        )
    return Period(start, end)


class Part(NamedTuple):
    """Counts of what a period covers."""

    period: Period
    counts: Counts


def count_parts(ledger: Ledger, block: Block, parts: Sequence[Part]) -> None:
    """Count the entries of a block, and the facts that follow from them, in each part whose period covers them. What
    comes before is remembered: a recipient deferred then is not deferred for the first time later. What comes after
    the last of the periods is left alone.

    Args:
        ledger: The ledger.
        block: Lines of a log.
        parts: What to count; the first ends last.
    """
    if len(parts) == 1 and not parts[0].period.bounded:
        ledger.count(block, parts[0].counts)
        return
    span = _span(block)
    if span is not None and parts[0].period.ended(span[0]):
        return
    if span is not None and not parts[0].period.ended(span[1]):
        touched = [part for part in parts if _touches(part.period, span)]
        if all(part.period.covers(end) for part in touched for end in span):
            ledger.count(block, _All([part.counts for part in touched]))
            return
    for entry in block:
        if not parts[0].period.ended(entry.time):
            facts = ledger.facts(entry)
            for part in parts:
                if part.period.covers(entry.time):
                    part.counts.count(entry, facts)


def _span(block: Block) -> tuple[float, float] | None:
    """The earliest and the latest time in a block; None if an entry has none, or there is none."""
    times = [entry.time for entry in block.entries]
    if block.rows is not None:
        times += [entry.time for entries in block.rows.parsed for entry in entries]
        times += block.rows.span() or ()
    known = [time for time in times if time is not None]
    return (min(known), max(known)) if known and len(known) == len(times) else None


def _touches(period: Period, span: tuple[float, float]) -> bool:
    """Whether any moment of a span may be part of a period."""
    return not period.ended(span[0]) and (period.since is None or span[1] >= period.since)


@dataclass(frozen=True, slots=True)
class _All:
    """Several counts that count the same."""

    counts: Sequence[Counts]

    def count(self, entry: Entry, facts: Sequence[Fact]) -> None:
        for each in self.counts:
            each.count(entry, facts)

    def count_ordinary(self, mail: OrdinaryMail) -> None:
        for each in self.counts:
            each.count_ordinary(mail)
