"""The exporter: reads its sources until it is stopped, and serves what it has counted.

One thread reads; other threads answer scrapes from the snapshot of the last commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from bouncemeter_exporter.config import Config, telemetry_path
from bouncemeter_exporter.serving.access import Access, check_trace
from bouncemeter_exporter.serving.http import MetricsServer
from bouncemeter_exporter.serving.metrics import process_families
from bouncemeter_exporter.serving.notify import notify
from bouncemeter_exporter.serving.reading import Reading
from bouncemeter_exporter.serving.status import Limit, StatusPage
from bouncemeter_exporter.serving.stories import PATH, Stories
from bouncemeter_exporter.serving.tracing import Tracing
from bouncemeter_exporter.sources.address import parse_listen_address

__all__ = ["Exporter"]


class Exporter(Reading):
    """Sources, ledger, counters, state and the HTTP server of one run.

    Args:
        config: What to read, where to keep the state, and where to listen.
        say: Called with each sentence the user should see.
        reread: Reads the configuration again, at SIGHUP.
        limits: What the alerts compare against, to be shown.

    Raises:
        SourceError: A named source does not exist.
        ParserNotFoundError: A named format is not installed.
        StateError: The state cannot be kept.
        WebConfigError: The web configuration is wrong.
        ValueError: The listen address is not valid, or not one on which to show addresses.
        OSError: The listen address is in use.
    """

    def __init__(
        self,
        config: Config,
        say: Callable[[str], None],
        reread: Callable[[], Config] | None = None,
        limits: Sequence[Limit] = (),
    ) -> None:
        address, path = parse_listen_address(config.listen_address), telemetry_path(config.telemetry_path)
        self._access = Access(config.web_config, say)
        if config.trace:
            check_trace(address, self._access)
        super().__init__(config, say, reread)
        is_ready = self._caught_up.is_set
        status = StatusPage(
            lambda: self._shown, self._sources, self._writable, is_ready, path, limits, f"{PATH}/" * config.trace
        )
        self._tracing = Tracing(config.sources)
        self._server = MetricsServer(
            address,
            path,
            lambda: chain(self.families(), process_families()),
            is_ready=is_ready,
            version=lambda: self._version,
            status=status.render,
            stories=Stories(self._tracing, lambda: self._shown) if config.trace else None,
            access=self._access,
        )

    def _begin(self) -> None:
        self._server.start()
        self._say(f"Serving metrics at {self._server.url}{self._server.telemetry_path}")
        notify("READY=1")

    def _retake(self) -> bool:
        return self._access.reload()

    def _close(self) -> None:
        self._tracing.close()
        self._server.shutdown()
        self._server.server_close()
        self._access.close()
        super()._close()
