"""Recording rules and alerts, from the table in `grafana/alerts/rules.toml`, as Prometheus and Grafana read them."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bouncemeter_exporter.yaml_text import yaml_text

__all__ = [
    "DASHBOARDS",
    "DATASOURCE",
    "FILE",
    "FOLDER",
    "GRAFANA",
    "PROMETHEUS",
    "RUNBOOK",
    "Rules",
    "Threshold",
    "as_grafana",
    "as_prometheus",
    "grafana",
    "panel_id",
    "rules",
    "thresholds",
    "with_defaults",
]

FILE = "bouncemeter.rules.yml"
"""The file of rules."""

RUNBOOK = "docs/runbook.md"
GRAFANA, PROMETHEUS = "http://localhost:3000", "http://localhost:9090"
DASHBOARDS = "/var/lib/grafana/dashboards"
"""Where the runbook, Grafana, Prometheus and the files of dashboards are, unless the user says."""

INTERVAL = "30s"

DATASOURCE, FOLDER = "bouncemeter-prometheus", "Mail"
"""The uid of Grafana's data source, and the folder of dashboards and alerts."""

Rules = list[dict[str, Any]]
"""Rules in the order in which they are evaluated."""


def grafana() -> Path:
    """The folder of what is bundled for Grafana and Prometheus: in an installed package, or in a clone."""
    installed = Path(__file__).parent / "grafana"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "grafana"


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((grafana() / "alerts" / "rules.toml").read_text("utf-8"))


def panel_id(title: str) -> int:
    """The number by which a panel is known on its dashboard, the same as long as it is called so."""
    return zlib.crc32(title.encode()) % 1_000_000


class Threshold(NamedTuple):
    """A number that an alert compares with.

    Attributes:
        value: Its default.
        text: What it is.
    """

    value: float
    text: str


def thresholds() -> dict[str, Threshold]:
    """The thresholds by name."""
    return {name: Threshold(**each) for name, each in _table()["thresholds"].items()}


def with_defaults(values: Mapping[str, float]) -> dict[str, float]:
    """All thresholds by name: those that are given, and the defaults of the rest."""
    return {**{name: each.value for name, each in thresholds().items()}, **values}


def rules(values: Mapping[str, float], *, grafana_url: str = GRAFANA, runbook_url: str = RUNBOOK) -> Rules:
    """All rules, recording rules first.

    Args:
        values: Thresholds that are not the defaults.
        grafana_url: Where Grafana is, for links.
        runbook_url: The page that tells what to do at each alert.
    """
    known = with_defaults(values)

    def filled(text: str) -> str:
        return re.sub(r"(?<!\{)\{([a-z_]+)\}(?!\})", lambda name: f"{known[name[1]]:g}", text.strip())

    found: Rules = [{"record": each["name"], "expr": filled(each["expr"])} for each in _table()["record"]]
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


def as_prometheus(found: Rules) -> str:
    """The rules as a file for Prometheus, in two groups."""
    groups = [
        {"name": name, "interval": INTERVAL, "rules": [rule for rule in found if kind in rule]}
        for name, kind in (("bouncemeter", "record"), ("bouncemeter-alerts", "alert"))
    ]
    return yaml_text({"groups": groups}, "Written by `bouncemeter rules export`; change thresholds there.")


def as_grafana(found: Rules) -> str:
    """The alerts as a file for Grafana's own alerting. The recording rules stay with Prometheus.

    An expression gives what is wrong and nothing else, so whatever it gives (never less than 0) is above -1.
    """
    alerts = {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "bouncemeter-alerts",
                "folder": FOLDER,
                "interval": INTERVAL,
                "rules": [_managed(rule) for rule in found if "alert" in rule],
            }
        ],
    }
    return yaml_text(alerts, "Written by `bouncemeter grafana export`; change thresholds there.")


def _managed(rule: Mapping[str, Any]) -> dict[str, Any]:
    # Grafana takes $ for a variable of the environment unless it stands twice.
    texts = {
        name: text.replace("$value", "$values.A.Value").replace("$", "$$")
        for name, text in rule["annotations"].items()
        if name != "dashboard_url"
    }
    source = {"type": "prometheus", "uid": DATASOURCE}
    threshold = {"type": "gt", "params": [-1]}
    (alert,) = (each for each in _table()["alert"] if each["name"] == rule["alert"])
    dashboard, _, _ = alert["dashboard"].partition("?")
    return {
        "uid": rule["alert"].lower(),
        "title": rule["alert"],
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "datasourceUid": DATASOURCE,
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": {"refId": "A", "datasource": source, "expr": rule["expr"].replace("$", "$$"), "instant": True},
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "B",
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{"evaluator": threshold}],
                },
            },
        ],
        "for": rule["for"],
        "noDataState": "OK",
        "execErrState": "Error",
        "isPaused": False,
        "labels": rule["labels"],
        "annotations": {**texts, "__dashboardUid__": dashboard, "__panelId__": str(panel_id(alert["panel"]))},
    }
