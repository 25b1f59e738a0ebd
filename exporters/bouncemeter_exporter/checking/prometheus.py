"""Whether a Prometheus scrapes bouncemeter, has its rules, and can tell somebody."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

from bouncemeter_exporter.checking.finding import Finding, Level
from bouncemeter_exporter.config import Config
from bouncemeter_exporter.grafana.rules import rules

__all__ = ["check_prometheus"]

WAIT = 10
"""Seconds that Prometheus has to answer."""

MOST = 50_000_000
"""Bytes of an answer that are read."""


def check_prometheus(url: str, config: Config) -> Iterator[Finding]:
    """What a Prometheus knows.

    Args:
        url: Where it is.
        config: The exporter's settings: its port tells its target from others.
    """
    try:
        seen = _ask(url, "query", query="bouncemeter_build_info")["result"]
        yield from _scraped(url, seen, config.listen_address.rpartition(":")[2])
        yield from _rules(url)
        yield from _alertmanagers(url)
    except urllib.error.HTTPError as error:
        error.close()
        yield Finding(Level.WRONG, url, f"this is no Prometheus: it answers with status {error.code}")
    except OSError as error:
        yield Finding(Level.WRONG, url, f"cannot ask Prometheus: {getattr(error, 'reason', error)}")
    except (ValueError, LookupError, TypeError, AttributeError, HTTPException):
        yield Finding(Level.WRONG, url, "this is no Prometheus: it answers something else")


def _ask(url: str, path: str, **parameters: str) -> Any:  # noqa: ANN401 - what the API answers
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/{path}?{query}", timeout=WAIT) as answer:  # noqa: S310
        return json.loads(answer.read(MOST))["data"]


def _scraped(url: str, seen: list[dict[str, Any]], port: str) -> Iterator[Finding]:
    if seen:
        names = ", ".join(sorted(each["metric"].get("instance", "?") for each in seen))
        yield Finding(Level.OK, url, f"has the metrics of {len(seen)} bouncemeter: {names}")
    targets = _ask(url, "targets", state="active")["activeTargets"]
    ours = [
        each
        for each in targets
        if "bouncemeter" in each["labels"].get("job", "")
        or urllib.parse.urlsplit(each["scrapeUrl"]).port == _number(port)
    ]
    for each in ours:
        if each["health"] == "down":
            yield Finding(Level.WRONG, url, f"cannot scrape {each['scrapeUrl']}: {each['lastError']}")
    if not seen and not ours:
        remedy = f'add a job with targets: ["HOST:{port}"] to its scrape_configs, and reload it'
        yield Finding(Level.WRONG, url, "does not scrape any bouncemeter", remedy)
    elif not seen and all(each["health"] != "down" for each in ours):
        yield Finding(Level.NOTE, url, "has not scraped bouncemeter yet: ask again in a minute")


def _number(port: str) -> int | None:
    return int(port) if port.isdecimal() else None


def _rules(url: str) -> Iterator[Finding]:
    groups = _ask(url, "rules", type="alert")["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    wanted = [rule["alert"] for rule in rules({}) if "alert" in rule]
    missing = [name for name in wanted if name not in loaded]
    remedy = "write them by 'bouncemeter rules export DIR', add the file to its rule_files, and reload it"
    if len(missing) == len(wanted):
        yield Finding(Level.WARNING, url, "none of bouncemeter's alerts is loaded", remedy)
        return
    if missing:
        yield Finding(
            Level.WARNING, url, f"{len(missing)} of {len(wanted)} alerts are missing: {_few(missing)}", remedy
        )
    ill = [name for name in wanted if loaded.get(name, {}).get("health") == "err"]
    if ill:
        yield Finding(Level.WRONG, url, f"cannot evaluate {_few(ill)}: {loaded[ill[0]].get('lastError', '')}")
    if not missing and not ill:
        yield Finding(Level.OK, url, f"all {len(wanted)} alerts are loaded")


def _alertmanagers(url: str) -> Iterator[Finding]:
    known = _ask(url, "alertmanagers")["activeAlertmanagers"]
    if known:
        yield Finding(Level.OK, url, f"sends alerts to {_few([each['url'] for each in known])}")
    else:
        remedy = "name one under alerting: in its configuration; docs/tutorial.md shows all of it"
        yield Finding(Level.WARNING, url, "knows no Alertmanager, so nobody is told of an alert", remedy)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
