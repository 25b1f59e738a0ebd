"""`bouncemeter textfile`: metrics in a file that node_exporter or windows_exporter shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.following import FollowedConfig, FromStart, NoState, Sources, StateFile, followed
from bouncemeter_exporter.cli.options import FormatOf, collect_garbage_seldom, fail, say

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
    from bouncemeter_exporter.archive.whole import check_metrics
    from bouncemeter_exporter.config import ConfigError, seconds
    from bouncemeter_exporter.serving.state import StateError
    from bouncemeter_exporter.sources.lines import SourceError

    if output.suffix != ".prom":
        fail(f"--output: the collectors read files that end in .prom, and {output} does not", 2)
    if not output.parent.is_dir():
        fail(f"--output: there is no folder {output.parent}", 2)
    try:
        check_metrics(output)
    except OSError as error:
        fail(f"--output: cannot write {output}: {error.strerror}", 2)
    if once and no_state:
        fail("--once needs the state: each run goes on where the last one stopped", 2)

    read = followed(sources, config, format_of, from_start, state, no_state)
    try:
        file = Textfile(read(), output, seconds(interval), say, read, once=once)
    except (ParserNotFoundError, SourceError, StateError) as error:
        fail(error)
    except (ConfigError, ValueError) as error:
        fail(error, 2)
    collect_garbage_seldom()
    file.run()
    if file.failed or (once and not file.complete):
        raise typer.Exit(1)
