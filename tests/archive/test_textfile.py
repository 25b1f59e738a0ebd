"""Metrics in a file: what `serve` shows, whole at every moment, read by a real node_exporter."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bouncemeter_exporter.archive.whole import whole_file
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import LOGS, Run
from tests.servers.exporter import Exporter
from tests.servers.net import free_port, is_ready, wait_until

LOG = LOGS / "postfix/relay.log"


@contextmanager
def textfile(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """The command, until SIGTERM; it must end with 0."""
    command = [sys.executable, "-m", "bouncemeter_exporter", "textfile", "--interval", "1s", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "TZ": "UTC"})
    assert process.stderr is not None
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert b"Traceback" not in said


def counted(text: str) -> dict[tuple[str, ...], float]:
    """The metrics' values, but for those of the process, of time and of where the log is. Programs differ in the order
    of labels, and in how they write the bound 1 of a bucket."""
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {
        (
            each.name,
            *(f"{label}={value.removesuffix('.0')}" for label, value in sorted(each.labels.items())),
        ): each.value
        for each in samples
        if not re.match("process_|mail_deferred_oldest|bouncemeter_(source|state|lines)", each.name)
    }


def test_it_shows_what_serve_shows_and_follows_the_log(tmp_path: Path) -> None:
    log, file = tmp_path / "mail.log", tmp_path / "bouncemeter.prom"
    lines = LOG.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[: len(lines) // 2]))
    with textfile("--no-state", "--from-start", "--output", file, log), Exporter("--from-start", log) as exporter:
        for _ in range(2):
            wait_until(
                lambda: file.exists() and counted(file.read_text()) == counted(exporter.page()), 300, "they differ"
            )
            assert "mail_recipients_total" in file.read_text()
            with log.open("a") as more:
                more.writelines(lines[len(lines) // 2 :])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bouncemeter.prom", "mail.log"]


@pytest.mark.needs("node exporter")
def test_node_exporter_shows_it(tmp_path: Path) -> None:
    folder, port = tmp_path / "textfiles", free_port()
    folder.mkdir()
    collectors = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}"]
    command = ["prometheus-node-exporter", *collectors, f"--web.listen-address=127.0.0.1:{port}"]
    node = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_ready(port, "/"), 60, "node_exporter does not become ready")
        file = folder / "bouncemeter.prom"
        with textfile("--no-state", "--from-start", "--output", file, LOG):

            def shown() -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    return str(answer.read().decode())

            wait_until(lambda: file.exists() and "mail_delivery_delay" in file.read_text(), 300, "nothing is counted")
            mine, theirs = counted(file.read_text()), counted(shown())
            assert {name: theirs.get(name) for name in mine} == mine
            assert "node_textfile_scrape_error 0" in shown()
    finally:
        node.terminate()
        node.wait(60)


def test_once_goes_on_where_the_last_run_stopped_and_says_nothing(bouncemeter: Run, tmp_path: Path) -> None:
    log, file, state = tmp_path / "mail.log", tmp_path / "b.prom", tmp_path / "state.db"
    lines = LOG.read_text().splitlines(keepends=True)
    command = ["textfile", "--once", "--from-start", "--state", state, "--output", file, log]
    for end in (len(lines) // 3, len(lines) // 3, len(lines)):
        log.write_text("".join(lines[:end]))
        done = bouncemeter(*command)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
    with Exporter("--from-start", log) as exporter:
        assert counted(file.read_text()) == counted(exporter.page())
    assert bouncemeter("textfile", "--once", "--state", state, "--output", file, log).stderr == ""


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, ends = tmp_path / "a.prom", []
    path.write_text("begin\nend\n")
    stopping = threading.Event()

    def read() -> None:
        while not stopping.is_set():
            ends.append(path.read_text().endswith("end\n"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        with whole_file(path) as stream:
            stream.write(b"x" * number * 1000)
            stream.write(b"end\n")
    stopping.set()
    reader.join()
    assert all(ends)
    assert len(ends) > 10
    with pytest.raises(RuntimeError), whole_file(path) as stream:  # noqa: PT012 - the second breaks off
        stream.write(b"half")
        raise RuntimeError
    assert path.read_text().endswith("end\n")
    assert [each.name for each in tmp_path.iterdir()] == ["a.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    folder, log = tmp_path / "folder", tmp_path / "mail.log"
    folder.mkdir()
    log.write_text(LOG.read_text())
    file = folder / "b.prom"
    with textfile("--no-state", "--from-start", "--output", file, log):
        wait_until(file.exists, 60, "nothing is written")
        folder.rename(tmp_path / "away")
        time.sleep(2.5)
        (tmp_path / "away").rename(folder)
        file.unlink()
        wait_until(file.exists, 60, "it is not written again")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--output", "b.txt"], "end in .prom"),
        (["--output", "nowhere/b.prom"], "there is no folder nowhere"),
        (["--output", "b.prom", "--once", "--no-state"], "--once needs the state"),
        (["--output", "b.prom", "--interval", "now"], "not a duration"),
    ],
)
def test_wrong_arguments_are_a_sentence(bouncemeter: Run, arguments: list[str], why: str) -> None:
    done = bouncemeter("textfile", *arguments, LOG, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert why in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["textfile", "--once", "--from-start", "--output", "mail.prom"],
        ["backfill", "--output", "mail.om"],
        ["backfill", "--output", "days"],
    ],
)
def test_no_log_is_replaced_by_metrics(bouncemeter: Run, tmp_path: Path, words: list[str]) -> None:
    output = tmp_path / words[-1]
    log = output if output.suffix else output / "2026-11-24.om"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(LOG.read_bytes())
    done = bouncemeter(*words[:-1], output, log, check=False)
    assert done.returncode in (1, 2)
    assert "a file is there which holds no metrics" in done.stderr
    assert log.read_bytes() == LOG.read_bytes()
    log.write_text("# EOF\n")
    bouncemeter(*words[:-1], output, LOG)
    assert "mail_recipients_total" in log.read_text()


def test_once_tells_cron_what_it_could_not_read(bouncemeter: Run, tmp_path: Path) -> None:
    output, other = tmp_path / "mail.prom", tmp_path / "broken.log.gz"
    other.write_bytes(b"this is not gzip")
    command = ["textfile", "--once", "--from-start", "--output", output, LOG, other]
    done = bouncemeter(*command, check=False)
    assert done.returncode == 1
    assert "mail_recipients_total" in output.read_text()
