"""`bouncemeter report`: a summary of logs."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

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
    fail,
    period,
    reading_errors,
    redactor,
    say,
    use_config,
)

__all__ = ["report"]


class ReportFormat(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"
    MAIL = "mail"


class By(StrEnum):
    """The tables of a report."""

    HOUR = "hour"
    CODE = "code"
    REASON = "reason"
    PROVIDER = "provider"
    ACCOUNT = "account"
    SENDER = "sender"
    DOMAIN = "domain"
    RELAY = "relay"
    SLOWEST = "slowest"
    DELAY = "delay"
    REJECTION = "rejection"
    NETWORK = "network"
    CLIENT = "client"
    REPLY = "reply"


def report(
    logs: LogArguments = None,
    *,
    since: Since = None,
    until: Until = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="TIME",
            help="Compare with another period as long as this one, which begins then: yesterday and 7d count back from"
            " --since, which is today unless it is given. Marks what is new.",
        ),
    ] = None,
    by: Annotated[
        list[By] | None, typer.Option("--by", help="Show this table rather than the usual ones; repeatable.")
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="NUMBER", min=1, help="Rows of a table.")] = 10,
    output: Annotated[ReportFormat, typer.Option("--format", help="Output format.")] = ReportFormat.TEXT,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Whom --format mail is for; repeatable.")
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--from", metavar="ADDRESS", help="Whom --format mail is from.", show_default="you")
    ] = None,
    redact: Redact = False,
    redact_key: RedactKey = None,
    format_of: FormatOf = None,
    config: ConfigFile = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="NUMBER", min=1, help="Cores to use.", show_default="all")
    ] = None,
) -> None:
    """Summarise logs: what was delivered and what bounced, by hour, code, reason, provider, account, sender and domain.

    Codes come with their meaning, reasons with what to do, replies with a queue ID to trace. What this server rejected
    is shown by reason and by the client's network.

    Examples:

      bouncemeter report

      bouncemeter report --since yesterday --until today /var/log/mail.log*

      bouncemeter report --since today --compare yesterday /var/log/mail.log*

      bouncemeter report --by account --top 50 /var/log/exim4/mainlog

      bouncemeter report --format html journal:postfix@- > bounces.html

      bouncemeter report --since yesterday --until today --format mail --to postmaster@example.com | sendmail -t
    """
    from bouncemeter_exporter.reporting.breakdown import MAX_NAMES
    from bouncemeter_exporter.reporting.logs import Logs
    from bouncemeter_exporter.reporting.period import earlier
    from bouncemeter_exporter.reporting.summary import summarise

    if (output is ReportFormat.MAIL) != bool(to) or (sender and not to):
        fail("--format mail needs --to ADDRESS" if not to else "--to and --from are for --format mail", 2)
    use_config(config)
    hidden = redactor(redact, redact_key)
    asked = period(since or ("today" if compare else None), until)
    try:
        before = earlier(asked, compare) if compare else None
    except ValueError as error:
        fail(error, 2)
    collect_garbage_seldom()
    with reading_errors():
        read = Logs.find(logs or [], format_of, say, asked if before is None else before)
        summary = summarise(read, jobs, asked, before)
    found = summary.as_json(top if output is ReportFormat.JSON else MAX_NAMES, hidden)
    if output is ReportFormat.JSON:
        typer.echo(json.dumps(found, indent=2))
    elif output is ReportFormat.TEXT:
        from bouncemeter_exporter.reporting.report_text import show_report
        from bouncemeter_exporter.reporting.terminal import console

        show_report(console(), found, read.named, top, by or ())
    else:
        from bouncemeter_exporter.reporting.report_page import report_mail, report_page

        try:
            if to:
                made = report_mail(found, read.named, top, to, sender, by or ())
            else:
                made = report_page(found, read.named, top, by or ()).encode()
        except ValueError as error:
            fail(error, 2)
        sys.stdout.buffer.write(made)
