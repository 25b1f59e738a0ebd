"""The recording rules that compare a count with its own past, from the signals in `rules.toml`.

Of each signal: what happened in its window (`increase10m`); the most that happened at this time of day yesterday and a
week ago (`peak10m`); its usual share of the traffic (`share10m`); whether there is a history to know that from
(`history10m`); and the number at which it alerts (`limit10m`):

    factor * the larger of peak and share of the present traffic, and 5 more, but the floor at least

So neither a newsletter that goes out at the same time each night nor a server that sends twice as much makes an alert.
What alerted is left out of yesterday's peak and of the share (`quiet10m`, half an hour late, so that the beginning of
what alerts is left out too). It stays in the peak of a week ago: what comes back each week is usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["BASELINE_INTERVAL", "Signal", "baselines", "signal_rules"]

Rule = dict[str, str]

BASELINE_INTERVAL = 2
"""Minutes between evaluations of what is usual: it changes slowly."""

AROUND = 75
"""Minutes before and after the same time of day that count as the same time: a clock that changes by an hour, too."""

LATE = 30
"""Minutes by which `quiet` is late."""

MARGIN = 5
"""What is added to a multiple of the usual number, or the floor if that is lower: small numbers vary by chance."""

DAY, WEEK = 1440, 10080

PRIOR = 200
"""Recipients that the assumed share counts for: it fades as real history comes."""

HISTORY = 60
"""Minutes of history after which what is above the limit is left out of it."""


class Signal:
    """One signal of `rules.toml`.

    Args:
        row: Its entry there.
        thresholds: All thresholds, by name.
    """

    def __init__(self, row: Mapping[str, Any], thresholds: Mapping[str, float]) -> None:
        self.name, self.window, self.count = row["name"], row["window"], row["count"].strip()
        self.traffic = row.get("traffic")
        self.floor, self.factor = thresholds[row["floor"]], thresholds[row["factor"]]
        self.assumed = thresholds["assumed_share"]
        apart = row.get("apart", "")
        self.join = f"ignoring ({apart}) group_left () " if apart else ""

    def record(self, what: str) -> str:
        """The name of one of its recording rules."""
        if not self.window:
            return f"{self.name}:{'sum' if what == 'increase' else what}"
        return f"{self.name}:{what}{self.window}"

    def rules(self) -> Iterator[Rule]:
        """The rules that follow the traffic."""
        now, peak = self.record("increase"), self.record("peak")
        yield {"record": now, "expr": self.count}
        usual = [_marked(peak, "peak")]
        if self.traffic:
            share = f"({self.record('share')} or {now} * 0 + {self.assumed:g})"
            usual.append(_marked(f"{share} * {self.join}{self.traffic}:increase{self.window}", "share"))
        usual.append(_marked(f"{now} * 0", "none"))
        yield {
            "record": self.record("limit"),
            "expr": f"clamp_min({min(self.floor, MARGIN):g} + {self.factor:g} * {_largest(usual)}, {self.floor:g})",
        }
        history = f"{self.record('share')} offset {HISTORY}m" if self.traffic else self._yesterday()
        yield {"record": self.record("history"), "expr": f"{history} >= bool 0"}
        above = f"{now} >= {self.record('limit')}\nand {self.record('history')}"
        yield {"record": self.record("above"), "expr": above}

    def baselines(self) -> Iterator[Rule]:
        """The rules that say what is usual."""
        now, quiet = self.record("increase"), self.record("quiet")
        alerted = f"max_over_time({self.record('above')}[{2 * LATE}m])"
        yield {"record": quiet, "expr": f"{now} offset {LATE}m\nunless {alerted}"}
        week = f"max_over_time({now}[{2 * AROUND}m] offset {WEEK - AROUND}m)"
        peak = _largest([_marked(self._yesterday(), "yesterday"), _marked(week, "week")])
        if not self.traffic:
            peak += f"\nor max_over_time({quiet}[1h] offset 1h)"
        yield {"record": self.record("peak"), "expr": peak}
        if self.traffic:
            # Each recipient is in as many evaluations as its window is long.
            each, beside = BASELINE_INTERVAL / _minutes(self.window), self.record("quiet_traffic")
            without = "" if self.join else f"\nunless {alerted}"
            yield {"record": beside, "expr": f"{self.traffic}:increase{self.window} offset {LATE}m{without}"}
            known = f"(sum_over_time({quiet}[7d]) * {each:.6g} or {now} * 0) + {PRIOR * self.assumed:g}"
            whole = f"sum_over_time({beside}[7d]) * {each:.6g} + {PRIOR}"
            yield {"record": self.record("share"), "expr": f"({known})\n/ {self.join}({whole})"}

    def _yesterday(self) -> str:
        """The most at this time of yesterday, without what alerted."""
        return f"max_over_time({self.record('quiet')}[{2 * AROUND}m] offset {DAY - AROUND - LATE}m)"


def signal_rules(signals: list[Signal]) -> list[Rule]:
    """The rules of all signals that follow the traffic."""
    return [rule for each in signals for rule in each.rules()]


def baselines(signals: list[Signal]) -> list[Rule]:
    """The rules of all signals that say what is usual."""
    return [rule for each in signals for rule in each.baselines()]


def _marked(expression: str, name: str) -> str:
    """An expression with a label that keeps it apart from others of the same labels."""
    return f'label_replace({expression}, "of", "{name}", "", "")'


def _largest(expressions: list[str]) -> str:
    """The largest of several expressions, for each set of labels."""
    return "max without (of) (\n  " + "\n  or ".join(expressions) + "\n)"


def _minutes(window: str) -> int:
    """The minutes in a window such as 10m or 6h."""
    return int(window[:-1]) * {"m": 1, "h": 60}[window[-1]]
