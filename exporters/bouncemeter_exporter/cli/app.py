"""The program: its commands and its global options.

Each command is small: it reads its arguments, calls one module, and prints. A module that takes time to load is
imported inside the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from bouncemeter import __version__

from bouncemeter_exporter.cli.options import FAILURE, say

__all__ = ["COMMANDS", "main", "program"]

COMMANDS = (
    *("parse", "report", "explain", "trace", "suppress", "codes"),
    *("check", "serve", "service", "textfile", "backfill", "rules", "grafana"),
)
"""The commands in the order in which `--help` lists them. Each has the module of its name, which has a function of its
name, or an `app` with further commands."""


def program(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The program with some of its commands: the modules of the others are not loaded."""
    app = typer.Typer(
        name="bouncemeter",
        help="Mail bounces of Postfix, Exim and Exchange, by enhanced status code: for Prometheus and for you.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    for name in commands:
        module = import_module(f"bouncemeter_exporter.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command()(getattr(module, name))
    return app


def _version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        typer.echo(f"bouncemeter {__version__}")
        raise typer.Exit


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
            asked = sys.argv[1] if len(sys.argv) > 1 else ""
            program([asked] if asked in COMMANDS else COMMANDS)()
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
