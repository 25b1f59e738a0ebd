"""PromQL of the dashboards: selectors follow the variables, and counts include the first value of a new series.

A dashboard's variable filters every metric that has a label of the same name.

Counts come from the counters themselves, plus `born`, the first values that `increase` cannot see: rules that are
loaded late hide nothing. Over weeks that is slow. Then the variable `recorded` is `.*`, and counts come from
`increase5m`. No series has a label `recorded`, so `recorded!~".*"` selects nothing, at no cost, and `recorded=~".*"`
selects all; with `.+`, it is the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["BAR", "RANGE", "RATE", "SERVER", "Queries", "or_none"]

LABELS = {
    "mail_bounces": "mta kind class code reason provider",
    "mail_bounces_by_class": "mta kind class",
    "mail_bounces_by_sender": "mta sender kind class",
    "mail_bounced_messages": "mta kind class",
    "mail_recipients": "mta outcome provider",
    "mail_delivery_attempts": "mta outcome class code",
    "mail_rejections": "mta kind class code reason stage",
    "mail_notifications": "mta outcome",
    "mail_blocklist_hits": "mta blocklist provider",
    "mail_deferred_recipients": "mta class code provider",
    "mail_deferred_oldest_seconds": "mta",
    "mail_delivery_delay_seconds": "mta outcome",
    "bouncemeter_lines": "source mta result",
    "bouncemeter_last_event_timestamp_seconds": "mta",
}
"""The labels of each metric, besides `TARGET_LABELS`."""

TARGET_LABELS = ["job", "instance"]
"""The labels that Prometheus adds to every metric."""

FROM_ZERO = {"mail_bounces", "mail_recipients", "mail_rejections", "mail_blocklist_hits"}
"""Counters whose series appear late. Recording rules keep the value that each begins with, and their increases."""

SERVER = "server"
"""Stands for the labels of one mail server: mta, and all that its target has, such as instance and cluster. More labels
may follow."""

ADDED = "born"
"""A label that only tells a first value from the increase of the same series, until both are added."""

EVALUATIONS = 2
"""How many samples `born` has of each series: it is recorded for a minute."""

TOP = 9
"""The number of series in a graph, besides one for the rest."""

RANGE, RATE, BAR = "$__range", "$__rate_interval", "$__interval"
"""Windows: the whole time range shown, a window for rates, and the time between two points of a graph."""

SCRAPED, RECORDED = 'recorded!~"$recorded"', 'recorded=~"$recorded"'
"""Matchers that select all series, or none, by the variable `recorded`."""


class Queries:
    """Writes the queries of one dashboard.

    Args:
        variables: The names of the variables that filter, besides job and instance.

    A label value that begins with `~` is a regular expression. One that begins with `!` is excluded.
    """

    def __init__(self, *variables: str) -> None:
        self.variables = variables

    def select(self, metric: str, name: str = "", **labels: str) -> str:
        """A selector.

        Args:
            metric: The metric, without a counter's or histogram's suffix.
            name: The series' name, if it differs.
            labels: The values of labels.
        """
        own = LABELS.get(metric, "").split()
        chosen = [f'{each}=~"${each}"' for each in ("job", "instance", *self.variables) if each in own + TARGET_LABELS]
        for label, value in labels.items():
            operator = {"~": "=~", "!": "!="}.get(value[:1], "=")
            chosen.append(f'{label}{operator}"{value.lstrip("~!")}"')
        return f"{name or metric}{{{', '.join(chosen)}}}"

    def firing(self, **labels: str) -> str:
        """Our alerts that fire: Prometheus' alerts, or Grafana's if it writes their states to Prometheus."""
        chosen = labels | {"alertname": "~Mail.+|Bouncemeter.+"}
        return " or ".join(self.select(name, alertstate="firing", **chosen) for name in ("ALERTS", "GRAFANA_ALERTS"))

    def up(self) -> str:
        """Whether each known bouncemeter exporter answers; Prometheus scrapes others too."""
        known = f"max_over_time({self.select('bouncemeter_build_info')}[1d])"
        return f"{self.select('up')} and on (job, instance) {known}"

    def count(self, metric: str, window: str, by: str = "", when: str = "", **labels: str) -> str:
        """The count in a window, by labels or by `SERVER`. `when` is an offset, or a time other than the query's."""
        each = [
            f"{function}({{}}{f'[{window}] {when}'.strip()})"
            for function in ("increase", "min_over_time", "sum_over_time")
        ]
        return self._counted(metric, by, each, labels)

    def count_now(self, metric: str, window: str, by: str = "", **labels: str) -> str:
        """The count in a short window up to now: the last minutes of it are not recorded yet."""
        return self._counted(metric, by, [f"increase({{}}[{window}])", f"min_over_time({{}}[{window}])"], labels)

    def per_bar(self, metric: str, by: str = "", **labels: str) -> str:
        """The count in each bar of a graph. The rate's window reaches back into the previous bar, so nothing between
        two bars is lost. The rate times the bar's length is the count."""
        each = [f"rate({{}}[{RATE}])", f"sum_over_time({{}}[{BAR}])", f"sum_over_time({{}}[{BAR}])"]
        return self._counted(metric, by, each, labels, ("$__interval_ms / 1000 * ", f"1 / {EVALUATIONS} * "))

    def per_minute(self, metric: str, by: str = "", **labels: str) -> str:
        """The rate per minute at each point of a graph, by labels."""
        if metric in FROM_ZERO:
            return f"60000 / $__interval_ms * {self.per_bar(metric, by, **labels)}"
        return f"60 * {self.sum_by(metric, by)}(rate({self.select(metric, f'{metric}_total', **labels)}[{RATE}]))"

    def top(self, metric: str, label: str, **labels: str) -> tuple[str, str]:
        """Two counts in each bar: of a label's values with the highest totals, and of all others."""
        each = self.per_bar(metric, label, **labels)
        most = f"on ({label}) topk({TOP}, {self.count(metric, RANGE, label, '@ end()', **labels)} > 0)"
        return or_none(f"{each} and {most}", label), f"sum({each} unless {most}) > 0"

    def sum_by(self, metric: str, by: str) -> str:
        """The aggregation that keeps labels, all labels of a server, or none."""
        kept = by.split(", ")
        if kept[0] != SERVER:
            return f"sum by ({by}) " if by else "sum"
        own = [label for label in LABELS[metric].split() if label not in ("mta", *kept)]
        return f"sum without ({', '.join(own)}) "

    def _counted(
        self, metric: str, by: str, each: Sequence[str], labels: Mapping[str, str], factors: Sequence[str] = ("", "")
    ) -> str:
        """The sum of the parts of a count. Each part is summed first, for `or` is slow on many series.

        Args:
            metric: The metric.
            by: The labels to keep.
            each: What to do with the counter, the values it begins with, and its recorded increases, if at all.
            labels: The values of labels.
            factors: What to multiply the first two with.
        """
        aggregation = self.sum_by(metric, by)

        def part(query: str, name: str, which: str = "", factor: str = "") -> str:
            chosen = self.select(metric, name, **labels)
            return f"{factor}{aggregation}({query.format(f'{chosen[:-1]}, {which}}}' if which else chosen)})"

        if metric not in FROM_ZERO:
            return part(each[0], f"{metric}_total", factor=factors[0])
        which = SCRAPED if each[2:] else ""
        born = part(each[1], f"series:{metric}:born", which, factors[1])
        parts = [
            part(each[0], f"{metric}_total", which, factors[0]),
            f'label_replace({born}, "{ADDED}", "yes", "", "")',
        ]
        parts += [part(query, f"series:{metric}:increase5m", RECORDED) for query in each[2:]]
        outer = f"sum without ({ADDED}) " if not by or by.startswith(SERVER) else f"sum by ({by}) "
        return f"{outer}({' or '.join(parts)})"


def or_none(query: str, *labels: str) -> str:
    """A query, or a single zero named `none` if the query is empty, so that a graph shows that nothing happened."""
    nothing = "vector(0)"
    for label in labels:
        nothing = f'label_replace({nothing}, "{label}", "none", "", "")'
    return f"{query} or on () {nothing}"
