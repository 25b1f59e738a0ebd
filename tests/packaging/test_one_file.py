"""bouncemeter.pyz runs by a Python that has nothing installed."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LOGS

pytestmark = pytest.mark.slow


def _run(file: Path, *words: str | Path) -> str:
    command = [sys.executable, "-I", "-S", "-X", "importtime", file, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert ("bouncemeter_exporter.reporting.parallel" in done.stderr) is ("large.log" in str(words))
    return done.stdout


def test_it_reads_every_format_and_writes_its_files(built: Callable[[str], Path], tmp_path: Path) -> None:
    file = built("build-pyz")
    for name in ("postfix", "exim", "exchange"):
        assert json.loads(_run(file, "report", "--format", "json", LOGS / name))["attempts"]["bounced"]
    assert "5.7.1" in _run(file, "explain", "5.7.1")
    assert "bouncemeter.rules.yml" in _run(file, "rules", "export", tmp_path)
    assert "bouncemeter-mail.json" in _run(file, "grafana", "export", tmp_path)
    assert "[ledger]" in _run(file, "service", "--settings")


def test_it_reads_a_large_log_on_several_cores(
    built: Callable[[str], Path], report: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    lines = (LOGS / "postfix" / "relay.log").read_bytes()
    large = tmp_path / "large.log"
    large.write_bytes(lines + (lines[:15] + b" mail postfix/anvil[1]: statistics: " + b"1" * 2000 + b"\n") * 40_000)
    found = json.loads(_run(built("build-pyz"), "report", "--format", "json", large))
    alone = report(LOGS / "postfix" / "relay.log")
    assert found.pop("lines")["event"] == alone.pop("lines")["event"]
    assert found == alone


def test_it_carries_one_time(built: Callable[[str], Path]) -> None:
    with zipfile.ZipFile(built("build-pyz")) as file:
        assert len({each.date_time for each in file.infolist()}) == 1
