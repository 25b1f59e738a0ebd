"""Killed again and again while logs are written and rotated: nothing is lost, and nothing is counted twice.

`CRASHES` and `SEED` in the environment make it longer and another.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counting.test_lives import COLUMNS, START, WRITERS, Life, Recipient, Truth
from tests.servers.net import free_port, is_ready, wait_until
from tests.servers.prometheus import Prometheus
from tests.sources.test_following import compress, rename

CRASHES = int(os.environ.get("CRASHES", "100"))
SEED = int(os.environ.get("SEED", "1"))


def lives(chance: random.Random) -> Iterator[Life]:
    """Messages without end, two a second."""
    for number in range(1_000_000):
        gives_up = chance.choice(["expired", None])
        recipients = []
        for place in range(chance.choice([1, 1, 2, 4])):
            end = chance.choice(["delivered", "delivered", "bounced", gives_up])
            least = 0 if end in ("delivered", "bounced") else 1
            recipients.append(Recipient(f"r{place}@d{number}.test", chance.choice([least, least, 3]), end))
        sender = chance.choice(["ann@ann.src.test", "bob@src.test", ""])
        yield Life(f"mx{number % 2}", f"{0xA0000 + number:X}F", sender, START + number / 2, recipients)


class Log:
    """A log that is written and rotated in a thread of its own, for use in a `with`; then everything is written."""

    def __init__(self, mta: str, folder: Path, chance: random.Random) -> None:
        self.mta, self.chance, self.truth, self.lines = mta, chance, Truth(), 0
        self.folder = folder
        self.path = folder / "mail.log" if mta != "exchange" else self._next_hour(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Log:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        scripts = lives(self.chance)
        pending: list[tuple[float, str]] = []
        now, rotated, hour = START, time.monotonic(), 0
        while not self._stop.is_set() or pending:
            if not self._stop.is_set():
                for _ in range(10):
                    life = next(scripts)
                    self.truth.add(life)
                    pending += WRITERS[self.mta](life, self.chance)
                    now = life.begins
            else:
                now = float("inf")
            pending.sort()
            due = [line for moment, line in pending if moment < now - 10]
            pending = pending[len(due) :]
            self._append(due)
            time.sleep(0.02)
            if time.monotonic() - rotated > self.chance.uniform(0.3, 3.0):
                rotated, hour = time.monotonic(), hour + 1
                self._rotate(hour)

    def _append(self, due: list[str]) -> None:
        """Some lines at a time, not always whole ones."""
        data = "".join(f"{line}\n" for line in due).encode()
        self.lines += len(due)
        while data:
            size = self.chance.choice([100, 3000, 100_000])
            with self.path.open("ab", buffering=0) as file:
                file.write(data[:size])
            data = data[size:]

    def _next_hour(self, hour: int) -> Path:
        path = self.folder / f"MSGTRK{20261125000 + hour}-1.LOG"
        head = ["#Software: Microsoft Exchange Server", "#Log-type: Message Tracking Log", f"#Date: {hour}"]
        path.write_text("\n".join([*head, f"#Fields: {COLUMNS}\n"]))
        return path

    def _rotate(self, hour: int) -> None:
        if self.mta == "exchange":
            self.path = self._next_hour(hour)
            return
        rename(self.path)
        self.path.touch()
        # All are kept: what a rotation deletes before it is read is lost.
        second = self.path.with_name(f"{self.path.name}.{self.chance.choice([1, 2])}")
        if self.chance.random() < 0.7 and second.exists():
            compress(second)


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize(("mta", "crashes"), [("postfix", CRASHES), ("exchange", CRASHES // 8), ("exim", CRASHES // 8)])
@pytest.mark.slow
def test_killed_at_any_moment(server_dir: Path, mta: str, crashes: int) -> None:
    chance = random.Random(SEED)
    folder, port = server_dir / "logs", free_port()
    folder.mkdir()
    log = Log(mta, folder, random.Random(SEED))
    log.path.touch()
    state, config = server_dir / "state.db", server_dir / "bouncemeter.toml"
    config.write_text('[senders.ann]\ndomains = ["ann.src.test"]\n')
    command = [sys.executable, "-m", "bouncemeter_exporter", "serve", "--config", str(config), "--state", str(state)]
    command += [
        "--format-of",
        mta,
        "--web.listen-address",
        f"127.0.0.1:{port}",
        str(log.path if mta != "exchange" else folder),
    ]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "TZ": "UTC"}
        )

    with Prometheus(server_dir, port, interval="200ms") as prometheus:
        process = start()
        by_class = f'mail_bounces_by_class_total{{mta="{mta}"}}'
        prometheus.wait_for_value(f"sum({by_class})", 0)
        with log:
            for _ in range(crashes):
                time.sleep(chance.uniform(0.0, 0.9) if chance.random() < 0.95 else 3.0)
                process.kill()
                _, said = process.communicate()
                assert b"Traceback" not in said, said.decode()
                time.sleep(chance.choice([0.0, 0.0, 0.2, 1.0]))
                process = start()
        wait_until(lambda: is_ready(port), 300, "not ready")
        # The first file's header was there before the exporter came.
        headers = 4 * (len(list(folder.iterdir())) - 1) if mta == "exchange" else 0
        truth = log.truth
        prometheus.wait_for_value("sum(bouncemeter_lines_total)", log.lines + headers, seconds=600)
        # Each is asked until it is answered: on a busy machine a scrape may fail, and there is no value for a moment.
        for outcome, number in truth.recipients.items():
            prometheus.wait_for_value(f'sum(mail_recipients_total{{outcome="{outcome}"}})', number)
        prometheus.wait_for_value("sum(mail_recipients_total)", truth.recipients.total())
        prometheus.wait_for_value("sum(mail_notifications_total)", sum(truth.notifications.values()))
        prometheus.wait_for_value("sum(mail_deferred_recipients) or vector(0)", truth.waiting)
        prometheus.wait_for_value("sum(bouncemeter_ledger_evicted_total)", 0)
        for (group, kind), number in truth.by_sender.items():
            prometheus.wait_for_value(f'sum(mail_bounces_by_sender_total{{sender="{group}",kind="{kind}"}})', number)
        kinds = Counter({"soft": truth.soft, "hard": truth.hard})
        assert {kind: round(number, 6) for kind, number in prometheus.increases(by_class, "kind").items()} == kinds
        for name in prometheus.ask("label/__name__/values"):
            if name.endswith(("_total", "_bucket", "_sum", "_count")) and name.startswith(("mail_", "bouncemeter_")):
                assert prometheus.value(f"max(resets({name}[1h]))") == 0, name
        process.terminate()
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    print(f"{mta}: {crashes} times killed, {log.lines:,} lines, {kinds.total():,} bounces: difference 0")
