"""Which addresses to stop writing to, to pause, and to keep: the evidence of the logs, by address.

An address is the one that the mail was written to: that before aliases, where the log has both. A delivery lifts all
that was held against an address before. Mail with the empty sender, and what our own server refuses, does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nlargest
from typing import Any, NamedTuple

from bouncemeter.event import Entry, Event, Kind, Outcome
from bouncemeter.knowledge.providers import provider_of
from bouncemeter.knowledge.reasons import reason_of, reasons

from bouncemeter_exporter.counting.facts import Fact, FactKind
from bouncemeter_exporter.counting.ordinary import OrdinaryMail
from bouncemeter_exporter.records import Redactor, rfc3339

__all__ = ["MAX_ADDRESSES", "Advice", "Suppression", "Thresholds", "Verdict"]

MAX_ADDRESSES = 1_000_000
"""Addresses that are remembered: that many that bounced, and that many that were delivered to."""

NEVER = (-1.0, "")
"""In place of the time and the message of an address's last delivery."""

MAX_EVIDENCE = 50
"""Bounces that are remembered in full of one address: the latest ones."""

MAX_REPLY = 1000
"""Characters of a reply that are kept."""


class Verdict(StrEnum):
    """What to do about an address."""

    REMOVE = "remove"
    """The address itself is the cause, for good."""
    PAUSE = "pause"
    """Its mailbox is full, or it cannot be reached again and again."""
    KEEP = "keep"
    """The address is innocent, or there is too little evidence."""


class Thresholds(NamedTuple):
    """How much evidence it takes.

    Attributes:
        hard: Messages that were refused for good because the address is gone, to remove it.
        soft: Messages that did not reach the address, to pause it.
        days: Days between the first and the last of these.
    """

    hard: int = 1
    soft: int = 3
    days: float = 0.0


class _Bounce(NamedTuple):
    """One message that did not reach an address.

    Attributes:
        time: When it bounced last, in seconds since 1970 UTC.
        message: Its host and queue ID.
        failed: Whether it was refused for good, or given up; else it waits.
        kind: Soft or hard.
        code, reason, provider, reply: Of the bounce.
        ours: Whether no other server spoke.
        recipient: The address that it was tried for.
    """

    time: float
    message: tuple[str | None, str]
    failed: bool
    kind: Kind
    code: str
    reason: str
    provider: str
    reply: str
    ours: bool
    recipient: str

    @property
    def address(self) -> str:
        """What the reason says of the address. If our own server is at fault, the address is innocent."""
        return "innocent" if self.ours and self.reason == "system_error" else reasons()[self.reason].address


@dataclass(slots=True)
class _Address:
    """What is held against an address.

    Attributes:
        shown: The address, as the log wrote it last.
        first: The first bounce since the last delivery, in seconds since 1970 UTC.
        forgotten: Messages that are no longer remembered in full.
        bounces: By message, in their order.
    """

    shown: str
    first: float
    forgotten: int = 0
    bounces: dict[tuple[str | None, str], _Bounce] = field(default_factory=dict)

    @property
    def last(self) -> float:
        """The last bounce, in seconds since 1970 UTC."""
        return max(each.time for each in self.bounces.values())


class Advice(NamedTuple):
    """What to do about one address, and why.

    Attributes:
        address: The address.
        verdict: What to do.
        bounce: The latest bounce that supports the verdict.
        messages: Messages that bounced since the last delivery.
        first, last: The first and the last of them, in seconds since 1970 UTC.
    """

    address: str
    verdict: Verdict
    bounce: _Bounce
    messages: int
    first: float
    last: float

    def as_json(self, hidden: Redactor | None = None) -> dict[str, Any]:
        """The advice as a JSON object.

        Args:
            hidden: What hides its addresses.
        """
        reply = self.bounce.reply
        return {
            "address": hidden.address(self.address) if hidden else self.address,
            "verdict": self.verdict,
            "reason": self.bounce.reason,
            "code": self.bounce.code,
            "kind": self.bounce.kind,
            "provider": self.bounce.provider,
            "messages": self.messages,
            "first": rfc3339(self.first or None),
            "last": rfc3339(self.last or None),
            "reply": hidden.text(reply, self.address, self.bounce.recipient) if hidden else reply,
        }


class Suppression:
    """Collects the evidence; see `bouncemeter_exporter.counting.facts.Counts`.

    Attributes:
        dropped: Addresses that were forgotten because there were too many.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, _Address] = {}
        self._delivered: dict[str, tuple[float, str]] = {}
        self.dropped = 0

    def count(self, entry: Entry, facts: Sequence[Fact]) -> None:
        """Note what became of recipients."""
        if not facts and isinstance(entry, Event) and entry.outcome is Outcome.DEFERRED:
            self._defer_again(entry)
        for fact in facts:
            if fact.kind is not FactKind.NOTIFICATION:
                shown = fact.event.original_recipient or fact.event.recipient
                if shown and fact.outcome is Outcome.DELIVERED:
                    self._deliver(shown.lower(), fact.event.time or 0.0, _name(fact.event))
                elif shown:
                    self._bounce(shown, fact)

    def count_ordinary(self, mail: OrdinaryMail) -> None:
        """Note deliveries of ordinary mail."""
        columns, seconds = mail.rows.reader.columns, mail.rows.reader.stamps.seconds
        times = {stamp: seconds(stamp) or 0.0 for stamp in set(mail.texts(columns.stamp))}
        deliver = self._deliver
        for row in mail.deliveries:
            address = row[columns.original_recipient] or row[columns.recipient]
            deliver(address.lower(), times[row[columns.stamp]], row[columns.queue_id])

    def _deliver(self, address: str, time: float, message: str) -> None:
        if time >= self._delivered.get(address, NEVER)[0]:
            self._delivered[address] = time, message
            if len(self._delivered) > MAX_ADDRESSES:
                latest = nlargest(MAX_ADDRESSES // 2, self._delivered.items(), key=lambda item: item[1])
                self._delivered = dict(latest)
        held = self._addresses.get(address)
        if held is not None:
            held.bounces = {name: each for name, each in held.bounces.items() if each.time > time}
            if not held.bounces:
                del self._addresses[address]
            else:
                held.first, held.forgotten = min(each.time for each in held.bounces.values()), 0

    def _defer_again(self, event: Event) -> None:
        """Note the latest attempt of a message that waits."""
        held = self._addresses.get((event.original_recipient or event.recipient or "").lower())
        message = event.host, _name(event)
        if held is not None and (before := held.bounces.get(message)) is not None and not before.failed:
            provider = provider_of(event.relay, event.recipient)
            again = Fact(FactKind.SOFT_BOUNCE, event, Outcome.DEFERRED, provider)
            held.bounces[message] = _Bounce(max(before.time, event.time or 0.0), message, *_why(again, before))

    def _bounce(self, shown: str, fact: Fact) -> None:
        event, time, address = fact.event, fact.event.time or 0.0, shown.lower()
        delivered, into = self._delivered.get(address, NEVER)
        if time < delivered or into == _name(event):  # a group: the address leads to others, who got the message
            return
        held = self._addresses.setdefault(address, _Address(shown, time))
        message = event.host, _name(event)
        held.shown, held.first = shown, min(held.first, time)
        before = held.bounces.pop(message, None)
        held.bounces[message] = _Bounce(time, message, *_why(fact, before))
        if len(held.bounces) > MAX_EVIDENCE:
            del held.bounces[next(iter(held.bounces))]
            held.forgotten += 1
        if len(self._addresses) > MAX_ADDRESSES:
            self._forget()

    def _forget(self) -> None:
        """Forget the half of the addresses that bounced longest ago."""
        latest = nlargest(MAX_ADDRESSES // 2, self._addresses.items(), key=lambda item: item[1].last)
        self.dropped += len(self._addresses) - len(latest)
        self._addresses = dict(latest)

    def advice(self, thresholds: Thresholds) -> list[Advice]:
        """What to do about each address: those to remove first, then by the number of messages."""
        found = [_advice(held, thresholds) for held in self._addresses.values()]
        order = list(Verdict)
        return sorted(found, key=lambda each: (order.index(each.verdict), -each.messages, each.address.lower()))


def _name(event: Event) -> str:
    return event.identity or event.queue_id or ""


def _why(fact: Fact, before: _Bounce | None) -> tuple[bool, Kind, str, str, str, str, bool, str]:
    """Whether a message failed, and the kind, code, reason, provider and reply of that. One that is given up failed for
    what it waited for."""
    event = fact.event
    if fact.outcome is Outcome.EXPIRED and before is not None:
        return True, *before[3:]
    kind = Kind.SOFT if fact.outcome is not Outcome.BOUNCED else Kind.HARD
    reply = (event.text or "")[:MAX_REPLY]
    ours = "[" not in (event.relay or "")
    return (
        *(fact.outcome is not Outcome.DEFERRED, kind, str(event.code)),
        *(reason_of(event) or "other", fact.provider, reply, ours, event.recipient or ""),
    )


def _advice(held: _Address, thresholds: Thresholds) -> Advice:
    bounces = sorted(held.bounces.values(), key=lambda each: each.time)
    gone = [each for each in bounces if each.address == "gone" and each.failed and each.kind is Kind.HARD]
    full = [each for each in bounces if each.address == "full" and each.failed]
    again = [each for each in bounces if each.address != "innocent"]
    lasted = again[-1].time - again[0].time >= thresholds.days * 86400 if again else False
    if len(gone) >= thresholds.hard:
        verdict, supporting = Verdict.REMOVE, gone
    elif full:
        verdict, supporting = Verdict.PAUSE, full
    elif len(again) >= thresholds.soft and lasted:
        verdict, supporting = Verdict.PAUSE, again
    else:
        verdict, supporting = Verdict.KEEP, bounces
    number = len(bounces) + held.forgotten
    return Advice(held.shown, verdict, supporting[-1], number, held.first, bounces[-1].time)
