"""Reads logs in the order of time, also where several cover the same time: other servers', or other formats'."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from typing import NamedTuple

from bouncemeter.blocks import Block

from bouncemeter_exporter.reporting.logs import Logs
from bouncemeter_exporter.reporting.progress import Advance, progress

__all__ = ["Part", "in_order"]

AHEAD = 86400.0
"""Seconds by which a time may be later than now, for clocks and zones that differ. What is later is an error of a
clock, and belongs to the lines around it."""


class Part(NamedTuple):
    """Entries of one log and one period.

    Attributes:
        period: The period's number, since 1970 UTC; that of the part before if these have no time, None if there is
            none.
        mta: The log's format; None before it is known.
        block: The entries. The lines of a log are counted by the last of the parts that are read together.
    """

    period: int | None
    mta: str | None
    block: Block


def in_order(logs: Logs, length: float, task: str) -> Iterator[Part]:
    """Read all logs, cut into periods of so many seconds, the earliest first. A log is opened when its time has come.

    Args:
        logs: The logs.
        length: Seconds of a period.
        task: What the progress bar says.

    Raises:
        SourceError: A log cannot be read.
    """
    with progress(sum(path.stat().st_size for path in logs.paths if path), task) as advance:
        begins = sorted(
            [(logs.begins[path] if path else 0.0, place) for place, path in enumerate(logs.paths)]
            + [(0.0, len(logs.paths) + place) for place in range(len(logs.journals))],
            reverse=True,
        )
        latest = int((time.time() + AHEAD) // length)
        open_logs: list[tuple[int, int, Part, Iterator[Part]]] = []
        while begins or open_logs:
            if begins and (not open_logs or begins[-1][0] // length <= open_logs[0][0]):
                _, place = begins.pop()
                parts = _parts(logs, place, length, latest, advance)
            else:
                _, place, part, parts = heapq.heappop(open_logs)
                yield part
            if (following := next(parts, None)) is not None:
                heapq.heappush(open_logs, (following.period or 0, place, following, parts))


def _parts(logs: Logs, place: int, length: float, latest: int, advance: Advance) -> Iterator[Part]:
    """One of the logs, by its place among files and journals, in periods that never go back."""
    files = len(logs.paths)
    read = (
        logs.read_file(logs.paths[place], advance)
        if place < files
        else logs.read_journal(logs.journals[place - files], advance)
    )
    at: int | None = None
    for log, block in read:
        for period, part in block.by_period(length):
            if period is not None and period <= latest:
                at = period if at is None else max(at, period)
            yield Part(at, log.parser.name if log.parser else None, part)
