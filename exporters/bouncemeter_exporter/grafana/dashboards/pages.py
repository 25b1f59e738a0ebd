"""Dashboards in Grafana's form: rows of panels, variables, links, and marks where alerts fire.

A page is a list of rows of panels. The position of each panel follows from its width and height.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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


SHARED_VARIABLES = ("datasource", "job", "instance", "mta", "provider", "recorded")
"""Variables that all dashboards have."""


def link(title: str, uid: str, **variables: str) -> dict[str, Any]:
    """A link to a dashboard that keeps the time range and the selection, and sets variables.

    Args:
        title: The text of the link.
        uid: The uid of the dashboard.
        variables: The values to set, by name.
    """
    kept = _kept(each for each in SHARED_VARIABLES if each not in variables)
    chosen = [f"var-{name}={value}" for name, value in variables.items()]
    return {"title": title, "url": f"/d/{uid}?{'&'.join([*kept, *chosen])}&${{__url_time_range}}"}


def _kept(names: Iterable[str]) -> list[str]:
    """The part of a link that keeps variables as they are."""
    return [f"${{{each}:queryparam}}" for each in names]


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


RECORDED = {
    "type": "custom",
    "name": "recorded",
    "label": "Counts",
    "query": "every scrape : .+, recorded : .*",
    "current": {"selected": True, "text": "every scrape", "value": ".+"},
    "options": [
        {"selected": True, "text": "every scrape", "value": ".+"},
        {"selected": False, "text": "recorded", "value": ".*"},
    ],
    "description": "Recorded counts are fast over weeks. They begin when the recording rules were loaded.",
    "multi": False,
    "includeAll": False,
    "hide": 0,
    "skipUrlSync": False,
}
"""Where counts come from; see `queries`."""


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
    variables = [*variables, RECORDED]
    names = [str(each["name"]) for each in variables]
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
            },
            _recorded(uid, names, "24 hours", "now-24h"),
            _recorded(uid, names, "30 days", "now-30d"),
        ],
        "templating": {"list": [DATA_SOURCE, *variables]},
        "panels": [_finished(each, uid, variables) for each in _placed(rows)],
    }


def _recorded(uid: str, names: Sequence[str], title: str, begin: str) -> dict[str, Any]:
    """A link to the same page over a longer time, with recorded counts."""
    kept = _kept(name for name in ("datasource", *names) if name != "recorded")
    return {
        "type": "link",
        "title": title,
        "tags": [],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": False,
        "targetBlank": False,
        "tooltip": f"The same page over {title}, with recorded counts",
        "url": f"/d/{uid}?{'&'.join(kept)}&var-recorded=.%2A&from={begin}&to=now",
    }


def _finished(panel: Panel, uid: str, variables: Sequence[dict[str, Any]]) -> Panel:
    """A panel that says which filters of its page do not act, and whose links to its own page keep them all."""
    if panel["type"] == "row":
        return panel | {"panels": [_finished(each, uid, variables) for each in panel["panels"]]}
    filters = {each["name"]: str(each["label"]) for each in variables if each["name"] != "recorded"}
    acting = [{name for name in filters if f'"${name}"' in each["expr"]} for each in panel["targets"]]
    somewhere, everywhere = set[str]().union(*acting), set(filters).intersection(*acting)
    text = panel["description"]
    for which, names in (("this panel", filters.keys() - somewhere), ("all of this panel", somewhere - everywhere)):
        if names:
            labels = [label for name, label in filters.items() if name in names]
            text += f" Not a filter of {which}: {', '.join(labels).lower()}."
    own = [name for name in filters if name not in SHARED_VARIABLES]

    def linked(value: Any) -> Any:  # noqa: ANN401 - any part of a panel
        if isinstance(value, list):
            return [linked(each) for each in value]
        if not isinstance(value, dict):
            return value
        found = {key: linked(each) for key, each in value.items()}
        url = found.get("url")
        if isinstance(url, str) and url.startswith(f"/d/{uid}?"):
            kept = _kept(name for name in own if f"var-{name}=" not in url)
            found["url"] = re.sub(r"\?", "?" + "".join(f"{each}&" for each in kept), url, count=1)
        return found

    return {**panel, "description": text, "fieldConfig": linked(panel["fieldConfig"])}


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
