"""Ordinary mail: messages that arrived, were delivered or refused for good, and left, all within one block of lines.

Whatever came before, the ledger would count each of their outcomes as a recipient that ended, and forget the message.
So their deliveries are counted together, by columns; all other messages go through the ledger.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from operator import itemgetter
from typing import TypeGuard, TypeVar

from bouncemeter.blocks import Columns, Row, Rows
from bouncemeter.event import NOWHERE, Entry, Event, Kind, Outcome, StepKind
from bouncemeter.knowledge.providers import provider_at

from bouncemeter_exporter.counting.message import Message, Recipient, bounce_bit

__all__ = [
    "UNORDERED",
    "OrdinaryMail",
    "domains_of",
    "file_or_pipe",
    "find_ordinary",
    "internal_address",
    "recipient_key",
]

T = TypeVar("T")

UNORDERED = 10.0
"""Seconds by which lines may be out of order: an arrival this late does not begin another message."""

_ADDRESS = re.compile(r"\[([0-9A-Fa-f.:]+)\]")


@dataclass(slots=True)
class OrdinaryMail:
    """The ordinary messages of one server in a block.

    Attributes:
        rows: The server's lines in the block.
        queue_ids: The queue IDs of its ordinary messages.
        first: By queue ID, the first row; for an ordinary message, its arrival.
        last: By queue ID, the last row; for an ordinary message, its removal.
        deliveries: The rows of the deliveries, one for each recipient.
        refusals: The recipients that were refused for good, one event for each.
    """

    rows: Rows
    queue_ids: set[str] = field(default_factory=set)
    first: dict[str, Row] = field(default_factory=dict)
    last: dict[str, Row] = field(default_factory=dict)
    deliveries: list[Row] = field(default_factory=list)
    refusals: list[Event] = field(default_factory=list)
    _senders: dict[str, str] | None = None
    _accounts: dict[str, str] | None = None
    _domains: list[str] | None = None

    def messages(self, queue_ids: Iterable[str], *, senders: bool = False) -> Iterator[tuple[str, Message]]:
        """Some of the messages, by queue ID, in the form in which the ledger keeps messages that left the queue.

        Args:
            queue_ids: Their queue IDs.
            senders: Remember who sent each and who handed it over.
        """
        columns, time = self.rows.reader.columns, self.times()
        kept = dict.fromkeys(queue_ids, Message(0.0, 0.0))
        if not kept:
            return
        queued = self.senders()
        for name in kept:
            begun, seen = time(self.first[name]) or 0.0, time(self.last[name]) or 0.0
            peer, is_queued = self.first[name][columns.peer] or None, name in queued
            kept[name] = Message(begun, seen, arrived=True, queued=is_queued, removed=True, peer=peer)
        for row in self.deliveries:
            if (message := kept.get(row[columns.queue_id])) is not None:
                key = recipient_key(row[columns.recipient], row[columns.original_recipient])
                message.recipients[key] = Recipient(ended=True)
        for event in self.refusals:
            if (message := kept.get(event.queue_id or "")) is not None:
                key = recipient_key(event.recipient or "", event.original_recipient or "", file_or_pipe(event))
                message.recipients[key] = Recipient(ended=True)
                message.bounced |= bounce_bit(Kind.HARD, event.code)
        if senders:
            of, by = self.senders(), self.accounts()
            for name, message in kept.items():
                message.sender, message.account = of.get(name), by.get(name)
        yield from kept.items()

    def senders(self) -> dict[str, str]:
        """Who sent each message, by queue ID."""
        if self._senders is None:
            self._senders = self._named(self.rows.rows, self.rows.reader.columns.sender)
        return self._senders

    def accounts(self) -> dict[str, str]:
        """Who handed each message over, by queue ID, where the log says so."""
        if self._accounts is None:
            self._accounts = self._named(self.rows.arrivals, self.rows.reader.columns.account)
        return self._accounts

    def _named(self, rows: Iterable[Row], column: int) -> dict[str, str]:
        named = filter(itemgetter(column), rows)
        return dict(map(itemgetter(self.rows.reader.columns.queue_id, column), named))

    @property
    def mta(self) -> str:
        """The parser's name."""
        return self.rows.reader.mta

    def texts(self, column: int) -> list[str]:
        """One column of each delivery."""
        return list(map(itemgetter(column), self.deliveries))

    def counted(self, names: Sequence[T]) -> Iterator[tuple[T, Row, int]]:
        """Each distinct name of a delivery, with the last row that has it and the number of such rows."""
        latest = dict(zip(names, self.deliveries, strict=True))
        return ((name, latest[name], number) for name, number in Counter(names).items())

    def codes(self) -> list[str]:
        """The code of each delivery as a text, empty where the log has none."""
        return self.texts(self.rows.reader.columns.code)

    def providers(self) -> list[str]:
        """The provider that accepted each delivery."""
        return list(map(provider_at, self.texts(self.rows.reader.columns.relay), self.domains()))

    def domains(self) -> list[str]:
        """The domain of each recipient, in lower case; empty for an address of this host."""
        if self._domains is None:
            self._domains = domains_of(self.texts(self.rows.reader.columns.recipient))
        return self._domains

    def delays(self) -> list[float | None]:
        """Seconds from acceptance to each delivery, as logged, else since the arrival."""
        columns, reader = self.rows.reader.columns, self.rows.reader
        logged = self.texts(columns.delay)
        known: dict[str, float | None] = {text: reader.seconds(text) if text else None for text in set(logged)}
        delays = [known[text] for text in logged]
        if "" in known:
            arrivals = map(self.first.__getitem__, self.texts(columns.queue_id))
            begun, ended = list(map(itemgetter(columns.stamp), arrivals)), self.texts(columns.stamp)
            times = reader.stamps.times({*begun, *ended})
            spans = zip(map(times.__getitem__, begun), map(times.__getitem__, ended), strict=True)
            since = [None if begin is None or end is None else max(0.0, end - begin) for begin, end in spans]
            if any(time is not None and time % 1 for time in times.values()):
                since = [None if each is None else round(each, 3) for each in since]
            delays = [each if at is None else at for at, each in zip(delays, since, strict=True)]
        return delays

    def delay(self, event: Event) -> float | None:
        """The same for a refusal."""
        if event.delay is not None or event.time is None:
            return event.delay
        begun = self.times()(self.first[event.queue_id or ""])
        return round(max(0.0, event.time - begun), 3) if begun is not None else None

    def latest(self) -> float | None:
        """The time of the latest delivery."""
        span = self.rows.reader.stamps.span(set(self.texts(self.rows.reader.columns.stamp)))
        return span[1] if span is not None else None

    def left_last(self, within: float) -> Iterator[tuple[str, float]]:
        """The queue IDs of the messages that left in the last seconds of the lines, each with the time, latest first.

        Args:
            within: The number of seconds.
        """
        queue_id, last, time = self.rows.reader.columns.queue_id, 0.0, self.times()
        for row in reversed(self.rows.rows):
            moment = time(row)
            if moment is None:
                continue
            last = max(last, moment)
            if moment < last - within - UNORDERED:
                break
            name = row[queue_id]
            if name in self.queue_ids and self.last[name] is row and moment >= last - within:
                yield name, moment

    def periods(self, length: float) -> Counter[int | None]:
        """How many deliveries there were in each period of so many seconds; see `Stamps.periods`."""
        return self.rows.reader.stamps.periods(self.texts(self.rows.reader.columns.stamp), length)

    def times(self) -> Callable[[Row], float | None]:
        """A function that gives the time of a row."""
        seconds, place = lru_cache(4096)(self.rows.reader.stamps.seconds), self.rows.reader.columns.stamp
        return lambda row: seconds(row[place])


def domains_of(addresses: Iterable[str]) -> list[str]:
    """The domains of addresses, in lower case; empty for an address of this host."""
    return [each.rpartition("@")[2].lower() if "@" in each else "" for each in addresses]


def find_ordinary(rows: Rows, known: Callable[[set[str]], set[str]], *, partial: bool = False) -> OrdinaryMail:
    """Find the ordinary messages among the lines of a server.

    Args:
        rows: The lines.
        known: Returns the queue IDs, among those given, of messages known from earlier lines.
        partial: Not all earlier lines have been read: leave out all messages that may be connected with others.
    """
    if not rows.arrivals or not rows.removals:
        return OrdinaryMail(rows)
    columns = rows.reader.columns
    queue_id, relay = itemgetter(columns.queue_id), columns.relay
    names = list(map(queue_id, rows.rows))
    last = dict(zip(names, rows.rows, strict=True))
    first = dict(zip(reversed(names), reversed(rows.rows), strict=True))
    arrived, removed = (dict(zip(map(queue_id, each), each, strict=True)) for each in (rows.arrivals, rows.removals))
    found = {
        name for name in arrived.keys() & removed.keys() if first[name] is arrived[name] and last[name] is removed[name]
    }
    found -= _with_other_lines(rows)
    for ends, once in ((rows.arrivals, arrived), (rows.removals, removed)):
        if len(once) < len(ends):
            found -= {name for name, number in Counter(map(queue_id, ends)).items() if number > 1}
    found -= known(found)
    ours = _internal(row[relay] for row in rows.deliveries)
    if partial and (clients := _internal(row[columns.peer] for row in rows.arrivals)):
        found -= {name for name, row in arrived.items() if row[columns.peer] in clients}
    for row in rows.deliveries if ours else ():
        if row[relay] in ours and (successor := rows.reader.passed_to(row)) is not None:
            name = queue_id(row)
            if successor == NOWHERE:
                found.discard(name)
            elif successor != name and (partial or successor in last or known({successor})):
                found -= {name, successor}
    deliveries = [row for row in rows.deliveries if queue_id(row) in found]
    refusals = [entries[0] for entries in rows.parsed if len(entries) == 1 and _is_refusal(entries[0])]
    refusals = [event for event in refusals if event.queue_id in found]
    if repeated := _with_repeated_outcomes(deliveries, refusals, columns):
        found -= repeated
        deliveries = [row for row in deliveries if queue_id(row) in found]
        refusals = [event for event in refusals if event.queue_id in found]
    return OrdinaryMail(rows, found, first, last, deliveries, refusals)


def _is_refusal(entry: Entry) -> TypeGuard[Event]:
    """Whether an entry says that a recipient was refused for good."""
    return isinstance(entry, Event) and entry.outcome is Outcome.BOUNCED and bool(entry.recipient)


def _with_other_lines(rows: Rows) -> set[str | None]:
    """The queue IDs of messages with lines other than usual ones, deliveries and refusals."""
    found: set[str | None] = set()
    for entries in rows.parsed:
        for entry in entries:
            if isinstance(entry, Event):
                found.add(entry.passed_to)
                if len(entries) > 1 or not _is_refusal(entry) or entry.sender == "":
                    found.add(entry.queue_id)
            else:
                found.add(entry.related)
                if entry.what is not StepKind.NOTIFIED:  # that line is about the related message
                    found.add(entry.queue_id)
    return found


def _with_repeated_outcomes(deliveries: list[Row], refusals: list[Event], columns: Columns) -> set[str]:
    """The queue IDs of messages with more than one outcome for a recipient."""
    queue_id = itemgetter(columns.queue_id)
    number = Counter(map(queue_id, deliveries))
    number.update(event.queue_id or "" for event in refusals)
    several = {name for name, outcomes in number.items() if outcomes > 1}
    each = [
        (queue_id(row), row[columns.recipient].lower(), row[columns.original_recipient].lower())
        for row in deliveries
        if queue_id(row) in several
    ]
    each += [
        (event.queue_id or "", (event.recipient or "").lower(), (event.original_recipient or "").lower())
        for event in refusals
        if event.queue_id in several
    ]
    if len(set(each)) == len(each):
        return set()
    return {name for (name, *_), outcomes in Counter(each).items() if outcomes > 1}


def _internal(peers: Iterable[str]) -> set[str]:
    """Those of some relays or clients that have an internal address. In most logs none has."""
    distinct = set(peers)
    return set(filter(internal_address, distinct)) if _MAYBE_INTERNAL.search("\n".join(distinct)) else set()


@lru_cache(maxsize=4096)
def internal_address(peer: str) -> IPv4Address | IPv6Address | None:
    """The address of a relay or client (`name[192.168.0.1]:25`), if it is on this host or on a private network: only
    those are trusted to know our queue IDs."""
    found = _ADDRESS.search(peer)
    if found is None or not (":" in found[1] or found[1].startswith(_INTERNAL_STARTS)):
        return None
    try:
        address = ip_address(found[1])
    except ValueError:
        return None
    return address if address.is_loopback or any(address in each for each in _PRIVATE) else None


_INTERNAL_STARTS = ("10.", "127.", "172.", "192.168.")
"""How internal addresses of IPv4 begin: almost all addresses in a log are others, and need no closer look."""

_MAYBE_INTERNAL = re.compile(rf"\[(?:{'|'.join(map(re.escape, _INTERNAL_STARTS))}|[0-9A-Fa-f.]*:)")

_PRIVATE = [ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")]


def recipient_key(recipient: str, original: str, target: str = "") -> str:
    """A recipient's key in a message: its address, the original one, and the file or command that gets the mail."""
    recipient, original = recipient.lower(), original.lower()
    return f"{recipient}\n{original}\n{target}" if original or target else recipient


def file_or_pipe(event: Event) -> str:
    """The file or command that gets the mail; empty if none does."""
    return event.relay if event.relay and event.relay[0] in "|/" else ""
