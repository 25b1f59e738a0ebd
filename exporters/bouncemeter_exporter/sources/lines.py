"""Turns bytes into lines: any encoding, any length, compressed or not.

A line ends at a line feed. Bytes that are not UTF-8 are kept as `\\xNN`, so that one bad byte never loses a line. What
PowerShell exports in UTF-16 is read as well, from its beginning to its end.
A line longer than `MAX_LINE` is cut there: what matters is at its beginning.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from bouncemeter_exporter.sources.permission import why

__all__ = [
    "COMPRESSED",
    "MAX_LINE",
    "STDIN",
    "Lines",
    "SourceError",
    "decompressed",
    "one_line",
    "open_log",
    "printable",
    "read_errors",
    "read_part",
    "read_text",
    "utf_16",
]

MAX_LINE = 65_536
"""Bytes of a line that are read; the rest is dropped."""

BLOCK = 1_048_576
"""Bytes read at a time: enough that much mail arrives and leaves within them."""

STDIN = "-"
"""The name of standard input."""

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
"""File name endings of compressed files."""


class SourceError(Exception):
    """A log cannot be read. Its text is a sentence for the user."""


class Lines:
    """Cuts a stream of bytes into whole lines, holding back an unfinished last line."""

    def __init__(self, *, overlong: bool = False) -> None:
        self._rest = b""
        self._overlong = overlong

    def feed(self, block: bytes) -> str:
        """The lines that the next block of bytes completes, each with its line feed."""
        content = self._rest + block
        if b"\0" in block and not self._overlong:
            content = _NULS.sub(b"", content)
        ended, line_feed, last = content.rpartition(b"\n")
        text = self._text(ended) if line_feed else ""
        if line_feed and self._overlong:
            text = text.partition("\n")[2]  # drop the tail of a line whose beginning was returned already
            self._overlong = False
        if len(last) > MAX_LINE:
            if not self._overlong:
                text += self._line(last)
            self._overlong, last = True, b""
        self._rest = last
        return text

    def end(self) -> str:
        """The last line, if the stream ended without a line feed."""
        rest, self._rest = self._rest, b""
        return self._line(rest) if rest and not self._overlong else ""

    @property
    def held(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._rest)

    @property
    def overlong(self) -> bool:
        """Whether what comes next is the tail of a line whose beginning was returned already."""
        return self._overlong

    def _text(self, ended: bytes) -> str:
        """Decode whole lines, all at once; one by one if any is too long."""
        if _has_overlong(ended):
            return "".join(map(self._line, ended.split(b"\n")))
        if b"\r" in ended:
            ended = ended.replace(b"\r\n", b"\n").removesuffix(b"\r")
        return ended.decode("utf-8", "backslashreplace") + "\n"

    @staticmethod
    def _line(line: bytes) -> str:
        return line[:MAX_LINE].removesuffix(b"\r").decode("utf-8", "backslashreplace") + "\n"


_NULS = re.compile(rb"(?m)^\0+")
"""What a crash of the machine may leave before a line: a hole in the file."""


def _has_overlong(lines: bytes) -> bool:
    """Whether any of the lines is longer than `MAX_LINE`."""
    start = 0
    while len(lines) - start > MAX_LINE:
        end = lines.rfind(b"\n", start, start + MAX_LINE + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def one_line(text: str) -> str:
    """A message as one line: its line feeds are escaped, since they would begin other lines."""
    return text.replace("\n", "\\n") if "\n" in text else text


def printable(name: str) -> str:
    """A file's name as text: bytes of it that are not UTF-8 become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def open_log(path: Path, *, any_kind: bool = False) -> BinaryIO:
    """Open a log, and decompress it if its name ends in .gz, .bz2, .xz or .zst.

    Args:
        path: The file.
        any_kind: Whether it may be a pipe or a device, which may never answer or never end.

    Raises:
        SourceError: The file cannot be opened, or is not of the kind.
    """
    try:
        if not any_kind and not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"cannot read {path}: it is no regular file")
        if path.suffix in COMPRESSED:
            return decompressed(path, str(path))
        return open(path, "rb", opener=None if any_kind else _open_at_once)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {why(error, path)}") from error


def decompressed(file: Path | BinaryIO, name: str) -> BinaryIO:
    """Open a compressed file, or one that is open.

    Args:
        file: The file.
        name: Its name, whose ending says how it is compressed.

    Raises:
        SourceError: The extra that reads it is missing.
        OSError: The file cannot be opened.
    """
    match Path(name).suffix:
        case ".gz":
            return cast("BinaryIO", gzip.open(file))
        case ".bz2":
            return cast("BinaryIO", bz2.open(file))
        case ".xz":
            return cast("BinaryIO", lzma.open(file))
        case _:
            return _open_zstd(file, name)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for a writer: it may have become a pipe since it was looked at."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _open_zstd(file: Path | BinaryIO, name: str) -> BinaryIO:
    try:
        import zstandard  # noqa: PLC0415 - an extra, and only for such files
    except ImportError:
        raise SourceError(f"cannot read {name}: install bouncemeter[zstd] to read .zst files") from None
    return cast("BinaryIO", zstandard.open(file, "rb"))


def read_errors() -> tuple[type[Exception], ...]:
    """The exceptions that opening and reading a log raise when it or its compression is broken."""
    zstandard = sys.modules.get("zstandard")
    more = [zstandard.ZstdError] if zstandard else []
    return (SourceError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, *more)


def utf_16(head: bytes) -> str | None:
    """The name of the encoding if a log's first bytes are UTF-16: by the byte-order mark, or by two characters of which
    one byte is zero."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = bytes(byte and 1 for byte in head[:4])
    return {b"\1\0\1\0": "utf-16-le", b"\0\1\0\1": "utf-16-be"}.get(zeros)


def read_text(stream: BinaryIO | io.BufferedIOBase, name: str) -> Iterator[tuple[str, int]]:
    """The lines of a stream to its end, a block at a time, with the number of bytes read for each block.

    Args:
        stream: What to read; bytes are counted after decompression.
        name: The log's name, for errors.

    Raises:
        SourceError: The stream or its compression is broken.
    """
    lines, decoder, begun = Lines(), None, False
    while True:
        try:
            block = stream.read1(BLOCK) if hasattr(stream, "read1") else stream.read(BLOCK)
            if not begun and 0 < len(block) < 4:
                block += stream.read(4 - len(block))
        except read_errors() as error:
            raise SourceError(f"cannot read the rest of {name}: {error}") from error
        if not begun and (encoding := utf_16(block)) is not None:
            decoder = codecs.getincrementaldecoder(encoding)("backslashreplace")
        begun, size = True, len(block)
        if decoder is not None:
            block = decoder.decode(block, final=not size).encode()
        text = lines.feed(block)
        if not size:
            yield text + lines.end(), 0
            return
        yield text, size


def read_part(stream: BinaryIO | io.BufferedIOBase, begin: int, end: int, name: str) -> Iterator[str]:
    """The lines of a stream that begin at byte `begin` or later, and before byte `end`, a block at a time.

    Args:
        stream: What to read; it can seek.
        begin, end: The part.
        name: The log's name, for errors.

    Raises:
        SourceError: The stream or its compression is broken.
    """
    lines, left = Lines(), end - begin
    try:
        if begin:
            stream.seek(begin - 1)
            while (skipped := stream.readline(MAX_LINE)) and not skipped.endswith(b"\n"):
                left -= len(skipped)
            left -= len(skipped) - 1
        if left <= 0:  # no line begins here
            return
        block = b""
        while left > 0 and (block := stream.read(min(BLOCK, left))):
            left -= len(block)
            yield lines.feed(block)
        if left <= 0 and not block.endswith(b"\n"):
            while (more := stream.readline(MAX_LINE)) and not more.endswith(b"\n"):
                yield lines.feed(more)
            yield lines.feed(more)
        yield lines.end()
    except read_errors() as error:
        raise SourceError(f"cannot read the rest of {name}: {error}") from error
