"""The counts as Prometheus metrics: names, help texts and exemplars.

A scrape shows what the reading thread committed last; neither waits for the other.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bouncemeter import __version__
from bouncemeter.stamps import Clock
from prometheus_client import Metric, ProcessCollector
from prometheus_client.registry import Collector

from bouncemeter_exporter.counting.counters import BOUNDS, MAX_SERIES, Counters, Delays, Exemplar, Labels, Numbers
from bouncemeter_exporter.counting.memory import Memory, Waiting
from bouncemeter_exporter.counting.recent import Day
from bouncemeter_exporter.serving.exposition import Family, Sample
from bouncemeter_exporter.sources.source import Source

__all__ = ["MailCollector", "Snapshot", "oldest_family", "process_families", "take_snapshot"]

_COUNTERS = {
    "bounces": "Recipients that bounced: soft at the first deferral, hard when refused for good.",
    "bounces_by_class": "Recipients that bounced, by class of the enhanced status code (RFC 3463); every class exists"
    " from the start.",
    "bounces_by_sender": "Recipients that bounced, by the groups of senders that the configuration names.",
    "bounced_messages": "Messages of which a recipient bounced, each once a kind and class; every class exists from the"
    " start.",
    "backlog_bounces": "Recipients that bounced, of lines that were there before the exporter began to read: history,"
    " not news.",
    "recipients": "Recipients by what became of them, each of each message once, at its end.",
    "attempts": "Delivery attempts as the log has them.",
    "rejections": "Mail that our own server refused, by stage of the SMTP dialogue.",
    "notifications": "Recipients of mail with the empty sender (bounce messages), each once, at its end.",
    "blocklist_hits": "Replies of other servers that name a blocklist, at every attempt.",
}
_NAMES = {"attempts": "mail_delivery_attempts", "backlog_bounces": "bouncemeter_backlog_bounces"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers that a scrape shows: all from one commit, so that a crash cannot take any of them back.

    Attributes:
        counters: The counts, with their exemplars.
        delays: By mta and outcome, with their exemplars.
        last_event: By mta, the time of the latest outcome.
        lines: By source, mta and result.
        offsets: Bytes read, by source.
        dropped: Messages that were lost before they could be read, by source.
        waiting: Recipients that wait, by mta, class, code and provider.
        oldest: By mta, the first deferral of the recipient that has waited longest, in seconds since 1970 UTC.
        entries, evicted: Messages that the ledger remembers, and messages that it forgot before they ended.
        folded: By provider, what was counted under `other` because a metric had too many series.
        day: The last day by the time in the log.
    """

    counters: Mapping[str, Counted]
    delays: Mapping[Labels, Delays]
    last_event: Mapping[str, float]
    lines: Mapping[Labels, float]
    offsets: Mapping[str, int]
    dropped: Mapping[str, int]
    waiting: Mapping[Waiting, int]
    oldest: Mapping[str, float]
    entries: int
    evicted: int
    folded: Mapping[str, int]
    day: Day


class Counted(NamedTuple):
    """One metric's counts."""

    names: tuple[str, ...]
    values: Mapping[Labels, float]
    exemplars: Mapping[Labels, Exemplar]


def take_snapshot(counters: Counters, memory: Memory, sources: Iterable[Source], numbers: Numbers) -> Snapshot:
    """The numbers to show until the next commit.

    Args:
        counters, memory: The counts, and the recipients that wait.
        sources: The sources being read.
        numbers: All numbers, by name: those of the counters, `lines` and `dropped`.
    """
    kinds = counters.counters()
    names, folded = {source.name for source in sources}, Tally(other=0)
    for each in kinds.values():
        folded.update(each.folded)
    return Snapshot(
        counters={name: Counted(each.names, numbers[name], dict(each.exemplars)) for name, each in kinds.items()},
        delays={labels: each.copy() for labels, each in counters.delays.items()},
        last_event=dict(counters.last_event),
        lines={labels: number for labels, number in numbers["lines"].items() if labels[0] in names},
        offsets={source.name: source.offset for source in sources},
        dropped={source: int(number) for (source,), number in numbers["dropped"].items()},
        waiting=_bounded(memory.waiting),
        oldest=memory.oldest(),
        entries=len(memory),
        evicted=memory.evicted,
        folded=folded,
        day=counters.recent.day,
    )


def _bounded(waiting: Mapping[Waiting, int]) -> Mapping[Waiting, int]:
    """The recipients that wait, with rare series beyond `MAX_SERIES` folded into the rest of their class."""
    if len(waiting) <= MAX_SERIES:
        return dict(waiting)
    found: Tally[Waiting] = Tally()
    for rank, (labels, number) in enumerate(Tally(waiting).most_common()):
        mta, code_class, *_ = labels
        found[labels if rank < MAX_SERIES else (mta, code_class, f"{code_class}.x", "other")] += number
    return found


class MailCollector(Collector):
    """Returns the metrics of one run at each scrape.

    Args:
        snapshot: Returns the current snapshot.
        sources: The sources being read; each scrape asks for their size and whether they can be read.
        state_writable: Returns whether the state could be written; None if no state is kept.
        clock: Supplies the current time.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        sources: Iterable[Source],
        state_writable: Callable[[], bool | None],
        clock: Clock = time.time,
    ) -> None:
        self._snapshot, self._sources, self._state_writable, self._clock = snapshot, sources, state_writable, clock

    def describe(self) -> Iterable[Metric]:
        """No families: the registry need not collect any to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metric families of one moment, as objects of prometheus-client."""
        return (family.as_metric() for family in self.families())

    def families(self) -> Iterator[Family]:
        """The metric families of one moment."""
        snapshot = self._snapshot()
        yield from self._mail(snapshot)
        yield from self._sources_read(snapshot)
        yield from self._own(snapshot)

    def _mail(self, snapshot: Snapshot) -> Iterator[Family]:
        for attribute, text in _COUNTERS.items():
            counted = snapshot.counters[attribute]
            if attribute == "bounces_by_sender" and not counted.values:
                continue  # no groups of senders are configured
            family = Family(_NAMES.get(attribute, f"mail_{attribute}"), "counter", text, counted.names)
            for labels, number in counted.values.items():
                family.add(labels, number, counted.exemplars.get(labels))
            yield family
        yield _delay_family(snapshot.delays)
        family = Family(
            "mail_deferred_recipients",
            "gauge",
            "Recipients that wait for another attempt now.",
            ("mta", "class", "code", "provider"),
        )
        for labels, number in sorted(snapshot.waiting.items()):
            family.add(labels, number)
        yield family
        yield oldest_family(snapshot, self._clock())

    def _sources_read(self, snapshot: Snapshot) -> Iterator[Family]:
        lines = Family(
            "bouncemeter_lines",
            "counter",
            "Lines read: event (an outcome), other (of no interest), unparsed (should have been understood).",
            ("source", "mta", "result"),
        )
        for labels, number in snapshot.lines.items():
            lines.add(labels, number)
        yield lines
        by = ("source",)
        offset = Family(
            "bouncemeter_source_offset_bytes", "gauge", "Bytes of the source's present files that are read.", by
        )
        size = Family("bouncemeter_source_size_bytes", "gauge", "Size of the source's present files.", by)
        up = Family("bouncemeter_source_up", "gauge", "1 if the source is there and can be read, else 0.", by)
        dropped = Family(
            "bouncemeter_source_dropped",
            "counter",
            "Messages that came by UDP while the kernel had no room for them.",
            by,
        )
        for source in self._sources:
            read = snapshot.offsets.get(source.name, 0)
            offset.add((source.name,), read)
            size.add((source.name,), max(read, source.size))
            up.add((source.name,), float(source.up))
            dropped.add((source.name,), snapshot.dropped.get(source.name, 0))
        yield from (offset, size, up, dropped)

    def _own(self, snapshot: Snapshot) -> Iterator[Family]:
        last = Family(
            "bouncemeter_last_event_timestamp_seconds", "gauge", "Time of the latest outcome that was read.", ("mta",)
        )
        for mta, moment in snapshot.last_event.items():
            last.add((mta,), moment)
        yield last
        yield _one("bouncemeter_ledger_entries", "gauge", "Messages that the ledger remembers.", snapshot.entries)
        yield _one(
            "bouncemeter_ledger_evicted",
            "counter",
            "Messages that the ledger forgot before they ended, by age or by number.",
            snapshot.evicted,
        )
        folded = Family(
            "bouncemeter_series_dropped",
            "counter",
            "What was counted with reason and provider other, because a metric had too many series.",
            ("provider",),
        )
        for provider, number in snapshot.folded.items():
            folded.add((provider,), number)
        yield folded
        writable = self._state_writable()
        if writable is not None:
            yield _one(
                "bouncemeter_state_writable",
                "gauge",
                "1 if the state could be written; if 0, reading waits and the numbers stand still.",
                float(writable),
            )
        build = Family("bouncemeter_build_info", "gauge", "The version that runs.", ("version",))
        build.add((__version__,), 1)
        yield build


def oldest_family(snapshot: Snapshot, now: float) -> Family:
    """The one metric that changes while nothing happens."""
    age = Family(
        "mail_deferred_oldest_seconds", "gauge", "Age of the oldest recipient that waits; 0 if none does.", ("mta",)
    )
    oldest = snapshot.oldest
    for mta in sorted({labels[0] for labels in snapshot.counters["bounces_by_class"].values}):
        age.add((mta,), max(0.0, now - oldest[mta]) if mta in oldest else 0.0)
    return age


_PROCESS = ProcessCollector(registry=None)


def process_families() -> Iterator[Family]:
    """What this process takes of the machine, as every client library of Prometheus shows it (Linux alone)."""
    return map(Family.of, _PROCESS.collect())


def _one(name: str, kind: str, text: str, value: float) -> Family:
    """A family of one series without labels."""
    family = Family(name, kind, text)
    family.add((), value)
    return family


def _delay_family(delays: Mapping[Labels, Delays]) -> Family:
    names = ("mta", "outcome")
    family = Family(
        "mail_delivery_delay_seconds", "histogram", "Seconds from acceptance to the recipient's end.", names
    )
    for labels, each in delays.items():
        below = 0
        for position, bound in enumerate(BOUNDS):
            below += each.counts[position]
            exemplar, seconds = each.exemplars.get(position, (None, 0.0))
            family.samples.append(Sample("_bucket", (*names, "le"), (*labels, bound), below, exemplar, seconds))
        family.samples.append(Sample("_count", names, labels, below))
        family.samples.append(Sample("_sum", names, labels, each.total))
    return family
