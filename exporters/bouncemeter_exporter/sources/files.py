"""Files that grow: what is added is read, file by file, as it comes, through every rotation.

A source is what the user named: a file, a directory or a glob pattern. Its files are looked for again at every turn.
A file that was there at the first start is read from its end, unless asked otherwise: an old log must not look like a
spike now. One that comes later is read whole. `docs/following.md` says what happens in each case of a rotation.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISREG

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser

from bouncemeter_exporter.sources.file import FollowedFile
from bouncemeter_exporter.sources.lines import COMPRESSED, SourceError, open_log, read_errors
from bouncemeter_exporter.sources.log import UnknownFormatError
from bouncemeter_exporter.sources.rotation import Found, Identity, Position, identity, succession, unrotated
from bouncemeter_exporter.sources.source import LineCounts, Positions, line_counts

__all__ = ["FollowedFiles", "log_files"]

TURN = 1_048_576
"""Bytes that a source gives at one turn, so that others have theirs."""

MAX_OPEN = 64
"""Files of a source that are held open; those without a change for longest are opened again when they grow."""

SEARCH = 5.0
"""Seconds for which a file that has gone is looked for at every turn, and then between two times."""

FORGET = 86400.0
"""Seconds after which a file of a directory or pattern that has gone is forgotten: a file server may come back."""

LOOKING = 0.05
"""Share of the time that may go into looking for files, in directories of many thousands."""


def log_files(argument: str, *, compressed: bool) -> list[Path]:
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
        lines: LineCounts,
    ) -> None:
        self.name = argument
        self._parser, self._say = parser, say
        self._gone = LineCounts(lines)
        self._trouble, self._troubles = "", dict[Path, str]()
        self._next_look = 0.0
        known = sorted(map(Position.parse, positions.values()), key=lambda each: (not each.rotated, each.changed))
        self._files = [FollowedFile(Path(each.path), parser, position=each) for each in known]
        self._present: set[Identity] = set()
        if self._files:
            self._find_rotated()
            self._look_for_files()
            return
        for path, _ in _stated(argument, compressed=False):
            self._open(FollowedFile(path, parser), len(self._files), from_end=not from_start)

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

    def lines(self) -> LineCounts:
        """Lines by mta and result."""
        found = LineCounts(self._gone)
        for each in self._files:
            found.update(line_counts(each.log))
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

    def poll(self) -> Iterator[Block]:
        """What was added since the last time. A file that has much to catch up is read before those that follow it."""
        if time.monotonic() >= self._next_look:
            self._look_for_files()
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

    def _read(self, file: FollowedFile, size: int) -> Iterator[Block]:
        try:
            if file.content_replaced():
                self._follow_succession(file)
                return
            yield from file.poll(size)
            current = file.is_open and not file.rotated and not file.missing
            if current and self._troubles.pop(file.path, ""):
                self._say(f"reading {file.path} again")
        except UnknownFormatError as error:
            self._refuse(file, error)
        except read_errors() as error:
            self._in_trouble(file, error)

    def _refuse(self, file: FollowedFile, error: UnknownFormatError) -> None:
        file.refused = True
        file.close()
        self._say(str(error))

    def _in_trouble(self, file: FollowedFile, error: Exception) -> None:
        sentence = str(error) if isinstance(error, SourceError) else f"cannot read {file.path}: {_reason(error)}"
        self._trouble_with(file.path, sentence)
        file.trouble = sentence
        file.close()

    def _trouble_with(self, path: Path, sentence: str) -> None:
        if self._troubles.get(path) != sentence:
            self._say(sentence)
        self._troubles[path] = sentence

    def _forget(self, file: FollowedFile) -> None:
        self._gone.update(line_counts(file.log))
        file.close()
        self._files.remove(file)

    # --- looking for files --------------------------------------------------------------------------------------

    def _look_for_files(self) -> None:
        """See which files there are now, which of them are known by another name, and which are new."""
        started = time.monotonic()
        try:
            present = _stated(self.name, compressed=False)
        except SourceError as error:
            self._trouble = self._trouble or str(error)
            present = []
        else:
            self._trouble = ""
        self._present = {identity(stat) for _, stat in present}
        for path in self._unknown(present):
            former = next((each for each in self._files if each.path == path and each.missing), None)
            if former is None:
                self._open(FollowedFile(path, self._parser), len(self._files))
            elif self._can_read(path) and not self._try(former, former.continues):
                self._follow_succession(former)
        for file in [each for each in self._files if each.missing]:
            self._look_for_missing(file)
        self._close_quiet_files()
        self._next_look = started + (time.monotonic() - started) / LOOKING

    def _unknown(self, present: list[tuple[Path, os.stat_result]]) -> list[Path]:
        """Give each known file the name that it has now; the names that are left lead to other files."""
        names = {identity(stat): (path, stat) for path, stat in present}
        claimed, hold = set(), len(self._files) <= MAX_OPEN
        for file in [each for each in self._files if not each.rotated]:
            path, stat = names.get(file.identity, (None, None))
            ours = path is not None and stat is not None and self._try(file, partial(file.is_at, path, stat, hold=hold))
            file.missing = not ours
            if ours:
                claimed.add(file.identity)
        return [path for key, (path, _) in names.items() if key not in claimed]

    def _can_read(self, path: Path) -> bool:
        try:
            open_log(path).close()
        except SourceError as error:
            self._trouble_with(path, str(error))
            return False
        return True

    def _try(self, file: FollowedFile, attempt: Callable[[], bool]) -> bool:
        """Whether something is so of a file; it is taken to be so while the file cannot be read."""
        try:
            return attempt()
        except read_errors() as error:
            self._in_trouble(file, error)
            return True

    def _open(self, file: FollowedFile, place: int, *, from_end: bool = False) -> None:
        """Open a new file, at a place in the order of reading."""
        self._files.insert(place, file)
        try:
            file.open(from_end=from_end)
        except UnknownFormatError as error:
            self._refuse(file, error)
        except read_errors() as error:
            self._in_trouble(file, error)

    def _follow_succession(self, former: FollowedFile) -> None:
        """A name leads to other content now: read the rest of the former where that is, then those that had the name
        after it, then the one that has it now."""
        former.trouble = ""
        if former.is_open and not former.cut:
            former.learn_head()  # also of what was written to it since it was seen empty
        found = succession(former.position())
        place = self._finish_former(former, found.former)
        known = self._followed()
        if str(former.path) != self.name:
            known |= self._present  # of a directory or pattern: these are begun with as new ones
        for each in found.after:
            # Of a directory, files that were rotated before are followed too: what is newer is newer than the last one.
            if each.identity in known or unrotated(former.path) != former.path or former.refused:
                each.stream.close()
                continue
            self._follow(former.path, each, place).rotated = True
            place += 1
        self._follow_current(former.path, found.current, place)

    def _finish_former(self, former: FollowedFile, found: Found | None) -> int:
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

    def _follow_current(self, path: Path, current: Found | None, place: int) -> None:
        """Begin with the file that has a name now, if it is not one that is followed."""
        if current is None:
            if path.exists():
                self._open(FollowedFile(path, self._parser), place)
            return
        if current.identity in self._followed():
            current.stream.close()
        else:
            self._follow(path, current, place)

    def _followed(self) -> set[Identity]:
        """The files that are followed, but those that are missing: the inode of one may be another's by now."""
        return {each.identity for each in self._files if not each.missing}

    def _follow(self, path: Path, found: Found, place: int) -> FollowedFile:
        """Follow a file that was found, from there on, at a place in the order of reading."""
        file = FollowedFile(path, self._parser)
        file.go_on_in(found)
        self._files.insert(place, file)
        return file

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

    def _look_for_missing(self, file: FollowedFile) -> None:
        """A file has gone, and nothing has its name: its rest is read where that is, if it was not open. The name of a
        single file may come back; of a directory or pattern, a file is forgotten after a day."""
        if not file.is_open and (file.missing_for < SEARCH or time.monotonic() >= file.search_at):
            file.search_at = time.monotonic() + SEARCH
            found = succession(file.position())
            found.close()
            if found.former is not None:
                self._follow_succession(file)
                return
        if str(file.path) != self.name and (file.missing_for > FORGET or file.position().empty):
            self._forget(file)

    def _close_quiet_files(self) -> None:
        """Close the files that had no change for longest, if there are many."""
        opened = sorted((each for each in self._files if each.is_open), key=lambda each: each.changed)
        for file in opened[: max(0, len(opened) - MAX_OPEN)]:
            if file.at_end:
                file.close()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
