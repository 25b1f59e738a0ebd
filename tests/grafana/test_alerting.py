"""From a refused message to whoever is woken: real Postfix, Prometheus and Alertmanager."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from bouncemeter_exporter.grafana.rules import as_prometheus, rules

from tests.servers.alertmanager import Alertmanager
from tests.servers.exporter import Exporter
from tests.servers.net import wait_until
from tests.servers.postfix import Postfix
from tests.servers.prometheus import Prometheus
from tests.servers.smtp import FateServer

FLOOD = "MailPolicyBounceFlood"


@pytest.mark.needs("postfix", "prometheus", "alertmanager")
@pytest.mark.slow
def test_a_flood_of_refusals_reaches_whoever_is_on_call(server_dir: Path) -> None:
    # As exported, but evaluated more often, so that the test is short.
    text = as_prometheus(rules({})).replace('interval: "30s"', 'interval: "1s"')
    (server_dir / "bouncemeter.rules.yml").write_text(text)
    with FateServer() as server, Postfix(server_dir, server.port) as postfix, Alertmanager(server_dir) as alertmanager:
        postfix.send("sender@src.test", ["ok-0@dest.test"])
        more = (
            "rule_files: [bouncemeter.rules.yml]\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager.port}']}}]}}]}}\n"
        )
        with (
            Exporter("--from-start", postfix.log) as exporter,
            Prometheus(server_dir, exporter.port, more=more) as prometheus,
        ):
            prometheus.wait_for_value('mail_bounces_by_class_total{class="5.7"}', 0)
            for number in range(10):
                postfix.send("sender@src.test", [f"ok-{number}@dest.test", f"unknown-{number}@dest.test"])
            time.sleep(8)
            assert not [each for each in alertmanager.received if "Policy" in each["labels"]["alertname"]]
            for number in range(60):
                postfix.send("sender@src.test", [f"blocked-{number}@dest.test"])
                time.sleep(0.2)

            def told() -> bool:
                return any(each["labels"]["alertname"] == FLOOD for each in alertmanager.received)

            wait_until(told, 300, f"nobody was told: {alertmanager.received}")
    (alert, *_) = (each for each in alertmanager.received if each["labels"]["alertname"] == FLOOD)
    assert alert["status"] == "firing"
    assert alert["labels"]["severity"] == "critical"
    assert alert["labels"]["class"] == "5.7"
    told_number = re.match(
        r"(\d+) recipients were refused with 5.7.x in ten minutes on 127", alert["annotations"]["description"]
    )
    assert told_number is not None
    assert 20 <= int(told_number[1]) <= 70
    details = alert["annotations"]["details"]
    assert re.match(r"In \d+ messages. The alert begins at 2\d, by what is usual here", details)
    assert "There is no history yet to compare with." in details
    assert "Most: " in details
    assert "by other, reason blocklisted." in details
    assert alert["annotations"]["runbook_url"].endswith(f"#{FLOOD.lower()}")
