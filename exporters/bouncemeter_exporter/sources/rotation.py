"""Recognises a file by its content, whatever name and compression a rotation has given it.

Inode numbers are reused, names pass to the next file, and a copy has neither. What stays are the file's first bytes,
and the bytes just before the place where reading stopped.
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
"""How often to look for files again while their names change, and how many seconds to wait in between."""

HEAD = 1024
TAIL = 256
"""Bytes that identify a file: at its beginning, and just before its offset."""

_NUMBER = r"[.-][0-9][0-9TZ._-]*"
_ROTATED = re.compile(rf"(?:{_NUMBER}|\.old)?(?:\.(?:gz|bz2|xz|zst))?")
"""What rotation appends to a file's name: `.1`, `.2.gz`, `-20261125`, `-20261125-1764032400.xz`."""


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a file has been read, and how to recognise it.

    Attributes:
        path: Its name.
        real: The file that the name led to.
        device, inode: The file's device and inode numbers.
        offset: Bytes read, as whole lines.
        head_size, head: How many bytes at its beginning identify it, and their digest.
        tail_size, tail: The same for the bytes just before `offset`.
        changed: Its last change, in nanoseconds since 1970 UTC; if empty, when it was seen so before the last look.
        mta: Its format, if found.
        overlong: `offset` is within a line whose beginning was returned already.
        memory: What the reader remembers of earlier lines.
        rotated: Another file has its name now: this one is read to its end.
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
        """Whether the file had no content to recognise it by."""
        return self.head_size == 0 and self.offset == 0

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Position:
        """Parse what `str` returned.

        Raises:
            ValueError: The text is not a position.
        """
        try:
            return Position(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a position: {error}") from error


Identity = tuple[int, int]
"""A file's device and inode, which identify it as long as it exists."""


def identity(stat: os.stat_result) -> Identity:
    """The identity of the file that a `stat` result describes."""
    return stat.st_dev, stat.st_ino


def digest(content: bytes) -> str:
    """A short digest of some bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Found(NamedTuple):
    """A file that was opened where reading goes on.

    Attributes:
        path: Its name now.
        stream: The file, opened at the offset.
        head, tail: The bytes that identify it.
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
        """A `Found` with the identity of the file at the path."""
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
    """Whether a file begins like the file of a position. An empty beginning proves nothing: it fits every file."""
    head = read_head(path)[: position.head_size]
    return position.head_size > 0 and digest(head) == position.head


def resume(position: Position, path: Path) -> Found | None:
    """Open a file at a position's offset; None if it is not the file of that position.

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
    """What is left to read of a file that lost its name, and of those that had the name since.

    Attributes:
        former: The file itself, where it is now.
        after: The files that had its name after it and lost it again, oldest first, opened at their beginning. If the
            file itself is gone, those that changed after it was last seen.
        current: The file that has its name now, opened at its beginning.
    """

    former: Found | None
    after: list[Found]
    current: Found | None

    def close(self) -> None:
        """Close all of them."""
        for each in (self.former, self.current, *self.after):
            if each is not None:
                each.stream.close()


def succession(position: Position) -> Succession:
    """Find a file that was rotated away, and its successors. A rotation may be running, so the search is repeated
    until no name changes during it."""
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
    candidates = _each_once([*(each for name in names for each in rotated(name)), real])
    former, after = None, []
    # An empty file cannot be recognised, as its inode may be reused: any file filled since may have been it.
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
    # Where the file was last may be the name of another rotated file now.
    for opened in [_readable(each) for each in after if each != real or unrotated(real) != real]:
        if opened is not None and opened.identity not in taken:
            others.append(opened)
        elif opened is not None:
            opened.stream.close()
    return Succession(former, others, current)


def _each_once(paths: list[Path]) -> list[Path]:
    """The files among some paths, each once: in a folder that is named by a link, or relatively, each has two names."""
    found: dict[Identity, Path] = {}
    for each in paths:
        with suppress(OSError):
            found.setdefault(identity(each.stat()), each)
    return list(found.values())


def _readable(path: Path) -> Found | None:
    """A file opened at its beginning; None if it cannot be read."""
    with suppress(*read_errors()):
        return at_beginning(path)
    return None


def at_beginning(path: Path) -> Found:
    """Open a file at its beginning.

    Raises:
        SourceError: It cannot be opened.
        OSError, EOFError: It cannot be read, or its compression is broken.
    """
    head = read_head(path)
    return Found.of(path, open_log(path), head, b"", 0)


def filled_and_rotated(position: Position, path: Path) -> bool:
    """Whether a file that was empty may have been filled and rotated since, so that another is at a path now. Its inode
    proves nothing: it stays the same when the content is copied, and is reused when the file is deleted."""
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
    """The files that a rotation may have made from a file, oldest first: those in its folder with its name and a number
    or date. One that is being compressed is listed once, uncompressed."""
    found = {each.name: each for each in _rotated_siblings(path)}
    for name in list(found):
        if Path(name).suffix in COMPRESSED and Path(name).stem in found:
            del found[name]
    numbers = {name: re.search(r"\.([0-9]{1,5})(?:\.[a-z0-9]+)?$", name) for name in found}
    if numbers and all(numbers.values()):
        return sorted(found.values(), key=lambda each: -int((numbers[each.name] or [0, 0])[1]))
    return sorted(found.values(), key=lambda each: (_changed(each), each.name))


def unrotated(path: Path) -> Path:
    """The name that a file had before rotation, if its name shows one: a directory also holds rotated files."""
    return path.with_name(re.sub(rf"(?<=.){_NUMBER}$", "", path.name) or path.name)


def _rotated_siblings(path: Path) -> Iterator[Path]:
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
