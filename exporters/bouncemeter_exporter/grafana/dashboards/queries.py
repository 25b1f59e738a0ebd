"""PromQL of the dashboards: selectors follow the variables, and counts include the first value of a new series.

A dashboard's variable filters every metric that has a label of the same name.
"""

from __future__ import annotations

__all__ = ["RANGE", "RATE", "Queries", "or_none"]

LABELS = {
    "mail_bounces": "mta kind class code reason provider",
    "mail_bounces_by_class": "mta kind class",
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
"""Counters whose series appear late. Recording rules make them begin at zero."""

TOP = 9
"""The number of series in a graph, besides one for the rest."""

RANGE, RATE = "$__range", "$__rate_interval"
"""Windows: the whole time range shown, and the time between two points of a graph."""


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
        """A selector for our alerts that fire."""
        return self.select("ALERTS", alertstate="firing", **labels, alertname="~Mail.+|Bouncemeter.+")

    def up(self) -> str:
        """Whether each known bouncemeter exporter answers; Prometheus scrapes others too."""
        known = f"max_over_time({self.select('bouncemeter_build_info')}[1d])"
        return f"{self.select('up')} and on (job, instance) {known}"

    def count(self, metric: str, window: str, by: str = "", when: str = "", **labels: str) -> str:
        """The count in a window, by labels. `when` is an offset, or a time other than the query's."""
        return f"{_sum(by)}({self._counted('increase', metric, window, when, labels)})"

    def per_bar(self, metric: str, by: str = "", **labels: str) -> str:
        """The count in each bar of a graph. The rate's window reaches back into the previous bar, so nothing between
        two bars is lost. The rate times the bar's length is the count."""
        return f"$__interval_ms / 1000 * {_sum(by)}({self._counted('rate', metric, RATE, '', labels)})"

    def per_minute(self, metric: str, by: str = "", **labels: str) -> str:
        """The rate per minute at each point of a graph, by labels."""
        return f"60 * {_sum(by)}({self._counted('rate', metric, RATE, '', labels)})"

    def top(self, metric: str, label: str, **labels: str) -> tuple[str, str]:
        """Two counts in each bar: of a label's values with the highest totals, and of all others."""
        each = self.per_bar(metric, label, **labels)
        most = f"on ({label}) topk({TOP}, {self.count(metric, RANGE, label, '@ end()', **labels)} > 0)"
        return or_none(f"{each} and {most}", label), f"sum({each} unless {most}) > 0"

    def _counted(self, function: str, metric: str, window: str, when: str, labels: dict[str, str]) -> str:
        when = f"[{window}] {when}".strip()
        counted = f"{function}({self.select(metric, f'{metric}_total', **labels)}{when})"
        if metric not in FROM_ZERO:
            return counted
        return f"{function}({self.select(metric, f'series:{metric}:from_zero', **labels)}{when}) or {counted}"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def or_none(query: str, *labels: str) -> str:
    """A query, or a single zero named `none` if the query is empty, so that a graph shows that nothing happened."""
    nothing = "vector(0)"
    for label in labels:
        nothing = f'label_replace({nothing}, "{label}", "none", "", "")'
    return f"{query} or on () {nothing}"
