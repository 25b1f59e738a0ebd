"""The dashboards on several servers, with rules that are loaded late, and from recorded series."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.grafana.dashboards import dashboards
from bouncemeter_exporter.grafana.rules import with_defaults

from tests.grafana.day import HOUR, evaluate, store
from tests.grafana.fleet import TICK, Fleet, Period, timed
from tests.servers.prometheus import Prometheus

pytestmark = pytest.mark.needs("prometheus")

NOW = int(time.time()) // HOUR * HOUR
BEGIN, LOADED = NOW - 6 * HOUR, NOW - 2 * HOUR
CLUSTERS = {"north": 1, "south": 3}
CODES = {"5.1.1": (BEGIN, 7), "5.7.1": (NOW - 4 * HOUR, 500), "5.7.26": (NOW - HOUR, 800)}
"""When a counter of each code begins, and at what value. Each code counts 2 a minute in the cluster `north`."""


def samples() -> Iterator[tuple[str, float, int]]:
    for moment in range(BEGIN, NOW + 1, 60):
        for cluster, factor in CLUSTERS.items():
            server = f'job="bouncemeter",instance="mx1:19525",mta="postfix",cluster="{cluster}"'
            yield f'mail_bounces_by_class_total{{{server},kind="hard",class="5.7"}}', 0, moment
            minutes = (moment - BEGIN) // 60
            own = 'outcome="bounced",provider="google"'
            yield f"mail_recipients_total{{{server},{own}}}", 100 + 20 * factor * minutes, moment
            for code, (born, first) in CODES.items():
                if moment >= born:
                    own = f'kind="hard",class="{code[:3]}",code="{code}",reason="policy",provider="google"'
                    value = factor * (first + 2 * ((moment - born) // 60))
                    yield f"mail_bounces_total{{{server},{own}}}", value, moment


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Two clusters with equal names, and the recording rules since two hours."""
    base = tmp_path_factory.mktemp("history")
    store(base, samples())
    evaluate(base, LOADED, NOW, only=r"series:.+:(from_zero|born|increase5m)")
    with Prometheus(base, 1) as prometheus:
        yield prometheus


def shown(prometheus: Prometheus, title: str, window: str, recorded: str = ".+", number: int = 0) -> Any:
    """The answer to a query of a panel of the first page."""
    page = dashboards(with_defaults({}))["bouncemeter-mail.json"]
    panels = [each for row in page["panels"] for each in (row, *row.get("panels", []))]
    (panel,) = (each for each in panels if each["title"] == title)
    query = panel["targets"][number]["expr"].replace("$__range", window).replace("$recorded", recorded)
    query = query.replace("$__interval_ms", f"{HOUR}000").replace("$__interval", "1h").replace("$__rate_interval", "1h")
    query = re.sub(r"\$[a-z]+", ".+", query)
    if panel["type"] in {"stat", "table"}:
        return prometheus.ask("query", query=query, time=f"{NOW}")["result"]
    return prometheus.ask("query_range", query=query, start=f"{BEGIN + HOUR}", end=f"{NOW}", step=f"{HOUR}")["result"]


BORN_LATER = 800 + 2 * 60
"""What 5.7.26 counted in the cluster `north`: it began when the rules were loaded."""


@pytest.mark.xdist_group("history")
def test_rules_that_are_loaded_late_hide_no_history(history: Prometheus) -> None:
    counted = {each["metric"]["code"]: float(each["value"][1]) for each in shown(history, "Top codes", "6h")}
    both = sum(CLUSTERS.values())
    # Only what 5.7.1 began with, before there were rules, nobody has recorded.
    assert counted == pytest.approx(
        {"5.1.1": 2 * 360 * both, "5.7.1": 2 * 240 * both, "5.7.26": BORN_LATER * both}, rel=0.01
    )
    (total,) = shown(history, "Hard bounces", "6h")
    assert float(total["value"][1]) == pytest.approx(sum(counted.values()), rel=0.001)


@pytest.mark.xdist_group("history")
def test_each_bar_counts_what_a_counter_begins_with_once(history: Prometheus) -> None:
    (bars,) = shown(history, "Bounces, count per bar", "6h", number=2)
    counted = {int(moment): float(value) for moment, value in bars["values"]}
    both = sum(CLUSTERS.values())
    assert counted[NOW - 2 * HOUR] == pytest.approx(120 * both, rel=0.02)
    assert counted[NOW - HOUR] + counted[NOW] == pytest.approx((2 * 120 + BORN_LATER) * both, rel=0.02)


@pytest.mark.xdist_group("history")
def test_recorded_increases_are_exact(history: Prometheus) -> None:
    """Of the time since the rules were loaded, until the last evaluation, to the recipient."""
    counted = {
        each["metric"]["code"]: float(each["value"][1])
        for each in history.ask(
            "query",
            query="sum by (code) (sum_over_time(series:mail_bounces:increase5m[2h]))",
            time=f"{NOW}",
        )["result"]
    }
    both = sum(CLUSTERS.values())
    assert counted == {"5.1.1": 2 * 120 * both, "5.7.1": 2 * 120 * both, "5.7.26": (BORN_LATER - 2 * 5) * both}


@pytest.mark.xdist_group("history")
def test_clusters_with_equal_names_are_not_added(history: Prometheus) -> None:
    rows = {each["metric"]["cluster"]: float(each["value"][1]) for each in shown(history, "Mail servers", "6h")}
    assert rows == pytest.approx({name: 20 * 360 * factor for name, factor in CLUSTERS.items()}, rel=0.01)
    (worst,) = shown(history, "5.7.x, 10 min", "6h")
    assert float(worst["value"][1]) == pytest.approx(2 * 2 * 10 * max(CLUSTERS.values()), rel=0.02)
    assert len(shown(history, "Hard-bounce ratio by server", "6h")) == len(CLUSTERS)


@pytest.mark.parametrize("recorded", [".+", ".*"], ids=["every scrape", "recorded"])
def test_every_query_of_a_fleet_answers_soon(tmp_path: Path, recorded: str) -> None:
    """A small part of `make fleet`."""
    fleet = Fleet(2, 60, NOW)
    store(tmp_path, fleet.samples(NOW - 2 * HOUR, NOW))
    with Prometheus(tmp_path, 1) as prometheus:
        assert fleet.series > 900
        slow = [each for each in timed(prometheus, NOW - 60, Period("2 h", 2 * HOUR, TICK, recorded)) if each[2] > 5]
    assert slow == []
