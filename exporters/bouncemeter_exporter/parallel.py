"""A summary of much log by all cores: each reads pieces of it, and the result is the same as one core's.

A message of which the arrival and the removal stand in one piece is counted where it is read. What is left of others
is put together in order, in one place. Where pieces cannot be told apart so (a queue ID that is used again while the
first message waits, a line that comes late behind a border), `EntangledError` says so, and one core reads it all.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

from bouncemeter.event import Entry, Event, Outcome, Step, StepKind
from bouncemeter.plugin import BlockReader, Parser, parser

from bouncemeter_exporter.ledger import LATE, UNORDERED, Ledger, count_passed
from bouncemeter_exporter.passing import Passed, near, passed
from bouncemeter_exporter.progress import Advance
from bouncemeter_exporter.reading import LineCounts, LogReader
from bouncemeter_exporter.report import Report, Summary
from bouncemeter_exporter.sources.text import (
    BLOCK,
    COMPRESSED,
    MAX_LINE,
    Lines,
    SourceError,
    broken,
    open_log,
    read_text,
)

__all__ = ["EntangledError", "Piece", "pieces", "summarise"]

PIECE = 33_554_432
"""Bytes of a piece: what is kept of it until its end has to fit into memory, for each core."""

Name = tuple[str | None, str]
"""A message's name within a format: host and queue ID."""


class EntangledError(Exception):
    """What one piece tells depends on another, in a way that only one core that reads all of it can tell."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a log.

    Attributes:
        path: The log.
        mta: Its format.
        begin, end: The lines that begin from one byte on and before another.
        size: Bytes of the file that it is.
        last_change: No line is later, in seconds since 1970 UTC.
    """

    path: Path
    mta: str
    begin: int
    end: int
    size: int
    last_change: float


@dataclass(slots=True)
class _Told:
    """What a piece told.

    Attributes:
        mta: The format.
        lines: Its lines by result.
        report: What was counted of messages that came and left within the piece, and of refusals.
        left: The entries of all other messages, in their order.
        whole: The queue IDs of messages that were counted, by host.
        gone: Those of them that left last, for which a line may come late, with the time.
        named: Messages that others said they became, and that the piece does not hold.
        latest: By host, the latest time, in seconds since 1970 UTC.
    """

    mta: str
    lines: LineCounts = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    left: list[Entry] = field(default_factory=list)
    whole: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))
    gone: dict[Name, float] = field(default_factory=dict)
    named: set[Name] = field(default_factory=set)
    latest: defaultdict[str | None, float] = field(default_factory=lambda: defaultdict(float))


def pieces(paths: Sequence[Path], chosen: Parser | None, cores: int) -> list[Piece]:
    """Logs in pieces; none if one of them is of no format of which pieces can be read by themselves.

    Args:
        paths: The logs, oldest first.
        chosen: Their format; else it is told from the first lines of each.
        cores: How many will read.

    Raises:
        SourceError, OSError: A log cannot be read.
    """
    found = []
    for path in paths:
        stat = path.stat()
        known = chosen or _format(path)
        if known is None or not isinstance(known.reader(), BlockReader):
            return []
        if path.suffix in COMPRESSED:
            found.append(Piece(path, known.name, 0, sys.maxsize, stat.st_size, stat.st_mtime))
            continue
        number = -(-stat.st_size // PIECE) or 1
        if len(paths) == 1:
            number = -(-number // cores) * cores  # so that none has to wait for the others
        borders = [stat.st_size * place // number for place in range(number)] + [stat.st_size]
        found += [Piece(path, known.name, begin, end, end - begin, stat.st_mtime) for begin, end in pairwise(borders)]
    return found


def _format(path: Path) -> Parser | None:
    log = LogReader(str(path), patient=True)
    with open_log(path) as stream:
        for text, _ in islice(read_text(stream, str(path)), 1):
            log.take(text)
            log.end()
    return log.parser


def summarise(found: Sequence[Piece], cores: int, begun: Callable[[], AbstractContextManager[Advance]]) -> Summary:
    """Read pieces of logs, on so many cores.

    Args:
        found: The pieces, in order.
        cores: How many processes read.
        begun: Entered once the processes run; told of each piece that was read, in bytes.

    Raises:
        EntangledError: One core has to read it all.
        SourceError: A log cannot be read.
    """
    ways = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in ways else None)
    with ProcessPoolExecutor(min(cores, len(found)), context) as pool:
        try:
            told = pool.map(_read, found)
            with begun() as advance:
                return _together(zip(found, told, strict=True), advance)
        except BrokenExecutor as error:
            raise EntangledError(str(error)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _together(told: Iterable[tuple[Piece, _Told]], advance: Advance) -> Summary:
    """Put together what pieces told, in their order."""
    report, ledger, lines = Report(), Ledger(), Counter[str]()
    gone: dict[tuple[str, Name], float] = {}
    for piece, each in told:
        for host, queue_ids in each.whole.items():
            if ledger.known(each.mta, host, queue_ids):
                raise EntangledError("a queue ID is that of a message that waits")
        named = each.named | {(entry.host, entry.queue_id or "") for entry in each.left}
        if any((each.mta, name) in gone for name in named):
            raise EntangledError("a line comes behind the border of its piece")
        report.merge(each.report)
        lines.update(each.lines)
        for entry in each.left:
            report.take(entry, ledger.take(entry))
        for host, time in each.latest.items():
            ledger.advance(each.mta, host, time)
        limits = {host: time - LATE - UNORDERED for host, time in each.latest.items()}
        gone = {(mta, name): time for (mta, name), time in gone.items() if time >= limits.get(name[0], 0.0)}
        gone |= {(each.mta, name): time for name, time in each.gone.items()}
        advance(piece.size)
    if report.folds:
        raise EntangledError("there are too many codes")
    return Summary(report, ledger, lines)


# --- one piece, in a process of its own ---------------------------------------------------------------------------


def _read(piece: Piece) -> _Told:
    told, log = _Told(piece.mta), LogReader(str(piece.path), parser(piece.mta), clock=lambda: piece.last_change)
    seen: defaultdict[str | None, set[str]] = defaultdict(set)
    kept: list[Entry] = []
    for text in _texts(piece):
        rows = log.take(text).rows
        for host, each in rows.by_server().items() if rows is not None else ():
            found = passed(each, lambda names, host=host: names & seen[host], alone=True)  # type: ignore[misc]
            count_passed(found, told.report)
            told.whole[host] |= found.queue_ids
            _note_last(told, host, found)
            for entry in each.entries(without=found.queue_ids):
                if isinstance(entry, Event) and (entry.outcome is Outcome.REJECTED or entry.queue_id is None):
                    told.report.take(entry, [])
                else:
                    kept.append(entry)
                    seen[entry.host].add(entry.queue_id or "")
    told.lines = log.counts
    _count_whole(told, kept)
    return told


def _texts(piece: Piece) -> Iterator[str]:
    """The lines that begin within a piece."""
    lines, left = Lines(), piece.end - piece.begin
    with open_log(piece.path) as stream:
        if piece.begin:
            stream.seek(piece.begin - 1)
            while (skipped := stream.readline(MAX_LINE)) and not skipped.endswith(b"\n"):
                left -= len(skipped)
            left -= len(skipped) - 1
        if left <= 0:  # no line begins here
            return
        block = b""
        try:
            while left > 0 and (block := stream.read(min(BLOCK, left))):
                left -= len(block)
                yield lines.feed(block)
            if left <= 0 and not block.endswith(b"\n"):
                while (more := stream.readline(MAX_LINE)) and not more.endswith(b"\n"):
                    yield lines.feed(more)
                yield lines.feed(more)
            yield lines.end()
        except broken() as error:
            raise SourceError(f"cannot read on in {piece.path}: {error}") from error


def _note_last(told: _Told, host: str | None, found: Passed) -> None:
    """Note the messages that left last: a line for them may come late, beyond the border."""
    span = found.rows.span()
    if span is None:
        return
    told.latest[host] = max(told.latest[host], span[1])
    limit, time = told.latest[host] - LATE - UNORDERED, found.times()
    told.gone = {name: moment for name, moment in told.gone.items() if moment >= limit or name[0] != host}
    for queue_id in found.queue_ids:
        if (moment := time(found.last[queue_id])) is not None and moment >= limit:
            told.gone[host, queue_id] = moment


@dataclass(slots=True)
class _Seen:
    """What is seen in a piece of a message that is not counted yet.

    Attributes:
        first, last: Its first and its last entry.
        arrivals: How many of them are arrivals.
        is_notification: Another message is told to be the one that it is about.
    """

    first: Entry
    last: Entry
    arrivals: int = 0
    is_notification: bool = False

    @property
    def begins(self) -> bool:
        """Whether its first line is its arrival."""
        return isinstance(self.first, Step) and self.first.what is StepKind.ARRIVED

    @property
    def is_whole(self) -> bool:
        """Whether it came and left within the piece. A notification comes with the line of the message it is about."""
        left = isinstance(self.last, Step) and self.last.what is StepKind.REMOVED
        return left and ((self.begins and self.arrivals == 1) or (self.is_notification and not self.arrivals))


def _count_whole(told: _Told, kept: list[Entry]) -> None:
    """Count the messages that came and left within a piece, and that have to do with no others than such."""
    messages, links = _messages(kept)
    split = {name for name, seen in messages.items() if not seen.is_whole}
    if any(name[1] in told.whole[name[0]] and not messages[name].begins for name in split):
        raise EntangledError("a line comes after its message was counted")
    told.named = {other for _, other in links if other not in messages}
    links = [(one, other) for one, other in links if other in messages]
    while more := {name for link in links if not split.isdisjoint(link) for name in link} - split:
        split |= more
    ledger = Ledger()
    for entry in kept:
        if _name(entry) in split:
            told.left.append(entry)
        else:
            told.report.take(entry, ledger.take(entry))
    for name in messages.keys() - split:
        told.whole[name[0]].add(name[1])
        moment = messages[name].last.time
        if moment is not None and moment >= told.latest[name[0]] - LATE - UNORDERED:
            told.gone[name] = moment


def _messages(kept: list[Entry]) -> tuple[dict[Name, _Seen], list[tuple[Name, Name]]]:
    """The messages that entries speak of, and which of them have to do with which others."""
    messages: dict[Name, _Seen] = {}
    links: list[tuple[Name, Name]] = []
    for entry in kept:
        name = _name(entry)
        seen = messages.setdefault(name, _Seen(entry, entry))
        seen.last = entry
        if isinstance(entry, Step):
            seen.arrivals += entry.what is StepKind.ARRIVED
            other = entry.related
        else:
            other = entry.passed_to if near(entry.relay or "") else None
        if other and other != entry.queue_id:
            links.append((name, (entry.host, other)))
    for entry in kept:
        if isinstance(entry, Step) and entry.what is StepKind.NOTIFIED and entry.related:
            notification = messages.get((entry.host, entry.related))
            if notification is not None:
                notification.is_notification = True
    return messages, links


def _name(entry: Entry) -> Name:
    return entry.host, entry.queue_id or ""
