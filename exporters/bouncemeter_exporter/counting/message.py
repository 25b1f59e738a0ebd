"""What is remembered of one message, and how it is packed while its recipients wait.

Most messages pass quickly and live as objects. Those that wait for hours or days are packed as bytes, a few times
smaller, so that a million of them fit in little memory. The same bytes are saved in the state.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from bouncemeter.event import EnhancedCode, Kind
from bouncemeter.knowledge.codes import label

__all__ = ["Message", "Open", "Recipient", "bounce_bit", "pack", "place", "seen", "unpack"]


Last = tuple[EnhancedCode | None, str]
"""The code and the provider of a recipient's last deferral."""

Open = dict[Last, int]
"""A number of recipients, by their last deferral."""


@dataclass(slots=True)
class Recipient:
    """One recipient of one message.

    Attributes:
        since: The time of its first deferral, in seconds since 1970 UTC; None if it was not deferred.
        code: The code of its last deferral.
        provider: Who deferred it.
        ended: Nothing more will come: delivered, bounced, expired, or passed on.
        passed_on: It ended only because another address or server took over; an outcome may still follow.
    """

    since: float | None = None
    code: EnhancedCode | None = None
    provider: str = ""
    ended: bool = False
    passed_on: bool = False

    @property
    def waits(self) -> bool:
        """Whether it was deferred and has not ended."""
        return self.since is not None and not self.ended


@dataclass(slots=True)
class Message:
    """One message in the queue of one server.

    Attributes:
        begun: When it arrived, or, if that was not seen, the time of the first line about it.
        seen: The time of the latest line about it.
        arrived: Whether its arrival was seen.
        queued: Whether a line named its sender.
        notification: Its sender is empty: a bounce message.
        removed: It left the queue.
        expired: The server gave up on the recipients that still waited.
        unnamed: A recipient was counted as expired before any line named it.
        dated: `begun` follows from the delay that a deferral had.
        peer: The address of the client that handed it over.
        origin: The queue ID that it had before, if the log says so.
        sender, account: Who sent it, and who handed it over, where the ledger remembers that.
        soft_before: Recipients that were counted as soft bounces under an earlier queue ID.
        bounced: The kinds and classes with which a recipient bounced: a `bounce_bit` each.
        recipients: The recipients that a line named, by `recipient_key`.
        open: How many recipients wait, by the code and the provider of their last deferral.
        counted: As many of them as are counted as waiting among those of all messages.
        changed: The codes and providers whose number in `open` may have changed since.
    """

    begun: float
    seen: float
    arrived: bool = False
    queued: bool = False
    notification: bool = False
    removed: bool = False
    expired: bool = False
    unnamed: bool = False
    dated: bool = False
    peer: str | None = None
    origin: str | None = None
    sender: str | None = None
    account: str | None = None
    soft_before: frozenset[str] = frozenset()
    bounced: int = 0
    recipients: dict[str, Recipient] = field(default_factory=dict)
    open: Open = field(default_factory=dict, compare=False)
    counted: Open = field(default_factory=dict, compare=False)
    changed: dict[Last, None] = field(default_factory=dict, compare=False)
    _names: dict[str, list[str]] | None = field(default=None, repr=False, compare=False)
    _soft: frozenset[str] | None = field(default=None, repr=False, compare=False)
    _taken: frozenset[str] | None = field(default=None, repr=False, compare=False)

    @property
    def waits(self) -> bool:
        """Whether any recipient waits."""
        return bool(self.open)

    def to_count(self) -> Open:
        """What counts as waiting: not the recipients of a notification."""
        return {} if self.notification else self.open

    def count(self, now: Open) -> Iterator[tuple[Last, int]]:
        """Count as waiting those in `open`, or none: by how much each number differs from before. A message may have
        thousands of codes, so only those that changed are looked at."""
        for last in self.changed if now else list(self.counted):
            number = now.get(last, 0)
            if difference := number - self.counted.pop(last, 0):
                yield last, difference
            if number:
                self.counted[last] = number
        self.changed.clear()

    def waiting(self) -> Iterator[tuple[str, Recipient]]:
        """The recipients that wait, with their keys."""
        return ((key, each) for key, each in self.recipients.items() if each.waits)

    def recipient(self, key: str) -> Recipient:
        """A recipient, added if it is new."""
        found = self.recipients.get(key)
        if found is None:
            found = self.recipients[key] = Recipient()
            if self._names is not None:
                _note_names(self._names, key)
        return found

    def named(self, name: str) -> list[str]:
        """The keys of the recipients with an address, be it that before or after aliases, or with the local part of an
        address and an at sign."""
        if self._names is None:
            self._names = {}
            for key in self.recipients:
                _note_names(self._names, key)
        return self._names.get(name, [])

    # What follows changes a recipient of this message: `open` has how many wait, so that no line looks at all of them.

    def defer(self, recipient: Recipient, time: float, code: EnhancedCode, provider: str, *, again: bool) -> None:
        """A recipient is deferred.

        Args:
            recipient: The recipient.
            time: When.
            code, provider: Of the deferral.
            again: Whether it waits once more after it was passed on.
        """
        if recipient.waits and recipient.code == code and recipient.provider == provider:
            return
        self._close(recipient)
        if recipient.since is None:
            recipient.since, self._soft = time, None
        if again:
            recipient.ended = recipient.passed_on = False
        recipient.code, recipient.provider = code, provider
        self._reopen(recipient)

    def end(self, recipient: Recipient, *, passed_on: bool = False) -> None:
        """A recipient ends."""
        self._close(recipient)
        recipient.ended, recipient.passed_on = True, passed_on

    def reopen(self) -> None:
        """Note all recipients that wait, after they were restored."""
        for each in self.recipients.values():
            self._reopen(each)

    def _close(self, recipient: Recipient) -> None:
        if recipient.waits:
            last = recipient.code, recipient.provider
            self.changed[last] = None
            self.open[last] -= 1
            if not self.open[last]:
                del self.open[last]

    def _reopen(self, recipient: Recipient) -> None:
        if recipient.waits:
            last = recipient.code, recipient.provider
            self.changed[last] = None
            self.open[last] = self.open.get(last, 0) + 1

    def soft(self) -> frozenset[str]:
        """The recipients that were counted as soft bounces."""
        if self._soft is None:
            names = (key.partition("\n")[0] for key, each in self.recipients.items() if each.since is not None)
            self._soft = self.soft_before.union(names)
        return self._soft

    def take_soft(self, names: frozenset[str]) -> None:
        """Note recipients that were counted as soft bounces under an earlier queue ID."""
        if names and names is not self._taken:
            self.soft_before = self.soft_before | names if self.soft_before else names
            self._soft, self._taken = None, names


def _note_names(names: dict[str, list[str]], key: str) -> None:
    """Note a recipient's key under its names."""
    addresses = key.split("\n")[:2]
    local, at, _ = addresses[0].partition("@")
    for name in dict.fromkeys([*addresses, *([local + at] if at else [])]):
        names.setdefault(name, []).append(key)


_BITS = {
    (kind, f"{digit}.{subject}"): 1 << place
    for place, (kind, digit, subject) in enumerate(product(Kind, "45", "01234567x"))
}


def bounce_bit(kind: Kind, code: EnhancedCode) -> int:
    """A bit for a bounce's kind and class; 0 for a code that is of no failure."""
    return _BITS.get((kind, label(code)[0]), 0)


_TIMES = struct.Struct("<dd")
_BOUNCED = 6
"""The first bit of `bounced` among the flags."""

_DATED = 63
"""The bit of `dated`, which came after the others."""


def pack(message: Message) -> bytes:
    """Pack a message as bytes."""
    flags = (
        message.arrived
        | message.queued << 1
        | message.notification << 2
        | message.removed << 3
        | message.expired << 4
        | message.unnamed << 5
        | message.bounced << _BOUNCED
        | message.dated << _DATED
    )
    recipients = list[tuple[str, float | None, tuple[int, ...] | None, str, int]]()
    waiting_since = list[float]()
    for key, each in message.recipients.items():
        code = None if each.code is None else tuple(each.code)
        recipients.append((key, each.since, code, each.provider, each.ended + each.passed_on))
        if each.since is not None and not each.ended:
            waiting_since.append(each.since)
    who: tuple[str | None, ...] = (message.sender, message.account) if message.sender or message.account else ()
    about = (message.begun, flags, message.peer, message.origin, tuple(message.soft_before))
    times = _TIMES.pack(message.seen, min(waiting_since, default=message.seen))
    return times + marshal.dumps((*about, tuple(recipients), *who), 2)


def seen(packed: bytes) -> float:
    """The time of the latest line about a packed message, at a tenth of the cost of unpacking it."""
    found: float = _TIMES.unpack_from(packed)[0]
    return found


def place(packed: bytes) -> float:
    """The time that packed messages are ordered by: the first deferral if a recipient waits, else the latest line."""
    found: float = _TIMES.unpack_from(packed)[1]
    return found


def unpack(packed: bytes) -> Message:
    """Unpack a message."""
    fields = marshal.loads(memoryview(packed)[_TIMES.size :])  # noqa: S302 - our own bytes
    begun, flags, peer, origin, soft_before, recipients, *who = fields
    message = Message(begun, seen(packed), peer=peer, origin=origin, soft_before=frozenset(soft_before))
    message.sender, message.account = who or (None, None)
    message.bounced = flags >> _BOUNCED & (1 << len(_BITS)) - 1
    message.arrived, message.queued, message.notification = bool(flags & 1), bool(flags & 2), bool(flags & 4)
    message.removed, message.expired, message.unnamed = bool(flags & 8), bool(flags & 16), bool(flags & 32)
    message.dated = bool(flags >> _DATED)
    for key, since, code, provider, ended in recipients:
        last_code = EnhancedCode(*code) if code else None
        message.recipients[key] = Recipient(since, last_code, provider, bool(ended), ended == 2)
    message.reopen()
    return message
