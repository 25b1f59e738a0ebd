"""One log being read: its format, told from its first lines, and what became of each line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bouncemeter.blocks import Block, read_lines
from bouncemeter.plugin import BlockReader, Clock, LineReader, Parser, Remembering, detect

from bouncemeter_exporter.sources.lines import SourceError, open_log, read_text

__all__ = ["SAMPLE", "LogReader", "ResultCounts", "UnknownFormatError", "oldest_first"]

SAMPLE = 2000
SAMPLE_SIZE = 4_000_000
"""Lines, and characters of them, that are looked at before a log is said to be of no known format."""

ResultCounts = dict[str, int]
"""Lines by result: `event` (an outcome), `other` (understood, of no interest), `unparsed`."""


class UnknownFormatError(SourceError):
    """A log is of no format that an installed parser knows."""


class LogReader:
    """Reads the lines of one log with the parser that fits.

    Args:
        name: The log's name, for errors.
        parser: The parser to use; without one the format is detected.
        clock: Supplies the year that syslog leaves out.
        about: Words: lines that hold none of them may be left out, where the format allows it.
        memory: What a former reader of this log remembered of earlier lines.
        patient: Never give up: lines of no known format are let go, and the format may show later.
    """

    def __init__(
        self,
        name: str,
        parser: Parser | None = None,
        clock: Clock = time.time,
        about: frozenset[str] = frozenset(),
        *,
        memory: str | None = None,
        patient: bool = False,
    ) -> None:
        self.name = name
        self.parser = parser
        self.counts: ResultCounts = {"event": 0, "other": 0, "unparsed": 0}
        self._clock, self._about, self._patient = clock, about, patient
        self._waiting = ""
        self._reader: LineReader | None = parser.reader(clock) if parser else None
        if memory is not None and isinstance(self._reader, Remembering):
            self._reader.recall(memory)

    def read(self, text: str) -> Block:
        """What further lines tell, each of them with its line feed. Until the format is known, lines are kept and told
        later.

        Raises:
            UnknownFormatError: None of the first `SAMPLE` lines is of a known format.
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
        if self._about and getattr(self.parser, "each_line_alone", False):
            text = "".join(f"{line}\n" for line in text.split("\n")[:-1] if any(word in line for word in self._about))
        block = (
            self._reader.block(text)
            if isinstance(self._reader, BlockReader)
            else read_lines(text.split("\n")[:-1], self._reader)
        )
        self.counts["event"] += block.events
        self.counts["unparsed"] += block.unparsed
        self.counts["other"] += block.other
        return block

    @property
    def pending(self) -> bool:
        """Whether lines are kept until the format is known."""
        return bool(self._waiting)

    @property
    def memory(self) -> str | None:
        """What has to be known of the lines so far to understand the next."""
        return self._reader.memory() if isinstance(self._reader, Remembering) else None

    def end(self) -> Block:
        """What lines tell that are still kept because the log is short.

        Raises:
            UnknownFormatError: The log ended and its format is not known.
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
                f"{self.name} is not a log of Postfix, Exim or Exchange, nor of any other parser that is installed;"
                " name its format with --format-of if it is"
            )


def oldest_first(paths: Sequence[Path], parser: Parser | None) -> list[Path]:
    """Logs in the order in which they were written: by the first time that each tells, so that a deferral comes
    before the end that stands in the next file. (A shell names `mail.log` before `mail.log.1`.)

    Raises:
        SourceError: A file cannot be read.
    """
    return sorted(paths, key=lambda path: (_begins(path, parser), path.name)) if len(paths) > 1 else list(paths)


def _begins(path: Path, parser: Parser | None) -> float:
    """The first time in a log's beginning, else the time of the file's last change."""
    last_change = path.stat().st_mtime
    log = LogReader(str(path), parser, clock=lambda: last_change)
    with open_log(path) as stream:
        text, _ = next(read_text(stream, str(path)))
    try:
        entries = [*log.read(text), *log.end()]
    except UnknownFormatError:
        return last_change
    return next((entry.time for entry in entries if entry.time is not None), last_change)
