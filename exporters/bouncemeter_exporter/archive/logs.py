"""The logs of an archive: found by path or URL, divided into parts, and read part by part.

A path is one of this machine, or of a file system that is mounted here. fsspec reads a URL, such as
`s3a://bucket/logs/*`, with the package that knows its kind (s3fs, gcsfs, adlfs), without Hadoop.
"""

from __future__ import annotations

import glob
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bouncemeter.blocks import Block
from bouncemeter.plugin import BlockReader, parser

from bouncemeter_exporter.sources.lines import (
    COMPRESSED,
    SourceError,
    decompressed,
    open_log,
    read_part,
    read_text,
    utf_16,
)
from bouncemeter_exporter.sources.listing import log_files
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError

__all__ = ["PART", "Part", "find", "read"]

PART = 134_217_728
"""Bytes of a log that are read at a time, at most, where its format allows to begin in the middle."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a log.

    Attributes:
        name: The log's path or URL.
        mta: Its format; if None, it is detected.
        begin, end: The part has the lines that begin at byte `begin` or later, and before byte `end`.
        last_change: When the log last changed, in seconds since 1970 UTC: no line is later.
        begun: The first time in it, in seconds since 1970 UTC, if that is known.
        named: Whether it was named itself, and not by a pattern or a directory: its format must be known.
    """

    name: str
    mta: str | None
    begin: int
    end: int
    last_change: float
    begun: float | None
    named: bool

    @property
    def folder(self) -> str:
        """The folder of the log: what stands for the host in lines that name none."""
        return str(Path(self.name).resolve().parent) if "://" not in self.name else self.name.rpartition("/")[0]


def find(name: str, mta: str | None, size: int, say: Callable[[str], None]) -> list[Part]:
    """The parts of the logs that a path or a URL names: a file, a directory or a pattern.

    Args:
        name: The path or the URL.
        mta: The logs' format; if None, each log's format is detected.
        size: Bytes of a part, at most.
        say: Called with a sentence about each log that is left out.

    Raises:
        SourceError: There is no such log, or it cannot be read.
        ParserNotFoundError: There is no such format.
    """
    if mta is not None:
        parser(mta)
    logs = _by_url(name) if "://" in name else _by_path(name, say)
    return [part for log, length, last_change in logs for part in _parts(log, length, last_change, name, mta, size)]


def _by_path(name: str, say: Callable[[str], None]) -> list[tuple[str, int, float]]:
    """The logs that a path names, each with its size and the time of its last change."""
    return [(str(path), path.stat().st_size, path.stat().st_mtime) for path in log_files([name], say)]


def _by_url(name: str) -> list[tuple[str, int, float]]:
    """The same for a URL."""
    import fsspec  # noqa: PLC0415 - not needed for files of this machine

    files, path = fsspec.core.url_to_fs(name)
    found = files.find(path, maxdepth=1) if files.isdir(path) else files.glob(path)
    if not found:
        raise SourceError(f"cannot read {name}: there is no such file or directory")
    logs = []
    for each in found:
        try:
            changed = files.modified(each).timestamp()
        except NotImplementedError:
            changed = time.time()
        logs.append((name.partition("://")[0] + "://" + files._strip_protocol(each), files.size(each), changed))
    return logs


def _parts(log: str, length: int, last_change: float, name: str, mta: str | None, size: int) -> Iterator[Part]:
    named = name == log or not (glob.has_magic(name) or Path(name).is_dir() or "://" in name)
    begun = None
    if length > size and PurePosixPath(log).suffix not in COMPRESSED:
        mta, begun, divisible = _head(log, mta, last_change)
        if divisible:
            number = -(-length // size)
            borders = [length * index // number for index in range(number)]
            for begin, end in zip(borders, [*borders[1:], length], strict=True):
                yield Part(log, mta, begin, end, last_change, begun, named)
            return
    yield Part(log, mta, 0, sys.maxsize, last_change, begun, named)


def _head(log: str, mta: str | None, last_change: float) -> tuple[str | None, float | None, bool]:
    """A log's format and its first time, by its first block, and whether one may begin to read it in the middle."""
    reader = LogReader(log, parser(mta) if mta else None, clock=lambda: last_change, patient=True)
    with closing(_opened(log)) as stream:
        wide = utf_16(stream.read(4)) is not None
        stream.seek(0)
        text = next(islice(read_text(stream, log), 1))[0]
    try:
        entries = [*reader.read(text), *reader.end()]
    except UnknownFormatError:
        return mta, None, False
    known = reader.parser
    begun = next((entry.time for entry in entries if entry.time is not None), None)
    return known.name if known else None, begun, known is not None and not wide and _may_begin_anywhere(known.name)


def _may_begin_anywhere(mta: str) -> bool:
    return isinstance(parser(mta).reader(), BlockReader)


def _opened(log: str) -> BinaryIO:
    if "://" not in log:
        return open_log(Path(log))
    import fsspec  # noqa: PLC0415 - not needed for files of this machine

    file: BinaryIO = fsspec.open(log, "rb").open()
    return decompressed(file, log) if PurePosixPath(log).suffix in COMPRESSED else file


def read(part: Part, say: Callable[[str], None]) -> Iterator[Block]:
    """Read a part, a block at a time.

    Args:
        part: The part.
        say: Called with a sentence if the log's format is not known, and nobody named the log itself.

    Raises:
        SourceError: The log cannot be read.
    """
    log = LogReader(part.name, parser(part.mta) if part.mta else None, clock=lambda: part.last_change)
    try:
        with closing(_opened(part.name)) as stream:
            for text in _texts(part, stream):
                yield log.read(text)
            yield log.end()
    except UnknownFormatError as error:
        if part.named:
            raise
        say(str(error))


def _texts(part: Part, stream: BinaryIO) -> Iterator[str]:
    if part.begin or part.end < sys.maxsize:
        return read_part(stream, part.begin, part.end, part.name)
    return (text for text, _ in read_text(stream, part.name))
