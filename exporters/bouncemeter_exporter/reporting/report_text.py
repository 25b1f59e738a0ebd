"""A report as text: numbers, a line of bars by hour, and tables."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bouncemeter_exporter.reporting.sections import SECTIONS, Column, Section, hours, period, totals
from bouncemeter_exporter.reporting.terminal import STYLES, new_table, numeral, printable

__all__ = ["report_text", "show_report"]

Row = Mapping[str, Any]

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 48
"""Bars in a line."""


def show_report(
    out: Console, found: Row, names: Sequence[str], top: int, by: Collection[str] = (), *, whole: bool = False
) -> None:
    """Print a report.

    Args:
        out: Where to.
        found: The report in its JSON form.
        names: The logs.
        top: Rows of a table.
        by: The tables that were asked for, by name; if none was, the usual ones.
        whole: Print the usual tables as well.
    """
    out.print(Text(f"Mail bounces in {printable(', '.join(names))}", style="bold"), soft_wrap=True)
    out.print(Text(period(found), style="dim"))
    out.print()
    out.print(_totals(out, found))
    for section in SECTIONS:
        asked = section.name in by
        if not (asked or (section.usual and (whole or not by))):
            continue
        rows = section.shown(found, asked=asked)
        if section.name == "hour" and not asked:
            if len(rows) > 1:
                out.print()
                _bars(out, found)
        elif rows:
            out.print()
            _section(out, section, rows, top, compared="compared_with" in found)
    lines = found["lines"]
    out.print()
    note = f"{lines['read']:,} lines: {lines['event']:,} outcomes, {lines['other']:,} others"
    out.print(Text(note + f", {lines['unparsed']:,} not understood." if lines["unparsed"] else note + ".", style="dim"))


def report_text(found: Row, names: Sequence[str], top: int, by: Collection[str] = (), width: int = 100) -> str:
    """A report as plain text, for a mail."""
    written = io.StringIO()
    show_report(Console(file=written, width=width, no_color=True, highlight=False), found, names, top, by, whole=True)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def _totals(out: Console, found: Row) -> Table:
    compared = "compared_with" in found
    made = new_table(out, "", "#recipients", *(["#before"] if compared else []), "", "")
    for each in totals(found):
        style = STYLES.get(each.style, "")
        before = [numeral(each.before) if each.before is not None else Text()] if compared else []
        made.add_row(
            Text(each.name, style=style), numeral(each.value, style), *before, "", Text(each.note, style="dim")
        )
    return made


def _bars(out: Console, found: Row) -> None:
    """A line of bars for each column in which anything happened, drawn against its own highest hour."""
    shown = hours(found, WIDTH)
    out.print(Text(f"By hour (UTC), {shown[0][0]} to {shown[-1][0]}", style="bold"))
    for name in shown[0][1]:
        values = [numbers[name] for _, numbers in shown]
        if most := max(values):
            bars = "".join(BARS[-(-value * (len(BARS) - 1) // most)] for value in values)
            peak = shown[values.index(most)][0]
            line = Text.assemble(
                (f"{name:<9}  ", "dim"), (bars, STYLES.get(name, "")), (f"  {most:,} at {peak}", "dim")
            )
            out.print(line, soft_wrap=True)


def _section(out: Console, section: Section, rows: Sequence[Row], top: int, *, compared: bool) -> None:
    marked = compared and "before" in rows[0]
    headings = [each.heading for each in section.columns]
    made = new_table(out, *headings, *(["#before"] if marked else []))
    shown = rows if section.name == "hour" else rows[:top]
    for row in shown:
        cells = [_cell(column, row) for column in section.columns]
        if marked:
            cells.append(Text("new", style="bold red") if row["new"] else numeral(row["before"]))
        made.add_row(*cells)
    out.print(Text(section.title, style="bold"))
    out.print(made)
    if len(rows) > len(shown):
        out.print(Text(f"and {len(rows) - len(shown):,} more; --top {len(rows)} shows them", style="dim"))


def _cell(column: Column, row: Row) -> Text:
    value = column.value(row)
    if isinstance(value, int):
        return numeral(value, STYLES.get(column.style, ""))
    style = {"code": "bold", "name": "bold", "kind": STYLES.get(value, "")}.get(column.style, "")
    return Text(printable(value), style=style)
