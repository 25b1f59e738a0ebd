"""Sources that tell when they change, so that nothing wakes an idle exporter.

That nothing is read which a source did not tell before is checked in every case of `test_following`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from bouncemeter_exporter.sources import files, listing
from bouncemeter_exporter.sources.files import FollowedFiles

from tests.conftest import LOGS
from tests.servers.exporter import Exporter
from tests.servers.net import wait_until
from tests.sources.test_following import readable

LINES = (LOGS / "postfix/relay.log").read_text().splitlines(keepends=True)


def followed(argument: object) -> FollowedFiles:
    """A source that has been read to its end."""
    source = FollowedFiles(
        str(argument), parser=None, from_start=True, say=lambda _: None, positions={}, lines=Counter()
    )
    turns(source, 3)
    return source


def turns(source: FollowedFiles, number: int) -> None:
    """Read, and look for files each time."""
    for _ in range(number):
        list(source.poll())


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOKING", 1e9)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text("".join(LINES))
    return path


def append(log: Path) -> None:
    with log.open("a") as file:
        file.write(LINES[0])


CHANGES: dict[str, Callable[[Path], object]] = {
    "append": append,
    "truncate": lambda log: os.truncate(log, 0),
    "rename": lambda log: log.rename(f"{log}.1"),
    "replace": lambda log: log.with_name("new").replace(log),
    "delete": lambda log: log.unlink(),
    "permission": lambda log: log.chmod(0o600),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["file", "folder", "pattern", "link"])
def test_a_change_is_told(log: Path, kind: str, change: str) -> None:
    log.with_name("new").write_text(LINES[0])
    link = log.parent.parent / f"{log.parent.name}.link"
    link.symlink_to(log)
    argument = {"file": log, "folder": log.parent, "pattern": f"{log.parent}/mail*", "link": link}[kind]
    source = followed(argument)
    watch = source.watch()
    assert watch is not None
    assert not readable(watch)
    CHANGES[change](log)
    assert readable(watch)
    source.close()


@pytest.mark.parametrize("kind", ["folder", "pattern"])
def test_a_new_file_is_told(log: Path, kind: str) -> None:
    source = followed(log.parent if kind == "folder" else f"{log.parent}/*.log")
    watch = source.watch()
    assert watch is not None
    log.with_name("b.log").write_text(LINES[0])
    assert readable(watch)
    turns(source, 3)
    assert source.offset == log.stat().st_size + len(LINES[0])
    watch = source.watch()
    assert watch is not None
    append(log.with_name("b.log"))
    assert readable(watch)
    source.close()


def test_what_must_be_asked_again_is_not_watched(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for argument in (f"{log.parent.parent}/*/mail.log", f"{log.parent}/**"):
        source = followed(argument)
        assert source.watch() is None
        source.close()
    source = followed(log)
    log.rename(f"{log}.1")
    turns(source, 3)
    assert source.watch() is None  # what was written to it last may be on its way
    source.close()
    mounts = log.with_name("mountinfo")
    mounts.write_text(f"1 1 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {log.parent} rw shared:1 - nfs4 a:/ rw\n")
    log.with_name("mail.log.1").rename(log)
    monkeypatch.setattr(listing, "MOUNTS", mounts)
    source = followed(log)
    assert source.watch() is None  # other machines write to it
    source.close()


def test_an_idle_exporter_sleeps_until_a_line_comes(log: Path) -> None:
    first = "from bouncemeter_exporter.serving import reading; reading.UNCHANGED = 1e6"
    with Exporter("--from-start", log, first=first) as exporter:

        def sleeps() -> bool:
            before = exporter.switches()
            time.sleep(2)
            return exporter.switches() == before

        wait_until(sleeps, 120, "something wakes it")
        append(log)
        read = f" {float(log.stat().st_size)}"
        wait_until(lambda: read in offset(exporter.page()), 120, "the new line is not read")
        wait_until(sleeps, 120, "something wakes it")


def offset(page: str) -> str:
    return next(line for line in page.splitlines() if line.startswith("bouncemeter_source_offset_bytes{"))
