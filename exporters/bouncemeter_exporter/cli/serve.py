"""`bouncemeter serve`: the exporter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import FormatOf, collect_garbage_seldom, fail, say

__all__ = ["serve"]


def serve(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files, FIFOs, directories, glob patterns; - for standard input; journal:, journal:UNIT or"
            " journal:/DIRECTORY for the systemd journal; udp:HOST:PORT, tcp:HOST:PORT, unix:/PATH or"
            " unix-stream:/PATH to listen for syslog.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; flags override the file.")
    ] = None,
    listen_address: Annotated[
        str | None, typer.Option("--web.listen-address", metavar="HOST:PORT", help="Where to listen. [default: :19525]")
    ] = None,
    telemetry_path: Annotated[
        str | None,
        typer.Option("--web.telemetry-path", metavar="PATH", help="Path of the metrics. [default: /metrics]"),
    ] = None,
    web_config: Annotated[
        Path | None,
        typer.Option(
            "--web.config.file",
            metavar="FILE",
            help="TLS, client certificates and basic authentication, in the format of Prometheus' exporters.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="File that keeps positions, counts and messages across restarts. [default: state.db in"
            " $STATE_DIRECTORY, /var/lib/bouncemeter (root), or ~/.local/state/bouncemeter]",
        ),
    ] = None,
    no_state: Annotated[bool, typer.Option("--no-state", help="Keep no state: start afresh every time.")] = False,
    from_start: Annotated[
        bool | None,
        typer.Option(
            "--from-start/--from-end",
            help="Read a file without a saved position from its start. [default: from its end]",
            show_default=False,
        ),
    ] = None,
    format_of: FormatOf = None,
    ledger_max_age: Annotated[
        str | None,
        typer.Option(
            "--ledger.max-age",
            metavar="DURATION",
            help="Forget a message after this time without a line: a little over the queue lifetime. [default: 6d]",
        ),
    ] = None,
    ledger_max_messages: Annotated[
        int | None,
        typer.Option(
            "--ledger.max-messages", metavar="NUMBER", help="Most messages to remember. [default: 1000000]", min=1
        ),
    ] = None,
) -> None:
    """Follow logs and serve their bounces as Prometheus metrics.

    Examples:

      bouncemeter serve /var/log/mail.log

      bouncemeter serve --from-start --web.listen-address 127.0.0.1:19525 '/logs/MSGTRK*.LOG'

      bouncemeter serve journal:postfix@- udp:127.0.0.1:5514

      docker logs --follow --tail 0 postfix 2>&1 | bouncemeter serve --no-state -
    """
    from bouncemeter.plugin import ParserNotFoundError

    from bouncemeter_exporter.config import Config, ConfigError, SourceConfig, read_config, seconds
    from bouncemeter_exporter.serving.access import WebConfigError
    from bouncemeter_exporter.serving.exporter import Exporter
    from bouncemeter_exporter.serving.state import StateError
    from bouncemeter_exporter.sources.lines import SourceError

    try:
        settings = read_config(config) if config else Config()
        if sources:
            settings = replace(settings, sources=tuple(SourceConfig(each, format_of) for each in sources))
        settings = replace(
            settings,
            from_start=settings.from_start if from_start is None else from_start,
            listen_address=listen_address or settings.listen_address,
            telemetry_path=telemetry_path or settings.telemetry_path,
            web_config=web_config or settings.web_config,
            state=None if no_state else state or settings.state,
            max_age=seconds(ledger_max_age) if ledger_max_age else settings.max_age,
            max_messages=ledger_max_messages or settings.max_messages,
        )
        if not settings.sources:
            fail("name at least one log to follow, or a --config file that does", 2)
        exporter = Exporter(settings, say)
    except (ConfigError, ParserNotFoundError, SourceError, StateError, WebConfigError) as error:
        fail(error)
    except ValueError as error:
        fail(error, 2)
    except OSError as error:
        fail(f"cannot listen on {settings.listen_address}: {error.strerror}")
    collect_garbage_seldom()
    exporter.run()
