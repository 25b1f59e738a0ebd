"""What `serve` and `textfile` share: the arguments that say what to follow, and the settings that come of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bouncemeter_exporter.cli.options import say

if TYPE_CHECKING:
    from bouncemeter_exporter.config import Config, SourceConfig

__all__ = ["FollowedConfig", "FromStart", "NoState", "Sources", "StateFile", "followed"]

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        help="Files, FIFOs, directories, glob patterns; - for standard input; journal:, journal:UNIT,"
        " journal:FIELD=VALUE or journal:/DIRECTORY for the systemd journal; udp:HOST:PORT, tcp:HOST:PORT,"
        " unix:/PATH or unix-stream:/PATH to listen for syslog. Without one, this machine's own mail log.",
    ),
]
FollowedConfig = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; flags override the file.")
]
StateFile = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FILE",
        help="File that keeps positions, counts and messages across restarts.",
        show_default="state.db in $STATE_DIRECTORY, /var/lib/bouncemeter (root), ~/.local/state/bouncemeter, or on"
        " Windows %PROGRAMDATA%\\bouncemeter",
    ),
]
NoState = Annotated[bool, typer.Option("--no-state", help="Keep no state: start afresh every time.")]
FromStart = Annotated[
    bool | None,
    typer.Option(
        "--from-start/--from-end",
        help="Read a file without a saved position from its start.",
        show_default="from its end",
    ),
]


def followed(
    sources: Sequence[str] | None,
    config: Path | None,
    format_of: str | None,
    from_start: bool | None,  # noqa: FBT001 - as typer gives it
    state: Path | None,
    no_state: bool,  # noqa: FBT001
) -> Callable[[], Config]:
    """What reads the settings, now and again: those of the file, or the defaults, changed by the arguments. Without a
    source, this machine's own log is found, once.

    Args:
        sources, config, format_of, from_start, state, no_state: The arguments.
    """
    from bouncemeter_exporter.config import Config, SourceConfig, read_config
    from bouncemeter_exporter.sources.found import this_machines

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

    return read
