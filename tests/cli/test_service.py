"""`bouncemeter service`, and the settings that a service begins with."""

from __future__ import annotations

import re
import subprocess
import sys
import zipapp
from pathlib import Path

from bouncemeter_exporter.config import SETTINGS, Config, read_config

from tests.conftest import ROOT, Run

COMMENTED = (ROOT / "packaging" / "bouncemeter.toml").read_text()


def test_a_program_that_the_service_could_not_see_is_named(bouncemeter: Run, tmp_path: Path) -> None:
    here = tmp_path / "bouncemeter.pyz"
    code = tmp_path / "code"
    code.mkdir()
    (code / "__main__.py").write_text("from bouncemeter_exporter.cli import main\n\nmain()\n")
    zipapp.create_archive(code, here, sys.executable)
    done = subprocess.run([here, "service"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bouncemeter: a service cannot run what is in {here}: ")
    assert not done.stdout


def test_the_settings_are_complete_and_show_the_defaults(bouncemeter: Run, tmp_path: Path) -> None:
    text = bouncemeter("service", "--settings").stdout
    assert text == COMMENTED
    for setting in SETTINGS:
        table, _, name = setting.key.rpartition(".")
        pattern = rf"^\[{table}\]$.*?^# {name} = " if table else rf"^# {name} = |^\[{name}\]$"
        assert re.search(pattern, text, flags=re.MULTILINE | re.DOTALL), setting.key
    path = tmp_path / "bouncemeter.toml"
    for each in (text, re.sub(r"(?m)^# (\w+ = )", r"\1", text)):
        path.write_text(each)
        assert read_config(path) == Config(state=read_config(path).state)
    assert read_config(path).state == Path("/var/lib/bouncemeter/state.db")
