"""The examples in docs: blocks of commands with what they print, run as they stand.

A fenced block `console` has commands after `$ ` and their output beneath. All blocks of a page run in order, in one
folder with sample logs; what a page names below /var/log, /mnt and /etc is in that folder. A line `...` stands for
lines that are left out. `serve` runs until it has said what is shown, and ends. What needs a machine's own services is
in a block `sh`, which is not run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.conftest import LOGS
from tests.servers.net import free_port

SAMPLES = {
    "var/log/deferred.log": "../docs/deferred.log",
    "var/log/mail.log": "postfix/relay.log",
    "var/log/exim4/mainlog": "exim/relay.log",
    "var/log/exim/mainlog-20261124": "exim/relay.log",
    "var/log/exim_mainlog": "exim/relay.log",
    "mnt/exchange/MessageTracking/MSGTRK2026112409-1.LOG": "exchange/MSGTRK2026112409-1.LOG",
    "mnt/exchange/SmtpSend/SEND20261124-1.log": "exchange/SEND20261124-1.log",
}
"""Where the samples are in the folder, and what they are in `tests/logs`."""

ADDRESS = "127.0.0.1:19525"


@dataclass
class Example:
    """A command and what it prints.

    Attributes:
        command: The words after `$ `.
        output: The lines beneath.
    """

    command: str
    output: list[str] = field(default_factory=list)


def examples(page: str) -> list[Example]:
    """The examples of a page, but for those of containers: tests/packaging/test_container.py tries these."""
    found: list[Example] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Example(line[2:]))
            else:
                assert found, f"a block begins without a command: {line}"
                found[-1].output.append(line)
    for each in found:
        while each.output and not each.output[-1]:
            each.output.pop()
    return [each for each in found if not each.command.startswith("docker ")]


def is_shown(shown: list[str], printed: list[str]) -> bool:
    """Whether lines are those printed; `...` stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(f"{line}\n") for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


class Folder:
    """A folder with sample logs, in which commands run.

    Args:
        path: An empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.port = path, free_port()
        for name, sample in SAMPLES.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(LOGS / sample, target)
        log = path / "var/log/mail.log"  # with a year, as Debian 12 writes it: what is printed is the same every year
        log.write_text(re.sub(r"^Nov 24 (\S+)", r"2026-11-24T\1.000000+00:00", log.read_text(), flags=re.MULTILINE))
        programs = path / "bin"
        programs.mkdir()
        for name, module in (("bouncemeter", " -m bouncemeter_exporter"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable}{module} "$@"\n')
            (programs / name).chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "TZ": "UTC",
            "NO_COLOR": "1",
            "STATE_DIRECTORY": str(path / "state"),
        }

    def add_journal(self) -> None:
        """Write the sample of Postfix's log into a journal as well, by systemd-journal-remote."""
        entries = []
        for number, line in enumerate((self.path / "var/log/mail.log").read_text().splitlines(), 1):
            found = re.fullmatch(r"(\S+) (\S+) (\S+)\[(\d+)\]: (.*)", line)
            assert found is not None
            fields = {
                "__REALTIME_TIMESTAMP": f"{datetime.fromisoformat(found[1]).timestamp() * 1_000_000:.0f}",
                "__MONOTONIC_TIMESTAMP": f"{number}",
                "_BOOT_ID": "0123456789abcdef0123456789abcdef",
                "_SYSTEMD_UNIT": "postfix@-.service",
                "_HOSTNAME": found[2],
                "SYSLOG_IDENTIFIER": found[3],
                "_PID": found[4],
                "MESSAGE": found[5],
            }
            entries.append("".join(f"{name}={value}\n" for name, value in fields.items()))
        journal = self.path / "var/log/journal/remote/mail.journal"
        journal.parent.mkdir(parents=True)
        command = ["systemd-journal-remote", f"--output={journal}", "-"]
        subprocess.run(command, input="\n".join([*entries, ""]).encode(), check=True, capture_output=True, timeout=300)

    def _inside(self, command: str) -> str:
        return re.sub(r"(?<![\w.])/(?=var/log/|mnt/|etc/)", f"{self.path}/", command)

    def _outside(self, line: str) -> str:
        return line.rstrip("\n").replace(f"127.0.0.1:{self.port}", ADDRESS).replace(f"{self.path}/", "/")

    def run(self, example: Example) -> list[str]:
        """What an example's command prints, on both outputs.

        Raises:
            AssertionError: It failed, and its output shows no error.
        """
        if example.command.startswith("bouncemeter serve"):
            return list(self._serve(example))
        done = subprocess.run(
            ["sh", "-c", self._inside(example.command)],
            cwd=self.path,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0 or any(line.startswith("bouncemeter: ") for line in example.output), done.stdout
        return [self._outside(line) for line in done.stdout.splitlines()]

    def _serve(self, example: Example) -> Iterator[str]:
        """What `serve` says, until it has said as much as is shown."""
        assert ADDRESS in example.command, "an example of serve names its address"
        command = f"exec {self._inside(example.command).replace(ADDRESS, f'127.0.0.1:{self.port}')}"
        with subprocess.Popen(
            ["sh", "-c", command], cwd=self.path, env=self._environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            patience = threading.Timer(240, process.kill)
            patience.start()
            for number, line in enumerate(process.stderr, 1):
                yield self._outside(line)
                if number == len(example.output):
                    process.send_signal(signal.SIGTERM)
                    break
            process.stderr.read()
            patience.cancel()
        assert process.returncode == 0, f"{example.command} ended with {process.returncode}"
