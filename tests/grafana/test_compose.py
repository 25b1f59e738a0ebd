"""The example with exporter, Prometheus, Alertmanager and Grafana: its files are valid and fit together."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from bouncemeter_exporter.grafana.rules import DASHBOARDS, DATASOURCE, FILE

from tests.conftest import GRAFANA
from tests.servers.alertmanager import Alertmanager
from tests.servers.net import wait_until

FOLDER = GRAFANA / "compose"


@pytest.mark.needs("prometheus", "alertmanager")
def test_prometheus_and_alertmanager_accept_their_files(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "prometheus.yml", tmp_path)
    shutil.copytree(GRAFANA / "alerts", tmp_path / "rules")
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout
    done = subprocess.run(
        ["amtool", "check-config", FOLDER / "alertmanager.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mounted_files_exist_and_services_find_each_other() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    mounted = {}
    for name, service in services.items():
        for volume in service["volumes"]:
            if volume.startswith("."):
                source, target, _ = volume.split(":")
                assert (FOLDER / source).exists(), volume
                mounted[name, target] = (FOLDER / source).resolve()
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert (mounted["prometheus", "/etc/prometheus/rules"] / FILE).is_file()
    assert prometheus["rule_files"] == ["rules/*.rules.yml"]
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert f"0.0.0.0:{port}" in services[host]["command"]
    (target,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target.split(":")[0] in services
    (source,) = yaml.safe_load((FOLDER / "datasource.yml").read_text())["datasources"]
    assert source["uid"] == DATASOURCE
    assert source["url"].removeprefix("http://").split(":")[0] in services
    assert len(list(mounted["grafana", DASHBOARDS].glob("*.json"))) == 4


SERVER = {"job": "bouncemeter", "instance": "mx1:19525", "mta": "postfix"}


@pytest.mark.needs("alertmanager")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("firing", "told"),
    [
        (
            ["MailPolicyBounceFlood", "MailPolicyBounceFloodByProvider", "MailHardBounceRatioHigh"],
            {"MailPolicyBounceFlood"},
        ),
        (["MailProviderRefusesNearlyAll", "MailBacklogGrowing"], {"MailProviderRefusesNearlyAll"}),
        (["BouncemeterDown", "MailBacklogOld", "MailLogSilent"], {"BouncemeterDown"}),
        (["MailBlocklisted", "MailPolicyBounceTrickle"], {"MailBlocklisted"}),
    ],
)
def test_an_incident_is_told_once(server_dir: Path, firing: list[str], told: set[str]) -> None:
    config = (FOLDER / "alertmanager.yml").read_text().replace("http://localhost:9095/", "http://127.0.0.1:{port}/")
    config = config.replace("group_wait: 30s", "group_wait: 1s").replace("group_interval: 5m", "group_interval: 1s")
    alerts = [{"alertname": name, "provider": "google", "severity": "critical", **SERVER} for name in firing]
    other = {"alertname": "MailBacklogGrowing", "severity": "warning", **SERVER, "instance": "mx2:19525"}
    with Alertmanager(server_dir, config) as alertmanager:
        alertmanager.alert(*alerts, other)
        wait_until(lambda: len(alertmanager.received) >= len(told) + 1, 60, "nobody was told")
        time.sleep(3)
    names = {(each["labels"]["alertname"], each["labels"]["instance"]) for each in alertmanager.received}
    assert names == {*((name, "mx1:19525") for name in told), ("MailBacklogGrowing", "mx2:19525")}
