"""`bouncemeter serve`: the exporter."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bouncemeter_exporter.cli.following import FollowedConfig, FromStart, NoState, Sources, StateFile, followed
from bouncemeter_exporter.cli.options import FormatOf, collect_garbage_seldom, fail, say

if TYPE_CHECKING:
    from bouncemeter_exporter.config import Config

__all__ = ["serve"]


def serve(
    *,
    sources: Sources = None,
    config: FollowedConfig = None,
    listen_address: Annotated[
        str | None,
        typer.Option("--web.listen-address", metavar="HOST:PORT", help="Where to listen.", show_default=":19525"),
    ] = None,
    telemetry_path: Annotated[
        str | None,
        typer.Option("--web.telemetry-path", metavar="PATH", help="Path of the metrics.", show_default="/metrics"),
    ] = None,
    web_config: Annotated[
        Path | None,
        typer.Option(
            "--web.config.file",
            metavar="FILE",
            help="TLS, client certificates and basic authentication, in the format of Prometheus' exporters.",
        ),
    ] = None,
    trace: Annotated[
        bool | None,
        typer.Option(
            "--web.trace/--no-web.trace",
            help="Show messages, with their addresses, on the pages below /trace: behind a password or a client"
            " certificate, or on loopback alone.",
            show_default="not shown",
        ),
    ] = None,
    state: StateFile = None,
    no_state: NoState = False,
    from_start: FromStart = None,
    format_of: FormatOf = None,
    ledger_max_age: Annotated[
        str | None,
        typer.Option(
            "--ledger.max-age",
            metavar="DURATION",
            help="Forget a message after this time without a line: a little over the queue lifetime.",
            show_default="6d",
        ),
    ] = None,
    ledger_max_messages: Annotated[
        int | None,
        typer.Option(
            "--ledger.max-messages", metavar="NUMBER", help="Most messages to remember.", min=1, show_default="1000000"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check first that all will be well, as `bouncemeter check` does.")
    ] = False,
) -> None:
    """Follow logs and serve their bounces as Prometheus metrics.

    Examples:

      bouncemeter serve

      bouncemeter serve /var/log/mail.log

      bouncemeter serve --from-start --web.listen-address 127.0.0.1:19525 '/logs/MSGTRK*.LOG'

      bouncemeter serve journal:postfix@- udp:127.0.0.1:5514

      docker logs --follow --tail 0 postfix 2>&1 | bouncemeter serve --no-state -
    """
    from bouncemeter.plugin import ParserNotFoundError

    from bouncemeter_exporter.config import ConfigError, seconds
    from bouncemeter_exporter.grafana.rules import thresholds
    from bouncemeter_exporter.serving.access import WebConfigError
    from bouncemeter_exporter.serving.exporter import Exporter
    from bouncemeter_exporter.serving.state import StateError
    from bouncemeter_exporter.serving.status import Limit
    from bouncemeter_exporter.sources.lines import SourceError

    follow = followed(sources, config, format_of, from_start, state, no_state)

    def read() -> Config:
        settings = follow()
        return replace(
            settings,
            listen_address=listen_address or settings.listen_address,
            telemetry_path=telemetry_path or settings.telemetry_path,
            trace=settings.trace if trace is None else trace,
            web_config=web_config or settings.web_config,
            max_age=seconds(ledger_max_age) if ledger_max_age else settings.max_age,
            max_messages=ledger_max_messages or settings.max_messages,
        )

    try:
        settings = read()
        if check:
            _check(settings)
        limits = [Limit(name, each.text, each.value) for name, each in thresholds().items()]
        exporter = Exporter(settings, say, read, limits)
    except (ConfigError, WebConfigError) as error:
        fail(error, 2)
    except (ParserNotFoundError, SourceError, StateError) as error:
        fail(error)
    except ValueError as error:
        fail(error, 2)
    except OSError as error:
        fail(f"cannot listen on {settings.listen_address}: {error.strerror}")
    collect_garbage_seldom()
    exporter.run()


def _check(settings: Config) -> None:
    """Check first. What this loads would otherwise stay in memory for as long as the exporter runs."""
    from bouncemeter_exporter.checking.everything import check_config
    from bouncemeter_exporter.checking.finding import Level, worst
    from bouncemeter_exporter.checking.terminal import show_findings

    found = show_findings(check_config(settings, settings.sources), sys.stderr)
    if worst(found) is Level.WRONG:
        fail("not started")
