"""Summarises large logs on several cores: each core reads pieces of them, and the result is the same as one core's.

A message that arrives and leaves within one piece is counted where it is read. One process combines the entries of all
other messages, in order. Pieces may depend on each other in other ways: a queue ID is used again while its first
message waits, or a line comes late, in the next piece. Then `DependentPiecesError` is raised, and one core reads
everything again.

In a format without blocks, such as Exchange's, a line may depend on any line before it in its file, and nothing says
that a message has left. Its pieces are whole files, and one process combines all of their entries.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from itertools import islice, pairwise
from multiprocessing.context import BaseContext
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG
from typing import Any

from bouncemeter.event import Entry, Event, Outcome, Step, StepKind
from bouncemeter.plugin import BlockReader, Parser, detect, parser
from bouncemeter.repeats import MARK

from bouncemeter_exporter.counting.ledger import Ledger, count_ordinary
from bouncemeter_exporter.counting.memory import LATE, Queue
from bouncemeter_exporter.counting.ordinary import UNORDERED, OrdinaryMail, find_ordinary, internal_address
from bouncemeter_exporter.reporting.progress import Advance
from bouncemeter_exporter.reporting.report import Report, Summary
from bouncemeter_exporter.sources.lines import COMPRESSED, open_log, read_part, read_text, utf_16
from bouncemeter_exporter.sources.log import LogReader, ResultCounts, without_outcome
from bouncemeter_exporter.sources.rotation import read_head

__all__ = ["DependentPiecesError", "Piece", "pieces", "summarise_pieces"]

PIECE = 33_554_432
"""Bytes in a piece. What each core keeps of its piece until the end must fit into memory."""

COMPRESSION = 16
"""How many times smaller than a log its compressed file usually is, at most."""

INHERITED = 262_144
"""Characters of the first log that one process reads before the others begin."""

AHEAD = 2
"""For each core, the pieces that are read or wait to be combined at a time."""

Name = tuple[str | None, str]
"""A message's name within a format: host and queue ID."""


class DependentPiecesError(Exception):
    """One piece depends on another in a way that only a single reader of both can resolve."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a log.

    Attributes:
        path: The log.
        mta: Its format.
        begin, end: The piece has the lines that begin at byte `begin` or later, and before byte `end`.
        size: Bytes of the file that it covers.
        last_change: When the log last changed, in seconds since 1970 UTC: no line is later.
        by_blocks: Whether the format is read by blocks.
    """

    path: Path
    mta: str
    begin: int
    end: int
    size: int
    last_change: float
    by_blocks: bool = True


EntryFields = tuple[Any, ...]
"""An entry's class and its fields: between processes, a tuple costs a third of what an object does."""

_FIELDS = {each: attrgetter("__class__", *(field.name for field in fields(each))) for each in (Event, Step)}


@dataclass(slots=True)
class _Result:
    """The result of reading one piece.

    Attributes:
        mta: The format.
        lines: Its lines by result.
        why: Why the first unparsed line could not be read.
        report: Counts of the messages that arrived and left within the piece, and of rejections.
        remaining: The entries of all other messages, in order.
        counted: By host, the queue IDs of the counted messages.
        latest_counted: The counted messages that left last, with the time: a line about them may still come.
        uncounted: The messages of those entries, and those that the piece refers to but does not contain.
        latest: By host, the latest time, in seconds since 1970 UTC.
    """

    mta: str
    lines: ResultCounts = field(default_factory=dict)
    why: str = ""
    report: Report = field(default_factory=Report)
    remaining: list[EntryFields] = field(default_factory=list)
    counted: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))
    latest_counted: dict[Name, float] = field(default_factory=dict)
    uncounted: set[Name] = field(default_factory=set)
    latest: defaultdict[str | None, float] = field(default_factory=lambda: defaultdict(float))

    def keep(self, entries: Iterable[Entry]) -> None:
        """Add remaining entries."""
        self.remaining += [_FIELDS[type(entry)](entry) for entry in entries]

    def entries(self) -> Iterator[Entry]:
        """The remaining entries."""
        return (kind(*values) for kind, *values in self.remaining)


def pieces(paths: Sequence[Path], chosen: Parser | None, cores: int) -> list[Piece]:
    """Divide logs into pieces; none if a log cannot be divided, or its format is not known.

    Args:
        paths: The logs, oldest first.
        chosen: Their format; if None, each log's format is detected.
        cores: How many cores will read.

    Raises:
        SourceError, OSError: A log cannot be read.
    """
    found, formats = [], set[str]()
    for path in paths:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            return []
        with open_log(path) as stream:
            text, _ = next(read_text(stream, str(path)))
        known = _format(text, chosen)
        if known is None or utf_16(read_head(path)):  # which ends lines at other bytes
            return []
        if known.name not in formats:  # the processes inherit the patterns and tables that the first lines need
            first = text[: text.rfind("\n", 0, INHERITED) + 1]
            Ledger(senders=True).count(LogReader(str(path), known).read(first), Report())
            formats.add(known.name)
        by_blocks, compressed = isinstance(known.reader(), BlockReader), path.suffix in COMPRESSED
        if not by_blocks and stat.st_size * (COMPRESSION if compressed else 1) > PIECE:
            return []
        if compressed or not by_blocks:
            found.append(Piece(path, known.name, 0, sys.maxsize, stat.st_size, stat.st_mtime, by_blocks))
            continue
        number = -(-stat.st_size // PIECE) or 1
        if len(paths) == 1:  # as many for each core, so that none waits for the others
            number = max(1, round(stat.st_size / PIECE / cores)) * cores
        borders = [stat.st_size * index // number for index in range(number)] + [stat.st_size]
        found += [Piece(path, known.name, begin, end, end - begin, stat.st_mtime) for begin, end in pairwise(borders)]
    return found


def _format(text: str, chosen: Parser | None) -> Parser | None:
    """A log's format by its first block; None if no line has it."""
    lines = text.split("\n")[:-1]
    if chosen is None:
        return detect(lines)
    return chosen if any(map(chosen.recognises, lines)) else None


def summarise_pieces(
    found: Sequence[Piece],
    cores: int,
    progress: Callable[[], AbstractContextManager[Advance]],
    say: Callable[[str], None],
) -> Summary:
    """Read pieces of logs on several cores.

    Args:
        found: The pieces, in order.
        cores: How many processes read.
        progress: Opens a progress bar, once the processes run; the bar is called with the bytes of each piece read.
        say: Called with a sentence about each log with outcomes of which none can be read.

    Raises:
        DependentPiecesError: One core must read everything.
        SourceError: A log cannot be read.
    """
    with ProcessPoolExecutor(min(cores, len(found)), _context(), _begin, gc.get_threshold()) as pool:
        try:
            ahead = AHEAD * cores
            begun = deque((piece, pool.submit(_read, piece)) for piece in found[:ahead])
            with progress() as advance:
                return _combined(_results(pool, begun, found[ahead:]), advance, say)
        except BrokenExecutor as error:
            raise DependentPiecesError(str(error)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """How processes are started: by a fork, which inherits modules and patterns, where that is safe. After a fork, a
    process could wait forever for what another thread held; and macOS has threads of its own."""
    methods = multiprocessing.get_all_start_methods() if sys.platform == "linux" else []
    return multiprocessing.get_context("fork" if "fork" in methods and threading.active_count() == 1 else "spawn")


def _results(
    pool: Executor, begun: deque[tuple[Piece, Future[_Result]]], rest: Iterable[Piece]
) -> Iterator[tuple[Piece, _Result]]:
    """The results of all pieces, in their order. For each one, the reading of another piece begins."""
    further = iter(rest)
    while begun:
        piece, reading = begun.popleft()
        result = reading.result()
        begun.extend((each, pool.submit(_read, each)) for each in islice(further, 1))
        yield piece, result


def _combined(results: Iterable[tuple[Piece, _Result]], advance: Advance, say: Callable[[str], None]) -> Summary:
    """Combine the results of pieces, in their order."""
    report, ledger, total = Report(), Ledger(senders=True), Counter[str]()
    lines, why = defaultdict[Path, Counter[str]](Counter), dict[Path, str]()
    late: dict[tuple[str, Name], float] = {}
    may_fold = False
    for piece, each in results:
        total.update(each.lines)
        lines[piece.path].update(each.lines)
        why[piece.path] = why.get(piece.path) or each.why
        if piece.by_blocks:
            _check(each, ledger, late)
            report.merge(each.report)
            may_fold = True
        for entry in each.entries():
            report.count(entry, ledger.facts(entry))
        for host, time in each.latest.items():
            queue = ledger.memory.queue(each.mta, host) or Queue((each.mta, host))
            ledger.memory.advance(queue, time)
        limits = {host: time - LATE - UNORDERED for host, time in each.latest.items()}
        late = {(mta, name): time for (mta, name), time in late.items() if time >= limits.get(name[0], 0.0)}
        late |= {(each.mta, name): time for name, time in each.latest_counted.items()}
        advance(piece.size)
    if may_fold and report.folds:
        raise DependentPiecesError("there are too many codes or names")
    for path, counts in lines.items():
        if sentence := without_outcome(str(path), counts, why[path]):
            say(sentence)
    return Summary(report, ledger, total)


def _check(result: _Result, ledger: Ledger, late: Collection[tuple[str, Name]]) -> None:
    """Check that a piece does not depend on those before it in a way that cannot be resolved.

    Args:
        result: The result of reading it.
        ledger: What the pieces before it left.
        late: The messages that were counted there and left last.

    Raises:
        DependentPiecesError: It does.
    """
    for host, queue_ids in result.counted.items():
        if ledger.memory.known(result.mta, host, queue_ids):
            raise DependentPiecesError("a queue ID belongs to a message that waits")
    if any((result.mta, name) in late for name in result.uncounted):
        raise DependentPiecesError("a line comes after the end of its piece")


# --- one piece, in a process of its own ---------------------------------------------------------------------------


def _begin(*threshold: int) -> None:
    """Begin a process: it collects garbage as seldom as its parent, and Ctrl-C ends it, which would go on with the next
    piece otherwise."""
    gc.freeze()
    gc.set_threshold(*threshold)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(piece: Piece) -> _Result:
    """Read a piece."""
    log = LogReader(str(piece.path), parser(piece.mta), clock=lambda: piece.last_change)
    result = _read_blocks(piece, log) if piece.by_blocks else _read_lines(piece, log)
    result.lines, result.why = log.counts, log.why
    return result


def _read_lines(piece: Piece, log: LogReader) -> _Result:
    """Read a whole log: its entries are counted by another process, in order."""
    result = _Result(piece.mta)
    with open_log(piece.path) as stream:
        for text, _ in read_text(stream, str(piece.path)):
            result.keep(log.read(text))
    return result


def _read_blocks(piece: Piece, log: LogReader) -> _Result:
    """Read a piece of a log, and count the messages that arrived and left within it."""
    result = _Result(piece.mta)
    seen, deferred = defaultdict[str | None, set[str]](set), defaultdict[str | None, set[str]](set)
    kept: list[Entry] = []
    for number, text in enumerate(_texts(piece)):
        if piece.begin and not number and MARK in text[: text.find("\n")]:
            raise DependentPiecesError("a line repeats the last one of the piece before")
        rows = log.read(text).rows
        for host, each in rows.by_server().items() if rows is not None else ():
            mail = find_ordinary(each, lambda names, host=host: names & seen[host], partial=True)  # type: ignore[misc]
            count_ordinary(mail, result.report, senders=True)
            result.counted[host] |= mail.queue_ids
            _note_latest(result, host, mail)
            for entry in each.entries(without=mail.queue_ids, known=deferred[host]):
                if isinstance(entry, Event) and (entry.outcome is Outcome.REJECTED or entry.queue_id is None):
                    result.report.count(entry, [])
                else:
                    kept.append(entry)
                    _note(entry, seen[entry.host], deferred[entry.host])
    if log.joins and piece.end < piece.path.stat().st_size:
        raise DependentPiecesError("a line goes on in the next piece")
    _count_complete(result, kept)
    return result


def _note(entry: Entry, seen: set[str], deferred: set[str]) -> None:
    """Note the queue ID of an entry that is not counted yet, and whether the last thing that happened to its message is
    a deferral: then it waits, and its sender is not needed again."""
    queue_id = entry.queue_id or ""
    seen.add(queue_id)
    if isinstance(entry, Event) and entry.outcome is Outcome.DEFERRED:
        deferred.add(queue_id)
    else:
        deferred.discard(queue_id)


def _texts(piece: Piece) -> Iterator[str]:
    """The lines that begin within a piece."""
    with open_log(piece.path) as stream:
        yield from read_part(stream, piece.begin, piece.end, str(piece.path))


def _note_latest(result: _Result, host: str | None, mail: OrdinaryMail) -> None:
    """Note the messages that left last: a line about them may come late, in the next piece."""
    left = {(host, queue_id): moment for queue_id, moment in mail.left_last(LATE + UNORDERED)}
    result.latest[host] = max(result.latest[host], mail.latest() or 0.0, *left.values())
    limit, latest = result.latest[host] - LATE - UNORDERED, {**result.latest_counted, **left}.items()
    result.latest_counted = {name: moment for name, moment in latest if moment >= limit or name[0] != host}


@dataclass(slots=True)
class _Lines:
    """The lines of a piece about a message that is not counted yet.

    Attributes:
        first, last: The first and the last entry.
        arrivals: How many of the entries are arrivals.
        is_notification: A line of the bounced message names this message as its notification.
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
    def is_complete(self) -> bool:
        """Whether it arrived and left within the piece. A notification begins with a line of the bounced message."""
        left = isinstance(self.last, Step) and self.last.what is StepKind.REMOVED
        return left and ((self.begins and self.arrivals == 1) or (self.is_notification and not self.arrivals))


def _count_complete(result: _Result, kept: list[Entry]) -> None:
    """Count the messages that arrived and left within a piece and are connected only with other such messages."""
    names = [(entry.host, entry.queue_id or "") for entry in kept]
    messages, links = _messages(kept, names)
    for (host, _), lines in messages.items():
        result.latest[host] = max(result.latest[host], lines.last.time or 0.0)
    split = {name for name, lines in messages.items() if not lines.is_complete}
    if any(name[1] in result.counted[name[0]] and not messages[name].begins for name in split):
        raise DependentPiecesError("a line comes after its message was counted")
    missing = {other for _, other in links if other not in messages}
    split |= {one for one, other in links if other in missing}  # an earlier piece may know the other
    links = [(one, other) for one, other in links if other in messages]
    while more := {name for link in links if not split.isdisjoint(link) for name in link} - split:
        split |= more
    result.uncounted = split | missing
    result.keep(entry for entry, name in zip(kept, names, strict=True) if name in split)
    ledger = Ledger(senders=True)
    for entry, name in zip(kept, names, strict=True):
        if name not in split:
            result.report.count(entry, ledger.facts(entry))
    for name in messages.keys() - split:
        result.counted[name[0]].add(name[1])
        moment = messages[name].last.time
        if moment is not None and moment >= result.latest[name[0]] - LATE - UNORDERED:
            result.latest_counted[name] = moment


def _messages(kept: list[Entry], names: list[Name]) -> tuple[dict[Name, _Lines], list[tuple[Name, Name]]]:
    """The messages that entries are about, and the pairs of messages that are connected."""
    messages: dict[Name, _Lines] = {}
    links: list[tuple[Name, Name]] = []
    for entry, name in zip(kept, names, strict=True):
        lines = messages.get(name)
        if lines is None:
            lines = messages[name] = _Lines(entry, entry)
        lines.last = entry
        if isinstance(entry, Step):
            lines.arrivals += entry.what is StepKind.ARRIVED
            other = entry.related
        else:
            other = entry.passed_to if internal_address(entry.relay or "") else None
        if other and other != entry.queue_id:
            links.append((name, (entry.host, other)))
    for entry in kept:
        if isinstance(entry, Step) and entry.what is StepKind.NOTIFIED and entry.related:
            notification = messages.get((entry.host, entry.related))
            if notification is not None:
                notification.is_notification = True
    return messages, links
