"""`bouncemeter textfile`: metrics in a file that node_exporter or windows_exporter shows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import FormatOf, collect_garbage_seldom, fail, say
from bouncemeter_exporter.cli.serve import FollowedConfig, FromStart, NoState, Sources, StateFile

__all__ = ["textfile"]


def textfile(
    sources: Sources = None,
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.prom", help="The file, in the folder of the textfile collector."),
    ],
    interval: Annotated[
        str, typer.Option("--interval", metavar="DURATION", help="How often the file is written.")
    ] = "15s",
    once: Annotated[
        bool,
        typer.Option("--once", help="Read what is new, write the file and stop: for cron or Windows' Task Scheduler."),
    ] = False,
    config: FollowedConfig = None,
    state: StateFile = None,
    no_state: NoState = False,
    from_start: FromStart = None,
    format_of: FormatOf = None,
) -> None:
    """Follow logs and keep a file of Prometheus metrics, where no further port may be opened.

    Examples:

      bouncemeter textfile --output /var/lib/prometheus/node-exporter/bouncemeter.prom

      bouncemeter textfile --once --output bouncemeter.prom '/logs/MSGTRK*.LOG'
    """
    from bouncemeter.plugin import ParserNotFoundError

    from bouncemeter_exporter.archive.textfile import Textfile
    from bouncemeter_exporter.config import Config, ConfigError, SourceConfig, read_config, seconds
    from bouncemeter_exporter.serving.state import StateError
    from bouncemeter_exporter.sources.found import this_machines
    from bouncemeter_exporter.sources.lines import SourceError

    if output.suffix != ".prom":
        fail(f"--output: the collectors read files that end in .prom, and {output} does not", 2)
    if not output.parent.is_dir():
        fail(f"--output: there is no folder {output.parent}", 2)
    if once and no_state:
        fail("--once needs the state: each run goes on where the last one stopped", 2)

    @cache
    def own() -> tuple[SourceConfig, ...]:
        return tuple(SourceConfig(each, format_of) for each in this_machines(say))

    def read() -> Config:
        settings = read_config(config) if config else Config()
        named = tuple(SourceConfig(each, format_of) for each in sources or []) or settings.sources
        return replace(
            settings,
            sources=named or own(),
            from_start=settings.from_start if from_start is None else from_start,
            state=None if no_state else state or settings.state,
        )

    try:
        followed = Textfile(read(), output, seconds(interval), say, read, once=once)
    except (ParserNotFoundError, SourceError, StateError) as error:
        fail(error)
    except (ConfigError, ValueError) as error:
        fail(error, 2)
    collect_garbage_seldom()
    followed.run()
    if followed.failed:
        raise typer.Exit(1)
