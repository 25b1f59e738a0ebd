"""What an archive costs: `python -m tests.bench.archive 5000000` writes twenty files with so many lines, a day in each,
reads them by `report` and `backfill`, and compares what they say, and what a real Prometheus says of its blocks, if it
is there."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from tests.bench.traffic import day
from tests.servers.programs import use_unpacked
from tests.servers.prometheus import Prometheus

FILES = 20
BEGIN = datetime(2026, 10, 1, tzinfo=UTC)

MEASURED = """
import atexit, resource, runpy, sys
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
runpy.run_module("bouncemeter_exporter", run_name="__main__")
"""
"""Runs the command, and prints its peak of memory in KB on standard error."""


def write(folder: Path, lines: int) -> list[Path]:
    """Logs of Postfix, a day in each file, every other compressed."""
    found = []
    for number in range(FILES):
        date = BEGIN + timedelta(days=number)
        stamp = f"{date:%b %e}"
        text = "".join(f"{stamp}{line[6:]}\n" for line in day("postfix", lines // FILES, seed=number))
        path = folder / (f"mail.log.{FILES - number}" + ".gz" * (number % 2))
        path.write_bytes(gzip.compress(text.encode(), 1) if number % 2 else text.encode())
        last = (date + timedelta(days=1)).timestamp()
        os.utime(path, (last, last))
        found.append(path)
    return found


def run(*words: object) -> tuple[str, float, float, float]:
    """What a command prints, its CPU seconds, seconds, and its peak of memory in MB."""
    begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", MEASURED, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return done.stdout, cpu, time.monotonic() - begin, int(done.stderr.split()[-1]) / 1024


def main(lines: int) -> None:
    """Print a table for the documentation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "logs").mkdir()
        files = write(folder / "logs", lines)
        print("| command | CPU, s | time, s | lines a second | peak memory, MB |\n|---|--:|--:|--:|--:|")
        printed = {}
        for title, words in {
            "`report`, one core": ("report", "--jobs", "1", "--format", "json", *files),
            "`backfill` into a folder": ("backfill", "--output", folder / "days", *files),
            "`backfill` into one file": ("backfill", "--output", folder / "past.om", *files),
        }.items():
            printed[title], cpu, seconds, peak = run(*words)
            print(f"| {title} | {cpu:.0f} | {seconds:.0f} | {lines / cpu:,.0f} | {peak:.0f} |", flush=True)
        recipients = json.loads(next(iter(printed.values())))["recipients"]
        for outcome in ("delivered", "bounced", "expired"):
            for path in (max((folder / "days").glob("*.om")), folder / "past.om"):
                pattern = rf'^mail_recipients_total\{{.*outcome="{outcome}".*\}} (\S+) (\d+)$'
                values = re.findall(pattern, path.read_text(), re.MULTILINE)
                end = max(int(moment) for _, moment in values)
                counted = sum(float(value) for value, moment in values if int(moment) == end)
                assert counted == recipients[outcome], f"{path}: {counted} {outcome}, not {recipients[outcome]}"
        size = sum(each.stat().st_size for each in (folder / "days").iterdir())
        print(f"\nThe totals are the same. {size / 1e6:,.0f} MB of OpenMetrics.", flush=True)
        if shutil.which("promtool"):
            serve(folder, recipients)


def serve(folder: Path, recipients: dict[str, int]) -> None:
    """Let Prometheus serve the past, and compare what it counts. Then record the rules for the past, too."""
    begin, data = time.monotonic(), folder / "data"
    days = sorted((folder / "days").glob("*.om"))
    for path in days:
        promtool("tsdb", "create-blocks-from", "openmetrics", path, data)
    print(f"promtool made blocks in {time.monotonic() - begin:.0f} s: {megabytes(data):,.0f} MB.", flush=True)
    first = datetime.fromisoformat(f"{days[0].stem}T00:00:00+00:00")
    end = max(map(int, re.findall(r"^mail_recipients_total.* (\d+)$", days[-1].read_text(), re.MULTILINE)))
    flags = ["--storage.tsdb.retention.time=10y"]
    with Prometheus(folder, 1, flags=flags) as prometheus:
        for outcome in ("delivered", "bounced", "expired"):
            query = f'sum(mail_recipients_total{{outcome="{outcome}"}})'
            (answer,) = prometheus.ask("query", query=query, time=str(end))["result"]
            assert float(answer["value"][1]) == recipients[outcome], f"{answer} {outcome}, not {recipients[outcome]}"
        print("Prometheus has the same totals.", flush=True)
        begin, rules = time.monotonic(), folder / "recorded"
        run("rules", "export", folder / "rules")
        exported = yaml.safe_load((folder / "rules" / "bouncemeter.rules.yml").read_text())
        groups = [each for each in exported["groups"] if each["name"] == "bouncemeter-5m"]
        (folder / "past.yml").write_text(yaml.safe_dump({"groups": groups}))
        promtool(
            *("tsdb", "create-blocks-from", "rules", "--start", first.isoformat(), "--end", str(end)),
            *("--url", f"http://127.0.0.1:{prometheus.port}", "--output-dir", rules),
            folder / "past.yml",
        )
        print(f"promtool recorded the rules in {time.monotonic() - begin:.0f} s: {megabytes(rules):,.0f} MB.")
    for block in rules.iterdir():
        block.rename(data / block.name)
    with Prometheus(folder, 1, flags=flags) as prometheus:
        for outcome in ("delivered", "bounced", "expired"):
            query = f'sum(sum_over_time(series:mail_recipients:increase5m{{outcome="{outcome}"}}[1y]))'
            (answer,) = prometheus.ask("query", query=query, time=str(end))["result"]
            print(f"Recorded: {answer['value'][1]} {outcome}; the last five minutes may lack.")


def promtool(*words: object) -> None:
    """Run promtool."""
    subprocess.run(["promtool", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def megabytes(folder: Path) -> float:
    """What the files below a folder take."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) / 1e6


if __name__ == "__main__":
    use_unpacked()
    main(int(sys.argv[1]))
