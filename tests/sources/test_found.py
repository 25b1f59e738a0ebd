"""A command without a source finds this machine's own mail log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.sources import found
from bouncemeter_exporter.sources.lines import SourceError, open_log
from bouncemeter_exporter.sources.listing import log_files

from tests.conftest import LOGS, Run
from tests.sources.test_sources import JournalFile, message

POSTFIX = (LOGS / "postfix" / "relay.log").read_text()
EXIM = (LOGS / "exim" / "relay.log").read_text()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A table of places below a folder, and no journal."""
    names = ("mail.log", "maillog", "exim_mainlog", "exim4/mainlog")
    table: dict[str, Any] = {
        "paths": [str(tmp_path / name) for name in names],
        "servers": [],
        "journal": {"source": "journal:no-such-unit*"},
    }
    monkeypatch.setattr(found, "_table", lambda: table)
    monkeypatch.setattr(found, "closed_journal", lambda: None)
    return table


def look() -> tuple[list[str], list[str]]:
    said: list[str] = []
    return found.this_machines(said.append), said


def test_every_servers_log_is_found_and_said(places: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mail.log").write_text(POSTFIX)
    (tmp_path / "exim_mainlog").write_text(EXIM)
    (tmp_path / "maillog").mkdir()
    names, said = look()
    assert sorted(names) == [str(tmp_path / "exim_mainlog"), str(tmp_path / "mail.log")]
    assert said == [f"no log was named: reading {' and '.join(names)}"]


def test_of_two_logs_of_one_format_the_later_is_read(places: dict[str, Any], tmp_path: Path) -> None:
    for number, name in enumerate(("mail.log", "maillog")):
        (tmp_path / name).write_text(POSTFIX)
        os.utime(tmp_path / name, (time.time() - number * 60,) * 2)
    assert look()[0] == [str(tmp_path / "mail.log")]
    os.utime(tmp_path / "mail.log", (time.time() - 3600,) * 2)
    assert look()[0] == [str(tmp_path / "maillog")]


def test_a_link_to_a_log_is_that_log(places: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "maillog").write_text(POSTFIX)
    (tmp_path / "mail.log").symlink_to("maillog")
    assert len(look()[0]) == 1


def test_a_log_that_was_rotated_just_now_is_found(places: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mail.log").touch()
    assert look()[0] == [str(tmp_path / "mail.log")]
    (tmp_path / "exim_mainlog").write_text(EXIM)
    assert look()[0] == [str(tmp_path / "exim_mainlog")]
    (tmp_path / "mail.log.1").write_text(POSTFIX)
    assert len(look()[0]) == 2


def test_other_logs_are_left_alone(places: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mail.log").write_text("Nov 24 15:55:42 mta cron[1]: nothing of interest here\n" * 10)
    with pytest.raises(SourceError, match="this machine has no mail log"):
        look()


def test_a_server_tells_where_it_logs(places: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log-2026-11-26-main").write_text(EXIM)
    server = tmp_path / "bin" / "exim4"
    server.parent.mkdir()
    server.write_text(f"#!/bin/sh\necho 'log_file_path = syslog : {tmp_path}/log-%D-%s'\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}:{os.environ['PATH']}")
    places["servers"] = [{"command": ["exim4", "-bP", "log_file_path"], "answer": r"= (?:.*:)?\s*(/[^\s:]+)"}]
    assert look()[0] == [f"{tmp_path}/log-*-main"]


@pytest.mark.needs("postfix")
def test_the_real_postfix_tells_where_it_logs(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers.postfix import Postfix
    from tests.servers.smtp import FateServer

    with FateServer() as server, Postfix(server_dir, server.port) as postfix:
        postfix.send("a@src.test", ["ok-1@dest.test"])
        monkeypatch.setenv("MAIL_CONFIG", str(postfix.config))
        assert str(postfix.log) in list(found._told())


@pytest.fixture
def nobody() -> Iterator[None]:
    """Be a user without rights, in no group."""
    import grp  # noqa: F401 - who has no rights may not load them
    import pwd  # noqa: F401

    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


@pytest.mark.needs("another user")
@pytest.mark.parametrize(
    ("folder", "file", "who", "remedy"),
    [
        (0o755, 0o640, "root and the group adm may read it", "run 'sudo usermod -aG adm nobody' and log in again"),
        (0o750, 0o644, "root and the group adm may enter ", "run 'sudo usermod -aG adm nobody' and log in again"),
        (0o755, 0o600, "root may read it", "use sudo"),
        (0o700, 0o644, "root may enter ", "use sudo"),
    ],
)
def test_what_is_closed_is_said_with_who_may_read_it_and_how(
    server_dir: Path, request: pytest.FixtureRequest, folder: int, file: int, who: str, remedy: str
) -> None:
    log = server_dir / "exim4" / "mainlog"
    log.parent.mkdir()
    log.write_text(EXIM)
    for path, mode in ((log.parent, folder), (log, file)):
        os.chown(path, 0, 4)
        path.chmod(mode)
    request.getfixturevalue("nobody")
    for read in (lambda: [open_log(each) for each in log_files([str(log)], print)], lambda: open_log(log)):
        with pytest.raises(SourceError) as raised:
            read()
        sentence = str(raised.value)
        assert sentence.startswith(f"cannot read {log}: Permission denied; only {who}")
        assert sentence.endswith(remedy)
    if not folder & 0o001:
        with pytest.raises(SourceError, match=f"Permission denied; only {who}"):
            log_files([f"{log.parent}/*"], print)


@pytest.mark.needs("journal")
def test_commands_read_a_real_journal(tmp_path: Path, bouncemeter: Run) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    empty = bouncemeter("report", f"journal:{folder}")
    assert empty.stderr == f"bouncemeter: journal:{folder}: the journal has no entries\n"
    JournalFile(folder).write(*(message(number) for number in range(200)))
    shown = json.loads(bouncemeter("report", "--format", "json", f"journal:{folder}").stdout)
    assert shown["bounces"] == {"soft": 0, "hard": 200}
    records = bouncemeter("parse", f"journal:{folder}").stdout.splitlines()
    assert [json.loads(each)["queue_id"] for each in records] == [f"4A1B2C{number:04X}" for number in range(200)]
    assert "5.1.1" in bouncemeter("trace", "4A1B2C0007", f"journal:{folder}").stdout
    assert "200 messages" in bouncemeter("trace", "--by", "reply", "5.1.1", f"journal:{folder}").stdout
    done = bouncemeter("report", "journal:/nowhere", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("bouncemeter: cannot read journal:/nowhere: ")
