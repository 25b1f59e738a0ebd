"""`bouncemeter backfill`: logs of the past into Prometheus."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from bouncemeter_exporter.cli.options import (
    FormatOf,
    LogArguments,
    Since,
    Until,
    collect_garbage_seldom,
    fail,
    period,
    reading_errors,
    say,
)

if TYPE_CHECKING:
    from bouncemeter_exporter.archive.backfill import Past, Written

__all__ = ["backfill"]

LONGEST_STEP = 240
"""Seconds: Prometheus takes a series for gone after five minutes without a sample."""

DATA = ("/var/lib/prometheus/metrics2", "/var/lib/prometheus/data", "/var/lib/prometheus", "/prometheus")
"""Where packages and images let Prometheus keep its data."""


def backfill(
    logs: LogArguments = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR|FILE",
            help="Folder for a file of OpenMetrics for each day; or one file, if the name has a suffix such as .om.",
        ),
    ] = None,
    remote_write: Annotated[
        str | None,
        typer.Option(
            "--remote-write",
            metavar="URL",
            help="Send to Prometheus, VictoriaMetrics, Mimir or Thanos instead, by its remote-write receiver.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            metavar="'NAME: VALUE'",
            help="Send this with --remote-write, such as an authorization or a tenant; repeatable.",
        ),
    ] = None,
    step: Annotated[str, typer.Option("--step", metavar="DURATION", help="Time between samples.")] = "1m",
    job: Annotated[str, typer.Option("--job", metavar="NAME", help="The label job of all series.")] = "bouncemeter",
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            metavar="HOST:PORT",
            help="Their label instance: as Prometheus names the exporter, so that the past goes on in the present.",
            show_default="this host's name, and port 19525",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--tsdb-path",
            metavar="DIR",
            help="Where Prometheus keeps its data (its --storage.tsdb.path), for the command that is printed.",
            show_default="where Debian's package or the image keeps it",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    format_of: FormatOf = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in TOML: its providers, reasons and senders."),
    ] = None,
) -> None:
    """Turn logs of the past into samples for Prometheus, as if it had scraped `serve` all the time.

    The logs may be given in any order. Running it again writes the same files.

    Examples:

      bouncemeter backfill --output past '/var/log/mail.log*'

      bouncemeter backfill --output past.om --step 15s --instance mail.example.org:19525 /archive/2026/

      bouncemeter backfill --remote-write http://localhost:8428/api/v1/write --until today /var/log/mail.log.*.gz
    """
    from bouncemeter_exporter.archive.backfill import Past
    from bouncemeter_exporter.archive.backfill import backfill as write_past
    from bouncemeter_exporter.archive.openmetrics import DAY, DayFiles, OneFile
    from bouncemeter_exporter.archive.remote_write import SLICE, RemoteWrite, RemoteWriteError
    from bouncemeter_exporter.config import Config, ConfigError, read_config, seconds
    from bouncemeter_exporter.counting.senders import SenderGroups
    from bouncemeter_exporter.reporting.logs import Logs

    if (output is None) == (remote_write is None):
        fail("name one of --output DIR|FILE and --remote-write URL", 2)
    if header and remote_write is None:
        fail("--header is for --remote-write", 2)
    labels = {"job": job, "instance": instance or f"{socket.gethostname()}:19525"}
    asked = period(since, until)
    collect_garbage_seldom()
    try:
        length = int(seconds(step))
        if not 1 <= length <= LONGEST_STEP:
            fail("--step must be between 1s and 4m: after five minutes Prometheus takes a series for gone", 2)
        settings = read_config(config) if config else Config()
        settings.add_knowledge()
        with reading_errors():
            past = Past(Logs.find(logs or [], format_of, say, asked), length, asked, SenderGroups(settings.senders))
            if output is None:
                written = write_past(past, SLICE, RemoteWrite(remote_write or "", labels, header or (), say))
                _show(written, past, remote_write or "")
                return
            one = bool(output.suffix) and not output.is_dir()
            files = OneFile(output, labels) if one else DayFiles(output, labels)
            written = write_past(past, DAY, files)
    except (ConfigError, ValueError) as error:
        fail(error, 2)
    except RemoteWriteError as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write {error.filename or output}: {error.strerror}")
    _show(written, past, str(output))
    left = sorted(set(output.glob("*.om")) - set(files.written)) if output.is_dir() else []
    if left:
        say(f"{output} has {len(left)} files of another run as well, such as {left[0].name}")
    tsdb = quote(str(data or next((each for each in DATA if Path(each).is_dir()), DATA[0])))
    typer.echo("To give it to Prometheus, as the user it runs as:\n")
    if one:
        typer.echo(f"  promtool tsdb create-blocks-from openmetrics {quote(str(output))} {tsdb}")
    else:
        names = quote(str(output)) + "/*.om"
        typer.echo(f'  for file in {names}; do promtool tsdb create-blocks-from openmetrics "$file" {tsdb}; done')


def _show(written: Written, past: Past, where: str) -> None:
    """Say what was written."""
    begin, end = (f"{datetime.fromtimestamp(each, UTC):%Y-%m-%d %H:%M}" for each in (written.begin, written.end))
    recipients = sum(past.counters.recipients.values.values())
    typer.echo(
        f"{where}: {written.samples:,} samples of {written.series:,} series, from {begin} to {end} UTC:"
        f" {recipients:,} recipients"
    )
