"""The systemd journal, as journalctl tells it: from a cursor on, which is kept with what was counted.

An entry becomes the line that syslog would have written of it, for the parsers of such lines.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser

from bouncemeter_exporter.sources.lines import BLOCK, MAX_LINE, SourceError, one_line
from bouncemeter_exporter.sources.source import LineCounts, Positions
from bouncemeter_exporter.sources.stream import TURN, Stream

__all__ = ["PREFIX", "Journal", "lines_of"]

PREFIX = "journal:"
"""What a source's name begins with."""

FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,_COMM,_HOSTNAME,_PID,SYSLOG_PID,_SOURCE_REALTIME_TIMESTAMP"

MAX_ENTRY = 4_194_304
"""Bytes of an entry's JSON; what is longer is passed over."""

PAUSE = 5.0
"""Seconds before journalctl is started again after it ended."""


class Journal(Stream):
    """Entries of a journal; see `bouncemeter_exporter.sources.source.Source`.

    Args:
        name: `journal:` for all of this machine's, `journal:UNIT[,UNIT]`, or `journal:/DIRECTORY` or `/FILE`.
        parser: The format; without it, it is detected.
        from_start: Read entries that are there at the first start.
        say: Told, in a sentence, what the user should know.
        positions: Where a former run was.
        lines: The lines that former runs read.

    Raises:
        SourceError: There is no journalctl, or it cannot read that journal.
    """

    def __init__(
        self,
        name: str,
        *,
        parser: Parser | None,
        from_start: bool,
        say: Callable[[str], None],
        positions: Positions,
        lines: LineCounts,
    ) -> None:
        super().__init__(name, parser, lines)
        self._say = say
        self._command = ["journalctl", "--output=json", "--all", "--quiet", "--no-pager", *_selection(name)]
        self._cursor = positions.get("cursor") or (None if from_start else self._last_cursor())
        self._told = self._cursor
        self._rest, self._complaint, self._start_at = b"", b"", 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _last_cursor(self) -> str | None:
        """The cursor of the last entry now, if there is one."""
        try:
            last = subprocess.run(  # noqa: S603 - not through a shell
                [*self._command, "--lines=1"], stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: journalctl: {error.strerror}") from error
        if last.returncode:
            raise SourceError(f"cannot read {self.name}: {last.stderr.decode('utf-8', 'replace').strip()}")
        return json.loads(last.stdout)["__CURSOR"] if last.stdout.strip() else None

    def _start(self) -> None:
        after = [f"--after-cursor={self._cursor}"] if self._cursor else []
        try:
            self._process = subprocess.Popen(  # noqa: S603 - not through a shell
                [*self._command, "--follow", "--no-tail", f"--output-fields={FIELDS}", *after],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: journalctl: {error.strerror}") from error
        self._rest = b""
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    def positions(self) -> Positions:
        """The cursor of the last entry taken, or of the last before those whose format is not known yet."""
        return {"cursor": self._told} if self._told else {}

    def descriptors(self) -> Iterator[int]:
        """What journalctl writes to."""
        if self._process is not None and self._process.stdout is not None:
            yield self._process.stdout.fileno()

    def poll(self) -> Iterator[Block]:
        """Take what journalctl told."""
        if self._process is None:
            if time.monotonic() < self._start_at:
                return
            self._start()
        left = TURN
        while left > 0 and (taken := self._read()):
            left -= len(taken)
            self.offset += len(taken)
            told, _, self._rest = (self._rest + taken).rpartition(b"\n")
            if len(self._rest) > MAX_ENTRY:
                self._rest = self._rest[:1]  # no JSON any more
            read = list(lines_of(told))
            if read:
                self._cursor = read[-1][0]
            block = self._log.read("".join(f"{line}\n" for _, line in read))
            if not self._log.pending:
                self._told = self._cursor
            self.up = True
            yield block

    def _read(self) -> bytes:
        """A further block; nothing if there is none now, or journalctl ended."""
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        self._complaint = (self._complaint + (self._process.stderr.read(BLOCK) or b""))[-1000:]
        try:
            block = os.read(self._process.stdout.fileno(), BLOCK)
        except BlockingIOError:
            return b""
        if not block:
            said = self._complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._say(f"journalctl ended, and is started again in {PAUSE:.0f} s" + (f": {said}" if said else ""))
            self.close()
            self.up, self._complaint, self._start_at = False, b"", time.monotonic() + PAUSE
        return block

    def close(self) -> None:
        """End journalctl."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def _selection(name: str) -> list[str]:
    """What journalctl is told of which journal to read."""
    which = name.removeprefix(PREFIX)
    if which.startswith("/"):
        return [f"--directory={which}" if Path(which).is_dir() else f"--file={which}"]
    return [f"--unit={unit}" for unit in which.split(",") if unit]


def lines_of(told: bytes) -> Iterator[tuple[str, str]]:
    """Cursor and line of each entry that journalctl told."""
    for each in told.split(b"\n"):
        try:
            entry = json.loads(each)
            yield str(entry["__CURSOR"]), _line(entry)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
            continue  # passed over before, or no entry


def _line(entry: dict[str, Any]) -> str:
    """The line that syslog would have written of an entry."""
    moment = int(_text(entry.get("_SOURCE_REALTIME_TIMESTAMP")) or entry["__REALTIME_TIMESTAMP"])
    stamp = datetime.fromtimestamp(moment / 1e6, UTC).isoformat(timespec="microseconds")
    program = _word(_text(entry.get("SYSLOG_IDENTIFIER")) or _text(entry.get("_COMM")) or "unknown")
    pid = _text(entry.get("SYSLOG_PID")) or _text(entry.get("_PID"))
    number = f"[{pid}]" if pid.isascii() and pid.isdecimal() else ""
    host = _word(_text(entry.get("_HOSTNAME")) or "localhost")
    return f"{stamp} {host} {program}{number}: {one_line(_text(entry.get('MESSAGE'))[:MAX_LINE])}"


def _text(value: object) -> str:
    """A field's text. journalctl gives bytes that are not UTF-8 as numbers, and a field that came twice as a list."""
    if isinstance(value, list):
        if value and all(isinstance(each, int) for each in value):
            return bytes(value).decode("utf-8", "backslashreplace")
        return _text(value[0]) if value else ""
    return value if isinstance(value, str) else ""


def _word(text: str) -> str:
    """A program or a host without what would end it."""
    return re.sub(r"[\s\[\]:]", "_", text)[:128]
