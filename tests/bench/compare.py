"""The cost of reading a log, compared with other tools: one table, measured in one run on one machine.

`make bench` runs it. As root on Debian or Ubuntu, it fetches the other tools; the table leaves out those that are
missing. CPU is user and system time of the whole process, including start-up, for the whole log.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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


def commands(mta: str, log: Path, folder: Path) -> Iterator[tuple[str, Cost]]:
    """Every row of one log's table."""

    def tool(package: str) -> str | None:
        program = TOOLS / PACKAGES[package]
        return str(program) if program.exists() else None

    ours = str(Path(sys.executable).parent / "bouncemeter")
    yield "grep -c", run(["grep", "-c", "=", str(log)])
    yield "bouncemeter report", run([ours, "report", "--jobs", "1", "--format", "json", str(log)])
    yield "bouncemeter report, all cores", run([ours, "report", "--format", "json", str(log)])
    port = free_port()
    state = ["--state", str(folder / f"{mta}.db")]
    serve = [ours, "serve", *state, "--from-start", "--web.listen-address", f"127.0.0.1:{port}", str(log)]
    yield "bouncemeter serve, catching up, with its state", run(serve, lambda _: is_ready(port))
    sample = folder / f"{mta}.sample.log"
    with log.open("rb") as lines:
        sample.write_bytes(b"".join(line for number, line in enumerate(lines) if number % SHARE == 0))
    script = folder / f"{mta}.py"
    script.write_text(PYPARSING.format(mta=mta))
    start = run([sys.executable, str(script), os.devnull])
    plain = run([sys.executable, str(script), str(sample)])
    yield "the same grammars by plain pyparsing", Cost(start.cpu + (plain.cpu - start.cpu) * SHARE, plain.memory)
    if mta == "exim":
        if eximstats := tool("exim4-base"):
            yield "eximstats", run(["perl", eximstats, str(log)])
        return
    if pflogsumm := tool("pflogsumm"):
        yield "pflogsumm", run(["perl", pflogsumm, str(log)])
    if mtail := tool("mtail"):
        program = folder / "one.mtail"
        program.write_text(MTAIL)
        for title, progs in (("mtail, attempts, relays, delays, rejections", ATTEMPTS), ("mtail, one metric", program)):
            yield title, run([mtail, "--one_shot", "--progs", str(progs), "--logs", str(log)])
    if exporter := tool("prometheus-postfix-exporter"):
        followed = folder / "followed.log"
        flags = [f"--web.listen-address=127.0.0.1:{free_port()}", f"--postfix.logfile_path={followed}"]
        yield "prometheus-postfix-exporter", run([exporter, *flags], has_followed(log, followed))


def main(lines: int, seed: int) -> None:
    """Measure and print."""
    fetch()
    print(
        f"{lines:,} lines, seed {seed}, {time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores,",
        end=" ",
    )
    print(f"Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mta in ("postfix", "exim"):
            log = folder / f"{mta}.log"
            with log.open("w") as file:
                file.writelines(
                    f"{line}\n" for line in track(day(mta, lines, seed), f"Writing {mta}", lines, transient=True)
                )
            print(f"| {mta} | CPU, s | to report | time, s | peak memory, MB |\n|---|--:|--:|--:|--:|")
            costs = list(commands(mta, log, folder))
            unit = next(cost.cpu for title, cost in costs if title == "bouncemeter report")
            for title, cost in costs:
                passed = f"{cost.time:.2f}" if cost.time is not None else ""
                print(f"| {title} | {cost.cpu:.2f} | {cost.cpu / unit:.2f} | {passed} | {cost.memory:.0f} |")
            print()
    print("| the exporter itself | |\n|---|--:|")
    for title, taken in rows(lines):
        print(f"| {title} | {taken} |", flush=True)


if __name__ == "__main__":
    arguments = [int(each) for each in sys.argv[1:]]
    main(*arguments, *(1_000_000, 1)[len(arguments) :])
