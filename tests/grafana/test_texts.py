"""The texts of Grafana's own alerts, expanded as Grafana expands them.

Grafana uses Prometheus' expander, with Go's templates and Prometheus' functions, and other variables: `$values` by
query, and `$value` as a text. So promtool can expand them, if `$values` is declared before each text.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from bouncemeter_exporter.grafana.dashboards.queries import LABELS
from bouncemeter_exporter.grafana.provisioning import Locations, files
from bouncemeter_exporter.grafana.rules import NO_HISTORY, rules

ALERTING, SOURCE = "provisioning/alerting/bouncemeter.yml", "provisioning/datasources/bouncemeter.yml"

RULES = rules({})
RECORDED = {each["record"]: each["expr"] for each in RULES if "record" in each}
ALERTS = {each["alert"]: each for each in RULES if "alert" in each}
MANAGED: dict[str, dict[str, Any]] = {
    each["title"]: each for each in yaml.safe_load(files({}, Locations())[ALERTING])["groups"][0]["rules"]
}

METRICS = {name: {"job", "instance", *labels.split()} for name, labels in LABELS.items()} | {
    name: {"job", "instance", *labels}
    for labels, names in {
        ("mta", "kind", "class"): ["mail_bounced_messages", "bouncemeter_backlog_bounces"],
        ("source",): [
            "bouncemeter_source_up",
            "bouncemeter_source_size_bytes",
            "bouncemeter_source_offset_bytes",
            "bouncemeter_source_dropped",
        ],
        (): ["up", "bouncemeter_series_dropped", "bouncemeter_state_writable", "bouncemeter_build_info"],
    }.items()
    for name in names
}
"""The labels of each metric."""

EVERY = frozenset().union(*METRICS.values())

VALUES = [0.0, 0.0731, 1.0, 25.666666666666668, 4321.0, 52_428_800.0]


# --- the labels of an alert -------------------------------------------------------------------------------------


def labels_of(node: Any, within: frozenset[str] = frozenset()) -> set[str]:
    """The labels that every series of an expression has.

    Args:
        node: The expression.
        within: The recording rules that it is a part of. Their own past tells nothing of their labels.
    """
    found: set[str] = set()
    match node:
        case promql.VectorSelector() if node.name in within:
            found = set(EVERY)
        case promql.VectorSelector() if node.name in RECORDED:
            found = labels_of(promql.parse(RECORDED[node.name]), within | {str(node.name)})
        case promql.VectorSelector():
            found = METRICS[re.sub(r"_(total|bucket|count|sum)$", "", node.name or "")]
        case promql.MatrixSelector():
            found = labels_of(node.vector_selector, within)
        case promql.Call():
            found = set().union(*(labels_of(each, within) for each in node.args))
            if node.func.name == "label_replace":
                found |= {node.args[1].val}
        case promql.AggregateExpr():
            found = grouped(node, within)
        case promql.BinaryExpr():
            found = joined(node, within)
        case _ if hasattr(node, "expr"):
            found = labels_of(node.expr, within)
    return found


def grouped(node: Any, within: frozenset[str]) -> set[str]:
    """The labels of an aggregation."""
    inner = labels_of(node.expr, within)
    if str(node.op) in {"topk", "bottomk"}:
        return inner
    if node.modifier is None:
        return set()
    named = set(node.modifier.labels)
    return inner - named if "Without" in str(node.modifier.type) else inner & named


def joined(node: Any, within: frozenset[str]) -> set[str]:
    """The labels of two expressions and an operator between them."""
    left, right, operator = labels_of(node.lhs, within), labels_of(node.rhs, within), str(node.op)
    if operator in {"and", "unless"} or isinstance(node.rhs, promql.NumberLiteral):
        return left
    if isinstance(node.lhs, promql.NumberLiteral):
        return right
    if operator == "or":
        return left & right
    if node.modifier is None or node.modifier.matching is None or "group_left" in str(node.modifier):
        return left
    if "group_right" in str(node.modifier):
        return right
    named = set(node.modifier.matching.labels)
    return left & named if str(node.modifier).startswith("on") else left - named


@pytest.mark.parametrize("name", ALERTS)
def test_texts_name_only_labels_that_the_alert_has(name: str) -> None:
    """Grafana writes `[no value]` for another one."""
    has = labels_of(promql.parse(ALERTS[name]["expr"]))
    for text in [*ALERTS[name]["annotations"].values(), *MANAGED[name]["annotations"].values()]:
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= has, text


def further() -> Iterator[tuple[str, str, str]]:
    """Each query that is there for a text: its alert, its name, and its expression."""
    for name, rule in MANAGED.items():
        for each in rule["data"][2:]:
            yield name, each["refId"], each["model"]["expr"]


@pytest.mark.parametrize(("name", "query", "expr"), [*further()])
def test_grafana_finds_a_further_number_by_its_labels(name: str, query: str, expr: str) -> None:
    """It looks for equal labels, or for some of the alert's, or for all of them and more."""
    number, separator, nothing = expr.rpartition("\nor on () ")
    assert (separator, nothing) == ("\nor on () ", "vector(-1)")
    node: Any = promql.parse(number)
    assert not isinstance(node, promql.VectorSelector)  # with a name that is not the alert's
    found, has = labels_of(node), labels_of(promql.parse(ALERTS[name]["expr"]))
    assert found <= has or found >= has | {"__name__"}
    if "__name__" in found:
        assert ALERTS[name]["expr"].startswith(node.args[2].val)


# --- the texts --------------------------------------------------------------------------------------------------


def as_promtool_reads(text: str, series: str, further: str) -> str:
    """A text of Grafana with Grafana's variables declared: query A found the series, and B says that it fires.

    Args:
        text: The text.
        series, further: What query A finds, and what those find that are there for the text.
    """
    text = re.sub(r"\$values\.([A-G])\b", lambda found: f"$values.arg{'ABCDEFG'.index(found[1])}", text)
    queries = [series, "vector(1)", *[further] * 5]
    values = " ".join(f"(query `{each}` | first)" for each in queries)
    return f"{{{{- $values := args {values} -}}}}{{{{- $value := `[ var='A' ]` -}}}}{text}"


def expanded(folder: Path, value: float, number: float = 12) -> dict[str, dict[str, str]]:
    """All texts by alert, as promtool expands them: Prometheus', and Grafana's under names in `_of_grafana`."""
    alerts, asked = [], []
    series = [{"series": 'further{provider="google",reason="policy"}', "values": f"{number!r}x3"}]
    for name, rule in ALERTS.items():
        labels = {each: f"the {each}" for each in labels_of(promql.parse(rule["expr"]))}
        metric = f"wrong_{name.lower()}"
        inside = ",".join(f"{label}={json.dumps(text)}" for label, text in labels.items())
        series.append({"series": f"{metric}{{{inside}}}", "values": f"{value!r}x3"})
        theirs = {
            f"{each}_of_grafana": as_promtool_reads(text, metric, "further")
            for each, text in MANAGED[name]["annotations"].items()
            if not each.startswith("__")
        }
        alerts.append({"alert": name, "expr": metric, "annotations": rule["annotations"] | theirs})
        asked.append({"alertname": name, "eval_time": "2m", "exp_alerts": []})
    (folder / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": alerts}]}))
    test = {"interval": "1m", "input_series": series, "alert_rule_test": asked}
    (folder / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [test]}))
    # None is expected: promtool prints what it got.
    done = subprocess.run(
        ["promtool", "test", "rules", folder / "test.yml"], capture_output=True, text=True, check=False
    )
    found = {}
    for labels_text, texts in re.findall(r"Labels:\{(.+)\}\s+Annotations:\{(.+)\}", done.stdout + done.stderr):
        (name,) = re.findall(r'alertname="(\w+)"', labels_text)
        found[name] = {key: json.loads(text) for key, text in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', texts)}
    assert found.keys() == ALERTS.keys(), done.stderr
    return found


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("value", VALUES)
def test_grafana_expands_each_text_as_prometheus_does(tmp_path: Path, value: float) -> None:
    for name, texts in expanded(tmp_path, value).items():
        for key in ("summary", "description", "runbook_url"):
            assert texts[f"{key}_of_grafana"] == texts[key], name
        for text in texts.values():
            assert not re.search(r"\$|\{\{|<no value>|\[no value\]|map\[|error expanding|var='A'|NaN|\(\)", text), text


@pytest.mark.needs("prometheus")
def test_a_text_has_the_further_numbers_and_goes_without_those_that_there_are_not(tmp_path: Path) -> None:
    key, without, flood = "details_of_grafana", expanded(tmp_path, 100, number=-1), "MailPolicyBounceFlood"
    texts = expanded(tmp_path, 100, number=0.25)
    assert texts["MailBacklogGrowing"][key] == (
        f"The alert begins at 0, by what is usual here at this time. {NO_HISTORY}"
    )
    assert re.sub(" +", " ", texts[flood][key]) == (
        f"In 0 messages. The alert begins at 0, by what is usual here at this time. {NO_HISTORY} 25% of all recipients."
        " Most by google, reason policy."
    )
    assert without[flood][key].strip() == ""
    assert NO_HISTORY in texts[flood]["details"]


@pytest.mark.needs("prometheus")
def test_a_further_query_always_has_an_answer(tmp_path: Path) -> None:
    nothing = [{"labels": "{}", "value": -1}]
    asked = [{"expr": expr, "eval_time": "1m", "exp_samples": nothing} for _, _, expr in further()]
    (tmp_path / "test.yml").write_text(json.dumps({"tests": [{"interval": "1m", "promql_expr_test": asked}]}))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_texts_use_only_what_grafana_has() -> None:
    for rule in MANAGED.values():
        for text in rule["annotations"].values():
            assert "$$" not in text
            assert "${" not in text  # an environment variable, for new versions
            assert not re.search(r"\$value\b|\$external|\.External|\(\.Value", text), text
            assert not re.search(r"\b(query|tmpl)\b", "".join(re.findall(r"\{\{.*?\}\}", text))), text


# --- alerts on the pages ----------------------------------------------------------------------------------------


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("metric", ["ALERTS", "GRAFANA_ALERTS"])
def test_pages_show_the_alerts_of_prometheus_and_those_of_grafana(tmp_path: Path, metric: str) -> None:
    """Grafana writes its alerts' states with these labels, and more of its own."""
    page = json.loads(files({}, Locations())["dashboards/bouncemeter-mail.json"])
    tiles = [each["targets"][0]["expr"] for each in page["panels"] if each["title"] == "Alerts"]
    marks = [each["expr"] for each in page["annotations"]["list"] if "critical" in each["expr"]]
    labels = 'job="bouncemeter",instance="mx1:19525",severity="critical"'
    more = ',grafana_alertstate="alerting",grafana_rule_uid="bouncemeterdown"' if metric == "GRAFANA_ALERTS" else ""
    series = [
        {"series": f'{metric}{{alertname="{name}",alertstate="{state}",{labels}{more}}}', "values": "1x3"}
        for name, state in [("BouncemeterDown", "firing"), ("MailLogSilent", "pending"), ("NodeDown", "firing")]
    ]
    asked = [
        {
            "expr": re.sub(r"\$\w+", ".+", query),
            "eval_time": "2m",
            "exp_samples": [{"labels": shown, "value": 1}],
        }
        for query, shown in zip([*tiles, *marks], ["{}", '{severity="critical"}'], strict=True)
    ]
    (tmp_path / "test.yml").write_text(
        json.dumps({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- where Grafana puts variables of its environment ------------------------------------------------------------


def test_a_dollar_is_doubled_where_grafana_looks_for_variables_and_only_there() -> None:
    locations = Locations("http://$host", "15s", "/srv/$x/dashboards", "https://wiki/$page", None)
    found = files({}, locations)
    (source,) = yaml.safe_load(found[SOURCE])["datasources"]
    assert source["url"] == "http://$$host"
    (provider,) = yaml.safe_load(found["provisioning/dashboards/bouncemeter.yml"])["providers"]
    assert provider["options"]["path"] == "/srv/$$x/dashboards"
    for rule in yaml.safe_load(found[ALERTING])["groups"][0]["rules"]:
        assert rule["annotations"]["runbook_url"].startswith("https://wiki/$page#")
        assert "$$" not in json.dumps(rule)
        assert "$" not in json.dumps([rule["labels"], rule["title"], rule["uid"]])


# --- whom Grafana's own alerts tell ------------------------------------------------------------------------------


def test_every_alert_tells_a_contact_point_that_exists() -> None:
    found = yaml.safe_load(files({}, Locations(recipient="oncall@example.org"))[ALERTING])
    (contact,) = found["contactPoints"]
    (receiver,) = contact["receivers"]
    assert (receiver["type"], receiver["settings"]["addresses"]) == ("email", "oncall@example.org")
    told = {rule["notification_settings"]["receiver"] for rule in found["groups"][0]["rules"]}
    assert told == {contact["name"]}
    assert "policies" not in found  # Grafana would replace all policies that it has


# --- the data source --------------------------------------------------------------------------------------------


def test_the_data_source_has_a_name_of_its_own_and_all_alerts_and_pages_use_it() -> None:
    found = files({}, Locations())
    (source,) = yaml.safe_load(found[SOURCE])["datasources"]
    assert source["name"].lower() != "prometheus"
    assert "isDefault" not in source
    assert uids(found) == {source["uid"]}


def test_with_a_uid_the_data_source_of_grafana_is_used_and_none_is_made() -> None:
    found = files({}, Locations(datasource="P1809F7CD0C75ACF3"))
    assert SOURCE not in found
    assert uids(found) == {"P1809F7CD0C75ACF3"}


def uids(found: dict[str, str]) -> set[str]:
    """The uids of data sources that alerts ask and pages open with."""
    asked = [each for rule in yaml.safe_load(found[ALERTING])["groups"][0]["rules"] for each in rule["data"]]
    pages = [json.loads(text) for name, text in found.items() if name.endswith(".json")]
    return (
        {each["datasourceUid"] for each in asked} - {"__expr__"}
        | {each["model"]["datasource"]["uid"] for each in asked if "datasource" in each["model"]}
        | {page["templating"]["list"][0]["current"]["value"] for page in pages}
    )


def test_an_unreachable_prometheus_is_told_once_and_ends_no_alert() -> None:
    states = {name: rule["execErrState"] for name, rule in MANAGED.items()}
    assert [name for name, state in states.items() if state == "Error"] == ["BouncemeterDown"]
    assert {*states.values()} == {"Error", "KeepLast"}
    assert "$values" not in json.dumps(MANAGED["BouncemeterDown"])  # there are none if the query failed
