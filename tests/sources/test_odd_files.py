"""Odd files: whatever a log becomes, the reader neither hangs nor spins, and says what it cannot read."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bouncemeter_exporter.sources import files

from tests.conftest import LOGS, Run
from tests.servers.exporter import Exporter
from tests.sources.test_following import Follower, write

ODD: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "directory": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
    "too long a link": lambda path: path.symlink_to("a/" * 2000),
    "nothing": lambda _: None,
}


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOKING", 1e9)


def processor_seconds(exporter: Exporter) -> float:
    """The processor time that an exporter has taken."""
    fields = Path(f"/proc/{exporter.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("kind", ODD)
def test_a_log_that_becomes_something_else_is_said_once_and_read_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(files, "SEARCH", 0.2)
    log = tmp_path / "mail.log"
    write(log, 0)
    follower = Follower(log)
    follower.poll()
    log.rename(tmp_path / "mail.log.1")
    ODD[kind](log)
    for _ in range(4):
        assert follower.poll() == [0]
        time.sleep(0.15)
    assert not follower.source.up
    if kind != "nothing":
        assert len(follower.said) == 1, follower.said
        assert follower.said[0].startswith(f"cannot read {log}: ")
    if log.is_dir() and not log.is_symlink():
        log.rmdir()
    else:
        log.unlink(missing_ok=True)
    write(log, 1)
    for _ in range(3):
        follower.poll()
        time.sleep(0.1)
    assert follower.read == [0, 1]
    assert follower.source.up
    follower.stop()


@pytest.mark.slow
def test_odd_files_take_no_time_and_stop_nothing(tmp_path: Path) -> None:
    logs = [tmp_path / f"{kind.replace(' ', '-')}.log" for kind in ODD]
    for number, log in enumerate(logs):
        write(log, number)
    with Exporter("--from-start", *logs) as exporter:
        for log, make in zip(logs, ODD.values(), strict=True):
            log.unlink()
            make(log)
        time.sleep(3)
        before = processor_seconds(exporter)
        time.sleep(3)
        assert processor_seconds(exporter) - before < 1
        assert all(f'bouncemeter_source_up{{source="{log}"}} 0.0' in exporter.page() for log in logs)
        exporter.process.send_signal(signal.SIGTERM)
        exporter.process.wait(timeout=60)


def test_a_name_that_is_not_utf_8_is_served(tmp_path: Path) -> None:
    state, log = tmp_path / "state.db", tmp_path / os.fsdecode(b"m\xe4il.log")
    write(log, 0, 1)
    for number in (2, 3):
        with Exporter("--state", state, "--from-start", log) as exporter:
            shown = f'bouncemeter_lines_total{{mta="postfix",result="event",source="{tmp_path}/m\\\\xe4il.log"}}'
            exporter.wait_for_value(shown, number)
        write(log, 9)


def test_a_source_that_is_no_log_is_down(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text("nothing of a known form\n" * 3000)
    follower = Follower(log)
    follower.poll()
    assert not follower.source.up
    assert len(follower.said) == 1
    follower.stop()


@pytest.mark.parametrize("where", ["directory", "pattern"])
def test_a_source_without_a_log_is_down_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(files, "SEARCH", 0.1)
    follower = Follower(tmp_path if where == "directory" else tmp_path / "*.log")
    for _ in range(3):
        follower.poll()
        time.sleep(0.1)
    assert not follower.source.up
    assert follower.said == [f"cannot read {follower.argument}: there is no log"]
    write(tmp_path / "mail.log", 1)
    assert follower.poll() == [1]
    assert follower.source.up
    follower.stop()


def test_a_log_that_is_mounted_by_itself_is_said(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside.log", tmp_path / "in side.log"
    write(outside, 0)
    inside.touch()
    if os.geteuid() or subprocess.run(["mount", "--bind", outside, inside], check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        follower = Follower(inside)
        assert follower.poll() == [0]
        assert follower.said == [
            f"{inside} is mounted by itself, so a rotation cannot be seen: mount its folder instead"
        ]
        follower.stop()
    finally:
        subprocess.run(["umount", "--lazy", inside], check=True)
    follower = Follower(outside)
    follower.poll()
    assert follower.said == []
    follower.stop()


def test_a_wrong_format_is_said(tmp_path: Path, bouncemeter: Run) -> None:
    log = tmp_path / "mail.log"
    write(log, *range(5))
    sentence = f"{log}: no line is of the format exim that was named for it"
    assert sentence in bouncemeter("report", "--format-of", "exim", log).stderr
    assert sentence in bouncemeter("report", "--format-of", "exim", "--jobs", "2", log).stderr
    assert "no line" not in bouncemeter("report", "--format-of", "postfix", log).stderr
    for sample in LOGS.glob("*/*.log"):
        assert "no line" not in bouncemeter("report", "--format-of", sample.parent.name, sample).stderr, sample
    with Exporter("--from-start", "--format-of", "exim", log) as exporter:
        exporter.wait_for_value(f'bouncemeter_source_up{{source="{log}"}}', 0)
    assert [line for line in exporter.said if "no line" in line] == [f"bouncemeter: {sentence}"]
