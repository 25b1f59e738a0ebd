"""Finds the logs that a command names, puts them in order, and reads them with a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser, parser

from bouncemeter_exporter.reporting.progress import Advance, progress
from bouncemeter_exporter.sources.files import log_files
from bouncemeter_exporter.sources.lines import STDIN, SourceError, open_log, read_text
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError, oldest_first

__all__ = ["Logs", "OnUnparsed"]

OnUnparsed = Callable[[str, int, str], None]
"""Takes the log's name, the number and the text of a line."""


@dataclass(frozen=True, slots=True)
class Logs:
    """Logs to read.

    Attributes:
        paths: Oldest first; None is standard input.
        parser: Their format; if None, each log's format is detected.
        named: The arguments that named them: a log named itself, not by a directory, must have a known format.
        say: Called with a sentence about each log of a directory or pattern that is skipped, and about each log with
            outcomes of which none can be read.
    """

    paths: Sequence[Path | None]
    parser: Parser | None
    named: Sequence[str]
    say: Callable[[str], None]

    @staticmethod
    def find(arguments: Sequence[str], format_of: str | None, say: Callable[[str], None]) -> Logs:
        """The logs that arguments name: files, directories, patterns, `-`.

        Raises:
            SourceError: There is no such log, or it cannot be read.
            ParserNotFoundError: There is no such format.
        """
        chosen = parser(format_of) if format_of else None
        found = {path for each in arguments if each != STDIN for path in log_files(each, compressed=True)}
        paths: list[Path | None] = list(oldest_first(list(found), chosen))
        paths += [None] * (STDIN in arguments)
        if not paths:
            raise SourceError(f"there is no log in {', '.join(arguments)}")
        return Logs(paths, chosen, arguments, say)

    def read(
        self, task: str, about: frozenset[str] = frozenset(), on_unparsed: OnUnparsed | None = None
    ) -> Iterator[tuple[LogReader, Block]]:
        """Read all logs, a block at a time, each block with the reader that counts its lines.

        Args:
            task: What the progress bar says.
            about: Words to look for; lines with none of them may be skipped.
            on_unparsed: Called with the log's name, the number and the text of each line that should have been
                understood.

        Raises:
            SourceError: A log cannot be read.
        """
        with progress(sum(path.stat().st_size for path in self.paths if path), task) as advance:
            for path in self.paths:
                try:
                    yield from self._read_one(path, advance, about, on_unparsed)
                except UnknownFormatError as error:
                    if path is None or str(path) in self.named:
                        raise
                    self.say(str(error))

    def _read_one(
        self, path: Path | None, advance: Advance, about: frozenset[str], on_unparsed: OnUnparsed | None
    ) -> Iterator[tuple[LogReader, Block]]:
        name = str(path) if path else "standard input"
        # No line of an old file is later than its last change, which gives the year.
        last_change = path.stat().st_mtime if path else time.time()
        noted = partial(on_unparsed, name) if on_unparsed is not None else None
        log = LogReader(name, self.parser, clock=lambda: last_change, about=about, on_unparsed=noted)
        with closing(open_log(path) if path else sys.stdin.buffer) as stream:
            for text, size in read_text(stream, name):
                yield log, log.read(text)
                advance(size)
            yield log, log.end()
        if noted is None and log.counts["unparsed"] and not log.counts["event"]:
            self.say(f"{name}: no outcome could be read; the first line that should be one: {log.why}")
