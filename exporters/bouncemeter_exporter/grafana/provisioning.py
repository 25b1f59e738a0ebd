"""The files for Grafana: dashboards, and the files that provision them, a data source and alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bouncemeter_exporter.grafana.dashboards import as_json, dashboards
from bouncemeter_exporter.grafana.rules import (
    DASHBOARDS,
    DATASOURCE,
    FOLDER,
    INTERVAL,
    PROMETHEUS,
    RUNBOOK,
    Rules,
    dashboard_panel,
    rules,
    with_defaults,
)
from bouncemeter_exporter.grafana.yaml_text import yaml_text

__all__ = ["Locations", "files"]

COMMENT = "Written by `bouncemeter grafana export`."


class Locations(NamedTuple):
    """Where the other programs and files are.

    Attributes:
        prometheus: The URL at which Grafana reaches Prometheus.
        scrape_interval: How often Prometheus scrapes.
        dashboards: The folder from which Grafana reads its dashboards.
        runbook: The page that says what to do about each alert.
        datasource: The uid of a data source that Grafana has already; None to write one.
    """

    prometheus: str = PROMETHEUS
    scrape_interval: str = "15s"
    dashboards: str = DASHBOARDS
    runbook: str = RUNBOOK
    datasource: str | None = None


def files(values: Mapping[str, float], locations: Locations) -> dict[str, str]:
    """All files, by name.

    Args:
        values: Thresholds that differ from the defaults.
        locations: Where the other programs and files are.
    """
    pages = dashboards(with_defaults(values))
    found = {f"dashboards/{name}": as_json(each) for name, each in pages.items()}
    alerts = _alerts(rules(values, runbook_url=locations.runbook), locations.datasource or DATASOURCE)
    if locations.datasource is None:
        found["provisioning/datasources/bouncemeter.yml"] = _datasource(locations)
    return found | {
        "provisioning/dashboards/bouncemeter.yml": _provider(locations),
        "provisioning/alerting/bouncemeter.yml": alerts,
    }


def _datasource(locations: Locations) -> str:
    source = {
        "name": "Prometheus (bouncemeter)",
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": locations.prometheus,
        "jsonData": {"httpMethod": "POST", "timeInterval": locations.scrape_interval},
    }
    return yaml_text({"apiVersion": 1, "datasources": [source]}, COMMENT)


def _provider(locations: Locations) -> str:
    provider = {
        "name": "bouncemeter",
        "folder": FOLDER,
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": locations.dashboards},
    }
    return yaml_text({"apiVersion": 1, "providers": [provider]}, COMMENT)


def _alerts(found: Rules, datasource: str) -> str:
    """The alerts as a file for Grafana's own alerting. The recording rules stay with Prometheus.

    An alert's expression returns only the series that are wrong. Their values are never below 0, so "above -1" always
    holds.
    """
    alerts = {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "bouncemeter-alerts",
                "folder": FOLDER,
                "interval": INTERVAL,
                "rules": [_managed(rule, datasource) for rule in found if "alert" in rule],
            }
        ],
    }
    return yaml_text(alerts, "Written by `bouncemeter grafana export`; change thresholds there.")


def _managed(rule: Mapping[str, Any], datasource: str) -> dict[str, Any]:
    # Grafana reads $ as an environment variable unless it is doubled, but not in annotations and labels (since 9.1).
    texts = {
        name: text.replace("$value", "$values.A.Value")
        for name, text in rule["annotations"].items()
        if name not in ("dashboard_url", "details")
    }
    kept = {"keepFiringFor": rule["keep_firing_for"]} if "keep_firing_for" in rule else {}
    source = {"type": "prometheus", "uid": datasource}
    threshold = {"type": "gt", "params": [-1]}
    dashboard, panel = dashboard_panel(rule["alert"])
    return {
        "uid": rule["alert"].lower(),
        "title": rule["alert"],
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "datasourceUid": datasource,
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
        **kept,
        "noDataState": "OK",
        "execErrState": "Error",
        "isPaused": False,
        "labels": rule["labels"],
        "annotations": {**texts, "__dashboardUid__": dashboard, "__panelId__": str(panel)},
    }
