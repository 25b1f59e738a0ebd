"""`bouncemeter suppress`: which addresses to stop writing to."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bouncemeter_exporter.cli.options import (
    ConfigFile,
    FormatOf,
    LogArguments,
    Redact,
    RedactKey,
    Since,
    Until,
    collect_garbage_seldom,
    period,
    reading_errors,
    redactor,
    say,
    use_config,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["suppress"]


class ListFormat(StrEnum):
    """How a list is printed."""

    TEXT = "text"
    CSV = "csv"
    JSON = "json"
    LIST = "list"
    POSTFIX = "postfix"


class VerdictName(StrEnum):
    """The verdicts of `bouncemeter_exporter.reporting.suppression`, which take time to load."""

    REMOVE = "remove"
    PAUSE = "pause"
    KEEP = "keep"


def suppress(
    logs: LogArguments = None,
    *,
    verdict: Annotated[
        list[VerdictName] | None,
        typer.Option(
            "--verdict",
            help="List these addresses alone; repeatable.",
            show_default="all; remove and pause for list and postfix",
        ),
    ] = None,
    hard: Annotated[
        int,
        typer.Option(
            "--hard", metavar="NUMBER", min=1, help="Messages refused because the address is gone, to remove it."
        ),
    ] = 1,
    soft: Annotated[
        int,
        typer.Option("--soft", metavar="NUMBER", min=1, help="Messages that did not reach an address, to pause it."),
    ] = 3,
    days: Annotated[
        float,
        typer.Option("--days", metavar="NUMBER", min=0, help="Days between the first and the last of these, at least."),
    ] = 0,
    output: Annotated[ListFormat, typer.Option("--format", help="Output format.")] = ListFormat.TEXT,
    redact: Redact = False,
    redact_key: RedactKey = None,
    since: Since = None,
    until: Until = None,
    format_of: FormatOf = None,
    config: ConfigFile = None,
) -> None:
    """List the addresses that bounce: which to remove, which to pause, and which to keep, each with the evidence.

    Remove: the address itself is the cause, for good. Pause: its mailbox is full, or mail fails to reach it again and
    again. Keep: the address is innocent (policy, reputation, authentication, content), and removing it would hide the
    fault; or there is too little evidence. A later delivery lifts all that was held against an address.

    Examples:

      bouncemeter suppress /var/log/mail.log*

      bouncemeter suppress --format csv --since 30d /var/log/mail.log* > bounced.csv

      bouncemeter suppress --verdict remove --format list /var/log/exim4/mainlog*

      bouncemeter suppress --format postfix /var/log/mail.log* > /etc/postfix/bounced && postmap /etc/postfix/bounced
    """
    from bouncemeter_exporter.counting.ledger import Ledger
    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.period import Part, count_parts
    from bouncemeter_exporter.reporting.suppression import Suppression, Thresholds

    use_config(config)
    asked, hidden = period(since, until), redactor(redact, redact_key)
    collect_garbage_seldom()
    ledger, found = Ledger(), Suppression()
    with reading_errors():
        read = Logs.find(logs or [], format_of, say, asked)
        for _, block in read.read("Reading"):
            count_parts(ledger, block, [Part(asked, found)])
    if found.dropped:
        say(f"there are too many addresses: the {found.dropped:,} that bounced longest ago are left out")
    wanted = {str(each) for each in verdict or VerdictName}
    if not verdict and output in (ListFormat.LIST, ListFormat.POSTFIX):
        wanted.discard("keep")
    advice = [each for each in found.advice(Thresholds(hard, soft, days)) if str(each.verdict) in wanted]
    rows = [each.as_json(hidden) for each in advice]
    _print(rows, output, read.named)


def _print(rows: Sequence[dict[str, Any]], output: ListFormat, names: Sequence[str]) -> None:
    if output is ListFormat.JSON:
        typer.echo(json.dumps(rows, indent=2))
    elif output is ListFormat.TEXT:
        from bouncemeter_exporter.reporting.terminal import show_advice

        show_advice(rows, names)
    else:
        from bouncemeter_exporter.reporting.suppression_files import as_csv, as_list, as_postfix

        if output is ListFormat.CSV:
            sys.stdout.write(as_csv(rows))
            return
        lines = list((as_list if output is ListFormat.LIST else as_postfix)(rows))
        sys.stdout.writelines(lines)
        if left := len(rows) - len(lines):
            say(f"{left} addresses have characters that such a list cannot hold; --format csv has them")
