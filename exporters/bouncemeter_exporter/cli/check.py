"""`bouncemeter check`: will all be well?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.export import checked_url
from bouncemeter_exporter.cli.options import FormatOf, LogArguments, Output, OutputFormat

__all__ = ["check"]


def check(
    sources: LogArguments = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The settings of serve.")] = None,
    format_of: FormatOf = None,
    prometheus: Annotated[
        str | None,
        typer.Option(
            "--prometheus",
            metavar="URL",
            help="Also ask a Prometheus whether it scrapes bouncemeter, and has its alerts.",
        ),
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check that all will be well: logs, settings, state, port, Prometheus. Changes nothing.

    Exits with 0 if all is well, 1 after a warning, 2 if something is wrong.

    Examples:

      bouncemeter check

      sudo bouncemeter check --config /etc/bouncemeter/bouncemeter.toml

      bouncemeter check /var/log/mail.log --prometheus http://localhost:9090
    """
    from bouncemeter_exporter.checking.everything import check_everything
    from bouncemeter_exporter.checking.finding import Level, worst
    from bouncemeter_exporter.checking.terminal import show_findings

    url = checked_url(prometheus, "--prometheus") if prometheus else None
    findings = check_everything(sources or [], config, format_of, url)
    if output is OutputFormat.JSON:
        found = list(findings)
        typer.echo(json.dumps([each.as_json() for each in found], indent=2))
    else:
        found = show_findings(findings)
    raise typer.Exit(max(0, worst(found) - Level.NOTE))
