"""The program: its commands and its global options.

Each command is small: it reads its arguments, calls one module, and prints. A module that takes time to load is
imported inside the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from bouncemeter import __version__

from bouncemeter_exporter.cli import codes, explain, grafana, parse, report, rules, serve, trace
from bouncemeter_exporter.cli.options import FAILURE

__all__ = ["app", "main"]

app = typer.Typer(
    name="bouncemeter",
    help="Mail bounces of Postfix, Exim and Exchange, by enhanced status code: for Prometheus and for you.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (parse.parse, report.report, explain.explain, trace.trace, codes.codes, serve.serve):
    app.command()(command)
app.add_typer(rules.app, name="rules")
app.add_typer(grafana.app, name="grafana")


def _version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        typer.echo(f"bouncemeter {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    _: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Mail bounces of Postfix, Exim and Exchange, by enhanced status code: for Prometheus and for you."""


def main() -> None:
    """The entry point: a closed pipe ends a command quietly."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILURE)
