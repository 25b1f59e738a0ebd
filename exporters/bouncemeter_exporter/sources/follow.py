"""Files that grow: what is added is read, file by file, as it comes.

A source is what the user named: a file, a directory, a glob pattern, or standard input. Its files are
looked for again at every turn, so that new ones are found. A file that was there at the start is read from
its end, unless asked otherwise: an old log must not look like a spike now. One that comes later is read whole.
"""

from __future__ import annotations

import glob
import os
import select
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from bouncemeter.event import Entry
from bouncemeter.plugin import Parser

from bouncemeter_exporter.reading import LogReader, UnknownFormatError
from bouncemeter_exporter.sources.text import BLOCK, COMPRESSED, STDIN, Lines, SourceError, open_log

__all__ = ["FollowedSource", "SourceStatus", "files_of"]

HEAD = 262_144
"""Bytes of a file's beginning that tell its format and its header."""


class SourceStatus(Protocol):
    """What the exporter tells of a source."""

    name: str

    @property
    def offset(self) -> int:
        """Bytes read of the present files."""
        ...

    @property
    def size(self) -> int:
        """Bytes that the present files have."""
        ...

    def lines(self) -> Counter[tuple[str, str]]:
        """Lines by mta and result."""
        ...


def files_of(argument: str, *, compressed: bool) -> list[Path]:
    """The files that an argument names, oldest change first: itself, those of a directory, those of a pattern.

    Args:
        argument: A path or a glob pattern.
        compressed: Whether compressed files of a directory or pattern count too.

    Raises:
        SourceError: There is no such file.
    """
    path = Path(argument)
    if path.is_dir():
        found = [each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")]
    elif path.exists():
        return [path]
    else:
        found = [Path(each) for each in glob.iglob(argument, recursive=True) if Path(each).is_file()]  # noqa: PTH207 - may be absolute
        if not found and not glob.has_magic(argument):
            raise SourceError(f"cannot read {argument}: there is no such file or directory")
    return sorted(
        (each for each in found if compressed or each.suffix not in COMPRESSED),
        key=lambda each: (each.stat().st_mtime, each.name),
    )


class FollowedSource:
    """A source that is followed.

    Args:
        argument: A path, a glob pattern, or `-` for standard input.
        parser: The format; without it each file's is detected.
        from_start: Read files that are there now from their beginning.
        warn: Told, in a sentence, of files that cannot be read.
    """

    def __init__(self, argument: str, *, parser: Parser | None, from_start: bool, warn: Callable[[str], None]) -> None:
        self.name = argument
        self._parser, self._warn = parser, warn
        self._files: dict[Path, _File] = {}
        self._given_up: dict[Path, str] = {}
        self._gone: Counter[tuple[str, str]] = Counter()
        self._stdin = _Stdin(parser) if argument == STDIN else None
        if self._stdin is None:
            for path in files_of(argument, compressed=False):
                self._open(path, from_start=from_start)

    @property
    def offset(self) -> int:
        """Bytes read of the present files."""
        return self._stdin.offset if self._stdin else sum(each.offset for each in self._files.values())

    @property
    def size(self) -> int:
        """Bytes that the present files have."""
        return self._stdin.offset if self._stdin else sum(each.size for each in self._files.values())

    def lines(self) -> Counter[tuple[str, str]]:
        """Lines by mta and result."""
        counted = Counter(self._gone)
        for log in [self._stdin.log] if self._stdin else [each.log for each in self._files.values()]:
            counted.update(_counted(log))
        return counted

    def parsers(self) -> set[str]:
        """The names of the formats found so far."""
        logs = [self._stdin.log] if self._stdin else [each.log for each in self._files.values()]
        return {log.parser.name for log in logs if log.parser}

    def poll(self) -> Iterator[list[Entry]]:
        """What was added since the last time, in pieces."""
        if self._stdin:
            yield from self._stdin.poll()
            return
        self._look_for_files()
        for path, file in list(self._files.items()):
            try:
                yield from file.poll()
            except UnknownFormatError as error:
                self._give_up(path, str(error))
            except OSError as error:
                self._give_up(path, f"cannot read {path}: {error.strerror}")

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            file.close()

    def _look_for_files(self) -> None:
        try:
            present = files_of(self.name, compressed=False)
        except (SourceError, OSError):
            present = []
        for path in present:
            if path not in self._files and path not in self._given_up:
                self._open(path, from_start=True)

    def _open(self, path: Path, *, from_start: bool) -> None:
        try:
            self._files[path] = _File(path, self._parser, from_start=from_start)
        except SourceError as error:
            self._give_up(path, str(error))

    def _give_up(self, path: Path, why: str) -> None:
        self._warn(why)
        self._given_up[path] = why
        file = self._files.pop(path, None)
        if file is not None:
            self._gone.update(_counted(file.log))
            file.close()


def _counted(log: LogReader) -> dict[tuple[str, str], int]:
    return {(log.parser.name, result): number for result, number in log.counts.items()} if log.parser else {}


class _File:
    """One followed file. When its name leads to another file, or it was cut, reading goes on from the start."""

    def __init__(self, path: Path, parser: Parser | None, *, from_start: bool) -> None:
        self.path, self.log = path, LogReader(str(path), parser)
        self._handle: BinaryIO = open_log(path)
        self._lines = Lines()
        self.offset = self.size = 0
        if not from_start:
            self._skip_to_end()

    def _skip_to_end(self) -> None:
        """Start at the end; the beginning is read for the format and the header, and not counted."""
        size = os.fstat(self._handle.fileno()).st_size
        head = Lines().feed(self._handle.read(min(HEAD, size)))
        self.log.take(head)
        self.log.counts.update(dict.fromkeys(self.log.counts, 0))
        self.offset = self.size = size
        self._handle.seek(max(0, size - 1))
        if size and self._handle.read(1) != b"\n":
            # The last line is not whole: it is counted when its end comes, so go back to its beginning.
            self._handle.seek(max(0, size - HEAD))
            tail = self._handle.read(HEAD)
            self.offset = size - (len(tail) - tail.rfind(b"\n") - 1)
        self._handle.seek(self.offset)

    def poll(self) -> Iterator[list[Entry]]:
        """Read what was added."""
        while block := self._handle.read(BLOCK):
            self.offset += len(block)
            self.size = max(self.size, self.offset)
            yield self.log.take(self._lines.feed(block))
        self.size = os.fstat(self._handle.fileno()).st_size
        if self.size < self.offset:
            self._handle.seek(0)
            self.offset, self._lines = 0, Lines()
        elif self._replaced():
            yield self.log.take(self._lines.end())
            self._handle.close()
            self._handle = open_log(self.path)
            self.offset, self._lines = 0, Lines()

    def _replaced(self) -> bool:
        try:
            now, ours = self.path.stat(), os.fstat(self._handle.fileno())
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()


class _Stdin:
    """Standard input, read as far as there is something."""

    def __init__(self, parser: Parser | None) -> None:
        self.log, self.offset = LogReader("standard input", parser), 0
        self._lines, self._ended = Lines(), False

    def poll(self) -> Iterator[list[Entry]]:
        """Read what is there."""
        stream = sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer
        while not self._ended and select.select([stream], [], [], 0)[0]:
            block = stream.read(BLOCK)
            if not block:
                self._ended = True
                yield self.log.take(self._lines.end())
                yield self.log.end()
                return
            self.offset += len(block)
            yield self.log.take(self._lines.feed(block))
