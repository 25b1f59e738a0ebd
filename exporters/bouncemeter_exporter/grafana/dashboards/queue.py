"""Queue and exporter: what waits, why, and can you trust the numbers?"""

from __future__ import annotations

from typing import Any

from bouncemeter_exporter.grafana.dashboards import meaning, shared
from bouncemeter_exporter.grafana.dashboards.pages import dashboard as page
from bouncemeter_exporter.grafana.dashboards.pages import link
from bouncemeter_exporter.grafana.dashboards.panels import bars, heatmap, levels, lines, sized, stat
from bouncemeter_exporter.grafana.dashboards.queries import RANGE, RATE, SERVER, Queries, or_none
from bouncemeter_exporter.grafana.dashboards.tables import Column, table
from bouncemeter_exporter.grafana.dashboards.variables import PROVIDER, SERVERS

__all__ = ["dashboard"]

DELAY = "mail_delivery_delay_seconds"


def dashboard(thresholds: shared.Thresholds) -> dict[str, Any]:
    """The page."""
    q = Queries("mta", "provider")
    return page(
        shared.QUEUE,
        "Queue and exporter",
        "What waits, for how long and why; and is everything read and counted?",
        [*SERVERS, PROVIDER],
        [
            [
                sized(6, 3, shared.waiting(q, thresholds)),
                sized(6, 3, oldest(q, thresholds)),
                sized(6, 3, delay(q, 0.5)),
                sized(6, 3, delay(q, 0.95)),
            ],
            [
                sized(6, 3, shared.exporter_up()),
                sized(6, 3, log_age(q)),
                sized(6, 3, unparsed(q, thresholds)),
                sized(6, 3, unread(q, thresholds)),
            ],
            [sized(12, 8, waiting_by_class(q, thresholds)), sized(12, 8, delays(q))],
            [sized(12, 8, delay_map(q)), sized(12, 8, why(q))],
            "Exporter",
            [sized(12, 7, lines_read(q)), sized(12, 7, age(q))],
            [sized(12, 7, unread_over_time(q, thresholds)), sized(12, 7, up(q))],
            [sized(12, 7, lost(q)), sized(12, 7, ledger(q))],
        ],
    )


def oldest(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    old = thresholds["backlog_age"]
    return stat(
        "Oldest",
        "For how long the recipient has waited that waits longest, now. Normal: up to the queue's lifetime, often"
        f" five days, for single ones. A backlog older than {old / 3600:g} hours is an alert if it has grown since"
        " yesterday.",
        f"max({q.select('mail_deferred_oldest_seconds')})",
        unit="s",
        thresholds=levels((None, meaning.WAITING)),
        nothing="unknown",
        decimals=1,
    )


def _quantile(q: Queries, quantile: float, window: str) -> str:
    buckets = f"{q.select(DELAY, DELAY + '_bucket', outcome='delivered')}[{window}]"
    return f"histogram_quantile({quantile:g}, sum by (le) (increase({buckets})))"


def delay(q: Queries, quantile: float) -> dict[str, Any]:
    share = f"{quantile:.0%}"
    return stat(
        f"Delay p{quantile * 100:g}",
        f"Within how long {share} of what was delivered was delivered, from acceptance on, in the time that is shown."
        " Normal: seconds at p50, minutes at p95, where greylisting shows.",
        f"{_quantile(q, quantile, RANGE)} >= 0",
        unit="s",
        colour=meaning.NEUTRAL,
        nothing="no mail",
        decimals=1,
    )


def log_age(q: Queries) -> dict[str, Any]:
    return stat(
        "Last outcome",
        "How long ago the latest outcome was logged, of the mail server that is silent longest. Normal: seconds on a"
        " busy server, hours at night on a small one. An alert tells if a log is silent that never is at this time.",
        f"time() - min({q.select('bouncemeter_last_event_timestamp_seconds')})",
        unit="s",
        colour=meaning.NEUTRAL,
        nothing="no mail",
        decimals=0,
    )


def unparsed(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    bound = thresholds["unparsed_ratio"]
    by = f"{SERVER}, source"
    counted = q.count("bouncemeter_lines", RANGE, by, result="unparsed")
    outcomes = q.count("bouncemeter_lines", RANGE, by, result="~event|unparsed")
    return stat(
        "Unparsed",
        "Share of outcome lines that could not be read, in the time that is shown, of the source with most (and at"
        " least 20): what they say is not counted."
        f" Normal: none. From {bound:.0%} in an hour on there is an alert: `bouncemeter parse FILE` shows such lines.",
        f"max({counted} / ({outcomes} >= 20))",
        unit="percentunit",
        thresholds=levels((None, "green"), (bound, "red")),
        nothing="no mail",
        decimals=1,
    )


def _unread(q: Queries) -> str:
    return f"{q.select('bouncemeter_source_size_bytes')} - {q.select('bouncemeter_source_offset_bytes')}"


def unread(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    lag = thresholds["lag"]
    return stat(
        "Unread",
        "Bytes of log that are there and not yet read, of the source with most, now. Normal: none. From"
        f" {lag / 1e6:g} MB on there is an alert: an absence is being made up for, or lines come faster than they"
        " are read.",
        f"max({_unread(q)})",
        unit="bytes",
        thresholds=levels((None, "green"), (lag, "red")),
        nothing="unknown",
        decimals=0,
    )


def waiting_by_class(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    return lines(
        "Waiting by class",
        "Recipients that wait, by the class of their last answer: 4.2 their mailbox, 4.3 their system, 4.4 network, 4.7"
        f" policy and greylisting. Normal: level. The dashed line is where the alert of a growing backlog begins"
        f" ({thresholds['backlog']:g}, on one server).",
        (or_none(f"sum by (class) ({q.select('mail_deferred_recipients')})", "class"), "{{class}}"),
        unit="locale",
        overrides=meaning.CODES,
        limit=(thresholds["backlog"], "red"),
        stacked=True,
        links=[link("This class", shared.CODES, **{"class": "${__field.labels.class}"})],
    )


def delays(q: Queries) -> dict[str, Any]:
    return lines(
        "Delivery delay",
        "Within how long half, and 95 of 100, of what was delivered were delivered, from acceptance on. Normal:"
        " seconds, and minutes. If p95 rises alone, some destination delays: see who waits. If both rise, your own"
        " server is slow. Dots are messages; their queue ID leads to `bouncemeter trace`.",
        (_quantile(q, 0.5, RATE), "p50"),
        (_quantile(q, 0.95, RATE), "p95"),
        unit="s",
        overrides=meaning.colours(p50=meaning.NEUTRAL, p95=meaning.WAITING),
        interval="5m",
        exemplars=True,
    )


def delay_map(q: Queries) -> dict[str, Any]:
    buckets = q.select(DELAY, DELAY + "_bucket", outcome="delivered")
    return heatmap(
        "Delay of deliveries",
        "How many recipients were delivered after how long: the darker, the more. Normal: nearly all at the bottom, a"
        " band of minutes from greylisting. A new band higher up is a destination that began to delay.",
        f"sum by (le) (increase({buckets}[{RATE}]))",
        unit="s",
    )


def why(q: Queries) -> dict[str, Any]:
    by = ("provider", "code")
    most = or_none(f"topk(15, sum by ({', '.join(by)}) ({q.select('mail_deferred_recipients')}) > 0)", *by)
    return table(
        "Why they wait, now",
        "Recipients that wait now, by provider and the code of their last answer: fifteen at most. Normal: greylisting"
        " (4.7.1) and full mailboxes (4.2.2) of a few.",
        {"recipients": meaning.numbered(most, "meaning")},
        [
            Column(
                "provider", "Provider", 110, link=link("This provider", shared.PROVIDERS, provider="${__value.raw}")
            ),
            Column("code", "Code", 70, link=link("This code", shared.CODES, code="${__value.raw}")),
            Column("meaning", "Meaning", mapping=meaning.titles(), text=True),
            Column("recipients", "Waiting", 150, cell="gauge", colour=meaning.WAITING),
        ],
        sort="Waiting",
    )


def up(q: Queries) -> dict[str, Any]:
    return lines(
        "Answers of the exporters",
        "1 while an exporter answers Prometheus, its sources can be read and its state can be written; 0 while not, the"
        " lowest of all. What it missed is read when it is back. Normal: 1 each. At 0 its own messages say why.",
        (f"min({q.up()})", "answers"),
        (f"min({q.select('bouncemeter_source_up')})", "sources readable"),
        (f"min({q.select('bouncemeter_state_writable')})", "state writable"),
        unit="none",
        overrides=meaning.categories("answers", "sources readable", "state writable"),
        steps=True,
        maximum=1,
        legend=("min", "lastNotNull"),
    )


def lines_read(q: Queries) -> dict[str, Any]:
    return lines(
        "Lines per minute",
        "Lines of log: outcomes (event), of no interest (other), and such as should have been understood (unparsed)."
        " Normal: a quarter are outcomes, and none unparsed.",
        (q.per_minute("bouncemeter_lines", "result"), "{{result}}"),
        unit="cpm",
        interval="5m",
        overrides=meaning.colours(event=meaning.DELIVERED, other=meaning.NEUTRAL, unparsed=meaning.HARD),
    )


def age(q: Queries) -> dict[str, Any]:
    return lines(
        "Age of the last outcome",
        "How long ago each server's latest outcome was logged: the ten oldest. Normal: it stays low, and is higher at"
        " night. A line that only rises is a log that ended.",
        (
            or_none(
                f"topk(10, time() - {q.select('bouncemeter_last_event_timestamp_seconds')})",
                "instance",
            ),
            shared.BY_SERVER,
        ),
        unit="s",
        overrides=meaning.SERVERS,
    )


def unread_over_time(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    return lines(
        "Unread bytes by source",
        "Bytes of log that are there and not yet read: the ten sources with most. Normal: none, and a slope down after"
        f" a restart. The dashed line is the alert's ({thresholds['lag'] / 1e6:g} MB).",
        (f"topk(10, {_unread(q)})", "{{instance}} {{source}} {{cluster}}"),
        unit="bytes",
        overrides=meaning.SERVERS,
        limit=(thresholds["lag"], "red"),
    )


def lost(q: Queries) -> dict[str, Any]:
    return bars(
        "Not told apart, or lost; count per bar",
        "Counted as other because a metric had 10,000 series (somebody invents codes), forgotten by the ledger before"
        " they ended, and messages by UDP that came too fast. Normal: none; each has its alert or is explained in the"
        " documentation of counting.",
        (or_none(q.per_bar("bouncemeter_series_dropped")), "series dropped"),
        (or_none(q.per_bar("bouncemeter_ledger_evicted")), "messages forgotten"),
        (or_none(q.per_bar("bouncemeter_source_dropped")), "lost by UDP"),
        overrides=meaning.colours(
            **{"series dropped": "orange", "messages forgotten": meaning.WAITING, "lost by UDP": "red"}
        ),
    )


def ledger(q: Queries) -> dict[str, Any]:
    return lines(
        "Messages remembered",
        "Messages that the ledger knows because they have not ended, by instance: the ten with most. Normal: it follows"
        " what waits. It bounds the exporter's memory.",
        (f"topk(10, {q.select('bouncemeter_ledger_entries')})", "{{instance}} {{cluster}}"),
        unit="locale",
        overrides=meaning.SERVERS,
    )
