"""Ordinary mail: messages that came, were delivered to every recipient, and left, all within one block of lines.

Whatever was known before, the ledger would count each of their deliveries as a recipient that ended, and forget the
message. So they are counted together, by columns; all other messages are the ledger's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from operator import itemgetter

from bouncemeter.blocks import Columns, Row, Rows
from bouncemeter.event import EnhancedCode, Event, Outcome, undefined_code
from bouncemeter.providers import provider_of

from bouncemeter_exporter.message import Message, Recipient

__all__ = ["Passed", "near", "passed"]

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
    """

    rows: Rows
    queue_ids: set[str]
    first: dict[str, Row]
    last: dict[str, Row]
    deliveries: list[Row]

    def nothing(self) -> Passed:
        """None of them."""
        return Passed(self.rows, set(), {}, {}, [])

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
                key = row[columns.recipient].lower()
                if original := row[columns.original_recipient].lower():
                    key = f"{key}\n{original}\n"
                message.recipients[key] = Recipient(ended=True)
        yield from kept.items()

    @property
    def mta(self) -> str:
        """The parser's name."""
        return self.rows.reader.mta

    def texts(self, place: int) -> list[str]:
        """One text of each delivery."""
        return [row[place] for row in self.deliveries]

    def codes(self) -> list[EnhancedCode]:
        """The code of each delivery."""
        made = {
            text: EnhancedCode.parse(text) if text else undefined_code(Outcome.DELIVERED, None)
            for text in set(self.texts(self.rows.reader.columns.code))
        }
        return [made[text] for text in self.texts(self.rows.reader.columns.code)]

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
    columns, reader = rows.reader.columns, rows.reader
    arrival, removal, outcome, relay = columns.arrival, columns.removal, columns.outcome, columns.relay
    queue_id = itemgetter(columns.queue_id)
    names = list(map(queue_id, rows.rows))
    last = dict(zip(names, rows.rows, strict=True))
    first = dict(zip(reversed(names), reversed(rows.rows), strict=True))
    found = {name for name, row in last.items() if row[removal] and first[name][arrival]}
    found -= _told(rows)
    ends = Counter([name for name, row in zip(names, rows.rows, strict=True) if row[arrival] or row[removal]])
    found -= {name for name, number in ends.items() if number > 2}
    found -= known(found)
    deliveries = [row for row in rows.rows if row[outcome]]
    ours = {each for each in {row[relay] for row in deliveries} if near(each)}
    if alone:
        found -= {name for name, row in first.items() if row[arrival] and near(row[columns.peer])}
    for row in deliveries if ours else ():
        if row[relay] in ours and (successor := reader.passed_to(row)) is not None:
            name = queue_id(row)
            if successor != name and (alone or successor in last or known({successor})):
                found -= {name, successor}
    deliveries = [row for row in deliveries if queue_id(row) in found]
    if twice := _twice(deliveries, columns):
        found -= twice
        deliveries = [row for row in deliveries if queue_id(row) in found]
    return Passed(rows, found, first, last, deliveries)


def _told(rows: Rows) -> set[str]:
    """The queue IDs that other lines than the usual ones speak of."""
    found: set[str | None] = set()
    for entries in rows.told:
        for entry in entries:
            found.add(entry.queue_id)
            found.add(entry.passed_to if isinstance(entry, Event) else entry.related)
    return {name for name in found if name}


def _twice(deliveries: list[Row], columns: Columns) -> set[str]:
    """The queue IDs of messages that were delivered to a recipient more than once."""
    who = ([row[place].lower() for row in deliveries] for place in (columns.recipient, columns.original_recipient))
    each = list(zip((row[columns.queue_id] for row in deliveries), *who, strict=True))
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
