"""Dashboards in Grafana's form: rows of panels, variables, links, and marks where alerts fire.

A page is a list of rows of panels. The position of each panel follows from its width and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bouncemeter_exporter.grafana.dashboards.panels import DATASOURCE, Panel
from bouncemeter_exporter.grafana.dashboards.queries import Queries
from bouncemeter_exporter.grafana.rules import panel_id

__all__ = ["Folded", "dashboard", "link", "variable"]

COLUMNS = 24
"""The width of a page, in Grafana's grid."""


class Folded(NamedTuple):
    """A row of the page that is closed until a user opens it.

    Attributes:
        title: Its heading.
        rows: The rows of panels inside.
    """

    title: str
    rows: list[list[Panel]]


SHARED_VARIABLES = ("datasource", "job", "instance", "mta")
"""Variables that all dashboards have."""


def link(title: str, uid: str, **variables: str) -> dict[str, Any]:
    """A link to a dashboard that keeps the time range and the selection, and sets variables.

    Args:
        title: The text of the link.
        uid: The uid of the dashboard.
        variables: The values to set, by name.
    """
    kept = [f"${{{each}:queryparam}}" for each in SHARED_VARIABLES]
    chosen = [f"var-{name}={value}" for name, value in variables.items()]
    return {"title": title, "url": f"/d/{uid}?{'&'.join([*kept, *chosen])}&${{__url_time_range}}"}


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable: one or more values of a label, or all of them.

    Args:
        name: Its name.
        label: The text beside it.
        query: The query that lists its values.
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
"""Queries for firing alerts, by severity and its colour."""


def _marked(firing: str, severity: str, colour: str) -> dict[str, Any]:
    """An annotation that marks when alerts fire."""
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
        uid: Its uid, for links.
        title, text: The question it answers, in short and in full.
        variables: What users can select, besides the data source.
        rows: Rows of panels, headings and folded rows, from the top.
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
    """All panels, with their positions."""
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
        y = below  # Grafana closes the gap under a folded row
    return found


def _row(panels: Sequence[Panel], y: int) -> list[Panel]:
    found, x = [], 0
    for panel in panels:
        found.append(panel | {"gridPos": {**panel["gridPos"], "x": x, "y": y}})
        x += panel["gridPos"]["w"]
    return found
