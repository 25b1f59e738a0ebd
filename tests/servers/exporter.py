"""The exporter as users run it: a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from .net import free_port

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Exporter:
    """`bouncemeter serve` on a free port, for use in a `with`; leaving it sends SIGTERM and expects exit code 0.

    `first` is Python that the process runs before.
    """

    def __init__(
        self,
        *words: str | Path,
        stdin: int | None = subprocess.DEVNULL,
        listen: str = "127.0.0.1:{}",
        first: str = "pass",
    ) -> None:
        self.port = free_port()
        self.words = [*map(str, words), "--web.listen-address", listen.format(self.port)]
        if "--state" not in self.words:
            self.words.append("--no-state")
        self.stdin, self.program = stdin, f"{first}; from bouncemeter_exporter.cli import main; main()"
        self.said: list[str] = []

    def __enter__(self) -> Exporter:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.program, "serve", *self.words],
            stdin=self.stdin,
            stderr=subprocess.PIPE,
            env={**os.environ, "TZ": "UTC"},
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        end = time.monotonic() + 600
        while self.status("/-/ready") != 200:
            if time.monotonic() > end or self.process.poll() is not None:
                self.process.kill()
                self.process.wait()
                raise TimeoutError(f"not ready: {self.said}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=120)
        self._listener.join(timeout=60)
        assert self.process.stderr is not None
        self.process.stderr.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        assert code == 0, self.said
        assert not any("Traceback" in line for line in self.said), self.said

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said += (line.decode().rstrip() for line in self.process.stderr)

    def switches(self) -> int:
        """How often the process's threads went to sleep so far (Linux)."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/status")
        lines = [line for task in tasks for line in task.read_text("utf-8").splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    def status(self, path: str) -> int:
        """The HTTP status of a path; 0 if nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def page(self, path: str = "/metrics", accept: str = "", timeout: float = 60) -> str:
        """A page's text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return str(answer.read().decode())

    def value(self, series: str) -> float | None:
        """The value of a series on the metrics page."""
        for line in self.page().splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return None

    def wait_until_read(self, log: Path) -> None:
        """Wait until a log that is no longer written has been read to its end."""
        series = f'bouncemeter_source_offset_bytes{{source="{log}"}}'
        size = -1
        while log.stat().st_size != size:
            size = log.stat().st_size
            self.wait_for_value(series, size)
            time.sleep(1)  # a last line may still be on its way into the log

    def wait_for_value(self, series: str, wanted: float, seconds: float = 120) -> None:
        """Wait until a series has a value."""
        end = time.monotonic() + seconds
        while (value := self.value(series)) != wanted:
            if time.monotonic() > end:
                raise AssertionError(f"{series} is {value}, not {wanted}")
            time.sleep(0.1)
