"""Ordinary mail: messages that came, were delivered to every recipient or refused for good, and left, all within one
block of lines.

Whatever was known before, the ledger would count each of their outcomes as a recipient that ended, and forget the
message. So deliveries are counted together, by columns; all other messages are the ledger's.
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
from bouncemeter.event import Entry, Event, Outcome, StepKind
from bouncemeter.providers import provider_of

from bouncemeter_exporter.message import Message, Recipient

__all__ = ["Passed", "near", "passed", "recipient_key", "taker_of"]

T = TypeVar("T")

_ADDRESS = re.compile(r"\[([0-9A-Fa-f.:]+)\]")


@dataclass(slots=True)
class Passed:
    """The ordinary messages of one server in a block.

    Attributes:
        rows: The lines of the block that are of this server.
        queue_ids: Whose messages they are.
        first: By queue ID, the first row; for an ordinary message that of its arrival.
        last: By queue ID, the last row; for an ordinary message that of its removal.
        deliveries: The rows of their deliveries, one a recipient.
        refused: Their refusals for good, one a recipient.
    """

    rows: Rows
    queue_ids: set[str] = field(default_factory=set)
    first: dict[str, Row] = field(default_factory=dict)
    last: dict[str, Row] = field(default_factory=dict)
    deliveries: list[Row] = field(default_factory=list)
    refused: list[Event] = field(default_factory=list)

    def messages(self, queue_ids: Iterable[str]) -> Iterator[tuple[str, Message]]:
        """Some of the messages, by queue ID, as the ledger knows messages that left."""
        columns, time = self.rows.reader.columns, self.times()
        kept = dict.fromkeys(queue_ids, Message(0.0, 0.0))
        if not kept:
            return
        queued = {row[columns.queue_id] for row in self.rows.rows if row[columns.sender]}
        for name in kept:
            begun, seen = time(self.first[name]) or 0.0, time(self.last[name]) or 0.0
            peer, is_queued = self.first[name][columns.peer] or None, name in queued
            kept[name] = Message(begun, seen, arrived=True, queued=is_queued, removed=True, peer=peer)
        for row in self.deliveries:
            if (message := kept.get(row[columns.queue_id])) is not None:
                key = recipient_key(row[columns.recipient], row[columns.original_recipient])
                message.recipients[key] = Recipient(ended=True)
        for event in self.refused:
            if (message := kept.get(event.queue_id or "")) is not None:
                key = recipient_key(event.recipient or "", event.original_recipient or "", taker_of(event))
                message.recipients[key] = Recipient(ended=True)
        yield from kept.items()

    @property
    def mta(self) -> str:
        """The parser's name."""
        return self.rows.reader.mta

    def texts(self, place: int) -> list[str]:
        """One text of each delivery."""
        return [row[place] for row in self.deliveries]

    def counted(self, names: Sequence[T]) -> Iterator[tuple[T, Row, int]]:
        """Names of the deliveries, each once, with the last row that has it and the number of those."""
        latest = dict(zip(names, self.deliveries, strict=True))
        return ((name, latest[name], number) for name, number in Counter(names).items())

    def codes(self) -> list[str]:
        """The code of each delivery as a text, empty where the log has none."""
        return self.texts(self.rows.reader.columns.code)

    def providers(self) -> list[str]:
        """Who took each delivery."""
        columns = self.rows.reader.columns
        return list(map(_provider, self.texts(columns.relay), self.texts(columns.recipient)))

    def delays(self) -> list[float | None]:
        """Seconds from acceptance to each delivery, as the log tells them, else by the time of the arrival."""
        columns, reader = self.rows.reader.columns, self.rows.reader
        told = self.texts(columns.delay)
        known: dict[str, float | None] = {text: reader.seconds(text) if text else None for text in set(told)}
        delays = [known[text] for text in told]
        if "" in known:
            time = self.times()
            for place, row in enumerate(self.deliveries):
                if not row[columns.delay]:
                    begun, ended = time(self.first[row[columns.queue_id]]), time(row)
                    if begun is not None and ended is not None:
                        delays[place] = round(max(0.0, ended - begun), 3)
        return delays

    def delay(self, event: Event) -> float | None:
        """The same of a refusal."""
        if event.delay is not None or event.time is None:
            return event.delay
        begun = self.times()(self.first[event.queue_id or ""])
        return round(max(0.0, event.time - begun), 3) if begun is not None else None

    def latest(self) -> float | None:
        """The time of the latest delivery."""
        span = self.rows.reader.stamps.span(set(self.texts(self.rows.reader.columns.stamp)))
        return span[1] if span is not None else None

    def times(self) -> Callable[[Row], float | None]:
        """Tells the time of a row."""
        seconds, place = lru_cache(4096)(self.rows.reader.stamps.seconds), self.rows.reader.columns.stamp
        return lambda row: seconds(row[place])


@lru_cache(maxsize=16384)
def _provider_of_domain(relay: str, domain: str) -> str:
    return provider_of(relay, domain)


def _provider(relay: str, recipient: str) -> str:
    return _provider_of_domain(relay, recipient.rpartition("@")[2])


def passed(rows: Rows, known: Callable[[set[str]], set[str]], *, alone: bool = False) -> Passed:
    """Find the ordinary messages among what the lines of a server tell.

    Args:
        rows: What they tell.
        known: Which of some queue IDs are those of messages that are known from earlier lines.
        alone: The lines are not all that there were before: leave out whatever might have to do with other messages.
    """
    if not rows.arrivals or not rows.removals:
        return Passed(rows)
    columns = rows.reader.columns
    queue_id, relay = itemgetter(columns.queue_id), columns.relay
    names = list(map(queue_id, rows.rows))
    last = dict(zip(names, rows.rows, strict=True))
    first = dict(zip(reversed(names), reversed(rows.rows), strict=True))
    arrived, removed = ({queue_id(row): row for row in each} for each in (rows.arrivals, rows.removals))
    found = {
        name for name in arrived.keys() & removed.keys() if first[name] is arrived[name] and last[name] is removed[name]
    }
    found -= _told(rows)
    for ends, once in ((rows.arrivals, arrived), (rows.removals, removed)):
        if len(once) < len(ends):
            found -= {name for name, number in Counter(map(queue_id, ends)).items() if number > 1}
    found -= known(found)
    ours = {each for each in {row[relay] for row in rows.deliveries} if near(each)}
    if alone:
        found -= {name for name, row in arrived.items() if near(row[columns.peer])}
    for row in rows.deliveries if ours else ():
        if row[relay] in ours and (successor := rows.reader.passed_to(row)) is not None:
            name = queue_id(row)
            if successor != name and (alone or successor in last or known({successor})):
                found -= {name, successor}
    deliveries = [row for row in rows.deliveries if queue_id(row) in found]
    refused = [entries[0] for entries in rows.told if len(entries) == 1 and _is_refusal(entries[0])]
    refused = [event for event in refused if event.queue_id in found]
    if twice := _twice(deliveries, refused, columns):
        found -= twice
        deliveries = [row for row in deliveries if queue_id(row) in found]
        refused = [event for event in refused if event.queue_id in found]
    return Passed(rows, found, first, last, deliveries, refused)


def _is_refusal(entry: Entry) -> TypeGuard[Event]:
    """Whether an entry is that a recipient of a message was refused for good."""
    return isinstance(entry, Event) and entry.outcome is Outcome.BOUNCED and bool(entry.recipient)


def _told(rows: Rows) -> set[str | None]:
    """The queue IDs of messages of which other lines tell than deliveries and refusals, and steps of usual forms."""
    found: set[str | None] = set()
    for entries in rows.told:
        for entry in entries:
            if isinstance(entry, Event):
                found.add(entry.passed_to)
                if len(entries) > 1 or not _is_refusal(entry) or entry.sender == "":
                    found.add(entry.queue_id)
            else:
                found.add(entry.related)
                if entry.what is not StepKind.NOTIFIED:  # this one is about another message
                    found.add(entry.queue_id)
    return found


def _twice(deliveries: list[Row], refused: list[Event], columns: Columns) -> set[str]:
    """The queue IDs of messages with more than one outcome for a recipient."""
    who = ([row[place].lower() for row in deliveries] for place in (columns.recipient, columns.original_recipient))
    each = list(zip((row[columns.queue_id] for row in deliveries), *who, strict=True))
    each += [
        (event.queue_id or "", (event.recipient or "").lower(), (event.original_recipient or "").lower())
        for event in refused
    ]
    if len(set(each)) == len(each):
        return set()
    return {name for (name, *_), number in Counter(each).items() if number > 1}


@lru_cache(maxsize=4096)
def near(peer: str) -> IPv4Address | IPv6Address | None:
    """The address of a relay or client (`name[192.168.0.1]:25`) that is on this host or on a private network: only
    such a one is trusted to know our queue IDs."""
    found = _ADDRESS.search(peer)
    try:
        address = ip_address(found[1]) if found is not None else None
    except ValueError:
        return None
    return (
        address if address is not None and (address.is_loopback or any(address in each for each in _PRIVATE)) else None
    )


_PRIVATE = [ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")]


def recipient_key(recipient: str, original: str, taker: str = "") -> str:
    """Which recipient of a message: its address, the original one, the file or command that takes the mail."""
    recipient, original = recipient.lower(), original.lower()
    return f"{recipient}\n{original}\n{taker}" if original or taker else recipient


def taker_of(event: Event) -> str:
    """The file or command that takes the mail; empty if none does."""
    return event.relay if event.relay and event.relay[0] in "|/" else ""
