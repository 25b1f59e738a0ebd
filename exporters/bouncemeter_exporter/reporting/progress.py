"""A progress bar for long work on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Advance", "progress"]

WORTH = 4_000_000
"""Bytes to read, below which there is no bar."""


class Advance(Protocol):
    """Called with the number of bytes just read."""

    def __call__(self, size: int, /) -> object: ...


@contextmanager
def progress(total: int, task: str) -> Iterator[Advance]:
    """A progress bar on standard error, if that is a terminal and there are at least `WORTH` bytes to read.

    Args:
        total: Bytes to read.
        task: The work, in a word or two.
    """
    if total < WORTH or not sys.stderr.isatty():
        yield lambda _size: None
        return
    from rich import progress as bars  # noqa: PLC0415 - loading it takes as long as reading some thousand lines
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    # Output that goes to a file or a pipe must go there; on the terminal it is printed above the bar.
    shown = sys.stdout.isatty()
    with bars.Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shown) as bar:
        number = bar.add_task(task, total=total)
        yield lambda size: bar.advance(number, size)
