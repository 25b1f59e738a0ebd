"""Entries as rows and back, and logs in parts: nothing is lost, changed or twice."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from bouncemeter.event import Entry, Event, Step
from bouncemeter_exporter.archive.columns import batch
from bouncemeter_exporter.archive.entries import ENTRY, ORDER, Rows, entries_of
from bouncemeter_exporter.archive.facts import facts
from bouncemeter_exporter.archive.logs import Part, find, read
from bouncemeter_exporter.records import Redactor
from bouncemeter_exporter.sources.lines import SourceError

from tests.bench.traffic import day
from tests.conftest import LOGS

FIXTURES = [path for path in sorted(LOGS.glob("*/*")) if path.suffix.lower() == ".log"]


def silent(sentence: str) -> None:
    """Fail: nothing is left out."""
    raise AssertionError(sentence)


def entries(part: Part) -> list[Entry]:
    """The entries of a part."""
    return [entry for block in read(part, silent) for entry in block]


def rounded(entry: Entry) -> Entry:
    """An entry with the time that a column can hold."""
    return entry if entry.time is None else replace(entry, time=round(entry.time * 1e6) / 1e6)


@pytest.mark.parametrize("log", FIXTURES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_entries_become_rows_and_rows_become_entries(log: Path) -> None:
    (part,) = find(str(log), None, 1 << 30, silent)
    found = entries(part)
    made = batch(list(Rows(part.name, server="elsewhere").of(found)), ENTRY)
    made.validate(full=True)
    expected = [(each.host or "elsewhere", replace(rounded(each), host=each.host or "elsewhere")) for each in found]
    assert list(entries_of(made)) == expected
    assert {type(each) for each in found} >= {Event}
    places = list(zip(*(made.column(name).to_pylist() for name in ORDER[-2:]), strict=True))
    assert places == [(0, number) for number in range(len(found))]


def test_the_order_of_a_log_is_kept_where_its_lines_are_out_of_order() -> None:
    steps = [Step("removed", "postfix", f"Q{time}", time=time) for time in (5.0, 3.0, 7.0)]  # type: ignore[arg-type]
    at = ENTRY.get_field_index("at")
    assert [row[at] for row in Rows("mail.log").of(steps)] == [5.0, 5.0, 7.0]
    assert [row[at] for row in Rows(None).of(steps)] == [5.0, 3.0, 7.0]


@pytest.mark.parametrize("mta", ["postfix", "exim"])
def test_the_parts_of_a_log_are_the_log(mta: str, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text("".join(f"{line}\n" for line in day(mta, 3000)))
    (whole,) = find(str(log), None, 1 << 30, silent)
    for size in (1000, 50_001, log.stat().st_size - 1):
        parts = find(str(log), None, size, silent)
        assert len(parts) == -(-log.stat().st_size // size) > 1
        assert [entry for part in parts for entry in entries(part)] == entries(whole)
        assert len({part.begun for part in parts} - {None}) == 1


def test_what_must_be_read_from_its_beginning_is_one_part(tmp_path: Path) -> None:
    packed = tmp_path / "mail.log.gz"
    packed.write_bytes(gzip.compress((LOGS / "postfix" / "relay.log").read_bytes()))
    for log in (packed, LOGS / "exchange" / "MSGTRK2026112409-1.LOG"):
        (part,) = find(str(log), None, 100, silent)
        assert entries(part)


def test_a_url_that_leads_nowhere_is_named() -> None:
    with pytest.raises(SourceError, match="cannot read memory://nowhere/mail: there is no such file"):
        find("memory://nowhere/mail", None, 100, silent)


def test_hidden_facts_have_no_address() -> None:
    (part,) = find(str(LOGS / "postfix" / "relay.log"), None, 1 << 30, silent)
    rows = batch(list(Rows(part.name).of(entries(part))), ENTRY)
    shown, hidden = (pa.Table.from_batches(facts([rows], each)) for each in (None, Redactor()))
    assert "sender@src.test" in shown["sender"].to_pylist()
    assert {Redactor().address(each) for each in shown["recipient"].to_pylist() if each} == {
        *filter(None, hidden["recipient"].to_pylist())
    }
    assert "sender@" not in str(hidden.to_pylist())


def test_nothing_large_is_loaded_unless_it_is_used() -> None:
    program = (
        "import sys; sys.argv = ['bouncemeter', 'parse', sys.argv[1]]\n"
        "from bouncemeter_exporter.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*({'pyarrow', 'pyspark', 'pandas', 'fsspec'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, str(LOGS / "exim" / "relay.log")]
    assert subprocess.run(command, capture_output=True, check=True).stderr.strip() == b""
