"""Summarises large logs on several cores: each core reads pieces of them, and the result is the same as one core's.

A message that arrives and leaves within one piece is counted where it is read. One process combines the entries of all
other messages, in order. Pieces may depend on each other in other ways: a queue ID is used again while its first
message waits, or a line comes late, in the next piece. Then `DependentPiecesError` is raised, and one core reads
everything again.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from stat import S_ISREG

from bouncemeter.event import Entry, Event, Outcome, Step, StepKind
from bouncemeter.plugin import BlockReader, Parser, parser

from bouncemeter_exporter.counting.ledger import UNORDERED, Ledger, count_ordinary
from bouncemeter_exporter.counting.memory import LATE, Queue
from bouncemeter_exporter.counting.ordinary import OrdinaryMail, find_ordinary, internal_address
from bouncemeter_exporter.reporting.progress import Advance
from bouncemeter_exporter.reporting.report import Report, Summary
from bouncemeter_exporter.sources.lines import COMPRESSED, open_log, read_part, read_text
from bouncemeter_exporter.sources.log import LogReader, ResultCounts

__all__ = ["DependentPiecesError", "Piece", "pieces", "summarise_pieces"]

PIECE = 33_554_432
"""Bytes in a piece. What each core keeps of its piece until the end must fit into memory."""

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
    """

    path: Path
    mta: str
    begin: int
    end: int
    size: int
    last_change: float


@dataclass(slots=True)
class _Result:
    """The result of reading one piece.

    Attributes:
        mta: The format.
        lines: Its lines by result.
        report: Counts of the messages that arrived and left within the piece, and of rejections.
        remaining: The entries of all other messages, in order.
        counted: By host, the queue IDs of the counted messages.
        latest_counted: The counted messages that left last, with the time: a line about them may still come.
        missing: Messages that the piece refers to but does not contain.
        latest: By host, the latest time, in seconds since 1970 UTC.
    """

    mta: str
    lines: ResultCounts = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    remaining: list[Entry] = field(default_factory=list)
    counted: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))
    latest_counted: dict[Name, float] = field(default_factory=dict)
    missing: set[Name] = field(default_factory=set)
    latest: defaultdict[str | None, float] = field(default_factory=lambda: defaultdict(float))


def pieces(paths: Sequence[Path], chosen: Parser | None, cores: int) -> list[Piece]:
    """Divide logs into pieces; none if a log has a format whose pieces cannot be read separately.

    Args:
        paths: The logs, oldest first.
        chosen: Their format; if None, each log's format is detected.
        cores: How many cores will read.

    Raises:
        SourceError, OSError: A log cannot be read.
    """
    found = []
    for path in paths:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            return []
        known = _format(path, chosen)
        if known is None or not isinstance(known.reader(), BlockReader):
            return []
        if path.suffix in COMPRESSED:
            found.append(Piece(path, known.name, 0, sys.maxsize, stat.st_size, stat.st_mtime))
            continue
        number = -(-stat.st_size // PIECE) or 1
        if len(paths) == 1:
            number = -(-number // cores) * cores  # so that no core waits for the others
        borders = [stat.st_size * index // number for index in range(number)] + [stat.st_size]
        found += [Piece(path, known.name, begin, end, end - begin, stat.st_mtime) for begin, end in pairwise(borders)]
    return found


def _format(path: Path, chosen: Parser | None) -> Parser | None:
    """A log's format by its first block; None if no line has it."""
    log = LogReader(str(path), chosen, patient=True)
    with open_log(path) as stream:
        for text, _ in islice(read_text(stream, str(path)), 1):
            log.read(text)
            log.end()
    return log.parser if not log.doubtful else None


def summarise_pieces(
    found: Sequence[Piece], cores: int, progress: Callable[[], AbstractContextManager[Advance]]
) -> Summary:
    """Read pieces of logs on several cores.

    Args:
        found: The pieces, in order.
        cores: How many processes read.
        progress: Opens a progress bar, once the processes run; the bar is called with the bytes of each piece read.

    Raises:
        DependentPiecesError: One core must read everything.
        SourceError: A log cannot be read.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    with ProcessPoolExecutor(min(cores, len(found)), context, initializer=_end_at_once) as pool:
        try:
            results = pool.map(_read, found)
            with progress() as advance:
                return _combined(zip(found, results, strict=True), advance)
        except BrokenExecutor as error:
            raise DependentPiecesError(str(error)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _combined(results: Iterable[tuple[Piece, _Result]], advance: Advance) -> Summary:
    """Combine the results of pieces, in their order."""
    report, ledger, lines = Report(), Ledger(senders=True), Counter[str]()
    late: dict[tuple[str, Name], float] = {}
    for piece, each in results:
        for host, queue_ids in each.counted.items():
            if ledger.memory.known(each.mta, host, queue_ids):
                raise DependentPiecesError("a queue ID belongs to a message that waits")
        names = each.missing | {(entry.host, entry.queue_id or "") for entry in each.remaining}
        if any((each.mta, name) in late for name in names):
            raise DependentPiecesError("a line comes after the end of its piece")
        report.merge(each.report)
        lines.update(each.lines)
        for entry in each.remaining:
            report.count(entry, ledger.facts(entry))
        for host, time in each.latest.items():
            queue = ledger.memory.queue(each.mta, host) or Queue((each.mta, host))
            ledger.memory.advance(queue, time)
        limits = {host: time - LATE - UNORDERED for host, time in each.latest.items()}
        late = {(mta, name): time for (mta, name), time in late.items() if time >= limits.get(name[0], 0.0)}
        late |= {(each.mta, name): time for name, time in each.latest_counted.items()}
        advance(piece.size)
    if report.folds:
        raise DependentPiecesError("there are too many codes or names")
    return Summary(report, ledger, lines)


# --- one piece, in a process of its own ---------------------------------------------------------------------------


def _end_at_once() -> None:
    """Let Ctrl-C end this process, which would go on with the next piece otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(piece: Piece) -> _Result:
    result, log = _Result(piece.mta), LogReader(str(piece.path), parser(piece.mta), clock=lambda: piece.last_change)
    seen: defaultdict[str | None, set[str]] = defaultdict(set)
    kept: list[Entry] = []
    for text in _texts(piece):
        rows = log.read(text).rows
        for host, each in rows.by_server().items() if rows is not None else ():
            mail = find_ordinary(each, lambda names, host=host: names & seen[host], partial=True)  # type: ignore[misc]
            count_ordinary(mail, result.report, senders=True)
            result.counted[host] |= mail.queue_ids
            _note_latest(result, host, mail)
            for entry in each.entries(without=mail.queue_ids):
                if isinstance(entry, Event) and (entry.outcome is Outcome.REJECTED or entry.queue_id is None):
                    result.report.count(entry, [])
                else:
                    kept.append(entry)
                    seen[entry.host].add(entry.queue_id or "")
    result.lines = log.counts
    _count_complete(result, kept)
    return result


def _texts(piece: Piece) -> Iterator[str]:
    """The lines that begin within a piece."""
    with open_log(piece.path) as stream:
        yield from read_part(stream, piece.begin, piece.end, str(piece.path))


def _note_latest(result: _Result, host: str | None, mail: OrdinaryMail) -> None:
    """Note the messages that left last: a line about them may come late, in the next piece."""
    span = mail.rows.span()
    if span is None:
        return
    result.latest[host] = max(result.latest[host], span[1])
    limit, time = result.latest[host] - LATE - UNORDERED, mail.times()
    latest = result.latest_counted.items()
    result.latest_counted = {name: moment for name, moment in latest if moment >= limit or name[0] != host}
    for queue_id in mail.queue_ids:
        if (moment := time(mail.last[queue_id])) is not None and moment >= limit:
            result.latest_counted[host, queue_id] = moment


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
    messages, links = _messages(kept)
    split = {name for name, lines in messages.items() if not lines.is_complete}
    if any(name[1] in result.counted[name[0]] and not messages[name].begins for name in split):
        raise DependentPiecesError("a line comes after its message was counted")
    result.missing = {other for _, other in links if other not in messages}
    links = [(one, other) for one, other in links if other in messages]
    while more := {name for link in links if not split.isdisjoint(link) for name in link} - split:
        split |= more
    ledger = Ledger(senders=True)
    for entry in kept:
        if _name(entry) in split:
            result.remaining.append(entry)
        else:
            result.report.count(entry, ledger.facts(entry))
    for name in messages.keys() - split:
        result.counted[name[0]].add(name[1])
        moment = messages[name].last.time
        if moment is not None and moment >= result.latest[name[0]] - LATE - UNORDERED:
            result.latest_counted[name] = moment


def _messages(kept: list[Entry]) -> tuple[dict[Name, _Lines], list[tuple[Name, Name]]]:
    """The messages that entries are about, and the pairs of messages that are connected."""
    messages: dict[Name, _Lines] = {}
    links: list[tuple[Name, Name]] = []
    for entry in kept:
        name = _name(entry)
        lines = messages.setdefault(name, _Lines(entry, entry))
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


def _name(entry: Entry) -> Name:
    return entry.host, entry.queue_id or ""
