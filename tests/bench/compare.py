"""The cost of reading a log, compared with other tools: one table, measured by turns in one run on one machine.

`make bench` runs it. As root on Debian or Ubuntu, it fetches the other tools; the table leaves out those that are
missing. CPU is user and system time of the whole process, including start-up, for the whole log.
"""

from __future__ import annotations

import compileall
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import bouncemeter
import bouncemeter_exporter
from rich.console import Console
from rich.progress import track

from tests.bench.exporter import rows
from tests.bench.traffic import day
from tests.servers.net import free_port, is_ready

PACKAGES = {
    "mtail": "usr/bin/mtail",
    "pflogsumm": "usr/sbin/pflogsumm",
    "exim4-base": "usr/sbin/eximstats",
    "prometheus-postfix-exporter": "usr/bin/prometheus-postfix-exporter",
}
"""Debian packages of other tools, and the program to measure in each."""

TOOLS = Path(".venv/bench")

ATTEMPTS = Path(__file__).parent / "attempts.mtail"
"""A program that counts what needs no message: the part of our metrics that mtail can count."""

MTAIL = """counter mail_attempts by status
/ status=(?P<status>\\w+) \\(/ {
  mail_attempts[$status]++
}
"""
"""A program with one metric: the least that mtail can do."""

PYPARSING = """
import sys
from bouncemeter import {mta}
start, queue_line = {mta}.any_line.grammar, {mta}.queue_line.grammar
for line in open(sys.argv[1]):
    try:
        queue_line.parse_string(start.parse_string(line.rstrip())["message"])
    except Exception:
        pass
"""
SHARE = 50
"""Plain pyparsing reads one in this many lines; its figure is scaled up to all."""

REPORT = "bouncemeter report"
"""The row that all others are compared with."""

TURNS = 5
"""How often each row is measured."""

QUIET = 1.5
"""Seconds without work after which a program counts as having read the whole log that it follows."""


@dataclass
class Cost:
    """What one run took.

    Attributes:
        cpu: Seconds, user and system, of all its processes.
        memory: Peak resident memory, in MB, of its first process.
        time: Seconds from start to end; None if we ended the program.
    """

    cpu: float
    memory: float
    time: float | None = None


def run(command: list[str], until: Callable[[int], bool] | None = None) -> Cost:
    """Run a command to its end, or until `until` is true for its process ID."""
    with tempfile.TemporaryFile() as output:  # grep stops at the first match if its output is thrown away
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "LC_ALL": "C"})
        memory, status = 0, 0
        started, stopped = time.monotonic(), until is not None
        while True:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            memory = max(memory, _peak_memory(process.pid))
            if until is not None and until(process.pid):
                process.send_signal(signal.SIGTERM)
                until = None
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, -signal.SIGTERM):
            output.seek(0)
            printed = output.read().decode("utf-8", "replace")
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {printed}")
    passed = None if stopped else time.monotonic() - started
    return Cost(used.ru_utime + used.ru_stime, memory / 1024, passed)


def _peak_memory(pid: int) -> int:
    """In kB; 0 if the process has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def has_followed(log: Path, followed: Path) -> Callable[[int], bool]:
    """A check whether a process that follows a file has read a log. The first calls append the log to the file."""
    followed.touch()
    started = since = time.monotonic()
    worked = 0

    def ask(pid: int) -> bool:
        nonlocal worked, since
        if time.monotonic() - started < QUIET / 2:
            return False
        if not followed.stat().st_size:
            shutil.copyfile(log, followed)
            since = time.monotonic()
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        now = int(fields[11]) + int(fields[12])
        if now > worked + 1:
            worked, since = now, time.monotonic()
        return time.monotonic() - since > QUIET

    return ask


def fetch() -> None:
    """Unpack the other tools, without installing them."""
    if shutil.which("apt-get") is None or os.getuid() != 0:
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    missing = [name for name, program in PACKAGES.items() if not (TOOLS / program).exists()]
    if not missing:
        return
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-qq", "-y", "libdate-calc-perl"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # for apt's own user
        subprocess.run(["apt-get", "download", "-qq", *missing], check=True, cwd=folder)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(TOOLS)], check=True)


Row = tuple[str, Callable[[], Cost]]
"""A row's title, and what measures it once."""


def rows_of(mta: str, log: Path, folder: Path) -> Iterator[Row]:
    """Every row of one log's table."""

    def catch_up() -> Cost:
        port, state = free_port(), folder / "state.db"
        state.unlink(missing_ok=True)
        flags = ["--state", str(state), "--from-start", "--web.listen-address", f"127.0.0.1:{port}"]
        return run([ours, "serve", *flags, str(log)], lambda _: is_ready(port))

    ours = str(Path(sys.executable).parent / "bouncemeter")
    report = [ours, "report", "--format", "json", str(log)]
    yield "grep -c", lambda: run(["grep", "-c", "=", str(log)])
    yield REPORT, lambda: run([*report, "--jobs", "1"])
    yield "bouncemeter report, all cores", lambda: run(report)
    yield "bouncemeter serve, catching up, with its state", catch_up
    sample, script = folder / "sample.log", folder / "plain.py"
    with log.open("rb") as lines:
        sample.write_bytes(b"".join(line for number, line in enumerate(lines) if number % SHARE == 0))
    script.write_text(PYPARSING.format(mta=mta))
    yield "the same grammars by plain pyparsing", lambda: _scaled(script, sample)
    yield from other_tools(mta, log, folder)


def other_tools(mta: str, log: Path, folder: Path) -> Iterator[Row]:
    """The rows of the other tools that are there."""
    one_metric, followed = folder / "one.mtail", folder / "followed.log"
    one_metric.write_text(MTAIL)

    def perl(package: str) -> Callable[[], Cost]:
        return lambda: run(["perl", str(TOOLS / PACKAGES[package]), str(log)])

    def mtail(program: Path) -> Callable[[], Cost]:
        flags = ["--one_shot", "--progs", str(program), "--logs", str(log)]
        return lambda: run([str(TOOLS / PACKAGES["mtail"]), *flags])

    def follow() -> Cost:
        followed.unlink(missing_ok=True)
        flags = [f"--web.listen-address=127.0.0.1:{free_port()}", f"--postfix.logfile_path={followed}"]
        program = str(TOOLS / PACKAGES["prometheus-postfix-exporter"])
        return run([program, *flags], has_followed(log, followed))

    found = {
        "postfix": {
            "pflogsumm": ("pflogsumm", perl("pflogsumm")),
            "mtail, attempts, relays, delays, rejections": ("mtail", mtail(ATTEMPTS)),
            "mtail, one metric": ("mtail", mtail(one_metric)),
            "prometheus-postfix-exporter": ("prometheus-postfix-exporter", follow),
        },
        "exim": {"eximstats": ("exim4-base", perl("exim4-base"))},
    }
    for title, (package, measure) in found[mta].items():
        if (TOOLS / PACKAGES[package]).exists():
            yield title, measure


def _scaled(script: Path, sample: Path) -> Cost:
    """The cost of a script that reads a sample, as if it read all lines."""
    start, sampled = (run([sys.executable, str(script), str(log)]) for log in (Path(os.devnull), sample))
    return Cost(start.cpu + (sampled.cpu - start.cpu) * SHARE, sampled.memory)


def by_turns(rows: Sequence[Row]) -> dict[str, list[Cost]]:
    """Measure each row `TURNS` times, every other turn from last to first: what else the machine does meets all of
    them."""
    found: dict[str, list[Cost]] = {title: [] for title, _ in rows}
    for turn in track(range(TURNS), "Measuring", transient=True, console=Console(stderr=True)):
        for title, measure in rows if turn % 2 == 0 else reversed(rows):
            found[title].append(measure())
    return found


def table_row(title: str, costs: Sequence[Cost], reports: Sequence[Cost]) -> str:
    """One row: medians, and the smallest and the largest ratio to `report` within a turn."""
    ratios = sorted(cost.cpu / report.cpu for cost, report in zip(costs, reports, strict=True))
    passed = [cost.time for cost in costs if cost.time is not None]
    cells = [
        title,
        f"{median(cost.cpu for cost in costs):.2f}",
        f"{median(ratios):.2f}",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if costs is not reports else "",
        f"{median(passed):.2f}" if passed else "",
        f"{median(cost.memory for cost in costs):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(lines: int, seed: int) -> None:
    """Measure and print."""
    fetch()
    for package in (bouncemeter, bouncemeter_exporter):  # as an installation does, unlike a clone
        compileall.compile_dir(package.__path__[0], quiet=1)
    print(
        f"{lines:,} lines, seed {seed}, {time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores,",
        end=" ",
    )
    print(f"Python {platform.python_version()}\n")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mta in ("postfix", "exim"):
            log = folder / f"{mta}.log"
            with log.open("w") as file:
                text = track(day(mta, lines, seed), f"Writing {mta}", lines, transient=True, console=console)
                file.writelines(f"{line}\n" for line in text)
            print(f"| {mta} | CPU, s | to report | in turns | time, s | peak memory, MB |\n|---|--:|--:|--:|--:|--:|")
            costs = by_turns(list(rows_of(mta, log, folder)))
            for title, each in costs.items():
                print(table_row(title, each, costs[REPORT]), flush=True)
            print()
    print("| the exporter itself | |\n|---|--:|")
    for title, taken in rows(lines):
        print(f"| {title} | {taken} |", flush=True)


if __name__ == "__main__":
    arguments = [int(each) for each in sys.argv[1:]]
    main(*arguments, *(1_000_000, 1)[len(arguments) :])
