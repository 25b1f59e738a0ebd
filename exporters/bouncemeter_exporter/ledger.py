"""What is known of each message by queue ID, from which follows what became of each recipient.

A log speaks of attempts. The ledger turns them into recipient facts: a recipient waits from its first
deferral, and ends once, delivered, bounced or expired. What has ended is forgotten; what never ends is
dropped by age and by number, so that memory is bounded.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bouncemeter.event import EnhancedCode, Entry, Event, Outcome, Step, StepKind
from bouncemeter.providers import provider_of

__all__ = ["Fact", "FactKind", "Ledger", "Waiting"]

MAX_AGE = 6 * 86400.0
"""Seconds without a line after which a message is forgotten: a little over the usual queue lifetime of five days."""

MAX_MESSAGES = 2_000_000
"""Messages that are remembered at a time."""

MAX_DEPARTED = 10_000
LATE = 60.0
"""Messages that left the queue are kept so many, and so many seconds, for lines that come late."""


class FactKind(StrEnum):
    """What became of a recipient."""

    SOFT_BOUNCE = "soft bounce"
    """Deferred for the first time: it waits from now on."""
    ENDED = "ended"
    """Delivered, bounced or expired: nothing more will come."""
    NOTIFICATION = "notification"
    """Either of these, of mail with the empty sender."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What became of one recipient of one message.

    Attributes:
        kind: Which of the facts.
        event: The line that brought it, with the code known by now.
        outcome: `deferred` for a soft bounce, else the end.
        provider: Who took or refused it.
        delay: Seconds from acceptance to the end, if known.
    """

    kind: FactKind
    event: Event
    outcome: Outcome
    provider: str
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient that waits for another attempt.

    Attributes:
        since: The time of its first deferral, in seconds since 1970 UTC.
        code: The code of its last deferral.
        provider: Who deferred it.
    """

    since: float
    code: EnhancedCode
    provider: str


_Key = tuple[str, str, str]
"""Which recipient of a message: its address, the original one, the file or command that takes the mail."""


def _key(recipient: str, original: str | None, relay: str | None) -> _Key:
    return recipient.lower(), (original or "").lower(), relay if relay and relay[0] in "|/" else ""


@dataclass(slots=True)
class _Message:
    seen: float
    arrived: float | None = None
    notification: bool = False
    peer: str | None = None
    arrived_from: str | None = None
    waiting: dict[_Key, Waiting] = field(default_factory=dict)
    ended: set[_Key] = field(default_factory=set)


_Server = tuple[str, str | None]
_ADDRESS = re.compile(r"\[([0-9A-Fa-f.:]+)\]")


class Ledger:
    """Turns entries into facts.

    Args:
        max_age: Seconds after which a message without a further line is forgotten.
        max_messages: How many messages are remembered.
    """

    def __init__(self, max_age: float = MAX_AGE, max_messages: int = MAX_MESSAGES) -> None:
        self._max_age, self._max_messages = max_age, max_messages
        self._servers: dict[_Server, dict[str, _Message]] = {}
        self._departed: OrderedDict[tuple[_Server, str], _Message] = OrderedDict()
        self._entries = 0
        self.evicted = 0

    def __len__(self) -> int:
        return self._entries

    def waiting(self) -> Iterator[tuple[str, Waiting]]:
        """Every recipient that waits, those of notifications apart, with the name of its mail server's parser."""
        for (mta, _), messages in self._servers.items():
            for message in messages.values():
                if not message.notification:
                    for waiting in message.waiting.values():
                        yield mta, waiting

    def take(self, entry: Entry) -> list[Fact]:
        """The facts that follow from a further entry of the log."""
        if isinstance(entry, Step):
            self._step(entry)
            return []
        if entry.outcome is Outcome.REJECTED or entry.queue_id is None:
            return []
        return self._event(entry, entry.queue_id)

    def _message(self, entry: Entry, queue_id: str) -> _Message:
        """The message of an entry, moved to the end of the queue of those that are forgotten."""
        server = (entry.mta, entry.host)
        messages = self._servers.setdefault(server, {})
        message = messages.pop(queue_id, None)
        now = entry.time or 0.0
        if message is None:
            departed = self._departed.get((server, queue_id))
            if departed is not None and isinstance(entry, Event) and now - departed.seen <= LATE:
                return departed
            message = _Message(seen=now)
            self._entries += 1
        message.seen = max(message.seen, now)
        messages[queue_id] = message
        self._forget_old(messages, message.seen)
        return message

    def _forget_old(self, messages: dict[str, _Message], now: float) -> None:
        while True:
            oldest = next(iter(messages))
            if now - messages[oldest].seen <= self._max_age and self._entries <= self._max_messages:
                return
            if len(messages) == 1:
                return
            del messages[oldest]
            self._entries -= 1
            self.evicted += 1

    # --- steps --------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        server = (step.mta, step.host)
        match step.what:
            case StepKind.REMOVED:
                self._remove(server, step.queue_id)
            case StepKind.NOTIFIED:
                if step.related:
                    self._message(step, step.related).notification = True
            case StepKind.ARRIVED:
                # Short queue IDs are used again: an arrival begins a new message.
                self._remove(server, step.queue_id)
                self._departed.pop((server, step.queue_id), None)
                message = self._message(step, step.queue_id)
                message.notification = step.sender == ""
                message.arrived, message.peer, message.arrived_from = step.time, step.peer, step.related
            case StepKind.QUEUED:
                message = self._message(step, step.queue_id)
                message.notification = message.notification or step.sender == ""
            case StepKind.PASSED_ON | StepKind.DROPPED:
                if step.recipient:
                    message = self._message(step, step.queue_id)
                    for key in [key for key in message.waiting if step.recipient.lower() in key[:2]]:
                        del message.waiting[key]

    def _remove(self, server: _Server, queue_id: str) -> None:
        message = self._servers.get(server, {}).pop(queue_id, None)
        if message is not None:
            self._entries -= 1
            message.waiting.clear()
            self._departed[server, queue_id] = message
            if len(self._departed) > MAX_DEPARTED:
                self._departed.popitem(last=False)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _event(self, event: Event, queue_id: str) -> list[Fact]:
        message = self._message(event, queue_id)
        message.notification = message.notification or event.sender == ""
        facts = self._recipient(event, message, queue_id)
        if message.notification:
            return [replace(fact, kind=FactKind.NOTIFICATION) for fact in facts]
        return facts

    def _recipient(self, event: Event, message: _Message, queue_id: str) -> list[Fact]:
        if event.recipient is None:
            return self._end_all(event, message)
        key = _key(event.recipient, event.original_recipient, event.relay)
        if key in message.ended:
            return []
        if event.outcome is Outcome.DEFERRED:
            return self._defer(event, message, key)
        if event.outcome is Outcome.DELIVERED and self._handed_on(event, queue_id):
            message.waiting.pop(key, None)
            message.ended.add(key)
            return []
        return [self._end(event, message, key)]

    def _defer(self, event: Event, message: _Message, key: _Key) -> list[Fact]:
        before = message.waiting.get(key)
        provider = provider_of(event.relay, event.recipient)
        message.waiting[key] = Waiting(before.since if before else event.time or 0.0, event.code, provider)
        return [] if before else [Fact(FactKind.SOFT_BOUNCE, event, Outcome.DEFERRED, provider)]

    def _end(self, event: Event, message: _Message, key: _Key) -> Fact:
        before = message.waiting.pop(key, None)
        message.ended.add(key)
        provider = provider_of(event.relay, event.recipient)
        if event.outcome is Outcome.EXPIRED and before:
            event, provider = replace(event, code=before.code), before.provider
        delay = event.delay
        if delay is None and message.arrived is not None and event.time is not None:
            delay = round(max(0.0, event.time - message.arrived), 3)
        return Fact(FactKind.ENDED, event, event.outcome, provider, delay)

    def _end_all(self, event: Event, message: _Message) -> list[Fact]:
        """An end that the log tells for the message: of every recipient that waits, of one if none is known."""
        facts = [self._end(event, message, key) for key in list(message.waiting)]
        return facts or [self._end(event, message, ("", "", ""))]

    def _handed_on(self, event: Event, queue_id: str) -> bool:
        """Whether a delivery was to a filter on this host or to our own server, which has the message under
        another queue ID now. That the next server says so proves nothing: the ID must be one that this log
        told of, not long ago, as come from where this mail went."""
        if event.passed_to is None or event.passed_to == queue_id:
            return False
        server = (event.mta, event.host)
        live = self._servers.get(server, {}).get(event.passed_to)
        successor = live or self._departed.get((server, event.passed_to))
        if successor is None or (event.time or 0.0) - successor.seen > LATE:
            return False
        if event.relay == "local":  # Postfix's own local(8) forwarded it
            return True
        if successor.arrived_from is not None:
            return successor.arrived_from == queue_id
        to, came = _ADDRESS.search(event.relay or ""), _ADDRESS.search(successor.peer or "")
        return bool(to and came and (to[1] == came[1] or (_is_loopback(to[1]) and _is_loopback(came[1]))))


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
