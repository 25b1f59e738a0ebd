"""`bouncemeter trace`: one message's story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bouncemeter_exporter.cli.options import FormatOf, LogArguments, Output, OutputFormat, fail, reading_errors, say

if TYPE_CHECKING:
    from bouncemeter.event import Entry

__all__ = ["trace"]


def trace(
    queue_id: Annotated[str, typer.Argument(metavar="QUEUE_ID", help="The message's queue ID, as the log writes it.")],
    logs: LogArguments,
    output: Output = OutputFormat.TEXT,
    format_of: FormatOf = None,
) -> None:
    """Show one message's story: its arrival, each attempt with the reply and its meaning, and its end.

    The story follows the message through a content filter, and to the bounce messages that it caused.

    Examples:

      bouncemeter trace 4A1B2C3D57 /var/log/mail.log*

      bouncemeter trace --format json 1xVsuB-0001DU-2n /var/log/exim4/mainlog
    """
    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.trace import trace_message
    from bouncemeter_exporter.sources.lines import STDIN

    if STDIN in logs:
        fail("trace reads logs more than once; name files, not standard input", 2)

    def read(about: frozenset[str]) -> Iterator[Entry]:
        for _, entries in Logs.find(logs, format_of, say).read("Looking", about):
            yield from entries

    with reading_errors():
        story = trace_message(queue_id, read)
    if story is None:
        fail(f"{', '.join(logs)}: no line about queue ID {queue_id}")
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(story.as_json(), indent=2))
    else:
        from bouncemeter_exporter.reporting.terminal import show_story

        show_story(story)
