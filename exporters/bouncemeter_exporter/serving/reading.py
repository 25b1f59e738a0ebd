"""Reads sources until it is stopped, and commits its counts: what `serve` and `textfile` share.

One thread reads in turns: a little from every source, then a commit if one is due. What is shown is the snapshot of the
last commit.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

from bouncemeter.plugin import parser

from bouncemeter_exporter.config import Config, SourceConfig
from bouncemeter_exporter.counting.counters import Counters, Labels, Numbers
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.senders import SenderGroups
from bouncemeter_exporter.serving.exposition import Family
from bouncemeter_exporter.serving.metrics import MailCollector, Snapshot, take_snapshot
from bouncemeter_exporter.serving.state import State, StateError
from bouncemeter_exporter.sources.lines import COMPRESSED, SourceError, printable
from bouncemeter_exporter.sources.opening import open_source
from bouncemeter_exporter.sources.source import LineCounts, Source

__all__ = ["Reading"]

PAUSE = 0.5
"""Seconds between polls while there is nothing new, and between commits while there is much to read."""

UNCHANGED = 30.0
"""Seconds between polls while sources tell that nothing has changed: a file system may not tell all."""

TURN = 0.001
"""Seconds after which the reading thread yields to a scrape, or a scrape to the reading thread."""

RETRY = 1.0
"""Seconds to wait before trying again to write the state."""


AT_ONCE = ("providers", "reasons", "senders")
"""The settings that take effect without a restart."""


class Reading:
    """Sources, ledger, counters and state of one run.

    Args:
        config: What to read, and where to keep the state.
        say: Called with each sentence the user should see.
        reread: Reads the configuration again, at SIGHUP.

    Raises:
        SourceError: A named source does not exist.
        ParserNotFoundError: A named format is not installed.
        StateError: The state cannot be kept.
    """

    def __init__(self, config: Config, say: Callable[[str], None], reread: Callable[[], Config] | None = None) -> None:
        self._say, self._config, self._reread = say, config, reread or (lambda: config)
        self._hung_up = threading.Event()
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: self._hung_up.set())
        config.add_knowledge()
        self._stopping, self._caught_up = threading.Event(), threading.Event()
        self._state = State(config.state, say) if config.state else None
        self._state_writable = True
        self._counters = Counters()
        self._counters.catching_up = True
        self._ledger = Ledger(config.max_age, config.max_messages, recording=self._state is not None)
        self._dropped_before: dict[str, int] = {}
        self._lines_before: dict[str, LineCounts] = {}
        self._restore()
        self._name_senders(config)
        self._announced: set[str] = set()
        # A compressed copy of a log comes after the log.
        sources = sorted(dict.fromkeys(config.sources), key=lambda each: Path(each.path).suffix in COMPRESSED)
        self._sources = [self._source(each, sources[:place], config) for place, each in enumerate(sources)]
        if config.from_start and self._state is not None and (known := self._known()):
            self._say(
                f"{', '.join(known)}: going on where the last run stopped, by {self._state.path};"
                " --from-start is for what is not known yet"
            )
        self._shown, self._version = self._snapshot(self._numbers()), 0
        writable = (lambda: self._state_writable) if self._state else (lambda: None)
        self._writable: Callable[[], bool | None] = writable
        self._collector = MailCollector(lambda: self._shown, self._sources, writable)

    def families(self) -> Iterator[Family]:
        """All metrics, of one moment."""
        return self._collector.families()

    def _restore(self) -> None:
        """Continue where the previous run stopped."""
        if self._state is None:
            return
        numbers = self._state.numbers
        self._counters.restore(numbers)
        self._counters.recent.restore(self._state.recent)
        self._ledger.memory.evicted = int(numbers.get("ledger", {}).get(("evicted",), 0))
        self._ledger.memory.restore(self._state.servers(), self._state.messages())
        self._dropped_before = {source: int(number) for (source,), number in numbers.get("dropped", {}).items()}
        for (source, mta, result), number in numbers.get("lines", {}).items():
            self._lines_before.setdefault(source, LineCounts())[mta, result] = int(number)

    def _name_senders(self, config: Config) -> None:
        """Count by the configuration's groups of senders. Messages that the ledger knows already keep what it knows."""
        self._ledger.senders = bool(config.senders)
        self._counters.name_senders(SenderGroups(config.senders))

    def _known(self) -> list[str]:
        """The sources in which an earlier run has read."""
        known = self._state.positions if self._state is not None else {}
        return [source.name for source in self._sources if known.get(source.name)]

    def _source(self, source: SourceConfig, before: Sequence[SourceConfig], config: Config) -> Source:
        name = printable(source.path)
        return open_source(
            source.path,
            parser=parser(source.format) if source.format else None,
            from_start=config.from_start,
            say=self._say,
            positions=self._state.positions.get(name, {}) if self._state else {},
            lines=self._lines_before.pop(name, LineCounts()),
            before=[each.path for each in before],
        )

    def run(self) -> None:
        """Read until SIGTERM or SIGINT."""
        for number in {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)}:
            signal.signal(number, lambda *_: self._stopping.set())
        sys.setswitchinterval(TURN)
        with _signals() as self._signals:
            try:
                self._begin()
                self._read_for_ever()
            finally:
                self._close()
        self._tell("Stopped.")

    def _tell(self, sentence: str) -> None:
        """Say what goes on as it should."""
        self._say(sentence)

    def _begin(self) -> None:
        """Do what must be done before reading begins."""

    def _turned(self) -> None:
        """Do what must be done after each turn."""

    def _patience(self) -> float:
        """Seconds to the next turn if nothing changes."""
        return UNCHANGED

    def _retake(self) -> bool:
        """Read other files of the configuration again; return whether that went well."""
        return True

    def _close(self) -> None:
        for source in self._sources:
            source.close()
        if self._state is not None:
            self._state.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def _read_for_ever(self) -> None:
        self._commit()
        committed, uncommitted = time.monotonic(), False
        while not self._stopping.is_set():
            if self._hung_up.is_set():
                self._hung_up.clear()
                self._configure_again()
            busy = self._turn()
            uncommitted |= busy
            if uncommitted and (not busy or time.monotonic() - committed > PAUSE):
                self._commit()
                committed, uncommitted = time.monotonic(), False
            if not busy and not self._caught_up.is_set():
                self._caught_up.set()
                self._counters.catching_up = False
                self._tell(self._summary())
            self._turned()
            if not busy and not self._stopping.is_set():
                self._wait()
        if uncommitted and self._state_writable:
            self._commit()

    def _configure_again(self) -> None:
        """Read the configuration again: providers, reasons, senders, and who may connect. The rest needs a restart."""
        try:
            config = self._reread()
            config.add_knowledge()
        except (ValueError, SourceError) as error:
            self._say(f"{error}; the previous settings stay in force")
            return
        self._name_senders(config)
        self._commit()  # a scrape should see the new series at zero
        taken = self._retake()
        left = [
            each.name
            for each in fields(Config)
            if getattr(config, each.name) != getattr(self._config, each.name) and each.name not in AT_ONCE
        ]
        if taken:
            self._say(f"Read the configuration again.{' At a restart will change: ' if left else ''}{', '.join(left)}")

    def _turn(self) -> bool:
        """Read a little from every source; return whether there was anything."""
        busy = False
        for source in self._sources:
            for block in source.poll():
                busy = True
                self._ledger.count(block, self._counters)
            for name in source.parsers() - self._announced:
                busy = True
                self._announced.add(name)
                self._counters.announce(name)
            if self._stopping.is_set():
                break
        return busy

    def _wait(self) -> None:
        """Wait until a source with file descriptors has something to read, or a signal comes; else `PAUSE` seconds, and
        then, if all sources can tell, until one changes."""
        if not hasattr(select, "poll"):  # Windows
            self._stopping.wait(PAUSE)
            return
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        for source in self._sources:
            for descriptor in source.descriptors():
                poll.register(descriptor, select.POLLIN)
        watches = [watch for source in self._sources if (watch := source.watch()) is not None]
        if not poll.poll(PAUSE * 1000) and len(watches) == len(self._sources):
            for watch in watches:
                poll.register(watch, select.POLLIN)
            poll.poll(max(0.0, self._patience() - PAUSE) * 1000)
        with suppress(BlockingIOError):
            os.read(self._signals, 4096)

    # --- state and snapshot -------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Write the state, then show its numbers. While it cannot be written, read nothing and try again."""
        numbers = self._numbers()
        positions = {source.name: source.positions() for source in self._sources}
        recent = self._counters.recent.texts()
        while self._state is not None:
            try:
                memory = self._ledger.memory
                self._state.commit(numbers, positions, memory.servers(), memory.changes(), recent)
            except StateError as error:
                if self._state_writable:
                    self._say(f"{error}; reading waits until it can be written")
                self._state_writable = False
                if self._stopping.wait(RETRY):
                    return
                continue
            if not self._state_writable:
                self._say("the state can be written again")
                self._state_writable = True
            break
        self._ledger.memory.changes_kept()
        self._shown = self._snapshot(numbers)
        self._version += 1

    def _numbers(self) -> Numbers:
        """All numbers, by name."""
        dropped = Tally(self._dropped_before)
        lines: dict[Labels, float] = {
            (source, *labels): number
            for source, counted in self._lines_before.items()
            for labels, number in counted.items()
        }
        for source in self._sources:
            dropped[source.name] += source.dropped
            lines.update({(source.name, *labels): number for labels, number in source.lines().items()})
        return {
            **self._counters.numbers(),
            "ledger": {("evicted",): self._ledger.memory.evicted},
            "lines": lines,
            "dropped": {(source,): number for source, number in dropped.items() if number},
        }

    def _snapshot(self, numbers: Numbers) -> Snapshot:
        return take_snapshot(self._counters, self._ledger.memory, self._sources, numbers)

    def _summary(self) -> str:
        counters = self._counters
        ended = {"delivered": 0, "bounced": 0, "expired": 0}
        for (_, outcome, _), number in counters.recipients.values.items():
            ended[outcome] += number
        soft = sum(number for labels, number in counters.bounces.values.items() if labels[1] == "soft")
        lines = sum(sum(source.lines().values()) for source in self._sources)
        return (
            f"Read {lines:,} lines of {', '.join(sorted(self._announced)) or 'no known format yet'}:"
            f" {ended['delivered']:,} recipients delivered, {ended['bounced']:,} hard bounces, {soft:,} soft bounces."
        )


@contextmanager
def _signals() -> Iterator[int]:
    """A file descriptor that becomes readable when a signal comes: else a long wait would go on after it. On Windows,
    where waits are short, nothing is ever readable."""
    reading, writing = os.pipe()
    try:
        if hasattr(select, "poll"):
            os.set_blocking(reading, False)
            os.set_blocking(writing, False)
            signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        yield reading
    finally:
        if hasattr(select, "poll"):
            signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)
