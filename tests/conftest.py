"""Shared by all tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.available import need
from tests.servers.programs import use_unpacked

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "grafana"
LOGS = ROOT / "tests" / "logs"

Run = Callable[..., "subprocess.CompletedProcess[str]"]

use_unpacked()

os.environ.pop("LC_ALL", None)  # the machine's language decides nothing; its encoding may
os.environ["LC_MESSAGES"] = "C"

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # a busy machine is no failure


@pytest.hookimpl(trylast=True)  # after the tests were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start slow tests first, so that no process is left with one when the others have finished."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose servers are missing; fail it in CI."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            need(name)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs without a zone are of local time: let that be UTC."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def bouncemeter(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the command as a user would, in a process of its own, with a folder of its own for the state."""
    state = tmp_path_factory.mktemp("state")

    def run(*words: str | Path, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "bouncemeter_exporter", *map(str, words)],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=300,
            env={**os.environ, "TZ": "UTC", "NO_COLOR": "1", "STATE_DIRECTORY": str(state)},
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        if check:
            assert done.returncode == 0, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    return run


@pytest.fixture
def parse(bouncemeter: Run) -> Callable[..., list[dict[str, Any]]]:
    """The records that `bouncemeter parse` prints for a log."""

    def run(*words: str | Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in bouncemeter("parse", *words).stdout.splitlines()]

    return run


@pytest.fixture
def report(bouncemeter: Run) -> Callable[..., dict[str, Any]]:
    """The object that `bouncemeter report --format json` prints for a log."""

    def run(*words: str | Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(bouncemeter("report", "--format", "json", *words).stdout)
        return found

    return run


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """An empty directory that the servers' own users may enter (pytest's is closed to them)."""
    base = Path(tempfile.mkdtemp(prefix="bouncemeter-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)
