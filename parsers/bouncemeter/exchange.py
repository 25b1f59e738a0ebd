"""Microsoft Exchange: message tracking logs (2007 to 2019 and SE), their exports, and SMTP protocol logs.

Input: one line of CSV, under a `#Fields:` line that a file may repeat anywhere, or under the header of an export.
Output: what `exchange_tracking` and `exchange_protocol` make of the row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pyparsing as pp

from bouncemeter.event import Entry, Step
from bouncemeter.exchange_export import Export, is_export_header
from bouncemeter.exchange_protocol import ProtocolRows
from bouncemeter.exchange_tracking import MTA, TrackingRows
from bouncemeter.grammar import regex
from bouncemeter.lowering import lowered, lowered_list
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.stamps import Clock, Stamps
from bouncemeter.tables import table

__all__ = ["PARSER", "ExchangeParser"]

LAYOUTS: dict[int, list[str]] = {int(length): names for length, names in table("exchange")["layouts"].items()}

# --- a row: values between commas (in some countries' exports, semicolons or tabs), quotes doubled ----------------


def _field(separator: str) -> pp.ParserElement:
    return regex(rf'"(?:[^"]|"")*+"(?={separator}|$)') | regex(f"[^{separator}]*+")


def _more_fields(separator: str) -> pp.ParserElement:
    return pp.ZeroOrMore(pp.Suppress(separator) + _field(separator))


row = lowered_list(_field(",") + _more_fields(","))
row_of_semicolons = lowered_list(_field(";") + _more_fields(";"))
row_of_tabs = lowered_list(_field("\t") + _more_fields("\t"))
ROWS = {",": row, ";": row_of_semicolons, "\t": row_of_tabs}

fields_line = lowered_list(pp.Suppress(regex(r"#Fields: ?")) + _field(",") + _more_fields(","))

stamp = regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z")
first_field = lowered(stamp("stamp") + ",")


class ExchangeParser:
    """Exchange's message tracking and protocol logs; see `bouncemeter.plugin.Parser`."""

    name = MTA

    def recognises(self, line: str) -> bool:
        """Whether a line is a header, or a row with a time and as many columns as a known version has."""
        line = line.removeprefix("\ufeff")
        if line.startswith(("#Software: Microsoft Exchange", "#Log-type: Message Tracking", "#Fields: date-time,")):
            return True
        if first_field.matches(line):
            return len(_columns(line)) in LAYOUTS
        return _export_header(line) is not None

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file: it remembers the header, the server's name, the open SMTP sessions, and the latest
        arrivals."""
        return _Reader(Stamps(clock))


def _columns(line: str, separator: str = ",") -> list[str]:
    """The fields of a row, unquoted."""
    if '"' not in line:
        return line.split(separator)
    return [
        text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text
        for text in ROWS[separator].items(line)
    ]


def _export_header(line: str) -> tuple[str, list[str]] | None:
    """The separator and the columns of an export, if a line is its header."""
    if "eventid" not in line[:2000].lower():
        return None
    for separator in ROWS:
        columns = _columns(line, separator)
        if is_export_header(columns):
            return separator, columns
    return None


class _Reader:
    def __init__(self, stamps: Stamps) -> None:
        self._names: list[str] | None = None
        self._export: Export | None = None
        self._separator = ","
        self._stamps = stamps
        self._tracking, self._protocol = TrackingRows(stamps), ProtocolRows(stamps)
        self.begun: float | None = None
        """When the log began, by its header."""

    def __call__(self, line: str) -> Sequence[Entry]:
        line = line.removeprefix("\ufeff")
        if line.startswith("#"):
            self._header(line)
            return ()
        if not line:
            return ()
        if (self._names is None or self._export) and (header := _export_header(line)) is not None:
            self._separator, self._names = header
            self._export = Export(self._names)
            return ()
        found = self._row(line)
        rows = self._rows_of(found)
        return list(rows.entries(found)) if rows is not None else ()

    def message_id(self, line: str, /) -> Step | None:
        """The Message-ID in a line; see `bouncemeter.plugin.MessageIDReader`."""
        if not line or line.removeprefix("\ufeff").startswith("#"):
            return None
        try:
            found = self._row(line.removeprefix("\ufeff"))
        except UnparsedLineError:
            return None
        rows = self._rows_of(found)
        return rows.message_id(found) if rows is not None else None

    def _row(self, line: str) -> dict[str, str]:
        """The fields of a row by name.

        Raises:
            UnparsedLineError: It has too few.
        """
        columns = _columns(line, self._separator)
        names = self._names or LAYOUTS.get(len(columns))
        if names is None or len(columns) < min(9, len(names)):
            raise UnparsedLineError(f"its {len(columns)} columns fit neither a #Fields: line nor a known version")
        return self._export.row(columns) if self._export else dict(zip(names, columns, strict=False))

    def _rows_of(self, found: dict[str, str]) -> TrackingRows | ProtocolRows | None:
        """What reads such rows."""
        return self._tracking if "event-id" in found else self._protocol if "session-id" in found else None

    def memory(self) -> str:
        """The header and the open sessions; see `bouncemeter.plugin.Remembering`."""
        export = [self._separator, self._export.month_first] if self._export else None
        return json.dumps([self._names, export, self._tracking.memory(), self._protocol.memory()])

    def recall(self, memory: str) -> None:
        """Continue from what `memory` returned."""
        try:
            self._names, export, tracking, protocol = json.loads(memory)
            if export:
                self._separator, month_first = export
                self._export = Export(self._names or [], month_first=month_first)
            self._tracking.recall(tracking)
            self._protocol.recall(protocol)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not the memory of an Exchange log reader: {error}") from error

    def _header(self, line: str) -> None:
        name, _, value = line.partition(": ")
        if name == "#Log-type":
            self._protocol.receiving = "SMTP Receive" in value
        elif name == "#Version":
            self._tracking.version = value.strip()
        elif name == "#Date" and self.begun is None:
            self.begun = self._stamps.seconds(value.strip())
        elif line.startswith("#Fields:"):
            self._names = [each.strip() for each in fields_line.items(line)]
            self._export, self._separator = None, ","


PARSER = ExchangeParser()
