"""What `serve` needs from a source of lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from bouncemeter.blocks import Block

from bouncemeter_exporter.sources.log import LogReader

__all__ = ["LineCounts", "Positions", "Source", "line_counts"]

Positions = Mapping[str, str]
"""Where to go on after a restart: texts by name, which only the source itself understands."""

LineCounts = Counter[tuple[str, str]]
"""Lines by mta and result."""


class Source(Protocol):
    """A source of lines, for as long as `serve` runs."""

    @property
    def name(self) -> str:
        """Its name as the user wrote it, and the value of the label `source`."""
        ...

    @property
    def offset(self) -> int:
        """Bytes read."""
        ...

    @property
    def size(self) -> int:
        """Bytes that there are, both read and still to read."""
        ...

    @property
    def up(self) -> bool:
        """Whether the source exists and can be read."""
        ...

    @property
    def dropped(self) -> int:
        """Messages that were lost before they could be read, as far as that can be known."""
        ...

    def lines(self) -> LineCounts:
        """Lines read so far, including those of earlier runs."""
        ...

    def parsers(self) -> set[str]:
        """The names of the formats found so far."""
        ...

    def poll(self) -> Iterator[Block]:
        """What has come since the last call, in pieces; only as much as can be read quickly."""
        ...

    def descriptors(self) -> Iterable[int]:
        """File descriptors that become readable when there is something to read."""
        ...

    def watch(self) -> int | None:
        """A file descriptor that becomes readable when `poll` may return more than it did last; None if that cannot be
        known, so that `poll` must be tried every now and then."""
        ...

    def positions(self) -> Positions:
        """Where to go on after a restart, after everything that `poll` has returned."""
        ...

    def close(self) -> None:
        """Release files, sockets and processes."""
        ...


def line_counts(log: LogReader) -> LineCounts:
    """The lines of a log by mta and result."""
    return Counter({(log.parser.name, result): number for result, number in log.counts.items()} if log.parser else {})
