"""One log being read: its format, found in its first lines, and the results of its lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

from bouncemeter.blocks import Block, read_lines
from bouncemeter.event import Entry
from bouncemeter.plugin import BlockReader, Clock, LineReader, MessageIDReader, Parser, Remembering, detect

from bouncemeter_exporter.sources.lines import SourceError, open_log, read_text
from bouncemeter_exporter.sources.search import EVERYTHING, Search

__all__ = ["SAMPLE", "LogReader", "ResultCounts", "UnknownFormatError", "oldest_first", "unlike", "without_outcome"]

SAMPLE = 2000
SAMPLE_SIZE = 4_000_000
"""Lines, and characters, that are examined before a log's format is declared unknown."""

FIRST_LINES = 100
"""Lines that are usually enough to know when a log begins."""

ResultCounts = dict[str, int]
"""Lines by result: `event` (an outcome), `other` (understood, of no interest), `unparsed`."""


class UnknownFormatError(SourceError):
    """No installed parser knows the format of a log."""


class LogReader:
    """Reads the lines of one log with the parser that fits.

    Args:
        name: The log's name, for errors.
        parser: The parser to use; if None, the format is detected.
        clock: Supplies the year that syslog leaves out.
        about: What is looked for: where the format allows it, lines without it may be skipped.
        memory: What an earlier reader of this log remembered of its lines.
        patient: Never give up: discard lines in an unknown format, and go on detecting.
        on_unparsed: Called with the number and the text of each line that should have been understood; lines are then
            read one by one.

    Attributes:
        counts: Lines by result.
        why: Why the first unparsed line could not be read.
        doubtful: The format was named, and there were lines, but none of this format yet.
    """

    def __init__(
        self,
        name: str,
        parser: Parser | None = None,
        clock: Clock = time.time,
        about: Search = EVERYTHING,
        *,
        memory: str | None = None,
        patient: bool = False,
        on_unparsed: Callable[[int, str], None] | None = None,
    ) -> None:
        self.name = name
        self.parser = parser
        self.counts: ResultCounts = {"event": 0, "other": 0, "unparsed": 0}
        self.why, self.doubtful, self._recognised = "", False, parser is None
        self._clock, self._about, self._patient = clock, about, patient
        self._on_unparsed, self._number = on_unparsed, 0
        self._waiting = ""
        self._reader: LineReader | None = parser.reader(clock) if parser else None
        if memory is not None and isinstance(self._reader, Remembering):
            self._reader.recall(memory)

    def read(self, text: str) -> Block:
        """Parse further lines, each with its line feed. Until the format is known, lines are held back and parsed
        later.

        Raises:
            UnknownFormatError: None of the first `SAMPLE` lines is in a known format.
        """
        if self._reader is None:
            self._waiting += text
            enough = len(self._waiting) >= SAMPLE_SIZE or self._waiting.count("\n") >= SAMPLE
            self._detect(final=enough and not self._patient)
            if self._reader is None:
                if enough:
                    self._waiting = ""
                return Block()
            text, self._waiting = self._waiting, ""
        if getattr(self.parser, "each_line_alone", False):
            text = self._about.lines_of(text)
        if self._about.message_ids and isinstance(self._reader, MessageIDReader):
            block = self._with_message_ids(text, self._reader)
        elif self._on_unparsed is not None:
            block = self._one_by_one(text, self._reader, self._on_unparsed)
        elif isinstance(self._reader, BlockReader):
            block = self._reader.block(text)
        else:
            block = read_lines(text.split("\n")[:-1], self._reader)
        if not self._recognised and text and self.parser is not None:
            self._recognised = bool(block.events) or any(map(self.parser.recognises, text.split("\n")[:-1]))
            self.doubtful = not self._recognised
        self.why = self.why or block.why
        self.counts["event"] += block.events
        self.counts["unparsed"] += block.unparsed
        self.counts["other"] += block.other
        return block

    def _one_by_one(self, text: str, reader: LineReader, on_unparsed: Callable[[int, str], None]) -> Block:
        found = Block()
        for line in text.split("\n")[:-1]:
            self._number += 1
            block = read_lines([line], reader)
            found.entries += block.entries
            found.events, found.other = found.events + block.events, found.other + block.other
            if block.unparsed:
                found.unparsed, found.why = found.unparsed + 1, found.why or block.why
                on_unparsed(self._number, line)
        return found

    def _with_message_ids(self, text: str, reader: MessageIDReader) -> Block:
        def message_ids(line: str) -> list[Entry]:
            step = reader.message_id(line)
            return [] if step is None else [step]

        found, apart = Block(), Block()
        for line in text.split("\n")[:-1]:
            found.entries += found.parse(reader, line)
            if self._about.lines_of(f"{line}\n"):
                found.entries += apart.parse(message_ids, line)
        found.other = text.count("\n") - found.events - found.unparsed
        return found

    @property
    def pending(self) -> bool:
        """Whether lines are held back until the format is known."""
        return bool(self._waiting)

    def recognise(self) -> None:
        """Trust the format that was named: an earlier reader of this log has found lines of it."""
        self._recognised = True

    @property
    def memory(self) -> str | None:
        """What the parser must remember of the lines so far to understand the next."""
        return self._reader.memory() if isinstance(self._reader, Remembering) else None

    @property
    def joins(self) -> bool:
        """Whether the parser waits for the rest of a line that came in parts."""
        return getattr(self._reader, "joins", False)

    @property
    def begun(self) -> float | None:
        """When the log began, in seconds since 1970 UTC, if its header says so."""
        return getattr(self._reader, "begun", None)

    def end(self) -> Block:
        """Parse the lines that are still held back because the log is short.

        Raises:
            UnknownFormatError: The log ended and its format is still unknown.
        """
        if self._reader is not None:
            return Block()
        if self._waiting.strip():
            self._detect(final=True)
        return self.read("") if self._reader is not None else Block()

    def _detect(self, *, final: bool) -> None:
        self.parser = detect(self._waiting.split("\n")[:-1])
        if self.parser is not None:
            self._reader = self.parser.reader(self._clock)
        elif final:
            raise UnknownFormatError(
                f"{self.name} is not a log of Postfix, Exim or Exchange, and no other installed parser knows it;"
                " if you know its format, name it with --format-of"
            )


def unlike(log: LogReader) -> str:
    """What to say of a log whose named format none of its lines has."""
    return f"{log.name}: no line is of the format {log.parser.name if log.parser else ''} that was named for it"


def without_outcome(name: str, counts: Mapping[str, int], why: str) -> str:
    """What to say of a log with lines that should be outcomes, of which none could be read; empty for any other.

    Args:
        name: The log's name.
        counts: Its lines by result.
        why: Why the first of them could not be read.
    """
    if not counts["unparsed"] or counts["event"]:
        return ""
    return f"{name}: no outcome could be read; the first line that should be one: {why}"


def oldest_first(paths: Sequence[Path], parser: Parser | None) -> list[tuple[Path, float]]:
    """Logs in the order in which they were written, so that a deferral comes before the end in the next file. (A shell
    lists `mail.log` before `mail.log.1`.) Each comes with the time at which it begins, in seconds since 1970 UTC: that
    in its header, else the first in it, else that of its last change; or 0 if it is the only one.

    Raises:
        SourceError: A file cannot be read.
    """
    if len(paths) < 2:
        return [(path, 0.0) for path in paths]
    return sorted(((path, _first_time(path, parser)) for path in paths), key=lambda each: (each[1], each[0].name))


def _first_time(path: Path, parser: Parser | None) -> float:
    """When a log begins."""
    stat = path.stat()
    last_change = stat.st_mtime
    if not S_ISREG(stat.st_mode):  # a pipe can be read once
        return last_change
    log = LogReader(str(path), parser, clock=lambda: last_change)
    with open_log(path) as stream:
        text, _ = next(read_text(stream, str(path)))
    try:
        for block in _first_blocks(log, text):
            if log.begun is not None:
                return log.begun
            for entry in block:
                if entry.time is not None:
                    return entry.time
    except UnknownFormatError:
        pass
    return last_change


def _first_blocks(log: LogReader, text: str) -> Iterator[Block]:
    """Parse the beginning of a log, its first lines apart."""
    *first, rest = text.split("\n", FIRST_LINES)
    yield log.read("".join(f"{line}\n" for line in first))
    yield log.read(rest)
    yield log.end()
