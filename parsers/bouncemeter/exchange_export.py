"""Message tracking as `Get-MessageTrackingLog | Export-Csv` writes it: other names, local times, lists as one text.

Input: the columns of a row. Output: its fields under the names and in the form of the log itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyparsing as pp

from bouncemeter.exchange_tracking import OUTCOMES, statuses
from bouncemeter.grammar import regex
from bouncemeter.lowering import lowered, lowered_list
from bouncemeter.plugin import UnparsedLineError
from bouncemeter.tables import table

__all__ = ["Export", "is_export_header"]

NAMES: dict[str, str] = table("exchange")["export"]
OF_MESSAGES = ("recipients", "messageid", "internalmessageid", "recipientstatus")
"""One of these columns shows that events are of mail."""
UNREADABLE = ("System.String[]", "System.Object[]", "System.Collections.")
"""What PowerShell writes for a list that it cannot show in one cell."""

# Times in the forms of many countries: 11/24/2026 9:10:00 AM, 24.11.2026 09:10:00, 2026-11-24 09:10:00, 2026. 11. 24.
number = regex("[0-9]{1,4}")
between = regex(r"[-/.] ?")
gap = regex(r"[.,]?[T \u00a0\u202f]+")
two_digits = regex("[0-9]{1,2}")
moment = lowered(
    number("first")
    + between("separator")
    + two_digits("second")
    + between
    + number("third")
    + gap
    + two_digits("hours")
    + regex("[:.]")
    + regex("[0-9]{2}")("minutes")
    + pp.Opt(regex("[:.]") + regex(r"[0-9]{2}(?:\.[0-9]+)?")("seconds"))
    + pp.Opt(regex(r"Z|[+-][0-9]{2}:[0-9]{2}")("zone"))
    + pp.Opt(regex("[ \u00a0\u202f]*") + regex(r"[AaPp]")("half") + regex(r"\.? ?[Mm]\.?"))
    + regex(r"\s*$")
)

separators = pp.Suppress(regex(r"[;,\s{}]*+"))
one_address = regex(r'"(?:[^"\\]|\\.)*+"[^;,\s{}"]*+') | regex(r"[^;,\s{}]++")
addresses = lowered_list(separators + pp.ZeroOrMore(one_address + separators))

one_status = regex(r"(?:(?! (?:\[\{|[245][0-9]{2} [245]\.[0-9]{1,3}\.[0-9]{1,3}[ ;]))(?s:.))++")
spaced_statuses = lowered_list(pp.ZeroOrMore(one_status + pp.Suppress(pp.Opt(regex(" ")))))


def is_export_header(columns: Sequence[str]) -> bool:
    """Whether columns are the names that an export begins with; some may be left out, in any order."""
    names = {each.lower() for each in columns}
    return names >= {"timestamp", "eventid"} and not names.isdisjoint(OF_MESSAGES)


class Export:
    """The rows of one export.

    Args:
        names: The columns of its header.
        month_first: Whether its dates have the month first, as far as known.
    """

    def __init__(self, names: Sequence[str], *, month_first: bool | None = None) -> None:
        self.names = [each.lower() for each in names]
        self.month_first = month_first

    def row(self, columns: Sequence[str]) -> dict[str, str]:
        """A row as the log itself would have it.

        Raises:
            UnparsedLineError: It is an outcome, and its recipients were lost in the export.
        """
        found = dict(zip((NAMES.get(each, each) for each in self.names), columns, strict=False))
        names = found.get("recipient-address", "")
        if names.startswith(UNREADABLE) and found.get("event-id", "").upper() in OUTCOMES:
            raise UnparsedLineError(
                f"its recipients are shown as {names}: export with @{{n='Recipients';e={{$_.Recipients -join ';'}}}}"
            )
        found = {name: "" if text.startswith(UNREADABLE) else text for name, text in found.items()}
        about = addresses.items(found.get("recipient-address", ""))
        found["recipient-address"] = ";".join(about)
        given = found.get("recipient-status", "")
        if len(about) > 1 and len(statuses.items(given)) < len(about):
            apart = spaced_statuses.items(given)
            found["recipient-status"] = ";".join(apart) if len(apart) == len(about) else given
        found["date-time"] = self._iso(found.get("date-time", ""))
        return found

    def _iso(self, text: str) -> str:
        """A local time as ISO 8601 writes it; empty if it cannot be read."""
        parts = moment.values(text)
        if parts is None:
            return ""
        first, second, third = int(parts["first"]), int(parts["second"]), int(parts["third"])
        if len(parts["first"]) == 4:
            year, month, day = first, second, third
        else:
            year, day, month = third, first, second
            if self._is_month_first(parts, first, second):
                day, month = month, day
        hours, half = int(parts["hours"]), parts.get("half", "").lower()
        if half:
            hours = hours % 12 + 12 * (half == "p")
        clock = f"{hours:02}:{parts['minutes']}:{parts.get('seconds', '00')}"
        return f"{year:04}-{month:02}-{day:02}T{clock}{parts.get('zone', '')}"

    def _is_month_first(self, parts: dict[str, str], first: int, second: int) -> bool:
        """Whether a date has the month first. A day after the 12th decides for the rows after it, too; before one came,
        dates with slashes and a clock of twelve hours are taken for American ones."""
        if max(first, second) > 12:
            self.month_first = second > 12
        if self.month_first is not None:
            return self.month_first
        return parts["separator"] == "/" and "half" in parts
