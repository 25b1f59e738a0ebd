"""Files that grow: reads what is added to each file, through every rotation.

A source is what the user named: a file, a directory or a glob pattern. Every turn looks for its files again. At the
first start, existing files are read from their end unless the user asks otherwise, so that an old log does not look
like a spike. A file that appears later is read whole. `docs/following.md` says what happens in each kind of rotation.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser

from bouncemeter_exporter.sources.file import FollowedFile
from bouncemeter_exporter.sources.lines import SourceError, open_log, printable, read_errors
from bouncemeter_exporter.sources.listing import files_of, identities_of, mounted_alone
from bouncemeter_exporter.sources.log import UnknownFormatError, unlike
from bouncemeter_exporter.sources.permission import why
from bouncemeter_exporter.sources.rotation import Found, Identity, Position, identity, succession, unrotated
from bouncemeter_exporter.sources.source import LineCounts, Positions, line_counts
from bouncemeter_exporter.sources.watch import Watch

__all__ = ["FollowedFiles"]

TURN = 1_048_576
"""Bytes that a source may read in one turn, so that other sources get theirs."""

MAX_OPEN = 64
"""Files of a source that stay open. Those that have not changed for longest are closed until they grow."""

SEARCH = 5.0
"""Every turn looks for a missing file for this many seconds; later searches are this many seconds apart."""

FORGET = 86400.0
"""Seconds after which a missing file of a directory or pattern is forgotten: until then a file server may return."""

BEGUN = "begun"
"""The name of an entry among the positions that says that there was a start before."""

LOOKING = 0.05
"""Share of the time that may be spent looking for files; it matters in directories with many thousands."""


class FollowedFiles:
    """A source of files; see `bouncemeter_exporter.sources.source.Source`.

    Args:
        argument: A path or a glob pattern.
        parser: The format; if None, it is detected for each file.
        from_start: At the first start, read existing files from their beginning.
        say: Called with each sentence the user should see.
        positions: Where the previous run stopped.
        lines: Lines counted by earlier runs.
        before: The sources before this one: a file of theirs is not read again.

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
        before: Sequence[str] = (),
    ) -> None:
        self.name, self._argument, self._before = printable(argument), argument, before
        self._parser, self._say = parser, say
        self._gone = LineCounts(lines)
        self._trouble, self._trouble_since, self._trouble_said = "", 0.0, False
        self._troubles = dict[Path, str]()
        self._next_look = self._searched = 0.0
        if mounted_alone(Path(argument)):
            say(f"{argument} is mounted by itself, so a rotation cannot be seen: mount its folder instead")
        known = [Position.parse(text) for name, text in positions.items() if name != BEGUN]
        known.sort(key=lambda each: (not each.rotated, each.changed))
        taken = set[Identity]().union(*self._of_others().values())
        self._files = [
            FollowedFile(Path(each.path), parser, position=each)
            for each in known
            if (each.device, each.inode) not in taken
        ]
        self._watch, self._looked = Watch(), False
        self._watched: tuple[set[Path], set[Path]] = set(), set()
        self._present: set[Identity] = set()
        self._all_taken = False
        if positions:
            self._find_rotated()
            self._look_for_files()
            return
        for path, _ in self._own(files_of(argument, compressed=False)):
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
        """Whether there is a log, and every file can be read."""
        files = list(self._files)
        return (self._all_taken or not all(each.refused for each in files)) and not (
            self._trouble or self._troubles or any(each.missing for each in files)
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
        """How far each file has been read. Even if there is no file, this is not the first start any more."""
        return {BEGUN: ""} | {str(number): str(each.position()) for number, each in enumerate(self._files)}

    def descriptors(self) -> Iterator[int]:
        """None: a file that is read to its end is readable, too."""
        return iter(())

    def watch(self) -> int | None:
        """A descriptor that tells of the next change, unless a file is to be looked at before."""
        settled = self._looked and not (self._trouble or self._troubles)
        settled &= not any(each.rotated or each.missing or each.trouble or each.behind for each in self._files)
        return self._watch.descriptor if settled and self._watched == self._to_watch() else None

    def poll(self) -> Iterator[Block]:
        """What was added since the last call. A file with a backlog is read before the files after it; these are looked
        at too, for they may be rotated while they wait."""
        self._watched = self._to_watch()
        self._watch.renew(*self._watched)
        self._looked = time.monotonic() >= self._next_look
        if self._looked:
            self._look_for_files()
        left = TURN
        for file in list(self._files):
            over = file.rotated and not file.is_open and not file.trouble
            if (file.refused and file.rotated) or (over and not self._awaits_successor(file)):
                self._forget(file)
            if file.trouble or file.refused or over:
                continue
            before, turn = file.read_to, left > 0
            yield from self._read(file, left)
            left = max(0, left - max(0, file.read_to - before))
            if file.ended and not self._awaits_successor(file):
                self._forget(file)
            elif file.ended:
                file.close()
            elif turn and not left and not file.behind and not file.rotated:
                # It grows so fast that the others would wait too long.
                self._files.remove(file)
                self._files.append(file)

    def close(self) -> None:
        """Close the files."""
        self._watch.close()
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
            if file.log.doubtful and file.at_end:
                self._report_trouble(file.path, unlike(file.log))
            elif current and self._troubles.pop(file.path, ""):
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
        reason = why(error, file.path) if isinstance(error, OSError) else error
        sentence = str(error) if isinstance(error, SourceError) else f"cannot read {file.path}: {reason}"
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
        present = self._files_there()
        self._present = {identity(stat) for _, stat in present}
        for path in self._unknown(present):
            former = next((each for each in self._files if each.path == path and each.missing), None)
            if former is None and self._files and self._awaits_successor(self._files[-1]):
                self._follow_succession(self._files[-1])
            elif former is None:
                self._open(FollowedFile(path, self._parser), len(self._files))
            elif self._can_read(path) and not self._try(former, former.continues):
                self._follow_succession(former)
        for file in [each for each in self._files if each.missing]:
            self._look_for_missing(file)
        last = self._files[-1] if self._files else None
        if last is not None and (self._awaits_successor(last) or (last.missing and last.is_open)):
            self._look_for_successors(last)
        self._close_quiet_files()
        self._next_look = started + (time.monotonic() - started) / LOOKING

    def _to_watch(self) -> tuple[set[Path], set[Path]]:
        """The files, and all folders in which there may be others; without folders, changes cannot be known."""
        path = Path(self._argument)
        if glob.has_magic(str(path.parent)) or "**" in path.name:
            return set(), set()
        files = {each.path for each in self._files}
        links = {Path(os.path.realpath(each)) for each in files if each.is_symlink()}
        folders = {path if path.is_dir() else path.parent, *(each.parent for each in files)}
        return files, {each.resolve() for each in folders} | {each.parent for each in links}

    def _files_there(self) -> list[tuple[Path, os.stat_result]]:
        """The files that there are now. If there are none for some seconds, say so: during a rotation it is so for a
        moment."""
        try:
            found = files_of(self._argument, compressed=False)
        except SourceError as error:
            found, trouble = [], str(error)
        else:
            a_file = any(str(each.path) == self._argument for each in self._files)
            trouble = "" if found else f"cannot read {self._argument}: there is no log"
            if a_file and Path(self._argument).is_dir():
                trouble = f"cannot read {self._argument}: it is a directory now"
        if not trouble:
            if self._trouble_said:
                self._say(f"reading {self._argument} again")
            self._trouble, self._trouble_said = "", False
            return self._own(found)
        if not self._trouble:
            self._trouble, self._trouble_since = trouble, time.monotonic()
        elif not self._trouble_said and time.monotonic() - self._trouble_since > SEARCH:
            self._say(trouble)
            self._trouble_said = True
        return []

    def _own(self, found: list[tuple[Path, os.stat_result]]) -> list[tuple[Path, os.stat_result]]:
        """Those of some files that are not of a source before this one."""
        others = self._of_others()
        taken = set[Identity]().union(*others.values())
        own = [(path, stat) for path, stat in found if identity(stat) not in taken]
        all_taken = bool(found) and not own
        if all_taken and not self._all_taken:
            theirs = {identity(stat) for _, stat in found}
            names = [name for name, ids in others.items() if ids & theirs]
            self._say(f"{self._argument}: all of it is read as a part of {' and '.join(names)}")
        self._all_taken = all_taken
        return own

    def _of_others(self) -> dict[str, set[Identity]]:
        """The files of the sources before this one, by source."""
        return {name: identities_of(name) for name in self._before}

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
        if str(former.path) != self._argument:
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
            if former.offset and not former.rotated:
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

    def _awaits_successor(self, file: FollowedFile) -> bool:
        """Whether a file was rotated, and no other was seen under its name yet: what follows is found by it."""
        return file.rotated and str(file.path) == self._argument and file is self._files[-1]

    def _find_rotated(self) -> None:
        """Go on reading the rotated files that the previous run had not read to their end."""
        for file in [each for each in self._files if each.rotated]:
            if self._awaits_successor(file):
                self._follow_succession(file)
                continue
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
        if str(file.path) != self._argument and (file.missing_for > FORGET or file.position().empty):
            self._forget(file)

    def _look_for_successors(self, last: FollowedFile) -> None:
        """Look for files that had a single file's name after it, and lost it before they were seen. Without a change of
        the folder there are none."""
        if str(last.path) != self._argument:
            return
        try:
            changed = last.path.parent.stat().st_mtime
        except OSError:
            return
        if time.time() - changed < SEARCH or changed != self._searched:
            self._searched = changed
            found = succession(last.position())
            found.close()
            if found.after:
                self._follow_succession(last)

    def _close_quiet_files(self) -> None:
        """Close the files that have not changed for longest, if too many are open."""
        opened = sorted((each for each in self._files if each.is_open), key=lambda each: each.changed)
        for file in opened[: max(0, len(opened) - MAX_OPEN)]:
            if file.at_end:
                file.close()
