"""Logs in Spark, for archives that outgrow one machine. Needs pyspark and pyarrow, the extra `spark`, on every machine.

- `spark.read.format("bouncemeter").load("/archive/maillog*")`: the events of log files. Spark finds the format in
  `pyspark_bouncemeter`; where it does not look there, use `register(spark)`.
- `events(lines)`, `entries(lines)`: the same for a data frame of lines, in batches and in streams.
- `recipients(entries)`: what became of each recipient.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypedDict, Unpack

import pyarrow as pa
from bouncemeter.plugin import Parser, parser
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from bouncemeter_exporter.archive.columns import EVENT, SHORT, Row, batches, plain
from bouncemeter_exporter.archive.entries import ENTRY, NEEDED, ORDER, SERVER, Rows
from bouncemeter_exporter.archive.facts import FACT, facts
from bouncemeter_exporter.archive.logs import PART, Part, find, read
from bouncemeter_exporter.records import SHORTEST_KEY, Redactor
from bouncemeter_exporter.sources.lines import Lines, SourceError
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError

__all__ = ["BouncemeterSource", "LineOptions", "entries", "events", "recipients", "register"]

_EVENT = plain(EVENT)
_ENTRY_PLACES = slice(1, 1 + len(_EVENT))
"""Where the columns of an event are in the row of an entry."""


def register(spark: SparkSession) -> None:
    """Make the format `bouncemeter` known to a session."""
    spark.dataSource.register(BouncemeterSource)


def _schema(columns: pa.Schema) -> StructType:
    return from_arrow_schema(columns, prefer_timestamp_ntz=False)


def _collect_garbage_seldom() -> None:
    """Reading and counting create no reference cycles; a worker need not look for them all the time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _say(sentence: str) -> None:
    """Write a sentence into the log of a worker or of the driver."""
    sys.stderr.write(f"bouncemeter: {sentence}\n")


def _selected(rows: Iterator[Row], *, everything: bool) -> Iterator[pa.RecordBatch]:
    """Rows of entries as batches, of all entries or of events alone."""
    _collect_garbage_seldom()
    if everything:
        return batches(rows, ENTRY, SHORT)
    return batches((row[_ENTRY_PLACES] for row in rows), _EVENT, SHORT)


# --- log files ------------------------------------------------------------------------------------------------------


class BouncemeterSource(DataSource):
    """The data source `bouncemeter`: logs of Postfix, Exim and Exchange.

    Its options:

    - `logFormat`: the logs' format; detected by default.
    - `host`: what stands for the host in lines that name none; by default the log's folder.
    - `entries`: `true` adds the steps of messages, which `recipients` needs.
    - `redact`: `true` hides the local part of addresses; `redactKeyFile`: with the secret in this file of the driver.
    - `partBytes`: bytes of a log that one task reads, at most.
    """

    @classmethod
    def name(cls) -> str:
        """The name for `spark.read.format`."""
        return "bouncemeter"

    def schema(self) -> StructType:
        """The columns of events, or of all entries."""
        return _schema(ENTRY if _is_true(self.options.get("entries")) else _EVENT)

    def reader(self, schema: StructType) -> DataSourceReader:
        """A reader of the logs that `load` names."""
        return _Reader({name.lower(): value for name, value in self.options.items()}, len(schema) > len(_EVENT))


_OPTIONS = ("path", "paths", "logformat", "host", "entries", "redact", "redactkeyfile", "partbytes")


def _is_true(option: str | None) -> bool:
    """Whether an option is true.

    Raises:
        ValueError: It is neither true nor false: nobody should find out later that addresses were not hidden.
    """
    if (option or "false").lower() not in ("true", "false"):
        raise ValueError(f"{option!r} is neither true nor false")
    return (option or "false").lower() == "true"


class _Reader(DataSourceReader):
    """Finds logs, and reads them part by part."""

    def __init__(self, options: dict[str, str], everything: bool) -> None:  # noqa: FBT001
        for name in options:
            if name not in _OPTIONS:
                raise ValueError(f"unknown option {name}; there are {', '.join(_OPTIONS[2:])}")
        self._paths: list[str] = json.loads(options["paths"]) if "paths" in options else [options.get("path", "")]
        self._mta, self._host = options.get("logformat"), options.get("host")
        self._size, self._everything = max(1, int(options.get("partbytes", PART))), everything
        key = options.get("redactkeyfile")
        wanted = _is_true(options.get("redact")) or key is not None
        self._hidden = _redactor(Path(key).read_bytes() if key else None, redact=wanted)

    def partitions(self) -> list[InputPartition]:
        """The parts of the logs; this runs at the driver."""
        if self._paths == [""]:
            raise SourceError("name the logs: .load(PATH)")
        found = [part for path in self._paths for part in find(path, self._mta, self._size, _say)]
        once = {(part.name if "://" in part.name else os.path.realpath(part.name), part.begin): part for part in found}
        return [InputPartition(part) for part in once.values()]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Read a part."""
        part: Part = partition.value
        rows = Rows(
            part.name, part.begin, part.begun, self._host or part.folder, self._hidden, only_events=not self._everything
        )
        found = (row for block in read(part, _say) for row in rows.of(block))
        return _selected(found, everything=self._everything)


# --- data frames of lines -------------------------------------------------------------------------------------------


class LineOptions(TypedDict, total=False):
    """How to read lines of a data frame.

    Attributes:
        log_format: The lines' format; by default it is detected, in each partition.
        host: A column with what stands for the host in lines that name none.
        source: A column with the log's name, if the lines of each log are in order.
        written: A column with the latest time that a line can have, for lines without a year; by default the present.
        redact: Whether to hide the local part of addresses.
        redact_key: Hide it with this secret of 16 bytes or more.
    """

    log_format: str | None
    host: str | Column | None
    source: str | Column | None
    written: str | Column | None
    redact: bool
    redact_key: bytes | None


def events(lines: DataFrame, line: str | Column = "value", **options: Unpack[LineOptions]) -> DataFrame:
    """The events in lines that are in a data frame already: from Kafka, Delta, Iceberg or `spark.read.text`.

    Args:
        lines: A data frame, of a batch or of a stream.
        line: Its column with the lines, texts or bytes.
        options: See `LineOptions`.

    Raises:
        ValueError: A key is too short, or the format's lines cannot be understood one by one.
        ParserNotFoundError: There is no such format.
    """
    return _read(lines, line, everything=False, **options)


def entries(lines: DataFrame, line: str | Column = "value", **options: Unpack[LineOptions]) -> DataFrame:
    """The same with the steps of messages, which `recipients` needs."""
    return _read(lines, line, everything=True, **options)


def _read(
    lines: DataFrame,
    line: str | Column,
    *,
    everything: bool,
    log_format: str | None = None,
    host: str | Column | None = None,
    source: str | Column | None = None,
    written: str | Column | None = None,
    redact: bool = False,
    redact_key: bytes | None = None,
) -> DataFrame:
    if log_format is not None:
        _check_lines(parser(log_format))

    def column(value: str | Column | None, kind: str) -> Column:
        return (F.lit(None) if value is None else F.col(value) if isinstance(value, str) else value).cast(kind)

    chosen = lines.select(
        column(line, "binary").alias("line"),
        column(source, "string").alias("source"),
        column(host, "string").alias("host"),
        F.unix_micros(column(written, "timestamp")).alias("written"),
    )
    hidden = _redactor(redact_key, redact=redact)
    wanted = _schema(ENTRY if everything else _EVENT)
    return chosen.mapInArrow(partial(_entries, log_format=log_format, hidden=hidden, everything=everything), wanted)


def _redactor(key: bytes | None, *, redact: bool) -> Redactor | None:
    """What hides addresses, if that is wanted: with a key, or without."""
    if key is not None and len(key) < SHORTEST_KEY:
        raise ValueError(f"a key of {len(key)} bytes is too short; it needs {SHORTEST_KEY} or more")
    return Redactor(key) if redact or key is not None else None


def _check_lines(known: Parser) -> None:
    if not getattr(known, "each_line_alone", False):
        raise ValueError(
            f"a line of {known.name} cannot be understood without the header of its file:"
            ' read the files with spark.read.format("bouncemeter")'
        )


def _entries(
    frames: Iterator[pa.RecordBatch], log_format: str | None, hidden: Redactor | None, *, everything: bool
) -> Iterator[pa.RecordBatch]:
    return _selected(_rows(frames, log_format, hidden, only_events=not everything), everything=everything)


class _Log:
    """Lines of one log that come one after the other."""

    def __init__(self, key: tuple[str | None, str | None], log_format: str | None, make: Callable[..., Rows]) -> None:
        self.key, self.written = key, float("-inf")
        self._make, self._lines = make(*key), Lines()
        self._log = LogReader(key[0] or "lines", parser(log_format) if log_format else None, self._clock, patient=True)
        self._known = log_format is not None

    @property
    def number(self) -> int:
        """The number of the next entry."""
        return self._make.number

    def _clock(self) -> float:
        return self.written if self.written > 0 else time.time()

    def rows(self, lines: list[bytes | None]) -> Iterator[Row]:
        """The rows of further lines."""
        yield from self._make.of(self._log.read(self._lines.feed(b"".join(b"%b\n" % each for each in lines if each))))
        if not self._known and self._log.parser is not None:
            _check_lines(self._log.parser)
            self._known = True

    def end(self) -> Iterator[Row]:
        """The rows of lines that were held back until the format is known."""
        try:
            yield from self._make.of(self._log.end())
        except UnknownFormatError as error:
            _say(str(error))


def _rows(
    frames: Iterator[pa.RecordBatch], log_format: str | None, hidden: Redactor | None, *, only_events: bool
) -> Iterator[Row]:
    context = TaskContext.get()
    task = context.partitionId() if context else 0
    number, log = 0, None

    def make(source: str | None, host: str | None) -> Rows:
        return Rows(source, task, None, host, hidden, number, only_events=only_events)

    for frame in frames:
        rows = zip(*(frame.column(name).to_pylist() for name in ("source", "host", "line", "written")), strict=True)
        for key, group in groupby(rows, key=lambda row: row[:2]):
            lines = list(group)
            if log is None or log.key != key:
                if log is not None:
                    yield from log.end()
                    number = log.number
                log = _Log(key, log_format, make)
            log.written = max([log.written, *(each[3] / 1e6 for each in lines if each[3] is not None)])
            yield from log.rows([each[2] for each in lines])
    if log is not None:
        yield from log.end()


# --- recipients -----------------------------------------------------------------------------------------------------


def recipients(entries: DataFrame, *, redact: bool = False, redact_key: bytes | None = None) -> DataFrame:
    """What became of each recipient, as `bouncemeter report` counts it: one ledger for each server.

    All entries of a server go through one task, in order; it needs memory for the messages that are in the server's
    queue, not for its log.

    Args:
        entries: The entries of logs: of the format `bouncemeter` with the option `entries`, or of `entries(lines)`.
        redact: Hide the local part of addresses. Entries with hidden addresses need not give the same facts.
        redact_key: Hide it with this secret of 16 bytes or more.

    Raises:
        ValueError: The entries have no steps, or are a stream.
    """
    missing = [name for name in NEEDED if name not in entries.columns]
    if missing:
        raise ValueError(
            "recipients needs entries, which are events and steps: read the logs with"
            f' .option("entries", "true"), or with entries(lines); missing: {", ".join(missing)}'
        )
    if entries.isStreaming:
        raise ValueError("recipients needs all entries in order: write the stream into a table, and read that")
    ordered = entries.select(*NEEDED).repartition(*SERVER).sortWithinPartitions(*SERVER, *ORDER)
    hidden = _redactor(redact_key, redact=redact)
    return ordered.mapInArrow(partial(_facts, hidden=hidden), _schema(FACT))


def _facts(rows: Iterator[pa.RecordBatch], hidden: Redactor | None) -> Iterator[pa.RecordBatch]:
    _collect_garbage_seldom()
    return facts(rows, hidden)
