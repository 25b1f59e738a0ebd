"""The example with exporter, Prometheus, Alertmanager and Grafana: its files are valid and fit together."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from bouncemeter_exporter.grafana.rules import DASHBOARDS, DATASOURCE, FILE

from tests.conftest import GRAFANA
from tests.servers.alertmanager import Alertmanager
from tests.servers.net import free_port, wait_until

FOLDER, MAILS = GRAFANA / "compose", GRAFANA / "alerts" / "alertmanager"


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
        ["amtool", "check-config", MAILS / "alertmanager.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mounted_files_exist_and_services_find_each_other() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    mounted = {}
    for name, service in services.items():
        for volume in service.get("volumes", ()):
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
    (written,) = yaml.safe_load((GRAFANA / "provisioning/datasources/bouncemeter.yml").read_text())["datasources"]
    assert source | {"url": written["url"]} == written
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
    config = (MAILS / "alertmanager.yml").read_text().partition("    email_configs:")[0]
    config = config.replace("templates:", "#") + "    webhook_configs: [{url: 'http://127.0.0.1:{port}/'}]\n"
    config = config.replace("group_wait: 30s", "group_wait: 1s").replace("group_interval: 5m", "group_interval: 1s")
    alerts = [{"alertname": name, "provider": "google", "severity": "critical", **SERVER} for name in firing]
    other = {"alertname": "MailBacklogGrowing", "severity": "warning", **SERVER, "instance": "mx2:19525"}
    with Alertmanager(server_dir, config) as alertmanager:
        alertmanager.alert(*alerts, other)
        wait_until(lambda: len(alertmanager.received) >= len(told) + 1, 60, "nobody was told")
        time.sleep(3)
    names = {(each["labels"]["alertname"], each["labels"]["instance"]) for each in alertmanager.received}
    assert names == {*((name, "mx1:19525") for name in told), ("MailBacklogGrowing", "mx2:19525")}


def test_the_exporter_is_the_image_with_the_least_rights() -> None:
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["bouncemeter"]
    image = FOLDER / service["build"]["context"] / service["build"]["dockerfile"]
    assert f"VOLUME {service['volumes'][1].partition(':')[2]}\n" in image.read_text()
    assert (service["read_only"], service["cap_drop"], service["group_add"]) == (True, ["ALL"], ["${LOG_GROUP:-4}"])
    assert service["command"][-1].startswith(f"{service['volumes'][0].split(':')[-2]}/")


def test_what_alertmanager_and_grafana_mail_is_caught() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    host, port = yaml.safe_load((MAILS / "alertmanager.yml").read_text())["global"]["smtp_smarthost"].split(":")
    assert (host, services["mail"]["network_mode"]) == ("localhost", "service:alertmanager")
    assert services["mail"]["environment"]["MP_SMTP_BIND_ADDR"] == f"0.0.0.0:{port}"
    assert services["grafana"]["environment"]["GF_SMTP_HOST"] == f"alertmanager:{port}"
    assert "127.0.0.1:8025:8025" in services["alertmanager"]["ports"]


@pytest.mark.needs("alertmanager")
@pytest.mark.slow
def test_mails_name_several_alerts_and_say_what_is_over(server_dir: Path) -> None:
    got: list[EmailMessage] = []

    class Mailbox:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            assert isinstance(envelope.content, bytes)
            got.append(message_from_bytes(envelope.content, policy=default))
            return "250 2.0.0 Ok"

    port = free_port()
    config = (MAILS / "alertmanager.yml").read_text().replace("localhost:25", f"127.0.0.1:{port}")
    config = config.replace("group_wait: 30s", "group_wait: 1s").replace("group_interval: 5m", "group_interval: 1s")
    shutil.copy(MAILS / "bouncemeter.tmpl", server_dir)
    texts = {"summary": "Far too much", "description": "99 <b>wait</b>.", "details": "", "first_step": "Look."}
    links = {"runbook_url": "https://example.org/runbook#x", "dashboard_url": "https://grafana.example.org/d/x?a=1&b=2"}
    flood = {"alertname": "MailPolicyBounceFlood", "severity": "critical", **SERVER}
    other = {"alertname": "MailBlocklisted", "severity": "critical", **SERVER}
    more = {"annotations": texts | links}
    local = {"summary": "A blocklist names us", "dashboard_url": "http://localhost:3000/d"}
    quiet = {"annotations": texts | links | local}
    controller = Controller(Mailbox(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        with Alertmanager(server_dir, config) as alertmanager:
            alertmanager.give({"labels": other, **quiet}, {"labels": flood, **more})
            wait_until(lambda: len(got) == 1, 60, "no mail came")
            over = datetime.now(UTC).isoformat()
            alertmanager.give({"labels": other, "endsAt": over, **quiet}, {"labels": flood, "endsAt": over, **more})
            wait_until(lambda: len(got) >= 2, 60, "no mail came of the end")
    finally:
        controller.stop()
    assert [mail["Subject"] for mail in (got[0], got[-1])] == [
        "Critical: A blocklist names us (and more): mx1:19525",
        "Over: A blocklist names us (and more): mx1:19525",
    ]
    first, last = ([part.get_content() for part in mail.iter_parts()] for mail in (got[0], got[-1]))
    for part in (*first, *last):
        assert "<no value>" not in part
        assert part.count("localhost:3000") == 0
    assert first[0].count("First:     Look.") == 2
    assert "99 &lt;b&gt;wait" in first[1]
    assert links["dashboard_url"] in first[0]
    assert "Over: Far too much." in last[0]
    assert "Until:     " in last[0]
    assert "First:" not in last[0]
