"""Findings as sentences with a mark each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text

from bouncemeter_exporter.checking.finding import Finding, Level, worst
from bouncemeter_exporter.reporting.terminal import console, printable

__all__ = ["show_findings"]

MARKS = {
    Level.OK: ("✓", "ok", "green"),
    Level.NOTE: ("i", "note", "cyan"),
    Level.WARNING: ("!", "warning", "yellow"),
    Level.WRONG: ("✗", "wrong", "bold red"),
}
"""For each level: its mark on a terminal, its word in a pipe, its colour."""

ENDS = {
    Level.OK: "All is well.",
    Level.NOTE: "All is well.",
    Level.WARNING: "It works, with warnings.",
    Level.WRONG: "Something is wrong.",
}


def show_findings(findings: Iterable[Finding], file: TextIO | None = None) -> list[Finding]:
    """Print findings as they come; return them.

    Args:
        findings: What to print.
        file: Where to; standard output by default.
    """
    out = console() if file is None else Console(file=file, highlight=False)
    found = []
    for each in findings:
        found.append(each)
        sign, word, colour = MARKS[each.level]
        mark = Text(sign if out.is_terminal else f"{word:<7}", style=colour)
        margin = " " * (len(mark) + 1)
        out.print(mark, Text(f"{printable(each.about)}: {printable(_without(each))}"), soft_wrap=True)
        for sample in each.samples:
            out.print(Text(f"{margin}    {printable(sample)}", style="dim"), soft_wrap=True)
        if each.remedy:
            out.print(Text(f"{margin}> {printable(each.remedy)}"), soft_wrap=True)
    out.print(Text(ENDS[worst(found)], style="bold"))
    return found


def _without(finding: Finding) -> str:
    """The sentence without the name that it begins with."""
    return finding.sentence.removeprefix(f"{finding.about}:").removeprefix(f"{finding.about} ").lstrip()
