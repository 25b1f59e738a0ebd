"""The exporter: reads its sources until it is stopped, commits its counts, and serves what it has committed.

One thread reads in turns: a little from every source, then a commit if one is due. Other threads answer scrapes from
the snapshot of the last commit.
"""

from __future__ import annotations

import select
import signal
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable

from bouncemeter.plugin import parser

from bouncemeter_exporter.config import Config, SourceConfig
from bouncemeter_exporter.counting.counters import Counters, Labels, Numbers
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.serving.access import Access
from bouncemeter_exporter.serving.http import MetricsServer
from bouncemeter_exporter.serving.metrics import MailCollector, Snapshot, take_snapshot
from bouncemeter_exporter.serving.state import State, StateError
from bouncemeter_exporter.sources.address import parse_listen_address
from bouncemeter_exporter.sources.opening import open_source
from bouncemeter_exporter.sources.source import LineCounts, Source

__all__ = ["Exporter"]

PAUSE = 0.5
"""Seconds between polls while there is nothing new, and between commits while there is much to read."""

TURN = 0.001
"""Seconds after which the reading thread yields to a scrape, or a scrape to the reading thread."""

RETRY = 1.0
"""Seconds to wait before trying again to write the state."""


class Exporter:
    """Sources, ledger, counters, state and the HTTP server of one run.

    Args:
        config: What to read, where to keep the state, and where to listen.
        say: Called with each sentence the user should see.

    Raises:
        SourceError: A named source does not exist.
        ParserNotFoundError: A named format is not installed.
        StateError: The state cannot be kept.
        WebConfigError: The web configuration is wrong.
        ValueError: The listen address is not valid.
        OSError: The listen address is in use.
    """

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._say = say
        config.add_knowledge()
        address = parse_listen_address(config.listen_address)
        self._stopping, self._caught_up = threading.Event(), threading.Event()
        self._state = State(config.state) if config.state else None
        self._state_writable = True
        self._counters = Counters()
        self._counters.catching_up = True
        self._ledger = Ledger(config.max_age, config.max_messages, recording=self._state is not None)
        self._dropped_before: dict[str, int] = {}
        self._lines_before: dict[str, LineCounts] = {}
        self._restore()
        self._announced: set[str] = set()
        self._sources: list[Source] = [self._source(each, config) for each in dict.fromkeys(config.sources)]
        self._shown, self._version = self._snapshot(self._numbers()), 0
        writable = (lambda: self._state_writable) if self._state else (lambda: None)
        collector = MailCollector(lambda: self._shown, self._sources, writable)
        self._server = MetricsServer(
            address,
            config.telemetry_path,
            collector.families,
            is_ready=self._caught_up.is_set,
            version=lambda: self._version,
            access=Access(config.web_config, say),
        )

    def _restore(self) -> None:
        """Continue where the previous run stopped."""
        if self._state is None:
            return
        numbers = self._state.numbers
        self._counters.restore(numbers)
        self._ledger.memory.evicted = int(numbers.get("ledger", {}).get(("evicted",), 0))
        self._ledger.memory.restore(self._state.servers(), self._state.messages())
        self._dropped_before = {source: int(number) for (source,), number in numbers.get("dropped", {}).items()}
        for (source, mta, result), number in numbers.get("lines", {}).items():
            self._lines_before.setdefault(source, LineCounts())[mta, result] = int(number)

    def _source(self, source: SourceConfig, config: Config) -> Source:
        return open_source(
            source.path,
            parser=parser(source.format) if source.format else None,
            from_start=config.from_start,
            say=self._say,
            positions=self._state.positions.get(source.path, {}) if self._state else {},
            lines=self._lines_before.pop(source.path, LineCounts()),
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        sys.setswitchinterval(TURN)
        self._server.start()
        self._say(f"Serving metrics at {self._server.url}{self._server.telemetry_path}")
        try:
            self._read_for_ever()
        finally:
            self._server.shutdown()
            self._server.server_close()
            for source in self._sources:
                source.close()
            if self._state is not None:
                self._state.close()
        self._say("Stopped.")

    # --- reading ------------------------------------------------------------------------------------------------

    def _read_for_ever(self) -> None:
        self._commit()
        committed, uncommitted = time.monotonic(), False
        while not self._stopping.is_set():
            busy = self._turn()
            uncommitted |= busy
            if uncommitted and (not busy or time.monotonic() - committed > PAUSE):
                self._commit()
                committed, uncommitted = time.monotonic(), False
            if not busy:
                if not self._caught_up.is_set():
                    self._caught_up.set()
                    self._counters.catching_up = False
                    self._say(self._summary())
                self._wait()
        if uncommitted and self._state_writable:
            self._commit()

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
        """Wait `PAUSE` seconds, or until a source with file descriptors has something to read."""
        poll = select.poll()
        for source in self._sources:
            for descriptor in source.descriptors():
                poll.register(descriptor, select.POLLIN)
        poll.poll(PAUSE * 1000)

    # --- state and snapshot -------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Write the state, then show its numbers. While it cannot be written, read nothing and try again."""
        numbers = self._numbers()
        positions = {source.name: source.positions() for source in self._sources}
        while self._state is not None:
            try:
                self._state.commit(numbers, positions, self._ledger.memory.servers(), self._ledger.memory.changes())
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
