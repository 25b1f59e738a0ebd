"""The messages that are remembered, and when they are forgotten.

Each server's messages are kept by queue ID until they end. Messages that never end are dropped by age and by number,
so memory is bounded. The ledger decides what the entries of a log mean for a message.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import nsmallest
from itertools import islice

from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.codes import label
from bouncemeter.stamps import Clock

from bouncemeter_exporter.counting.message import Message, Open, pack, seen, unpack

__all__ = ["LATE", "MAX_AGE", "MAX_ENDED", "MAX_MESSAGES", "Memory", "MessageName", "Queue", "ServerName", "Waiting"]

MAX_AGE = 6 * 86400.0
"""Seconds without a line after which a message is forgotten: a little over the usual queue lifetime of five days."""

MAX_MESSAGES = 1_000_000
"""Messages that are remembered at a time."""

LATE = 60.0
MAX_ENDED = 10_000
"""Messages that left the queue are kept for this many seconds, and this many of them, because lines about them may come
late. If a server's log records no removals, only the number limits them."""

MAX_UNPACKED = 1000
"""A waiting message is packed once this many others began to wait after it: its next attempt is hours away by then."""

MAX_SERVERS = 10_000
"""Hosts that are kept apart; all further hosts count as one server."""

SWEEPS = 32
"""How often, within the age limit, to look for old messages."""

Waiting = tuple[str, str, str, str]
"""The labels of recipients that wait: mta, class, code and provider."""

MessageName = tuple[str, str | None, str]
"""What identifies a message: mta, host and queue ID."""

ServerName = tuple[str, str | None]
"""What identifies a server: mta and host."""


@dataclass(slots=True)
class Queue:
    """The messages of one server.

    Attributes:
        server: The server that they belong to.
        now: The latest time in its log.
        removes: Whether its log has ever recorded a removal.
        active: Messages with no waiting recipient, least recently seen first.
        waiting: Messages with a recipient that waits, in the order of their first deferral; most of them packed.
        ended: Messages that ended, kept for lines that come late, in the order in which they ended.
    """

    server: ServerName
    now: float = 0.0
    removes: bool = False
    active: dict[str, Message] = field(default_factory=dict)
    waiting: dict[str, Message | bytes] = field(default_factory=dict)
    ended: dict[str, Message] = field(default_factory=dict)

    @property
    def mta(self) -> str:
        """The parser's name."""
        return self.server[0]

    def peek(self, queue_id: str) -> Message | None:
        """Return a message without taking it out."""
        kept = self.active.get(queue_id) or self.ended.get(queue_id) or self.waiting.get(queue_id)
        return None if kept is None else _unpacked(kept)

    def known(self, queue_ids: set[str]) -> set[str]:
        """The queue IDs, among those given, that belong to remembered messages."""
        return {
            *(self.active.keys() & queue_ids),
            *(self.waiting.keys() & queue_ids),
            *(self.ended.keys() & queue_ids),
        }


class Memory:
    """The messages of all servers.

    Args:
        max_age: Seconds after which a message without a further line is forgotten.
        max_messages: How many messages are remembered.
        clock: Supplies the current time, so that a line from the future does not make the rest look old.
        recording: Note which messages change, for `changes`.

    Attributes:
        waiting: Recipients that wait for another attempt, except those of notifications.
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
        self._queues: dict[ServerName, Queue] = {}
        self._unpacked: dict[MessageName, None] = {}
        self._messages = self._ended = 0
        self._changed: set[MessageName] | None = set() if recording else None
        self._swept = self._latest = 0.0
        self.now = 0.0
        self.waiting: Counter[Waiting] = Counter()
        self.evicted = 0

    def __len__(self) -> int:
        """Messages that are remembered."""
        return self._messages

    # --- servers ------------------------------------------------------------------------------------------------

    def queue(self, mta: str, host: str | None) -> Queue | None:
        """A server's messages; None if the server is not known."""
        return self._queues.get((mta, host))

    def add_queue(self, mta: str, host: str | None) -> Queue:
        """Add a server. Once there are `MAX_SERVERS`, all further ones share a queue without a host."""
        if len(self._queues) >= MAX_SERVERS and host is not None:
            return self._queues.get((mta, None)) or self.add_queue(mta, None)
        queue = self._queues[mta, host] = Queue((mta, host))
        return queue

    def has_room(self, mta: str, host: str | None) -> bool:
        """Whether a server has a queue of its own, or can have one."""
        return (mta, host) in self._queues or len(self._queues) < MAX_SERVERS

    def known(self, mta: str, host: str | None, queue_ids: set[str]) -> set[str]:
        """The queue IDs, among those given, that belong to a server's remembered messages."""
        queue = self._queues.get((mta, host))
        return queue.known(queue_ids) if queue is not None else set()

    def advance(self, queue: Queue, time: float) -> None:
        """Note that a server's log has reached a time, in seconds since 1970 UTC."""
        if time > self._latest:
            self._latest = self._clock() + 86400.0
            time = min(time, self._latest)
        if time > queue.now:
            queue.now = time
            self.now = max(self.now, time)

    def oldest(self) -> dict[str, float]:
        """By mta, the first deferral of the recipient that has waited longest, in seconds since 1970 UTC."""
        found: dict[str, float] = {}
        for queue in self._queues.values():
            best = found.get(queue.mta, float("inf"))
            for kept in queue.waiting.values():  # in the order of their first deferral
                message = _unpacked(kept)
                if min(each.since for each in message.recipients.values() if each.since is not None) >= best:
                    break
                if not message.notification:
                    best = min([best, *(each.since or 0.0 for _, each in message.waiting())])
            if best < float("inf"):
                found[queue.mta] = best
        return found

    def waiting_messages(self) -> Iterator[tuple[ServerName, str, Message]]:
        """The messages with a recipient that waits, except notifications, each with its server and its queue ID."""
        for server, queue in self._queues.items():
            for queue_id, kept in queue.waiting.items():
                message = _unpacked(kept)
                if not message.notification:
                    yield server, queue_id, message

    # --- finding and keeping messages ---------------------------------------------------------------------------

    def find(self, queue: Queue, queue_id: str, now: float) -> Message | None:
        """Take out a message; also one that has ended, if the line is only a little late.

        Args:
            queue: The server's messages.
            queue_id: The message's queue ID.
            now: The time of the line about it.
        """
        message = queue.active.pop(queue_id, None)
        if message is None and (kept := queue.waiting.get(queue_id)) is not None:
            message = _counted(kept)
        if message is None:
            message = queue.ended.get(queue_id)
            if message is None or (message.removed and now - message.seen > LATE):
                return None
            if not message.removed:
                del queue.ended[queue_id]
                self._ended -= 1
        else:
            self._messages -= 1
            if message.seen < now - self._max_age:
                self.end_wait(queue, queue_id)
                self.evicted += 1
                return None
        message.seen = max(message.seen, now)
        return message

    def keep(self, queue: Queue, queue_id: str, message: Message) -> None:
        """Put a message back, among the ended ones if it has ended."""
        if not message.removed and message.waits:
            self._messages += 1
            if queue.waiting.get(queue_id) is not message:
                queue.waiting[queue_id] = message
                self._unpacked[*queue.server, queue_id] = None
                if len(self._unpacked) > MAX_UNPACKED:
                    self._pack_oldest()
            if message.changed or message.notification:
                self._recount(queue.mta, message, message.to_count())
            return
        if queue_id in queue.waiting:
            self.end_wait(queue, queue_id)
        if message.removed or (message.recipients and not queue.removes):
            self.keep_ended(queue, queue_id, message)
        else:
            queue.active[queue_id] = message
            self._messages += 1

    def keep_ended(self, queue: Queue, queue_id: str, message: Message) -> None:
        """Keep a message that ended."""
        self._ended += queue_id not in queue.ended
        queue.ended[queue_id] = message
        if self._ended > MAX_ENDED:
            self._drop_ended(queue)

    def end_wait(self, queue: Queue, queue_id: str) -> None:
        """Take out a message, if it is among those that wait."""
        if (kept := queue.waiting.pop(queue_id, None)) is not None:
            message = _counted(kept)
            self._recount(queue.mta, message, {})
            self._unpacked.pop((*queue.server, queue_id), None)

    def _pack_oldest(self) -> None:
        """Pack the waiting message that has been one, or was last unpacked, for the longest time."""
        mta, host, queue_id = name = next(iter(self._unpacked))
        del self._unpacked[name]
        queue = self._queues.get((mta, host))
        if queue is not None and isinstance(kept := queue.waiting.get(queue_id), Message):
            queue.waiting[queue_id] = pack(kept)

    def _recount(self, mta: str, message: Message, now: Open) -> None:
        """Count those of a message's recipients that wait now in place of those that waited before."""
        for (code, provider), difference in message.count(now):
            if code is not None:
                labels = _labels(mta, code, provider)
                self.waiting[labels] += difference
                if not self.waiting[labels]:
                    del self.waiting[labels]

    # --- forgetting ---------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Forget messages if there are too many, or if old ones have not been looked for lately."""
        if self._messages > self._max_messages:
            self._forget_oldest()
        elif self.now - self._swept > self._max_age / SWEEPS:
            self.forget_old()

    def forget_old(self) -> None:
        """Forget messages without a line for too long by their own server's time, and servers that fell silent."""
        self._swept = self.now
        for server, queue in list(self._queues.items()):
            silent = queue.now < self.now - 2 * self._max_age
            limit = self.now if silent else queue.now - self._max_age
            old = [queue_id for queue_id, each in queue.active.items() if each.seen < limit]
            old += [queue_id for queue_id, kept in queue.waiting.items() if _seen(kept) < limit]
            for queue_id in old:
                self._evict(queue, queue_id)
            if not queue.active and not queue.waiting and (silent or not queue.ended):
                self._ended -= len(queue.ended)
                del self._queues[server]

    def _forget_oldest(self) -> None:
        """Forget the sixteenth of all messages that began earliest."""
        number = self._max_messages // 16 + 1
        oldest: list[tuple[float, int, str, Queue]] = []
        for place, queue in enumerate(self._queues.values()):
            active = ((each.begun, queue_id) for queue_id, each in islice(queue.active.items(), number))
            waiting = ((_unpacked(each).begun, queue_id) for queue_id, each in islice(queue.waiting.items(), number))
            oldest += ((begun, place, queue_id, queue) for begun, queue_id in (*active, *waiting))
        for _, _, queue_id, queue in nsmallest(number, oldest, key=lambda each: each[:3]):
            self._evict(queue, queue_id)

    def _evict(self, queue: Queue, queue_id: str) -> None:
        if queue.active.pop(queue_id, None) is None:
            self.end_wait(queue, queue_id)
        self._messages -= 1
        self.evicted += 1
        self.note_change(queue, queue_id)

    def _forget_ended(self) -> None:
        """Forget messages that left the queue too long ago for more lines to come, by their own server's time."""
        for queue in self._queues.values():
            while queue.ended:
                message = next(iter(queue.ended.values()))
                if not message.removed or message.seen >= queue.now - LATE:
                    break
                self._drop_ended(queue)

    def _drop_ended(self, queue: Queue) -> None:
        """Forget the message of a server that ended earliest."""
        queue_id = next(iter(queue.ended))
        del queue.ended[queue_id]
        self._ended -= 1
        self.note_change(queue, queue_id)

    # --- saving and restoring -----------------------------------------------------------------------------------

    def note_change(self, queue: Queue, queue_id: str) -> None:
        """Note that a message changes and must be saved."""
        if self._changed is not None:
            self._changed.add((*queue.server, queue_id))

    def changes(self) -> list[tuple[MessageName, bytes | None]]:
        """Each message that changed since the last call of `changes_kept`, packed; None for a forgotten one."""
        self._forget_ended()
        return [(name, self._packed(name)) for name in self._changed or ()]

    def changes_kept(self) -> None:
        """Note that the changes were saved."""
        if self._changed is not None:
            self._changed.clear()

    def servers(self) -> dict[ServerName, tuple[float, bool]]:
        """For each server with messages: the latest time in its log, and whether the log records removals."""
        return {server: (each.now, each.removes) for server, each in self._queues.items()}

    def restore(
        self,
        servers: Iterable[tuple[ServerName, tuple[float, bool]]],
        messages: Iterable[tuple[MessageName, bytes]],
    ) -> None:
        """Start from what was saved.

        Args:
            servers: As `servers` returns them.
            messages: As `changes` returns them, in the order of `bouncemeter_exporter.counting.message.place`.
        """
        for server, (now, removes) in servers:
            self._queues[server] = Queue(server, now, removes)
            self.now = self._swept = max(self.now, now)
        for (mta, host, queue_id), packed in messages:
            queue = self._queues.setdefault((mta, host), Queue((mta, host)))
            message = unpack(packed)
            if not message.removed and message.waits:
                self._recount(mta, message, message.to_count())
                queue.waiting[queue_id] = packed
                self._messages += 1
            else:
                self.keep(queue, queue_id, message)

    def _packed(self, name: MessageName) -> bytes | None:
        """A message as bytes; None if it is no longer remembered."""
        mta, host, queue_id = name
        queue = self._queues.get((mta, host))
        if queue is None:
            return None
        kept = queue.waiting.get(queue_id) or queue.active.get(queue_id) or queue.ended.get(queue_id)
        return pack(kept) if isinstance(kept, Message) else kept


def _unpacked(kept: Message | bytes) -> Message:
    return kept if isinstance(kept, Message) else unpack(kept)


def _counted(kept: Message | bytes) -> Message:
    """A message that is kept among those that wait."""
    if isinstance(kept, Message):
        return kept
    message = unpack(kept)
    message.counted, message.changed = dict(message.to_count()), {}
    return message


def _seen(kept: Message | bytes) -> float:
    return kept.seen if isinstance(kept, Message) else seen(kept)


@lru_cache(maxsize=4096)
def _labels(mta: str, code: EnhancedCode, provider: str) -> Waiting:
    return (mta, *label(code), provider)
