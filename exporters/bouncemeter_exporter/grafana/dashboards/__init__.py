"""The Grafana dashboards, built as plain dictionaries and written to `grafana/dashboards`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bouncemeter_exporter.grafana.dashboards import codes, mail, providers, queue

__all__ = ["as_json", "dashboards"]


def dashboards(thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """All dashboards, by file name.

    Args:
        thresholds: All alert thresholds, by name. Tiles and dashed lines use the same numbers.
    """
    # 20, not 20.0
    numbers = {name: int(value) if value == int(value) else value for name, value in thresholds.items()}
    found = (module.dashboard(numbers) for module in (mail, codes, providers, queue))
    return {f"{each['uid']}.json": each for each in found}


def as_json(dashboard: Mapping[str, Any]) -> str:
    """A dashboard as readable JSON, the same each time."""
    return json.dumps(dashboard, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
