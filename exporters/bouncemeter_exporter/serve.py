"""The exporter: reads its sources for ever, and serves what it counted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence

from bouncemeter.plugin import parser
from bouncemeter.providers import add_providers
from prometheus_client.registry import CollectorRegistry

from bouncemeter_exporter.config import Config
from bouncemeter_exporter.counters import Counters
from bouncemeter_exporter.http import MetricsServer, parse_listen_address
from bouncemeter_exporter.ledger import Ledger
from bouncemeter_exporter.prometheus import MailCollector
from bouncemeter_exporter.sources.follow import FollowedSource

__all__ = ["Exporter"]

PAUSE = 0.5
"""Seconds between two looks at files that had nothing new."""


class Exporter:
    """Sources, ledger, counters and the HTTP server of one run.

    Args:
        config: What to read and where to listen.
        say: Told, in sentences, what the user should know.

    Raises:
        SourceError: A source that is named does not exist.
        ParserNotFoundError: A format that is named is not installed.
        ValueError: The listen address is not one.
        OSError: The listen address is taken.
    """

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._say = say
        add_providers(config.providers)
        self._lock, self._stopping, self._caught_up = threading.Lock(), threading.Event(), threading.Event()
        self._ledger, self._counters = Ledger(config.max_age, config.max_messages), Counters()
        self._announced: set[str] = set()
        self._sources: Sequence[FollowedSource] = [
            FollowedSource(
                source.path,
                parser=parser(source.format) if source.format else None,
                from_start=config.from_start,
                warn=say,
            )
            for source in config.sources
        ]
        registry = CollectorRegistry()
        registry.register(MailCollector(self._counters, self._ledger, self._sources, self._lock))
        self._server = MetricsServer(
            parse_listen_address(config.listen_address), config.telemetry_path, registry, self._caught_up.is_set
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self._server.start()
        self._say(f"Serving metrics at {self._server.url}{self._server.telemetry_path}")
        try:
            self._read_for_ever()
        finally:
            self._server.shutdown()
            self._server.server_close()
            for source in self._sources:
                source.close()
        self._say("Stopped.")

    def _read_for_ever(self) -> None:
        while not self._stopping.is_set():
            busy = self._read_once()
            if not self._caught_up.is_set() and not self._stopping.is_set():
                self._caught_up.set()
                self._say(self._summary())
            if not busy:
                self._stopping.wait(PAUSE)

    def _read_once(self) -> bool:
        """Read what every source has; whether there was anything."""
        busy = False
        for source in self._sources:
            for entries in source.poll():
                busy = True
                with self._lock:
                    for entry in entries:
                        self._counters.take(entry, self._ledger.take(entry))
                if self._stopping.is_set():
                    return busy
            self._announce(source.parsers())
        return busy

    def _announce(self, names: set[str]) -> None:
        for name in names - self._announced:
            self._announced.add(name)
            with self._lock:
                self._counters.announce(name)

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
