"""Recording rules and alerts in Prometheus' form, from the table `rules.toml` beside this module."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from bouncemeter_exporter.grafana.baselines import BASELINE_INTERVAL, Signal, baselines, signal_rules
from bouncemeter_exporter.grafana.births import births, from_zero
from bouncemeter_exporter.grafana.yaml_text import yaml_text

__all__ = [
    "ALERTMANAGER",
    "DASHBOARDS",
    "DATASOURCE",
    "FILE",
    "FOLDER",
    "GRAFANA",
    "INTERVAL",
    "KUBERNETES",
    "NO_HISTORY",
    "PROMETHEUS",
    "RUNBOOK",
    "UNIT_TESTS",
    "Detail",
    "Rules",
    "Threshold",
    "alertmanager",
    "as_kubernetes",
    "as_prometheus",
    "as_unit_tests",
    "dashboard_panel",
    "details",
    "panel_id",
    "rules",
    "thresholds",
    "with_defaults",
]

FILE, UNIT_TESTS, KUBERNETES = "bouncemeter.rules.yml", "tests/bouncemeter.test.yml", "bouncemeter.prometheusrule.yml"
"""The names of the file of rules, of tests for it, and of the same rules as a resource of Kubernetes."""

ALERTMANAGER = ("alertmanager.yml", "bouncemeter.tmpl")
"""Files for Alertmanager: its configuration, and the text of its mails."""

RUNBOOK = "https://github.com/bouncemeter/bouncemeter/blob/main/docs/runbook.md"
GRAFANA, PROMETHEUS = "http://localhost:3000", "http://localhost:9090"
DASHBOARDS = "/var/lib/grafana/dashboards"
"""Default locations of the runbook, Grafana, Prometheus and the dashboards' files."""

INTERVAL = "30s"

DATASOURCE, FOLDER = "bouncemeter", "Mail"
"""The uid of the data source that is made, and Grafana's folder for dashboards and alerts."""

Rules = list[dict[str, Any]]
"""Rules, in the order of evaluation."""


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("bouncemeter_exporter.grafana") / "rules.toml").read_text("utf-8"))


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


def rules(
    values: Mapping[str, float],
    *,
    grafana_url: str = GRAFANA,
    runbook_url: str = RUNBOOK,
    exporter_url: str = "",
    fleet: bool = False,
) -> Rules:
    """All rules, recording rules first.

    Args:
        values: Thresholds that differ from the defaults.
        grafana_url: The URL of Grafana, for links.
        runbook_url: The page that says what to do about each alert.
        exporter_url: The URL of the exporter's own pages, for links to messages; without one, there are none.
        fleet: Also record the numbers of all servers together.
    """
    known = with_defaults(values)

    def filled(text: str) -> str:
        return re.sub(r"(?<!\{)\{([a-z_]+)\}(?!\})", lambda name: f"{known[name[1]]:g}", text.strip())

    signals = [Signal(each, known) for each in _table()["signal"]]
    counters = _table()["counter"]
    found: Rules = [
        *from_zero(counters),
        *({"record": each["name"], "expr": filled(each["expr"])} for each in _table()["record"]),
        *births(counters),
    ]
    if fleet:  # after the increases of the same interval, which they sum up
        found += [{"record": each["name"], "expr": each["expr"], "interval": "5m"} for each in _table()["fleet"]]
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
                    "first_step": each["first_step"],
                    "dashboard_url": _dashboard_url(grafana_url, each["dashboard"]),
                    **({"messages_url": _messages_url(exporter_url, each["dashboard"])} if exporter_url else {}),
                    "runbook_url": f"{runbook_url}#{each['name'].lower()}",
                },
            }
        )
    return found


def _dashboard_url(grafana_url: str, dashboard: str) -> str:
    """The link to a dashboard, for the server that the alert is about and the hours before."""
    server = "&".join(f"var-{name}={{{{ $labels.{name} }}}}" for name in ("job", "instance"))
    return f"{grafana_url}/d/{dashboard}{'&' if '?' in dashboard else '?'}{server}&from=now-6h&to=now"


def _messages_url(exporter_url: str, dashboard: str) -> str:
    """The link to the messages that a dashboard's filters choose; without such filters, to the exporter's status."""
    filters = dashboard.partition("?")[2].split("&")
    if all(re.match("var-(class|code|reason|provider)=", each) for each in filters):
        return f"{exporter_url}/trace?{'&'.join(each.removeprefix('var-') for each in filters)}"
    return f"{exporter_url}/"


NO_HISTORY = "There is no history yet to compare with."

_WHOLE, _PERCENT = 'printf "%.0f"', 'printf "%.2f" | humanizePercentage'


def _details(alert: Mapping[str, Any]) -> str:
    """Further numbers of an alert, which Prometheus asks for as it writes the text."""
    name, _, operation = alert["signal"].rpartition(":")
    window = re.sub("^[a-z]+", "", operation)
    select = f"{alert['select']}, " if alert.get("select") else ""
    traffic = f"{name.partition(':')[0]}:mail_recipients:increase{window}"
    limit, history = f"{name}:limit{window}", f"{name}:history{window}"
    bounced = f"mail_bounces_total{{{select}%s}}"
    most = f"topk(1, sum by (provider, reason) ({_grown(bounced, window or '1h')}) > 0)"
    classes = f"sum by (class) ({_grown(f'mail_bounces_by_sender_total{{{select}%s}}', window or '1h')})"
    texts = {
        "messages": _asked(
            f"sum({_grown(f'mail_bounced_messages_total{{{select}%s}}', window)})", _WHOLE, "In {} messages."
        ),
        "limit": _asked(f"sum({limit}{{%s}})", _WHOLE, "The alert begins at {}, by what is usual here at this time."),
        "history": f"{{{{ with printf `{history}{{%s}}` $s | query }}}}{{{{ else }}}}{NO_HISTORY}{{{{ end }}}}",
        "share": _asked(
            f"clamp_max(sum({alert['signal']}{{%s}}) / (sum({traffic}{{%s}}) > 0), 1)",
            _PERCENT,
            "{} of all recipients.",
        ),
        "worst": f"{{{{ with printf `{most}` $s $s $s | query }}}}Most: {{{{ . | first | value | {_WHOLE} }}}}"
        " by {{ (. | first).Labels.provider }}, reason {{ (. | first).Labels.reason }}.{{ end }}",
        "class": f"{{{{ with printf `topk(1, {classes} > 0)` $s $s $s | query }}}}"
        f"Most: {{{{ . | first | value | {_WHOLE} }}}}"
        " of class {{ (. | first).Labels.class }}.{{ end }}",
    }
    labels = dict.fromkeys(("job", "instance", "mta", name.partition(":")[0]))
    selector = ",".join(f"{each}=%q" for each in labels)
    values = " ".join(f"$labels.{each}" for each in labels)
    return f"{{{{ $s := printf `{selector}` {values} }}}}" + " ".join(texts[each] for each in alert["details"])


def _grown(series: str, window: str) -> str:
    """By how much counters have grown in a time; those that are new have grown from nothing."""
    return f"({series} - {series} offset {window}) or {series}"


def _asked(query: str, shown: str, text: str) -> str:
    """A sentence with the number that a query gives; nothing if it gives none."""
    number = f"{{{{ . | first | value | {shown} }}}}"
    selectors = " ".join(["$s"] * query.count("%s"))
    return f"{{{{ with printf `{query}` {selectors} | query }}}}{text.format(number)}{{{{ end }}}}"


class Detail(NamedTuple):
    """A further number of an alert, for Grafana, whose texts cannot ask for one.

    Attributes:
        expr: Its query. It always has an answer, because Grafana evaluates no alert of which a query has none: -1 if
            there is no number. Grafana finds the number by its labels: they are some of the alert's, or all and more,
            among them the name that the alert's series may have.
        text: A sentence with the number, by Go's rules for templates; `.` is the number with its labels.
    """

    expr: str
    text: str


def details(alert: str) -> list[Detail]:
    """The further numbers of an alert. Grafana asks for them all the time, so windows are of an hour at most."""
    (row,) = (each for each in _table()["alert"] if each["name"] == alert)
    if "details" not in row:
        return []
    name, _, operation = row["signal"].rpartition(":")
    level, window = name.partition(":")[0], re.sub("^[a-z]+", "", operation)
    select, short = row.get("select", ""), "10m" if window == "10m" else "1h"
    bounced = f"sum without (kind, class, code) ({_grown(f'mail_bounces_total{{{select}}}', short)})"
    classes = f"sum without (kind) ({_grown(f'mail_bounces_by_sender_total{{{select}}}', short)})"
    most = f"topk without ({'reason' if level == 'provider' else 'provider, reason'}) (1, {bounced} > 0)"
    metric = re.split(r"[^\w:]", row["expr"].strip(), maxsplit=1)[0]
    found = {
        "messages": Detail(
            f"sum without (kind, class) ({_grown(f'mail_bounced_messages_total{{{select}}}', window)})",
            f"In {{{{ .Value | {_WHOLE} }}}} messages.",
        ),
        "limit": Detail(
            f"{name}:limit{window} + 0",
            f"The alert begins at {{{{ .Value | {_WHOLE} }}}}, by what is usual here at this time.",
        ),
        "history": Detail(f"{name}:limit{window} * 0 unless {name}:history{window}", NO_HISTORY),
        "share": Detail(
            f"clamp_max({row['signal']} / ({level}:mail_recipients:increase{window} > 0), 1)",
            f"{{{{ .Value | {_PERCENT} }}}} of all recipients.",
        ),
        "worst": Detail(
            f'label_replace({most}, "__name__", "{metric}", "", "")',
            "Most by {{ .Labels.provider }}, reason {{ .Labels.reason }}.",
        ),
        "class": Detail(
            f'label_replace(topk without (class) (1, {classes} > 0), "__name__", "{metric}", "", "")',
            "Most of class {{ .Labels.class }}.",
        ),
    }
    return [Detail(f"{found[each].expr}\nor on () vector(-1)", found[each].text) for each in row["details"]]


def dashboard_panel(alert: str) -> tuple[str, int]:
    """The dashboard (its uid) and the panel (its ID) that show what an alert watches."""
    (row,) = (each for each in _table()["alert"] if each["name"] == alert)
    return row["dashboard"].partition("?")[0], panel_id(row["panel"])


def as_prometheus(found: Rules) -> str:
    """The rules as a file for Prometheus."""
    return yaml_text({"groups": _groups(found)}, COMMENT)


def alertmanager() -> dict[str, str]:
    """The files for Alertmanager, in a folder of their own, so that `rule_files: [rules/*.yml]` does not match them."""
    folder = files("bouncemeter_exporter.grafana")
    return {f"alertmanager/{name}": (folder / name).read_text("utf-8") for name in ALERTMANAGER}


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
