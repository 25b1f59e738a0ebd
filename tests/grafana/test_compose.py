"""The example of exporter, Prometheus, Alertmanager and Grafana: its files fit together and are taken."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml
from bouncemeter_exporter.grafana.rules import DASHBOARDS, DATASOURCE, FILE

from tests.conftest import GRAFANA
from tests.servers.available import need

FOLDER = GRAFANA / "compose"


def test_the_programs_take_their_files(tmp_path: Path) -> None:
    need("prometheus")
    need("alertmanager")
    shutil.copy(FOLDER / "prometheus.yml", tmp_path)
    shutil.copytree(GRAFANA / "alerts", tmp_path / "rules")
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager") or "alertmanager"
    amtool = shutil.which("amtool") or str(Path(program).with_name("amtool"))
    done = subprocess.run(
        [amtool, "check-config", FOLDER / "alertmanager.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_mounted_is_there_and_services_find_each_other() -> None:
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
