"""`bouncemeter trace`: one message's story, or the messages that a search finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bouncemeter_exporter.cli.options import (
    FormatOf,
    LogArguments,
    Output,
    OutputFormat,
    Redact,
    RedactKey,
    Since,
    Until,
    fail,
    period,
    reading_errors,
    redactor,
    say,
)
from bouncemeter_exporter.reporting.sought import By, readings

if TYPE_CHECKING:
    from bouncemeter.event import Entry

    from bouncemeter_exporter.records import Redactor
    from bouncemeter_exporter.reporting.find import FoundMessages
    from bouncemeter_exporter.reporting.trace import Story
    from bouncemeter_exporter.sources.search import Search

__all__ = ["trace"]


def trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A queue ID, as the log writes it; an address: a recipient's (also the one before aliases; @domain for"
            " all of a domain), or if there is none, the sender's; or <Message-ID>.",
        ),
    ],
    logs: LogArguments = None,
    *,
    by: Annotated[
        By | None,
        typer.Option(
            "--by",
            help="What WHAT is. Also reply: a part of a reply's or an error's text. By default, its form decides.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="NUMBER", min=1, help="If several messages are found, how many to list.")
    ] = 50,
    output: Output = OutputFormat.TEXT,
    redact: Redact = False,
    redact_key: RedactKey = None,
    since: Since = None,
    until: Until = None,
    format_of: FormatOf = None,
) -> None:
    """Show one message's story: its arrival, each attempt with the reply and its meaning, and its end.

    The story follows the message through a content filter, and to the bounce messages that it caused. If WHAT is no
    queue ID and several messages are found, they are listed instead, the latest last, with what became of each.
    Addresses and replies are compared without regard to case. Mail that this server refused is found, too.

    With --format json, a queue ID gives the story. Anything else gives an object whose keys are always the same: by;
    messages, a list; more, the number of earlier messages that --top left out; and story, which is null unless there
    is exactly one message.

    Examples:

      bouncemeter trace 4A1B2C3D57 /var/log/mail.log*

      bouncemeter trace bob@dest.test --since yesterday

      bouncemeter trace '<20261124164034.C3428@mta.test>' /var/log/mail.log

      bouncemeter trace --by reply 'mailbox full' --top 10 /var/log/mail.log

      bouncemeter trace --format json 1xVsuB-0001DU-2n /var/log/exim4/mainlog
    """
    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.sources.lines import STDIN

    if STDIN in (logs or []):
        fail("trace reads logs more than once; name files, not standard input", 2)
    try:
        sought = readings(what, by)
    except ValueError as error:
        fail(error, 2)

    said: set[str] = set()

    def say_once(sentence: str) -> None:
        if sentence not in said:  # the logs are read more than once
            said.add(sentence)
            say(sentence)

    asked, hidden = period(since, until), redactor(redact, redact_key)
    with reading_errors():
        found = Logs.find(logs or [], format_of, say_once, asked)

        def read(about: Search) -> Iterator[Entry]:
            for _, entries in found.read("Looking", about):
                yield from (entry for entry in entries if asked.covers(entry.time))

        result: Story | FoundMessages | None
        if sought[0].by is By.QUEUE_ID:
            from bouncemeter_exporter.reporting.trace import trace_message

            result = trace_message(sought[0].text, read)
            nothing = f"no line about queue ID {sought[0].text}"
        else:
            from bouncemeter_exporter.reporting.find import find_messages

            result = find_messages(sought, read, top)
            nothing = (
                f"no message {', or '.join((each.redacted(hidden) if hidden else each).in_words for each in sought)}"
            )
    if result is None:
        fail(f"{', '.join(found.named)}: {nothing}")
    _print(result, output, top, hidden)


def _print(result: Story | FoundMessages, output: OutputFormat, top: int, hidden: Redactor | None) -> None:
    """Print what was found."""
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(result.as_json(hidden), indent=2))
        return
    result = result.redacted(hidden) if hidden else result
    from bouncemeter_exporter.reporting.find import FoundMessages
    from bouncemeter_exporter.reporting.terminal import show_messages, show_story

    if isinstance(result, FoundMessages):
        show_messages(result, top)
        for other in result.others:
            say(f"there are also messages {other.in_words}: --by {other.by}")
    else:
        show_story(result)
