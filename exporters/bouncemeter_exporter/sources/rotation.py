"""Knowing a file again: by its content, under whatever name and compression a rotation has left it.

An inode number is used again, a name passes to the next file, and a copy has neither; what a file begins with, and
what stands just before the place that was read to, stay.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bouncemeter_exporter.sources.lines import COMPRESSED, open_log, read_errors

__all__ = [
    "HEAD",
    "TAIL",
    "Found",
    "Identity",
    "Position",
    "at_beginning",
    "begins_like",
    "digest",
    "filled_and_rotated",
    "identity",
    "read_head",
    "resume",
    "rotated",
    "succession",
    "unrotated",
]

ATTEMPTS = 40
PAUSE = 0.025
"""How often, and after how many seconds, files are looked for again while their names change."""

HEAD = 1024
TAIL = 256
"""Bytes of a file's beginning, and before the place read to, by which it is known again."""

_NUMBER = r"[.-][0-9][0-9TZ._-]*"
_ROTATED = re.compile(rf"(?:{_NUMBER}|\.old)?(?:\.(?:gz|bz2|xz|zst))?")
"""What rotation puts behind a file's name: `.1`, `.2.gz`, `-20261125`, `-20261125-1764032400.xz`."""


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a file was read, and how to know it again.

    Attributes:
        path: Its name.
        real: The file that the name led to.
        device, inode: The file's own.
        offset: Bytes read, as whole lines.
        head_size, head: How many bytes it is known by at its beginning, and their digest.
        tail_size, tail: The same for what stands just before `offset`.
        changed: Its last change, in nanoseconds since 1970 UTC; if it was empty, when it was seen so last.
        mta: Its format, if found.
        overlong: `offset` is within a line of which the beginning was given already.
        memory: What the reader remembers of earlier lines.
        rotated: Its name belongs to another file now: it is read to its end.
    """

    path: str
    real: str
    device: int
    inode: int
    offset: int
    head_size: int
    head: str
    tail_size: int
    tail: str
    changed: int
    mta: str | None = None
    overlong: bool = False
    memory: str | None = None
    rotated: bool = False

    @property
    def empty(self) -> bool:
        """Whether the file had nothing by which it could be known again."""
        return self.head_size == 0 and self.offset == 0

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Position:
        """Read what `str` gave.

        Raises:
            ValueError: The text is something else.
        """
        try:
            return Position(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a position: {error}") from error


Identity = tuple[int, int]
"""A file's device and inode: which file it is, as long as it is there."""


def identity(stat: os.stat_result) -> Identity:
    """Which file it is that the file system tells of."""
    return stat.st_dev, stat.st_ino


def digest(content: bytes) -> str:
    """A short name of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Found(NamedTuple):
    """A file that was opened where it is to be read on.

    Attributes:
        path: Its name now.
        stream: Opened at the offset.
        head, tail: The bytes that it is known by.
        offset: Where the stream is.
        identity: The file's device and inode.
    """

    path: Path
    stream: BinaryIO
    head: bytes
    tail: bytes
    offset: int
    identity: Identity

    @staticmethod
    def of(path: Path, stream: BinaryIO, head: bytes, tail: bytes, offset: int) -> Found:
        """With the file's own numbers."""
        return Found(path, stream, head, tail, offset, identity(path.stat()))


def read_head(path: Path) -> bytes:
    """A file's first bytes.

    Raises:
        SourceError: It cannot be opened.
        OSError, EOFError: It cannot be read, or its compression is broken.
    """
    with closing(open_log(path)) as stream:
        return stream.read(HEAD)


def begins_like(position: Position, path: Path) -> bool:
    """Whether a file begins as that of a position does. Every file begins as an empty one does: that tells nothing."""
    head = read_head(path)[: position.head_size]
    return position.head_size > 0 and digest(head) == position.head


def resume(position: Position, path: Path) -> Found | None:
    """A file opened where a position says that it was read to; None if it is not the file of that position.

    Raises:
        SourceError: It cannot be opened.
        OSError, EOFError: It cannot be read, or its compression is broken.
    """
    same = (position.device, position.inode) == identity(path.stat())
    if not (begins_like(position, path) if position.head_size else same):
        return None
    stream = open_log(path)
    stream.seek(position.offset - position.tail_size)
    tail = stream.read(position.tail_size)
    if digest(tail) == position.tail:
        return Found.of(path, stream, read_head(path), tail, position.offset)
    stream.close()
    return None


class Succession(NamedTuple):
    """What has to be read of a file that lost its name, and of those that had the name since.

    Attributes:
        former: The file itself, where it is now.
        after: Those that had its name after it and lost it again, oldest first, at their beginning. If the file itself
            is gone, those that changed since it was seen last.
        current: The one that has its name now, at its beginning.
    """

    former: Found | None
    after: list[Found]
    current: Found | None

    def close(self) -> None:
        """Let go of all of them."""
        for each in (self.former, self.current, *self.after):
            if each is not None:
                each.stream.close()


def succession(position: Position) -> Succession:
    """Find a file that a rotation took away, and its successors. All are opened while no name changes, for a
    rotation may be going on."""
    folders = {Path(position.path).parent, Path(position.real).parent}
    for _ in range(ATTEMPTS):
        before = _names(folders)
        found = _succession(position)
        if _names(folders) == before:
            return found
        found.close()
        time.sleep(PAUSE)
    return _succession(position)


def _names(folders: set[Path]) -> set[tuple[str, int]]:
    with suppress(OSError):
        return {(each.path, each.inode()) for folder in folders for each in os.scandir(folder)}
    return set()


def _succession(position: Position) -> Succession:
    path, real = Path(position.path), Path(position.real)
    names = dict.fromkeys((path, unrotated(path), real, unrotated(real)))
    candidates = list(dict.fromkeys([*(each for name in names for each in rotated(name)), real]))
    former, after = None, []
    # An empty file is not known again, for its inode may be another's by now: what was filled since may have been it.
    for number, each in enumerate(candidates if not position.empty else ()):
        with suppress(*read_errors()):
            former = resume(position, each)
        if former is not None:
            after = candidates[number + 1 :]
            break
    else:
        after = [each for each in candidates if _changed(each) > position.changed]
    current = _readable(path)
    taken = {each.identity for each in (former, current) if each is not None}
    others = []
    for opened in [_readable(each) for each in after if each != real]:
        if opened is not None and opened.identity not in taken:
            others.append(opened)
        elif opened is not None:
            opened.stream.close()
    return Succession(former, others, current)


def _readable(path: Path) -> Found | None:
    """A file opened at its beginning, if it can be."""
    with suppress(*read_errors()):
        return at_beginning(path)
    return None


def at_beginning(path: Path) -> Found:
    """A file opened at its beginning.

    Raises:
        SourceError: It cannot be opened.
        OSError, EOFError: It cannot be read, or its compression is broken.
    """
    head = read_head(path)
    return Found.of(path, open_log(path), head, b"", 0)


def filled_and_rotated(position: Position, path: Path) -> bool:
    """Whether a file that was empty may have been filled and rotated since, so that another is at a path now. Its inode
    does not tell: it stays when the content is copied, and is used again when the file goes."""
    if not position.empty:
        return False
    found = succession(position)
    found.close()
    return any(each.path != path for each in found.after)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def rotated(path: Path) -> list[Path]:
    """The files that a rotation may have made of a file, oldest first: those beside it with its name and a number or
    date. One that is being compressed is named once, uncompressed."""
    found = {each.name: each for each in _beside(path)}
    for name in list(found):
        if Path(name).suffix in COMPRESSED and Path(name).stem in found:
            del found[name]
    numbers = {name: re.search(r"\.([0-9]{1,5})(?:\.[a-z0-9]+)?$", name) for name in found}
    if numbers and all(numbers.values()):
        return sorted(found.values(), key=lambda each: -int((numbers[each.name] or [0, 0])[1]))
    return sorted(found.values(), key=lambda each: (_changed(each), each.name))


def unrotated(path: Path) -> Path:
    """The name that a file had before rotation, if its name tells: the files of a directory are rotated too."""
    return path.with_name(re.sub(rf"(?<=.){_NUMBER}$", "", path.name) or path.name)


def _beside(path: Path) -> Iterator[Path]:
    try:
        names = list(path.parent.iterdir())
    except OSError:
        return
    for each in names:
        if each.name == path.name:
            continue
        # mail.log-20261125 and mail.log.1.gz; with logrotate's `extension .log`, mail-20261125.log
        ending = each.name.removeprefix(path.name) if each.name.startswith(path.name) else None
        if ending is None and path.suffix and each.name.startswith(path.stem) and path.suffix in each.name:
            ending = each.name.removeprefix(path.stem).replace(path.suffix, "", 1)
        if ending and _ROTATED.fullmatch(ending) and each.is_file():
            yield each
