"""The program: its commands and its global options.

Each command is small: it reads its arguments, calls one module, and prints. A module that takes time to load is
imported inside the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from bouncemeter import __version__

from bouncemeter_exporter.cli import (
    backfill,
    check,
    codes,
    explain,
    grafana,
    parse,
    report,
    rules,
    serve,
    service,
    suppress,
    textfile,
    trace,
)
from bouncemeter_exporter.cli.options import FAILURE, say

__all__ = ["app", "main"]

app = typer.Typer(
    name="bouncemeter",
    help="Mail bounces of Postfix, Exim and Exchange, by enhanced status code: for Prometheus and for you.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
COMMANDS = (
    *(parse.parse, report.report, explain.explain, trace.trace, suppress.suppress, codes.codes),
    *(check.check, serve.serve, service.service, textfile.textfile, backfill.backfill),
)
for command in COMMANDS:
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


OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""What may go wrong when output is written."""


def main() -> None:
    """The entry point: a closed pipe ends a command quietly, a full disk with a sentence."""
    if sys.stdout is None:
        say("cannot write the output: it is closed")
        sys.exit(FAILURE)
    if sys.stdin is None:  # closed: there is nothing to read
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115 - for as long as the program runs
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # letters that the terminal's encoding lacks
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(FAILURE)
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        _discard_output()
        say(f"cannot write the output: {error.strerror}")
        sys.exit(FAILURE)


def _discard_output() -> None:
    """Write what is left to nowhere: Python would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
