"""`bouncemeter parse --format parquet` and `--format arrow`: what other programs read from them."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest
from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter_exporter.archive import columns
from bouncemeter_exporter.archive.columns import EVENT, WORD, batches
from bouncemeter_exporter.archive.files import write_arrow, write_parquet
from bouncemeter_exporter.archive.whole import whole_file
from pyarrow import parquet

from tests.conftest import LOGS, ROOT, Run

PARSE = [sys.executable, "-m", "bouncemeter_exporter", "parse"]

Parse = Callable[..., list[dict[str, Any]]]

FIXTURES = sorted(path for path in LOGS.glob("*/*") if path.suffix in {".log", ".LOG"})


def asked(query: str) -> list[Any]:
    """What DuckDB answers."""
    return duckdb.execute(query).fetchall()


def as_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of Arrow as `bouncemeter parse` prints them."""
    for row in rows:
        if (moment := row["time"]) is not None:
            short = "milliseconds" if moment.microsecond else "seconds"
            row["time"] = moment.isoformat(timespec=short).replace("+00:00", "Z")
    return rows


@pytest.mark.parametrize("log", FIXTURES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_parquet_file_has_what_json_has(log: Path, bouncemeter: Run, parse: Parse, tmp_path: Path) -> None:
    bouncemeter("parse", "--format", "parquet", "--output", tmp_path / "events.parquet", log)
    table = parquet.read_table(tmp_path / "events.parquet")
    assert as_json(table.to_pylist()) == parse(log)
    assert table.schema.equals(EVENT)


def test_an_arrow_stream_goes_through_a_pipe(bouncemeter: Run, parse: Parse, tmp_path: Path) -> None:
    log = LOGS / "exim" / "relay.log"
    command = [*PARSE, "--format", "arrow", str(log)]
    piped = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "TZ": "UTC"}).stdout
    assert as_json(pa.ipc.open_stream(piped).read_all().to_pylist()) == parse(log)
    bouncemeter("parse", "--format", "arrow", "--output", tmp_path / "events.arrow", log)
    assert (tmp_path / "events.arrow").read_bytes() == piped


def test_duckdb_and_polars_read_the_types(bouncemeter: Run, tmp_path: Path) -> None:
    made, log = tmp_path / "events.parquet", LOGS / "postfix" / "relay.log"
    bouncemeter("parse", "--format", "parquet", "--output", made, log)
    bouncemeter("parse", "--format", "arrow", "--output", tmp_path / "events.arrow", log)
    query = f"select class, count(*) n from '{made}' where kind = 'hard' and reply_code > 549 group by 1 order by 1"
    by_duckdb = asked(query)
    for frame in (polars.read_parquet(made), polars.read_ipc_stream(tmp_path / "events.arrow")):
        hard = frame.filter((polars.col("kind") == "hard") & (polars.col("reply_code") > 549))
        counted = hard.group_by(polars.col("class").cast(polars.String)).len().sort("class")
        assert counted.rows() == by_duckdb != []
        assert frame.schema["time"] == polars.Datetime("us", "UTC")


def test_addresses_are_hidden(bouncemeter: Run, parse: Parse, tmp_path: Path) -> None:
    log = LOGS / "postfix" / "relay.log"
    bouncemeter("parse", "--redact", "--format", "parquet", "--output", tmp_path / "events.parquet", log)
    assert as_json(parquet.read_table(tmp_path / "events.parquet").to_pylist()) == parse("--redact", log)


def test_hostile_bytes_become_valid_texts(bouncemeter: Run, tmp_path: Path) -> None:
    line = "Nov 24 10:00:00 mx postfix/smtp[1]: 4ABCDE01: to=<a@b.test>, relay=none, delay=1, dsn=5.1.1, status="
    log = tmp_path / "mail.log"
    wrapped = json.dumps({"log": f"{line}bounced (half \ud83d)\n", "stream": "stdout", "time": "2026-11-24T10:00:00Z"})
    for number, text in enumerate([line.encode() + b"bounced (\xff\xfe \x1b[2J)", wrapped.encode()]):
        log.write_bytes(text + b"\n")
        bouncemeter("parse", "--format", "parquet", "--output", tmp_path / f"{number}.parquet", log)
    assert asked(f"select text from '{tmp_path}/*.parquet' order by filename") == [
        (r"\xff\xfe " + "\x1b[2J",),
        (r"half \ud83d",),
    ]


def test_an_archive_of_nothing_has_its_columns() -> None:
    written = io.BytesIO()
    write_parquet([], written)
    assert parquet.read_table(written).schema.equals(EVENT)
    stream = io.BytesIO()
    write_arrow([], stream)
    assert pa.ipc.open_stream(stream.getvalue()).read_all().schema.equals(EVENT)


def test_batches_are_bounded_by_rows_and_by_text(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = pa.schema([("mta", WORD), ("text", pa.string())])
    rows = [("exim", "12345")] * 7
    assert [each.num_rows for each in batches(rows, schema, length=3)] == [3, 3, 1]
    monkeypatch.setattr(columns, "SIZE", 10)
    assert [each.num_rows for each in batches(rows, schema, length=3)] == [2, 2, 2, 1]


def test_a_row_group_is_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "SIZE", 10)
    event = Event("exim", Outcome.BOUNCED, EnhancedCode(5, 1, 1), time=1764000000.25, text="0123456789")
    written = io.BytesIO()
    write_parquet([event] * 3, written)
    assert parquet.ParquetFile(written).num_row_groups == 3
    assert parquet.read_table(written)["time"][0].as_py() == datetime(2025, 11, 24, 16, 0, 0, 250_000, UTC)


def test_json_can_be_written_to_a_file(bouncemeter: Run, parse: Parse, tmp_path: Path) -> None:
    log = LOGS / "postfix" / "relay.log"
    assert bouncemeter("parse", "--output", tmp_path / "events.jsonl", log).stdout == ""
    assert [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()] == parse(log)


def test_the_page_reads_its_own_file(bouncemeter: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "archive.md").read_text()
    (command,) = re.findall(r"^bouncemeter (parse .*)$", page, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    bouncemeter(*command.replace("/var/log/mail.log", str(LOGS / "postfix" / "relay.log")).split())
    (block,) = re.findall(r"^```python\n(import duckdb.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    exec(block)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "parquet"], "--format parquet needs --output FILE"),
        (["--format", "parquet", "--unparsed", "--output", "x"], "it goes with neither --format nor --output"),
    ],
)
def test_wrong_arguments_are_explained(words: list[str], sentence: str, bouncemeter: Run) -> None:
    done = bouncemeter("parse", *words, LOGS / "postfix" / "relay.log", check=False)
    assert (done.returncode, sentence in done.stderr) == (2, True)


def test_a_terminal_gets_no_binary() -> None:
    ours, theirs = pty.openpty()
    command = [*PARSE, "--format", "arrow", str(LOGS / "exim" / "relay.log")]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, b"not for a terminal" in done.stderr) == (2, True)


def test_a_log_is_not_overwritten(bouncemeter: Run, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes((LOGS / "postfix" / "relay.log").read_bytes())
    before = log.read_bytes()
    done = bouncemeter("parse", "--format", "parquet", "--output", log, log, check=False)
    assert "is one of the logs to read" in done.stderr
    assert log.read_bytes() == before


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('no pyarrow', name='pyarrow')\n")
    command = [*PARSE, "--format", "arrow", str(LOGS / "exim" / "relay.log")]
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.stderr == "bouncemeter: install bouncemeter[arrow] for --format arrow: it needs pyarrow\n"
    assert (done.returncode, done.stdout) == (1, "")


def test_a_folder_that_is_missing_is_named(bouncemeter: Run, tmp_path: Path) -> None:
    made = tmp_path / "none" / "x.parquet"
    done = bouncemeter("parse", "--format", "parquet", "--output", made, LOGS / "exim" / "relay.log", check=False)
    assert done.stderr == f"bouncemeter: cannot write {made}: No such file or directory\n"


# --- interruptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_an_interrupted_run_leaves_the_earlier_file(form: str, number: int, tmp_path: Path) -> None:
    made = tmp_path / "events"
    made.write_text("earlier")
    command = [*PARSE, "--format", form, "--output", str(made), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write((LOGS / "postfix" / "relay.log").read_bytes() * 20)
        process.stdin.flush()
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".events.*.part")) and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) != 0
        assert b"Exception" not in process.stderr.read()
    assert made.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [made]


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / "there", tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:  # noqa: PT012
        file.write(b"half")
        raise ZeroDivisionError
    assert not path.exists()
    with whole_file(link) as file:
        file.write(b"all")
        assert not path.exists()
    assert (path.read_bytes(), link.is_symlink()) == (b"all", True)
    with whole_file(Path(os.devnull)) as file:
        file.write(b"nothing")
    assert not Path(os.devnull).is_file()
