"""What the documentation quotes matches the original. More tests are in `tests/docs`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request

from tests.conftest import LOGS, ROOT
from tests.servers.net import free_port

README = (ROOT / "README.md").read_text()


def test_the_readme_names_every_metric() -> None:
    page = (LOGS / "postfix" / "relay.prom").read_text()
    for name in re.findall(r"^# TYPE (mail_\w+) (?:counter|gauge|histogram)$", page, flags=re.MULTILINE):
        assert f"`{name}`" in README


def test_the_plugin_page_shows_the_tested_plugin() -> None:
    page = (ROOT / "docs" / "writing-a-parser.md").read_text()
    for name in ("pyproject.toml", "bouncemeter_tiny.py"):
        assert (ROOT / "tests" / "plugin" / name).read_text().strip() in page


def test_make_run_serves_the_sample_logs() -> None:
    port = free_port()
    with subprocess.Popen(
        ["make", "--no-print-directory", "run", f"LISTEN=127.0.0.1:{port}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            end, printed = time.monotonic() + 120, ""
            while "Read " not in printed and time.monotonic() < end:
                printed += process.stderr.readline()
            assert f"Serving metrics at http://127.0.0.1:{port}/metrics" in printed
            assert "lines of exchange, exim, postfix:" in printed
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert "mail_bounces_total{" in answer.read().decode()
        finally:
            os.killpg(process.pid, signal.SIGTERM)
