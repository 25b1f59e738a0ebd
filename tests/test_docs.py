"""The documentation is true: its commands run, and what it quotes matches the original."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.cli import app
from typer.main import get_command

from tests.conftest import LOGS, ROOT, Run
from tests.servers.net import free_port

README = (ROOT / "README.md").read_text()
PLACES = {
    "/var/log/mail.log": str(LOGS / "postfix" / "relay.log"),
    "/var/log/exim4/mainlog": str(LOGS / "exim" / "relay.log"),
}
COMMANDS = re.findall(r"^\$ bouncemeter (.+)$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readmes_commands_run(bouncemeter: Run, command: str, tmp_path: Path) -> None:
    words = [
        PLACES.get(word, re.sub("^(prometheus-rules|grafana-files)$", str(tmp_path), word))
        for word in shlex.split(command)
    ]
    assert bouncemeter(*words).stdout


def test_the_readme_names_every_metric() -> None:
    page = (LOGS / "postfix" / "relay.prom").read_text()
    for name in re.findall(r"^# TYPE (mail_\w+) (?:counter|gauge|histogram)$", page, flags=re.MULTILINE):
        assert f"`{name}`" in README


def test_the_plugin_page_shows_the_tested_plugin() -> None:
    page = (ROOT / "docs" / "writing-a-parser.md").read_text()
    for name in ("pyproject.toml", "bouncemeter_tiny.py"):
        assert (ROOT / "tests" / "plugin" / name).read_text().strip() in page


def _commands(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command, with the words that call it."""
    for word, command in group.commands.items():
        words = f"{name} {word}".strip()
        if hasattr(command, "commands"):
            yield from _commands(words, command)
        else:
            yield words, command


def reference() -> str:
    """The help of every command and its arguments, as a page."""
    parts = ["# Commands\n\nWritten from what `--help` says, by `make docs`."]
    for name, command in sorted(_commands("", get_command(app))):
        parts += [f"\n## bouncemeter {name}\n", inspect.cleandoc(command.help), "\n| argument | |\n|---|---|"]
        for parameter in command.params:
            names = " ".join(parameter.opts + parameter.secondary_opts) if parameter.opts[0][0] == "-" else ""
            if names != "--help -h":
                words = " ".join(filter(None, [names, parameter.metavar or ""])).replace("|", "\\|")
                parts.append(f"| `{words}` | {parameter.help or 'Show this message and exit.'} |")
    return "\n".join(parts) + "\n"


def test_the_command_reference_matches_the_help() -> None:
    path = ROOT / "docs" / "commands.md"
    if os.environ.get("WRITE_DOCS"):
        path.write_text(reference())
    assert path.read_text() == reference()


def test_make_run_serves_the_sample_logs() -> None:
    port = free_port()
    with subprocess.Popen(
        ["make", "--no-print-directory", "run", f"LISTEN=127.0.0.1:{port}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            end, printed = time.monotonic() + 120, ""
            while "Read " not in printed and time.monotonic() < end:
                printed += process.stderr.readline()
            assert f"Serving metrics at http://127.0.0.1:{port}/metrics" in printed
            assert "lines of exchange, exim, postfix:" in printed
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert "mail_bounces_total{" in answer.read().decode()
        finally:
            os.killpg(process.pid, signal.SIGTERM)
