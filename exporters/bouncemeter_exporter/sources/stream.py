"""Standard input and FIFOs, and what all sources other than files have in common: lines come once, and in order."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser

from bouncemeter_exporter.sources.lines import BLOCK, Lines, SourceError, printable
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError
from bouncemeter_exporter.sources.source import LineCounts, Positions, line_counts

__all__ = ["TURN", "Fifo", "StandardInput", "Stream"]

TURN = 1_048_576
"""Bytes that a source may read in one turn, so that other sources get theirs."""


class Stream:
    """A source that is not a file; see `bouncemeter_exporter.sources.source.Source`.

    Args:
        name: As the user wrote it.
        parser: The format; if None, it is detected.
        lines: Lines counted by earlier runs.
    """

    def __init__(self, name: str, parser: Parser | None, lines: LineCounts) -> None:
        self.name, self.offset, self.up, self.dropped = printable(name), 0, True, 0
        self._log = LogReader(name, parser, patient=True)
        self._before = LineCounts(lines)

    @property
    def size(self) -> int:
        """Bytes read: how many more wait in the kernel is not known."""
        return self.offset

    def lines(self) -> LineCounts:
        """Lines by mta and result."""
        found = LineCounts(self._before)
        found.update(line_counts(self._log))
        return found

    def parsers(self) -> set[str]:
        """The names of the formats found so far."""
        return {self._log.parser.name} if self._log.parser else set()

    def descriptors(self) -> Iterator[int]:
        """The file descriptors to read from."""
        raise NotImplementedError

    def watch(self) -> int | None:
        """The first of these."""
        return next(self.descriptors(), None)

    def positions(self) -> Positions:
        """None: what was read cannot be read again."""
        return {}


class StandardInput(Stream):
    """Standard input, up to its end."""

    def __init__(self, name: str, parser: Parser | None, lines: LineCounts, say: Callable[[str], None]) -> None:
        super().__init__(name, parser, lines)
        if not hasattr(select, "poll"):
            raise SourceError("serve cannot follow standard input on Windows; let it follow a file")
        self._lines, self._say = Lines(), say
        self._descriptor = sys.stdin.fileno()

    def descriptors(self) -> Iterator[int]:
        """Standard input, until it ends."""
        return iter([self._descriptor] if self.up else [])

    def poll(self) -> Iterator[Block]:
        """Read what is there."""
        left = TURN
        while self.up and left > 0 and select.select([self._descriptor], [], [], 0)[0]:
            block = os.read(self._descriptor, BLOCK)
            self.offset += len(block)
            left -= len(block)
            if block:
                yield self._log.read(self._lines.feed(block))
                continue
            self.up = False
            yield self._log.read(self._lines.end())
            try:
                yield self._log.end()
            except UnknownFormatError as error:
                self._say(str(error))

    def close(self) -> None:
        """Do nothing: standard input is not ours to close."""


class Fifo(Stream):
    """A named pipe. Writers come and go."""

    def __init__(self, name: str, parser: Parser | None, lines: LineCounts) -> None:
        super().__init__(name, parser, lines)
        self._path, self._lines = Path(name), Lines()
        self._descriptor = self._open()

    def _open(self) -> int:
        try:
            # We hold it open for writing too, so it does not end when the writers leave.
            return os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from error

    @staticmethod
    def is_at(name: str) -> bool:
        """Whether a path is that of a FIFO."""
        try:
            return stat.S_ISFIFO(Path(name).stat().st_mode)
        except OSError:
            return False

    def descriptors(self) -> Iterator[int]:
        """The pipe."""
        return iter([self._descriptor])

    def watch(self) -> int | None:
        """None: its name may come to lead to another pipe."""
        return None

    def poll(self) -> Iterator[Block]:
        """Read what is there."""
        left = TURN
        while left > 0:
            try:
                block = os.read(self._descriptor, BLOCK)
            except BlockingIOError:
                break
            self.offset += len(block)
            left -= len(block)
            yield self._log.read(self._lines.feed(block))
        self._reopen()

    def _reopen(self) -> None:
        """Switch to the pipe that has the name now, if that is another one."""
        try:
            there, ours = self._path.stat(), os.fstat(self._descriptor)
            if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) and self.is_at(str(self._path)):
                descriptor = self._open()
                os.close(self._descriptor)
                self._descriptor = descriptor
            self.up = True
        except (OSError, SourceError):
            self.up = False

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._descriptor)
