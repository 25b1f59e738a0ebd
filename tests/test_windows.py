"""Without the modules and calls that Windows lacks, all commands run, and `serve` serves files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import LOGS
from tests.servers.net import free_port, is_ready, wait_until

HIDING = """
import concurrent.futures.process, http.server, importlib.metadata, logging, multiprocessing.context
import multiprocessing.pool, os, pathlib, runpy, select, selectors, shutil, signal, socket, socketserver, sqlite3, ssl
import subprocess, sys, tempfile, time
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "crypt", "readline", "curses"):
    sys.modules[name] = None
lacks = {
    os: "chown chroot fchmod fchown fork getegid geteuid getgid getgroups getloadavg getpgid getresuid getuid killpg"
        " lchown mkfifo mknod nice posix_fadvise pread pwrite sched_getaffinity set_blocking setegid seteuid setgid"
        " setgroups setsid setuid statvfs sync sysconf uname wait wait3 wait4 waitid"
        " O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC",
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 SIGWINCH alarm pause sigwait",
    socket: "AF_UNIX CMSG_LEN SCM_RIGHTS",
    select: "epoll poll",
    time: "tzset clock_gettime",
}
for module, names in lacks.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]
socket.socketpair = pair  # Windows has it by TCP
os.supports_effective_ids.clear()
multiprocessing.get_all_start_methods = lambda: ["spawn"]
multiprocessing.set_start_method("spawn")
sys.argv[0] = "bouncemeter"
runpy.run_module("bouncemeter_exporter", run_name="__main__", alter_sys=True)
"""

Windows = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-c", HIDING, *map(str, words)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "PROGRAMDATA": str(tmp_path / "ProgramData"), "TZ": "UTC"}


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["report", LOGS / "exchange"],
        ["report", LOGS / "postfix" / "relay.log"],
        ["parse", LOGS / "exchange" / "SEND20261124-1.log"],
        ["parse", "--redact", LOGS / "exim" / "relay.log"],
        ["trace", "C3428212291", LOGS / "postfix" / "relay.log"],
        ["explain", "5.7.606"],
        ["codes"],
        ["rules", "export", "{out}"],
        ["grafana", "export", "{out}"],
    ],
    ids=lambda words: " ".join(map(str, words[:2])).replace(str(LOGS), ""),
)
def test_commands_run(tmp_path: Path, environment: dict[str, str], words: list[str | Path]) -> None:
    filled = [str(word).replace("{out}", str(tmp_path / "out")) for word in words]
    done = subprocess.run(
        command(*filled), capture_output=True, text=True, check=False, timeout=300, env=environment, stdin=-3
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report"], "this machine has no mail log"),
        (["report", "journal:"], "cannot read journal:: "),
        (["report", "/nowhere/x.log"], "cannot read /nowhere/x.log: there is no such file"),
        (["serve", "--no-state", "-"], "serve cannot follow standard input on Windows"),
        (["serve", "--no-state", "unix:/tmp/x.sock"], "cannot listen on unix:/tmp/x.sock: this system has no unix"),
    ],
)
def test_what_is_lacking_is_said(environment: dict[str, str], words: list[str], sentence: str) -> None:
    environment["PATH"] = "/nowhere"
    done = subprocess.run(
        command(*words), capture_output=True, text=True, check=False, timeout=300, env=environment, stdin=-3
    )
    assert done.returncode == 1, done.stdout
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_large_log_is_read_on_several_cores(tmp_path: Path, environment: dict[str, str]) -> None:
    log = tmp_path / "mail.log"
    text = (LOGS / "postfix" / "relay.log").read_text()
    log.write_text(text + "Nov 24 16:50:00 mta postfix/anvil[1]: statistics: max connection rate 1\n" * 1_100_000)
    done = subprocess.run(
        command("report", "--jobs", "2", "--format", "json", log),
        capture_output=True, text=True, check=False, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lines"]["read"] == text.count("\n") + 1_100_000


def test_serve_follows_exchanges_folder_and_checks(tmp_path: Path, environment: dict[str, str]) -> None:
    logs, port = tmp_path / "MessageTracking", free_port()
    logs.mkdir()
    first = (LOGS / "exchange" / "MSGTRK2026112409-1.LOG").read_bytes()
    (logs / "MSGTRK2026112409-1.LOG").write_bytes(first)
    words: list[str | Path] = [
        "--from-start",
        "--web.listen-address",
        f"127.0.0.1:{port}",
        f"tcp:127.0.0.1:{free_port()}",
    ]
    with subprocess.Popen(
        command("serve", "--check", *words, logs), stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            wait_until(lambda: process.poll() is not None or is_ready(port), 120, "serve is not ready")
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
            assert 'mail_recipients_total{mta="exchange"' in page
            state = tmp_path / "ProgramData" / "bouncemeter" / "state.db"
            assert state.exists()
        finally:
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "all understood" in said
