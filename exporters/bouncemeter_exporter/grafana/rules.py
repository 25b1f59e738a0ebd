"""Recording rules and alerts in Prometheus' form, from the table `rules.toml` beside this module."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bouncemeter_exporter.grafana.yaml_text import yaml_text

__all__ = [
    "DASHBOARDS",
    "DATASOURCE",
    "FILE",
    "FOLDER",
    "GRAFANA",
    "INTERVAL",
    "PROMETHEUS",
    "RUNBOOK",
    "Rules",
    "Threshold",
    "as_prometheus",
    "dashboard_panel",
    "panel_id",
    "rules",
    "thresholds",
    "with_defaults",
]

FILE = "bouncemeter.rules.yml"
"""The name of the file of rules."""

RUNBOOK = "docs/runbook.md"
GRAFANA, PROMETHEUS = "http://localhost:3000", "http://localhost:9090"
DASHBOARDS = "/var/lib/grafana/dashboards"
"""Default locations of the runbook, Grafana, Prometheus and the dashboards' files."""

INTERVAL = "30s"

DATASOURCE, FOLDER = "bouncemeter-prometheus", "Mail"
"""The uid of Grafana's data source, and Grafana's folder for dashboards and alerts."""

Rules = list[dict[str, Any]]
"""Rules, in the order of evaluation."""


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("rules.toml").read_text("utf-8"))


def panel_id(title: str) -> int:
    """A panel's ID on its dashboard. It changes only with the title."""
    return zlib.crc32(title.encode()) % 1_000_000


class Threshold(NamedTuple):
    """A number that an alert compares against.

    Attributes:
        value: Its default.
        text: What it means.
    """

    value: float
    text: str


def thresholds() -> dict[str, Threshold]:
    """The thresholds, by name."""
    return {name: Threshold(**each) for name, each in _table()["thresholds"].items()}


def with_defaults(values: Mapping[str, float]) -> dict[str, float]:
    """All thresholds, by name: the given values, and defaults for the rest."""
    return {**{name: each.value for name, each in thresholds().items()}, **values}


def rules(values: Mapping[str, float], *, grafana_url: str = GRAFANA, runbook_url: str = RUNBOOK) -> Rules:
    """All rules, recording rules first.

    Args:
        values: Thresholds that differ from the defaults.
        grafana_url: The URL of Grafana, for links.
        runbook_url: The page that says what to do about each alert.
    """
    known = with_defaults(values)

    def filled(text: str) -> str:
        return re.sub(r"(?<!\{)\{([a-z_]+)\}(?!\})", lambda name: f"{known[name[1]]:g}", text.strip())

    found: Rules = [
        {"record": each["name"], "expr": filled(each["expr"])}
        | ({"interval": each["interval"]} if "interval" in each else {})
        for each in _table()["record"]
    ]
    for each in _table()["alert"]:
        found.append(
            {
                "alert": each["name"],
                "expr": filled(each["expr"]),
                "for": each["for"],
                "labels": {"severity": each["severity"]},
                "annotations": {
                    "summary": filled(each["summary"]),
                    "description": filled(each["description"]),
                    "dashboard_url": f"{grafana_url}/d/{each['dashboard']}",
                    "runbook_url": f"{runbook_url}#{each['name'].lower()}",
                },
            }
        )
    return found


def dashboard_panel(alert: str) -> tuple[str, int]:
    """The dashboard (its uid) and the panel (its ID) that show what an alert watches."""
    (row,) = (each for each in _table()["alert"] if each["name"] == alert)
    return row["dashboard"].partition("?")[0], panel_id(row["panel"])


def as_prometheus(found: Rules) -> str:
    """The rules as a file for Prometheus: recording rules, alerts, and a group for each other interval."""
    usual = [rule for rule in found if "interval" not in rule]
    groups = [
        {"name": name, "interval": INTERVAL, "rules": [rule for rule in usual if kind in rule]}
        for name, kind in (("bouncemeter", "record"), ("bouncemeter-alerts", "alert"))
    ]
    for interval in sorted({rule["interval"] for rule in found if "interval" in rule}):
        chosen = [rule for rule in found if rule.get("interval") == interval]
        plain = [{key: value for key, value in rule.items() if key != "interval"} for rule in chosen]
        groups.append({"name": f"bouncemeter-{interval}", "interval": interval, "rules": plain})
    return yaml_text({"groups": groups}, "Written by `bouncemeter rules export`; change thresholds there.")
