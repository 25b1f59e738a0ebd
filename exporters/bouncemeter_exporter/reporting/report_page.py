"""A report as a page of HTML, and as a mail."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import formatdate, make_msgid
from typing import Any

from bouncemeter import __version__
from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.codes import explain

from bouncemeter_exporter.markup import Child, Html, bars, blocks, element, page, table
from bouncemeter_exporter.reporting.report_text import report_text
from bouncemeter_exporter.reporting.sections import SECTIONS, Column, Section, date_of, hours, period, totals

__all__ = ["report_mail", "report_page"]

Row = Mapping[str, Any]

WIDTH = 96
"""Bars in a graph; in a mail, where each is a cell of a table, a third of them."""

GRAPHS = (("Delivered", ("delivered",)), ("Bounced and rejected", ("hard", "soft", "rejected")))
"""What each graph shows, from the bottom up: each has its own scale, for most mail is delivered."""


def report_page(found: Row, names: Sequence[str], top: int, by: Collection[str] = (), *, mail: bool = False) -> str:
    """A report as one file.

    Args:
        found: The report in its JSON form.
        names: The logs.
        top: Rows of a table.
        by: The tables that were asked for beside the usual ones, by name.
        mail: Make it for programs that show mail: these know no SVG and few styles.
    """
    body: list[Child] = [
        element("h1", f"Mail bounces in {', '.join(names)}"),
        element("p", period(found), class_="dim"),
        element("div", [_tile(each) for each in totals(found)], class_="tiles"),
        _graphs(found, mail=mail),
    ]
    for section in SECTIONS:
        asked = section.name in by
        if asked or (section.usual and section.name != "hour"):
            rows = section.shown(found, asked=asked)
            body.append(_section(section, rows, top, compared="compared_with" in found) if rows else None)
    if found["codes"]:
        body.append(_explained([row["code"] for row in found["codes"][:top]]))
    lines = found["lines"]
    note = f"{lines['read']:,} lines: {lines['event']:,} outcomes, {lines['other']:,} others"
    note += f", {lines['unparsed']:,} not understood" if lines["unparsed"] else ""
    body.append(element("p", f"{note}. bouncemeter {__version__}.", class_="dim"))
    return page(f"Mail bounces, {date_of(found)}", *body, mail=mail)


def report_mail(
    found: Row, names: Sequence[str], top: int, to: Sequence[str], sender: str | None, by: Collection[str] = ()
) -> bytes:
    """A report as a message for `sendmail -t`, as plain text and as HTML.

    Args:
        found: The report in its JSON form.
        names: The logs.
        top: Rows of a table.
        to: Whom it is for.
        sender: Whom it is from; if None, sendmail puts in who runs it.
        by: The tables that were asked for beside the usual ones, by name.

    Raises:
        ValueError: An address is not one.
    """
    host = socket.getfqdn()
    message = EmailMessage(EmailPolicy(linesep="\n", max_line_length=78))
    bounces = found["bounces"]
    for each in (*to, *([sender] if sender else [])):
        if not (each.isascii() and each.isprintable() and ("@" in each.strip("@") or each.isalnum())):
            raise ValueError(f"{each!r} is not an address of plain ASCII, such as postmaster@example.com")
    message["Subject"] = f"{host}: {bounces['hard']:,} hard and {bounces['soft']:,} soft bounces, {date_of(found)}"
    message["To"] = ", ".join(to)
    if sender:
        message["From"] = sender
    message["Date"], message["Message-ID"] = formatdate(localtime=True), make_msgid(domain=host)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers it by machine
    message.set_content(report_text(found, names, top, by), cte="quoted-printable")
    message.add_alternative(report_page(found, names, top, by, mail=True), subtype="html", cte="quoted-printable")
    return message.as_bytes()


def _tile(total: Any) -> Html:  # noqa: ANN401
    before = f"before: {total.before:,}" if total.before is not None else None
    shown = [element("b", total.value, class_=total.style or None), element("span", total.name)]
    return element(
        "div", *shown, element("span", [Html("<br>"), before]) if before else None, class_="tile", title=total.note
    )


def _graphs(found: Row, *, mail: bool) -> Html | None:
    shown = hours(found, WIDTH // 3 if mail else WIDTH)
    if len(shown) < 2:
        return None
    draw = blocks if mail else bars
    parts: list[Child] = [element("h2", "By hour (UTC)")]
    for title, series in GRAPHS:
        if any(numbers[each] for _, numbers in shown for each in series):
            most = max(sum(numbers[each] for each in series) for _, numbers in shown)
            legend = [element("span", element("i", class_=each), each) for each in series]
            parts.append(element("p", legend, element("span", f"{title}: at most {most:,}"), class_="legend"))
            parts.append(draw(shown, series))
    return element("section", parts)


def _section(section: Section, rows: Sequence[Row], top: int, *, compared: bool) -> Html:
    marked = compared and "before" in rows[0]
    shown = rows if section.name == "hour" else rows[:top]
    headings = [*(each.heading for each in section.columns), *(["#before"] if marked else [])]
    cells = [
        [
            *(_cell(column, row) for column in section.columns),
            *([element("span", "new", class_="new") if row["new"] else row["before"]] if marked else []),
        ]
        for row in shown
    ]
    more = len(rows) - len(shown)
    return table(headings, cells, caption=section.title + (f", {len(shown)} of {len(rows):,}" if more else ""))


def _cell(column: Column, row: Row) -> Child:
    value = column.value(row)
    if value in ("", None):
        return None
    if column.style == "code":
        return element("b", value, class_="code")
    if column.style in ("name",):
        return element("b", value)
    style = value if column.style == "kind" else column.style if value else "dim"
    return element("span", value, class_=str(style)) if style else value


def _explained(codes: Sequence[str]) -> Html:
    """What codes mean, and what to do."""
    parts: list[Child] = [element("h2", "What the codes mean")]
    for name in codes:
        try:
            found = explain(EnhancedCode.parse(name))
        except ValueError:
            continue
        parts.append(element("h3", element("b", name, class_="code"), f" {found.title}"))
        parts.append(element("p", found.meaning))
        if found.kind is not None:
            parts.append(element("p", element("b", "Postmaster: "), found.postmaster))
            parts.append(element("p", element("b", "Sender: "), found.sender))
    return element("section", parts)
