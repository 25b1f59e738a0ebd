"""Recording rules and alerts, from the table in `grafana/alerts/rules.toml`, as Prometheus reads them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FILE", "GRAFANA", "RUNBOOK", "Rules", "Threshold", "as_yaml", "grafana", "rules", "thresholds"]

FILE = "bouncemeter.rules.yml"
"""The file of rules."""

RUNBOOK = "docs/runbook.md"
GRAFANA = "http://localhost:3000"
"""Where the runbook and Grafana are, unless the user says."""

INTERVAL = "30s"

Rules = list[dict[str, Any]]
"""Rules in the order in which they are evaluated."""


def grafana() -> Path:
    """The folder of what is bundled for Grafana and Prometheus: in an installed package, or in a clone."""
    installed = Path(__file__).parent / "grafana"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "grafana"


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((grafana() / "alerts" / "rules.toml").read_text("utf-8"))


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


def rules(values: Mapping[str, float], *, grafana_url: str = GRAFANA, runbook_url: str = RUNBOOK) -> Rules:
    """All rules, recording rules first.

    Args:
        values: Thresholds that are not the defaults.
        grafana_url: Where Grafana is, for links.
        runbook_url: The page that tells what to do at each alert.
    """
    known = {**{name: each.value for name, each in thresholds().items()}, **values}

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


def as_yaml(found: Rules) -> str:
    """The rules as a file for Prometheus, in two groups."""
    lines = ["# Written by `bouncemeter rules export`; change thresholds there.", "groups:"]
    for name, kind in (("bouncemeter", "record"), ("bouncemeter-alerts", "alert")):
        lines += [f"  - name: {name}", f"    interval: {INTERVAL}", "    rules:"]
        for rule in found:
            if kind in rule:
                lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: Mapping[str, Any]) -> Iterator[str]:
    """One rule: text as JSON has it, which YAML reads too; expressions as they are."""
    begin = "      - "
    for name, value in rule.items():
        if name == "expr":
            yield f"{begin}expr: |-"
            yield from (f"          {line}" for line in value.splitlines())
        elif isinstance(value, dict):
            yield f"{begin}{name}:"
            yield from (f"          {key}: {json.dumps(text, ensure_ascii=False)}" for key, text in value.items())
        else:
            yield f"{begin}{name}: {json.dumps(value) if name != 'for' else value}"
        begin = "        "
