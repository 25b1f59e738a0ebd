"""The logs that a command reads: finds them, puts them in order, and reads them with a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser, parser

from bouncemeter_exporter.counting.memory import MAX_AGE
from bouncemeter_exporter.reporting.period import ALWAYS, Period
from bouncemeter_exporter.reporting.progress import Advance, progress
from bouncemeter_exporter.sources.found import this_machines
from bouncemeter_exporter.sources.journal import PREFIX, read_journal, without_entries
from bouncemeter_exporter.sources.lines import STDIN, SourceError, open_log, read_text
from bouncemeter_exporter.sources.listing import log_files
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError, oldest_first, unlike, without_outcome
from bouncemeter_exporter.sources.search import EVERYTHING, Search

__all__ = ["Logs", "OnUnparsed"]

BEFORE = MAX_AGE + 86400.0
"""Seconds before a period from which lines are read: a recipient may have been deferred then for the first time. One
day is for clocks and zones that differ."""

OnUnparsed = Callable[[str, int, str], None]
"""Takes the log's name, the number and the text of a line."""


@dataclass(frozen=True, slots=True)
class Logs:
    """Logs to read.

    Attributes:
        paths: Files, oldest first; None is standard input.
        journals: Names of journals, such as `journal:postfix*`.
        parser: Their format; if None, each log's format is detected.
        named: The arguments that named them: a log named itself, not by a directory, must have a known format.
        say: Called with a sentence about each log of a directory or pattern that is skipped, and about each log with
            outcomes of which none can be read.
        begins: When each file begins, in seconds since 1970 UTC; 0 if it is the only one.
    """

    paths: Sequence[Path | None]
    journals: Sequence[str]
    parser: Parser | None
    named: Sequence[str]
    say: Callable[[str], None]
    begins: Mapping[Path, float]

    @staticmethod
    def find(
        arguments: Sequence[str], format_of: str | None, say: Callable[[str], None], period: Period = ALWAYS
    ) -> Logs:
        """The logs that arguments name: files, directories, patterns, journals, `-`; without arguments, this machine's.
        Files that ended long before a period are left out.

        Raises:
            SourceError: There is no such log, or it cannot be read.
            ParserNotFoundError: There is no such format.
        """
        chosen = parser(format_of) if format_of else None
        named = arguments or this_machines(say)
        journals = list(dict.fromkeys(each for each in named if each.startswith(PREFIX)))
        found = log_files((each for each in named if each != STDIN and each not in journals), say)
        if period.since is not None:
            found = [path for path in found if path.stat().st_mtime >= period.since - BEFORE]
        ordered = oldest_first(found, chosen)
        paths: list[Path | None] = [path for path, _ in ordered]
        paths += [None] * (STDIN in named)
        if not paths and not journals:
            raise SourceError(f"there is no log {'of that time ' if period.bounded else ''}in {', '.join(named)}")
        return Logs(paths, journals, chosen, named, say, dict(ordered))

    def read(
        self, task: str, about: Search = EVERYTHING, on_unparsed: OnUnparsed | None = None
    ) -> Iterator[tuple[LogReader, Block]]:
        """Read all logs, a block at a time, each block with the reader that counts its lines.

        Args:
            task: What the progress bar says.
            about: What is looked for; lines without it may be skipped.
            on_unparsed: Called with the log's name, the number and the text of each line that should have been
                understood.

        Raises:
            SourceError: A log cannot be read.
        """
        with progress(sum(path.stat().st_size for path in self.paths if path), task) as advance:
            for path in self.paths:
                yield from self.read_file(path, advance, about, on_unparsed)
            for name in self.journals:
                yield from self.read_journal(name, advance, about, on_unparsed)

    def read_file(
        self, path: Path | None, advance: Advance, about: Search = EVERYTHING, on_unparsed: OnUnparsed | None = None
    ) -> Iterator[tuple[LogReader, Block]]:
        """Read one of the files, as `read` does.

        Args:
            path: The file; None is standard input.
            advance: Called with the number of bytes just read.
        """
        name = str(path) if path else "standard input"
        # No line of an old file is later than its last change, which gives the year.
        last_change = path.stat().st_mtime if path else time.time()
        try:
            with closing(open_log(path, any_kind=True) if path else sys.stdin.buffer) as stream:
                yield from self._read_texts(name, read_text(stream, name), last_change, advance, about, on_unparsed)
        except UnknownFormatError as error:
            if path is None or str(path) in self.named:
                raise
            self.say(str(error))

    def read_journal(
        self, name: str, advance: Advance, about: Search = EVERYTHING, on_unparsed: OnUnparsed | None = None
    ) -> Iterator[tuple[LogReader, Block]]:
        """Read one of the journals; see `read_file`."""
        yield from self._read_texts(name, read_journal(name), time.time(), advance, about, on_unparsed)

    def _read_texts(
        self,
        name: str,
        texts: Iterator[tuple[str, int]],
        last_change: float,
        advance: Advance,
        about: Search,
        on_unparsed: OnUnparsed | None,
    ) -> Iterator[tuple[LogReader, Block]]:
        empty = True
        noted = partial(on_unparsed, name) if on_unparsed is not None else None
        log = LogReader(name, self.parser, clock=lambda: last_change, about=about, on_unparsed=noted)
        for text, size in texts:
            empty = empty and not text
            yield log, log.read(text)
            advance(size)
        yield log, log.end()
        if log.doubtful:
            self.say(unlike(log))
        if empty and name in self.journals:
            self.say(without_entries(name))
        elif empty and (name in self.named or name == "standard input"):
            self.say(f"{name} is empty")
        if noted is None and (sentence := without_outcome(name, log.counts, log.why)):
            self.say(sentence)
