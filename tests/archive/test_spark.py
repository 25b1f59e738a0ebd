"""Logs in a real Spark: what it reads is what `parse` prints, and what it counts is what `report` counts."""

from __future__ import annotations

import gzip
import json
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.archive.columns import EVENT
from bouncemeter_exporter.archive.entries import ENTRY
from bouncemeter_exporter.archive.fleet import report as fleet_report
from bouncemeter_exporter.archive.spark import entries, events, recipients, register
from bouncemeter_exporter.records import rfc3339
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from tests.bench.traffic import day
from tests.conftest import LOGS, ROOT

pytestmark = [pytest.mark.needs("java"), pytest.mark.xdist_group("spark"), pytest.mark.slow]

Parse = Callable[..., list[dict[str, Any]]]
Report = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """One session for all tests, in a zone of its own: times must not depend on it."""
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the first python3 of the PATH
    made = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "Asia/Tokyo")
        .config("spark.executorEnv.TZ", "UTC")
        .getOrCreate()
    )
    yield made
    made.stop()


def load(spark: SparkSession, *paths: Path, **options: str) -> DataFrame:
    """The logs of some paths as a data frame."""
    return spark.read.format("bouncemeter").options(**options).load(list(map(str, paths)))  # type: ignore[no-any-return, unused-ignore]


def records(frame: DataFrame) -> list[str]:
    """The events of a data frame, as `bouncemeter parse` prints them, sorted."""
    rows = frame.select(*EVENT.names).withColumn("time", F.unix_micros("time")).collect()
    made = [{**row.asDict(), "time": rfc3339(row["time"] and row["time"] / 1e6)} for row in rows]
    return sorted(map(json.dumps, made))


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report Spark counts as well."""
    names = ("attempts", "recipients", "bounces", "rejections", "notifications", "classes", "reasons", "providers")
    codes = [
        (row["code"], row["kind"], row["recipients"], row["reason"]) for row in report["codes"] if row["recipients"]
    ]
    return {name: report[name] for name in (*names, "from", "to")} | {"codes": sorted(codes)}


# --- log files ------------------------------------------------------------------------------------------------------

FIXTURES = [path for path in sorted(LOGS.glob("*/*")) if path.suffix.lower() == ".log"]


def test_the_events_of_files_are_those_of_parse(spark: SparkSession, parse: Parse) -> None:
    assert records(load(spark, *FIXTURES)) == sorted(map(json.dumps, (e for log in FIXTURES for e in parse(log))))


@pytest.mark.parametrize("name", ["postfix/filters.log", "exim/forms.log", "exchange/MSGTRK2026112409-1.LOG"])
def test_the_recipients_of_a_file_are_those_of_report(name: str, spark: SparkSession, report: Report) -> None:
    log = LOGS / name
    found = load(spark, log, entries="true")
    assert comparable(fleet_report(found, recipients(found))) == comparable(report(log))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Postfix servers in one log, another in rotated and compressed logs, and two Exim servers that do not name
    themselves, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("fleet")
    both = sorted(
        ((line[:15], number, line.replace(" mx1 ", f" mx{seed} ", 1)) for seed in (1, 2)
         for number, line in enumerate(day("postfix", 3000, seed))),
    )  # fmt: skip
    write(folder / "central" / "mail.log", [line for *_, line in both])
    alone = [line.replace(" mx1 ", " mx3 ", 1) for line in day("postfix", 3000, 3)]
    write(folder / "mx3" / "mail.log", alone[2000:])
    write(folder / "mx3" / "mail.log.1", alone[1000:2000])
    write(folder / "mx3" / "mail.log.2.gz", alone[:1000])
    for seed in (4, 5):
        write(folder / f"exim{seed}" / "mainlog", list(day("exim", 3000, seed)))
    write(folder / "mx3" / "notes.txt", ["nothing that a mail server wrote"])
    return folder


def write(path: Path, lines: list[str]) -> None:
    """Write a log, as its server did on the last day of the month."""
    path.parent.mkdir(exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    written = datetime(2025, 11, 30, tzinfo=UTC).timestamp()
    os.utime(path, (written, written))


def added(one: Any, other: Any) -> Any:
    """The sum of two reports, without their tables."""
    if isinstance(one, dict):
        return {name: added(one[name], other[name]) for name in one if not isinstance(one[name], list | str)}
    return one + other


def test_a_fleet_counts_as_its_servers_do(spark: SparkSession, fleet: Path, report: Report) -> None:
    found = load(spark, fleet / "central", fleet / "mx3", fleet / "exim4", fleet / "exim5", entries="true",
                 partBytes="50000").cache()  # fmt: skip
    assert found.rdd.getNumPartitions() > 10
    facts = recipients(found)
    postfix = found.where("mta = 'postfix'")
    by_spark = fleet_report(postfix, facts.where("mta = 'postfix'"))
    by_report = report(fleet / "central", fleet / "mx3")
    assert comparable(by_spark) == comparable(by_report)
    assert by_spark["from"].startswith("2025-11-01")
    exim = [fleet_report(found.where(f"server = '{fleet}/exim{n}'"), facts.where(f"host = '{fleet}/exim{n}'")) for n in
            (4, 5)]  # fmt: skip
    assert list(map(comparable, exim)) == [comparable(report(fleet / f"exim{n}")) for n in (4, 5)]
    found.unpersist()


def test_a_session_can_be_told_of_the_format(spark: SparkSession) -> None:
    register(spark)
    assert load(spark, LOGS / "exim" / "relay.log").columns == EVENT.names


def test_a_log_without_hosts_gets_the_one_that_is_named(spark: SparkSession, fleet: Path) -> None:
    found = load(spark, fleet / "exim4" / "mainlog", entries="true", host="mx4")
    assert [row["server"] for row in found.select("server").distinct().collect()] == ["mx4"]


def test_a_url_is_read_by_fsspec(spark: SparkSession, fleet: Path, parse: Parse) -> None:
    found = spark.read.format("bouncemeter").load(f"file://{fleet}/mx3/mail*")
    logs = [fleet / "mx3" / name for name in ("mail.log.2.gz", "mail.log.1", "mail.log")]
    assert records(found) == sorted(map(json.dumps, parse(*logs)))


def test_addresses_are_hidden(spark: SparkSession, parse: Parse, tmp_path: Path) -> None:
    key, log = tmp_path / "key", LOGS / "postfix" / "relay.log"
    key.write_bytes(b"0123456789abcdef")
    assert records(load(spark, log, redact="true")) == sorted(map(json.dumps, parse("--redact", log)))
    keyed = sorted(map(json.dumps, parse("--redact-key", key, log)))
    assert records(load(spark, log, redactKeyFile=str(key))) == keyed
    found = load(spark, log, entries="true")
    hidden = recipients(found, redact_key=key.read_bytes()).where("recipient is not null")
    known = {json.loads(each)["recipient"] for each in keyed}
    assert {row["recipient"] for row in hidden.collect()} <= known


def test_a_log_that_is_missing_or_unknown_is_named(spark: SparkSession, fleet: Path) -> None:
    with pytest.raises(Exception, match=r"cannot read /nowhere/mail.log: there is no such file"):
        load(spark, Path("/nowhere/mail.log")).collect()
    with pytest.raises(Exception, match="unknown log format 'sendmail'"):
        load(spark, fleet / "mx3", logFormat="sendmail").collect()
    with pytest.raises(Exception, match=r"notes.txt is not a log of Postfix, Exim or Exchange"):
        load(spark, fleet / "mx3" / "notes.txt").collect()


def test_a_wrong_option_is_named(spark: SparkSession, fleet: Path) -> None:
    with pytest.raises(Exception, match="unknown option redacted; there are logformat, host"):
        load(spark, fleet / "mx3", redacted="true").collect()
    with pytest.raises(Exception, match="'yes' is neither true nor false"):
        load(spark, fleet / "mx3", redact="yes").collect()


def test_a_log_that_is_named_twice_is_read_once(spark: SparkSession) -> None:
    log = LOGS / "exim" / "relay.log"
    assert records(load(spark, log, log.parent / "rel*.log", logFormat="exim")) == records(
        load(spark, log, log.parent / "relay-all-selectors.log")
    )


# --- data frames of lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [{"log_format": "postfix"}, {}])
def test_lines_of_a_frame_count_as_their_file(
    named: dict[str, Any], spark: SparkSession, fleet: Path, report: Report
) -> None:
    logs = [str(fleet / "mx3" / name) for name in ("mail.log", "mail.log.1", "mail.log.2.gz")]
    metadata = ("_metadata.file_path", "_metadata.file_modification_time")
    lines = spark.read.text(logs).select("value", *metadata)
    found = entries(lines, source="file_path", written="file_modification_time", **named)
    assert comparable(fleet_report(found, recipients(found))) == comparable(report(*logs))


def test_lines_of_any_bytes_are_read(spark: SparkSession) -> None:
    line = (
        b"Nov 24 10:00:00 mx postfix/smtp[1]: 4ABCDE01: to=<a@b.test>, relay=none, delay=1, dsn=5.1.1, status=bounced "
    )
    lines = spark.createDataFrame([(bytearray(line + b"(\xff\xfe)"),), (None,)], "message binary")
    found = events(lines, "message", written=F.lit("2020-12-01").cast("timestamp")).collect()
    assert [(row["text"], row["code"], row["time"].year) for row in found] == [(r"\xff\xfe", "5.1.1", 2020)]


def test_lines_without_a_host_get_that_of_a_column(spark: SparkSession) -> None:
    log = (LOGS / "exim" / "relay.log").read_text().splitlines()
    lines = spark.createDataFrame([(f"mx{n}", line) for n in (1, 2) for line in log], "node string, value string")
    found = entries(lines, log_format="exim", host="node")
    by_host = recipients(found).groupBy("host").count().collect()
    assert {row["host"] for row in by_host} == {"mx1", "mx2"}
    assert len({row["count"] for row in by_host}) == 1


def test_a_stream_of_lines_becomes_events(spark: SparkSession, fleet: Path, parse: Parse, tmp_path: Path) -> None:
    lines = spark.readStream.text(str(fleet / "mx3"), pathGlobFilter="mail.log.1")
    found = events(lines.select("value", "_metadata.file_modification_time"), written="file_modification_time")
    query = found.writeStream.format("parquet").option("checkpointLocation", str(tmp_path / "checkpoint"))
    query.trigger(availableNow=True).start(str(tmp_path / "events")).awaitTermination()
    assert records(spark.read.parquet(str(tmp_path / "events"))) == sorted(
        map(json.dumps, parse(fleet / "mx3" / "mail.log.1"))
    )


def test_what_cannot_be_counted_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    lines = spark.createDataFrame([("x",)], "value string")
    with pytest.raises(ValueError, match="recipients needs entries, which are events and steps"):
        recipients(events(lines))
    with pytest.raises(ValueError, match="write the stream into a table"):
        recipients(entries(spark.readStream.text(str(tmp_path))))
    with pytest.raises(ValueError, match="a line of exchange cannot be understood without the header of its file"):
        events(lines, log_format="exchange")
    with pytest.raises(ValueError, match="a key of 3 bytes is too short"):
        events(lines, redact_key=b"abc")


# --- the page and its example ---------------------------------------------------------------------------------------


def test_the_examples_of_the_page_run(
    spark: SparkSession, fleet: Path, capsys: pytest.CaptureFixture[str], report: Report
) -> None:
    page = (ROOT / "docs" / "archive.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        if "duckdb" not in block:
            exec(block.replace("/archive/", f"{fleet}/"), names)
    assert capsys.readouterr().out.splitlines()[-1] == str(report(f"{fleet}/*/mail*")["bounces"])


def test_the_example_writes_a_table_by_day_and_the_report(
    spark: SparkSession, fleet: Path, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fleet_job.py", f"{fleet}/central/*", f"{fleet}/mx3", str(tmp_path)])
    zone = spark.conf.get("spark.sql.session.timeZone")
    for _ in range(2):  # again, as after an interruption
        runpy.run_path(str(ROOT / "docs" / "fleet_job.py"), run_name="__main__")
    spark.conf.set("spark.sql.session.timeZone", str(zone))
    written = json.loads("\n".join(row["value"] for row in spark.read.text(f"{tmp_path}/report").collect()))
    assert comparable(written) == comparable(report(fleet / "central", fleet / "mx3"))
    days = {path.name for path in (tmp_path / "entries").glob("day=*")}
    assert "day=2025-11-01" in days
    table = spark.read.parquet(f"{tmp_path}/entries")
    assert set(table.columns) == {*ENTRY.names, "day"}
    assert table.where("entry = 'event'").count() == sum(written["attempts"].values()) + written["rejections"]
