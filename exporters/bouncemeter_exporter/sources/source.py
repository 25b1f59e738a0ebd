"""What `serve` asks of whatever lines come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from bouncemeter.blocks import Block

from bouncemeter_exporter.sources.log import LogReader

__all__ = ["LineCounts", "Positions", "Source", "line_counts"]

Positions = Mapping[str, str]
"""Where to go on after a restart: texts by names that mean something to the source alone."""

LineCounts = Counter[tuple[str, str]]
"""Lines by mta and result."""


class Source(Protocol):
    """Something that lines come from, for as long as `serve` runs."""

    @property
    def name(self) -> str:
        """As the user wrote it: the label `source`."""
        ...

    @property
    def offset(self) -> int:
        """Bytes read."""
        ...

    @property
    def size(self) -> int:
        """Bytes that there are to read, with those that were read."""
        ...

    @property
    def up(self) -> bool:
        """Whether there is something to read from, and nothing in the way."""
        ...

    @property
    def dropped(self) -> int:
        """Messages that came and could not be taken, as far as that can be known."""
        ...

    def lines(self) -> LineCounts:
        """Lines read so far, those of former runs included."""
        ...

    def parsers(self) -> set[str]:
        """The names of the formats found so far."""
        ...

    def poll(self) -> Iterator[Block]:
        """What came since the last time, in pieces; no more than fits into a moment."""
        ...

    def descriptors(self) -> Iterable[int]:
        """File descriptors that become readable when something comes."""
        ...

    def positions(self) -> Positions:
        """Where to go on after a restart, of everything that `poll` has given."""
        ...

    def close(self) -> None:
        """Let go of files, sockets and processes."""
        ...


def line_counts(log: LogReader) -> LineCounts:
    """The lines of a log by mta and result."""
    return Counter({(log.parser.name, result): number for result, number in log.counts.items()} if log.parser else {})
