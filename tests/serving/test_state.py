"""What survives a restart, and what happens if the state cannot be written."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from bouncemeter.plugin import parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.serving.state import ROWS, State, StateError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import LOGS, Run
from tests.counting.test_lives import END, GROUPS, WRITERS, Life, Truth, lives
from tests.servers.exporter import Exporter

LINE = (
    "Nov  4 03:00:{second:02} mx1 postfix/smtp[1]: {queue_id}: to=<a@dest.example>, relay=mx.google.com[192.0.2.1]:25,"
    " delay=1, delays=0/0/0/1, dsn={dsn}, status={status} (host mx.google.com[192.0.2.1] said: 550 {dsn} no)\n"
)
BY_CLASS = 'mail_bounces_by_class_total{{class="{0}",kind="{1}",mta="postfix"}}'
WAITING = 'mail_deferred_recipients{class="4.2",code="4.2.2",mta="postfix",provider="google"}'


def line(number: int, dsn: str, status: str) -> str:
    return LINE.format(second=number % 60, queue_id=f"4A1B2C{number:04X}", dsn=dsn, status=status)


@settings(max_examples=60, deadline=None)
@given(scripts=lives(), seed=st.integers(), mta=st.sampled_from(sorted(WRITERS)))
def test_a_restart_anywhere_changes_nothing(scripts: list[Life], seed: int, mta: str) -> None:
    chance = random.Random(seed)
    lines = [text for _, text in sorted(line for life in scripts for line in WRITERS[mta](life, chance))]
    truth = Truth()
    for life in scripts:
        truth.add(life)
    with tempfile.TemporaryDirectory() as folder:
        for part in _parts(lines, chance):
            state, counters = State(Path(folder) / "state.db", print), Counters()
            ledger = Ledger(recording=True, senders=True)
            counters.restore(state.numbers)
            counters.name_senders(GROUPS)
            ledger.memory.restore(state.servers(), state.messages())
            read = parser(mta).reader(lambda: END)
            for text in part:
                for entry in read(text):
                    counters.count(entry, ledger.facts(entry))
            state.commit(counters.numbers(), {}, ledger.memory.servers(), ledger.memory.changes())
            state.close()
    ends = Counter[str]()
    for (_, outcome, _), number in counters.recipients.values.items():
        ends[outcome] += number
    assert ends == truth.recipients
    assert sum(counters.bounces.values.values()) == truth.soft + truth.hard
    by_sender = Counter[tuple[str, str]]()
    for (_, sender, kind, _), number in counters.bounces_by_sender.values.items():
        by_sender[sender, kind] += number
    assert +by_sender == truth.by_sender
    assert sum(counters.notifications.values.values()) == truth.notifications.total()
    assert ledger.memory.waiting.total() == truth.waiting
    assert sum(sum(each.counts) for each in counters.delays.values()) == truth.recipients.total()


def _parts(lines: list[str], chance: random.Random) -> Iterator[list[str]]:
    while lines:
        size = chance.randint(1, 30)
        yield lines[:size]
        lines = lines[size:]


def test_counters_and_messages_continue_after_a_restart(tmp_path: Path) -> None:
    log, state = tmp_path / "mail.log", tmp_path / "state" / "state.db"
    log.write_text(line(1, "4.2.2", "deferred") + line(2, "4.2.2", "deferred") + line(3, "5.1.1", "bounced"))
    with Exporter("--state", state, "--from-start", log) as exporter:
        assert exporter.value(WAITING) == 2
        assert exporter.value("bouncemeter_state_writable") == 1
    assert state.stat().st_mode & 0o077 == 0
    with log.open("a") as writer:
        writer.write(line(1, "4.2.2", "deferred") + line(1, "2.0.0", "sent") + line(4, "5.1.1", "bounced"))
        writer.write(
            "Nov  4 03:01:00 mx1 postfix/qmgr[1]: 4A1B2C0002: from=<b@src.test>, status=expired, returned to sender\n"
        )
    with Exporter("--state", state, log) as exporter:
        assert exporter.value(BY_CLASS.format("4.2", "soft")) == 2
        assert exporter.value(BY_CLASS.format("5.1", "hard")) == 2
        assert exporter.value(WAITING) is None
        assert exporter.value('mail_recipients_total{mta="postfix",outcome="expired",provider="google"}') == 1
        assert exporter.value('mail_recipients_total{mta="postfix",outcome="delivered",provider="google"}') == 1
        assert exporter.value(f'bouncemeter_lines_total{{mta="postfix",result="event",source="{log}"}}') == 7
        assert exporter.value('mail_delivery_delay_seconds_count{mta="postfix",outcome="bounced"}') == 2


def test_a_state_that_is_in_use_is_left_alone(tmp_path: Path, bouncemeter: Run) -> None:
    log, state = tmp_path / "mail.log", tmp_path / "state.db"
    log.touch()
    with Exporter("--state", state, log):
        done = bouncemeter("serve", "--state", state, "--web.listen-address", "127.0.0.1:0", log, check=False)
    assert done.returncode == 1
    assert done.stderr == f"bouncemeter: {state} is in use by another bouncemeter; name another file with --state\n"


@pytest.mark.parametrize("content", [b"no database at all, but longer than a header of one would be" * 50, None])
def test_a_state_that_cannot_be_read_is_left_alone(tmp_path: Path, bouncemeter: Run, content: bytes | None) -> None:
    state = tmp_path / "state.db"
    if content is not None:
        state.write_bytes(content)
    else:
        with sqlite3.connect(state) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    before = state.read_bytes()
    done = bouncemeter("serve", "--state", state, __file__, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bouncemeter: {state} cannot be read (")
    assert done.stderr.endswith("); move it away to start afresh\n")
    assert state.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_reported(bouncemeter: Run) -> None:
    done = bouncemeter("serve", "--state", "/proc/nowhere/state.db", __file__, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("bouncemeter: cannot keep the state in /proc/nowhere/state.db: ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def small_disk(server_dir: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = server_dir / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.needs("another user")
def test_a_full_disk_stops_reading_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    log, state, filler = tmp_path / "mail.log", small_disk / "state.db", small_disk / "filler"
    log.write_text(line(0, "4.2.2", "deferred"))
    with Exporter("--state", state, "--from-start", log) as exporter:
        assert exporter.value(WAITING) == 1
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        with log.open("a") as writer:
            writer.writelines(line(number, "4.2.2", "deferred") for number in range(1, 1001))
        exporter.wait_for_value("bouncemeter_state_writable", 0)
        # The metrics show what was committed.
        assert exporter.value(WAITING) == 1
        assert exporter.value(f'bouncemeter_source_offset_bytes{{source="{log}"}}') == len(line(0, "4.2.2", "deferred"))
        assert exporter.value(f'bouncemeter_source_size_bytes{{source="{log}"}}') == log.stat().st_size
        filler.unlink()
        exporter.wait_for_value("bouncemeter_state_writable", 1)
        exporter.wait_for_value(WAITING, 1001)
    assert sum("reading waits until it can be written" in sentence for sentence in exporter.said) == 1
    with Exporter("--state", state, log) as exporter:
        assert exporter.value(WAITING) == 1001


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", print)
    state.commit({"bounces": {("postfix",): 1}}, {"log": {"a": "1"}}, {("postfix", "mx"): (1.0, True)}, [])
    with pytest.raises(StateError, match="cannot write the state"):
        state.commit(
            {"bounces": {("postfix",): 2}},
            {"log": {"a": "2"}},
            {("postfix", "mx"): (2.0, True)},
            [(("postfix", "mx", object()), b"0" * 16)],  # type: ignore[list-item]
        )
    state.close()
    again = State(tmp_path / "state.db", print)
    assert again.numbers == {"bounces": {("postfix",): 1}}
    assert again.positions == {"log": {"a": "1"}}
    assert list(again.servers()) == [(("postfix", "mx"), (1.0, True))]
    again.close()


Kept = tuple[object, ...]


def written(path: Path) -> Kept:
    """Write a state with some of everything, and return what it holds."""
    state, counters, ledger = State(path, print), Counters(), Ledger(recording=True)
    read = parser("postfix").reader()
    for text in (LOGS / "postfix" / "relay.log").read_text().splitlines():
        for entry in read(text):
            counters.count(entry, ledger.facts(entry))
    state.commit(counters.numbers(), {"log": {"0": "{}"}}, ledger.memory.servers(), ledger.memory.changes())
    state.close()
    return kept(path)


def kept(path: Path) -> Kept:
    """What a state holds."""
    state, ledger = State(path, print), Ledger()
    try:
        ledger.memory.restore(state.servers(), state.messages())
        return state.numbers, state.positions, ledger.memory.servers(), len(ledger.memory)
    finally:
        state.close()


def test_a_damaged_byte_is_told_or_does_no_harm(tmp_path: Path) -> None:
    good, damaged, chance = tmp_path / "good.db", tmp_path / "damaged.db", random.Random(1)
    wanted = written(good)
    content, told = good.read_bytes(), 0
    cut = [content[:size] for size in chance.sample(range(1, len(content)), 40)]
    cut += [
        content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
        for place in chance.sample(range(len(content)), 400)
    ]
    for each in cut:
        damaged.write_bytes(each)
        try:
            found: object = kept(damaged)
        except StateError as error:
            found = str(error)
        if isinstance(found, str):
            assert re.fullmatch(rf"{damaged} cannot be read \(.+\); move it away to start afresh", found)
            told += 1
        else:
            assert found == wanted
        for beside in tmp_path.glob("damaged.db-*"):
            beside.unlink()
    assert told > 100


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (text)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="it is the database of another program"):
        State(path, print)
    assert path.read_bytes() == before


def test_a_state_of_the_version_before_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    wanted = written(path)
    with sqlite3.connect(path) as database:
        for table in ROWS:
            database.execute(f"ALTER TABLE {table} DROP COLUMN crc")
        database.execute("PRAGMA user_version = 1")
    database.close()
    assert kept(path) == wanted
    assert kept(path) == wanted


def test_a_state_without_bytes_is_said(tmp_path: Path) -> None:
    log, state = tmp_path / "mail.log", tmp_path / "state.db"
    log.write_text(line(1, "5.1.1", "bounced"))
    state.touch()
    with Exporter("--state", state, log) as exporter:
        assert exporter.said[0] == (
            f"bouncemeter: {state} has no bytes, so there is nothing to go on from: starting afresh"
        )


def test_from_start_with_a_saved_position_says_which_wins(tmp_path: Path) -> None:
    log, state = tmp_path / "mail.log", tmp_path / "state.db"
    log.write_text(line(1, "5.1.1", "bounced"))
    sentence = f"bouncemeter: {log}: going on where the last run stopped, by {state};"
    for runs in range(2):
        with Exporter("--state", state, "--from-start", log) as exporter:
            exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 1)
        assert sum(each.startswith(sentence) for each in exporter.said) == runs


def test_a_state_that_is_deleted_while_in_use_is_written_again(tmp_path: Path) -> None:
    log, state = tmp_path / "mail.log", tmp_path / "own" / "state.db"
    log.write_text(line(1, "5.1.1", "bounced") + line(2, "4.2.2", "deferred"))
    with Exporter("--state", state, "--from-start", log) as exporter:
        exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 1)
        for each in state.parent.iterdir():
            each.unlink()
        state.parent.rmdir()
        with log.open("a") as writer:
            writer.write(line(3, "5.1.1", "bounced"))
        exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 2)
        assert exporter.said[-1] == f"bouncemeter: {state} was deleted while in use: it was written again"
        assert state.stat().st_mode & 0o077 == 0
    with Exporter("--state", state, log) as exporter:
        assert exporter.value(BY_CLASS.format("5.1", "hard")) == 2
        assert exporter.value(WAITING) == 1


AS_NOBODY = """
import encodings.idna, os, sys
from pathlib import Path
from bouncemeter.plugin import parsers
from bouncemeter_exporter.config import Config, SourceConfig
from bouncemeter_exporter.serving.exporter import Exporter
parsers()  # another user may not be able to read where the tests are installed
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
state, logs = map(Path, sys.argv[1:])
config = Config(sources=(SourceConfig(str(logs)),), state=state, from_start=True, listen_address="127.0.0.1:0")
Exporter(config, lambda sentence: print(sentence, file=sys.stderr, flush=True)).run()
"""


@pytest.mark.needs("another user")
def test_an_ordinary_user_writes_nothing_but_the_state(server_dir: Path) -> None:
    """As a service runs it: the user owns only the state's folder, and nothing is written beside the logs."""
    logs, own = server_dir / "logs", server_dir / "own"
    logs.mkdir()
    own.mkdir()
    os.chown(own, 65534, 65534)
    (logs / "mail.log").write_text((LOGS / "postfix" / "relay.log").read_text())
    before = {each.name: each.stat().st_mtime_ns for each in logs.iterdir()}
    process = subprocess.Popen(
        [sys.executable, "-c", AS_NOBODY, own / "state.db", logs], stderr=subprocess.PIPE, text=True, cwd="/"
    )
    assert process.stderr is not None
    said = [process.stderr.readline(), process.stderr.readline()]
    process.send_signal(signal.SIGTERM)
    said += process.stderr.readlines()
    process.stderr.close()
    assert process.wait() == 0, said
    assert "Read 190 lines of postfix" in said[1]
    assert {each.name: each.stat().st_mtime_ns for each in logs.iterdir()} == before
    assert [each.name for each in own.iterdir()] == ["state.db"]


@pytest.mark.parametrize("command", ["report", "parse", "trace CAFE721229B", "explain 5.7.1", "codes"])
def test_other_commands_write_nothing(tmp_path: Path, bouncemeter: Run, command: str) -> None:
    log = tmp_path / "mail.log"
    log.write_text((LOGS / "postfix" / "relay.log").read_text())
    before = log.stat().st_mtime_ns
    words = command.split()
    bouncemeter(*words, *([log] if words[0] not in ("explain", "codes") else []))
    assert list(tmp_path.iterdir()) == [log]
    assert log.stat().st_mtime_ns == before
