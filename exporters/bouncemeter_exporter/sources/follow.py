"""Files that grow: what is added is read, file by file, as it comes, through every rotation.

A source is what the user named: a file, a directory or a glob pattern. Its files are looked for again at every turn.
A file that was there at the first start is read from its end, unless asked otherwise: an old log must not look like a
spike now. One that comes later is read whole. `docs/following.md` says what happens in each case of a rotation.
"""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from bouncemeter.event import Entry
from bouncemeter.plugin import Parser, parsers

from bouncemeter_exporter.reading import LogReader, UnknownFormatError
from bouncemeter_exporter.sources.rotation import (
    HEAD,
    TAIL,
    Found,
    Position,
    begins_like,
    digest,
    filled_and_rotated,
    read_head,
    resume,
    succession,
    unrotated,
)
from bouncemeter_exporter.sources.source import Counted, Positions, counted
from bouncemeter_exporter.sources.text import BLOCK, COMPRESSED, Lines, SourceError, broken, open_log

__all__ = ["FollowedFiles", "files_of"]

TURN = 1_048_576
"""Bytes that a source gives at one turn, so that others have theirs."""

BEGINNING = 262_144
"""Bytes of a file's beginning that tell its format and its header."""

LINGER = 60.0
"""Seconds without a change for which a file whose name another has now is still read: its writer may not know yet."""

MAX_OPEN = 64
"""Files of a source that are held open; those without a change for longest are opened again when they grow."""

SEARCH = 5.0
"""Seconds for which a file that has gone is looked for at every turn, and then between two times."""

FORGET = 86400.0
"""Seconds after which a file of a directory or pattern that has gone is forgotten: a file server may come back."""

FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", 5 if sys.platform == "linux" else time.CLOCK_REALTIME)
"""The clock by which changes of files are dated."""

LOOKING = 0.05
"""Share of the time that may go into looking for files, in directories of many thousands."""


def files_of(argument: str, *, compressed: bool) -> list[Path]:
    """The files that an argument names, oldest change first: itself, those of a directory, those of a pattern.

    Args:
        argument: A path or a glob pattern.
        compressed: Whether compressed files of a directory or pattern count too.

    Raises:
        SourceError: There is no such file.
    """
    return [path for path, _ in _stated(argument, compressed=compressed)]


def _stated(argument: str, *, compressed: bool) -> list[tuple[Path, os.stat_result]]:
    """The files that an argument names, each with what the file system tells of it."""
    path = Path(argument)
    try:
        if path.is_dir():
            found = [Path(each.path) for each in os.scandir(path) if not each.name.startswith(".")]
        elif path.exists():
            return [(path, path.stat())]
        else:
            found = [Path(each) for each in glob.iglob(argument, recursive=True)]  # noqa: PTH207 - may be absolute
            if not found and not glob.has_magic(argument):
                raise SourceError(f"cannot read {argument}: there is no such file or directory")
    except OSError as error:
        raise SourceError(f"cannot read {argument}: {error.strerror}") from error
    stated = []
    for each in found:
        if compressed or each.suffix not in COMPRESSED:
            try:
                stat = each.stat()
            except OSError:  # it has gone this moment, or is a link to nowhere
                continue
            if S_ISREG(stat.st_mode):
                stated.append((each, stat))
    return sorted(stated, key=lambda each: (each[1].st_mtime_ns, each[0].name))


class FollowedFiles:
    """A source of files; see `bouncemeter_exporter.sources.source.Source`.

    Args:
        argument: A path or a glob pattern.
        parser: The format; without it each file's is detected.
        from_start: Read files that are there at the first start from their beginning.
        say: Told, in a sentence, what the user should know.
        positions: Where a former run was.
        lines: The lines that former runs read.

    Raises:
        SourceError: There is no such file, and none was read by a former run.
    """

    dropped = 0

    def __init__(
        self,
        argument: str,
        *,
        parser: Parser | None,
        from_start: bool,
        say: Callable[[str], None],
        positions: Positions,
        lines: Counted,
    ) -> None:
        self.name = argument
        self._parser, self._say = parser, say
        self._gone = Counted(lines)
        self._trouble, self._troubles = "", dict[Path, str]()
        self._next_look = 0.0
        known = sorted(map(Position.parse, positions.values()), key=lambda each: (not each.rotated, each.changed))
        self._files = [_File(Path(each.path), parser, position=each) for each in known]
        self._present: set[tuple[int, int]] = set()
        if self._files:
            self._find_rotated()
            self._look()
            return
        for path, _ in _stated(argument, compressed=False):
            self._open(_File(path, parser), len(self._files), from_end=not from_start)

    @property
    def offset(self) -> int:
        """Bytes read of the present files."""
        return sum(each.offset for each in self._files)

    @property
    def size(self) -> int:
        """Bytes that the present files have, asked of the file system."""
        return sum(each.size_now() for each in list(self._files))

    @property
    def up(self) -> bool:
        """Whether there is a file, and every file can be read."""
        return bool(self._files) and not (
            self._trouble or self._troubles or any(each.missing for each in list(self._files))
        )

    def lines(self) -> Counted:
        """Lines by mta and result."""
        found = Counted(self._gone)
        for each in self._files:
            found.update(counted(each.log))
        return found

    def parsers(self) -> set[str]:
        """The names of the formats found so far."""
        return {each.log.parser.name for each in self._files if each.log.parser}

    def positions(self) -> Positions:
        """Where each file was read to."""
        return {str(number): str(each.position()) for number, each in enumerate(self._files)}

    def descriptors(self) -> Iterator[int]:
        """None: files do not tell that they grew."""
        return iter(())

    def poll(self) -> Iterator[list[Entry]]:
        """What was added since the last time. A file that has much to catch up is read before those that follow it."""
        if time.monotonic() >= self._next_look:
            self._look()
        left = TURN
        for file in list(self._files):
            if file.refused and file.rotated:
                self._forget(file)
            if file.trouble or file.refused:
                continue
            before = file.read_to
            yield from self._read(file, left)
            left -= max(0, file.read_to - before)
            if file.ended:
                self._forget(file)
            elif left <= 0:
                if not file.behind and not file.rotated:  # it grows faster than the others can wait
                    self._files.remove(file)
                    self._files.append(file)
                return

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, file: _File, size: int) -> Iterator[list[Entry]]:
        try:
            if file.content_replaced():
                self._succeed(file)
                return
            yield from file.poll(size)
            current = file.is_open and not file.rotated and not file.missing
            if current and self._troubles.pop(file.path, ""):
                self._say(f"reading {file.path} again")
        except UnknownFormatError as error:
            self._refuse(file, error)
        except broken() as error:
            self._in_trouble(file, error)

    def _refuse(self, file: _File, error: UnknownFormatError) -> None:
        file.refused = True
        file.close()
        self._say(str(error))

    def _in_trouble(self, file: _File, error: Exception) -> None:
        sentence = str(error) if isinstance(error, SourceError) else f"cannot read {file.path}: {_reason(error)}"
        self._trouble_with(file.path, sentence)
        file.trouble = sentence
        file.close()

    def _trouble_with(self, path: Path, sentence: str) -> None:
        if self._troubles.get(path) != sentence:
            self._say(sentence)
        self._troubles[path] = sentence

    def _forget(self, file: _File) -> None:
        self._gone.update(counted(file.log))
        file.close()
        self._files.remove(file)

    # --- looking for files --------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See which files there are now, which of them are known by another name, and which are new."""
        started = time.monotonic()
        try:
            present = _stated(self.name, compressed=False)
        except SourceError as error:
            self._trouble = self._trouble or str(error)
            present = []
        else:
            self._trouble = ""
        self._present = {(stat.st_dev, stat.st_ino) for _, stat in present}
        for path in self._unknown(present):
            former = next((each for each in self._files if each.path == path and each.missing), None)
            if former is None:
                self._open(_File(path, self._parser), len(self._files))
            elif self._can_read(path) and not self._try(former, former.continues):
                self._succeed(former)
        for file in [each for each in self._files if each.missing]:
            self._look_for_missing(file)
        self._rest()
        self._next_look = started + (time.monotonic() - started) / LOOKING

    def _unknown(self, present: list[tuple[Path, os.stat_result]]) -> list[Path]:
        """Give each known file the name that it has now; the names that are left lead to other files."""
        names = {(stat.st_dev, stat.st_ino): (path, stat) for path, stat in present}
        claimed, hold = set(), len(self._files) <= MAX_OPEN
        for file in [each for each in self._files if not each.rotated]:
            path, stat = names.get((file.device, file.inode), (None, None))
            ours = path is not None and stat is not None and self._try(file, partial(file.is_at, path, stat, hold=hold))
            file.missing = not ours
            if ours:
                claimed.add((file.device, file.inode))
        return [path for key, (path, _) in names.items() if key not in claimed]

    def _can_read(self, path: Path) -> bool:
        try:
            open_log(path).close()
        except SourceError as error:
            self._trouble_with(path, str(error))
            return False
        return True

    def _try(self, file: _File, attempt: Callable[[], bool]) -> bool:
        """Whether something is so of a file; it is taken to be so while the file cannot be read."""
        try:
            return attempt()
        except broken() as error:
            self._in_trouble(file, error)
            return True

    def _open(self, file: _File, place: int, *, from_end: bool = False) -> None:
        """Open a new file, at a place in the order of reading."""
        self._files.insert(place, file)
        try:
            file.open(from_end=from_end)
        except UnknownFormatError as error:
            self._refuse(file, error)
        except broken() as error:
            self._in_trouble(file, error)

    def _succeed(self, former: _File) -> None:
        """A name leads to other content now: read the rest of the former where that is, then those that had the name
        after it, then the one that has it now."""
        former.trouble = ""
        if former.is_open and not former.cut:
            former.learn_head()  # also of what was written to it since it was seen empty
        found = succession(former.position())
        place = self._send_off(former, found.former)
        # The inode of a file that is missing may be another's by now.
        known = {(each.device, each.inode) for each in self._files if not each.missing}
        if str(former.path) != self.name:
            known |= self._present  # of a directory or pattern: these are begun with as new ones
        for each in found.after:
            # Of a directory, files that were rotated before are followed too: what is newer is newer than the last one.
            if (each.device, each.inode) in known or unrotated(former.path) != former.path or former.refused:
                each.stream.close()
                continue
            file = _File(former.path, self._parser)
            file.go_on_in(each)
            file.rotated = True
            self._files.insert(place, file)
            place += 1
        self._begin(former.path, found.current, place)

    def _send_off(self, former: _File, found: Found | None) -> int:
        """Read a file that lost its name to its end; the place behind it in the order of reading."""
        place = self._files.index(former)
        if former.refused or (former.is_open and not former.cut):
            if found is not None:
                found.stream.close()
            former.rotated, former.missing = True, False
        elif found is not None:
            former.go_on_in(found)
            former.rotated = True
        else:
            if former.offset:
                self._say(f"the former {former.path} is gone: what came after its byte {former.offset} was not read")
            self._forget(former)
            return place
        return place + 1

    def _begin(self, path: Path, current: Found | None, place: int) -> None:
        """Begin with the file that has a name now, if it is not one that is followed."""
        if current is None:
            if path.exists():
                self._open(_File(path, self._parser), place)
            return
        if any(
            (each.device, each.inode) == (current.device, current.inode) for each in self._files if not each.missing
        ):
            current.stream.close()
            return
        file = _File(path, self._parser)
        file.go_on_in(current)
        self._files.insert(place, file)

    def _find_rotated(self) -> None:
        """Go on in the files that a former run was reading to their end."""
        for file in [each for each in self._files if each.rotated]:
            found = succession(file.position())
            for each in (found.current, *found.after):
                if each is not None:
                    each.stream.close()
            if found.former is not None:
                file.go_on_in(found.former)
            else:
                self._forget(file)

    def _look_for_missing(self, file: _File) -> None:
        """A file has gone, and nothing has its name: its rest is read where that is, if it was not open. The name of a
        single file may come back; of a directory or pattern, a file is forgotten after a day."""
        if not file.is_open and (file.missing_for < SEARCH or time.monotonic() >= file.search_at):
            file.search_at = time.monotonic() + SEARCH
            found = succession(file.position())
            found.close()
            if found.former is not None:
                self._succeed(file)
                return
        if str(file.path) != self.name and (file.missing_for > FORGET or file.position().empty):
            self._forget(file)

    def _rest(self) -> None:
        """Close the files that had no change for longest, if there are many."""
        opened = sorted((each for each in self._files if each.is_open), key=lambda each: each.changed)
        for file in opened[: max(0, len(opened) - MAX_OPEN)]:
            if file.at_end:
                file.close()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


class _File:
    """One followed file.

    Args:
        path: The name under which it is followed.
        parser: Its format, if that is given.
        real: Where it is, if that is not its name.
        position: Where a former run was.

    Attributes:
        device, inode: The file's own.
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

    def __init__(
        self, path: Path, parser: Parser | None, *, real: Path | None = None, position: Position | None = None
    ) -> None:
        self.path, self._real = path, real or path
        self.device = self.inode = self.size = self.changed = self.read_to = 0
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
        self.device, self.inode, self.rotated = position.device, position.inode, position.rotated
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
            device=self.device,
            inode=self.inode,
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
        handle = open_log(self._real)
        self._look(self._real.stat())
        self._head = read_head(self._real)
        self._goal = sys.maxsize if self._compressed else self.size
        if from_end:
            self._skip_to_end(handle)
        self._handle = handle

    def _skip_to_end(self, handle: BinaryIO) -> None:
        """Start at the end; the beginning is read for the format and the header, and not counted."""
        size = self.size
        self._head = handle.read(min(BEGINNING, size))
        self.log.take(Lines().feed(self._head))
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
                found = resume(position, path) or self._cut_short(position, path, stat.st_size)
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
        position = self.position()
        if position.empty:
            return False
        found = resume(position, self.path) or self._cut_short(position, self.path, self.path.stat().st_size)
        if found is not None:
            self.go_on_in(found)
        return found is not None

    @staticmethod
    def _cut_short(position: Position, path: Path, size: int) -> Found | None:
        """A file that lost its end, as in a crash of the machine, and not its beginning: it goes on at its end."""
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
        position = self.position()
        found = self._cut_short(position, self._real, self.size)
        self.cut = True
        if found is not None:
            self.go_on_in(found)
        return found is None

    def poll(self, size: int) -> Iterator[list[Entry]]:
        """Read what was added, up to a number of bytes.

        Raises:
            UnknownFormatError: Its first lines are of no known format.
            OSError, EOFError: It cannot be read on.
        """
        while self._handle is not None and size > 0 and (block := self._handle.read(min(BLOCK, size))):
            size -= len(block)
            self.read_to += len(block)
            lines = self._lines.feed(block)
            self._tail = (self._tail + block)[-(TAIL + self._lines.held) :]
            yield self.log.take(lines)
        if size > 0:
            self._goal = min(self._goal, self.read_to)
            if self.rotated and self._handle is not None and not self._compressed:
                self._look(os.fstat(self._handle.fileno()))
        if self.ended:
            yield self.log.take(self._lines.end())
            yield self.log.end()

    def _look(self, stat: os.stat_result) -> None:
        self.device, self.inode = stat.st_dev, stat.st_ino
        self.size, self.changed = stat.st_size, stat.st_mtime_ns
        if not self.size and not self.rotated:
            self.changed = max(self.changed, time.clock_gettime_ns(FILE_CLOCK))

    def close(self) -> None:
        """Let go of the file; where it was read to stays known."""
        if self._handle is not None:
            self._position = self.position()
            self._handle.close()
            self._handle = None
