"""The past by remote write, on a real Prometheus and a real VictoriaMetrics."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.archive import remote_write
from bouncemeter_exporter.archive.backfill import Past, backfill
from bouncemeter_exporter.archive.remote_write import SLICE, RemoteWrite, RemoteWriteError
from bouncemeter_exporter.archive.samples import Samples
from bouncemeter_exporter.serving.exposition import Family

from tests.archive.test_backfill import HOUR, LABELS, Kept, archive, logs, reported
from tests.conftest import Run
from tests.servers.net import free_port, is_ready, wait_until
from tests.servers.prometheus import Prometheus

__all__ = ["archive"]

OPEN_WINDOW = "storage:\n  tsdb:\n    out_of_order_time_window: 60d\n"


def truth_of(path: Path, moments: list[int]) -> dict[int, dict[str, int]]:
    return {moment: reported(logs(path), moment)["recipients"] for moment in moments}


def moments(path: Path) -> list[int]:
    """Some moments of a log, and its end."""
    kept = Kept()
    backfill(Past(logs(path), 60), SLICE, kept)
    return [kept.pieces[0].times[0] + HOUR, kept.pieces[-1].times[0], kept.pieces[-1].times[-1]]


def sent(bouncemeter: Run, url: str, path: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["backfill", "--remote-write", url, "--instance", LABELS["instance"], *more]
    return bouncemeter(*command, path, check=check)


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("scraping", [False, True], ids=["empty", "with samples of now"])
def test_prometheus_takes_the_past_once_and_again(
    archive: Path, bouncemeter: Run, tmp_path: Path, *, scraping: bool
) -> None:
    log, flags = archive / "mail.log", ["--web.enable-remote-write-receiver"]
    more = OPEN_WINDOW if scraping else ""
    with Prometheus(tmp_path, free_port(), more=more, flags=flags) as prometheus:
        if scraping:
            wait_until(lambda: prometheus.value("up") is not None, 60, "Prometheus does not scrape")
        url = f"http://127.0.0.1:{prometheus.port}/api/v1/write"
        for _ in range(2 if scraping else 1):
            done = sent(bouncemeter, url, log)
            assert re.search("[0-9,]+ samples of [0-9,]+ series", done.stdout)
            for moment, recipients in truth_of(log, moments(log)).items():
                for outcome, number in recipients.items():
                    query = f'sum(mail_recipients_total{{job="bouncemeter",outcome="{outcome}"}}) or vector(0)'
                    (found,) = prometheus.ask("query", query=query, time=str(moment))["result"]
                    assert float(found["value"][1]) == number


@pytest.mark.needs("prometheus")
def test_a_prometheus_that_takes_no_past_is_a_sentence(archive: Path, bouncemeter: Run, tmp_path: Path) -> None:
    with Prometheus(tmp_path, free_port(), flags=["--web.enable-remote-write-receiver"]) as prometheus:
        wait_until(lambda: prometheus.value("up") is not None, 60, "Prometheus does not scrape")
        url = f"http://127.0.0.1:{prometheus.port}/api/v1/write"
        done = sent(bouncemeter, url, archive / "mail.log", check=False)
    assert done.returncode == 1
    assert "out_of_order_time_window" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def victoria(base: Path) -> Iterator[str]:
    port = free_port()
    command = ["victoria-metrics", f"-storageDataPath={base}/data", f"-httpListenAddr=127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "-retentionPeriod=10y", "-loggerLevel=ERROR"])
    try:
        wait_until(lambda: is_ready(port, "/health"), 60, "VictoriaMetrics does not become ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.needs("victoria-metrics")
def test_victoria_metrics_takes_the_past_once_and_again(archive: Path, bouncemeter: Run, tmp_path: Path) -> None:
    log = archive / "mail.log"
    with victoria(tmp_path) as url:

        def asked(query: str, moment: int) -> list[dict[str, Any]]:
            text = urllib.parse.urlencode({"query": query, "time": moment, "nocache": 1})
            with urllib.request.urlopen(f"{url}/api/v1/query?{text}", timeout=60) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

        for _ in range(2):
            sent(bouncemeter, f"{url}/api/v1/write", log)
            urllib.request.urlopen(f"{url}/internal/force_flush", timeout=60).close()
            for moment, recipients in truth_of(log, moments(log)).items():
                for outcome, number in recipients.items():
                    query = f'sum(mail_recipients_total{{outcome="{outcome}"}}) or vector(0)'
                    assert [float(each["value"][1]) for each in asked(query, moment)] == [number]


class Receiver(BaseHTTPRequestHandler):
    """Answers as it is told, and keeps what it got."""

    answers: list[tuple[int, bytes]]
    got: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.headers.get("Authorization", ""), self.headers.get("X-Scope-OrgID", ""), body))
        status, text = self.answers.pop(0) if self.answers else (204, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiver(*answers: tuple[int, bytes]) -> Iterator[tuple[str, type[Receiver]]]:
    kind = type("Kind", (Receiver,), {"answers": list(answers), "got": []})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}/write", kind
        server.shutdown()
        thread.join()


def few() -> Samples:
    family = Family("mail_notifications", "counter", "Text.", ("mta",))
    family.add(("postfix",), 3)
    samples = Samples()
    from bouncemeter_exporter.archive.samples import SeriesName

    samples.add(1_800_000_000, {SeriesName(family.name, "_total", ("mta",), ("postfix",)): 3.0}, {family.name: family})
    return samples


def test_a_busy_receiver_gets_it_again_with_its_password_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_write, "RETRIES", (0.01, 0.01, 0.01))
    said: list[str] = []
    with receiver((503, b"busy\x1b[31m"), (429, b"slower")) as (place, kind):
        target = RemoteWrite(f"http://ann:p%40ss@{place}", LABELS, ["X-Scope-OrgID: team"], said.append)
        target.write(few())
        target.end()
    assert len(kind.got) == 3
    assert len(set(kind.got)) == 1
    authorization, tenant, body = kind.got[0]
    assert (authorization, tenant) == ("Basic YW5uOnBAc3M=", "team")
    assert b"mail_notifications_total" in body
    assert "503" in said[0]
    assert all(each.isprintable() for each in said)
    assert not any("p@ss" in each or "p%40ss" in each for each in said)


@pytest.mark.parametrize(("status", "text"), [(401, b"who?"), (400, b"invalid labels"), (404, b"")])
def test_what_cannot_be_mended_by_waiting_is_a_sentence(status: int, text: bytes) -> None:
    with receiver((status, text)) as (place, _), pytest.raises(RemoteWriteError, match=str(status)):
        RemoteWrite(f"http://{place}", LABELS).write(few())


def test_nobody_there_is_a_sentence_after_some_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_write, "RETRIES", (0.01,))
    with pytest.raises(RemoteWriteError, match="refused"):
        RemoteWrite(f"http://127.0.0.1:{free_port()}/write", LABELS, say=lambda _: None).write(few())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "name one of"),
        (["--output", "a", "--remote-write", "http://localhost/"], "name one of"),
        (["--remote-write", "localhost:9090"], "not a URL"),
        (["--remote-write", "file:///etc/passwd"], "not a URL"),
        (["--remote-write", "http://localhost/", "--header", "a b"], "NAME: VALUE"),
        (["--remote-write", "http://localhost/", "--header", "a: b\r\nc: d"], "NAME: VALUE"),
        (["--output", "a", "--header", "a: b"], "--header is for"),
        (["--output", "a", "--step", "5m"], "--step must be"),
        (["--output", "a", "--step", "often"], "not a duration"),
    ],
)
def test_wrong_arguments_are_a_sentence(
    bouncemeter: Run, archive: Path, arguments: list[str], why: str, tmp_path: Path
) -> None:
    done = bouncemeter("backfill", *arguments, archive / "mainlog", check=False)
    assert (done.returncode, why in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
