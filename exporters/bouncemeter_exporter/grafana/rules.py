"""Recording rules and alerts in Prometheus' form, from the table `rules.toml` beside this module."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bouncemeter_exporter.grafana.baselines import BASELINE_INTERVAL, Signal, baselines, signal_rules
from bouncemeter_exporter.grafana.yaml_text import yaml_text

__all__ = [
    "DASHBOARDS",
    "DATASOURCE",
    "FILE",
    "FOLDER",
    "GRAFANA",
    "INTERVAL",
    "KUBERNETES",
    "PROMETHEUS",
    "RUNBOOK",
    "UNIT_TESTS",
    "Rules",
    "Threshold",
    "as_kubernetes",
    "as_prometheus",
    "as_unit_tests",
    "dashboard_panel",
    "panel_id",
    "rules",
    "thresholds",
    "with_defaults",
]

FILE, UNIT_TESTS, KUBERNETES = "bouncemeter.rules.yml", "tests/bouncemeter.test.yml", "bouncemeter.prometheusrule.yml"
"""The names of the file of rules, of tests for it, and of the same rules as a resource of Kubernetes."""

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

    signals = [Signal(each, known) for each in _table()["signal"]]
    found: Rules = [
        {"record": each["name"], "expr": filled(each["expr"])}
        | ({"interval": each["interval"]} if "interval" in each else {})
        for each in _table()["record"]
    ]
    found += signal_rules(signals)
    found += [{**rule, "interval": f"{BASELINE_INTERVAL}m"} for rule in baselines(signals)]
    for each in _table()["alert"]:
        kept = {"keep_firing_for": each["keep"]} if "keep" in each else {}
        details = {"details": _details(each)} if "details" in each else {}
        found.append(
            {
                "alert": each["name"],
                "expr": filled(each["expr"]),
                "for": each["for"],
                **kept,
                "labels": {"severity": each["severity"], **each.get("labels", {})},
                "annotations": {
                    "summary": each["summary"],
                    "description": filled(each["description"]),
                    **details,
                    "dashboard_url": _dashboard_url(grafana_url, each["dashboard"]),
                    "runbook_url": f"{runbook_url}#{each['name'].lower()}",
                },
            }
        )
    return found


def _dashboard_url(grafana_url: str, dashboard: str) -> str:
    """The link to a dashboard, for the server that the alert is about and the hours before."""
    server = "&".join(f"var-{name}={{{{ $labels.{name} }}}}" for name in ("job", "instance"))
    return f"{grafana_url}/d/{dashboard}{'&' if '?' in dashboard else '?'}{server}&from=now-6h&to=now"


_WHOLE, _PERCENT = 'printf "%.0f"', "humanizePercentage"


def _details(alert: Mapping[str, Any]) -> str:
    """Further numbers of an alert, which Prometheus asks for as it writes the text."""
    name, _, operation = alert["signal"].rpartition(":")
    window = re.sub("^[a-z]+", "", operation)
    select = f"{alert['select']}, " if alert.get("select") else ""
    traffic = f"{name.partition(':')[0]}:mail_recipients:increase{window}"
    limit = f"{name}:limit{window}"
    bounced = f"increase(mail_bounces_total{{{select}%s}}[{window or '1h'}])"
    most = f"topk(1, sum by (provider, reason) ({bounced}) > 0)"
    texts = {
        "messages": _asked(
            f"sum(increase(mail_bounced_messages_total{{{select}%s}}[{window}]))", _WHOLE, "In {} messages."
        ),
        "limit": _asked(f"sum({limit}{{%s}})", _WHOLE, "The alert begins at {}, by what is usual here at this time."),
        "share": _asked(f"sum({alert['signal']}{{%s}}) / sum({traffic}{{%s}})", _PERCENT, "{} of all recipients."),
        "worst": f"{{{{ with printf `{most}` $s | query }}}}Most: {{{{ . | first | value | {_WHOLE} }}}}"
        " by {{ (. | first).Labels.provider }}, reason {{ (. | first).Labels.reason }}.{{ end }}",
    }
    labels = dict.fromkeys(("job", "instance", "mta", name.partition(":")[0]))
    selector = ",".join(f"{each}=%q" for each in labels)
    values = " ".join(f"$labels.{each}" for each in labels)
    return f"{{{{ $s := printf `{selector}` {values} }}}}" + " ".join(texts[each] for each in alert["details"])


def _asked(query: str, shown: str, text: str) -> str:
    """A sentence with the number that a query gives; nothing if it gives none."""
    number = f"{{{{ . | first | value | {shown} }}}}"
    selectors = " ".join(["$s"] * query.count("%s"))
    return f"{{{{ with printf `{query}` {selectors} | query }}}}{text.format(number)}{{{{ end }}}}"


def dashboard_panel(alert: str) -> tuple[str, int]:
    """The dashboard (its uid) and the panel (its ID) that show what an alert watches."""
    (row,) = (each for each in _table()["alert"] if each["name"] == alert)
    return row["dashboard"].partition("?")[0], panel_id(row["panel"])


def as_prometheus(found: Rules) -> str:
    """The rules as a file for Prometheus."""
    return yaml_text({"groups": _groups(found)}, COMMENT)


def as_kubernetes(found: Rules) -> str:
    """The rules as a resource for the Prometheus operator of Kubernetes."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "bouncemeter"},
        "spec": {"groups": _groups(found)},
    }
    return yaml_text(resource, COMMENT)


def as_unit_tests(values: Mapping[str, float]) -> str:
    """Tests of the rules for `promtool test rules`, to run beside one's own: a flood is told, an ordinary day is not.

    Args:
        values: Thresholds that differ from the defaults.
    """
    known = with_defaults(values)
    flood = 2 * max(known["policy_flood"], known["policy_flood_messages"])
    ours = 'job="bouncemeter", instance="mx1:19525", mta="postfix"'
    refused = f'{ours}, kind="hard", class="5.7"'
    delivered = f'mail_recipients_total{{{ours}, outcome="delivered", provider="other"}}'

    def test(name: str, per_minute: float, *, fires: bool) -> dict[str, Any]:
        values = f"0x60 {per_minute:g}+{per_minute:g}x60"
        names = ("mail_bounces_by_class_total", "mail_bounced_messages_total")
        series = [{"series": f"{each}{{{refused}}}", "values": values} for each in names]
        series.append({"series": delivered, "values": "0+10x120"})
        asked = {
            "expr": 'count(ALERTS{alertname="MailPolicyBounceFlood", alertstate="firing"})',
            "eval_time": "75m",
            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
        }
        return {"name": name, "interval": "1m", "input_series": series, "promql_expr_test": [asked]}

    tests = [test("a flood", flood, fires=True), test("an ordinary day", flood / 50, fires=False)]
    return yaml_text({"rule_files": [f"../{FILE}"], "evaluation_interval": "1m", "tests": tests}, COMMENT)


COMMENT = "Written by `bouncemeter rules export`; change thresholds there."


def _groups(found: Rules) -> list[dict[str, Any]]:
    """The rules in groups: recording rules, a group for each other interval, alerts."""
    usual = [rule for rule in found if "interval" not in rule]
    groups = [{"name": "bouncemeter", "interval": INTERVAL, "rules": [rule for rule in usual if "record" in rule]}]
    for interval in sorted({rule["interval"] for rule in found if "interval" in rule}):
        chosen = [rule for rule in found if rule.get("interval") == interval]
        plain = [{key: value for key, value in rule.items() if key != "interval"} for rule in chosen]
        groups.append({"name": f"bouncemeter-{interval}", "interval": interval, "rules": plain})
    alerts = [rule for rule in usual if "alert" in rule]
    return [*groups, {"name": "bouncemeter-alerts", "interval": INTERVAL, "rules": alerts}]
