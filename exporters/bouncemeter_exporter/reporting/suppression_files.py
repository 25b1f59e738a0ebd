"""Suppression lists as files: CSV for mailing systems, a plain list, and a table for Postfix."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bouncemeter_exporter.markup import printable

__all__ = ["as_csv", "as_list", "as_postfix"]

COLUMNS = ("address", "verdict", "reason", "code", "kind", "provider", "messages", "first", "last", "reply")

_SIMPLE = re.compile(r"[\w.+-][\w.+=-]*@[\w.-]+")
"""An address that is no formula to a spreadsheet, whatever it begins with."""

_FORMULA = re.compile(r"[=+\-@\t\r]")
_PLAIN = re.compile(r"\w[\w.!$%&'+/=?^`{|}~-]*@\w[\w.-]*")
"""An address that is a line of a list and a key of a table, and nothing else there: no pattern, comment or option."""


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table by RFC 4180 with a line of headings. No cell is a formula to a spreadsheet.

    Args:
        rows: The advice in its JSON form.
    """
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    for row in rows:
        cells = [printable("" if row[each] is None else str(row[each])) for each in COLUMNS]
        plain = _SIMPLE.fullmatch(cells[0]) is not None
        writer.writerow([cells[0] if plain else _harmless(cells[0]), *map(_harmless, cells[1:])])
    return written.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def as_list(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One address a line, for Exim's lsearch and for mailing systems; without those that a line cannot hold."""
    return (f"{row['address']}\n" for row in rows if _PLAIN.fullmatch(row["address"]))


def as_postfix(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table for Postfix' check_recipient_access; without addresses that it cannot hold. No text of another server is
    in it."""
    for row in rows:
        if _PLAIN.fullmatch(row["address"]):
            # Whoever writes to it is refused with the code that the mail came to; see access(5).
            action = "DUNNO" if row["verdict"] == "keep" else f"REJECT 5{row['code'][1:]}"
            yield f"{row['address'].lower()}\t{action} {row['reason']}, {row['messages']} bounced\n"
