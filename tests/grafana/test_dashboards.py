"""The dashboards: their form, their queries on a real Prometheus, their links, and their numbers beside the log's."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import promql_parser as promql
import pytest
import yaml
from bouncemeter.knowledge.codes import catalogue
from bouncemeter.knowledge.reasons import reasons
from bouncemeter_exporter.grafana.dashboards import dashboards
from bouncemeter_exporter.grafana.provisioning import Locations, files
from bouncemeter_exporter.grafana.rules import NO_HISTORY, as_prometheus, details, rules, thresholds
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins

from tests.conftest import GRAFANA, Run
from tests.grafana.day import HOUR, INSTANCE, UNAUTHENTICATED, Incident, World, incidents, served
from tests.servers.exporter import Exporter
from tests.servers.prometheus import Prometheus

Panel = dict[str, Any]

DEFAULTS = {name: each.value for name, each in thresholds().items()}
PAGES = {page["uid"]: page for page in dashboards(DEFAULTS).values()}

WINDOWS = {"$__rate_interval": "5m", "$__range": "6h", "$__interval_ms": "300000", "$__interval": "5m"}


def panels(page: dict[str, Any], kinds: str = ".+") -> Iterator[Panel]:
    """All panels except headings, including those in folded rows."""
    for panel in page["panels"]:
        for each in [panel, *panel.get("panels", [])]:
            if each["type"] != "row" and re.fullmatch(kinds, each["type"]):
                yield each


EACH = [
    pytest.param(page, panel, id=f"{uid}, {panel['title']}") for uid, page in PAGES.items() for panel in panels(page)
]
each_panel = pytest.mark.parametrize(("page", "panel"), EACH)
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))


def written(query: str, **variables: str) -> str:
    """A query with its variables filled in. A variable without a value matches everything."""
    for name, window in WINDOWS.items():
        query = query.replace(name, window)
    return re.sub(r"\$([a-z]+)\b(?!\d)", lambda name: variables.get(name[1], ".+"), query)


# --- their form -------------------------------------------------------------------------------------------------


def test_the_committed_files_are_current() -> None:
    for name, text in files({}, Locations()).items():
        assert (GRAFANA / name).read_text() == text


def test_grafana_export_writes_every_file_with_the_given_settings(bouncemeter: Run, tmp_path: Path) -> None:
    settings = ["--prometheus-url", "http://prom:9090", "--policy-flood", "33", "--policy-flood-messages", "7"]
    done = bouncemeter("grafana", "export", tmp_path, *settings)
    assert sorted(done.stdout.split()) == sorted(str(tmp_path / name) for name in files({}, Locations()))
    assert 'url: "http://prom:9090"' in (tmp_path / "provisioning/datasources/bouncemeter.yml").read_text()
    assert ">= 7" in (tmp_path / "provisioning/alerting/bouncemeter.yml").read_text()
    (provider,) = yaml.safe_load((tmp_path / "provisioning/dashboards/bouncemeter.yml").read_text())["providers"]
    assert provider["options"]["path"] == str(tmp_path / "dashboards")
    mail = json.loads((tmp_path / "dashboards/bouncemeter-mail.json").read_text())
    assert 33 in [step["value"] for panel in panels(mail) for step in steps(panel)]


def test_grafana_export_writes_for_another_folder_and_for_a_data_source_that_is_there(
    bouncemeter: Run, tmp_path: Path
) -> None:
    done = bouncemeter("grafana", "export", tmp_path, "--dashboards-path", "/srv/pages", "--datasource-uid", "mine")
    assert "datasources" not in done.stdout
    assert not (tmp_path / "provisioning/datasources").exists()
    assert 'path: "/srv/pages"' in (tmp_path / "provisioning/dashboards/bouncemeter.yml").read_text()
    assert 'datasourceUid: "mine"' in (tmp_path / "provisioning/alerting/bouncemeter.yml").read_text()


def test_a_folder_that_cannot_be_written_is_reported(bouncemeter: Run, tmp_path: Path) -> None:
    (tmp_path / "dashboards").write_text("")
    done = bouncemeter("grafana", "export", tmp_path, check=False)
    assert done.returncode == 1
    assert "cannot write" in done.stderr


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What is in `before` but not in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"]
    elif isinstance(before, list) and isinstance(after, list):
        assert len(before) == len(after), path
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield f"{path}: {before} is {after}"


@each_page
def test_grafana_knows_every_key(page: dict[str, Any]) -> None:
    with warnings.catch_warnings():  # the schema is v1 on purpose: every Grafana since 10 imports it
        warnings.simplefilter("ignore", DeprecationWarning)
        from grafana_foundation_sdk.models.dashboard import Dashboard

        register_default_plugins()
    assert list(lost(page, json.loads(JSONEncoder().encode(Dashboard.from_json(page))))) == []


@each_page
def test_a_page_can_be_imported_and_provisioned(page: dict[str, Any]) -> None:
    assert page["schemaVersion"] == 42
    assert page["editable"] is False
    assert (page["refresh"], page["time"]["from"], page["graphTooltip"]) == ("1m", "now-6h", 1)
    assert "__inputs" not in page
    assert [each["name"] for each in page["templating"]["list"] if each["type"] == "datasource"] == ["datasource"]
    every = [*page["panels"], *(panel for row in page["panels"] for panel in row.get("panels", []))]
    assert len({panel["id"] for panel in every}) == len(every)


@each_page
def test_variables_narrow_each_other(page: dict[str, Any]) -> None:
    names: list[str] = []
    recorded = page["templating"]["list"][-1]
    assert (recorded["name"], recorded["current"]["value"]) == ("recorded", ".+")
    for variable in page["templating"]["list"][1:-1]:
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".+"
        assert variable["refresh"] == 2
        for name in ("job", "instance", "mta")[: len(names)]:
            assert f'{name}=~"${name}"' in variable["query"]["query"]
        names.append(variable["name"])
    assert names[:4] == ["job", "instance", "mta", "provider"]
    assert (names[4:] == ["kind", "class", "code", "reason"]) == (page["uid"] == "bouncemeter-codes")


@each_page
def test_panels_do_not_overlap_and_the_first_screen_has_tiles_and_a_graph(page: dict[str, Any]) -> None:
    def inside(panel: Panel) -> set[tuple[int, int]]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        return {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }

    for one, other in combinations([*page["panels"], *(p for row in page["panels"] for p in row.get("panels", []))], 2):
        assert not inside(one) & inside(other), (one["title"], other["title"])
    first = [panel for panel in panels(page) if panel["gridPos"]["y"] + panel["gridPos"]["h"] <= 21]
    assert [panel["type"] for panel in first].count("stat") >= 6
    assert any(panel["type"] == "timeseries" for panel in first)


@each_page
def test_alerts_are_marked_by_severity(page: dict[str, Any]) -> None:
    marks = page["annotations"]["list"]
    assert [re.search(r'severity="(\w+)"', each["expr"])[1] for each in marks] == ["critical", "warning"]  # type: ignore[index]
    assert all('alertstate="firing"' in each["expr"] for each in marks)
    for name in ("ALERTS", "GRAFANA_ALERTS"):  # Prometheus' alerts, and Grafana's
        assert all(re.search(rf"\b{name}{{", each["expr"]) for each in marks)


UNITS = {"mpm", "cpm", "percentunit", "s", "none", "locale", "bytes"}


@each_panel
def test_a_panel_explains_itself(page: dict[str, Any], panel: Panel) -> None:
    assert 3 <= len(panel["title"]) <= 40
    assert panel["type"] != "stat" or len(panel["title"]) <= 14
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"]["uid"] == "${datasource}"
    assert len(panel["description"]) > 60
    assert panel["description"].rstrip().endswith(".")
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        assert (target["format"] == "table") == (panel["type"] == "table")
        assert target["instant"] == (panel["type"] in {"stat", "table"})


def selectors(node: Any, *above: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The selectors of a query, each with the nodes around it."""
    if isinstance(node, promql.VectorSelector):
        yield node, above
    below = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "param")]
    for each in [*below, *(getattr(node, "args", None) or [])]:
        if each is not None:
            yield from selectors(each, *above, node)


@each_panel
def test_queries_are_well_formed(page: dict[str, Any], panel: Panel) -> None:
    for target in panel["targets"]:
        found = list(selectors(promql.parse(re.sub(r"\$__\w+", lambda name: WINDOWS[name[0]], target["expr"]))))
        assert found
        for selector, above in found:
            matchers = {each.name: each.value for each in selector.matchers.matchers}
            assert (matchers.get("job"), matchers.get("instance")) == ("$job", "$instance"), target["expr"]
            functions = [each.func.name for each in above if isinstance(each, promql.Call)]
            if re.search(r"_total$|_bucket$|:from_zero$", selector.name):
                assert {"rate", "increase"} & {*functions[-1:]}, target["expr"]
        windows = re.findall(r"rate\([^\[\]]*\[([^\]]*)\]", target["expr"])
        assert {*windows} <= {"$__rate_interval"}


def steps(panel: Panel) -> list[dict[str, Any]]:
    """All thresholds of a panel, including those of its columns."""
    config = panel["fieldConfig"]
    own = [
        value["value"] for each in config["overrides"] for value in each["properties"] if value["id"] == "thresholds"
    ]
    return (
        [step for each in [config["defaults"]["thresholds"], *own] for step in each["steps"]]
        if config["defaults"].get("thresholds")
        else []
    )


def test_tiles_and_lines_use_the_alert_thresholds() -> None:
    other = {name: value * 3 + 7 for name, value in DEFAULTS.items()}
    shown = {
        ("bouncemeter-mail", "5.7.x, 10 min"): "policy_flood",
        ("bouncemeter-mail", "5.7.x of ten minutes, by server"): "policy_flood",
        ("bouncemeter-mail", "Hard bounces of ten minutes, by sender"): "sender_flood",
        ("bouncemeter-mail", "Hard ratio"): "hard_bounce_ratio",
        ("bouncemeter-mail", "Hard-bounce ratio, of an hour"): "hard_bounce_ratio",
        ("bouncemeter-mail", "Hard-bounce ratio by server"): "hard_bounce_ratio",
        ("bouncemeter-mail", "Providers"): "provider_refusal_ratio",
        ("bouncemeter-mail", "Waiting"): "backlog",
        ("bouncemeter-providers", "Refusals of an hour, by provider"): "provider_refusal_ratio",
        ("bouncemeter-providers", "5.7.x of ten minutes, by provider"): "policy_flood",
        ("bouncemeter-queue", "Waiting by class"): "backlog",
        ("bouncemeter-queue", "Unparsed"): "unparsed_ratio",
        ("bouncemeter-queue", "Unread"): "lag",
        ("bouncemeter-queue", "Unread bytes by source"): "lag",
    }
    for values in (DEFAULTS, other):
        pages = {page["uid"]: page for page in dashboards(values).values()}
        for (uid, title), name in shown.items():
            (panel,) = (each for each in panels(pages[uid]) if each["title"] == title)
            assert values[name] in [step["value"] for step in steps(panel)], title
        for page in pages.values():  # and in the guards of ratios
            assert f">= {values['ratio_recipients']:g}" in json.dumps(page) or page["uid"] in {
                "bouncemeter-codes",
                "bouncemeter-queue",
            }


@pytest.mark.parametrize(("page", "panel"), [each for each in EACH if cast("Panel", each.values[1])["type"] == "table"])
def test_column_heads_have_room(page: dict[str, Any], panel: Panel) -> None:
    """About seven pixels a letter, the padding, and the arrow of the column that is sorted by."""
    (sort,) = panel["options"]["sortBy"]
    for each in panel["fieldConfig"]["overrides"]:
        title, properties = each["matcher"]["options"], {one["id"]: one["value"] for one in each["properties"]}
        width = properties.get("custom.width") or properties["custom.minWidth"]
        assert width >= 7 * len(title) + 14 + 22 * (title == sort["displayName"]), (panel["title"], title)


@each_panel
def test_counts_are_whole_numbers(page: dict[str, Any], panel: Panel) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["unit"] == "locale" and panel["type"] != "heatmap":
        assert defaults["decimals"] == 0
        # Else two lines of the grid might have the same number.
        assert panel["type"] != "timeseries" or defaults["custom"]["axisSoftMax"] == 5


def test_every_reason_is_explained() -> None:
    (panel,) = (each for each in panels(PAGES["bouncemeter-codes"]) if each["title"] == "Reasons")
    columns = {each["matcher"]["options"]: each["properties"] for each in panel["fieldConfig"]["overrides"]}
    (query,) = (each["expr"] for each in panel["targets"])
    for title, text in (("Meaning", "meaning"), ("What to do", "todo")):
        (mapping,) = (each["value"][0] for each in columns[title] if each["id"] == "mappings")
        assert {"id": "custom.wrapText", "value": True} in columns[title]
        for name, reason in reasons().items():
            (number,) = re.findall(rf'"meaning", "(\d+)", "reason", "{name}"', query)
            assert mapping["options"][number]["text"] == getattr(reason, text)


def test_every_code_and_class_is_explained_in_the_story() -> None:
    (story,) = (each for each in panels(PAGES["bouncemeter-codes"]) if each["title"].startswith("What it means"))
    columns = {each["matcher"]["options"]: each["properties"] for each in story["fieldConfig"]["overrides"]}
    for title in ("Meaning", "What to do"):
        (mapping,) = (each["value"][0] for each in columns[title] if each["id"] == "mappings")
        texts = {number: option["text"] for number, option in mapping["options"].items()}
        for code in (each.code for each in catalogue()):
            assert len(texts[f"{code.digit}{code.subject}{code.detail}"]) > 20
        assert {f"{digit}{subject}999" for digit in (4, 5) for subject in range(8)} <= {*texts}


# --- their links ------------------------------------------------------------------------------------------------


def links() -> Iterator[tuple[str, Panel, str]]:
    """Every link of every panel and cell."""
    for uid, page in PAGES.items():
        for panel in panels(page):
            config = panel["fieldConfig"]
            cells = [
                value["value"] for each in config["overrides"] for value in each["properties"] if value["id"] == "links"
            ]
            for each in [*config["defaults"].get("links", []), *(link for cell in cells for link in cell)]:
                yield uid, panel, each["url"]


def test_every_link_leads_to_a_page_and_keeps_the_time_and_the_selection() -> None:
    found = [each for each in links() if not each[2].startswith("/alerting/")]
    assert len(found) > 30
    for uid, panel, url in found:
        path, _, query = url.partition("?")
        target = PAGES[path.removeprefix("/d/")]
        names = {each["name"] for each in target["templating"]["list"]}
        parts = query.split("&")
        assert parts[-1] == "${__url_time_range}"
        here = {each["name"] for each in PAGES[uid]["templating"]["list"]}
        kept = re.findall(r"\$\{(\w+):queryparam\}", query)
        chosen = re.findall(r"var-(\w+)=([^&]+)", query)
        assert sorted([*kept, *(name for name, _ in chosen)]) == sorted(
            {*(here & names), *(name for name, _ in chosen)}
        )
        for name, value in chosen:
            assert name in names
            if label := re.fullmatch(r"\$\{__field\.labels\.(\w+)\}", value):
                assert label[1] in panel["targets"][0]["expr"]


@each_page
@pytest.mark.parametrize(("title", "begin"), [("24 hours", "now-24h"), ("30 days", "now-30d")])
def test_links_to_longer_times_keep_the_selection_and_ask_recorded_series(
    page: dict[str, Any], title: str, begin: str
) -> None:
    (url,) = (each["url"] for each in page["links"] if each["title"] == title)
    path, _, query = url.partition("?")
    assert path == f"/d/{page['uid']}"
    names = [each["name"] for each in page["templating"]["list"]]
    assert re.findall(r"\$\{(\w+):queryparam\}", query) == names[:-1]
    assert query.endswith(f"&var-recorded=.%2A&from={begin}&to=now")


@each_panel
def test_every_filter_acts_or_the_panel_says_that_it_does_not(page: dict[str, Any], panel: Panel) -> None:
    said = dict(re.findall(r"Not a filter of (this panel|all of this panel): ([a-z, ]+)\.", panel["description"]))
    for variable in page["templating"]["list"][1:-1]:
        acts = [f'=~"${variable["name"]}"' in target["expr"] for target in panel["targets"]]
        label = variable["label"].lower()
        assert (label in said.get("this panel", "").split(", ")) == (not any(acts)), label
        assert (label in said.get("all of this panel", "").split(", ")) == (any(acts) and not all(acts)), label


def test_cells_of_codes_providers_and_reasons_are_links() -> None:
    for page in PAGES.values():
        for panel in panels(page, "table"):
            for column in panel["fieldConfig"]["overrides"]:
                linked = any(each["id"] == "links" for each in column["properties"])
                if column["matcher"]["options"] in {"Code", "Provider", "Reason"} and "Blocklist" not in panel["title"]:
                    assert linked, (panel["title"], column["matcher"]["options"])


def test_alerts_link_to_existing_dashboards_panels_and_variables() -> None:
    managed = (GRAFANA / "provisioning/alerting/bouncemeter.yml").read_text()
    numbers = dict(re.findall(r'__dashboardUid__: "(.+)"\n +__panelId__: "(\d+)"', managed))
    assert {*numbers} == {*PAGES}
    for uid, number in re.findall(r'__dashboardUid__: "(.+)"\n +__panelId__: "(\d+)"', managed):
        assert int(number) in [panel["id"] for panel in panels(PAGES[uid])]
    for rule in rules({}):
        if "alert" in rule:
            url = urllib.parse.urlsplit(rule["annotations"]["dashboard_url"])
            names = {each["name"] for each in PAGES[url.path.removeprefix("/d/")]["templating"]["list"]}
            asked = urllib.parse.parse_qs(url.query)
            assert {name.removeprefix("var-") for name in asked} <= names | {"from", "to"}
            assert {"var-job", "var-instance", "from", "to"} <= asked.keys()


TEMPLATE = re.compile(
    r" [0-9.]+ \| humanize(?:Percentage|Duration)"
    r" | \$labels\.(?:instance|mta|provider|sender|blocklist|source)"
    r' | \$values\.A\.Value \| (?:humanize1024|printf "%\.0f"|(?:printf "%\.2f" \| )?humanizePercentage) '
)


def test_a_data_source_that_grafana_has_is_used_and_none_is_written() -> None:
    found = files({}, Locations(datasource="prom-1"))
    assert not [name for name in found if "datasources" in name]
    (group,) = yaml.safe_load(found["provisioning/alerting/bouncemeter.yml"])["groups"]
    assert {each["datasourceUid"] for rule in group["rules"] for each in rule["data"]} == {"prom-1", "__expr__"}


def test_grafanas_alerts_match_prometheus_alerts() -> None:
    theirs = yaml.safe_load((GRAFANA / "provisioning/alerting/bouncemeter.yml").read_text())["groups"][0]
    ours = yaml.safe_load(as_prometheus(rules({})))["groups"][-1]
    assert theirs["interval"] == ours["interval"]
    assert [each["title"] for each in theirs["rules"]] == [each["alert"] for each in ours["rules"]]
    for managed, rule in zip(theirs["rules"], ours["rules"], strict=True):
        asked, decided, *_ = managed["data"]
        assert asked["model"]["expr"] == rule["expr"]
        assert asked["model"]["instant"] is True
        assert decided["model"]["conditions"][0]["evaluator"] == {"type": "gt", "params": [-1]}
        assert managed["condition"] == decided["refId"]
        assert (managed["for"], managed["labels"]) == (rule["for"], rule["labels"])
        assert managed.get("keepFiringFor") == rule.get("keep_firing_for")
        for name in ("summary", "description"):
            text = managed["annotations"][name]
            assert text.replace("$values.A.Value", "$value") == rule["annotations"][name]
            # Grafana expands these with Prometheus' own functions, and reads no $$: a label, or the value.
            for part in re.findall(r"\{\{(.*?)\}\}", text):
                assert TEMPLATE.fullmatch(part), part
        assert ("details" in managed["annotations"]) == ("details" in rule["annotations"])
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/bouncemeter.yml").read_text())["datasources"]
    assert {each["datasourceUid"] for rule in theirs["rules"] for each in rule["data"]} == {
        sources[0]["uid"],
        "__expr__",
    }


# --- their queries, on a real Prometheus ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Path]]:
    """A Prometheus with seven hours of mail with incidents, and an hour from a week ago."""
    base = tmp_path_factory.mktemp("afternoon")
    now = int(time.time()) // 60 * 60
    with served(base, World(1500, incidents(now), height=now - 3 * HOUR), now, hours=7, before=2) as prometheus:
        prometheus.wait_for_value(f'up{{instance="{INSTANCE}"}}', 1)
        yield prometheus, base


def answer(prometheus: Prometheus, panel: Panel, query: str, now: float) -> list[dict[str, Any]]:
    """The answer to a query, asked as its panel asks it."""
    found: list[dict[str, Any]]
    if panel["type"] in {"stat", "table"}:
        found = prometheus.ask("query", query=query, time=f"{now}")["result"]
    else:
        begin, step = f"{now - 6 * HOUR}", "300"
        found = prometheus.ask("query_range", query=query, start=begin, end=f"{now}", step=step)["result"]
    return found


@pytest.mark.needs("prometheus")
@pytest.mark.xdist_group("afternoon")
def test_every_query_of_every_panel_answers(afternoon: tuple[Prometheus, Path]) -> None:
    prometheus, _ = afternoon
    now = time.time()
    for page in PAGES.values():
        for panel in panels(page):
            for target in panel["targets"]:
                found = answer(prometheus, panel, written(target["expr"]), now)
                # With fewer than ten names, there are no others.
                rest = target["legendFormat"] == "all others"
                assert found or rest, (page["uid"], panel["title"], target["expr"])
                assert "NaN" not in json.dumps(found) or panel["title"] == "Delivery delay"
                if panel["type"] == "table":
                    assert len(found) <= 15 or "provider" in found[0]["metric"]
        for mark in page["annotations"]["list"]:
            begin, end = f"{now - 6 * HOUR}", f"{now}"
            assert prometheus.ask("query_range", query=written(mark["expr"]), start=begin, end=end, step="60")["result"]
        for variable in page["templating"]["list"][1:-1]:
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match
            assert prometheus.ask(f"label/{match[2]}/values", **{"match[]": written(match[1])})


@pytest.mark.needs("prometheus")
@pytest.mark.xdist_group("afternoon")
def test_the_panels_show_the_numbers_of_the_report(afternoon: tuple[Prometheus, Path], bouncemeter: Run) -> None:
    prometheus, base = afternoon
    report = json.loads(bouncemeter("report", "--format", "json", base / "mail.log").stdout)

    def shown(uid: str, title: str, **variables: str) -> list[dict[str, Any]]:
        (panel,) = (each for each in panels(PAGES[uid]) if each["title"] == title)
        # All that Prometheus has, including the hour from a week ago.
        query = written(panel["targets"][0]["expr"].replace("$__range", "9d"), **variables)
        return answer(prometheus, panel, query, time.time())

    def number(*words: str, **variables: str) -> float:
        return float(shown(*words, **variables)[0]["value"][1])

    near = pytest.approx
    assert number("bouncemeter-mail", "Hard bounces") == near(report["bounces"]["hard"], rel=0.01)
    assert number("bouncemeter-mail", "Soft bounces") == near(report["bounces"]["soft"], rel=0.01)
    ended = report["recipients"]["delivered"] + report["recipients"]["bounced"] + report["recipients"]["expired"]
    assert number("bouncemeter-mail", "Recipients") == near(ended, rel=0.01)
    counted: dict[str, float] = {}
    for row in shown("bouncemeter-mail", "Top codes"):
        counted[row["metric"]["code"]] = counted.get(row["metric"]["code"], 0) + float(row["value"][1])
    for each in report["codes"]:
        assert counted[each["code"]] == near(each["recipients"], rel=0.01), each["code"]
    refused = sum(each["recipients"] for each in report["codes"] if each["code"] == UNAUTHENTICATED[0])
    assert number("bouncemeter-codes", "Recipients", code="5.7.26") == near(refused, rel=0.01)
    google = next(each for each in report["providers"] if each["provider"] == "google")
    assert number("bouncemeter-mail", "Hard bounces", provider="google") == near(google["hard"], rel=0.01)


@pytest.mark.needs("prometheus")
def test_a_new_installation_does_not_look_broken(tmp_path: Path) -> None:
    """No mail yet: no query fails, none gives NaN, and a tile without a series says what that means."""
    (tmp_path / "mail.log").write_text("Nov 24 10:00:00 mx1 postfix/smtpd[1]: connect from a.example[192.0.2.1]\n" * 3)
    with Exporter("--from-start", tmp_path / "mail.log") as exporter, Prometheus(tmp_path, exporter.port) as prometheus:
        prometheus.wait_for_value('mail_bounces_by_class_total{class="5.7"}', 0)
        time.sleep(2.5)
        for page in PAGES.values():
            for panel in panels(page):
                found = [answer(prometheus, panel, written(each["expr"]), time.time()) for each in panel["targets"]]
                assert "NaN" not in json.dumps(found), panel["title"]
                if not any(found):
                    empty_text = panel["fieldConfig"]["defaults"].get("noValue")
                    # Ratios and delivery delays have no zero.
                    assert empty_text or "ratio" in panel["title"] or "elay" in panel["title"], panel["title"]


# --- alerts on a day of mail ------------------------------------------------------------------------------------


def fired(prometheus: Prometheus) -> set[str]:
    """The alerts that fired."""
    found = prometheus.ask("query", query='count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[30h]))')
    return {each["metric"]["alertname"] for each in found["result"]}


@pytest.mark.needs("prometheus")
@pytest.mark.xdist_group("afternoon")
def test_incidents_fire_alerts(afternoon: tuple[Prometheus, Path]) -> None:
    prometheus, _ = afternoon
    wanted = {"MailAuthenticationRefusals", "MailBlocklisted", "MailPolicyBounceFlood", "MailHardBounceRatioHigh"}
    assert wanted | {"MailPolicyBounceFloodByProvider", "MailBacklogGrowing"} <= fired(prometheus)


@pytest.mark.needs("prometheus")
@pytest.mark.xdist_group("afternoon")
def test_grafanas_further_numbers_are_there(afternoon: tuple[Prometheus, Path]) -> None:
    prometheus, _ = afternoon
    for alert in (
        "MailPolicyBounceFlood",
        "MailPolicyBounceFloodByProvider",
        "MailSenderBounceFlood",
        "MailBacklogGrowing",
    ):
        for each in details(alert):
            found = prometheus.ask("query", query=each.expr, time=f"{time.time() - HOUR / 2}")["result"]
            assert found, each
            # There is a history, but not of a day, as a backlog's must be.
            missing = each.text == NO_HISTORY and alert != "MailBacklogGrowing"
            assert all((float(sample["value"][1]) == -1) == missing for sample in found), each


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("hourly", [20, 800], ids=["small", "middle"])
@pytest.mark.slow
def test_an_ordinary_day_fires_no_alert(tmp_path: Path, hourly: float) -> None:
    now = int(time.time()) // 60 * 60
    calm: list[Incident] = []
    with served(tmp_path, World(hourly, calm), now, hours=26) as prometheus:
        assert prometheus.value('sum(increase(mail_bounces_by_class_total{class="5.7"}[1d]))') is not None
        assert fired(prometheus) == set()
