"""What is known of each message by queue ID, from which follows what became of each recipient.

A log speaks of attempts. The ledger turns them into recipient facts: a recipient is a soft bounce at its first
deferral, and ends once: delivered, bounced or expired. What has ended is forgotten; what never ends is dropped by
age and by number, so that memory is bounded. `docs/counting.md` says what it does where a log is not whole.
"""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from heapq import nsmallest
from ipaddress import ip_address
from itertools import islice
from typing import NamedTuple, Protocol

from bouncemeter.blocks import Block, Rows
from bouncemeter.codes import label
from bouncemeter.event import Entry, Event, Outcome, Step, StepKind
from bouncemeter.plugin import Clock
from bouncemeter.providers import OTHER, provider_of

from bouncemeter_exporter.message import Message, Recipient, pack, seen, unpack
from bouncemeter_exporter.passing import Passed, passed

__all__ = ["MAX_AGE", "MAX_MESSAGES", "Fact", "FactKind", "Ledger", "MessageName", "Server", "Waiting"]

MAX_AGE = 6 * 86400.0
"""Seconds without a line after which a message is forgotten: a little over the usual queue lifetime of five days."""

MAX_MESSAGES = 1_000_000
"""Messages that are remembered at a time."""

LATE = 60.0
MAX_DEPARTED = 10_000
"""Messages that left the queue are kept so many seconds, and so many of them, for lines that come late. Those of a
server whose log tells no removals are kept by number alone."""

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
        waiting: Messages of which somebody waits, packed, in the order of their first deferral.
    """

    mta: str
    now: float = 0.0
    removes: bool = False
    passing: dict[str, Message] = field(default_factory=dict)
    waiting: dict[str, bytes] = field(default_factory=dict)


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
        self._departed: OrderedDict[MessageName, Message] = OrderedDict()
        self._messages = 0
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
            for packed in server.waiting.values():  # in the order of their first deferral
                message = unpack(packed)
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
            if found.queue_ids:
                counts.pass_by(found)
            for entry in rows.entries(without=found.queue_ids):
                counts.take(entry, self.take(entry))
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
        found = passed(rows, lambda names: self._known(server, host, names))
        if not found.queue_ids or ((mta, host) not in self._servers and len(self._servers) >= MAX_SERVERS):
            return found.nothing()
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
        self._advance(server, last)
        for name, message in found.messages(reversed(leaving)):
            self._departed[mta, host, name] = message
            self._note((mta, host, name))
        while len(self._departed) > MAX_DEPARTED:
            self._drop_departed()
        return found

    def _known(self, server: _Server, host: str | None, names: set[str]) -> set[str]:
        """Which of some queue IDs are those of messages that are remembered."""
        found = (server.passing.keys() & names) | (server.waiting.keys() & names)
        return found | {name for name in names if (server.mta, host, name) in self._departed}

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
        packed = server.waiting.get(queue_id) if server is not None else None
        if packed is not None:
            return packed
        message = (server.passing.get(queue_id) if server is not None else None) or self._departed.get(name)
        return pack(message) if message is not None else None

    def _forget_departed(self) -> None:
        """Forget messages that left the queue too long ago, by their own server's time, for a line to come."""
        while self._departed:
            (mta, host, _), message = next(iter(self._departed.items()))
            server = self._servers.get((mta, host))
            if not message.removed or (server is not None and message.seen >= server.now - LATE):
                return
            self._drop_departed()

    def _drop_departed(self) -> None:
        name, _ = self._departed.popitem(last=False)
        self._note(name)

    # --- finding, keeping and forgetting messages ---------------------------------------------------------------

    def _find(self, entry: Entry, server: _Server, queue_id: str) -> Message | None:
        """The message of an entry, taken out of where it was kept; one that departed if the line comes late."""
        now = self._time(entry)
        message = server.passing.pop(queue_id, None)
        if message is None and (packed := server.waiting.get(queue_id)) is not None:
            message = unpack(packed)
            self._count_waiting(server.mta, message, -1)
        if message is not None:
            self._messages -= 1
        else:
            message = self._departed.get((entry.mta, entry.host, queue_id))
            if message is not None and not message.removed:
                del self._departed[entry.mta, entry.host, queue_id]
            elif message is None or now - message.seen > LATE:
                return None
        message.seen = max(message.seen, now)
        return message

    def _keep(self, entry: Entry, server: _Server, queue_id: str, message: Message) -> None:
        """Put a message back."""
        self._put(server, (entry.mta, entry.host, queue_id), message)

    def _put(self, server: _Server, name: MessageName, message: Message) -> None:
        """Keep a message: packed if recipients wait, else as it is, or among the departed if it ended."""
        queue_id = name[2]
        if not message.removed and message.waits:
            self._count_waiting(server.mta, message, +1)
            server.waiting[queue_id] = pack(message)
            self._messages += 1
            return
        server.waiting.pop(queue_id, None)
        ended = message.recipients and not server.removes  # of a server whose log tells no removals
        if message.removed or ended:
            self._departed[name] = message
            if len(self._departed) > MAX_DEPARTED:
                self._drop_departed()
        else:
            server.passing[queue_id] = message
            self._messages += 1

    def _count_waiting(self, mta: str, message: Message, number: int) -> None:
        if message.notification:
            return
        for _, each in message.waiting():
            if each.code is not None:
                labels = (mta, *label(each.code), each.provider)
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
            old += [queue_id for queue_id, packed in server.waiting.items() if seen(packed) < limit]
            for queue_id in old:
                self._evict(key, server, queue_id)
            if not server.passing and not server.waiting:
                del self._servers[key]

    def _forget_oldest(self) -> None:
        """Forget the sixteenth part that began first."""
        number = self._max_messages // 16 + 1
        oldest: list[tuple[float, int, str, Server, _Server]] = []
        for place, (key, server) in enumerate(self._servers.items()):
            passing = ((each.begun, queue_id) for queue_id, each in islice(server.passing.items(), number))
            waiting = ((unpack(each).begun, queue_id) for queue_id, each in islice(server.waiting.items(), number))
            oldest += ((begun, place, queue_id, key, server) for begun, queue_id in (*passing, *waiting))
        for _, _, queue_id, key, server in nsmallest(number, oldest):
            self._evict(key, server, queue_id)

    def _evict(self, key: Server, server: _Server, queue_id: str) -> None:
        if server.passing.pop(queue_id, None) is None:
            self._count_waiting(server.mta, unpack(server.waiting.pop(queue_id)), -1)
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
        match step.what:
            case StepKind.REMOVED:
                server.removes = True
                if message is not None:
                    message.removed = True
            case StepKind.ARRIVED:
                message = self._arrived(step, server, message)
            case StepKind.QUEUED:
                if message is None or (message.removed and message.queued):  # the queue ID is used again
                    message = self._new(step)
                message.queued, message.notification = True, message.notification or step.sender == ""
            case _:
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
        if step.related and (origin := self._peek(server, step, step.related)) is not None:
            message.soft_before = _soft(origin)
        return message

    def _notified(self, step: Step, server: _Server, queue_id: str) -> None:
        about = self._find(step, server, queue_id) or self._new(step)
        about.notification = True
        self._keep(step, server, queue_id, about)
        self._note((step.mta, step.host, queue_id))

    def _peek(self, server: _Server, entry: Entry, queue_id: str) -> Message | None:
        """A message, left where it is."""
        found = server.passing.get(queue_id) or self._departed.get((entry.mta, entry.host, queue_id))
        packed = server.waiting.get(queue_id) if found is None else None
        return unpack(packed) if packed is not None else found

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _event(self, event: Event, server: _Server, queue_id: str) -> list[Fact]:
        message = self._find(event, server, queue_id) or self._new(event)
        if event.sender is not None:
            message.queued, message.notification = True, message.notification or event.sender == ""
        facts = list(self._recipient(event, server, message, queue_id))
        self._keep(event, server, queue_id, message)
        if message.notification:
            return [fact._replace(kind=FactKind.NOTIFICATION) for fact in facts]
        return facts

    def _recipient(self, event: Event, server: _Server, message: Message, queue_id: str) -> Iterator[Fact]:
        if event.recipient is None:
            yield from self._end_all(event, message)
            return
        key = _key(event, message)
        recipient = message.recipients.setdefault(key, Recipient())
        if event.outcome is Outcome.DEFERRED:
            yield from self._defer(event, message, recipient)
        elif recipient.ended:
            return
        elif event.outcome is Outcome.DELIVERED and self._handed_on(event, server, message, queue_id):
            recipient.ended = True
        else:
            yield self._end(event, message, recipient)

    def _defer(self, event: Event, message: Message, recipient: Recipient) -> Iterator[Fact]:
        """A deferral is a soft bounce once, also if its line comes behind that of the end."""
        first = recipient.since is None and (event.recipient or "").lower() not in message.soft_before
        if recipient.since is None:
            recipient.since = self._time(event)
        provider = provider_of(event.relay, event.recipient)
        recipient.code, recipient.provider = event.code, provider
        if first:
            yield Fact(FactKind.SOFT_BOUNCE, event, Outcome.DEFERRED, provider)
        if message.expired and not recipient.ended:
            if not message.unnamed:
                yield self._end(replace(event, outcome=Outcome.EXPIRED), message, recipient)
            recipient.ended, message.unnamed = True, False

    def _end(self, event: Event, message: Message, recipient: Recipient) -> Fact:
        recipient.ended = True
        provider = provider_of(event.relay, event.recipient)
        if event.outcome is Outcome.EXPIRED and recipient.code is not None:
            event, provider = replace(event, code=recipient.code), recipient.provider
        delay = event.delay
        if delay is None and message.arrived and event.time is not None:
            delay = round(max(0.0, event.time - message.begun), 3)
        return Fact(FactKind.ENDED, event, event.outcome, provider, delay)

    def _end_all(self, event: Event, message: Message) -> Iterator[Fact]:
        """An end that the log tells for the message: of every recipient that waits, of one if none is known."""
        if message.expired:
            return
        message.expired = True
        facts = [self._end(event, message, recipient) for _, recipient in message.waiting()]
        if not facts:
            message.unnamed = True
            facts = [self._end(event, message, Recipient(provider=OTHER))]
        yield from facts

    def _handed_on(self, event: Event, server: _Server, message: Message, queue_id: str) -> bool:
        """Whether a delivery was to a filter or to our own server, which has the message under another queue ID
        now. That the next server says so proves nothing: see `_came_back`."""
        if event.forwarded:
            return True
        if event.passed_to is None or event.passed_to == queue_id:
            return False
        successor = self._peek(server, event, event.passed_to)
        if successor is None or self._time(event) - successor.seen > LATE:
            return False
        if not _came_back(event, message, successor, queue_id):
            return False
        # What was deferred before the hand-off is not soft once more behind it; and nobody else hands this one on.
        successor.origin, successor.soft_before = queue_id, successor.soft_before | _soft(message)
        if event.passed_to in server.waiting:
            server.waiting[event.passed_to] = pack(successor)
        self._note((event.mta, event.host, event.passed_to))
        return True


def _key(event: Event, message: Message) -> str:
    """Which recipient of a message: its address, the original one, the file or command that takes the mail."""
    recipient, original = (event.recipient or "").lower(), (event.original_recipient or "").lower()
    taker = event.relay if event.relay and event.relay[0] in "|/" else ""
    key = f"{recipient}\n{original}\n{taker}" if original or taker else recipient
    if "@" not in recipient and key not in message.recipients:
        # Exim writes a mailbox of its own without the domain when it delivers, and with it when it defers.
        for waiting, _ in message.waiting():
            name, _, rest = waiting.partition("\n")
            if name.startswith(f"{recipient}@") and rest == f"{original}\n{taker}":
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


_ADDRESS = re.compile(r"\[([0-9A-Fa-f.:]+)\]")


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
    to, came = _ADDRESS.search(event.relay or ""), _ADDRESS.search(successor.peer or "")
    if to is None or came is None:
        return False
    try:
        there, here = ip_address(to[1]), ip_address(came[1])
    except ValueError:
        return False
    # Only a filter of our own is trusted to know our queue IDs: on this host, or on a private network.
    return (there.is_loopback and here.is_loopback) or (there == here and there.is_private)


def _without_extension(address: str) -> str:
    """An address without what a filter may have put behind the name: `ann+spam@dest.test` is for `ann`."""
    local, _, domain = address.rpartition("@")
    return f"{re.split('[+-]', local, maxsplit=1)[0]}@{domain}"
