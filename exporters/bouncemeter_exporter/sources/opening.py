"""Which kind of source a name means. Only this module knows all kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bouncemeter.plugin import Parser

from bouncemeter_exporter.sources.files import FollowedFiles
from bouncemeter_exporter.sources.journal import PREFIX, Journal
from bouncemeter_exporter.sources.lines import STDIN
from bouncemeter_exporter.sources.source import LineCounts, Positions, Source
from bouncemeter_exporter.sources.stream import Fifo, StandardInput
from bouncemeter_exporter.sources.syslog import SCHEMES, syslog_source

__all__ = ["open_source"]


def open_source(
    name: str,
    *,
    parser: Parser | None,
    from_start: bool,
    say: Callable[[str], None],
    positions: Positions,
    lines: LineCounts,
    before: Sequence[str] = (),
) -> Source:
    """Open a source.

    Args:
        name: As the user wrote it: `-`, `journal:...`, `udp:...`, a FIFO, a file, a directory or a pattern.
        parser: Its format; if None, it is detected.
        from_start: At the first start, also read what is there already.
        say: Called with each sentence the user should see.
        positions: Where the previous run stopped.
        lines: Lines counted by earlier runs.
        before: The sources before this one: a file of theirs is not read again.

    Raises:
        SourceError: There is no such source, or it cannot be read.
        ValueError: The address to listen on is not valid.
    """
    if name == STDIN:
        return StandardInput(name, parser, lines, say)
    if name.startswith(SCHEMES):
        return syslog_source(name, parser, lines)
    if Fifo.is_at(name):
        return Fifo(name, parser, lines)
    if name.startswith(PREFIX):
        return Journal(name, parser=parser, from_start=from_start, say=say, positions=positions, lines=lines)
    files = [each for each in before if is_of_files(each)]
    return FollowedFiles(
        name, parser=parser, from_start=from_start, say=say, positions=positions, lines=lines, before=files
    )


def is_of_files(name: str) -> bool:
    """Whether a source is a file, a directory or a pattern."""
    return not (name == STDIN or name.startswith((*SCHEMES, PREFIX)) or Fifo.is_at(name))
