"""What the exporter itself costs: to start, to do nothing, to be asked, to remember.

`make bench` prints it below the comparison with other tools; every figure is of a process as users run it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

from bouncemeter.knowledge.codes import catalogue
from bouncemeter.tables import table

from tests.bench.traffic import day
from tests.servers.exporter import Exporter

LOGS = 10
"""Logs that an idle exporter follows."""

SERIES = 5_000
IDLE = 60.0
"""Seconds for which nothing happens."""

SCRAPES = 30


def rows(waiting: int) -> Iterator[tuple[str, str]]:
    """Each thing measured, and what it took.

    Args:
        waiting: How many recipients wait in the longest queue.
    """
    yield "`bouncemeter --version`, CPU", f"{started('--version'):.2f} s"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(LOGS):
            (folder / f"mail{number}.log").write_text("".join(f"{line}\n" for line in day("postfix", 1000, number)))
        logs = [folder / f"mail{number}.log" for number in range(LOGS)]
        with Exporter("--from-start", "--state", folder / "state.db", *logs) as exporter:
            begun = used(exporter)
            time.sleep(5)
            before, sleeps = used(exporter), exporter.switches()
            time.sleep(IDLE)
            cpu, woken = used(exporter) - before, exporter.switches() - sleeps
            yield "`serve`, ready with ten short logs, CPU", f"{begun:.2f} s"
            yield "`serve`, idle with ten logs, CPU an hour", f"{cpu * 3600 / IDLE:.1f} s ({100 * cpu / IDLE:.3f} %)"
            yield "`serve`, idle with ten logs, wake-ups an hour", f"{woken * 3600 / IDLE:.0f}"
            yield "`serve`, idle with ten logs, memory", f"{memory(exporter)} MB"
        log = folder / "series.log"
        log.write_text("".join(bounces()))
        with Exporter("--from-start", log) as exporter:
            times = []
            for _ in range(SCRAPES):
                time.sleep(1)
                begin = time.monotonic()
                page = exporter.page()
                times.append((time.monotonic() - begin) * 1000)
            series = sum(not line.startswith("#") for line in page.splitlines())
            yield f"a scrape of {series:,} series", f"{statistics.median(times):.0f} ms (slowest {max(times):.0f} ms)"
        log = folder / "waiting.log"
        with log.open("w") as file:
            file.writelines(deferrals(waiting))
        with Exporter("--from-start", log) as exporter:
            yield f"{waiting:,} recipients waiting, CPU to read their lines", f"{used(exporter):.1f} s"
            yield f"{waiting:,} recipients waiting, memory", f"{memory(exporter)} MB"


def bounces() -> Iterator[str]:
    """Hard and soft bounces at many providers, with codes enough for the series that are wanted."""
    hosts = [entry["hosts"][0] for entry in table("knowledge/providers").values() if entry.get("hosts")]
    codes = [str(each.code) for each in catalogue() if each.code.digit in (4, 5)]
    for number, (code, host) in enumerate(islice(product(codes, hosts), SERIES // 2)):
        status = "bounced" if code[0] == "5" else "deferred"
        yield (
            f"Nov 27 03:00:00 mx1 postfix/smtp[1]: {number + 0x10000:X}F: to=<a@d.example>,"
            f" relay=mx.{host}[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn={code}, status={status}"
            f" (host mx.{host}[192.0.2.1] said: {code[0]}50 {code})\n"
        )


def deferrals(recipients: int) -> Iterator[str]:
    """Mail of which every recipient waits."""
    for number in range(recipients):
        name = f"{number + 0x10000:X}F"
        yield f"Nov 27 03:00:00 mx1 postfix/smtpd[1]: {name}: client=app1[192.0.2.7]\n"
        yield f"Nov 27 03:00:00 mx1 postfix/qmgr[2]: {name}: from=<a@news.example>, size=400, nrcpt=1 (queue active)\n"
        yield (
            f"Nov 27 03:00:01 mx1 postfix/smtp[3]: {name}: to=<user{number}@customer{number % 200}.example>,"
            f" relay=mx.customer{number % 200}.example[198.51.100.7]:25, delay=1, delays=0/0/0/1, dsn=4.2.2,"
            " status=deferred (host mx said: 452 4.2.2 The recipient's inbox is out of storage space)\n"
        )


def started(*words: str) -> float:
    """CPU seconds of a command."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "bouncemeter_exporter", *words], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def used(exporter: Exporter) -> float:
    """CPU seconds of a process's threads so far, to the nanosecond."""
    stats = Path(f"/proc/{exporter.process.pid}/task").glob("*/schedstat")
    return sum(int(each.read_text("ascii").split()[0]) for each in stats) / 1e9


def memory(exporter: Exporter) -> int:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{exporter.process.pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) // 1024
