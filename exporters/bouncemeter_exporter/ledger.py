"""What is known of each message by queue ID, from which follows what became of each recipient.

A log speaks of attempts. The ledger turns them into recipient facts: a recipient is a soft bounce at its first
deferral, and ends once: delivered, bounced or expired. What has ended is forgotten; what never ends is dropped by
age and by number, so that memory is bounded. `docs/counting.md` says what it does where a log is not whole.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from heapq import nsmallest
from itertools import islice
from typing import NamedTuple, Protocol

from bouncemeter.blocks import Block, Rows
from bouncemeter.codes import label
from bouncemeter.event import EnhancedCode, Entry, Event, Outcome, Step, StepKind
from bouncemeter.plugin import Clock
from bouncemeter.providers import OTHER, provider_of

from bouncemeter_exporter.message import Message, Recipient, pack, seen, unpack
from bouncemeter_exporter.passing import Passed, near, passed, recipient_key, taker_of

__all__ = ["MAX_AGE", "MAX_MESSAGES", "Fact", "FactKind", "Ledger", "MessageName", "Server", "Waiting", "count_passed"]

MAX_AGE = 6 * 86400.0
"""Seconds without a line after which a message is forgotten: a little over the usual queue lifetime of five days."""

MAX_MESSAGES = 1_000_000
"""Messages that are remembered at a time."""

LATE = 60.0
MAX_DEPARTED = 10_000
"""Messages that left the queue are kept so many seconds, and so many of them, for lines that come late. Those of a
server whose log tells no removals are kept by number alone."""

MAX_UNPACKED = 1000
"""Messages that wait are packed once so many others were touched after them: the next attempt is hours away then."""

UNORDERED = 10.0
"""Seconds by which lines may stand in the wrong order: an arrival that comes so late is not another message's."""

MAX_SERVERS = 10_000
"""Hosts that are told apart; the messages of more count as one server's."""

SWEEPS = 32
"""How often within the age limit it is looked for messages to forget."""


class FactKind(StrEnum):
    """What became of a recipient."""

    SOFT_BOUNCE = "soft bounce"
    """Deferred for the first time: it waits from now on."""
    ENDED = "ended"
    """Delivered, bounced or expired: nothing more will come."""
    NOTIFICATION = "notification"
    """Either of these, of mail with the empty sender."""


class Fact(NamedTuple):
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


class Counts(Protocol):
    """What counts."""

    def take(self, entry: Entry, facts: Sequence[Fact], /) -> None:
        """Count an entry of a log and the facts that follow from it."""
        ...

    def pass_by(self, passed: Passed, /) -> None:
        """Count ordinary mail."""
        ...


Waiting = tuple[str, str, str, str]
"""What recipients that wait are counted by: mta, class, code and provider."""


@dataclass(slots=True)
class _Server:
    """The messages in the queue of one server.

    Attributes:
        mta: Its parser's name.
        now: The latest time that its log told.
        removes: Whether its log has ever told that a message left the queue.
        passing: Messages of which nobody waits, those without a line for longest first.
        waiting: Messages of which somebody waits, in the order of their first deferral; most of them packed.
        departed: Messages that ended, for lines that come late, those that ended first first.
    """

    mta: str
    now: float = 0.0
    removes: bool = False
    passing: dict[str, Message] = field(default_factory=dict)
    waiting: dict[str, Message | bytes] = field(default_factory=dict)
    departed: dict[str, Message] = field(default_factory=dict)


MessageName = tuple[str, str | None, str]
"""A message's name among all: mta, host, queue ID."""


Server = tuple[str, str | None]
"""A server's name: mta and host."""


class Ledger:
    """Turns entries into facts.

    Args:
        max_age: Seconds after which a message without a further line is forgotten.
        max_messages: How many messages are remembered.
        clock: The present time: a line from the future must not make the rest look old.
        recording: Note which messages change, for `changes`.

    Attributes:
        waiting: Recipients that wait for another attempt, those of notifications apart.
        evicted: Messages that were forgotten before they ended.
    """

    def __init__(
        self,
        max_age: float = MAX_AGE,
        max_messages: int = MAX_MESSAGES,
        clock: Clock = time.time,
        *,
        recording: bool = False,
    ) -> None:
        self._max_age, self._max_messages, self._clock = max_age, max_messages, clock
        self._servers: dict[Server, _Server] = {}
        self._unpacked: dict[MessageName, None] = {}
        self._messages = self._departed = 0
        self._changed: set[MessageName] | None = set() if recording else None
        self._now = self._swept = 0.0
        self.waiting: Counter[Waiting] = Counter()
        self.evicted = 0

    def __len__(self) -> int:
        """Messages that are remembered."""
        return self._messages

    def oldest(self) -> dict[str, float]:
        """By mta, since when the recipient waits that waits longest, in seconds since 1970 UTC."""
        found: dict[str, float] = {}
        for server in self._servers.values():
            best = found.get(server.mta, float("inf"))
            for kept in server.waiting.values():  # in the order of their first deferral
                message = _unpacked(kept)
                if min(each.since for each in message.recipients.values() if each.since is not None) >= best:
                    break
                if not message.notification:
                    best = min([best, *(each.since or 0.0 for _, each in message.waiting())])
            if best < float("inf"):
                found[server.mta] = best
        return found

    def read(self, block: Block, counts: Counts) -> None:
        """Let what lines tell be counted, with the facts that follow from it."""
        for host, rows in block.rows.by_server().items() if block.rows is not None else ():
            found = self._pass_by(rows, host)
            count_passed(found, counts)
            waiting = self._waiting(rows.reader.mta, host)
            for entry in rows.entries(without=found.queue_ids, known=waiting):
                counts.take(entry, self.take(entry))
            if (latest := found.latest()) is not None:  # not before: what is too old by then was not yet
                self.advance(rows.reader.mta, host, latest)
        for entry in block.entries:
            counts.take(entry, self.take(entry))

    def take(self, entry: Entry) -> list[Fact]:
        """The facts that follow from a further entry of the log."""
        queue_id = entry.queue_id
        if queue_id is None or (isinstance(entry, Event) and entry.outcome is Outcome.REJECTED):
            return []
        server = self._servers.get((entry.mta, entry.host))
        if server is None and len(self._servers) >= MAX_SERVERS and entry.host is not None:
            return self.take(replace(entry, host=None))
        if server is None:
            server = self._servers[entry.mta, entry.host] = _Server(entry.mta)
        if entry.time is not None:
            self._advance(server, entry.time)
        if self._changed is not None:
            self._changed.add((entry.mta, entry.host, queue_id))
        if isinstance(entry, Event):
            facts = self._event(entry, server, queue_id)
        else:
            self._step(entry, server, queue_id)
            facts = []
        if self._messages > self._max_messages:
            self._forget_oldest()
        elif self._now - self._swept > self._max_age / SWEEPS:
            self._forget_old()
        return facts

    def _pass_by(self, rows: Rows, host: str | None) -> Passed:
        """The ordinary messages among what a server's lines tell. They are not looked at one by one: those that left
        last are kept for lines that come late, and nothing else is to be known of them."""
        mta = rows.reader.mta
        server = self._servers.get((mta, host)) or _Server(mta)
        found = passed(rows, lambda names: self._known(server, names))
        if not found.queue_ids or ((mta, host) not in self._servers and len(self._servers) >= MAX_SERVERS):
            return Passed(rows)
        self._servers[mta, host] = server
        server.removes = True
        last, time = 0.0, found.times()
        leaving = list[str]()
        for row in reversed(rows.rows):
            moment = time(row)
            if moment is None:
                continue
            last = max(last, moment)
            if moment < last - LATE - UNORDERED or len(leaving) > MAX_DEPARTED:
                break
            name = row[rows.reader.columns.queue_id]
            if name in found.queue_ids and found.last[name] is row and moment >= last - LATE:
                leaving.append(name)
        for name, message in found.messages(reversed(leaving)):
            self._depart((mta, host, name), server, message)
            self._note((mta, host, name))
        return found

    def _waiting(self, mta: str, host: str | None) -> Collection[str]:
        """The queue IDs of a server's messages of which somebody waits, now and from now on."""
        server = self._servers.get((mta, host))
        return server.waiting if server is not None else ()

    def known(self, mta: str, host: str | None, queue_ids: set[str]) -> set[str]:
        """Which of some queue IDs are those of messages of a server that are remembered."""
        server = self._servers.get((mta, host))
        return self._known(server, queue_ids) if server is not None else set()

    def settle(self) -> None:
        """Forget what is too old, at the end of all lines."""
        self._forget_old()

    @staticmethod
    def _known(server: _Server, names: set[str]) -> set[str]:
        """Which of some queue IDs are those of messages that are remembered."""
        return {*(server.passing.keys() & names), *(server.waiting.keys() & names), *(server.departed.keys() & names)}

    def advance(self, mta: str, host: str | None, time: float) -> None:
        """A server's log told of a time, in seconds since 1970 UTC."""
        self._advance(self._servers.get((mta, host)) or _Server(mta), time)

    def _advance(self, server: _Server, time: float) -> None:
        """A server's log told of a time."""
        if time > server.now:
            server.now = max(server.now, min(time, self._clock() + 86400.0))
            self._now = max(self._now, server.now)

    # --- what is written down and read again -----------------------------------------------------------------------

    def changes(self) -> list[tuple[MessageName, bytes | None]]:
        """Each message that changed since `changes_kept` was called last, packed; None for one that is forgotten."""
        self._forget_departed()
        return [(name, self._packed(name)) for name in self._changed or ()]

    def changes_kept(self) -> None:
        """The changes were written down."""
        if self._changed is not None:
            self._changed.clear()

    def servers(self) -> dict[Server, tuple[float, bool]]:
        """For each server that has messages: the latest time of its log, and whether that tells removals."""
        return {key: (each.now, each.removes) for key, each in self._servers.items()}

    def restore(
        self, servers: Iterable[tuple[Server, tuple[float, bool]]], messages: Iterable[tuple[MessageName, bytes]]
    ) -> None:
        """Begin with what was written down.

        Args:
            servers: As `servers` gives them.
            messages: As `changes` gives them, in the order of `bouncemeter_exporter.message.place`.
        """
        for key, (now, removes) in servers:
            self._servers[key] = _Server(key[0], now, removes)
            self._now = self._swept = max(self._now, now)
        for name, packed in messages:
            mta, host, queue_id = name
            server = self._servers.setdefault((mta, host), _Server(mta))
            message = unpack(packed)
            if not message.removed and message.waits:
                self._count_waiting(mta, message, +1)
                server.waiting[queue_id] = packed
                self._messages += 1
            else:
                self._put(server, name, message)

    def _note(self, name: MessageName) -> None:
        """A message changes that is not the one of the entry."""
        if self._changed is not None:
            self._changed.add(name)

    def _packed(self, name: MessageName) -> bytes | None:
        """A message as it is kept, if it is still remembered."""
        mta, host, queue_id = name
        server = self._servers.get((mta, host))
        if server is None:
            return None
        kept = server.waiting.get(queue_id) or server.passing.get(queue_id) or server.departed.get(queue_id)
        return pack(kept) if isinstance(kept, Message) else kept

    def _depart(self, name: MessageName, server: _Server, message: Message) -> None:
        """Keep a message that ended."""
        self._departed += name[2] not in server.departed
        server.departed[name[2]] = message
        if self._departed > MAX_DEPARTED:
            self._drop_departed(name, server)

    def _forget_departed(self) -> None:
        """Forget messages that left the queue too long ago, by their own server's time, for a line to come."""
        for (mta, host), server in self._servers.items():
            while server.departed:
                queue_id, message = next(iter(server.departed.items()))
                if not message.removed or message.seen >= server.now - LATE:
                    break
                self._drop_departed((mta, host, queue_id), server)

    def _drop_departed(self, name: MessageName, server: _Server) -> None:
        """Forget the message of a server that ended first."""
        queue_id = next(iter(server.departed))
        del server.departed[queue_id]
        self._departed -= 1
        self._note((name[0], name[1], queue_id))

    # --- finding, keeping and forgetting messages ---------------------------------------------------------------

    def _find(self, entry: Entry, server: _Server, queue_id: str) -> Message | None:
        """The message of an entry, taken out of where it was kept; one that departed if the line comes late."""
        now = self._now if entry.time is None else entry.time
        message = server.passing.pop(queue_id, None)
        if message is None and (kept := server.waiting.get(queue_id)) is not None:
            message = _unpacked(kept)
            self._count_waiting(server.mta, message, -1)
        if message is None:
            message = server.departed.get(queue_id)
            if message is None or (message.removed and now - message.seen > LATE):
                return None
            if not message.removed:
                del server.departed[queue_id]
                self._departed -= 1
        else:
            self._messages -= 1
            if message.seen < now - self._max_age:
                server.waiting.pop(queue_id, None)
                self.evicted += 1
                return None
        message.seen = max(message.seen, now)
        return message

    def _keep(self, entry: Entry, server: _Server, queue_id: str, message: Message) -> None:
        """Put a message back."""
        self._put(server, (entry.mta, entry.host, queue_id), message)

    def _put(self, server: _Server, name: MessageName, message: Message) -> None:
        """Keep a message, among the departed if it ended."""
        queue_id = name[2]
        if not message.removed and message.waits:
            self._count_waiting(server.mta, message, +1)
            server.waiting[queue_id] = message
            self._messages += 1
            self._unpacked.pop(name, None)
            self._unpacked[name] = None
            if len(self._unpacked) > MAX_UNPACKED:
                self._pack_oldest()
            return
        server.waiting.pop(queue_id, None)
        ended = message.recipients and not server.removes  # of a server whose log tells no removals
        if message.removed or ended:
            self._depart(name, server, message)
        else:
            server.passing[queue_id] = message
            self._messages += 1

    def _pack_oldest(self) -> None:
        """Pack the message that waits and was not touched for longest."""
        mta, host, queue_id = name = next(iter(self._unpacked))
        del self._unpacked[name]
        server = self._servers.get((mta, host))
        if server is not None and isinstance(kept := server.waiting.get(queue_id), Message):
            server.waiting[queue_id] = pack(kept)

    def _count_waiting(self, mta: str, message: Message, number: int) -> None:
        if message.notification:
            return
        for _, each in message.waiting():
            if each.code is not None:
                labels = _labels(mta, each.code, each.provider)
                self.waiting[labels] += number
                if not self.waiting[labels]:
                    del self.waiting[labels]

    def _time(self, entry: Entry) -> float:
        return self._now if entry.time is None else entry.time

    def _forget_old(self) -> None:
        """Forget what had no line for long by its own server's time, and servers that fell silent."""
        self._swept = self._now
        for key, server in list(self._servers.items()):
            silent = server.now < self._now - 2 * self._max_age
            limit = self._now if silent else server.now - self._max_age
            old = [queue_id for queue_id, each in server.passing.items() if each.seen < limit]
            old += [queue_id for queue_id, kept in server.waiting.items() if _seen(kept) < limit]
            for queue_id in old:
                self._evict(key, server, queue_id)
            if not server.passing and not server.waiting and (silent or not server.departed):
                self._departed -= len(server.departed)
                del self._servers[key]

    def _forget_oldest(self) -> None:
        """Forget the sixteenth part that began first."""
        number = self._max_messages // 16 + 1
        oldest: list[tuple[float, int, str, Server, _Server]] = []
        for place, (key, server) in enumerate(self._servers.items()):
            passing = ((each.begun, queue_id) for queue_id, each in islice(server.passing.items(), number))
            waiting = ((_unpacked(each).begun, queue_id) for queue_id, each in islice(server.waiting.items(), number))
            oldest += ((begun, place, queue_id, key, server) for begun, queue_id in (*passing, *waiting))
        for _, _, queue_id, key, server in nsmallest(number, oldest):
            self._evict(key, server, queue_id)

    def _evict(self, key: Server, server: _Server, queue_id: str) -> None:
        if server.passing.pop(queue_id, None) is None:
            self._count_waiting(server.mta, _unpacked(server.waiting.pop(queue_id)), -1)
        self._messages -= 1
        self.evicted += 1
        self._note((*key, queue_id))

    # --- steps --------------------------------------------------------------------------------------------------

    def _step(self, step: Step, server: _Server, queue_id: str) -> None:
        if step.what is StepKind.NOTIFIED:
            if step.related:
                self._notified(step, server, step.related)
            return
        if step.what is StepKind.QUEUED and queue_id in server.waiting:
            return  # taken up for another attempt: nothing new
        message = self._find(step, server, queue_id)
        if step.what is StepKind.REMOVED:
            server.removes = True
            if message is not None:
                message.removed = True
        elif step.what is StepKind.ARRIVED:
            message = self._arrived(step, server, message)
        elif step.what is StepKind.QUEUED:
            if message is None or (message.removed and message.queued):  # the queue ID is used again
                message = self._new(step)
            message.queued, message.notification = True, message.notification or step.sender == ""
        else:
            message = message or self._new(step)
            _pass_on(message, (step.recipient or "").lower())
        if message is not None:
            self._keep(step, server, queue_id, message)

    def _new(self, entry: Entry) -> Message:
        now = self._time(entry)
        return Message(now, now)

    def _arrived(self, step: Step, server: _Server, before: Message | None) -> Message:
        """An arrival begins a new message, for short queue IDs are used again; or it is a line that comes late."""
        now = self._time(step)
        late = before is not None and not before.arrived and abs(before.begun - now) <= UNORDERED
        if before is not None and not late and not before.removed:
            server.waiting.pop(step.queue_id, None)
        message = before if before is not None and late else Message(now, now)
        message.begun, message.arrived, message.peer, message.origin = now, True, step.peer, step.related
        if step.sender is not None:
            message.queued, message.notification = True, step.sender == ""
        if step.related and (origin := self._peek(server, step.related)) is not None:
            message.soft_before = _soft(origin)
        return message

    def _notified(self, step: Step, server: _Server, queue_id: str) -> None:
        about = self._find(step, server, queue_id) or self._new(step)
        about.notification = True
        self._keep(step, server, queue_id, about)
        self._note((step.mta, step.host, queue_id))

    def _peek(self, server: _Server, queue_id: str) -> Message | None:
        """A message, left where it is."""
        kept = server.passing.get(queue_id) or server.departed.get(queue_id) or server.waiting.get(queue_id)
        return None if kept is None else _unpacked(kept)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _event(self, event: Event, server: _Server, queue_id: str) -> list[Fact]:
        message = self._find(event, server, queue_id) or self._new(event)
        if event.sender is not None:
            message.queued, message.notification = True, message.notification or event.sender == ""
        facts = self._recipient(event, server, message, queue_id)
        self._keep(event, server, queue_id, message)
        if message.notification:
            return [fact._replace(kind=FactKind.NOTIFICATION) for fact in facts]
        return facts

    def _recipient(self, event: Event, server: _Server, message: Message, queue_id: str) -> list[Fact]:
        if event.recipient is None:
            return self._end_all(event, message)
        key = _key(event, message)
        recipient = message.recipients.get(key)
        if recipient is None:
            recipient = message.recipients[key] = Recipient()
        if event.outcome is Outcome.DEFERRED:
            return self._defer(event, message, recipient)
        if recipient.ended:
            return []
        if event.outcome is Outcome.DELIVERED and self._handed_on(event, server, message, queue_id):
            recipient.ended = True
            return []
        return [self._end(event, message, recipient)]

    def _defer(self, event: Event, message: Message, recipient: Recipient) -> list[Fact]:
        """A deferral is a soft bounce once, also if its line comes behind that of the end."""
        facts = []
        first = recipient.since is None and (event.recipient or "").lower() not in message.soft_before
        if recipient.since is None:
            recipient.since = self._time(event)
        provider = provider_of(event.relay, event.recipient)
        recipient.code, recipient.provider = event.code, provider
        if first:
            facts.append(Fact(FactKind.SOFT_BOUNCE, event, Outcome.DEFERRED, provider))
        if message.expired and not recipient.ended:
            if not message.unnamed:
                facts.append(self._end(replace(event, outcome=Outcome.EXPIRED), message, recipient))
            recipient.ended, message.unnamed = True, False
        return facts

    def _end(self, event: Event, message: Message, recipient: Recipient) -> Fact:
        recipient.ended = True
        provider = provider_of(event.relay, event.recipient)
        if event.outcome is Outcome.EXPIRED and recipient.code is not None:
            event, provider = replace(event, code=recipient.code), recipient.provider
        delay = event.delay
        if delay is None and message.arrived and event.time is not None:
            delay = round(max(0.0, event.time - message.begun), 3)
        return Fact(FactKind.ENDED, event, event.outcome, provider, delay)

    def _end_all(self, event: Event, message: Message) -> list[Fact]:
        """An end that the log tells for the message: of every recipient that waits, of one if none is known."""
        if message.expired:
            return []
        message.expired = True
        facts = [self._end(event, message, recipient) for _, recipient in message.waiting()]
        if not facts:
            message.unnamed = True
            facts = [self._end(event, message, Recipient(provider=OTHER))]
        return facts

    def _handed_on(self, event: Event, server: _Server, message: Message, queue_id: str) -> bool:
        """Whether a delivery was to a filter or to our own server, which has the message under another queue ID
        now. That the next server says so proves nothing: see `_came_back`."""
        if event.forwarded:
            return True
        if event.passed_to is None or event.passed_to == queue_id:
            return False
        successor = self._peek(server, event.passed_to)
        if successor is None or self._time(event) - successor.seen > LATE:
            return False
        if not _came_back(event, message, successor, queue_id):
            return False
        # What was deferred before the hand-off is not soft once more behind it; and nobody else hands this one on.
        successor.origin, successor.soft_before = queue_id, successor.soft_before | _soft(message)
        if isinstance(server.waiting.get(event.passed_to), bytes):
            server.waiting[event.passed_to] = pack(successor)
        self._note((event.mta, event.host, event.passed_to))
        return True


def count_passed(found: Passed, counts: Counts) -> None:
    """Let ordinary messages be counted: each of their recipients ended."""
    counts.pass_by(found)
    for event in found.refused:
        provider = provider_of(event.relay, event.recipient)
        counts.take(event, [Fact(FactKind.ENDED, event, event.outcome, provider, found.delay(event))])


def _unpacked(kept: Message | bytes) -> Message:
    return kept if isinstance(kept, Message) else unpack(kept)


def _seen(kept: Message | bytes) -> float:
    return kept.seen if isinstance(kept, Message) else seen(kept)


@lru_cache(maxsize=4096)
def _labels(mta: str, code: EnhancedCode, provider: str) -> Waiting:
    return (mta, *label(code), provider)


def _key(event: Event, message: Message) -> str:
    """Which recipient of a message: see `recipient_key`."""
    original, taker = event.original_recipient or "", taker_of(event)
    key = recipient_key(event.recipient or "", original, taker)
    recipient = key.partition("\n")[0]
    if "@" not in recipient and key not in message.recipients:
        # Exim writes a mailbox of its own without the domain when it delivers, and with it when it defers.
        for waiting, _ in message.waiting():
            name, _, rest = waiting.partition("\n")
            if name.startswith(f"{recipient}@") and rest == f"{original.lower()}\n{taker}":
                return waiting
    return key


def _pass_on(message: Message, name: str) -> None:
    """A recipient became others, went to another server of ours or was thrown away: it ends without an outcome."""
    for key in [key for key in message.recipients if name in key.split("\n")[:2]] or [name]:
        message.recipients.setdefault(key, Recipient()).ended = True


def _soft(message: Message) -> frozenset[str]:
    """The recipients of a message that were counted as soft."""
    names = (key.partition("\n")[0] for key, each in message.recipients.items() if each.since is not None)
    return message.soft_before.union(names)


def _came_back(event: Event, message: Message, successor: Message, queue_id: str) -> bool:
    """Whether a message is what a delivery became: it arrived from where that went, not before the first message, and
    is for the same recipient, once all of its recipients are known."""
    if successor.origin is not None:
        return successor.origin == queue_id
    if message.arrived and successor.begun < message.begun:
        return False
    name = _without_extension((event.recipient or "").lower())
    if successor.removed and not any(
        name == _without_extension(each) for key in successor.recipients for each in key.split("\n")[:2]
    ):
        return False
    # Only a filter of our own is trusted to know our queue IDs: on this host, or on a private network.
    there, here = near(event.relay or ""), near(successor.peer or "")
    return there is not None and here is not None and (there == here or (there.is_loopback and here.is_loopback))


def _without_extension(address: str) -> str:
    """An address without what a filter may have put behind the name: `ann+spam@dest.test` is for `ann`."""
    local, _, domain = address.rpartition("@")
    return f"{re.split('[+-]', local, maxsplit=1)[0]}@{domain}"
