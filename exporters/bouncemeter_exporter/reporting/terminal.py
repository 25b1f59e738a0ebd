"""Text output: tables and colour on a terminal, plain text in a pipe.

Text from logs is never printed raw: control characters, which could control a terminal, are shown as \\xNN.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any, TextIO, cast

from bouncemeter.event import EnhancedCode, Entry, Event, Kind, Outcome, Step, StepKind
from bouncemeter.knowledge.codes import CodeClass, Explanation, explain, reply_meaning
from bouncemeter.knowledge.languages import Language
from bouncemeter.knowledge.providers import OTHER, provider_of
from bouncemeter.knowledge.reasons import Finding, ProviderCode, reasons, todo
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bouncemeter_exporter.markup import printable
from bouncemeter_exporter.records import rfc3339
from bouncemeter_exporter.reporting.find import MAX_FOUND, FoundMessages, Message
from bouncemeter_exporter.reporting.trace import Story, meaning_of
from bouncemeter_exporter.reporting.words import words_in

__all__ = [
    "STYLES",
    "console",
    "new_table",
    "numeral",
    "printable",
    "show_advice",
    "show_class",
    "show_codes",
    "show_event",
    "show_explanation",
    "show_messages",
    "show_story",
]

STYLES = {"hard": "bold red", "soft": "dark_orange", "delivered": "green", "expired": "magenta", "waiting": "yellow"}
"""One colour for each meaning, as on the dashboards."""

PIPE_WIDTH = 120


def console() -> Console:
    """Standard output: as wide as the terminal, or `PIPE_WIDTH` wide, without colour and without blanks at the end of a
    line in a pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(file=cast("TextIO", _Trimmed(sys.stdout)), highlight=False, width=PIPE_WIDTH, no_color=True)


class _Trimmed:
    """A file without blanks at the ends of its lines; whole lines are written to it."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.flush = file, file.flush

    def write(self, text: str) -> None:
        self._file.write("\n".join(line.rstrip(" ") for line in text.split("\n")))


def new_table(out: Console, *headings: str, title: str | None = None) -> Table:
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


def numeral(value: int, style: str = "") -> Text:
    return Text(f"{value:,}", style=style if value else "dim")


# --- explain and codes -------------------------------------------------------------------------------------------


def show_class(found: CodeClass, language: Language = Language.EN) -> None:
    """Print what the codes of a class have in common, and which there are."""
    out, words = console(), words_in(language)
    kind = found.kind or "success"
    number = words["registered"].format(number=len(found.codes))
    out.print(Text.assemble((f"{found.name}.x", "bold"), "  ", (number, "bold")))
    out.print(Text(words["forces"][kind], style=STYLES.get(kind, "green")))
    out.print()
    out.print(found.meaning)
    out.print()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for each in found.codes:
        table.add_row(str(each.code), each.title)
    out.print(table)


def show_explanation(
    found: Explanation,
    reply_code: int | None = None,
    why: Finding | None = None,
    theirs: Sequence[ProviderCode] = (),
    language: Language = Language.EN,
) -> None:
    """Print the explanation of one code, and what single providers mean by it. All texts are in the language already,
    but for the fixed words and those of the reason."""
    out, words = console(), words_in(language)
    kind = found.kind or "success"
    out.print(Text.assemble((str(found.code), "bold"), "  ", (found.title, "bold")))
    out.print(Text(words["forces"][kind], style=STYLES.get(kind, "green")))
    out.print()
    out.print(found.meaning)
    if found.kind is None:
        return
    if found.other_reading:
        out.print(found.other_reading)
    if reply_code is not None and (meaning := reply_meaning(reply_code, language)):
        out.print(words["reply"].format(code=reply_code, meaning=meaning))
    out.print()
    for each in theirs:
        out.print(_theirs(each, language))
        out.print()
    if why is not None:
        out.print(_why(why, language))
    elif not theirs:
        out.print(words["reason"].format(reason=found.reason, meaning=reasons(language)[found.reason].meaning))
    out.print()
    if theirs and not found.registered:
        return
    out.print(_section(words["causes"], [f"- {cause}" for cause in found.causes]))
    out.print(_section(words["postmaster"], [found.postmaster]))
    out.print(_section(words["sender"], [found.sender]))
    reference = words["reference"].format(reference=found.reference)
    out.print(Text(f"{reference} {words['guide']}" if found.in_guide else reference, style="dim"))


def _theirs(code: ProviderCode, language: Language) -> RenderableType:
    """What a provider means by a code, where it says so, and what to do."""
    rows, reason = words_in(language)["rows"], reasons(language)[code.reason]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row(rows["from"], code.provider)
    table.add_row(rows["meaning"], code.meaning)
    table.add_row(rows["reason"], Text.assemble((code.reason, "bold"), f": {reason.meaning}"))
    table.add_row(rows["todo"], code.todo or reason.todo)
    table.add_row(rows["source"], code.source)
    return table


def _why(why: Finding, language: Language) -> RenderableType:
    """The reason, where it was found, the provider, and what to do."""
    words, rows = words_in(language), words_in(language)["rows"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row(rows["reason"], Text.assemble((why.reason, "bold"), f": {reasons(language)[why.reason].meaning}"))
    table.add_row(rows["found_in"], words["basis"][why.basis])
    if why.provider != OTHER:
        table.add_row(rows["provider"], why.provider)
    if why.provider_code is not None:
        table.add_row(rows["provider_meaning"], why.provider_code.meaning)
    table.add_row(rows["todo"], todo(why, language))
    if why.source:
        table.add_row(rows["source"], why.source)
    return table


def _section(title: str, lines: Sequence[str]) -> RenderableType:
    return Group(Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2)) for line in lines), Text())


def show_event(event: Event, why: Finding | None, language: Language = Language.EN) -> None:
    """Print the outcome in one log line, then the explanation of its code."""
    out, words = console(), words_in(language)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    style = STYLES.get(event.outcome, STYLES.get(event.kind or "", ""))
    rows = {
        "outcome": Text(words["outcomes"][event.outcome], style=style),
        "recipient": event.recipient,
        "original_recipient": event.original_recipient,
        "sender": words["event"]["notification"] if event.sender == "" else event.sender,
        "queue_id": event.queue_id,
        "refused_client" if event.outcome is Outcome.REJECTED else "relay": event.relay,
        "stage": event.stage,
        "provider": provider_of(event.relay, event.recipient),
        "text": event.text,
    }
    for name, value in rows.items():
        if value:
            table.add_row(words["event"][name], value if isinstance(value, Text) else Text(printable(value)))
    out.print(table)
    out.print()
    show_explanation(explain(event.code, language), event.reply_code, why, language=language)


_STEPS = {
    StepKind.ARRIVED: "arrived",
    StepKind.QUEUED: "queued",
    StepKind.NOTIFIED: "bounce message created",
    StepKind.PASSED_ON: "passed on",
    StepKind.DROPPED: "dropped",
    StepKind.REMOVED: "left the queue",
    StepKind.RESUMED: "taken up again",
}


def show_story(story: Story) -> None:
    """Print one message's story."""
    out = console()
    first = story.entries[0]
    where = f"{first.mta}{f' on {printable(first.host)}' if first.host else ''}, times in UTC"
    out.print(Text(f"{printable(story.queue_id or 'no queue ID')}: {where}", style="bold"))
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
        ends = new_table(out, *(["message"] if several else []), "recipient", "outcome", title="Recipients")
        for (queue_id, recipient), outcome in story.recipients.items():
            name = [f"{queue_id}, {story.names[queue_id]}"] if several else []
            style = STYLES.get({"bounced": "hard"}.get(outcome, outcome), "")
            ends.add_row(*map(Text, name), Text(printable(recipient)), Text(outcome, style=style))
        out.print(ends)


def show_messages(found: FoundMessages, top: int) -> None:
    """Print the messages that a search found: one in full, several as a table."""
    if found.story is not None:
        show_story(found.story)
        return
    out = console()
    number = f"more than {MAX_FOUND:,}" if found.is_limited else f"{len(found.messages) + found.more:,}"
    out.print(Text(f"{number} messages {printable(found.sought.in_words)}, times in UTC", style="bold"))
    out.print()
    table = new_table(out, "time", "queue ID", "sender", "recipients", "outcome", "code")
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", column.header in ("time", "queue ID", "code")
    for message in found.messages:
        sender = "<>" if message.sender == "" else message.sender or ""
        style = _style_of(message)
        table.add_row(
            Text(rfc3339(message.time) or "", style="dim"),
            Text(printable(message.queue_ids[0]) if message.queue_ids else "-", style="bold"),
            Text(printable(sender)),
            Text(printable(_recipients_note(message))),
            Text(_outcomes_note(message), style=style),
            Text(str(message.last.code) if message.last else "", style=style),
        )
    out.print(table)
    out.print()
    if found.is_limited:
        out.print(f"Only the latest {MAX_FOUND:,} were looked at; --since and --until ask for a shorter time.")
    elif found.more:
        out.print(f"And {found.more:,} more before these; --top {top + found.more} lists all.")
    if any(message.queue_ids for message in found.messages):
        out.print(Text("bouncemeter trace QUEUE_ID shows one of them in full.", style="dim"))


_SAID = re.compile(r"host [^ ]{1,300} said: |(?:SMTP|LMTP) error from remote mail server after [^\n]{1,300}?: (?=[45])")
"""What stands before a reply. The list is about addresses; `--format csv` has all of it."""

_VERDICTS = {"remove": "bold red", "pause": "dark_orange", "keep": "green"}


def show_advice(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Print which addresses to remove, to pause and to keep, given in their JSON form."""
    out = console()
    out.print(Text(f"Addresses that bounce in {printable(', '.join(names))}", style="bold"), soft_wrap=True)
    numbers = Counter(row["verdict"] for row in rows)
    out.print(Text(", ".join(f"{numbers[name]:,} to {name}" for name in _VERDICTS), style="dim"))
    if not rows:
        return
    out.print()
    table = new_table(out, "verdict", "address", "reason", "code", "#messages", "last", "reply")
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", column.header not in ("address", "reply")
    for row in rows:
        table.add_row(
            Text(row["verdict"], style=_VERDICTS[row["verdict"]]),
            Text(printable(row["address"]), style="bold"),
            row["reason"],
            row["code"],
            numeral(row["messages"]),
            (row["last"] or "").partition("T")[0],
            Text(shorten(printable(_SAID.sub("", row["reply"])), 40, placeholder=" ..."), style="dim"),
        )
    out.print(table)


def _style_of(message: Message) -> str:
    """The colour of a message: of its last outcome."""
    if message.last is None:
        return ""
    kind = message.last.outcome if message.last.outcome in STYLES else message.last.kind
    return STYLES.get(kind or "", "")


def _recipients_note(message: Message) -> str:
    """The first recipient, and how many more there are."""
    names = message.in_order() or [message.last.recipient or "" if message.last else ""]
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else names[0]


def _outcomes_note(message: Message) -> str:
    """What became of a message's recipients."""
    outcomes = message.outcomes
    if sum(outcomes.values()) == 1:
        return next(iter(outcomes))
    return ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()) or "no outcome yet"


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


def show_codes(rows: Sequence[Explanation], language: Language = Language.EN) -> None:
    """Print the catalogue as a table."""
    out, words = console(), words_in(language)["codes"]
    headings = ("code", "kind", "title", "reason", "reference", "guide")
    table = new_table(out, *(words[each] for each in headings))
    for row in rows:
        kind = row.kind or Kind.SOFT
        guide = words["in_guide"] if row.in_guide else ""
        name = Text(words[kind], style=STYLES[kind])
        table.add_row(str(row.code), name, row.title, row.reason, row.reference, guide)
    out.print(table)
