"""`bouncemeter parse`: the outcomes in logs as JSON."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import ConfigFile, FormatOf, LogArguments, reading_errors, say, use_providers

__all__ = ["parse"]


def parse(
    logs: LogArguments,
    *,
    redact: Annotated[bool, typer.Option("--redact", help="Hash the local part of addresses.")] = False,
    format_of: FormatOf = None,
    config: ConfigFile = None,
) -> None:
    """Print the outcomes in logs as JSON, one object per line.

    Examples:

      bouncemeter parse /var/log/mail.log

      zcat mail.log.2.gz | bouncemeter parse --redact - | jq .code
    """
    from bouncemeter.event import Event

    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.records import record, redacted

    use_providers(config)
    unparsed: dict[str, int] = {}
    with reading_errors():
        for log, entries in Logs.find(logs, format_of, say).read("Parsing"):
            for entry in entries:
                if isinstance(entry, Event):
                    found = record(entry)
                    sys.stdout.write(json.dumps(redacted(found) if redact else found) + "\n")
            unparsed[log.name] = log.counts["unparsed"]
    for name, number in unparsed.items():
        if number:
            say(f"{name}: {number} lines look like outcomes and could not be read")
