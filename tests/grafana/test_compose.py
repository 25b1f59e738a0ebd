"""The example with exporter, Prometheus, Alertmanager and Grafana: its files are valid and fit together."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from bouncemeter_exporter.grafana.rules import DASHBOARDS, DATASOURCE, FILE

from tests.conftest import GRAFANA

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
