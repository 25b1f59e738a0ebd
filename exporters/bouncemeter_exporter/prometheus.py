"""The counts as Prometheus metrics: names, help texts and exemplars.

A scrape takes one snapshot under the lock that the reading thread holds while it counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from bouncemeter import __version__
from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from bouncemeter_exporter.counters import DELAY_BUCKETS, Counter, Counters, Delays, Example
from bouncemeter_exporter.ledger import Ledger
from bouncemeter_exporter.sources.follow import SourceStatus

__all__ = ["MailCollector"]

_COUNTERS = {
    "bounces": (
        "mail_bounces",
        ("mta", "kind", "class", "code", "reason", "provider"),
        "Recipients that bounced: soft at the first deferral, hard when refused for good.",
    ),
    "bounces_by_class": (
        "mail_bounces_by_class",
        ("mta", "kind", "class"),
        "Recipients that bounced, by class of the enhanced status code (RFC 3463); every class exists from the start.",
    ),
    "recipients": (
        "mail_recipients",
        ("mta", "outcome", "provider"),
        "Recipients by what became of them, each of each message once, at its end.",
    ),
    "attempts": (
        "mail_delivery_attempts",
        ("mta", "outcome", "class", "code"),
        "Delivery attempts as the log has them.",
    ),
    "rejections": (
        "mail_rejections",
        ("mta", "kind", "class", "code", "reason", "stage"),
        "Mail that our own server refused, by stage of the SMTP dialogue.",
    ),
    "notifications": (
        "mail_notifications",
        ("mta", "outcome"),
        "Recipients of mail with the empty sender (bounce messages), each once, at its end.",
    ),
    "blocklist_hits": (
        "mail_blocklist_hits",
        ("mta", "blocklist", "provider"),
        "Replies of other servers that name a blocklist, at every attempt.",
    ),
}


class MailCollector(Collector):
    """Gives the metrics of one run at each scrape.

    Args:
        counters: What was counted.
        ledger: Who waits.
        sources: What is read, asked at each scrape.
        lock: Held while counters and ledger change.
    """

    def __init__(
        self, counters: Counters, ledger: Ledger, sources: Iterable[SourceStatus], lock: threading.Lock
    ) -> None:
        self._counters, self._ledger, self._sources, self._lock = counters, ledger, sources, lock

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the registry need not scrape to register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metric families of one snapshot."""
        with self._lock:
            families = [*self._mail(), *self._own()]
        yield from families

    def _mail(self) -> Iterator[Metric]:
        for attribute, (name, names, text) in _COUNTERS.items():
            yield _counter_family(name, text, names, getattr(self._counters, attribute))
        yield _delay_family(self._counters.delays)
        yield from self._waiting()

    def _waiting(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "mail_deferred_recipients",
            "Recipients that wait for another attempt now.",
            labels=("mta", "class", "code", "provider"),
        )
        for labels, number in sorted(self._ledger.waiting.items()):
            family.add_metric(labels, number)
        yield family
        age = GaugeMetricFamily(
            "mail_deferred_oldest_seconds", "Age of the oldest recipient that waits; 0 if none does.", labels=("mta",)
        )
        now, oldest = time.time(), self._ledger.oldest()
        for mta in sorted({labels[0] for labels in self._counters.bounces_by_class.values}):
            age.add_metric((mta,), max(0.0, now - oldest[mta]) if mta in oldest else 0.0)
        yield age

    def _own(self) -> Iterator[Metric]:
        lines = CounterMetricFamily(
            "bouncemeter_lines",
            "Lines read: event (an outcome), other (of no interest), unparsed (should have been understood).",
            labels=("source", "mta", "result"),
        )
        offset = GaugeMetricFamily(
            "bouncemeter_source_offset_bytes", "Bytes of the source's present files that are read.", labels=("source",)
        )
        size = GaugeMetricFamily(
            "bouncemeter_source_size_bytes", "Size of the source's present files.", labels=("source",)
        )
        for source in self._sources:
            for (mta, result), number in source.lines().items():
                lines.add_metric((source.name, mta, result), number)
            offset.add_metric((source.name,), source.offset)
            size.add_metric((source.name,), source.size)
        yield lines
        yield offset
        yield size
        last = GaugeMetricFamily(
            "bouncemeter_last_event_timestamp_seconds", "Time of the latest outcome that was read.", labels=("mta",)
        )
        for mta, moment in self._counters.last_event.items():
            last.add_metric((mta,), moment)
        yield last
        entries = GaugeMetricFamily("bouncemeter_ledger_entries", "Messages that the ledger remembers.")
        entries.add_metric((), len(self._ledger))
        yield entries
        evicted = CounterMetricFamily(
            "bouncemeter_ledger_evicted", "Messages that the ledger forgot before they ended, by age or by number."
        )
        evicted.add_metric((), self._ledger.evicted)
        yield evicted
        build = GaugeMetricFamily("bouncemeter_build_info", "The version that runs.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build


def _exemplar(example: Example | None, value: float) -> Exemplar | None:
    return Exemplar({"queue_id": example.queue_id}, value, example.time) if example else None


def _counter_family(name: str, text: str, names: tuple[str, ...], counter: Counter) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=names)
    for labels, number in counter.values.items():
        family.add_metric(labels, number, exemplar=_exemplar(counter.examples.get(labels), 1.0))
    return family


def _delay_family(delays: Mapping[tuple[str, ...], Delays]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "mail_delivery_delay_seconds",
        "Seconds from acceptance to the recipient's end.",
        labels=("mta", "outcome"),
    )
    bounds = [*(f"{bound:.1f}" for bound in DELAY_BUCKETS), "+Inf"]
    for labels, each in delays.items():
        below = 0
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for position, bound in enumerate(bounds):
            below += each.counts[position]
            example, seconds = each.examples.get(position, (None, 0.0))
            exemplar = _exemplar(example, seconds)
            buckets.append((bound, float(below), exemplar) if exemplar else (bound, float(below)))
        family.add_metric(labels, buckets, each.total)
    return family
