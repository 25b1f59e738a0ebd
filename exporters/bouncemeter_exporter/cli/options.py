"""Arguments that several commands share, and how commands report errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from bouncemeter.knowledge.languages import Language

if TYPE_CHECKING:
    from bouncemeter_exporter.records import Redactor
    from bouncemeter_exporter.reporting.period import Period

__all__ = [
    "FAILURE",
    "ConfigFile",
    "FormatOf",
    "InLanguage",
    "LogArguments",
    "Output",
    "OutputFormat",
    "Redact",
    "RedactKey",
    "Since",
    "Until",
    "codes_and_classes",
    "collect_garbage_seldom",
    "fail",
    "language_of",
    "period",
    "reading_errors",
    "redactor",
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
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        help="Logs, also .gz, .bz2, .xz, .zst; directories, glob patterns; journal:, journal:UNIT,"
        " journal:FIELD=VALUE or journal:/DIRECTORY for the systemd journal; - for standard input. Without one, this"
        " machine's own mail log.",
    ),
]


def _formats(incomplete: str) -> list[str]:
    """The formats that begin so, for completion in a shell."""
    from bouncemeter.plugin import parsers

    return [name for name in sorted(parsers()) if name.startswith(incomplete)]


def codes_and_classes(incomplete: str) -> list[tuple[str, str]]:
    """The codes and classes that begin so, each with its title, for completion in a shell."""
    from bouncemeter.knowledge.codes import catalogue

    found = {each.code.code_class: "a class of codes" for each in catalogue()}
    found |= {str(each.code): each.title for each in catalogue()}
    return [(name, title) for name, title in found.items() if name.startswith(incomplete)]


FormatOf = Annotated[
    str | None,
    typer.Option("--format-of", metavar="NAME", help="The logs' format; detected by default.", autocompletion=_formats),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings in TOML; only its providers and reasons are used here."),
]
Output = Annotated[OutputFormat, typer.Option("--format", help="Output format.")]
InLanguage = Annotated[
    Language | None,
    typer.Option("--language", help="Language of the texts, en or sv; by default that of LC_ALL, LC_MESSAGES or LANG."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only what the logs date at or after this: a date (its midnight), a date and a time, a time of today,"
        " yesterday, today, or how long ago, such as 2h. Local time, unless it names a zone.",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only what the logs date before this; as --since.")
]


def language_of(environment: Mapping[str, str]) -> Language:
    """The language that an environment asks for, as POSIX orders its variables: the first that is set decides."""
    names = (environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    name = re.split("[_.@]", next(filter(None, names), ""))[0]
    return next((each for each in Language if each == name), Language.EN)


Redact = Annotated[bool, typer.Option("--redact", help="Hash the local part of addresses.")]
RedactKey = Annotated[
    Path | None,
    typer.Option(
        "--redact-key",
        metavar="FILE",
        help="Hash it with this secret, of 16 bytes or more, so that nobody can find an address by trying.",
    ),
]


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
        fail(error, 2)


def redactor(redact: bool, key: Path | None) -> Redactor | None:  # noqa: FBT001 - as typer gives it
    """What hides addresses, if that is wanted."""
    from bouncemeter_exporter.records import SHORTEST_KEY, Redactor

    if key is None:
        return Redactor() if redact else None
    try:
        secret = key.read_bytes()
    except OSError as error:
        fail(f"cannot read {key}: {error.strerror}", 2)
    if len(secret) < SHORTEST_KEY:
        fail(f"{key} has {len(secret)} bytes; a key needs {SHORTEST_KEY} or more: head -c 32 /dev/urandom > {key}", 2)
    return Redactor(secret)


def period(since: str | None, until: str | None) -> Period:
    """The period that `--since` and `--until` name."""
    from bouncemeter_exporter.reporting.period import Period

    try:
        return Period.of(since, until)
    except ValueError as error:
        fail(error, 2)


def collect_garbage_seldom() -> None:
    """Reading logs creates no reference cycles; looking for them all the time would take a tenth of the time."""
    import gc

    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
