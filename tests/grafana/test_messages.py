"""Links from Grafana and from alerts to the messages behind a number, which `serve --web.trace` shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Run

URL = "https://mx1.example.org:19525"


def exported(bouncemeter: Run, folder: Path, *words: str) -> dict[str, str]:
    """What both exports write, by file name."""
    bouncemeter("grafana", "export", *words, folder)
    bouncemeter("rules", "export", *words, folder)
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_without_the_exporter_s_url_nothing_leads_there(bouncemeter: Run, tmp_path: Path) -> None:
    found = exported(bouncemeter, tmp_path)
    for name, text in found.items():
        assert "/trace" not in text, name
        assert "exemplarTraceIdDestinations" not in text, name
        assert "messages_url" not in text or name.endswith(".tmpl"), name


def test_exemplars_codes_and_alerts_lead_to_messages(bouncemeter: Run, tmp_path: Path) -> None:
    found = exported(bouncemeter, tmp_path, "--exporter-url", f"{URL}/")
    (source,) = yaml.safe_load(found["provisioning/datasources/bouncemeter.yml"])["datasources"]
    (exemplars,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["name"] == "queue_id"
    assert exemplars["url"] == f"{URL}/trace/$${{__value.raw}}"  # $$: Grafana would look for a variable of this name
    for page in ("mail", "codes"):
        assert f"{URL}/trace?code=${{__value.raw}}" in code_links(
            json.loads(found[f"dashboards/bouncemeter-{page}.json"])
        )
    groups = yaml.safe_load(found["bouncemeter.rules.yml"])["groups"]
    urls = {
        rule["alert"]: rule["annotations"]["messages_url"]
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }
    assert urls["MailPolicyBounceFlood"] == f"{URL}/trace?class=5.7"
    assert urls["MailAuthenticationRefusals"] == (
        f"{URL}/trace?reason=authentication&provider={{{{ $labels.provider }}}}"
    )
    assert urls["MailBacklogGrowing"] == f"{URL}/"
    for group in yaml.safe_load(found["provisioning/alerting/bouncemeter.yml"])["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["messages_url"] == urls[rule["title"]]


def code_links(page: dict[str, Any]) -> list[str]:
    """Where the codes in a dashboard's tables lead."""
    found = []
    for panel in (inner for each in page["panels"] for inner in (each, *each.get("panels", []))):
        for override in panel.get("fieldConfig", {}).get("overrides", []):
            if override["matcher"]["options"] == "Code":
                found += [
                    link["url"] for each in override["properties"] if each["id"] == "links" for link in each["value"]
                ]
    return found


def test_what_is_no_url_is_refused(bouncemeter: Run, tmp_path: Path) -> None:
    done = bouncemeter("rules", "export", "--exporter-url", "mx1:19525", tmp_path, check=False)
    assert done.returncode == 2
    assert "--exporter-url: 'mx1:19525' is not a URL" in done.stderr
