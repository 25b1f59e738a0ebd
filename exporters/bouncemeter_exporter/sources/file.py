"""One followed file: read as it grows, known again by its content after a restart, a rename or a cut."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser, parsers

from bouncemeter_exporter.sources.lines import BLOCK, COMPRESSED, Lines, open_log
from bouncemeter_exporter.sources.log import LogReader
from bouncemeter_exporter.sources.rotation import (
    HEAD,
    TAIL,
    Found,
    Identity,
    Position,
    at_beginning,
    begins_like,
    digest,
    filled_and_rotated,
    identity,
    read_head,
    resume,
)

__all__ = ["FollowedFile"]

BEGINNING = 262_144
"""Bytes of a file's beginning that tell its format and its header."""

LINGER = 60.0
"""Seconds without a change for which a file whose name another has now is still read: its writer may not know yet."""

FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", 5 if sys.platform == "linux" else time.CLOCK_REALTIME)
"""The clock by which changes of files are dated."""


class FollowedFile:
    """One followed file.

    Args:
        path: The name under which it is followed.
        parser: Its format, if that is given.
        position: Where a former run was.

    Attributes:
        identity: The file's device and inode.
        read_to: Bytes read.
        size: Bytes that it has.
        changed: Its last change, in nanoseconds since 1970 UTC; while it is empty, when it was seen so last.
        trouble: Why it cannot be read.
        refused: It is of no known format.
        rotated: Its name is another's now: it is read to its end.
        missing: Its name leads nowhere, or to another file.
        cut: Its content was replaced by another.
        search_at: When it is looked for again, if it is missing.
    """

    def __init__(self, path: Path, parser: Parser | None, *, position: Position | None = None) -> None:
        self.path = self._real = path
        self.identity: Identity = (0, 0)
        self.size = self.changed = self.read_to = 0
        self.trouble, self.refused, self.rotated, self.cut = "", False, False, False
        self._missing_since: float | None = None
        self.search_at = 0.0
        self._handle: BinaryIO | None = None
        self._head = self._tail = b""
        self._lines, self._begin, self._goal = Lines(), 0, 0
        self._position = position
        if position is None:
            with suppress(OSError):
                self._look(self._real.stat())
            self.log = LogReader(str(path), parser)
            return
        self.identity, self.rotated = (position.device, position.inode), position.rotated
        self.read_to = self.size = self._begin = position.offset
        self.changed, self._real = position.changed, Path(position.real)
        self._lines = Lines(overlong=position.overlong)
        parser = parser or (parsers().get(position.mta) if position.mta else None)
        try:
            self.log = LogReader(str(path), parser, memory=position.memory)
        except ValueError:  # of another version
            self.log = LogReader(str(path), parser)

    @property
    def _compressed(self) -> bool:
        return self._real.suffix in COMPRESSED

    @property
    def is_open(self) -> bool:
        """Whether it is held open."""
        return self._handle is not None

    @property
    def missing(self) -> bool:
        return self._missing_since is not None

    @missing.setter
    def missing(self, value: bool) -> None:
        self._missing_since = (self._missing_since or time.monotonic()) if value else None

    @property
    def missing_for(self) -> float:
        """Seconds since it was there last."""
        return time.monotonic() - self._missing_since if self._missing_since is not None else 0.0

    @property
    def offset(self) -> int:
        """Bytes read as whole lines. Lines of a format not known yet are read again after a restart."""
        return self._begin if self.log.parser is None else self.read_to - self._lines.held

    def size_now(self) -> int:
        """Bytes that it has, and at least those that were read."""
        try:
            size = self._real.stat().st_size
        except OSError:
            size = self.size
        return max(size, self.size, self.read_to)

    @property
    def behind(self) -> bool:
        """Whether what was there when it was opened is not yet read: until then, files that follow it wait."""
        return self.is_open and self.read_to < self._goal

    @property
    def at_end(self) -> bool:
        """Whether all that it has is read, and it may be closed until it grows."""
        return not self.rotated and self.read_to == self.size and not self._lines.held and self.log.parser is not None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be read of it."""
        if not self.rotated:
            return False
        quiet = time.time() - self.changed / 1e9 > LINGER or self._compressed
        return self._handle is None or (self.read_to >= self._goal and quiet)

    def learn_head(self) -> None:
        """Look what it begins with, if it was too short until now to tell all of that."""
        if len(self._head) < HEAD and self._handle is not None and not self._compressed:
            head = os.pread(self._handle.fileno(), HEAD, 0)
            self._head = head if head.startswith(self._head) else self._head

    def position(self) -> Position:
        """Where it was read to."""
        if self._position is not None:
            return self._position
        held = self._lines.held
        tail = self._tail[: len(self._tail) - held][-TAIL:] if self.log.parser is not None else b""
        if self.read_to:
            self.learn_head()
        return Position(
            path=str(self.path),
            real=str(self._real.resolve()),
            device=self.identity[0],
            inode=self.identity[1],
            offset=self.offset,
            head_size=len(self._head),
            head=digest(self._head),
            tail_size=len(tail),
            tail=digest(tail),
            changed=self.changed,
            mta=self.log.parser.name if self.log.parser else None,
            overlong=self._lines.overlong,
            memory=self.log.memory,
            rotated=self.rotated,
        )

    def open(self, *, from_end: bool) -> None:
        """Open it, at its beginning or end.

        Raises:
            SourceError, OSError, EOFError: It cannot be opened or read.
            UnknownFormatError: Its beginning is of no known format.
        """
        if from_end:
            self.read_to = self._begin = self.size  # also if it cannot be read before later
        found = at_beginning(self._real)
        self.go_on_in(found)
        if from_end:
            self._skip_to_end(found.stream)

    def _skip_to_end(self, handle: BinaryIO) -> None:
        """Start at the end; the beginning is read for the format and the header, and not counted."""
        size = self.read_to = self._begin = self.size
        self._head = handle.read(min(BEGINNING, size))
        self.log.read(Lines().feed(self._head))
        self.log.counts.update(dict.fromkeys(self.log.counts, 0))
        handle.seek(max(0, size - BEGINNING))
        end = handle.read(min(BEGINNING, size))
        # If the last line is not whole it is counted when its end comes: go back to its beginning.
        begin = size - (len(end) - end.rfind(b"\n") - 1)
        self._head, self._tail = self._head[:HEAD], end[: len(end) - (size - begin)][-TAIL:]
        self.read_to = self._begin = begin
        handle.seek(begin)

    def is_at(self, path: Path, stat: os.stat_result, *, hold: bool) -> bool:
        """Whether the file of that device and inode is this one still; if so, that is its name, and it is open if it is
        to be held or has grown.

        Raises:
            SourceError, OSError, EOFError: That cannot be read.
        """
        if self._handle is None and not self.refused:
            position = self.position()
            unchanged = (stat.st_size, stat.st_mtime_ns) == (position.offset, position.changed)
            if hold or not unchanged or self.trouble:
                found = self._known_again(path)
                if found is None or filled_and_rotated(position, path):
                    if found is not None:
                        found.stream.close()
                    self.cut = True
                    return False
                self.go_on_in(found)
        self.path = self._real = path
        return True

    def continues(self) -> bool:
        """Whether the file that has this one's name now has its content too: it was copied, or put back.

        Raises:
            SourceError, OSError, EOFError: That cannot be read.
        """
        found = None if self.position().empty else self._known_again(self.path)
        if found is not None:
            self.go_on_in(found)
        return found is not None

    def _known_again(self, path: Path) -> Found | None:
        """This file at a path, opened where it was read to."""
        return resume(self.position(), path) or self._cut_short(path, path.stat().st_size)

    def _cut_short(self, path: Path, size: int) -> Found | None:
        """The file at a path, of a size, if it is this one and lost its end, as in a crash of the machine, but not its
        beginning: it goes on at its end."""
        position = self.position()
        if size >= position.offset or not begins_like(position, path):
            return None
        stream, start = open_log(path), max(0, size - TAIL)
        stream.seek(start)
        return Found.of(path, stream, read_head(path), stream.read(size - start), size)

    def go_on_in(self, found: Found) -> None:
        """Go on where a file was found again."""
        self._lines = Lines(overlong=self._lines.overlong)  # an unfinished line is read again
        if self._handle is not None:
            self._handle.close()
        if self.log.parser is None:
            self.log = LogReader(str(self.path))  # the lines that it kept are read again
        self._handle, self._head, self._tail, self._real = found.stream, found.head, found.tail, found.path
        self._position, self.cut, self.trouble, self.missing = None, False, "", False
        self.read_to = self._begin = found.offset
        self._look(found.path.stat())
        self._goal = sys.maxsize if self._compressed else self.size

    def content_replaced(self) -> bool:
        """Whether the file was cut and is another's content now.

        Raises:
            OSError: That cannot be read.
        """
        if self._handle is None or self.rotated or self._compressed:
            return False
        descriptor = self._handle.fileno()
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed) and self.size >= self.read_to:
            return False
        if self.size == 0 and stat.st_mtime_ns > self.changed and filled_and_rotated(self.position(), self._real):
            self.cut = True  # it was empty when seen last, and was filled and rotated since
            return True
        self._look(stat)
        tail = self._tail[-TAIL:]
        if self.size >= self.read_to and os.pread(descriptor, len(tail), self.read_to - len(tail)) == tail:
            return False
        found = self._cut_short(self._real, self.size)
        self.cut = True
        if found is not None:
            self.go_on_in(found)
        return found is None

    def poll(self, size: int) -> Iterator[Block]:
        """Read what was added, up to a number of bytes.

        Raises:
            UnknownFormatError: Its first lines are of no known format.
            OSError, EOFError: It cannot be read on.
        """
        while self._handle is not None and size > 0 and (block := self._handle.read(min(BLOCK, size))):
            size -= len(block)
            self.read_to += len(block)
            text = self._lines.feed(block)
            self._tail = (self._tail + block)[-(TAIL + self._lines.held) :]
            yield self.log.read(text)
        if size > 0:
            self._goal = min(self._goal, self.read_to)
            if self.rotated and self._handle is not None and not self._compressed:
                self._look(os.fstat(self._handle.fileno()))
        if self.ended:
            yield self.log.read(self._lines.end())
            yield self.log.end()

    def _look(self, stat: os.stat_result) -> None:
        self.identity = identity(stat)
        self.size, self.changed = stat.st_size, stat.st_mtime_ns
        if not self.size and not self.rotated:
            self.changed = max(self.changed, time.clock_gettime_ns(FILE_CLOCK))

    def close(self) -> None:
        """Let go of the file; where it was read to stays known."""
        if self._handle is not None:
            self._position = self.position()
            self._handle.close()
            self._handle = None
