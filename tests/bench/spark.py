"""What Spark takes to read the logs of a fleet, and to count its recipients: `python -m tests.bench.spark 1000000`.

Sixteen simulated Postfix servers, on this machine, with one, two and four tasks at a time. Needs Java.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.traffic import day

SERVERS = 16
TASKS = (1, 2, 4)


def main(lines: int) -> None:
    """Print a table for the documentation.

    Args:
        lines: How many lines the servers write together.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for server in range(SERVERS):
            written = (line.replace(" mx1 ", f" mx{server} ", 1) for line in day("postfix", lines // SERVERS, server))
            (folder / f"mx{server}.log").write_text("".join(f"{line}\n" for line in written))
        print("| tasks at a time | step | time, s | CPU, s | lines a second | peak memory of a Python worker, MB |")
        print("|--:|---|--:|--:|--:|--:|", flush=True)
        for tasks in TASKS:
            command = [sys.executable, "-m", "tests.bench.spark", str(lines), str(tasks), name]
            subprocess.run(command, check=True, env={**os.environ, "TZ": "UTC", "PYSPARK_PYTHON": sys.executable})


def session(tasks: int) -> Any:
    """A session with some tasks at a time."""
    from pyspark.sql import SparkSession

    settings: dict[str, Any] = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(SERVERS),
        "spark.driver.memory": "2g",
    }
    return SparkSession.builder.master(f"local[{tasks}]").config(map=settings).getOrCreate()


def measure(lines: int, tasks: int, folder: str) -> None:
    """Print the rows of one number of tasks; at last, compare the numbers with those of `report`."""
    from bouncemeter_exporter.archive.fleet import report
    from bouncemeter_exporter.archive.spark import recipients

    spark = session(tasks)

    def load(pattern: str) -> None:
        entries = spark.read.format("bouncemeter").option("entries", "true").load(f"{folder}/{pattern}")
        entries.write.mode("overwrite").parquet(f"{folder}/entries")

    def count() -> None:
        recipients(spark.read.parquet(f"{folder}/entries")).write.mode("overwrite").parquet(f"{folder}/recipients")

    load("mx1.log")  # so that Java and the workers have started
    count()
    steps: dict[str, Callable[[], None]] = {
        "lines to a table of entries": lambda: load("*.log"),
        "to recipients": count,
    }
    for name, step in steps.items():
        begin, used = time.monotonic(), cpu_seconds()
        step()
        took, cpu = time.monotonic() - begin, cpu_seconds() - used
        print(
            f"| {tasks} | {name} | {took:.1f} | {cpu:.1f} | {lines / took:,.0f} | {peak_of_workers():.0f} |", flush=True
        )
    if tasks == TASKS[-1]:
        found = report(spark.read.parquet(f"{folder}/entries"), spark.read.parquet(f"{folder}/recipients"))
        command = [sys.executable, "-m", "bouncemeter_exporter", "report", "--format", "json"]
        logs = sorted(str(each) for each in Path(folder).glob("*.log"))
        done = subprocess.run([*command, *logs], check=True, capture_output=True, env={**os.environ, "TZ": "UTC"})
        truth = json.loads(done.stdout)
        for key in ("attempts", "recipients", "bounces", "rejections", "notifications", "classes"):
            assert found[key] == truth[key], f"{key}: {found[key]}, not {truth[key]}"
        print(f"\nThe numbers are those of report: {truth['recipients']}.")
    spark.stop()


def processes() -> Iterator[Path]:
    """The folders below /proc of this process, and of those that it started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid():
            yield Path(f"/proc/{pid}")


def cpu_seconds() -> float:
    """What all processes have used, those that ended too."""
    ticks = 0
    for folder in processes():
        with suppress(OSError):
            ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_of_workers() -> float:
    """The peak memory of the largest Python worker, in megabytes."""
    peaks = [0]
    for folder in processes():
        with suppress(OSError):
            if b"pyspark.daemon" in (folder / "cmdline").read_bytes():
                peaks.append(int((folder / "status").read_text().partition("VmHWM:")[2].split()[0]))
    return max(peaks) / 1024


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
