"""The files that an argument names: each line counts once, however many names its file has."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Self

import pytest
from bouncemeter_exporter.sources import files
from bouncemeter_exporter.sources.files import FollowedFiles
from bouncemeter_exporter.sources.source import LineCounts

from tests.conftest import Run
from tests.sources.test_following import copy_and_truncate, line, rename, write


def outcomes(bouncemeter: Run, *arguments: Path | str) -> tuple[int, str]:
    """How many outcomes a report of some logs has, and what it says beside."""
    done = bouncemeter("report", "--format", "json", *arguments)
    return json.loads(done.stdout)["lines"]["event"], done.stderr


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "logs" / "mail.log"
    found.parent.mkdir()
    write(found, *range(5))
    return found


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_link_beside_its_file_is_the_same_file(log: Path, make: object, bouncemeter: Run) -> None:
    assert callable(make)
    make(log, log.with_name("another.log"))
    assert outcomes(bouncemeter, log.parent)[0] == 5
    assert outcomes(bouncemeter, log, log.with_name("another.log"))[0] == 5
    assert outcomes(bouncemeter, log.parent, log, f"{log.parent}/*.log")[0] == 5


def test_a_pattern_that_runs_in_a_circle_ends(log: Path, bouncemeter: Run) -> None:
    for name in ("a", "b", "c"):
        (log.parent / name).symlink_to(log.parent, target_is_directory=True)
    assert outcomes(bouncemeter, f"{log.parent.parent}/**/*.log")[0] == 5
    assert outcomes(bouncemeter, f"{log.parent.parent}/**")[0] == 5


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half"])
def test_a_compressed_copy_is_left_out(log: Path, bouncemeter: Run, *, whole: bool) -> None:
    write(log, *range(5, 3000))
    packed = gzip.compress(log.read_bytes())
    log.with_name("mail.log.gz").write_bytes(packed if whole else packed[: len(packed) // 2])
    number, said = outcomes(bouncemeter, log.parent)
    assert number == 3000
    assert "mail.log.gz is a copy of " in said


def test_a_compressed_file_of_the_same_name_and_other_content_is_read(log: Path, bouncemeter: Run) -> None:
    log.with_name("mail.log.gz").write_bytes(gzip.compress("".join(map(line, range(10, 13))).encode()))
    assert outcomes(bouncemeter, log.parent)[0] == 8


class Sources:
    """Several sources of one exporter."""

    def __init__(self, *names: Path | str) -> None:
        self.said: list[str] = []
        self.sources: list[FollowedFiles] = []
        for name in map(str, names):
            self.sources.append(
                FollowedFiles(
                    name,
                    parser=None,
                    from_start=True,
                    say=self.said.append,
                    positions={},
                    lines=LineCounts(),
                    before=[each.name for each in self.sources],
                )
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self.sources:
            source.close()

    def outcomes(self) -> list[int]:
        """How many outcomes each source has counted."""
        for _ in range(3):
            for source in self.sources:
                for _ in source.poll():
                    pass
        return [source.lines()["postfix", "event"] for source in self.sources]


@pytest.fixture
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOKING", 1e9)


@pytest.mark.usefixtures("_look_each_time")
@pytest.mark.parametrize("rotate", [rename, copy_and_truncate])
def test_a_file_of_two_sources_counts_for_the_first(log: Path, rotate: object) -> None:
    assert callable(rotate)
    link = log.parent.parent / "mail.log"
    link.symlink_to(log)
    other = log.with_name("other.log")
    write(other, 100)
    with Sources(log, log.parent, f"{log.parent}/*.log", link) as sources:
        assert sources.outcomes() == [5, 1, 0, 0]
        rotate(log)
        write(log, 5)
        assert sources.outcomes() == [6, 1, 0, 0]
        write(other, 101)
        write(log, 6)
        assert sources.outcomes() == [7, 2, 0, 0]
        assert all(source.up for source in sources.sources)
        assert sources.said == [
            f"{log.parent}/*.log: all of it is read as a part of {log} and {log.parent}",
            f"{link}: all of it is read as a part of {log} and {log.parent} and {log.parent}/*.log",
        ]


@pytest.mark.usefixtures("_look_each_time")
def test_links_in_a_followed_directory_are_read_once(log: Path) -> None:
    log.with_name("current.log").symlink_to(log.name)
    log.with_name("hard.log").hardlink_to(log)
    with Sources(log.parent) as sources:
        assert sources.outcomes() == [5]
        write(log, 5)
        assert sources.outcomes() == [6]
