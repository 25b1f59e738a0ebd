"""`bouncemeter parse`: the outcomes in logs as JSON."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import ConfigFile, FormatOf, LogArguments, reading_errors, say, use_config

__all__ = ["parse"]


def parse(
    logs: LogArguments,
    *,
    redact: Annotated[bool, typer.Option("--redact", help="Hash the local part of addresses.")] = False,
    unparsed: Annotated[
        bool,
        typer.Option("--unparsed", help="Print the lines that should have been understood, with file and line number."),
    ] = False,
    format_of: FormatOf = None,
    config: ConfigFile = None,
) -> None:
    """Print the outcomes in logs as JSON, one object per line.

    Examples:

      bouncemeter parse /var/log/mail.log

      zcat mail.log.2.gz | bouncemeter parse --redact - | jq .code

      bouncemeter parse --unparsed --redact /var/log/mail.log
    """
    from bouncemeter.event import Event

    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.records import record, redacted, redacted_text
    from bouncemeter_exporter.reporting.terminal import printable

    def show(name: str, number: int, line: str) -> None:
        sys.stdout.write(f"{name}:{number}: {printable(redacted_text(line) if redact else line)}\n")

    use_config(config)
    missed: dict[str, int] = {}
    with reading_errors():
        for log, entries in Logs.find(logs, format_of, say).read("Parsing", on_unparsed=show if unparsed else None):
            for entry in entries if not unparsed else ():
                if isinstance(entry, Event):
                    found = record(entry)
                    sys.stdout.write(json.dumps(redacted(found) if redact else found) + "\n")
            missed[log.name] = log.counts["unparsed"]
    for name, number in missed.items():
        if number:
            say(f"{name}: {number} lines look like outcomes and could not be read")
