"""A private Prometheus that scrapes one exporter, and the questions to ask it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .net import free_port, is_ready, stopping_on_failure, wait_until

CONFIG = """\
global:
  scrape_interval: {interval}
  scrape_timeout: {interval}
scrape_configs:
  - job_name: bouncemeter
    static_configs:
      - targets: ["127.0.0.1:{target}"]
"""


class Prometheus:
    """Scrapes the exporter on a port, for use in a `with`.

    Args:
        base: Where it keeps its files.
        target: The exporter's port.
        interval: How often it scrapes.
        more: Further lines of the scrape configuration.
        flags: Further arguments.
    """

    def __init__(
        self, base: Path, target: int, interval: str = "1s", more: str = "", flags: Sequence[str] = ()
    ) -> None:
        self.base, self.port, self._flags = base, free_port(), flags
        (base / "prometheus.yml").write_text(CONFIG.format(target=target, interval=interval) + more)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self.base}/prometheus.yml",
                f"--storage.tsdb.path={self.base}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
                "--log.level=error",
                *self._flags,
            ]
        )
        with stopping_on_failure(self):  # it accepts connections some time before
            wait_until(lambda: is_ready(self.port), 120, "Prometheus does not become ready")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=120)

    def ask(self, path: str, **parameters: str) -> Any:
        """The data that an API path answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]

    def exemplars(self, query: str) -> list[dict[str, str]]:
        """The labels of the exemplars that a query's series have."""
        series = self.ask("query_exemplars", query=query, start="0", end="9999999999")
        return [exemplar["labels"] for each in series for exemplar in each["exemplars"]]

    def value(self, query: str) -> float | None:
        """The value of a query that gives one series; None if it gives none."""
        result = self.ask("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    def increases(self, selector: str, label: str) -> dict[str, float]:
        """`increase()` of series over all that was scraped of them, summed by a label: from a sample to a sample, so
        that there is nothing to extrapolate."""
        found: dict[str, float] = {}
        for series in self.ask("query", query=f"{selector}[1h]")["result"]:
            times = [moment for moment, _ in series["values"]]
            span = round((times[-1] - times[0]) * 1000)
            labels = ",".join(f"{name}={value!r}" for name, value in series["metric"].items() if name != "__name__")
            query = f"increase({series['metric']['__name__']}{{{labels}}}[{span}ms])"
            (result,) = self.ask("query", query=query, time=repr(times[-1]))["result"]
            key = series["metric"][label]
            found[key] = found.get(key, 0.0) + float(result["value"][1])
        return found

    def wait_for_value(self, query: str, wanted: float, seconds: float = 180) -> None:
        """Wait until a query has a value."""
        end = time.monotonic() + seconds
        while (value := self.value(query)) != wanted:
            if time.monotonic() > end:
                raise AssertionError(f"{query} is {value}, not {wanted}")
            time.sleep(0.2)
