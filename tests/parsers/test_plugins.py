"""Log formats are plugins, and so are the built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from bouncemeter import plugin
from bouncemeter.plugin import GROUP, Clock, LineReader, Parser, ParserNotFoundError, detect, parser, parsers

from tests.conftest import LOGS, ROOT

PLUGIN = ROOT / "tests" / "plugin"


def test_the_built_in_parsers_are_registered_as_plugins() -> None:
    assert {entry.name for entry in entry_points(group=GROUP)} >= {"postfix", "exim", "exchange"}
    assert all(isinstance(each, Parser) for each in parsers().values())


def test_the_error_for_an_unknown_format_lists_the_installed_ones() -> None:
    with pytest.raises(ParserNotFoundError, match="unknown log format 'sendmail'; installed: exchange, exim, postfix"):
        parser("sendmail")


@pytest.mark.parametrize("log", sorted(each for each in LOGS.glob("*/*") if each.suffix.lower() == ".log"), ids=str)
def test_the_format_is_detected_from_the_content(log: Path) -> None:
    found = detect(log.read_text().splitlines())
    assert found is not None
    assert found.name == log.parent.name


def test_a_format_that_is_not_needed_is_not_loaded() -> None:
    program = (
        "import sys; from bouncemeter.plugin import detect; detect(open(sys.argv[1]).readlines());"
        "print(*(each for each in ('postfix', 'exim', 'exchange') if f'bouncemeter.{each}' in sys.modules))"
    )
    loaded = [
        subprocess.run([sys.executable, "-c", program, log], capture_output=True, text=True, check=True).stdout.split()
        for log in (LOGS / "postfix/relay.log", LOGS / "exim/relay.log", LOGS / "exchange/MSGTRK2026112409-1.LOG")
    ]
    assert loaded == [["postfix"], ["exim"], ["exchange"]]


class Claiming:
    """A plugin that takes some lines for its own."""

    def __init__(self, name: str, taken: int) -> None:
        self.name, self._left = name, taken

    def recognises(self, _: str) -> bool:
        self._left -= 1
        return self._left >= 0

    def reader(self, clock: Clock = time.time) -> LineReader:
        return lambda _: ()


@pytest.mark.parametrize(
    ("name", "taken", "expected"), [("other", 100, "other"), ("other", 60, "postfix"), ("postfix", 100, "postfix")]
)
def test_a_plugin_has_the_lines_that_it_knows_best(
    name: str, taken: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["Nov 24 15:55:42 mx1 postfix/qmgr[1]: 4A1B2C3D4E: removed"] * 80 + ["x"] * 20
    entry = SimpleNamespace(name=f"a {name}", value="other:PARSER", load=lambda: Claiming(name, taken))
    there = [entry, *entry_points(group=GROUP)]
    monkeypatch.setattr(plugin, "_entries", lambda: {each.name: each for each in there})
    monkeypatch.setattr(plugin, "_loaded", lambda name: next(each.load() for each in there if each.name == name))
    found = detect(lines)
    assert found is not None
    assert type(found).__name__ == ("Claiming" if expected == "other" else "PostfixParser")


def test_other_text_has_no_format() -> None:
    assert (
        detect(["hello", "", "a,b,c", "Nov 24 15:55:42 host cron[1]: x", "2026-11-24 15:00:00 something else"]) is None
    )


def test_a_third_party_parser_works_once_it_is_installed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--target",
            site,
            PLUGIN,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    log = tmp_path / "tiny.log"
    log.write_text("tiny 1795535742 Q1 ok a@dest.test\ntiny 1795535743 Q2 no b@dest.test 550 5.1.1 unknown\nnoise\n")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "bouncemeter_exporter", "report", "--format", "json", log],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert found["recipients"] == {"delivered": 1, "bounced": 1, "expired": 0, "waiting": 0}
    assert found["lines"] == {"read": 3, "event": 2, "other": 1, "unparsed": 0}
    assert found["codes"][0]["code"] == "5.1.1"
