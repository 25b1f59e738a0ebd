"""The past as `serve` would have shown it: all metrics at regular moments of the time in logs."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from bouncemeter_exporter.archive.order import Part, in_order
from bouncemeter_exporter.archive.samples import Samples, Timeline
from bouncemeter_exporter.counting.counters import Counters, Labels
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.senders import SenderGroups
from bouncemeter_exporter.reporting.logs import Logs
from bouncemeter_exporter.reporting.period import ALWAYS, Period, count_parts
from bouncemeter_exporter.reporting.period import Part as PeriodPart
from bouncemeter_exporter.serving.exposition import Family
from bouncemeter_exporter.serving.metrics import MailCollector, Snapshot, oldest_family, take_snapshot
from bouncemeter_exporter.sources.lines import SourceError

__all__ = ["GAP", "Past", "Target", "Written", "backfill"]

GAP = 86400
"""Seconds without a line after which there are no samples until the next: nothing ran, or the logs are gone."""

SOURCE = "archive"
"""The label `source` of the lines."""

MAX_WITHOUT_TIME = 100
"""Blocks at the beginning whose lines have no time, after which there is none."""


class Target(Protocol):
    """Something that takes samples."""

    def write(self, samples: Samples, /) -> None:
        """Take samples, all of which are later than those before."""
        ...

    def end(self) -> None:
        """Nothing more will come."""
        ...


class Written(NamedTuple):
    """What was written.

    Attributes:
        samples, series: How many.
        begin, end: The times of the first samples and the last, in seconds since 1970 UTC.
    """

    samples: int
    series: int
    begin: int
    end: int


def backfill(past: Past, length: int, target: Target) -> Written:
    """Write the past.

    Args:
        past: The logs.
        length: Seconds of samples that are written together.
        target: Where to.

    Raises:
        SourceError: A log cannot be read, or there is no time in it.
        OSError: The target cannot be written.
    """
    timeline, number, begin, end = Timeline(length), 0, 0, 0

    def write(pieces: Iterable[Samples]) -> None:
        nonlocal number, begin, end
        for samples in pieces:
            number += len(samples)
            begin, end = begin or samples.times[0], samples.times[-1]
            target.write(samples)

    for moment, families in past.samples():
        write(timeline.add(moment, families))
    write(timeline.end())
    target.end()
    return Written(number, timeline.series, begin, end)


@dataclass(slots=True)
class Past:
    """Logs, as they are counted.

    Args:
        logs: The logs, in any order.
        step: Seconds between samples.
        period: What to count; what comes before is remembered, as in a report.
        senders: The groups of senders to count by.
    """

    logs: Logs
    step: int
    period: Period = ALWAYS
    senders: SenderGroups = field(default_factory=lambda: SenderGroups({}))
    counters: Counters = field(default_factory=Counters)
    ledger: Ledger = field(default_factory=Ledger)
    _lines: Tally[Labels] = field(default_factory=Tally)
    _shown: Snapshot = field(init=False)

    def samples(self) -> Iterator[tuple[int, list[Family]]]:
        """At each step, in whole seconds since 1970 UTC, all metrics with what the logs say of the time before. The
        first is at the step in which the logs begin, and has nothing yet.

        Raises:
            SourceError: A log cannot be read, or there is no time in it.
        """
        self.ledger.senders = bool(self.senders.names)
        self.counters.name_senders(self.senders)
        announced: set[str | None] = {None}
        waiting: list[Part] = []
        now: int | None = None
        begin = None if self.period.since is None else int(self.period.since // self.step)
        for part in in_order(self.logs, self.step, "Reading"):
            if part.mta is not None and part.mta not in announced:
                announced.add(part.mta)
                self.counters.announce(part.mta)
            at = part.period
            if at is not None and begin is not None and at < begin:
                self._count(part)
                continue
            if part.block.empty:
                self._count(part)
                continue
            if now is None and at is None:
                waiting.append(part)
                if len(waiting) > MAX_WITHOUT_TIME:
                    break
                continue
            if at is not None and (now is None or at > now) and not self.period.ended(at * self.step):
                yield from self._until(now, at)
                now = at
            for each in (*waiting, part):
                self._count(each)
            waiting.clear()
        if now is None:
            what = "is of that time" if self.period.bounded else "has a time"
            raise SourceError(f"no line in {', '.join(self.logs.named)} {what}")
        self.ledger.memory.forget_old()
        yield self._sample(now + 1)

    def _count(self, part: Part) -> None:
        count_parts(self.ledger, part.block, [PeriodPart(self.period, self.counters)])
        if part.mta is not None:
            block = part.block
            for result, number in (("event", block.events), ("other", block.other), ("unparsed", block.unparsed)):
                self._lines[SOURCE, part.mta, result] += number

    def _until(self, now: int | None, at: int) -> Iterator[tuple[int, list[Family]]]:
        """The samples after a period, up to the beginning of a later one."""
        if now is None:
            yield self._sample(at)
        elif (at - now) * self.step > GAP:
            yield self._sample(now + 1)
            yield self._sample(at)
        else:
            yield (last := self._sample(now + 1))
            for moment in range(now + 2, at + 1):
                yield self._silent(moment, last[1])

    def _sample(self, at: int) -> tuple[int, list[Family]]:
        numbers = {**self.counters.numbers(), "lines": {}, "dropped": {}}
        snapshot = take_snapshot(self.counters, self.ledger.memory, (), numbers)
        self._shown = replace(snapshot, lines=dict(self._lines))
        moment = at * self.step
        families = MailCollector(lambda: self._shown, (), lambda: None, lambda: moment).families()
        up = Family("up", "gauge", "Prometheus' own: 1 if the exporter answers.")
        up.add((), 1)
        return moment, [*families, up]

    def _silent(self, at: int, families: list[Family]) -> tuple[int, list[Family]]:
        """The sample after a step in which there was no line."""
        oldest = oldest_family(self._shown, at * self.step)
        return at * self.step, [oldest if each.name == oldest.name else each for each in families]
