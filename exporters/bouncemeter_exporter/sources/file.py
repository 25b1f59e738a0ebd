"""One followed file: read as it grows, and recognised by its content after a restart, a rename or a truncation."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser, ParserNotFoundError
from bouncemeter.plugin import parser as parser_named

from bouncemeter_exporter.sources.lines import BLOCK, COMPRESSED, Lines, open_log, utf_16
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError
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
"""Bytes read from a file's beginning to find its format and its header."""

LINGER = 60.0
"""A rotated file is read until it is unchanged for this many seconds: its writer may not know of the rotation yet."""

FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", 5 if sys.platform == "linux" else time.CLOCK_REALTIME)
"""The clock that the file system uses to date changes."""


class FollowedFile:
    """One followed file.

    Args:
        path: The name under which it is followed.
        parser: Its format; if None, it is detected.
        position: Where the previous run stopped.

    Attributes:
        identity: The file's device and inode.
        read_to: Bytes read.
        size: Its size in bytes.
        changed: Its last change, in nanoseconds since 1970 UTC; while it is empty, the last tick of the clock of files
            before the tick of the last look in which it was seen empty: it may be filled in that one, after the look.
        trouble: Why it cannot be read.
        refused: It is in no known format.
        rotated: Another file has its name now: this one is read to its end.
        missing: Its name leads to no file, or to another one.
        cut: Its content was replaced.
        search_at: When to look for it again if it is missing, in seconds of `time.monotonic`.
    """

    def __init__(self, path: Path, parser: Parser | None, *, position: Position | None = None) -> None:
        self.path = self._real = path
        self.identity: Identity = (0, 0)
        self.size = self.changed = self.read_to = 0
        self._seen_empty = self._seen_empty_before = 0  # the last two ticks of the clock of files in which it was so
        self.trouble, self.refused, self.rotated, self.cut = "", False, False, False
        self._missing_since: float | None = None
        self.search_at = 0.0
        self._handle: BinaryIO | None = None
        self._head = self._tail = b""
        self._lines, self._begin, self._goal = Lines(), 0, 0
        self._position = position
        if position is None:
            with suppress(OSError):
                self._note_stat(self._real.stat())
            self.log = LogReader(str(path), parser)
            return
        self.identity, self.rotated = (position.device, position.inode), position.rotated
        self.read_to = self.size = self._begin = position.offset
        self.changed, self._real = position.changed, Path(position.real)
        self._lines = Lines(overlong=position.overlong)
        if parser is None and position.mta:
            with suppress(ParserNotFoundError):  # its plugin is no longer installed
                parser = parser_named(position.mta)
        try:
            self.log = LogReader(str(path), parser, memory=position.memory)
        except ValueError:  # the memory is of another version
            self.log = LogReader(str(path), parser)
        self.log.recognise()

    @property
    def _compressed(self) -> bool:
        return self._real.suffix in COMPRESSED

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._handle is not None

    @property
    def missing(self) -> bool:
        return self._missing_since is not None

    @missing.setter
    def missing(self, value: bool) -> None:
        self._missing_since = (self._missing_since or time.monotonic()) if value else None

    @property
    def missing_for(self) -> float:
        """Seconds since it was last there."""
        return time.monotonic() - self._missing_since if self._missing_since is not None else 0.0

    @property
    def offset(self) -> int:
        """Bytes read as whole lines. While the format is unknown, a restart reads the lines again."""
        return self._begin if self.log.parser is None else self.read_to - self._lines.held

    def size_now(self) -> int:
        """Its size in bytes, at least the number of bytes read."""
        try:
            size = self._real.stat().st_size
        except OSError:
            size = self.size
        return max(size, self.size, self.read_to)

    @property
    def behind(self) -> bool:
        """Whether some of what it held when it was opened is still unread. Until it is read, later files wait."""
        return self.is_open and self.read_to < self._goal

    @property
    def at_end(self) -> bool:
        """Whether it is read to its end and can be closed until it grows."""
        return not self.rotated and self.read_to == self.size and not self._lines.held and self.log.parser is not None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be read from it."""
        if not self.rotated:
            return False
        quiet = time.time() - self.changed / 1e9 > LINGER or self._compressed
        return self._handle is None or (self.read_to >= self._goal and quiet)

    def learn_head(self) -> None:
        """Read its first bytes again if it had fewer than `HEAD` of them before."""
        if len(self._head) < HEAD and self._handle is not None and not self._compressed:
            head = os.pread(self._handle.fileno(), HEAD, 0)
            self._head = head if head.startswith(self._head) else self._head

    def position(self) -> Position:
        """How far it has been read, and how to recognise it."""
        if self._position is not None:
            return self._position
        held = self._lines.held
        tail = self._tail[: len(self._tail) - held][-TAIL:] if self.log.parser is not None else b""
        if self.read_to:
            self.learn_head()
        return Position(
            path=str(self.path),
            real=os.path.realpath(self._real),
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
        """Open it at its beginning or end.

        Raises:
            SourceError, OSError, EOFError: It cannot be opened or read.
            UnknownFormatError: Its beginning is in no known format.
        """
        if from_end:
            self.read_to = self._begin = self.size  # even if it can only be read later
        found = at_beginning(self._real)
        self.go_on_in(found)
        if from_end:
            self._skip_to_end(found.stream)

    def _skip_to_end(self, handle: BinaryIO) -> None:
        """Start at the end. The beginning is read only for the format and the header, and is not counted."""
        size = self.read_to = self._begin = self.size
        self._head = handle.read(min(BEGINNING, size))
        self._must_be_bytes(self._head)
        self.log.read(Lines().feed(self._head))
        self.log.counts.update(dict.fromkeys(self.log.counts, 0))
        handle.seek(max(0, size - BEGINNING))
        end = handle.read(min(BEGINNING, size))
        # An unfinished last line is counted once it is complete, so go back to its beginning.
        begin = size - (len(end) - end.rfind(b"\n") - 1)
        self._head, self._tail = self._head[:HEAD], end[: len(end) - (size - begin)][-TAIL:]
        self.read_to = self._begin = begin
        handle.seek(begin)

    def _must_be_bytes(self, head: bytes) -> None:
        """Refuse a file whose lines do not end at the byte of a line feed.

        Raises:
            UnknownFormatError: It is in UTF-16.
        """
        if utf_16(head):
            raise UnknownFormatError(
                f"{self.path} is in UTF-16, in which no log can be followed: convert it to UTF-8, or read it with"
                " bouncemeter report"
            )

    def is_at(self, path: Path, stat: os.stat_result, *, hold: bool) -> bool:
        """Whether the file at a path, with the same device and inode, is still this one. If so, take the path as its
        name, and open it if it is to be held open or has changed.

        Raises:
            SourceError, OSError, EOFError: The file cannot be read.
        """
        if self._handle is None and not self.refused:
            position = self.position()
            unchanged = (stat.st_size, stat.st_mtime_ns) == (position.offset, position.changed)
            if hold or not unchanged or self.trouble:
                found = self._find_at(path)
                if found is None or filled_and_rotated(position, path):
                    if found is not None:
                        found.stream.close()
                    self.cut = True
                    return False
                self.go_on_in(found)
        self.path = self._real = path
        return True

    def continues(self) -> bool:
        """Whether the file that now has this one's name also has its content, by a copy or restore. If so, go on in it.

        Raises:
            SourceError, OSError, EOFError: The file cannot be read.
        """
        found = None if self.position().empty else self._find_at(self.path)
        if found is not None:
            self.go_on_in(found)
        return found is not None

    def _find_at(self, path: Path) -> Found | None:
        """Open the file at a path where reading stopped, if it is this one."""
        return resume(self.position(), path) or self._find_truncated(path, path.stat().st_size)

    def _find_truncated(self, path: Path, size: int) -> Found | None:
        """Open the file at a path, with a size in bytes, at its end, if it is this one and lost only its end, as in a
        crash of the machine."""
        position = self.position()
        if size >= position.offset or not begins_like(position, path):
            return None
        stream, start = open_log(path), max(0, size - TAIL)
        stream.seek(start)
        return Found.of(path, stream, read_head(path), stream.read(size - start), size)

    def go_on_in(self, found: Found) -> None:
        """Go on reading in a file that was found again."""
        self._lines = Lines(overlong=self._lines.overlong)  # an unfinished line is read again
        if self._handle is not None:
            self._handle.close()
        if self.log.parser is None:
            self.log = LogReader(str(self.path))  # the lines that it held back are read again
        self._handle, self._head, self._tail, self._real = found.stream, found.head, found.tail, found.path
        self._position, self.cut, self.trouble, self.missing = None, False, "", False
        self.read_to = self._begin = found.offset
        self._note_stat(found.path.stat())
        self._goal = sys.maxsize if self._compressed else self.size

    def content_replaced(self) -> bool:
        """Whether the file was truncated and now has other content.

        Raises:
            OSError: The file cannot be read.
        """
        if self._handle is None or self.rotated or self._compressed:
            return False
        descriptor = self._handle.fileno()
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed) and self.size >= self.read_to:
            return False
        if self.size == 0 and stat.st_mtime_ns > self.changed and filled_and_rotated(self.position(), self._real):
            self.cut = True  # it was empty when last seen, and has been filled and rotated since
            return True
        self._note_stat(stat)
        tail = self._tail[-TAIL:]
        if (
            self.size >= self.read_to
            and os.pread(descriptor, len(tail), self.read_to - len(tail)) == tail
            and os.pread(descriptor, len(self._head), 0) == self._head
        ):
            self.learn_head()
            return False
        found = self._find_truncated(self._real, self.size)
        self.cut = True
        if found is not None:
            self.go_on_in(found)
        return found is None

    def poll(self, size: int) -> Iterator[Block]:
        """Read what was added, at most `size` bytes.

        Raises:
            UnknownFormatError: Its first lines are in no known format.
            OSError, EOFError: It cannot be read further.
        """
        while self._handle is not None and size > 0 and (block := self._handle.read(min(BLOCK, size))):
            if not self.read_to:
                self._must_be_bytes(block)
            size -= len(block)
            self.read_to += len(block)
            text = self._lines.feed(block)
            self._tail = (self._tail + block)[-(TAIL + self._lines.held) :]
            yield self.log.read(text)
        if size > 0:
            self._goal = min(self._goal, self.read_to)
            if self.rotated and self._handle is not None and not self._compressed:
                self._note_stat(os.fstat(self._handle.fileno()))
        if self.ended:
            yield self.log.read(self._lines.end())
            yield self.log.end()

    def _note_stat(self, stat: os.stat_result) -> None:
        self.identity = identity(stat)
        self.size, self.changed = stat.st_size, stat.st_mtime_ns
        if not self.size and not self.rotated:
            now = time.clock_gettime_ns(FILE_CLOCK)
            if now != self._seen_empty:
                self._seen_empty, self._seen_empty_before = now, self._seen_empty or now
            self.changed = max(self.changed, self._seen_empty_before)

    def close(self) -> None:
        """Close the file, and remember its position."""
        if self._handle is not None:
            self._position = self.position()
            self._handle.close()
            self._handle = None
