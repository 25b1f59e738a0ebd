"""The systemd journal, read through journalctl from a cursor on. The cursor is saved with the counts.

Each journal entry becomes the line that syslog would have written for it, which the parsers understand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bouncemeter.blocks import Block
from bouncemeter.plugin import Parser
from bouncemeter.wrappers import field_text

from bouncemeter_exporter.sources.lines import BLOCK, MAX_LINE, SourceError, one_line
from bouncemeter_exporter.sources.permission import may, remedy
from bouncemeter_exporter.sources.source import LineCounts, Positions
from bouncemeter_exporter.sources.stream import TURN, Stream

__all__ = ["PREFIX", "Journal", "closed_journal", "has_entries", "lines_of", "read_journal", "without_entries"]

PREFIX = "journal:"
"""What the name of a journal source begins with."""

FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,_COMM,_HOSTNAME,_PID,SYSLOG_PID,_SOURCE_REALTIME_TIMESTAMP"

SYSTEM_JOURNALS = ("/var/log/journal", "/run/log/journal")
"""Where this machine's journal is."""

MAX_ENTRY = 4_194_304
"""Bytes of an entry's JSON; longer entries are skipped."""

PAUSE = 5.0
"""Seconds to wait before restarting journalctl after it ended."""


class Journal(Stream):
    """Entries of a journal; see `bouncemeter_exporter.sources.source.Source`.

    Args:
        name: `journal:` (all of this machine's), `journal:UNIT[,UNIT]`, `journal:FIELD=VALUE`, `journal:/DIRECTORY` or
            `journal:/FILE`.
        parser: The format; if None, it is detected.
        from_start: At the first start, also read the entries that exist already.
        say: Called with each sentence the user should see.
        positions: Where the previous run stopped.
        lines: Lines counted by earlier runs.

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
        self._command = _command(name)
        self._cursor = positions.get("cursor")
        if self._cursor is None:
            last = _last_cursor(name)
            self.up = last is not None
            if last is None:
                say(without_entries(self.name))
            self._cursor = None if from_start else last
        self._safe_cursor = self._cursor
        self._rest, self._errors, self._start_at = b"", b"", 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

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
        """The cursor of the last entry read, not counting entries whose format is still unknown."""
        return {"cursor": self._safe_cursor} if self._safe_cursor else {}

    def descriptors(self) -> Iterator[int]:
        """The pipe that journalctl writes to."""
        if self._process is not None and self._process.stdout is not None:
            yield self._process.stdout.fileno()

    def poll(self) -> Iterator[Block]:
        """Read what journalctl has written."""
        if self._process is None:
            if time.monotonic() < self._start_at:
                return
            self._start()
        left = TURN
        while left > 0 and (output := self._read()):
            left -= len(output)
            self.offset += len(output)
            entries, _, self._rest = (self._rest + output).rpartition(b"\n")
            if len(self._rest) > MAX_ENTRY:
                self._rest = self._rest[:1]  # no longer JSON, so it is skipped
            read = list(lines_of(entries))
            if read:
                self._cursor = read[-1][0]
            block = self._log.read("".join(f"{line}\n" for _, line in read))
            if not self._log.pending:
                self._safe_cursor = self._cursor
            self.up = True
            yield block

    def _read(self) -> bytes:
        """The next block; empty if there is none yet, or journalctl ended."""
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        self._errors = (self._errors + (self._process.stderr.read(BLOCK) or b""))[-1000:]
        try:
            block = os.read(self._process.stdout.fileno(), BLOCK)
        except BlockingIOError:
            return b""
        if not block:
            last_error = self._errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._say(f"journalctl ended; restarting it in {PAUSE:.0f} s" + (f": {last_error}" if last_error else ""))
            self.close()
            self.up, self._errors, self._start_at = False, b"", time.monotonic() + PAUSE
        return block

    def close(self) -> None:
        """Stop journalctl."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def has_entries(name: str) -> bool:
    """Whether a journal has entries that this user may see.

    Raises:
        SourceError: There is no journalctl, or it cannot read that journal.
    """
    return _last_cursor(name) is not None


def _last_cursor(name: str) -> str | None:
    """The cursor of a journal's last entry, if it has one."""
    try:
        last = subprocess.run(  # noqa: S603 - not through a shell
            [*_command(name), "--lines=1"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise SourceError(f"cannot read {name}: journalctl: {error.strerror}") from error
    if last.returncode:
        raise SourceError(_refused(name, last.stderr))
    return json.loads(last.stdout)["__CURSOR"] if last.stdout.strip() else None


def read_journal(name: str, last: int | None = None) -> Iterator[tuple[str, int]]:
    """The lines of a journal from its first entry to its last, a block at a time, with the bytes read for each.

    Args:
        name: As in `Journal`.
        last: If given, that many entries, the last ones.

    Raises:
        SourceError: There is no journalctl, or it cannot read that journal.
    """
    command = [*_command(name), f"--output-fields={FIELDS}", *([f"--lines={last}"] if last else [])]
    rest = b""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - not through a shell
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            raise SourceError(f"cannot read {name}: journalctl: {error.strerror}") from error
        with process:
            assert process.stdout is not None  # noqa: S101
            try:
                while block := process.stdout.read(BLOCK):
                    entries, _, rest = (rest + block).rpartition(b"\n")
                    yield "".join(f"{line}\n" for _, line in lines_of(entries)), len(block)
            finally:
                process.kill()
        if process.returncode > 0:
            errors.seek(0)
            raise SourceError(_refused(name, errors.read()))


def closed_journal() -> Path | None:
    """A file of this machine's journal that this user may not read, if there is one."""
    found = (each for folder in SYSTEM_JOURNALS for each in Path(folder).glob("*/system.journal"))
    return next((each for each in found if not may(each, os.R_OK)), None)


def without_entries(name: str) -> str:
    """What to say of a journal without entries: that there are none, or that this user may not see them."""
    own = not name.removeprefix(PREFIX).startswith("/")
    if own and (closed := closed_journal()) is not None:
        return f"cannot read {name}: Permission denied; {remedy(closed)}"
    return f"{name}: the journal has no entries" + (" that match" if own and name != PREFIX else "")


def _refused(name: str, errors: bytes) -> str:
    """What to say of a journal that journalctl cannot read."""
    said = errors.decode("utf-8", "replace").strip()
    closed = closed_journal() if "permission" in said else None
    return f"cannot read {name}: {f'Permission denied; {remedy(closed)}' if closed else said}"


def _command(name: str) -> list[str]:
    return ["journalctl", "--output=json", "--all", "--quiet", "--no-pager", *_selection(name)]


def _selection(name: str) -> list[str]:
    """The options that tell journalctl which journal to read."""
    which = name.removeprefix(PREFIX)
    if which.startswith("/"):
        return [f"--directory={which}" if Path(which).is_dir() else f"--file={which}"]
    return [each if "=" in each else f"--unit={each}" for each in which.split(",") if each]


def lines_of(output: bytes) -> Iterator[tuple[str, str]]:
    """The cursor and line of each entry in journalctl's output."""
    for each in output.split(b"\n"):
        try:
            entry = json.loads(each)
            yield str(entry["__CURSOR"]), _line(entry)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
            continue  # too long and cut, or not an entry


def _line(entry: dict[str, Any]) -> str:
    """The line that syslog would have written for an entry."""
    moment = int(field_text(entry.get("_SOURCE_REALTIME_TIMESTAMP")) or entry["__REALTIME_TIMESTAMP"])
    stamp = datetime.fromtimestamp(moment / 1e6, UTC).isoformat(timespec="microseconds")
    program = _word(field_text(entry.get("SYSLOG_IDENTIFIER")) or field_text(entry.get("_COMM")) or "unknown")
    pid = field_text(entry.get("SYSLOG_PID")) or field_text(entry.get("_PID")) or ""
    number = f"[{pid}]" if pid.isascii() and pid.isdecimal() else ""
    host = _word(field_text(entry.get("_HOSTNAME")) or "localhost")
    return f"{stamp} {host} {program}{number}: {one_line((field_text(entry.get('MESSAGE')) or '')[:MAX_LINE])}"


def _word(text: str) -> str:
    """The name of a program or host, without the characters that would end it."""
    return re.sub(r"[\s\[\]:]", "_", text)[:128]
