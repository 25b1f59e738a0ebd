"""The command line. Each command is small: it reads its arguments, calls one module, and prints.

Modules that take time to load are imported by the command that needs them.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from bouncemeter import __version__

from bouncemeter_exporter.rules import DASHBOARDS, GRAFANA, PROMETHEUS, RUNBOOK

if TYPE_CHECKING:
    from bouncemeter.blocks import Block
    from bouncemeter.event import Entry
    from bouncemeter.plugin import Parser

    from bouncemeter_exporter.progress import Advance
    from bouncemeter_exporter.reading import LogReader
    from bouncemeter_exporter.report import Summary

__all__ = ["app", "main"]

FAILURE = 1
"""Exit code: something could not be read or served. Wrong arguments exit with 2."""

MANY_BYTES = 67_108_864
"""Bytes of logs that are worth the start of more processes."""

app = typer.Typer(
    name="bouncemeter",
    help="Mail bounces of Postfix, Exim and Exchange, by enhanced status code: for Prometheus and for you.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class OutputFormat(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


Logs = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE", help="Logs, directories, glob patterns; - is standard input. Also .gz, .bz2, .xz, .zst."
    ),
]
FormatOf = Annotated[
    str | None, typer.Option("--format-of", metavar="NAME", help="The logs' format, if it is not to be detected.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; here its [providers] count.")
]
Output = Annotated[OutputFormat, typer.Option("--format", help="How to print.")]


def _fail(message: object, code: int = FAILURE) -> NoReturn:
    typer.echo(f"bouncemeter: {message}", err=True)
    raise typer.Exit(code)


def _use_providers(config: Path | None) -> None:
    """Add the providers of a configuration file."""
    from bouncemeter.providers import add_providers

    from bouncemeter_exporter.config import ConfigError, read_config

    try:
        add_providers(read_config(config).providers if config else {})
    except ConfigError as error:
        _fail(error)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"bouncemeter {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    _: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Mail bounces of Postfix, Exim and Exchange, by enhanced status code: for Prometheus and for you."""


def _read(
    arguments: list[str], format_of: str | None, task: str, about: frozenset[str] = frozenset()
) -> Iterator[tuple[LogReader, Block]]:
    """The entries of logs, oldest log first, with the reader that tells of their lines. With `about`, at least those
    of lines that hold one of these words."""
    with _explained():
        chosen, paths = _logs(arguments, format_of)
        yield from _read_all(paths, chosen, arguments, task, about)


def _read_all(
    paths: list[Path | None],
    chosen: Parser | None,
    arguments: list[str],
    task: str,
    about: frozenset[str] = frozenset(),
) -> Iterator[tuple[LogReader, Block]]:
    """The same of logs that were found."""
    from bouncemeter_exporter.progress import progress
    from bouncemeter_exporter.reading import UnknownFormatError

    with progress(sum(path.stat().st_size for path in paths if path), task) as advance:
        for path in paths:
            try:
                yield from _read_one(path, chosen, advance, about)
            except UnknownFormatError as error:
                if path is None or str(path) in arguments:
                    raise
                typer.echo(f"bouncemeter: {error}", err=True)  # one of a directory or pattern


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps logs from being read is said in one sentence."""
    from bouncemeter.plugin import ParserNotFoundError

    from bouncemeter_exporter.sources.text import SourceError

    try:
        yield
    except (SourceError, ParserNotFoundError) as error:
        _fail(error)


def _logs(arguments: list[str], format_of: str | None) -> tuple[Parser | None, list[Path | None]]:
    """The format that was chosen, and the logs that arguments name, oldest first; None is standard input."""
    from bouncemeter.plugin import parser

    from bouncemeter_exporter.reading import oldest_first
    from bouncemeter_exporter.sources.follow import files_of
    from bouncemeter_exporter.sources.text import STDIN

    chosen = parser(format_of) if format_of else None
    named = [files_of(argument, compressed=True) for argument in arguments if argument != STDIN]
    paths: list[Path | None] = list(oldest_first(list({path for found in named for path in found}), chosen))
    paths += [None] * (STDIN in arguments)
    if not paths:
        _fail(f"there is no log in {', '.join(arguments)}")
    return chosen, paths


def _read_one(
    path: Path | None, chosen: Parser | None, advance: Advance, about: frozenset[str]
) -> Iterator[tuple[LogReader, Block]]:
    import time

    from bouncemeter_exporter.reading import LogReader
    from bouncemeter_exporter.sources.text import open_log, read_text

    name = str(path) if path else "standard input"
    # An old file's lines are not later than its last change: that tells their year.
    last_change = path.stat().st_mtime if path else time.time()
    log = LogReader(name, chosen, clock=lambda: last_change, about=about)
    with closing(open_log(path) if path else sys.stdin.buffer) as stream:
        for text, size in read_text(stream, name):
            yield log, log.take(text)
            advance(size)
        yield log, log.end()


@app.command()
def parse(
    logs: Logs,
    *,
    redact: Annotated[bool, typer.Option("--redact", help="Hash the local part of addresses.")] = False,
    format_of: FormatOf = None,
    config: ConfigFile = None,
) -> None:
    """Print the outcomes in logs as JSON, one object a line.

    Examples:

      bouncemeter parse /var/log/mail.log

      zcat mail.log.2.gz | bouncemeter parse --redact - | jq .code
    """
    from bouncemeter.event import Event

    from bouncemeter_exporter.records import record, redacted

    _use_providers(config)
    unparsed: dict[str, int] = {}
    for log, entries in _read(logs, format_of, "Parsing"):
        for entry in entries:
            if isinstance(entry, Event):
                found = record(entry)
                sys.stdout.write(json.dumps(redacted(found) if redact else found) + "\n")
        unparsed[log.name] = log.counts["unparsed"]
    for name, number in unparsed.items():
        if number:
            typer.echo(f"bouncemeter: {name}: {number} lines look like outcomes and could not be read", err=True)


def _collect_seldom() -> None:
    """Reading leaves no cycles of objects behind: to look for them all the time takes a tenth of it."""
    import gc

    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _summary(paths: list[Path | None], chosen: Parser | None, arguments: list[str]) -> Summary:
    """What logs tell, read by one core."""
    from collections import Counter

    from bouncemeter_exporter.ledger import Ledger
    from bouncemeter_exporter.report import Report, Summary

    found, readers = Summary(Report(), Ledger(), Counter()), {}
    for log, block in _read_all(paths, chosen, arguments, "Reading"):
        readers[id(log)] = log
        found.ledger.read(block, found.report)
    for log in readers.values():
        found.lines.update(log.counts)
    return found


def _summary_by_cores(paths: list[Path | None], chosen: Parser | None, jobs: int | None) -> Summary | None:
    """The same by several cores; None where that is not worth it, or not possible."""
    import os

    cores = jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    files = [path for path in paths if path]
    size = sum(path.stat().st_size for path in files)
    if cores == 1 or None in paths or size < MANY_BYTES:
        return None
    from bouncemeter_exporter.parallel import PIECE, EntangledError, pieces, summarise
    from bouncemeter_exporter.progress import progress

    cores = min(cores, size // PIECE)  # a piece is worth a process, less is not
    found = pieces(files, chosen, cores)
    if len(found) < 2:
        return None
    try:
        return summarise(found, cores, lambda: progress(size, "Reading"))
    except EntangledError:
        return None


@app.command()
def report(
    logs: Logs,
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
    _use_providers(config)
    _collect_seldom()
    with _explained():
        chosen, paths = _logs(logs, format_of)
        summary = _summary_by_cores(paths, chosen, jobs) or _summary(paths, chosen, logs)
    summary.ledger.settle()
    found = summary.report.as_json(summary.lines, summary.ledger.waiting.total())
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(found, indent=2))
    else:
        from bouncemeter_exporter.terminal import show_report

        show_report(found, logs)


@app.command()
def explain(
    what: Annotated[
        list[str], typer.Argument(metavar="CODE|REPLY|LINE", help="A code, an SMTP reply, or a whole line of a log.")
    ],
    output: Output = OutputFormat.TEXT,
) -> None:
    """Say what a code, a reply or a line of a log means, why it happens and what to do.

    Examples:

      bouncemeter explain 5.7.1

      bouncemeter explain "550-5.7.26 This mail has been blocked because the sender is unauthenticated"
    """
    from bouncemeter_exporter.explain import NothingToExplainError, understand

    try:
        found = understand(" ".join(what))
    except NothingToExplainError as error:
        _fail(error, 2)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        found.show()


@app.command()
def trace(
    queue_id: Annotated[str, typer.Argument(metavar="QUEUE_ID", help="As the log writes it.")],
    logs: Logs,
    output: Output = OutputFormat.TEXT,
    format_of: FormatOf = None,
) -> None:
    """Tell one message's story: arrival, each attempt with its reply and what that means, the end.

    The story follows the message through a content filter, and to the bounce messages that came of it.

    Examples:

      bouncemeter trace 4A1B2C3D57 /var/log/mail.log*

      bouncemeter trace --format json 1xVsuB-0001DU-2n /var/log/exim4/mainlog
    """
    from bouncemeter_exporter.sources.text import STDIN
    from bouncemeter_exporter.trace import tell

    if STDIN in logs:
        _fail("trace reads logs more than once; name files, not standard input", 2)

    def read(about: frozenset[str]) -> Iterator[Entry]:
        for _, entries in _read(logs, format_of, "Looking", about):
            yield from entries

    story = tell(queue_id, read)
    if story is None:
        _fail(f"nothing is told of queue ID {queue_id} in {', '.join(logs)}")
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(story.as_json(), indent=2))
    else:
        from bouncemeter_exporter.terminal import show_story

        show_story(story)


@app.command()
def codes(
    *,
    output: Output = OutputFormat.TEXT,
    guide: Annotated[bool, typer.Option("--guide", help="Only the guide's 89 codes.")] = False,
) -> None:
    """List the catalogue of enhanced status codes.

    Examples:

      bouncemeter codes --guide

      bouncemeter codes --format json | jq '.[] | select(.kind == "hard") | .code'
    """
    from bouncemeter.codes import catalogue

    from bouncemeter_exporter.explain import code_as_json

    rows = [row for row in catalogue() if row.in_guide or not guide]
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([code_as_json(row) for row in rows], indent=2))
    else:
        from bouncemeter_exporter.terminal import show_codes

        show_codes(rows)


@app.command()
def serve(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files, FIFOs, directories, glob patterns; - is standard input; journal:, journal:UNIT or"
            " journal:/DIRECTORY the systemd journal; udp:HOST:PORT, tcp:HOST:PORT, unix:/PATH or unix-stream:/PATH"
            " listens for syslog.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; flags come first.")
    ] = None,
    listen_address: Annotated[
        str | None, typer.Option("--web.listen-address", metavar="HOST:PORT", help="Where to listen. [default: :19525]")
    ] = None,
    telemetry_path: Annotated[
        str | None,
        typer.Option("--web.telemetry-path", metavar="PATH", help="Where the metrics are. [default: /metrics]"),
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
            help="Where positions, counts and messages outlive a restart. [default: state.db in $STATE_DIRECTORY,"
            " /var/lib/bouncemeter (root), or ~/.local/state/bouncemeter]",
        ),
    ] = None,
    no_state: Annotated[bool, typer.Option("--no-state", help="Begin anew at every start.")] = False,
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
            help="Forget a message that had no line for so long: a little over the queue lifetime. [default: 6d]",
        ),
    ] = None,
    ledger_max_messages: Annotated[
        int | None,
        typer.Option(
            "--ledger.max-messages", metavar="NUMBER", help="Remember at most so many. [default: 1000000]", min=1
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
    from bouncemeter_exporter.serve import Exporter
    from bouncemeter_exporter.sources.text import SourceError
    from bouncemeter_exporter.state import StateError
    from bouncemeter_exporter.web_config import WebConfigError

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
            _fail("name at least one log to follow, or a --config that does", 2)
        exporter = Exporter(settings, lambda sentence: typer.echo(f"bouncemeter: {sentence}", err=True))
    except (ConfigError, ParserNotFoundError, SourceError, StateError, WebConfigError) as error:
        _fail(error)
    except ValueError as error:
        _fail(error, 2)
    except OSError as error:
        _fail(f"cannot listen on {settings.listen_address}: {error.strerror}")
    _collect_seldom()
    exporter.run()


rules_app = typer.Typer(help="Recording rules and alerts for Prometheus.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")
grafana_app = typer.Typer(help="Dashboards for Grafana.", no_args_is_help=True)
app.add_typer(grafana_app, name="grafana")


def _with_thresholds(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each threshold of the alerts."""
    from bouncemeter_exporter.rules import thresholds

    signature = inspect.signature(command, eval_str=True)
    fixed = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = []
    for name, threshold in thresholds().items():
        option = typer.Option(f"--{name.replace('_', '-')}", metavar="NUMBER", help=threshold.text, min=0)
        kind = inspect.Parameter.KEYWORD_ONLY
        options.append(inspect.Parameter(name, kind, default=threshold.value, annotation=Annotated[float, option]))
        command.__annotations__[name] = Annotated[float, option]
    command.__signature__ = signature.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]
    return command


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, and say which."""
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            _fail(f"cannot write {path}: {error.strerror}")
        typer.echo(path)


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")]
Runbook = Annotated[str, typer.Option(metavar="URL", help="The page that says what to do.")]


@rules_app.command("export")
@_with_thresholds
def rules_export(
    folder: Folder,
    *,
    grafana_url: Annotated[str, typer.Option(metavar="URL", help="Where Grafana is, for links.")] = GRAFANA,
    runbook_url: Runbook = RUNBOOK,
    **values: float,
) -> None:
    """Write recording rules and alerts as a file for Prometheus.

    Examples:

      bouncemeter rules export /etc/prometheus/rules

      bouncemeter rules export --hard-bounce-ratio 0.03 --grafana-url https://grafana.example.org .
    """
    from bouncemeter_exporter.rules import FILE, as_prometheus, rules

    _write(folder, {FILE: as_prometheus(rules(values, grafana_url=grafana_url, runbook_url=runbook_url))})


@grafana_app.command("export")
@_with_thresholds
def grafana_export(
    folder: Folder,
    *,
    prometheus_url: Annotated[str, typer.Option(metavar="URL", help="Where Grafana finds Prometheus.")] = PROMETHEUS,
    scrape_interval: Annotated[str, typer.Option(metavar="TIME", help="How often Prometheus scrapes.")] = "15s",
    dashboards_path: Annotated[
        str, typer.Option(metavar="DIR", help="Where Grafana will find the dashboards.")
    ] = DASHBOARDS,
    runbook_url: Runbook = RUNBOOK,
    **values: float,
) -> None:
    """Write dashboards, and the files by which Grafana provisions them, a data source and alerts.

    Dashboards can also be imported by hand. The alerts are those of `rules export`, for Grafana's own alerting: use
    the one or the other. The recording rules of `rules export` are needed for both.

    Examples:

      bouncemeter grafana export /etc/grafana

      bouncemeter grafana export --prometheus-url http://prometheus:9090 --hard-bounce-ratio 0.03 .
    """
    from bouncemeter_exporter.bundle import Places, files

    _write(folder, files(values, Places(prometheus_url, scrape_interval, dashboards_path, runbook_url)))


def main() -> None:
    """The entry point: a closed pipe ends a command quietly."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILURE)
