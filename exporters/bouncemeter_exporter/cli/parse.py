"""`bouncemeter parse`: the outcomes in logs as JSON."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import (
    ConfigFile,
    FormatOf,
    LogArguments,
    Redact,
    RedactKey,
    Since,
    Until,
    period,
    reading_errors,
    redactor,
    say,
    use_config,
)

__all__ = ["parse"]


def parse(
    logs: LogArguments = None,
    *,
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
    """Print the outcomes in logs as JSON, one object per line.

    Examples:

      bouncemeter parse /var/log/mail.log

      zcat mail.log.2.gz | bouncemeter parse --redact - | jq .code

      bouncemeter parse --since yesterday --until today /var/log/mail.log*

      bouncemeter parse --unparsed --redact /var/log/mail.log
    """
    from bouncemeter.event import Event

    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.records import record
    from bouncemeter_exporter.reporting.terminal import printable

    hidden = redactor(redact, redact_key)

    def show(name: str, number: int, line: str) -> None:
        sys.stdout.write(f"{name}:{number}: {printable(hidden.text(line) if hidden else line)}\n")

    use_config(config)
    asked = period(since, until)
    missed: dict[str, int] = {}
    with reading_errors():
        for log, entries in Logs.find(logs or [], format_of, say, asked).read(
            "Parsing", on_unparsed=show if unparsed else None
        ):
            for entry in entries if not unparsed else ():
                if isinstance(entry, Event) and asked.covers(entry.time):
                    sys.stdout.write(json.dumps(record(entry, hidden)) + "\n")
            missed[log.name] = log.counts["unparsed"]
    for name, number in missed.items():
        if number:
            say(f"{name}: {number} lines look like outcomes and could not be read")
