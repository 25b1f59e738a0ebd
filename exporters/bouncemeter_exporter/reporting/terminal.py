"""Text output: tables and colour on a terminal, plain text in a pipe.

Text from logs is never printed raw: control characters, which could control a terminal, are shown as \\xNN.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bouncemeter.event import EnhancedCode, Entry, Event, Kind, Outcome, Step, StepKind
from bouncemeter.knowledge.codes import Explanation, explain, reply_meaning
from bouncemeter.knowledge.providers import OTHER, provider_of
from bouncemeter.knowledge.reasons import Finding, reasons, todo
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bouncemeter_exporter.reporting.records import rfc3339
from bouncemeter_exporter.reporting.trace import Story, meaning_of

__all__ = [
    "console",
    "printable",
    "show_codes",
    "show_event",
    "show_explanation",
    "show_report",
    "show_story",
]

STYLES = {"hard": "bold red", "soft": "dark_orange", "delivered": "green", "expired": "magenta", "waiting": "yellow"}
"""One colour for each meaning, as on the dashboards."""

PIPE_WIDTH = 120
TOP = 15


def console() -> Console:
    """Standard output: as wide as the terminal, or `PIPE_WIDTH` wide and without colour in a pipe."""
    return (
        Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PIPE_WIDTH, no_color=True)
    )


def printable(text: str) -> str:
    """A text with its control characters made visible."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def _table(out: Console, *headings: str, title: str | None = None) -> Table:
    """A table; a heading that begins with # marks a column of numbers."""
    table = Table(
        box=box.SIMPLE_HEAD if out.is_terminal else None,
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        header_style="bold" if out.is_terminal else "",
    )
    for heading in headings:
        if heading.startswith("#"):
            table.add_column(heading[1:], justify="right", no_wrap=True)
        else:
            table.add_column(heading)
    return table


def _number(value: int, style: str = "") -> Text:
    return Text(f"{value:,}", style=style if value else "dim")


# --- report ------------------------------------------------------------------------------------------------------


def show_report(found: Mapping[str, Any], names: Sequence[str]) -> None:
    """Print a report, given in its JSON form."""
    out = console()
    period = f"{found['from']} to {found['to']}" if found["from"] else "no time stamps"
    out.print(Text(f"Mail bounces in {printable(', '.join(names))}", style="bold"), soft_wrap=True)
    out.print(Text(period, style="dim"))
    out.print()
    out.print(_totals(out, found))
    if found["codes"]:
        out.print()
        out.print(_codes_table(out, found["codes"]))
    if found["reasons"]:
        out.print()
        out.print(_reasons_table(out, found["reasons"]))
    if found["providers"]:
        out.print()
        out.print(_providers_table(out, found["providers"]))
    lines = found["lines"]
    out.print()
    note = f"{lines['read']:,} lines: {lines['event']:,} outcomes, {lines['other']:,} others"
    out.print(Text(note + f", {lines['unparsed']:,} not understood." if lines["unparsed"] else note + ".", style="dim"))


def _totals(out: Console, found: Mapping[str, Any]) -> Table:
    recipients, bounces, attempts = found["recipients"], found["bounces"], found["attempts"]
    ended = recipients["delivered"] + recipients["bounced"] + recipients["expired"]
    table = _table(out, "", "#recipients", "", "")
    share = f"{recipients['bounced'] / ended:.1%} of {ended:,} ended" if ended else "no mail ended"
    rows = [
        ("delivered", recipients["delivered"], "delivered", f"{attempts['delivered']:,} deliveries logged"),
        ("hard bounces", bounces["hard"], "hard", f"refused for good: {share}"),
        ("soft bounces", bounces["soft"], "soft", f"deferred at least once; {attempts['deferred']:,} attempts"),
        ("expired", recipients["expired"], "expired", "given up after retries"),
        ("waiting", recipients["waiting"], "waiting", "deferred, not yet ended"),
    ]
    for name, value, style, note in rows:
        table.add_row(Text(name, style=STYLES[style]), _number(value, STYLES[style]), "", Text(note, style="dim"))
    table.add_row("rejections", _number(found["rejections"]), "", Text("mail that this server refused", style="dim"))
    table.add_row("notifications", _number(found["notifications"]), "", Text("bounce messages, apart", style="dim"))
    return table


def _codes_table(out: Console, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(out, "code", "kind", "#recipients", "#attempts", "reason", "meaning", title="Codes")
    for row in rows[:TOP]:
        kind = row["kind"] or ""
        title = _title(row["code"])
        table.add_row(
            Text(row["code"], style="bold"),
            Text(kind, style=STYLES.get(kind, "")),
            _number(row["recipients"]),
            _number(row["attempts"]),
            row["reason"],
            title,
        )
    return _and_more(table, len(rows))


def _title(code: str) -> str:
    try:
        return explain(EnhancedCode.parse(code)).title
    except ValueError:
        return "Further codes of this class"


def _reasons_table(out: Console, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(out, "reason", "provider", "#soft", "#hard", "what to do", title="Reasons")
    for row in rows[:TOP]:
        numbers = (_number(row[name], STYLES[name]) for name in ("soft", "hard"))
        table.add_row(Text(row["reason"], style="bold"), row["provider"], *numbers, reasons()[row["reason"]].todo)
    return _and_more(table, len(rows))


def _and_more(table: Table, number: int) -> Table:
    if number > TOP:
        table.caption = f"and {number - TOP} more; --format json has all"
        table.caption_justify = "left"
    return table


def _providers_table(out: Console, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(out, "provider", "#delivered", "#soft", "#hard", title="Providers")
    for row in rows[:TOP]:
        numbers = (_number(row[name], STYLES[name]) for name in ("delivered", "soft", "hard"))
        table.add_row(row["provider"], *numbers)
    return table


# --- explain and codes -------------------------------------------------------------------------------------------


def show_explanation(found: Explanation, reply_code: int | None = None, why: Finding | None = None) -> None:
    """Print the explanation of one code."""
    out = console()
    kind = found.kind or "success"
    words = {"soft": "soft: a temporary failure, mail is retried", "hard": "hard: a permanent failure"}
    out.print(Text.assemble((str(found.code), "bold"), "  ", (found.title, "bold")))
    out.print(Text(words.get(kind, kind), style=STYLES.get(kind, "green")))
    out.print()
    out.print(found.meaning)
    if found.other_reading:
        out.print(found.other_reading)
    if reply_code is not None and (meaning := reply_meaning(reply_code)):
        out.print(f"The reply code {reply_code} means: {meaning}.")
    out.print()
    if why is not None:
        out.print(_why(why))
    else:
        out.print(f"Reason: {found.reason}. {reasons()[found.reason].meaning}")
    out.print()
    out.print(_section("Likely causes", [f"- {cause}" for cause in found.causes]))
    out.print(_section("What the postmaster does", [found.postmaster]))
    out.print(_section("What the sender does", [found.sender]))
    guide = " One of the guide's 89 bounce codes." if found.in_guide else ""
    out.print(Text(f"Reference: {found.reference}.{guide}", style="dim"))


def _why(why: Finding) -> RenderableType:
    """The reason, where it was found, the provider, and what to do."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Reason", Text.assemble((why.reason, "bold"), f": {reasons()[why.reason].meaning}"))
    table.add_row("Found in", f"the {why.basis}" if why.basis != "nothing" else "no part of the reply")
    if why.provider != OTHER:
        table.add_row("Provider", why.provider)
    if why.provider_code is not None:
        table.add_row("Provider's meaning", why.provider_code.meaning)
    table.add_row("What to do", todo(why))
    if why.source:
        table.add_row("Documented in", why.source)
    return table


def _section(title: str, lines: Sequence[str]) -> RenderableType:
    return Group(Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2)) for line in lines), Text())


def show_event(event: Event, why: Finding | None) -> None:
    """Print the outcome in one log line, then the explanation of its code."""
    out = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    rows = {
        "outcome": Text(event.outcome, style=STYLES.get(event.outcome, STYLES.get(event.kind or "", ""))),
        "recipient": event.recipient,
        "original recipient": event.original_recipient,
        "sender": "<>, a notification" if event.sender == "" else event.sender,
        "queue ID": event.queue_id,
        "refused client" if event.outcome is Outcome.REJECTED else "relay": event.relay,
        "stage": event.stage,
        "provider": provider_of(event.relay, event.recipient),
        "text": event.text,
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value if isinstance(value, Text) else Text(printable(value)))
    out.print(table)
    out.print()
    show_explanation(explain(event.code), event.reply_code, why)


_STEPS = {
    StepKind.ARRIVED: "arrived",
    StepKind.QUEUED: "queued",
    StepKind.NOTIFIED: "bounce message created",
    StepKind.PASSED_ON: "passed on",
    StepKind.DROPPED: "dropped",
    StepKind.REMOVED: "left the queue",
}


def show_story(story: Story) -> None:
    """Print one message's story."""
    out = console()
    first = story.entries[0]
    out.print(Text(f"{story.queue_id}: {first.mta}{f' on {first.host}' if first.host else ''}", style="bold"))
    out.print()
    several = len(story.names) > 1
    table = Table(box=None, show_header=False, pad_edge=False)
    for style in ("dim", "bold", "", ""):
        table.add_column(style=style, overflow="fold", no_wrap=style in ("dim", "bold"))
    explained: set[EnhancedCode] = set()
    for entry in _without_repetition(story.entries):
        cells = [Text(rfc3339(entry.time) or ""), Text(entry.queue_id or "" if several else "")]
        if isinstance(entry, Step):
            table.add_row(*cells, Text(_STEPS[entry.what]), Text(printable(_step_note(entry))))
            continue
        kind = entry.outcome if entry.outcome in STYLES else entry.kind or ""
        table.add_row(*cells, Text(entry.outcome, style=STYLES.get(kind, "")), Text(printable(_event_note(entry))))
        if entry.text:
            table.add_row("", "", "", Text(printable(entry.text), style="dim"))
        if entry.outcome is not Outcome.DELIVERED:
            found = explain(entry.code)
            meaning = "" if entry.code in explained else f": {meaning_of(entry)}"
            explained.add(entry.code)
            table.add_row(
                "", "", "", Text(f"{entry.code} {found.title}{meaning}", style=STYLES.get(entry.kind or "", ""))
            )
    out.print(table)
    if story.recipients:
        out.print()
        ends = _table(out, *(["message"] if several else []), "recipient", "outcome", title="Recipients")
        for (queue_id, recipient), outcome in story.recipients.items():
            name = [f"{queue_id}, {story.names[queue_id]}"] if several else []
            style = STYLES.get({"bounced": "hard"}.get(outcome, outcome), "")
            ends.add_row(*map(Text, name), Text(printable(recipient)), Text(outcome, style=style))
        out.print(ends)


def _without_repetition(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries without a message's later `queued` steps, which add nothing."""
    queued: set[str] = set()
    for entry in entries:
        if isinstance(entry, Step) and entry.what is StepKind.QUEUED:
            if entry.queue_id in queued:
                continue
            queued.add(entry.queue_id)
        yield entry


_RELATED = {StepKind.NOTIFIED: "see ", StepKind.PASSED_ON: "now: "}
"""What the other queue ID of a step is; if not here, the one before."""


def _step_note(step: Step) -> str:
    notes = {"sender ": f"<{step.sender}>" if step.sender is not None else None, "client ": step.peer}
    notes |= {"": step.recipient, _RELATED.get(step.what, "before: "): step.related}
    return ", ".join(f"{name}{value}" for name, value in notes.items() if value)


def _event_note(event: Event) -> str:
    where = f" by {event.relay}" if event.relay and event.relay != "none" else ""
    late = f" after {event.delay:g} s" if event.delay is not None else ""
    return f"{event.recipient or 'all waiting recipients'}{where}{late}"


def show_codes(rows: Sequence[Explanation]) -> None:
    """Print the catalogue as a table."""
    out = console()
    table = _table(out, "code", "kind", "title", "reason", "reference", "guide")
    for row in rows:
        kind = row.kind or Kind.SOFT
        guide = "yes" if row.in_guide else ""
        table.add_row(str(row.code), Text(kind, style=STYLES[kind]), row.title, row.reason, row.reference, guide)
    out.print(table)
