"""Everything that is counted, in plain dictionaries by label values. This module defines the metrics' labels.

Labels have closed sets of values, whatever a remote server writes. `bouncemeter.knowledge.codes.label` limits codes
and classes; reasons and providers come from closed lists.
"""

from __future__ import annotations

import re
import time
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
from bouncemeter.stamps import Clock

from bouncemeter_exporter.counting.facts import Fact, FactKind
from bouncemeter_exporter.counting.ordinary import OrdinaryMail
from bouncemeter_exporter.counting.recent import SLOT, Recent, Slot
from bouncemeter_exporter.counting.senders import SenderGroups

__all__ = ["BOUNDS", "MAX_SERIES", "POLICY", "Counter", "Counters", "Delays", "Exemplar", "Labels", "Numbers"]

T = TypeVar("T")

Labels = tuple[str, ...]

Numbers = dict[str, Mapping[Labels, float]]
"""For each thing that is counted, its numbers by label values."""

DELAY_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 432000.0)
"""Upper bounds in seconds: from a second to five days, the usual queue lifetime."""

MAX_SERIES = 10_000
MAX_OTHER = MAX_SERIES // 2
"""Series of one metric at most, and those of them of the provider `other`. A busy server has a few hundred; more mean
that a remote server crosses codes with reasons. It is of the provider `other`: the rest is kept for known ones."""

BOUNDS = (*(f"{bound:.1f}" for bound in DELAY_BUCKETS), "+Inf")
"""The same bounds as Prometheus writes them."""

CLASSES = tuple(
    (kind, f"{digit}.{subject}") for digit, kind in ((4, Kind.SOFT), (5, Kind.HARD)) for subject in range(8)
)
"""Every class that RFC 3463 defines, with its kind."""


POLICY = "5.7"
"""The class of refusals for reasons of policy or security: the last of them are kept one by one."""


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
        folded: By provider, the number counted with the reason and the provider `other` because there were `MAX_SERIES`
            already, or `MAX_OTHER`.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.values: defaultdict[Labels, int] = defaultdict(int)
        self.exemplars: dict[Labels, Exemplar] = {}
        self.folded = Tally[str]()
        self._provider = names.index("provider") if "provider" in names else None
        self._others = 0

    def add(self, labels: Labels, exemplar: Exemplar | None, number: int = 1) -> None:
        """Count one, or more."""
        if labels not in self.values:
            labels = self._made(labels, number)
        self.values[labels] += number
        if exemplar is not None:
            self.exemplars[labels] = exemplar

    def restore(self, values: Mapping[Labels, float]) -> None:
        """Start with numbers of an earlier run."""
        self.values.update({labels: int(number) for labels, number in values.items()})
        self._others = sum(map(self._is_other, self.values))

    def _made(self, labels: Labels, number: int) -> Labels:
        """Make room for a series; if there is none, the labels of one that has room: codes are always told apart, for
        they are few."""
        other = self._is_other(labels)
        if len(self.values) < MAX_SERIES and not (other and self._others >= MAX_OTHER):
            self._others += other
            return labels
        self.folded["other" if self._provider is None else labels[self._provider]] += number
        found = zip(self.names, labels, strict=True)
        return tuple("other" if name in ("reason", "provider") else value for name, value in found)

    def _is_other(self, labels: Labels) -> bool:
        return self._provider is None or labels[self._provider] == "other"


@dataclass(slots=True)
class Delays:
    """A histogram of seconds: counts by bucket (the last has no bound), sum, and an exemplar for each bucket."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BUCKETS) + 1))
    total: float = 0.0
    exemplars: dict[int, tuple[Exemplar, float]] = field(default_factory=dict)

    def copy(self) -> Delays:
        """The same numbers, which do not change any more."""
        return Delays(list(self.counts), self.total, dict(self.exemplars))

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

    Args:
        clock: Supplies the current time, which bounds the last day.

    Attributes:
        bounces: mta, kind, class, code, reason, provider: recipients.
        bounces_by_class: mta, kind, class: the same.
        bounces_by_sender: mta, sender, kind, class: the same, by groups of senders; empty without groups.
        bounced_messages: mta, kind, class: messages with such a recipient, each once a kind and class.
        backlog_bounces: mta, kind, class: of the bounces, those read while `catching_up`.
        recipients: mta, outcome, provider: each recipient once, at its end.
        attempts: mta, outcome, class, code: every attempt.
        rejections: mta, kind, class, code, reason, stage: mail that our own server refused.
        notifications: mta, outcome: recipients of mail with the empty sender, each once, at its end.
        blocklist_hits: mta, blocklist, provider: replies that name a blocklist.
        delays: mta, outcome: seconds from acceptance to the end.
        last_event: mta: the time of the latest outcome.
        recent: The last day.
        catching_up: Whether the lines that are read were there before reading began: what they say is not new.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self.bounces = Counter("mta", "kind", "class", "code", "reason", "provider")
        self.bounces_by_class = Counter("mta", "kind", "class")
        self.bounces_by_sender = Counter("mta", "sender", "kind", "class")
        self.bounced_messages = Counter("mta", "kind", "class")
        self.backlog_bounces = Counter("mta", "kind", "class")
        self.recipients = Counter("mta", "outcome", "provider")
        self.attempts = Counter("mta", "outcome", "class", "code")
        self.rejections = Counter("mta", "kind", "class", "code", "reason", "stage")
        self.notifications = Counter("mta", "outcome")
        self.blocklist_hits = Counter("mta", "blocklist", "provider")
        self.delays: defaultdict[Labels, Delays] = defaultdict(Delays)
        self.last_event: dict[str, float] = {}
        self.recent = Recent(clock)
        self.catching_up = False
        self._senders = SenderGroups({})

    def counters(self) -> dict[str, Counter]:
        """The counters by the names of their attributes."""
        return {name: each for name, each in vars(self).items() if isinstance(each, Counter)}

    def numbers(self) -> Numbers:
        """Everything that was counted, as plain numbers."""
        found: Numbers = {name: dict(each.values) for name, each in self.counters().items()}
        found["folded"] = {
            (name, provider): number
            for name, each in self.counters().items()
            for provider, number in each.folded.items()
        }
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
            counter.restore(numbers.get(name, {}))
        for (name, *provider), number in numbers.get("folded", {}).items():
            if name in counters:
                counters[name].folded[provider[0] if provider else "other"] += int(number)
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
            for sender in self._senders.names:
                self.bounces_by_sender.values[mta, sender, kind, code_class] += 0

    def name_senders(self, senders: SenderGroups) -> None:
        """Count by these groups of senders from now on. Series of groups that are not among them end."""
        self._senders = senders
        counter = self.bounces_by_sender
        for labels in [each for each in counter.values if each[1] not in senders.names]:
            del counter.values[labels]
            counter.exemplars.pop(labels, None)
        for mta in {labels[0] for labels in self.bounces_by_class.values}:
            self.announce(mta)

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
            if (slot := self._slot(entry.time)) is not None:
                slot.add(("rejected", code, reason, "other"))
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
            self._bounce(fact, kind, exemplar)
        elif (slot := self._slot(event.time)) is not None:
            slot.outcomes[fact.outcome] += 1

    def _bounce(self, fact: Fact, kind: Kind, exemplar: Exemplar | None) -> None:
        event = fact.event
        code_class, code = label(event.code)
        reason = reason_of(event) or "other"
        self.bounces.add((event.mta, kind, code_class, code, reason, fact.provider), exemplar)
        self.bounces_by_class.add((event.mta, kind, code_class), exemplar)
        if self._senders.names:
            sender = self._senders.of(fact.sender, fact.account)
            self.bounces_by_sender.add((event.mta, sender, kind, code_class), exemplar)
        if self.catching_up:
            self.backlog_bounces.add((event.mta, kind, code_class), None)
        if fact.first:
            self.bounced_messages.add((event.mta, kind, code_class), exemplar)
        if (slot := self._slot(event.time)) is not None:
            slot.add((kind, code, reason, fact.provider))
            if kind is Kind.HARD and code_class == POLICY:
                queue_id = exemplar.queue_id if exemplar is not None else ""
                self.recent.refused(event.time, (event.mta, queue_id, code, reason, fact.provider))

    def _slot(self, moment: float | None) -> Slot | None:
        """The slot of the last day to count in. A line without a time is of now, unless it was there before."""
        return None if moment is None and self.catching_up else self.recent.slot(moment)

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
        latest = mail.latest()
        if latest is not None:
            self.last_event[mta] = max(latest, self.last_event.get(mta, 0.0))
        if self.recent.covers(latest):
            for period, number in mail.periods(SLOT).items():
                if (slot := self._slot(None if period is None else period * SLOT)) is not None:
                    slot.outcomes[Outcome.DELIVERED] += number
