"""The recording rules of counters whose series begin late, from the counters in `rules.toml`.

`increase()` does not see a counter's birth. Of each counter:

- `from_zero`, if alerts look at it: the counter, with a first minute at 0 if it was born while its exporter was known.
  Of an exporter that has just come, what it brings is its past.
- `born`: the first value of a series that begins while its exporter is known, for a minute (two evaluations).
- `increase5m`: what was counted since five minutes before, exactly: from value to value, with what it began with, after
  a restart, and after an absence of up to an hour. It has no sample where nothing was counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["births", "from_zero"]

Rule = dict[str, str]

KNOWN = "mail_bounces_by_class_total"
"""A counter that exists from an exporter's first scrape on."""


def from_zero(counters: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """The rules that alerts need."""
    return [
        {
            "record": f"series:{each['name']}:from_zero",
            "expr": f"{each['name']}_total and {each['name']}_total offset 1m\n"
            f"or {each['name']}_total * 0 and on (job, instance, mta) {KNOWN} offset 1m\n"
            f"or {each['name']}_total",
        }
        for each in counters
        if each["alerts"]
    ]


def births(counters: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """The rules that dashboards need."""
    counters = list(counters)
    return [*map(_born, counters), *map(_increase, counters)]


def _born(counter: Mapping[str, Any]) -> Rule:
    total = f"{counter['name']}_total"
    return {
        "record": f"series:{counter['name']}:born",
        "expr": f"min_over_time({total}[1m]) unless {total} offset 1m\n"
        f"and ignoring ({counter['labels']}) {KNOWN} offset 1m",
    }


def _increase(counter: Mapping[str, Any]) -> Rule:
    total = f"{counter['name']}_total"
    before = f"last_over_time({total}[1h] offset 5m)"
    return {
        "record": f"series:{counter['name']}:increase5m",
        "interval": "5m",
        "expr": f"{total} - {before} > 0\nor {total} < {before}\nor (\n  {total} > 0 unless {before}\n"
        f"  and ignoring ({counter['labels']}) last_over_time({KNOWN}[1h] offset 5m)\n)",
    }
