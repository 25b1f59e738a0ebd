"""What Grafana is given: dashboards, and files by which it provisions them, a data source and alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bouncemeter_exporter.dashboards import as_json, dashboards
from bouncemeter_exporter.rules import (
    DASHBOARDS,
    DATASOURCE,
    FOLDER,
    PROMETHEUS,
    RUNBOOK,
    as_grafana,
    rules,
    with_defaults,
)
from bouncemeter_exporter.yaml_text import yaml_text

__all__ = ["Places", "files"]

COMMENT = "Written by `bouncemeter grafana export`."


class Places(NamedTuple):
    """Where others are.

    Attributes:
        prometheus: The URL of Prometheus, as Grafana reaches it.
        scrape_interval: How often it scrapes.
        dashboards: The folder in which Grafana finds its dashboards.
        runbook: The page that tells what to do at each alert.
    """

    prometheus: str = PROMETHEUS
    scrape_interval: str = "15s"
    dashboards: str = DASHBOARDS
    runbook: str = RUNBOOK


def files(values: Mapping[str, float], places: Places) -> dict[str, str]:
    """The files by their names.

    Args:
        values: Thresholds that are not the defaults.
        places: Where others are.
    """
    pages = dashboards(with_defaults(values))
    found = {f"dashboards/{name}": as_json(each) for name, each in pages.items()}
    alerts = as_grafana(rules(values, runbook_url=places.runbook))
    return found | {
        "provisioning/datasources/bouncemeter.yml": _datasource(places),
        "provisioning/dashboards/bouncemeter.yml": _provider(places),
        "provisioning/alerting/bouncemeter.yml": alerts,
    }


def _datasource(places: Places) -> str:
    source = {
        "name": "Prometheus",
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": places.prometheus,
        "jsonData": {"httpMethod": "POST", "timeInterval": places.scrape_interval},
    }
    return yaml_text({"apiVersion": 1, "datasources": [source]}, COMMENT)


def _provider(places: Places) -> str:
    provider = {
        "name": "bouncemeter",
        "folder": FOLDER,
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": places.dashboards},
    }
    return yaml_text({"apiVersion": 1, "providers": [provider]}, COMMENT)
