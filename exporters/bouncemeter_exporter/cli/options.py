"""Arguments that several commands share, and how commands report errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = [
    "FAILURE",
    "ConfigFile",
    "FormatOf",
    "LogArguments",
    "Output",
    "OutputFormat",
    "collect_garbage_seldom",
    "fail",
    "reading_errors",
    "say",
    "use_config",
]

FAILURE = 1
"""Exit code: something could not be read or served. Wrong arguments exit with 2."""


class OutputFormat(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


LogArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE", help="Logs, directories, glob patterns; - is standard input. Also .gz, .bz2, .xz, .zst."
    ),
]
FormatOf = Annotated[
    str | None, typer.Option("--format-of", metavar="NAME", help="The logs' format; detected by default.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings in TOML; only its providers and reasons are used here."),
]
Output = Annotated[OutputFormat, typer.Option("--format", help="Output format.")]


def say(sentence: object) -> None:
    """Print a sentence for the user on standard error."""
    typer.echo(f"bouncemeter: {sentence}", err=True)


def fail(message: object, code: int = FAILURE) -> NoReturn:
    """End the command with a sentence and an exit code."""
    say(message)
    raise typer.Exit(code)


@contextmanager
def reading_errors() -> Iterator[None]:
    """End the command with one sentence if logs cannot be read."""
    from bouncemeter.plugin import ParserNotFoundError

    from bouncemeter_exporter.sources.lines import SourceError

    try:
        yield
    except (SourceError, ParserNotFoundError) as error:
        fail(error)


def use_config(config: Path | None) -> None:
    """Add the providers and the phrases of reasons of a configuration file."""
    from bouncemeter_exporter.config import Config, ConfigError, read_config

    try:
        (read_config(config) if config else Config()).add_knowledge()
    except ConfigError as error:
        fail(error)


def collect_garbage_seldom() -> None:
    """Reading logs creates no reference cycles; looking for them all the time would take a tenth of the time."""
    import gc

    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
