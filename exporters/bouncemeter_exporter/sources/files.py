"""Files that grow: reads what is added to each file, through every rotation.

A source is what the user named: a file, a directory or a glob pattern. Every turn looks for its files again. At the
first start, existing files are read from their end unless the user asks otherwise, so that an old log does not look
like a spike. A file that appears later is read whole. `docs/following.md` says what happens in each kind of rotation.
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
"""Bytes that a source may read in one turn, so that other sources get theirs."""

MAX_OPEN = 64
"""Files of a source that stay open. Those that have not changed for longest are closed until they grow."""

SEARCH = 5.0
"""Every turn looks for a missing file for this many seconds; later searches are this many seconds apart."""

FORGET = 86400.0
"""Seconds after which a missing file of a directory or pattern is forgotten: until then a file server may return."""

LOOKING = 0.05
"""Share of the time that may be spent looking for files; it matters in directories with many thousands."""


def log_files(argument: str, *, compressed: bool) -> list[Path]:
    """The files that an argument names, oldest change first: the file itself, or those of a directory or pattern.

    Args:
        argument: A path or a glob pattern.
        compressed: Whether to include compressed files of a directory or pattern.

    Raises:
        SourceError: There is no such file.
    """
    return [path for path, _ in _files_with_stat(argument, compressed=compressed)]


def _files_with_stat(argument: str, *, compressed: bool) -> list[tuple[Path, os.stat_result]]:
    """The files that an argument names, each with its `stat` result."""
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
    files = []
    for each in found:
        if compressed or each.suffix not in COMPRESSED:
            try:
                stat = each.stat()
            except OSError:  # it has just gone, or is a dangling link
                continue
            if S_ISREG(stat.st_mode):
                files.append((each, stat))
    return sorted(files, key=lambda each: (each[1].st_mtime_ns, each[0].name))


class FollowedFiles:
    """A source of files; see `bouncemeter_exporter.sources.source.Source`.

    Args:
        argument: A path or a glob pattern.
        parser: The format; if None, it is detected for each file.
        from_start: At the first start, read existing files from their beginning.
        say: Called with each sentence the user should see.
        positions: Where the previous run stopped.
        lines: Lines counted by earlier runs.

    Raises:
        SourceError: There is no such file, and no earlier run read one.
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
        for path, _ in _files_with_stat(argument, compressed=False):
            self._open(FollowedFile(path, parser), len(self._files), from_end=not from_start)

    @property
    def offset(self) -> int:
        """Bytes read from the current files."""
        return sum(each.offset for each in self._files)

    @property
    def size(self) -> int:
        """Size of the current files in bytes, from the file system."""
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
        """How far each file has been read."""
        return {str(number): str(each.position()) for number, each in enumerate(self._files)}

    def descriptors(self) -> Iterator[int]:
        """None: a file gives no signal when it grows."""
        return iter(())

    def poll(self) -> Iterator[Block]:
        """What was added since the last call. A file with a backlog is read before the files after it."""
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
                if not file.behind and not file.rotated:  # it grows so fast that the others would wait too long
                    self._files.remove(file)
                    self._files.append(file)
                return

    def close(self) -> None:
        """Close the files."""
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
            self._mark_unreadable(file, error)

    def _refuse(self, file: FollowedFile, error: UnknownFormatError) -> None:
        file.refused = True
        file.close()
        self._say(str(error))

    def _mark_unreadable(self, file: FollowedFile, error: Exception) -> None:
        sentence = str(error) if isinstance(error, SourceError) else f"cannot read {file.path}: {_reason(error)}"
        self._report_trouble(file.path, sentence)
        file.trouble = sentence
        file.close()

    def _report_trouble(self, path: Path, sentence: str) -> None:
        if self._troubles.get(path) != sentence:
            self._say(sentence)
        self._troubles[path] = sentence

    def _forget(self, file: FollowedFile) -> None:
        self._gone.update(line_counts(file.log))
        file.close()
        self._files.remove(file)

    # --- looking for files --------------------------------------------------------------------------------------

    def _look_for_files(self) -> None:
        """Find which files exist now, which known ones were renamed, and which are new."""
        started = time.monotonic()
        try:
            present = _files_with_stat(self.name, compressed=False)
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
        """Give each known file its current name, and return the names that lead to other files."""
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
            self._report_trouble(path, str(error))
            return False
        return True

    def _try(self, file: FollowedFile, check: Callable[[], bool]) -> bool:
        """The result of a check of a file; True while the file cannot be read."""
        try:
            return check()
        except read_errors() as error:
            self._mark_unreadable(file, error)
            return True

    def _open(self, file: FollowedFile, place: int, *, from_end: bool = False) -> None:
        """Open a new file, at a place in the reading order."""
        self._files.insert(place, file)
        try:
            file.open(from_end=from_end)
        except UnknownFormatError as error:
            self._refuse(file, error)
        except read_errors() as error:
            self._mark_unreadable(file, error)

    def _follow_succession(self, former: FollowedFile) -> None:
        """Another file has the name now: read the rest of the former file wherever it is, then the files that had the
        name after it, then the one that has it now."""
        former.trouble = ""
        if former.is_open and not former.cut:
            former.learn_head()  # it may have been empty when last seen
        found = succession(former.position())
        place = self._finish_former(former, found.former)
        known = self._followed()
        if str(former.path) != self.name:
            known |= self._present  # in a directory or pattern, these are opened as new files
        for each in found.after:
            # In a directory, rotated files are followed too, but newer files succeed the unrotated one, not them.
            if each.identity in known or unrotated(former.path) != former.path or former.refused:
                each.stream.close()
                continue
            self._follow(former.path, each, place).rotated = True
            place += 1
        self._follow_current(former.path, found.current, place)

    def _finish_former(self, former: FollowedFile, found: Found | None) -> int:
        """Read a file that lost its name to its end. Returns the place after it in the reading order."""
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
                self._say(f"the old {former.path} is gone: nothing after its byte {former.offset} was read")
            self._forget(former)
            return place
        return place + 1

    def _follow_current(self, path: Path, current: Found | None, place: int) -> None:
        """Follow the file that has a name now, unless it is followed already."""
        if current is None:
            if path.exists():
                self._open(FollowedFile(path, self._parser), place)
            return
        if current.identity in self._followed():
            current.stream.close()
        else:
            self._follow(path, current, place)

    def _followed(self) -> set[Identity]:
        """The followed files, except missing ones: their inodes may belong to other files by now."""
        return {each.identity for each in self._files if not each.missing}

    def _follow(self, path: Path, found: Found, place: int) -> FollowedFile:
        """Follow a file that was found, from where it is open, at a place in the reading order."""
        file = FollowedFile(path, self._parser)
        file.go_on_in(found)
        self._files.insert(place, file)
        return file

    def _find_rotated(self) -> None:
        """Go on reading the rotated files that the previous run had not read to their end."""
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
        """Look for a file whose name is gone, unless it is open, and read its rest where it is now. A single file may
        come back under its name; a file of a directory or pattern is forgotten after a day."""
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
        """Close the files that have not changed for longest, if too many are open."""
        opened = sorted((each for each in self._files if each.is_open), key=lambda each: each.changed)
        for file in opened[: max(0, len(opened) - MAX_OPEN)]:
            if file.at_end:
                file.close()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
