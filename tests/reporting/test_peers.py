"""What pflogsumm and eximstats say of the same log, `report` says too, and the numbers agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.bench.traffic import day
from tests.conftest import Run
from tests.servers.programs import ROOT, program

LINES = 30_000


def summary(name: str, *words: str | Path) -> str:
    """What a Perl program prints."""
    found = program(name)
    assert found is not None
    libraries = os.pathsep.join(str(ROOT / each) for each in ("usr/share/perl5", "usr/lib/x86_64-linux-gnu/perl5/5.36"))
    return subprocess.run(
        ["perl", found, *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PERL5LIB": libraries, "TZ": "UTC"},
    ).stdout


def written(path: Path, mta: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in day(mta, LINES)))
    return path


def report(bouncemeter: Run, log: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bouncemeter("report", "--format", "json", "--top", "100000", log).stdout)
    return found


def number(text: str, pattern: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, pattern
    return int(found[1])


@pytest.mark.needs("pflogsumm")
def test_the_numbers_are_those_of_pflogsumm(bouncemeter: Run, tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", "postfix")
    theirs, ours = summary("pflogsumm", log), report(bouncemeter, log)
    assert ours["arrivals"] == number(theirs, r"^ +(\d+) +received")
    assert ours["attempts"]["delivered"] == number(theirs, r"^ +(\d+) +delivered")
    assert ours["attempts"]["deferred"] == number(theirs, r"^ +\d+ +deferred +\((\d+) +deferrals\)")
    assert ours["attempts"]["bounced"] == number(theirs, r"^ +(\d+) +bounced")
    assert ours["rejections"] == number(theirs, r"^ +(\d+) +rejected")
    hours = re.findall(r"^ +(\d\d)00-\d\d00 +\d+ +\d+ +\d+ +\d+ +(\d+)", theirs, re.MULTILINE)
    rejected = Counter[int]()
    for row in ours["hours"]:
        rejected[int(row["hour"][11:13])] += row["rejected"]
    assert {int(hour): int(each) for hour, each in hours} == {hour: rejected[hour] for hour in range(24)}


@pytest.mark.needs("eximstats")
def test_the_numbers_are_those_of_eximstats(bouncemeter: Run, tmp_path: Path) -> None:
    log = written(tmp_path / "mainlog", "exim")
    theirs, ours = summary("eximstats", "-txt", log), report(bouncemeter, log)
    assert ours["arrivals"] == number(theirs, r"^ +Received +\S+ +(\d+)")
    assert ours["attempts"]["delivered"] == number(theirs, r"^ +Delivered +\S+ +(\d+)")
    assert ours["rejections"] == number(theirs, r"^ +Rejects +(\d+)")
    assert sum(each["messages"] for each in ours["clients"]) == ours["arrivals"]
