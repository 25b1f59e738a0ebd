"""The files for Grafana: dashboards, and the files that provision them, a data source and alerts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
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
    details,
    rules,
    with_defaults,
)
from bouncemeter_exporter.grafana.yaml_text import yaml_text

__all__ = ["Locations", "files"]

COMMENT = "Written by `bouncemeter grafana export`."

DATASOURCE_NAME = "Prometheus (bouncemeter)"
"""Grafana finds a data source by its name, and would change one of the same name."""

CONTACT = "bouncemeter"
"""The name and uid of the contact point. An alert names it, so that Grafana's own policies stay as they are."""

RECIPIENT = "root@localhost"
"""Whom alerts tell by default."""

DOWN = "BouncemeterDown"
"""The alert that also tells of a Prometheus that does not answer, for all of them."""


class Locations(NamedTuple):
    """Where the other programs and files are.

    Attributes:
        prometheus: The URL at which Grafana reaches Prometheus.
        scrape_interval: How often Prometheus scrapes.
        dashboards: The folder from which Grafana reads its dashboards.
        runbook: The page that says what to do about each alert.
        datasource: The uid of a data source that Grafana has already; without one, a data source is made.
        recipient: Whom Grafana writes to when an alert fires, by the mail server of its own settings.
        exporter: The URL at which a browser reaches the exporter, for links to messages; without one, there are none.
    """

    prometheus: str = PROMETHEUS
    scrape_interval: str = "15s"
    dashboards: str = DASHBOARDS
    runbook: str = RUNBOOK
    datasource: str | None = None
    recipient: str = RECIPIENT
    exporter: str = ""


def files(values: Mapping[str, float], locations: Locations) -> dict[str, str]:
    """All files, by name.

    Args:
        values: Thresholds that differ from the defaults.
        locations: Where the other programs and files are.
    """
    uid = locations.datasource or DATASOURCE
    pages = dashboards(with_defaults(values))
    if locations.exporter:
        pages = {name: _with_messages(page, locations.exporter) for name, page in pages.items()}
    found = {f"dashboards/{name}": as_json(_opened_with(page, uid)) for name, page in pages.items()}
    found |= {
        "provisioning/dashboards/bouncemeter.yml": _provider(locations),
        "provisioning/alerting/bouncemeter.yml": _alerts(
            rules(values, runbook_url=locations.runbook, exporter_url=locations.exporter), uid, locations
        ),
    }
    if locations.datasource is None:
        found["provisioning/datasources/bouncemeter.yml"] = _datasource(locations)
    return found


def _opened_with(page: dict[str, Any], uid: str) -> dict[str, Any]:
    """A page that opens with a data source. Without one of this uid, Grafana takes its first Prometheus."""
    variable, *others = page["templating"]["list"]
    chosen = {"selected": True, "text": DATASOURCE_NAME if uid == DATASOURCE else uid, "value": uid}
    return page | {"templating": {"list": [variable | {"current": chosen}, *others]}}


def _with_messages(page: dict[str, Any], exporter: str) -> dict[str, Any]:
    """A page on which each code in a table also leads to the messages with it."""
    link = {
        "title": "Messages with this code",
        "url": f"{exporter}/trace?code=${{__value.raw}}",
        "targetBlank": True,
    }
    page = deepcopy(page)
    panels = [inner for each in page["panels"] for inner in (each, *each.get("panels", []))]
    for override in (each for panel in panels for each in panel.get("fieldConfig", {}).get("overrides", [])):
        if override["matcher"] == {"id": "byName", "options": "Code"}:
            for each in override["properties"]:
                if each["id"] == "links":
                    each["value"] = [*each["value"], link]
    return page


def _literal(text: str) -> str:
    """A text of a field in which Grafana replaces `$NAME` by the variable of that name from its environment."""
    return text.replace("$", "$$")


def _datasource(locations: Locations) -> str:
    source: dict[str, Any] = {
        "name": DATASOURCE_NAME,
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": _literal(locations.prometheus),
        "jsonData": {
            "httpMethod": "POST",
            "prometheusType": "Prometheus",
            "timeInterval": _literal(locations.scrape_interval),
        },
    }
    if locations.exporter:
        source["jsonData"] |= {
            "exemplarTraceIdDestinations": [
                {
                    "name": "queue_id",
                    "url": _literal(f"{locations.exporter}/trace/${{__value.raw}}"),
                    "urlDisplayLabel": "Trace this message",
                }
            ]
        }
    return yaml_text({"apiVersion": 1, "datasources": [source]}, COMMENT)


def _provider(locations: Locations) -> str:
    provider = {
        "name": "bouncemeter",
        "folder": FOLDER,
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": _literal(locations.dashboards)},
    }
    return yaml_text({"apiVersion": 1, "providers": [provider]}, COMMENT)


def _alerts(found: Rules, uid: str, locations: Locations) -> str:
    """The alerts as a file for Grafana's own alerting, and whom they tell. The recording rules stay with Prometheus.

    An alert's expression returns only the series that are wrong. Their values are never below 0, so "above -1" always
    holds.
    """
    alerts = {
        "apiVersion": 1,
        "contactPoints": [
            {
                "orgId": 1,
                "name": CONTACT,
                "receivers": [
                    {
                        "uid": CONTACT,
                        "type": "email",
                        "settings": {"addresses": locations.recipient, "singleEmail": True},
                    }
                ],
            }
        ],
        "groups": [
            {
                "orgId": 1,
                "name": "bouncemeter-alerts",
                "folder": FOLDER,
                "interval": INTERVAL,
                "rules": [_managed(rule, uid) for rule in found if "alert" in rule],
            }
        ],
    }
    return yaml_text(alerts, "Written by `bouncemeter grafana export`; change thresholds there.")


def _managed(rule: Mapping[str, Any], uid: str) -> dict[str, Any]:
    """An alert in Grafana's form.

    Grafana reads labels as `_literal` says, but not annotations and queries. There `$value` is a text about all
    queries; the number of query A is `$values.A.Value`.
    """
    texts = {
        name: re.sub(r"\$value\b", "$values.A.Value", text)
        for name, text in rule["annotations"].items()
        if name not in ("dashboard_url", "details")
    }
    more = dict(zip("CDEFG", details(rule["alert"]), strict=False))
    if more:
        texts["details"] = " ".join(
            f"{{{{ with $values.{name} }}}}{{{{ if ge .Value 0.0 }}}}{each.text}{{{{ end }}}}{{{{ end }}}}"
            for name, each in more.items()
        )
    kept = {"keepFiringFor": rule["keep_firing_for"]} if "keep_firing_for" in rule else {}
    threshold = {"type": "gt", "params": [-1]}
    dashboard, panel = dashboard_panel(rule["alert"])
    return {
        "uid": rule["alert"].lower(),
        "title": rule["alert"],
        "condition": "B",
        "data": [
            _query("A", rule["expr"], uid),
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
            *(_query(name, each.expr, uid) for name, each in more.items()),
        ],
        "for": rule["for"],
        **kept,
        "noDataState": "OK",
        "execErrState": "Error" if rule["alert"] == DOWN else "KeepLast",
        "isPaused": False,
        "notification_settings": {"receiver": CONTACT, "group_by": ["grafana_folder", "alertname", "job", "instance"]},
        "labels": {name: _literal(text) for name, text in rule["labels"].items()},
        "annotations": {**texts, "__dashboardUid__": dashboard, "__panelId__": str(panel)},
    }


def _query(name: str, expr: str, uid: str) -> dict[str, Any]:
    return {
        "refId": name,
        "datasourceUid": _literal(uid),
        "relativeTimeRange": {"from": 600, "to": 0},
        "model": {"refId": name, "datasource": {"type": "prometheus", "uid": uid}, "expr": expr, "instant": True},
    }
