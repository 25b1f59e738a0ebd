"""Panels, variables and dashboards in Grafana's form (schema v1), as plain dictionaries.

A page is a list of rows of panels; where each stands follows from its width and height.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bouncemeter_exporter.dashboards.queries import Queries
from bouncemeter_exporter.rules import panel_id

__all__ = [
    "Column",
    "Folded",
    "Panel",
    "at",
    "bars",
    "dashboard",
    "heatmap",
    "levels",
    "lines",
    "link",
    "stat",
    "table",
    "variable",
]

Panel = dict[str, Any]
Mappings = Sequence[Mapping[str, Any]]

_CALCULATIONS = {"mean": "Mean", "sum": "Total", "min": "Min", "lastNotNull": "Last *"}
"""How legends call what they are sorted by."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
"""The width of a page."""


class Folded(NamedTuple):
    """A row of the page that is closed until somebody opens it.

    Attributes:
        title: What stands on it.
        rows: What it holds.
    """

    title: str
    rows: list[list[Panel]]


def at(width: int, height: int, panel: Panel) -> Panel:
    """A panel of a size; where it stands is told by its row."""
    return panel | {"gridPos": {"w": width, "h": height}}


def _target(position: int, query: str, legend: str, *, now: bool, exemplars: bool, tabular: bool) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + position),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query,
        "legendFormat": legend,
        "format": "table" if tabular else "time_series",
        "instant": now,
        "range": not now,
        "exemplar": exemplars,
    }


def _panel(
    kind: str,
    title: str,
    text: str,
    queries: Iterable[tuple[str, str]],
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
    overrides: Mappings = (),
    *,
    now: bool = False,
    exemplars: bool = False,
) -> Panel:
    """What all panels have: the queries with the names of their series, options, and how fields are shown."""
    return {
        "id": panel_id(title),
        "type": kind,
        "title": title,
        "description": text,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": dict(defaults), "overrides": list(overrides)},
        "options": dict(options),
        "targets": [
            _target(position, query, legend, now=now, exemplars=exemplars, tabular=kind == "table")
            for position, (query, legend) in enumerate(queries)
        ],
    }


def levels(*steps: tuple[float | None, str]) -> dict[str, Any]:
    """Thresholds: from each number on, a colour; the first begins below all."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}


def stat(
    title: str,
    text: str,
    query: str,
    *,
    unit: str = "locale",
    colour: str = "blue",
    thresholds: dict[str, Any] | None = None,
    mappings: Mappings = (),
    nothing: str = "0",
    decimals: int | None = None,
    links: Sequence[Mapping[str, Any]] = (),
    legend: str = "",
) -> Panel:
    """One number of this moment, or of all the time that is shown.

    Args:
        title, text: What it is, in a word and in sentences.
        query: Gives one series.
        unit: Its unit.
        colour: Its colour, if that does not follow thresholds.
        thresholds: Its colours by value.
        mappings: Texts for values.
        nothing: What is written if there is no series.
        decimals: Digits after the point.
        links: Where a click leads.
        legend: The name of the series.
    """
    defaults: dict[str, Any] = {
        "unit": unit,
        "noValue": nothing,
        "mappings": list(mappings),
        "links": list(links),
        "color": {"mode": "thresholds"} if thresholds else {"mode": "fixed", "fixedColor": colour},
        "thresholds": thresholds or levels((None, colour)),
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    return _panel(
        "stat",
        title,
        text,
        [(query, legend)],
        {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": "value",
            "wideLayout": True,
        },
        defaults,
        now=True,
    )


def lines(
    title: str,
    text: str,
    *queries: tuple[str, str],
    unit: str,
    overrides: Sequence[Mapping[str, Any]] = (),
    limit: tuple[float, str] | None = None,
    stacked: bool = False,
    steps: bool = False,
    maximum: float | None = None,
    interval: str | None = None,
    exemplars: bool = False,
    links: Sequence[Mapping[str, Any]] = (),
    legend: Sequence[str] = ("mean", "max", "lastNotNull"),
) -> Panel:
    """A graph of lines.

    Args:
        title, text: What it shows, in some words and in sentences.
        queries: Queries and the names of their series.
        unit: The unit of all of them.
        overrides: Colours and styles of series.
        limit: A dashed line at a number, in a colour.
        stacked: Whether the series stand on each other.
        steps: Whether a value stands until the next.
        maximum: The end of the axis.
        interval: The least time from point to point.
        exemplars: Whether messages are shown as dots.
        links: Where a click on a point leads.
        legend: What the legend tells of each series.
    """
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "lineInterpolation": "stepAfter" if steps else "linear",
        "lineWidth": 2,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
    }
    shown = {"unit": unit, "links": list(links), "max": maximum}
    panel = _graph(title, text, queries, custom, overrides, legend, exemplars=exemplars, limit=limit, **shown)
    return panel | {"interval": interval} if interval else panel


def bars(
    title: str,
    text: str,
    *queries: tuple[str, str],
    unit: str = "locale",
    overrides: Sequence[Mapping[str, Any]] = (),
    limit: tuple[float, str] | None = None,
    exemplars: bool = False,
    links: Sequence[Mapping[str, Any]] = (),
    legend: Sequence[str] = ("sum", "max"),
) -> Panel:
    """Counts as bars, of five minutes at least, on each other. The arguments are those of `lines`."""
    custom: dict[str, Any] = {
        "drawStyle": "bars",
        "axisSoftMax": 5,
        "barAlignment": -1,
        "barWidthFactor": 0.9,
        "lineWidth": 0,
        "fillOpacity": 85,
        "stacking": {"group": "A", "mode": "normal"},
    }
    shown = {"unit": unit, "decimals": 0, "links": list(links)}
    panel = _graph(title, text, queries, custom, overrides, legend, exemplars=exemplars, limit=limit, **shown)
    return panel | {"interval": "5m"}


def _graph(
    title: str,
    text: str,
    queries: Iterable[tuple[str, str]],
    custom: Mapping[str, Any],
    overrides: Mappings,
    legend: Sequence[str],
    *,
    exemplars: bool,
    limit: tuple[float, str] | None,
    **defaults: Any,  # noqa: ANN401 - of fields, as Grafana has them
) -> Panel:
    return _panel(
        "timeseries",
        title,
        text,
        queries,
        {
            "legend": {
                "calcs": list(legend),
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "sortBy": _CALCULATIONS[legend[0]],
                "sortDesc": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        {
            "min": 0,
            "custom": {**custom, "thresholdsStyle": {"mode": "dashed" if limit else "off"}},
            "color": {"mode": "palette-classic"},
            "thresholds": levels((None, "transparent"), *([limit] if limit else [])),
            **{name: value for name, value in defaults.items() if value is not None},
        },
        overrides,
        exemplars=exemplars,
    )


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: The label, or the query's name, that it shows.
        title: What stands above it.
        width: In pixels; as wide as there is room without one.
        unit: The unit of a number.
        mapping: Texts for its values.
        cell: How a cell looks: `auto`, `text` (coloured text) or `gauge`.
        link: Where a click leads.
        colour: Of a gauge.
        thresholds: Colours by value.
        text: Whether its values are numbers that stand for text of several lines (see `told`).
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
        """How Grafana is told."""
        return {
            "matcher": {"id": "byName", "options": self.title},
            "properties": [{"id": name, "value": value} for name, value in self._properties()],
        }

    def _properties(self) -> Iterator[tuple[str, Any]]:
        yield ("custom.width", self.width) if self.width else ("custom.minWidth", 80)
        if self.unit:
            yield "unit", self.unit
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


def table(
    title: str,
    text: str,
    queries: Mapping[str, str],
    columns: Sequence[Column],
    *,
    sort: str,
) -> Panel:
    """A table of this moment, or of all the time that is shown: a row for each set of labels.

    Args:
        title, text: What it shows, in some words and in sentences.
        queries: By the name of the column that shows it, each query with the same labels.
        columns: In order; what is not named is not shown.
        sort: The title of the column that decides the order, most first.
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
    told = [{"targetField": column.name, "destinationType": "number"} for column in columns if column.text]
    hidden = {
        "id": "organize",
        "options": {"excludeByName": dict.fromkeys(values, True), "indexByName": {}, "renameByName": {}},
    }
    panel = _panel(
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
    numbers = [{"id": "convertFieldType", "options": {"conversions": told, "fields": {}}}] if told else []
    return panel | {"transformations": [*named, hidden, *merged, *numbers, shown]}


def heatmap(title: str, text: str, query: str, *, unit: str) -> Panel:
    """How a histogram's buckets fill over time.

    Args:
        title, text: What it shows, in some words and in sentences.
        query: Gives the increase of each bucket, by `le`.
        unit: The unit of the bounds.
    """
    panel = _panel(
        "heatmap",
        title,
        text,
        [(query, "{{le}}")],
        {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "YlOrRd", "scale": "exponential", "exponent": 0.5, "steps": 64},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "unit": unit},
        },
        {"unit": "locale", "custom": {"hideFrom": {"legend": False, "tooltip": False, "viz": False}}},
    )
    panel["targets"][0]["format"] = "heatmap"
    return panel | {"interval": "5m"}


# --- links and variables ----------------------------------------------------------------------------------------

KEPT = ("datasource", "job", "instance", "mta")
"""Variables that all dashboards have."""


def link(title: str, uid: str, **variables: str) -> dict[str, Any]:
    """A link to a dashboard that keeps what is selected and the time, and sets variables.

    Args:
        title: What a click does.
        uid: The dashboard.
        variables: Their values.
    """
    kept = [f"${{{each}:queryparam}}" for each in KEPT]
    chosen = [f"var-{name}={value}" for name, value in variables.items()]
    return {"title": title, "url": f"/d/{uid}?{'&'.join([*kept, *chosen])}&${{__url_time_range}}"}


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable: one or more values of a label, or all of them.

    Args:
        name: Its name.
        label: What stands beside it.
        query: What gives its values.
    """
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "options": [],
        "regex": "",
        "skipUrlSync": False,
    }


DATA_SOURCE = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "current": {},
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "options": [],
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
}


FIRING = {
    (severity, colour): Queries().firing(severity=severity)
    for severity, colour in (("critical", "red"), ("warning", "orange"))
}
"""Alerts that fire, by severity and its colour."""


def _marked(firing: str, severity: str, colour: str) -> dict[str, Any]:
    """What marks the times in which alerts fire."""
    return {
        "name": f"{severity.capitalize()} alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": f"max by (severity) ({firing})",
        "step": "60s",
        "titleFormat": f"A {severity} alert fires",
        "textFormat": "Which stands under Alerts.",
        "tagKeys": "severity",
        "useValueForTime": False,
    }


def dashboard(
    uid: str,
    title: str,
    text: str,
    variables: Sequence[dict[str, Any]],
    rows: Sequence[list[Panel] | str | Folded],
) -> dict[str, Any]:
    """A page.

    Args:
        uid: By which links find it.
        title, text: The question that it answers, in some words and in sentences.
        variables: What can be selected, besides the data source.
        rows: From the top: rows of panels, headings, and folded rows.
    """
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["bouncemeter", "mail"],
        "schemaVersion": 42,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "annotations": {"list": [_marked(query, *each) for each, query in FIRING.items()]},
        "links": [
            {
                "type": "dashboards",
                "title": "Mail dashboards",
                "tags": ["bouncemeter"],
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": [DATA_SOURCE, *variables]},
        "panels": _placed(rows),
    }


def _placed(rows: Sequence[list[Panel] | str | Folded]) -> list[Panel]:
    """All panels with their places."""
    found: list[Panel] = []
    y = 0
    for row in rows:
        if isinstance(row, list):
            placed = _row(row, y)
            found += placed
            y += max(each["gridPos"]["h"] for each in placed)
            continue
        title = row if isinstance(row, str) else row.title
        inside: list[Panel] = []
        below = y + 1
        for each in row.rows if isinstance(row, Folded) else ():
            placed = _row(each, below)
            inside += placed
            below += max(panel["gridPos"]["h"] for panel in placed)
        found.append(
            {
                "id": panel_id(f"row {title}"),
                "type": "row",
                "title": title,
                "collapsed": isinstance(row, Folded),
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": inside,
            }
        )
        y = below  # Grafana closes the gap below a folded row
    return found


def _row(panels: Sequence[Panel], y: int) -> list[Panel]:
    found, x = [], 0
    for panel in panels:
        found.append(panel | {"gridPos": {**panel["gridPos"], "x": x, "y": y}})
        x += panel["gridPos"]["w"]
    return found
