"""The files that an argument names: each file once, however many names it has."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from stat import S_ISREG

from bouncemeter_exporter.sources.lines import COMPRESSED, SourceError, open_log, read_errors
from bouncemeter_exporter.sources.permission import closed_folder, why
from bouncemeter_exporter.sources.rotation import Identity, identity, rotated, unrotated

__all__ = ["file_system", "files_of", "identities_of", "log_files", "mounted_alone"]

MOUNTS = Path("/proc/self/mountinfo")
"""The mounts of this process; see proc(5). The fifth field is where each is, the first after a dash what it is."""

COMPARED = 65_536
"""Bytes at the beginning of a log and of a compressed file of its name that are equal if one is a copy of the other."""


def log_files(arguments: Iterable[str], say: Callable[[str], None]) -> list[Path]:
    """The files that arguments name, compressed ones too, but no compressed copy of a log that is there as well.

    Args:
        arguments: Paths of files or directories, and glob patterns.
        say: Called with a sentence about each copy that is left out.

    Raises:
        SourceError: There is no such file.
    """
    named = [each for argument in arguments for each in files_of(argument, compressed=True)]
    paths = {path for path, _ in _once(named)}
    copies = {path for path in paths if path.suffix in COMPRESSED and _is_copy(path, paths)}
    for path in sorted(copies):
        say(f"{path} is a copy of {path.with_suffix('')}: left out")
    return sorted(paths - copies)


def files_of(argument: str, *, compressed: bool) -> list[tuple[Path, os.stat_result]]:
    """The files that an argument names, oldest change first, each with its `stat` result: the file itself, or those of
    a directory or pattern.

    Args:
        argument: A path or a glob pattern.
        compressed: Whether to include compressed files of a directory or pattern.

    Raises:
        SourceError: There is no such file.
    """
    path = Path(argument)
    try:
        if not argument:
            raise SourceError("a source has no name")
        if path.is_dir():
            found: Iterable[Path] = [Path(each.path) for each in os.scandir(path) if not each.name.startswith(".")]
        elif path.exists():
            return [(path, path.stat())]
        elif glob.has_magic(argument):
            found = list(_matching(argument))
            if not found and closed_folder(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        elif closed_folder(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            raise SourceError(f"cannot read {argument}: there is no such file or directory")
        return list(_once(_regular(each for each in found if compressed or each.suffix not in COMPRESSED)))
    except OSError as error:
        raise SourceError(f"cannot read {argument}: {why(error, path)}") from error


def identities_of(argument: str) -> set[Identity]:
    """The files that belong to an argument: those that it names, and rotated ones of a single file."""
    try:
        found = files_of(argument, compressed=False)
    except SourceError:
        found = []
    path = Path(argument)
    if not (path.is_dir() or glob.has_magic(argument)):
        names = {each for name in (path, Path(os.path.realpath(path))) for each in (name, unrotated(name))}
        found += _regular(each for name in names for each in rotated(name))
    return {identity(stat) for _, stat in found}


def mounted_alone(path: Path) -> bool:
    """Whether a file is mounted by itself, as into a container: then a rotation cannot be seen (Linux alone tells)."""
    return os.path.realpath(path) in _mounts() and not path.is_dir()


def file_system(path: Path) -> str:
    """The type of the file system on which a path is, such as `ext4`; empty if that is unknown (Linux alone tells)."""
    mounts = _mounts()
    return next((mounts[each] for each in map(str, (path, *path.parents)) if each in mounts), "")


def _mounts() -> dict[str, str]:
    """The types of the mounted file systems, by where each is."""
    try:
        mounts = MOUNTS.read_bytes()
    except OSError:
        return {}
    found = {}
    for line in mounts.splitlines():
        own, _, other = line.partition(b" - ")
        # A blank, for example, is written as \\040.
        point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), own.split(b" ")[4])
        found[os.fsdecode(point)] = other.split(b" ")[0].decode("ascii", "replace")
    return found


def _matching(pattern: str) -> Iterator[Path]:
    """The files that match a pattern. `**` follows no symbolic links: they may lead round in a circle."""
    if "**" not in pattern:
        yield from map(Path, glob.iglob(pattern))  # noqa: PTH207 - may be absolute
        return
    whole = Path(pattern, "*") if pattern.endswith("**") else Path(pattern)
    for each in Path(whole.anchor).glob(str(whole.relative_to(whole.anchor))):
        hidden = {part for part in each.parts if part.startswith(".")}
        if hidden <= set(whole.parts):
            yield each


def _regular(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """The regular files among some, with their `stat` results."""
    for each in paths:
        try:
            stat = each.stat()
        except OSError:  # it has just gone, or is a dangling link
            continue
        if S_ISREG(stat.st_mode):
            yield each, stat


def _once(files: Iterable[tuple[Path, os.stat_result]]) -> list[tuple[Path, os.stat_result]]:
    """Each file once, oldest change first: under its own name rather than that of a link to it."""
    found: dict[Identity, tuple[Path, os.stat_result]] = {}
    for path, stat in sorted(files, key=lambda each: (each[0].is_symlink(), each[0])):
        found.setdefault(identity(stat), (path, stat))
    return sorted(found.values(), key=lambda each: (each[1].st_mtime_ns, each[0].name))


def _is_copy(packed: Path, paths: set[Path]) -> bool:
    """Whether a compressed file has, as far as it can be read, the content of a log of its name."""
    plain = packed.with_suffix("")
    if plain not in paths:
        return False
    return _beginning(plain).startswith(_beginning(packed))


def _beginning(path: Path) -> bytes:
    """A log's first bytes, or as many of them as can be read."""
    content = b""
    try:
        with closing(open_log(path)) as stream:
            while len(content) < COMPARED and (block := stream.read1(COMPARED - len(content))):  # type: ignore[attr-defined]
                content += block
    except read_errors():
        pass
    return content
