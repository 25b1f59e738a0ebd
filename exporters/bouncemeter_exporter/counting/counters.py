"""Everything that is counted, in plain dictionaries by label values. This module defines the metrics' labels.

Labels have closed sets of values, whatever a remote server writes. `bouncemeter.knowledge.codes.label` limits codes
and classes; reasons and providers come from closed lists.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from bouncemeter.blocks import Row
from bouncemeter.event import EnhancedCode, Entry, Event, Kind, Outcome, undefined_code
from bouncemeter.knowledge.blocklists import blocklists_of
from bouncemeter.knowledge.codes import label
from bouncemeter.knowledge.providers import provider_of
from bouncemeter.knowledge.reasons import reason_of

from bouncemeter_exporter.counting.facts import Fact, FactKind
from bouncemeter_exporter.counting.ordinary import OrdinaryMail

__all__ = ["BOUNDS", "MAX_SERIES", "Counter", "Counters", "Delays", "Exemplar", "Labels", "Numbers"]

T = TypeVar("T")

Labels = tuple[str, ...]

Numbers = dict[str, Mapping[Labels, float]]
"""For each thing that is counted, its numbers by label values."""

DELAY_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 432000.0)
"""Upper bounds in seconds: from a second to five days, the usual queue lifetime."""

MAX_SERIES = 10_000
"""Series of one metric at most. A busy server has a few hundred; more mean that remote servers make up codes."""

BOUNDS = (*(f"{bound:.1f}" for bound in DELAY_BUCKETS), "+Inf")
"""The same bounds as Prometheus writes them."""

CLASSES = tuple(
    (kind, f"{digit}.{subject}") for digit, kind in ((4, Kind.SOFT), (5, Kind.HARD)) for subject in range(8)
)
"""Every class that RFC 3463 defines, with its kind."""


class Exemplar(NamedTuple):
    """A message behind a number: its queue ID, and the time in the log."""

    queue_id: str
    time: float | None


_QUEUE_ID = re.compile("[0-9A-Za-z-]{1,64}")


def _exemplar(queue_id: str | None, time: float | None) -> Exemplar | None:
    """The exemplar for a message, if its queue ID is well-formed: nothing else goes into an exemplar."""
    return Exemplar(queue_id, time) if queue_id is not None and _QUEUE_ID.fullmatch(queue_id) else None


class Counter:
    """Counts by label values, with the latest exemplar of each.

    Args:
        names: The labels' names.

    Attributes:
        folded: The number counted under `other` because there were `MAX_SERIES` already.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.values: defaultdict[Labels, int] = defaultdict(int)
        self.exemplars: dict[Labels, Exemplar] = {}
        self.folded = 0

    def add(self, labels: Labels, exemplar: Exemplar | None, number: int = 1) -> None:
        """Count one, or more."""
        if len(self.values) >= MAX_SERIES and labels not in self.values:
            self.folded += number
            labels = self._fold(labels)
        self.values[labels] += number
        if exemplar is not None:
            self.exemplars[labels] = exemplar

    def _fold(self, labels: Labels) -> Labels:
        """The labels, with `other` for each value that a remote server can vary."""
        found = dict(zip(self.names, labels, strict=True))
        others = {"code": f"{found.get('class')}.x", "reason": "other", "provider": "other"}
        return tuple(others.get(name, value) for name, value in found.items())


@dataclass(slots=True)
class Delays:
    """A histogram of seconds: counts by bucket (the last has no bound), sum, and an exemplar for each bucket."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BUCKETS) + 1))
    total: float = 0.0
    exemplars: dict[int, tuple[Exemplar, float]] = field(default_factory=dict)

    def add(self, seconds: float, exemplar: Exemplar | None) -> None:
        """Count one delay."""
        bucket = bisect_left(DELAY_BUCKETS, seconds)
        self.counts[bucket] += 1
        self.total += seconds
        if exemplar is not None:
            self.exemplars[bucket] = (exemplar, seconds)

    def add_all(self, delays: Sequence[tuple[float, T]], exemplar_of: Callable[[T], Exemplar | None]) -> None:
        """Count many delays, each with something to make an exemplar from."""
        bucket = {seconds: bisect_left(DELAY_BUCKETS, seconds) for seconds, _ in delays}
        buckets = [bucket[seconds] for seconds, _ in delays]
        latest = dict(zip(buckets, delays, strict=True))
        for each, number in Tally(buckets).items():
            self.counts[each] += number
            seconds, item = latest[each]
            if (exemplar := exemplar_of(item)) is not None:
                self.exemplars[each] = (exemplar, seconds)
        self.total += sum(seconds for seconds, _ in delays)


class Counters:
    """All counts of a run.

    Attributes:
        bounces: mta, kind, class, code, reason, provider: recipients.
        bounces_by_class: mta, kind, class: the same.
        bounced_messages: mta, kind, class: messages with such a recipient, each once a kind and class.
        backlog_bounces: mta, kind, class: of the bounces, those read while `catching_up`.
        recipients: mta, outcome, provider: each recipient once, at its end.
        attempts: mta, outcome, class, code: every attempt.
        rejections: mta, kind, class, code, reason, stage: mail that our own server refused.
        notifications: mta, outcome: recipients of mail with the empty sender, each once, at its end.
        blocklist_hits: mta, blocklist, provider: replies that name a blocklist.
        delays: mta, outcome: seconds from acceptance to the end.
        last_event: mta: the time of the latest outcome.
        catching_up: Whether the lines that are read were there before reading began: what they say is not new.
    """

    def __init__(self) -> None:
        self.bounces = Counter("mta", "kind", "class", "code", "reason", "provider")
        self.bounces_by_class = Counter("mta", "kind", "class")
        self.bounced_messages = Counter("mta", "kind", "class")
        self.backlog_bounces = Counter("mta", "kind", "class")
        self.recipients = Counter("mta", "outcome", "provider")
        self.attempts = Counter("mta", "outcome", "class", "code")
        self.rejections = Counter("mta", "kind", "class", "code", "reason", "stage")
        self.notifications = Counter("mta", "outcome")
        self.blocklist_hits = Counter("mta", "blocklist", "provider")
        self.delays: defaultdict[Labels, Delays] = defaultdict(Delays)
        self.last_event: dict[str, float] = {}
        self.catching_up = False

    def counters(self) -> dict[str, Counter]:
        """The counters by the names of their attributes."""
        return {name: each for name, each in vars(self).items() if isinstance(each, Counter)}

    def numbers(self) -> Numbers:
        """Everything that was counted, as plain numbers."""
        found: Numbers = {name: dict(each.values) for name, each in self.counters().items()}
        found["folded"] = {(name,): each.folded for name, each in self.counters().items() if each.folded}
        found["delay_buckets"] = {
            (*labels, bound): each.counts[position]
            for labels, each in self.delays.items()
            for position, bound in enumerate(BOUNDS)
            if each.counts[position]
        }
        found["delay_sum"] = {labels: each.total for labels, each in self.delays.items()}
        found["last_event"] = {(mta,): moment for mta, moment in self.last_event.items()}
        return found

    def restore(self, numbers: Numbers) -> None:
        """Start from what `numbers` returned."""
        counters = self.counters()
        for name, counter in counters.items():
            counter.values.update({labels: int(number) for labels, number in numbers.get(name, {}).items()})
        for (name,), number in numbers.get("folded", {}).items():
            if name in counters:
                counters[name].folded = int(number)
        for (mta, outcome, bound), number in numbers.get("delay_buckets", {}).items():
            if bound in BOUNDS:
                self.delays[mta, outcome].counts[BOUNDS.index(bound)] = int(number)
        for labels, total in numbers.get("delay_sum", {}).items():
            self.delays[labels].total = total
        self.last_event.update({mta: moment for (mta,), moment in numbers.get("last_event", {}).items()})

    def announce(self, mta: str) -> None:
        """Start every class of a mail server at zero: `increase()` does not see the first count of a new series."""
        for kind, code_class in CLASSES:
            for counter in (self.bounces_by_class, self.bounced_messages, self.backlog_bounces):
                counter.values[mta, kind, code_class] += 0

    def count(self, entry: Entry, facts: Sequence[Fact]) -> None:
        """Count an entry of a log and the facts that the ledger drew from it."""
        if not isinstance(entry, Event):
            return
        # An expiry has the code of the last deferral, which the ledger knows.
        code_class, code = label(facts[0].event.code if facts else entry.code)
        if entry.time is not None:
            self.last_event[entry.mta] = max(entry.time, self.last_event.get(entry.mta, 0.0))
        exemplar = _exemplar(entry.queue_id, entry.time)
        if entry.outcome is Outcome.REJECTED:
            kind = entry.kind or Kind.HARD
            reason = reason_of(entry) or "other"
            stage = entry.stage or "data"
            self.rejections.add((entry.mta, kind, code_class, code, reason, stage), exemplar)
            return
        self.attempts.add((entry.mta, entry.outcome, code_class, code), exemplar)
        if entry.outcome is not Outcome.DELIVERED:
            for blocklist in blocklists_of(entry):
                provider = provider_of(entry.relay, entry.recipient)
                self.blocklist_hits.add((entry.mta, blocklist, provider), exemplar)
        for fact in facts:
            self._fact(fact, exemplar)

    def _fact(self, fact: Fact, exemplar: Exemplar | None) -> None:
        event = fact.event
        if fact.kind is FactKind.NOTIFICATION:
            if fact.outcome is not Outcome.DEFERRED:
                self.notifications.add((event.mta, fact.outcome), exemplar)
            return
        if fact.kind is FactKind.ENDED:
            self.recipients.add((event.mta, fact.outcome, fact.provider), exemplar)
            if fact.delay is not None:
                self.delays[event.mta, fact.outcome].add(fact.delay, exemplar)
        if (kind := fact.bounce) is not None:
            code_class, code = label(event.code)
            reason = reason_of(event) or "other"
            self.bounces.add((event.mta, kind, code_class, code, reason, fact.provider), exemplar)
            self.bounces_by_class.add((event.mta, kind, code_class), exemplar)
            if self.catching_up:
                self.backlog_bounces.add((event.mta, kind, code_class), None)
            if fact.first:
                self.bounced_messages.add((event.mta, kind, code_class), exemplar)

    def count_ordinary(self, mail: OrdinaryMail) -> None:
        """Count ordinary mail."""
        mta, time, queue_id = mail.mta, mail.times(), mail.rows.reader.columns.queue_id

        def exemplar(row: Row) -> Exemplar | None:
            return _exemplar(row[queue_id], time(row))

        for text, row, number in mail.counted(mail.codes()):
            found = EnhancedCode.parse(text) if text else undefined_code(Outcome.DELIVERED, None)
            self.attempts.add((mta, Outcome.DELIVERED, *label(found)), exemplar(row), number)
        for provider, row, number in mail.counted(mail.providers()):
            self.recipients.add((mta, Outcome.DELIVERED, provider), exemplar(row), number)
        delays = zip(mail.delays(), mail.deliveries, strict=True)
        known = [(seconds, row) for seconds, row in delays if seconds is not None]
        if known:
            self.delays[mta, Outcome.DELIVERED].add_all(known, exemplar)
        if (latest := mail.latest()) is not None:
            self.last_event[mta] = max(latest, self.last_event.get(mta, 0.0))
