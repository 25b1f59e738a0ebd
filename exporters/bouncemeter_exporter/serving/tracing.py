"""Searches the logs for a message, for the pages below `/trace`.

Each search is a `bouncemeter trace` of its own, with the lowest priority, so that neither reading nor scrapes wait for
it. There are few of them at a time, each with a limited time and output.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from bouncemeter_exporter.config import SourceConfig
from bouncemeter_exporter.sources.journal import PREFIX
from bouncemeter_exporter.sources.opening import is_of_files
from bouncemeter_exporter.sources.rotation import rotated

__all__ = ["BusyError", "Tracing", "TracingError", "is_queue_id", "is_searchable", "logs_of"]

AT_ONCE = 2
MAX_WAITING = 4
PATIENCE = 5.0
"""Searches at a time, how many more may wait, and for how many seconds."""

TIME = 20.0
"""Seconds that a search may take."""

MAX_OUTPUT = 4_000_000
MAX_SAID = 4_000
"""Bytes of an answer, and of what is said about it, that are read."""

MAX_TEXT = 320
"""Characters of a text to look for: those of the longest address."""

MOST = 50
"""Messages to list."""

FRAME = " │╭╰─╮╯"
"""What is drawn around an error of the command line."""

BY = ("recipient", "sender", "message-id", "reply")
"""What messages can be found by, besides the queue ID."""


class TracingError(Exception):
    """A search gave no answer. Its text is a sentence for the user."""


class BusyError(TracingError):
    """There are too many searches already."""


def is_queue_id(text: str) -> bool:
    """Whether a text can be a queue ID. It never looks like an option."""
    return re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z-]{2,63}", text, re.ASCII) is not None


def is_searchable(text: str) -> bool:
    """Whether a text is one to look for: short, and without control characters."""
    return 0 < len(text) <= MAX_TEXT and text.isprintable()


def logs_of(sources: Sequence[SourceConfig]) -> tuple[list[str], list[str]]:
    """The logs to search for what sources have said, and the sources of which nothing is kept that could be searched.

    The logs are the files with their rotated copies, and the journals; a pipe or a socket keeps nothing.
    """
    logs: list[str] = []
    nothing: list[str] = []
    for each in sources:
        if each.path.startswith(PREFIX):
            logs.append(each.path)
        elif not is_of_files(each.path):
            nothing.append(each.path)
        elif (path := Path(each.path)).is_dir() or not path.exists():
            logs.append(each.path)
        else:
            logs += [*map(str, rotated(path)), each.path]
    return list(dict.fromkeys(logs)), nothing


class Tracing:
    """Runs the searches.

    Args:
        sources: The sources being followed.
        command: The command that searches.
    """

    def __init__(self, sources: Sequence[SourceConfig], command: Sequence[str] | None = None) -> None:
        self._sources = sources
        self._command = command or (sys.executable, "-P", "-m", "bouncemeter_exporter", "trace")
        self._turn, self._lock, self._waiting = threading.BoundedSemaphore(AT_ONCE), threading.Lock(), 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    @property
    def unsearchable(self) -> list[str]:
        """The sources that cannot be searched."""
        return logs_of(self._sources)[1]

    def message(self, queue_id: str) -> dict[str, Any] | None:
        """One message's story, as `trace --format json` prints it; None if no log is about it.

        Raises:
            TracingError: There is no answer.
            ValueError: It cannot be a queue ID.
        """
        if not is_queue_id(queue_id):
            raise ValueError(f"{queue_id!r} is not a queue ID")
        return self._search([], queue_id)

    def find(self, by: str, text: str) -> dict[str, Any] | None:
        """The messages that are found by something else, as `trace --format json` prints them; None if there is none.

        Raises:
            TracingError: There is no answer.
            ValueError: It is nothing to look for.
        """
        if by not in BY or not is_searchable(text):
            raise ValueError(f"cannot look for {text!r}")
        return self._search(["--by", by, "--top", str(MOST)], text)

    def close(self) -> None:
        """End all searches, and begin none."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _kill(process)
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)

    def _search(self, options: list[str], text: str) -> dict[str, Any] | None:
        logs, _ = logs_of(self._sources)
        if not logs:
            raise TracingError("No source is a file or a journal: there is nothing to search.")
        formats = {each.format for each in self._sources}
        form = ["--format-of", name] if len(formats) == 1 and (name := formats.pop()) else []
        self._wait()
        try:
            return self._answer([*self._command, "--format", "json", *options, *form, "--", text, *logs])
        finally:
            self._turn.release()

    def _wait(self) -> None:
        """Wait for one's turn.

        Raises:
            BusyError: Too many wait, or it takes too long.
        """
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise BusyError("Too many searches at once. Try again in some seconds.")
            self._waiting += 1
        try:
            if not self._turn.acquire(timeout=PATIENCE):
                raise BusyError("Too many searches at once. Try again in some seconds.")
        finally:
            with self._lock:
                self._waiting -= 1

    def _answer(self, command: list[str]) -> dict[str, Any] | None:
        late = threading.Event()
        with self._started(command) as process:
            assert process.stdout is not None  # noqa: S101
            assert process.stderr is not None  # noqa: S101
            said: list[bytes] = []
            listener = threading.Thread(target=_listen, args=(process.stderr, said), daemon=True)
            listener.start()

            def end() -> None:
                late.set()
                _kill(process)

            timer = threading.Timer(TIME, end)
            timer.start()
            try:
                found = process.stdout.read(MAX_OUTPUT + 1)
                if len(found) > MAX_OUTPUT:
                    _kill(process)
                code = process.wait()
            finally:
                timer.cancel()
                _kill(process)
                with self._lock:
                    self._running.discard(process)
            listener.join(1.0)
        if len(found) > MAX_OUTPUT:
            raise TracingError("The answer is too long for a page. Use `bouncemeter trace` on the server.")
        if late.is_set():
            raise TracingError(f"The search took longer than {TIME:.0f} s. Use `bouncemeter trace` on the server.")
        if code:
            _check_nothing(b"".join(said).decode("utf-8", "replace"), code)
            return None
        answer = json.loads(found)
        assert isinstance(answer, dict)  # noqa: S101
        return answer

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise BusyError("bouncemeter is stopping.")
            try:
                process = subprocess.Popen(  # noqa: S603 - no shell, and the text comes after --
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    start_new_session=True,
                    creationflags=getattr(subprocess, "IDLE_PRIORITY_CLASS", 0),
                )
            except OSError as error:
                raise TracingError(f"The search cannot be started: {error.strerror}.") from error
            self._running.add(process)
        if hasattr(os, "setpriority"):
            with suppress(OSError):  # it has ended already, or a sandbox forbids it
                os.setpriority(os.PRIO_PROCESS, process.pid, 19)
        return process


def _check_nothing(said: str, code: int) -> None:
    """Make sure that a search failed because there is nothing to find.

    Raises:
        TracingError: It failed for another reason.
    """
    lines = [each.strip(FRAME).removeprefix("bouncemeter: ") for each in said.splitlines() if each.strip(FRAME)]
    if code == 1 and lines and re.search(r": no (line|message) ", lines[-1]):
        return
    raise TracingError(f"The search failed: {lines[-1] if lines else f'exit code {code}'}")


def _listen(stream: IO[bytes], said: list[bytes]) -> None:
    """Read a stream to its end, and keep what it says last."""
    with suppress(OSError, ValueError):
        while block := stream.read1(MAX_SAID):  # type: ignore[attr-defined]
            said[:] = [(b"".join(said) + block)[-MAX_SAID:]]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has started."""
    if process.poll() is not None:
        return
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
