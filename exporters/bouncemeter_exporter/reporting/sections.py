"""The tables of a report: which there are, their columns, and which rows of the report's JSON they show.

The text and the page of a report are made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.codes import explain
from bouncemeter.knowledge.reasons import reasons

__all__ = ["SECTIONS", "Column", "Section", "Total", "hours", "period", "title_of", "totals"]

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column.

    Attributes:
        heading: Its heading; one that begins with # is over numbers.
        value: What a row has in it.
        style: A name of a style: of an outcome, `code`, or nothing.
    """

    heading: str
    value: Callable[[Row], str | int]
    style: str = ""


class Section(NamedTuple):
    """A table.

    Attributes:
        name: Its name for `--by`.
        title: Its title.
        rows: The key of its rows in the report's JSON.
        columns: Its columns.
        usual: Whether it is shown without being asked for.
        bounced_only: Whether it then shows only rows with bounces.
    """

    name: str
    title: str
    rows: str
    columns: tuple[Column, ...]
    usual: bool = True
    bounced_only: bool = False

    def shown(self, found: Row, *, asked: bool) -> list[Row]:
        """The rows to show of a report.

        Args:
            found: The report in its JSON form.
            asked: Whether somebody asked for this table.
        """
        rows = found[self.rows]
        if self.name == "reply":
            rows = [{**about, **reply} for about in rows for reply in about["replies"][: None if asked else 1]]
        if self.bounced_only and not asked:
            rows = [row for row in rows if row["soft"] or row["hard"]]
        return list(rows)


def title_of(code: str) -> str:
    """The title of a code; a class with the detail x has none of its own."""
    try:
        return explain(EnhancedCode.parse(code)).title
    except ValueError:
        return "Further codes of this class"


def _of(key: str) -> Callable[[Row], str | int]:
    return lambda row: "" if row[key] is None else row[key]


def _hour(row: Row) -> str:
    return str(row["hour"]).replace("T", " ").removesuffix(":00Z")


_BOUNCES = (Column("#soft", _of("soft"), "soft"), Column("#hard", _of("hard"), "hard"))
_ENDS = (Column("#delivered", _of("delivered"), "delivered"), *_BOUNCES)

SECTIONS = (
    Section("hour", "By hour (UTC)", "hours", (Column("hour", _hour), *_ENDS, Column("#rejected", _of("rejected")))),
    Section(
        *("code", "Codes", "codes"),
        columns=(
            Column("code", _of("code"), "code"),
            Column("kind", _of("kind"), "kind"),
            Column("#recipients", _of("recipients")),
            Column("#attempts", _of("attempts")),
            Column("reason", _of("reason")),
            Column("meaning", lambda row: title_of(row["code"])),
        ),
    ),
    Section(
        *("reason", "Reasons", "reasons"),
        columns=(
            Column("reason", _of("reason"), "name"),
            Column("provider", _of("provider")),
            *_BOUNCES,
            Column("what to do", lambda row: reasons()[row["reason"]].todo),
        ),
    ),
    Section("provider", "Providers", "providers", (Column("provider", _of("provider")), *_ENDS)),
    Section(
        *("account", "Accounts whose mail bounced", "accounts", (Column("account", _of("account"), "name"), *_ENDS)),
        bounced_only=True,
    ),
    Section(
        *("sender", "Senders whose mail bounced", "senders", (Column("sender", _of("sender"), "name"), *_ENDS)),
        bounced_only=True,
    ),
    Section(
        *("domain", "Recipient domains that bounced mail", "recipient_domains"),
        columns=(Column("domain", _of("domain"), "name"), *_ENDS),
        bounced_only=True,
    ),
    Section("relay", "Relays", "relays", (Column("relay", _of("relay"), "name"), *_ENDS), usual=False),
    Section(
        *("slowest", "Slowest destinations", "slowest"),
        columns=(
            Column("domain", _of("domain"), "name"),
            Column("#delivered", _of("delivered"), "delivered"),
            Column("#mean", lambda row: duration(row["mean_seconds"])),
            Column("#longest", lambda row: duration(row["longest_seconds"])),
        ),
    ),
    Section(
        *("delay", "Time until delivery", "delays"),
        columns=(
            Column("within", lambda row: duration(row["within_seconds"]) if row["within_seconds"] else "longer"),
            Column("#recipients", _of("recipients")),
        ),
        usual=False,
    ),
    Section(
        *("rejection", "Rejections by this server", "rejection_reasons"),
        columns=(
            Column("reason", _of("reason"), "name"),
            Column("stage", _of("stage")),
            Column("code", _of("code"), "code"),
            Column("#rejections", _of("rejections")),
        ),
    ),
    Section(
        *("network", "Rejected networks", "client_networks"),
        columns=(
            Column("network", _of("network"), "name"),
            Column("#rejections", _of("rejections")),
            Column("most for", _of("reason")),
        ),
    ),
    Section(
        *("client", "Who handed mail over", "clients"),
        columns=(Column("client", _of("client"), "name"), Column("#messages", _of("messages"))),
        usual=False,
    ),
    Section(
        *("reply", "Latest replies", "replies"),
        columns=(
            Column("code", _of("code"), "code"),
            Column("provider", _of("provider")),
            Column("queue ID", _of("queue_id"), "code"),
            Column("reply", _of("text")),
        ),
    ),
)
"""All tables, in their order."""


class Total(NamedTuple):
    """A number at the head of a report.

    Attributes:
        name: What is counted.
        value: The number.
        style: Its style.
        note: What it means.
        before: The number of the other period, if two are compared.
    """

    name: str
    value: int
    style: str
    note: str
    before: int | None


def totals(found: Row) -> list[Total]:
    """The numbers at the head of a report, given in its JSON form."""
    recipients, attempts = found["recipients"], found["attempts"]
    ended = recipients["delivered"] + recipients["bounced"] + recipients["expired"]
    share = f"{recipients['bounced'] / ended:.1%} of {ended:,} ended" if ended else "no mail ended"
    rows: Sequence[tuple[str, tuple[str, ...], str, str]] = (
        ("delivered", ("recipients", "delivered"), "delivered", f"{attempts['delivered']:,} deliveries logged"),
        ("hard bounces", ("bounces", "hard"), "hard", f"refused for good: {share}"),
        ("soft bounces", ("bounces", "soft"), "soft", f"deferred at least once; {attempts['deferred']:,} attempts"),
        ("expired", ("recipients", "expired"), "expired", "given up after retries"),
        ("waiting", ("recipients", "waiting"), "waiting", "deferred, not yet ended"),
        ("rejections", ("rejections",), "", "mail that this server refused"),
        ("notifications", ("notifications",), "", "bounce messages, apart"),
    )
    before = found.get("compared_with")
    return [
        Total(name, _at(found, path) or 0, style, note, _at(before, path) if before else None)
        for name, path, style, note in rows
    ]


def _at(found: Any, path: Sequence[str]) -> int | None:  # noqa: ANN401 - part of a JSON object
    for key in path:
        found = found.get(key)
        if found is None:
            return None
    return int(found)


def period(found: Row) -> str:
    """The time that a report covers, in words."""
    words = f"{found['from']} to {found['to']} (UTC)" if found["from"] else "no mail of that time, or none with a time"
    if (before := found.get("compared_with")) is not None:
        other = f"{before['from']} to {before['to']}" if before["from"] else "a time without mail"
        words += f", compared with {other}"
    return words


def hours(found: Row, most: int) -> list[tuple[str, dict[str, int]]]:
    """The hours of a report, several together if there are too many, each with its beginning.

    Args:
        found: The report in its JSON form.
        most: How many there may be.
    """
    rows = found["hours"]
    size = -(-len(rows) // most) or 1
    columns = ("delivered", "soft", "hard", "rejected")
    return [
        (_hour(part[0]), {name: sum(row[name] for row in part) for name in columns})
        for part in (rows[start : start + size] for start in range(0, len(rows), size))
    ]


def duration(seconds: float) -> str:
    """Seconds in a few characters: `0.4 s`, `12 s`, `5 min`, `3.5 h`, `2.1 d`."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def date_of(found: Row) -> str:
    """The day or days that a report covers, for a subject."""
    if not found["from"]:
        return "no time stamps"
    first, last = (datetime.fromisoformat(found[key]).astimezone().date() for key in ("from", "to"))
    return str(first) if first == last else f"{first} to {last}"
