"""Metrics in a file, for the textfile collector of node_exporter and windows_exporter."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bouncemeter_exporter.archive.whole import whole_file
from bouncemeter_exporter.config import Config
from bouncemeter_exporter.serving.exposition import exposition
from bouncemeter_exporter.serving.notify import notify
from bouncemeter_exporter.serving.reading import Reading

__all__ = ["Textfile"]


class Textfile(Reading):
    """Sources, ledger, counters and state of one run, and the file that shows them.

    Args:
        config: What to read, and where to keep the state.
        path: The file. It is there whole at every moment.
        interval: Seconds after which it is written again; its age tells whether this still runs.
        once: Write it once all is read, and stop.
        say: Called with each sentence the user should see.
        reread: Reads the configuration again, at SIGHUP.

    Raises:
        SourceError: A named source does not exist.
        ParserNotFoundError: A named format is not installed.
        StateError: The state cannot be kept.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        interval: float,
        say: Callable[[str], None],
        reread: Callable[[], Config] | None = None,
        *,
        once: bool = False,
    ) -> None:
        super().__init__(config, say, reread)
        self._path, self._interval, self._once = path, interval, once
        self._written, self.failed = float("-inf"), False

    @property
    def complete(self) -> bool:
        """Whether the file was written, and every source could be read."""
        return not self.failed and all(source.up for source in self._sources)

    def _tell(self, sentence: str) -> None:
        if not self._once:  # cron mails whatever is said
            self._say(sentence)

    def _begin(self) -> None:
        self._tell(f"Writing metrics to {self._path}")
        notify("READY=1")

    def _turned(self) -> None:
        if self._once:
            if self._caught_up.is_set():
                self._write()
                self._stopping.set()
        elif time.monotonic() - self._written >= self._interval:
            self._write()

    def _patience(self) -> float:
        return min(super()._patience(), self._written + self._interval - time.monotonic())

    def _write(self) -> None:
        """Write the file. A reader that keeps it open, as on Windows, has it until the next time."""
        try:
            with whole_file(self._path) as stream:
                stream.write(exposition(self.families(), openmetrics=False))
        except OSError as error:
            if not self.failed:
                again = "" if self._once else f"; trying again every {self._interval:.0f} s"
                self._say(f"cannot write {self._path}: {error.strerror}{again}")
            self.failed = True
        else:
            if self.failed:
                self._say(f"{self._path} can be written again")
            self.failed = False
        self._written = time.monotonic()
