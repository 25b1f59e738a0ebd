"""Tables in Grafana's form: one row for each set of labels, and the look of each column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bouncemeter_exporter.grafana.dashboards.panels import Panel, levels, panel

__all__ = ["Column", "table"]


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: The label or the query to show, by name.
        title: Its heading.
        width: In pixels; without one, the column takes the room that is left.
        unit: The unit of a number.
        mapping: Texts for its values.
        cell: The look of a cell: `auto`, `text` (coloured text) or `gauge`.
        link: Where a click leads.
        colour: The colour of coloured text or of a gauge.
        thresholds: Colours by value.
        text: Whether its values are numbers that stand for text of several lines (see `meaning.NUMBERS`).
    """

    name: str
    title: str
    width: int | None = None
    unit: str | None = None
    mapping: dict[str, Any] | None = None
    cell: str = "auto"
    link: dict[str, Any] | None = None
    colour: str | None = None
    thresholds: dict[str, Any] | None = None
    text: bool = False

    def override(self) -> dict[str, Any]:
        """The column in Grafana's form."""
        return {
            "matcher": {"id": "byName", "options": self.title},
            "properties": [{"id": name, "value": value} for name, value in self._properties()],
        }

    def _properties(self) -> Iterator[tuple[str, Any]]:
        yield ("custom.width", self.width) if self.width else ("custom.minWidth", 110 if self.text else 80)
        if self.unit:
            yield "unit", self.unit
            if self.cell != "gauge":
                yield "decimals", 1
        if self.mapping:
            yield "mappings", [self.mapping]
        if self.link:
            yield "links", [self.link]
        yield from self._looks()

    def _looks(self) -> Iterator[tuple[str, Any]]:
        if self.thresholds:
            yield "color", {"mode": "thresholds"}
            yield "thresholds", self.thresholds
        if self.colour:
            yield "color", {"mode": "fixed", "fixedColor": self.colour}
        if self.text:
            yield "custom.wrapText", True
            yield "custom.align", "left"
        if self.cell == "text":
            yield "custom.cellOptions", {"type": "color-text"}
        if self.cell == "gauge":
            yield "custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
            yield "min", 0
            if self.unit == "percentunit":
                yield "max", 1
            else:
                yield "fieldMinMax", True  # or it would end at the largest number of all columns


def table(
    title: str,
    text: str,
    queries: Mapping[str, str],
    columns: Sequence[Column],
    *,
    sort: str,
) -> Panel:
    """A table for now or for the time range shown, with one row for each set of labels.

    Args:
        title, text: What it shows, in a few words and in sentences.
        queries: Queries with the same labels, by the name of the column that shows each.
        columns: The columns in order; labels without a column are hidden.
        sort: The title of the column to sort by, highest first.
    """
    named = [
        {
            "id": "calculateField",
            "filter": {"id": "byRefId", "options": chr(ord("A") + position)},
            "options": {"mode": "reduceRow", "reduce": {"reducer": "sum"}, "alias": name, "replaceFields": False},
        }
        for position, name in enumerate(queries)
    ]
    values = ["Time", "Value", *(f"Value #{chr(ord('A') + position)}" for position in range(len(queries)))]
    shown = {
        "id": "organize",
        "options": {
            "excludeByName": {},
            "indexByName": {column.name: position for position, column in enumerate(columns)},
            "renameByName": {column.name: column.title for column in columns},
        },
    }
    conversions = [{"targetField": column.name, "destinationType": "number"} for column in columns if column.text]
    hidden = {
        "id": "organize",
        "options": {"excludeByName": dict.fromkeys(values, True), "indexByName": {}, "renameByName": {}},
    }
    found = panel(
        "table",
        title,
        text,
        [(query, "") for query in queries.values()],
        {
            "cellHeight": "sm",
            "showHeader": True,
            "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
            "sortBy": [{"displayName": sort, "desc": True}],
        },
        {
            "unit": "locale",
            "decimals": 0,
            "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False, "inspect": False},
            "thresholds": levels((None, "text")),
            "color": {"mode": "thresholds"},
        },
        [column.override() for column in columns],
        now=True,
    )
    merged = [{"id": "merge", "options": {}}] if len(queries) > 1 else []
    numbers = [{"id": "convertFieldType", "options": {"conversions": conversions, "fields": {}}}] if conversions else []
    return found | {"transformations": [*named, hidden, *merged, *numbers, shown]}
