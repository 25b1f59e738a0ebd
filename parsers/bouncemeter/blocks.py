"""Reads many lines at once: one pattern finds the lines of usual forms in a block of text, and each becomes a row of
texts. Most rows never become entries: ordinary mail is counted directly from its rows.

A line of another form that may still matter gets a closer look on its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple, TypeVar

from bouncemeter.event import Entry, Event
from bouncemeter.lowering import Lowered, LoweredBlock
from bouncemeter.repeats import Repeats
from bouncemeter.stamps import Stamps
from bouncemeter.wrappers import Unwrapper

__all__ = ["Block", "Columns", "Row", "Rows", "UsualReader", "read_lines"]

T = TypeVar("T")

Row = tuple[str, ...]
"""The texts of one line; a text that the line lacks is empty. See `bouncemeter.lowering.LoweredBlock`."""


class Columns(NamedTuple):
    """The index of each field in a row.

    Attributes:
        stamp: The time stamp.
        origin: Host and program, as one text; empty if the line has neither.
        queue_id, recipient, original_recipient, relay, delay: As in `Event`, but as text.
        arrival: Not empty in an arrival's line.
        peer: The client's address, in an arrival's line.
        account: Who handed the message over, in an arrival's line.
        sender: The sender, in the line that first names it.
        removal: Not empty in the line that records that the message left the queue.
        outcome: The log's word for the outcome; empty in other lines.
        code: The enhanced status code of a delivery; empty if there is none.
    """

    stamp: int
    origin: int
    queue_id: int
    arrival: int
    peer: int
    account: int
    sender: int
    removal: int
    outcome: int
    recipient: int
    original_recipient: int
    relay: int
    code: int
    delay: int

    @classmethod
    def of(cls, names: Sequence[str], **other: str) -> Columns:
        """Find the columns by the names of a row's texts. `other` gives the names that differ from the fields' own."""
        return cls(**{column: names.index(other.get(column, column)) for column in cls._fields})


@dataclass(slots=True)
class Rows:
    """What lines contain, in their order.

    Attributes:
        reader: The reader that read them.
        rows: The rows; one with only a queue ID stands for a line that had to be parsed at once.
        parsed: The entries of those lines, in their order.
        arrivals, deliveries, removals: The rows of each kind.
    """

    reader: UsualReader
    rows: list[Row] = field(default_factory=list)
    parsed: list[Sequence[Entry]] = field(default_factory=list)
    arrivals: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)
    removals: list[Row] = field(default_factory=list)

    def sort(self) -> list[int]:
        """Find the rows of each kind. Returns the indexes of the rows that must be parsed at once."""
        columns, delivered, at_once = self.reader.columns, self.reader.delivered, self.reader.at_once
        arrival, outcome, removal = columns.arrival, columns.outcome, columns.removal
        others = []
        for place, row in enumerate(self.rows):
            if row[outcome]:
                if row[outcome] in delivered:
                    self.deliveries.append(row)
                else:
                    others.append(place)
            elif row[removal]:
                self.removals.append(row)
            elif row[arrival]:
                self.arrivals.append(row)
            elif row[-1] or any(row[column] for column in at_once):
                others.append(place)
        return others

    def by_server(self) -> Mapping[str | None, Rows]:
        """The rows by host."""
        stamp, origin, host_of = self.reader.columns.stamp, self.reader.columns.origin, self.reader.host_of
        origins = set(self.texts(origin)) - {""}
        if not origins and any(self.texts(stamp)):  # Exim's own log names no host
            origins = {""}
        hosts = {each: host_of(each) for each in origins}
        if len(set(hosts.values())) == 1:
            return dict.fromkeys(hosts.values(), self)
        found: dict[str | None, Rows] = {}
        parsed = iter(self.parsed)
        for row in self.rows:
            entries: Sequence[Entry] = ()
            if row[stamp]:
                host = hosts[row[origin]]
            elif entries := next(parsed):
                host = entries[0].host
            else:
                continue
            part = found.setdefault(host, Rows(self.reader))
            part.rows.append(row)
            part.parsed += [entries] if entries else []
        for part in found.values():
            part.sort()
        return found

    def entries(self, without: Collection[str] = frozenset(), known: Collection[str] = frozenset()) -> Iterator[Entry]:
        """The entries in their order.

        Args:
            without: Queue IDs of messages whose outcomes and steps are left out.
            known: Queue IDs of messages whose sender is not needed again. It may change from row to row.
        """
        columns, entries_of, parsed = self.reader.columns, self.reader.entries_of, iter(self.parsed)
        stamp, queue_id, arrival, sender = columns.stamp, columns.queue_id, columns.arrival, columns.sender
        for row in self.rows:
            name = row[queue_id]
            if not row[stamp]:
                for entry in next(parsed):
                    if not (isinstance(entry, Event) and entry.queue_id in without):
                        yield entry
            elif name not in without and not (row[sender] and name in known and not row[arrival]):
                yield from entries_of(row)

    def texts(self, place: int) -> Iterator[str]:
        """The text at one index of each row."""
        return map(itemgetter(place), self.rows)

    def span(self) -> tuple[float, float] | None:
        """The earliest and the latest time in the rows, in seconds since 1970 UTC; None if they have none."""
        stamps = set(self.texts(self.reader.columns.stamp)) - {""}
        return self.reader.stamps.span(stamps)


@dataclass(slots=True)
class Block:
    """What some lines contain.

    Attributes:
        rows: Their rows, if the format has usual lines.
        entries: Their entries, in any other format.
        events, other, unparsed: How many lines were outcomes, were of no interest, or could not be read.
        why: Why the first of them could not be read.
    """

    rows: Rows | None = None
    entries: list[Entry] = field(default_factory=list)
    events: int = 0
    other: int = 0
    unparsed: int = 0
    why: str = ""

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in the order of the lines."""
        return iter(self.entries) if self.rows is None else self.rows.entries()

    def by_period(self, length: float) -> Iterator[tuple[int | None, Block]]:
        """The entries, cut into blocks wherever the time enters a later period of so many seconds. Each comes with the
        number of its period since 1970 UTC; None if no entry so far has a time. An entry that is late stays with those
        around it. The last block counts all lines; without an entry, there is one block that counts them."""
        at, last = None, Block()
        for following, part in self._by_period(length):
            if not last.empty:
                yield at, last
            at, last = following, part
        last.events, last.other, last.unparsed, last.why = self.events, self.other, self.unparsed, self.why
        yield at, last

    @property
    def empty(self) -> bool:
        """Whether it has no entry."""
        return not self.entries and self.rows is None

    def _by_period(self, length: float) -> Iterator[tuple[int | None, Block]]:
        """The blocks, without the numbers of lines."""
        if self.rows is None:
            yield from ((at, Block(entries=part)) for at, part in _runs(self.entries, _periods(self.entries, length)))
            return
        reader, parsed = self.rows.reader, iter(self.rows.parsed)
        stamp = reader.columns.stamp
        times = reader.stamps.times(set(self.rows.texts(stamp)) - {""})
        known = {each: None if time is None else int(time // length) for each, time in times.items()}
        others = (next(_periods(entries, length), None) for entries in self.rows.parsed)
        periods = (known[row[stamp]] if row[stamp] else next(others) for row in self.rows.rows)
        for at, rows in _runs(self.rows.rows, periods):
            part = Rows(reader, rows, [next(parsed) for row in rows if not row[stamp]])
            part.sort()
            yield at, Block(part)

    def parse(self, read: Callable[[T], Sequence[Entry]], line: T) -> Sequence[Entry]:
        """Read and count one line. Returns its entries; none if it cannot be read."""
        try:
            entries = read(line)
        except Exception as error:  # UnparsedLineError, or a plugin's bug: neither may lose other lines
            self.unparsed += 1
            self.why = self.why or str(error)
            return ()
        for entry in entries:
            if isinstance(entry, Event):
                self.events += 1
                break
        return entries


@lru_cache(maxsize=1024)
def _host(origin: str) -> str | None:
    return origin.partition(" ")[0] if " " in origin else None


def _periods(entries: Iterable[Entry], length: float) -> Iterator[int | None]:
    """The period of each entry."""
    return (None if entry.time is None else int(entry.time // length) for entry in entries)


def _runs(items: Iterable[T], periods: Iterable[int | None]) -> Iterator[tuple[int | None, list[T]]]:
    """Items in runs of one period; what is earlier than an item before, or has no period, is of the run it is in."""
    at, run = None, list[T]()
    for item, period in zip(items, periods, strict=True):
        if period is not None and (at is None or period > at):
            if run:
                yield at, run
                run = []
            at = period
        run.append(item)
    if run:
        yield at, run


def read_lines(lines: Iterable[str], read: Callable[[str], Sequence[Entry]]) -> Block:
    """Read lines, without their ends, one by one."""
    block, number = Block(), 0
    for line in lines:
        number += 1
        block.entries += block.parse(read, line)
    block.other = number - block.events - block.unparsed
    return block


class UsualReader(ABC):
    """Reads lines one by one, or, much faster, a block of them. A format's reader defines its usual lines.

    Attributes:
        mta: The parser's name.
        any_line: Finds the message in a line of any form, and what comes before it, unless it is in a wrapper.
        lines: Finds the lines of usual forms.
        columns: The index of each field in their rows.
        delivered: The log's words for a delivery.
        at_once: The indexes of further columns: a row that has one of them must be parsed at once.
        stamps: Converts time stamps to times.
    """

    mta: str
    any_line: Lowered
    lines: LoweredBlock
    columns: Columns
    delivered: frozenset[str]
    at_once: Sequence[int] = ()

    def __init__(self, stamps: Stamps) -> None:
        self.stamps = stamps
        self._unwrap, self._repeats = Unwrapper(), Repeats()

    def __call__(self, line: str, /) -> Sequence[Entry]:
        """Read one line of any form."""
        return self._line(self._repeats.resolved(line))

    @property
    def joins(self) -> bool:
        """Whether the rest of a line that came in parts is still to come."""
        return bool(self._unwrap.parts)

    @abstractmethod
    def _line(self, line: str) -> Sequence[Entry]:
        """The entries of a line that says what it repeats, if it repeats another."""

    @abstractmethod
    def entries_of(self, row: Row) -> Sequence[Entry]:
        """The entries of a row's line."""

    @abstractmethod
    def look_closer(self, row: Row) -> Sequence[Entry]:
        """The entries of a row's line, if the row has a `CLOSER`."""

    def host_of(self, origin: str) -> str | None:
        """The host in an origin; None if it has none."""
        return _host(origin)

    @abstractmethod
    def is_ours(self, origin: str) -> bool:
        """Whether the program in an origin belongs to this format."""

    def is_filter(self, origin: str) -> bool:  # noqa: ARG002 - here for formats without filters
        """Whether the program in an origin is a content filter, none of whose lines are usual ones."""
        return False

    @abstractmethod
    def passed_to(self, row: Row) -> str | None:
        """The queue ID that the next server says it gave the delivered message."""

    @abstractmethod
    def seconds(self, delay: str) -> float:
        """A delay in seconds."""

    def block(self, text: str) -> Block:
        """Read a block of lines.

        Args:
            text: Whole lines, each with its line feed.
        """
        block, origin = Block(), self.columns.origin
        if not text:
            return block
        text, start = self._with_start(self._repeats.resolved_block(text))
        rows = self.lines.rows(text, start)
        origins = set(map(itemgetter(origin), rows)) - {""}
        foreign = {each for each in origins if not self.is_ours(each)}
        filters = {each for each in origins if self.is_filter(each)}
        if foreign or filters:
            rows = [row for row in rows if row[origin] not in foreign and (row[-1] or row[origin] not in filters)]
        block.rows = Rows(self, rows)
        before, after = ("",) * self.columns.queue_id, ("",) * (len(self.lines.names) - self.columns.queue_id - 1)
        for place in block.rows.sort():
            row = rows[place]
            entries = block.parse(self.look_closer if row[-1] else self.entries_of, row)
            block.rows.parsed.append(entries)
            name = (entries[0].queue_id or "") if entries else ""
            rows[place] = (*before, name, *after)
        block.events += len(block.rows.deliveries)
        block.other = text.count("\n") - 1 - block.events - block.unparsed
        return block

    def _with_start(self, text: str) -> tuple[str, int]:
        """A block, taken out of JSON, with a line feed before its first line; and how its lines start: the usual way if
        lines may be in parts, so that those in wrappers are read one by one."""
        inside = self._unwrap.block(text, self.any_line) if text.startswith("{") else None
        text = f"\n{text if inside is None else inside}"
        start = self.lines.start_of(text)
        return text, 0 if start and inside is None and self._unwrap.may_join(text) else start
