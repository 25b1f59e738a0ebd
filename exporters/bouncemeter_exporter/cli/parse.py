"""`bouncemeter parse`: the outcomes in logs as JSON, Parquet or Arrow."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bouncemeter_exporter.cli.options import (
    ConfigFile,
    FormatOf,
    LogArguments,
    Redact,
    RedactKey,
    Since,
    Until,
    collect_garbage_seldom,
    fail,
    period,
    reading_errors,
    redactor,
    say,
    use_config,
)

if TYPE_CHECKING:
    from bouncemeter.event import Event

    from bouncemeter_exporter.records import Redactor

__all__ = ["parse"]


class EventFormat(StrEnum):
    """How events are written."""

    JSON = "json"
    PARQUET = "parquet"
    ARROW = "arrow"


def parse(
    logs: LogArguments = None,
    *,
    form: Annotated[
        EventFormat,
        typer.Option(
            "--format",
            help="json: one object a line. parquet: a file for DuckDB, Polars, pandas or Spark."
            " arrow: a stream of Arrow's IPC format.",
        ),
    ] = EventFormat.JSON,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write to this file, which appears once it is complete; needed for parquet.",
        ),
    ] = None,
    redact: Redact = False,
    redact_key: RedactKey = None,
    unparsed: Annotated[
        bool,
        typer.Option("--unparsed", help="Print the lines that should have been understood, with file and line number."),
    ] = False,
    since: Since = None,
    until: Until = None,
    format_of: FormatOf = None,
    config: ConfigFile = None,
) -> None:
    """Print the outcomes in logs as JSON, one object per line, or write them as Parquet or Arrow.

    Examples:

      bouncemeter parse /var/log/mail.log

      zcat mail.log.2.gz | bouncemeter parse --redact - | jq .code

      bouncemeter parse --since yesterday --until today /var/log/mail.log*

      bouncemeter parse --format parquet --output mail.parquet /var/log/mail.log*

      bouncemeter parse --unparsed --redact /var/log/mail.log
    """
    from bouncemeter.event import Event

    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.terminal import printable

    hidden = redactor(redact, redact_key)
    _check_output(form, output, unparsed=unparsed)

    def show(name: str, number: int, line: str) -> None:
        sys.stdout.write(f"{name}:{number}: {printable(hidden.text(line) if hidden else line)}\n")

    use_config(config)
    collect_garbage_seldom()
    asked = period(since, until)
    missed: dict[str, int] = {}

    def events() -> Iterator[Event]:
        for log, entries in found.read("Parsing", on_unparsed=show if unparsed else None):
            for entry in entries if not unparsed else ():
                if isinstance(entry, Event) and asked.covers(entry.time):
                    yield entry
            missed[log.name] = log.counts["unparsed"]

    with reading_errors():
        found = Logs.find(logs or [], format_of, say, asked)
        if output is not None and output.resolve() in {path.resolve() for path in found.paths if path}:
            fail(f"{output} is one of the logs to read: name another file with --output", 2)
        _write(events(), form, output, hidden)
    for name, number in missed.items():
        if number:
            say(f"{name}: {number} lines look like outcomes and could not be read")


def _check_output(form: EventFormat, output: Path | None, *, unparsed: bool) -> None:
    """End the command if it cannot write in this form to where it should."""
    if unparsed and (form is not EventFormat.JSON or output is not None):
        fail("--unparsed prints lines: it goes with neither --format nor --output", 2)
    if form is EventFormat.PARQUET and output is None:
        fail("--format parquet needs --output FILE", 2)
    if form is EventFormat.ARROW and output is None and sys.stdout.isatty():
        fail("--format arrow is binary and not for a terminal: name a file with --output, or use a pipe", 2)


def _write(events: Iterable[Event], form: EventFormat, output: Path | None, hidden: Redactor | None) -> None:
    from bouncemeter_exporter.archive.whole import whole_file
    from bouncemeter_exporter.records import record

    if form is not EventFormat.JSON:
        try:
            from bouncemeter_exporter.archive.files import write_arrow, write_parquet
        except ModuleNotFoundError as error:
            if error.name != "pyarrow":
                raise
            fail(f"install bouncemeter[arrow] for --format {form}: it needs pyarrow")
    lines = (json.dumps(record(event, hidden)) + "\n" for event in events)
    if form is EventFormat.JSON and output is None:
        sys.stdout.writelines(lines)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what is half written is removed
    try:
        with whole_file(output) if output else nullcontext(sys.stdout.buffer) as file:
            if form is EventFormat.JSON:
                file.writelines(line.encode() for line in lines)
            else:
                (write_parquet if form is EventFormat.PARQUET else write_arrow)(events, file, hidden)
    except OSError as error:
        if output is None:
            raise
        fail(f"cannot write {output}: {error.strerror}")
