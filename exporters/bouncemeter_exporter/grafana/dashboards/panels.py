"""Panels in Grafana's form (schema v1), as plain dictionaries: single numbers, graphs, heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bouncemeter_exporter.grafana.rules import panel_id

__all__ = ["DATASOURCE", "Mappings", "Panel", "bars", "heatmap", "levels", "lines", "panel", "sized", "stat"]

Panel = dict[str, Any]
Mappings = Sequence[Mapping[str, Any]]

_CALCULATIONS = {"mean": "Mean", "sum": "Total", "min": "Min", "lastNotNull": "Last *"}
"""Column titles in a legend, by calculation: the legend sorts by title."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def sized(width: int, height: int, shown: Panel) -> Panel:
    """A panel with a size; its row sets its position."""
    return shown | {"gridPos": {"w": width, "h": height}}


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


def panel(
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
    """What all panels share: queries with the names of their series, options, and how fields look."""
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
    """Thresholds: the colour from each number upwards. The first has no lower bound."""
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
    also: tuple[str, str] | None = None,
) -> Panel:
    """One number, or two, for now or for the time range shown.

    Args:
        title, text: What it is, in a word and in sentences.
        query: A query that returns one series.
        unit: Its unit.
        colour: Its colour, unless `thresholds` sets it.
        thresholds: Its colours by value.
        mappings: Texts for values.
        nothing: The text to show without a series.
        decimals: Digits after the decimal point.
        links: Where a click leads.
        legend: The name of the series.
        also: A second query and its name: a number without a colour of its own.
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
    return panel(
        "stat",
        title,
        text,
        [(query, legend), *([also] if also else [])],
        {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": "value_and_name" if also else "value",
            "wideLayout": True,
            **({"text": {"titleSize": 13, "valueSize": 26}} if also else {}),
        },
        defaults,
        [
            {
                "matcher": {"id": "byName", "options": name},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": "text"}}],
            }
            for _, name in ([also] if also else [])
        ],
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
        title, text: What it shows, in a few words and in sentences.
        queries: Queries and the names of their series.
        unit: The unit of all series.
        overrides: Colours and styles of series.
        limit: A dashed line at a number, in a colour.
        stacked: Whether to stack the series.
        steps: Whether to draw each value flat until the next.
        maximum: The end of the axis.
        interval: The shortest time between points.
        exemplars: Whether to show exemplars as dots.
        links: Where a click on a point leads.
        legend: The calculations that the legend shows for each series.
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
    if unit == "locale":  # whole recipients, also in the legend's mean
        shown["decimals"] = 0
        custom["axisSoftMax"] = 5
    found = _graph(title, text, queries, custom, overrides, legend, exemplars=exemplars, limit=limit, **shown)
    return found | {"interval": interval} if interval else found


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
    """Counts as stacked bars of at least five minutes. The arguments are those of `lines`."""
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
    found = _graph(title, text, queries, custom, overrides, legend, exemplars=exemplars, limit=limit, **shown)
    return found | {"interval": "5m"}


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
    **defaults: Any,  # noqa: ANN401 - Grafana's field settings
) -> Panel:
    return panel(
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


def heatmap(title: str, text: str, query: str, *, unit: str) -> Panel:
    """How a histogram's buckets fill over time.

    Args:
        title, text: What it shows, in a few words and in sentences.
        query: A query for the increase of each bucket, by `le`.
        unit: The unit of the bucket bounds.
    """
    found = panel(
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
    found["targets"][0]["format"] = "heatmap"
    return found | {"interval": "5m"}
