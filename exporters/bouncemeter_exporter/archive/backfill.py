"""The past as `serve` would have shown it: all metrics at regular moments of the time in logs."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
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
        say: Called with a sentence about what is left out.
    """

    logs: Logs
    step: int
    period: Period = ALWAYS
    senders: SenderGroups = field(default_factory=lambda: SenderGroups({}))
    say: Callable[[str], None] = lambda _: None
    counters: Counters = field(default_factory=Counters)
    ledger: Ledger = field(default_factory=Ledger)
    _shown: Snapshot = field(init=False)

    def samples(self) -> Iterator[tuple[int, list[Family]]]:
        """At each step, in whole seconds since 1970 UTC, all metrics with what the logs say of the time before. The
        first is at the step in which the logs begin, and has nothing yet.

        Raises:
            SourceError: A log cannot be read, or there is no time in it.
        """
        self.ledger.senders = bool(self.senders.names)
        self.counters.name_senders(self.senders)
        readers: dict[int, Part] = {}
        waiting: list[Part] = []
        now: int | None = None
        begin = None if self.period.since is None else int(self.period.since // self.step)
        for part in in_order(self.logs, self.step, "Reading"):
            readers[id(part.log)] = part
            if part.log.parser is not None and (part.log.parser.name,) not in self._announced():
                self.counters.announce(part.log.parser.name)
            at = part.period
            if at is not None and begin is not None and at < begin:
                self._count(part)
                continue
            if now is None and at is None:
                waiting.append(part)
                if len(waiting) > MAX_WITHOUT_TIME:
                    break
                continue
            if at is not None and (now is None or at > now) and not self.period.ended(at * self.step):
                yield from self._until(now, at, readers)
                now = at
            for each in (*waiting, part):
                self._count(each)
            waiting.clear()
        if now is None:
            raise SourceError(f"no line in {', '.join(self.logs.named)} has a time{self.period.bounded * ' in it'}")
        self.ledger.memory.forget_old()
        yield self._sample(now + 1, readers)

    def _announced(self) -> set[Labels]:
        return {labels[:1] for labels in self.counters.bounces_by_class.values}

    def _count(self, part: Part) -> None:
        count_parts(self.ledger, part.block, [PeriodPart(self.period, self.counters)])

    def _until(self, now: int | None, at: int, readers: dict[int, Part]) -> Iterator[tuple[int, list[Family]]]:
        """The samples after a period, up to the beginning of a later one."""
        if now is None:
            yield self._sample(at, readers)
        elif (at - now) * self.step > GAP:
            yield self._sample(now + 1, readers)
            yield self._sample(at, readers)
        else:
            yield (last := self._sample(now + 1, readers))
            for moment in range(now + 2, at + 1):
                yield self._silent(moment, last[1])

    def _sample(self, at: int, readers: dict[int, Part]) -> tuple[int, list[Family]]:
        lines: Tally[Labels] = Tally()
        for part in readers.values():
            if part.log.parser is not None:
                for result, number in part.log.counts.items():
                    lines[SOURCE, part.log.parser.name, result] += number
        numbers = {**self.counters.numbers(), "lines": {}, "dropped": {}}
        self._shown = replace(take_snapshot(self.counters, self.ledger.memory, (), numbers), lines=lines)
        moment = at * self.step
        families = MailCollector(lambda: self._shown, (), lambda: None, lambda: moment).families()
        up = Family("up", "gauge", "Prometheus' own: 1 if the exporter answers.")
        up.add((), 1)
        return moment, [*families, up]

    def _silent(self, at: int, families: list[Family]) -> tuple[int, list[Family]]:
        """The sample after a step in which there was no line."""
        oldest = oldest_family(self._shown, at * self.step)
        return at * self.step, [oldest if each.name == oldest.name else each for each in families]
