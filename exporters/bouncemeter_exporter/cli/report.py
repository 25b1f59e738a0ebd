"""`bouncemeter report`: a summary of logs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import (
    ConfigFile,
    FormatOf,
    LogArguments,
    Output,
    OutputFormat,
    collect_garbage_seldom,
    reading_errors,
    say,
    use_config,
)

__all__ = ["report"]


def report(
    logs: LogArguments,
    output: Output = OutputFormat.TEXT,
    format_of: FormatOf = None,
    config: ConfigFile = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="NUMBER", min=1, help="Cores to use. [default: all]")
    ] = None,
) -> None:
    """Summarise logs: delivered, soft and hard bounces, top codes with their meaning, reasons, providers.

    Examples:

      bouncemeter report /var/log/mail.log*

      bouncemeter report --format json /var/log/exim4/mainlog
    """
    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.summary import summarise

    use_config(config)
    collect_garbage_seldom()
    with reading_errors():
        summary = summarise(Logs.find(logs, format_of, say), jobs)
    found = summary.report.as_json(summary.lines, summary.ledger.memory.waiting.total())
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(found, indent=2))
    else:
        from bouncemeter_exporter.reporting.terminal import show_report

        show_report(found, logs)
