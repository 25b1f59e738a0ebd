"""A private Alertmanager, and whoever it tells."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from .net import free_port, is_ready, stopping_on_failure, wait_until
from .programs import ROOT, program

CONFIG = """\
route:
  receiver: test
  group_wait: 1s
  group_interval: 1s
receivers:
  - name: test
    webhook_configs:
      - url: http://127.0.0.1:{port}/
"""


class Alertmanager:
    """Gives each alert to a webhook receiver, for use in a `with`.

    Args:
        base: Its folder.
        config: Its configuration, with `{port}` for the receiver's port.

    Attributes:
        received: The alerts that the receiver got.
    """

    def __init__(self, base: Path, config: str = CONFIG) -> None:
        self.base, self.port, self._config = base, free_port(), config
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._receiver = HTTPServer(("127.0.0.1", 0), Receiver)

    def __enter__(self) -> Alertmanager:
        threading.Thread(target=self._receiver.serve_forever, daemon=True).start()
        config = self.base / "alertmanager.yml"
        config.write_text(self._config.replace("{port}", str(self._receiver.server_port)))
        templates = self.base / "alertmanager-templates-of-the-test"  # see tests/servers/install
        templates.symlink_to(ROOT / "usr/share/prometheus/alertmanager")
        self._process = subprocess.Popen(
            [
                str(program("prometheus-alertmanager", "alertmanager")),
                f"--config.file={config}",
                f"--storage.path={self.base}/alertmanager",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
                "--log.level=error",
            ],
            cwd=self.base,
        )
        with stopping_on_failure(self):
            wait_until(lambda: is_ready(self.port), 120, "Alertmanager does not become ready")
        return self

    def alert(self, *labels: dict[str, str]) -> None:
        """Give it alerts that have nothing but labels."""
        self.give(*({"labels": each} for each in labels))

    def give(self, *alerts: dict[str, Any]) -> None:
        """Give it alerts as Prometheus does."""
        body = json.dumps(alerts).encode()
        request = Request(f"http://127.0.0.1:{self.port}/api/v2/alerts", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30):
            pass

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=120)
        self._receiver.shutdown()
        self._receiver.server_close()
