"""Panels that more than one dashboard uses."""

from __future__ import annotations

from collections.abc import Mapping

from bouncemeter_exporter.grafana.dashboards import meaning
from bouncemeter_exporter.grafana.dashboards.pages import link
from bouncemeter_exporter.grafana.dashboards.panels import Panel, bars, levels, lines, stat
from bouncemeter_exporter.grafana.dashboards.queries import RANGE, SERVER, Queries, or_none
from bouncemeter_exporter.grafana.dashboards.tables import Column, table

__all__ = [
    "BY_SERVER",
    "CODES",
    "MAIL",
    "PROVIDERS",
    "QUEUE",
    "Thresholds",
    "alerts_firing",
    "alerts_that_fired",
    "exporter_up",
    "hard_ratio",
    "policy",
    "top_bars",
    "top_codes",
    "waiting",
    "waiting_query",
]

MAIL, CODES, PROVIDERS, QUEUE = "bouncemeter-mail", "bouncemeter-codes", "bouncemeter-providers", "bouncemeter-queue"
"""The dashboards' uids. Alerts link to them too."""

BY_SERVER = "{{instance}} {{mta}} {{cluster}}"
"""How a legend names a mail server."""

Thresholds = Mapping[str, float]
"""The alert thresholds, by name."""


def alerts_that_fired() -> Panel:
    """Which alerts fired, and when."""
    return lines(
        "Alerts that fire",
        "Which alerts fire, and since when: the marked times of all graphs. What to do at each is in the runbook to"
        " which it links. Normal: none.",
        (or_none(f"max by (severity, alertname) ({Queries().firing()})", "alertname"), "{{severity}} {{alertname}}"),
        unit="none",
        overrides=[meaning.shades("red", "critical .+"), meaning.shades("orange", "warning .+")],
        stacked=True,
        steps=True,
        legend=("lastNotNull",),
    )


def exporter_up() -> Panel:
    """Whether the exporter is up."""
    return stat(
        "Exporter",
        "Whether every exporter answers Prometheus now. While one is down nothing of its server is counted, and all"
        " other tiles show the past. Normal: up. If it is down, look at its messages: `journalctl -u bouncemeter`.",
        f"min({Queries().up()})",
        unit="none",
        thresholds=levels((None, "red"), (1, "green")),
        mappings=[meaning.values(**{"0": ("down", "red"), "1": ("up", "green")})],
        nothing="none",
        links=[link("Queue and exporter", QUEUE)],
    )


def alerts_firing() -> Panel:
    """The number of firing alerts."""
    return stat(
        "Alerts",
        "Alerts that fire now; their times are marked in every graph, critical ones in red. Normal: none. What to do"
        " at each is in the runbook to which the alert links. Grafana's own alerts are counted and marked only if"
        " Grafana writes their states to Prometheus.",
        f"count({Queries().firing()}) or on () vector(0)",
        unit="none",
        thresholds=levels((None, "green"), (1, "red")),
        mappings=[meaning.values(**{"0": ("none", "green")})],
        links=[{"title": "Alerts", "url": "/alerting/list?search=bouncemeter"}],
    )


def policy(queries: Queries, thresholds: Thresholds) -> Panel:
    """The number that the flood alert watches."""
    flood = thresholds["policy_flood"]
    return stat(
        "5.7.x, 10 min",
        "Recipients refused with 5.7.x (authentication, reputation, blocklists) in the last ten minutes, on the server"
        " with most, and messages on the server with most: one message to many is no flood. Normal: a few."
        f" {flood:g} and far more than is usual is a flood, and an alert: find out who"
        " refuses, and why, in the table below.",
        f"max({queries.count_now('mail_bounces', '10m', SERVER, **{'class': '5.7'})})",
        legend="recipients",
        also=(f"max({queries.count('mail_bounced_messages', '10m', SERVER, **{'class': '5.7'})})", "messages"),
        thresholds=levels((None, meaning.POLICY), (flood, "red")),
        decimals=0,
        links=[link("Codes of class 5.7", CODES, **{"class": "5.7"})],
    )


def waiting_query(queries: Queries, by: str = "") -> str:
    """The number of waiting recipients: 0 if a server has none, no value if its exporter is down."""
    sum_by = queries.sum_by("mail_deferred_recipients", by)
    alive = f"{sum_by}({queries.select('mail_deferred_oldest_seconds')}) * 0"
    return f"{sum_by}({queries.select('mail_deferred_recipients')}) or {alive}"


def waiting(queries: Queries, thresholds: Thresholds) -> Panel:
    """The number of waiting recipients."""
    backlog = thresholds["backlog"]
    return stat(
        "Waiting",
        "Recipients whose mail waits for another attempt now, on the server with most, and on all. Normal: some always"
        f" do. From {backlog:g} on one server on, an alert tells if that is far more than usual there. Queue and"
        " exporter shows why.",
        f"max({waiting_query(queries, SERVER)})",
        legend="most",
        also=(waiting_query(queries), "all"),
        thresholds=levels((None, meaning.WAITING), (backlog, "red")),
        decimals=0,
        nothing="unknown",
        links=[link("Queue and exporter", QUEUE)],
    )


def hard_ratio(queries: Queries, thresholds: Thresholds) -> tuple[Panel, Panel]:
    """The share of recipients that are refused for good: over the whole time range, and over time."""
    few, bound = thresholds["ratio_recipients"], thresholds["hard_bounce_ratio"]

    def share(window: str, when: str = "", by: str = "") -> tuple[str, str]:
        refused = queries.count("mail_bounces", window, by, when, kind="hard")
        return refused, queries.count("mail_recipients", window, by, when)

    refused, all_ = share(RANGE)
    refused_by_each, all_by_each = share(RANGE, by=SERVER)
    tile = stat(
        "Hard ratio",
        "Share of recipients that were refused for good, on the server where it is highest, and on all. Normal: under"
        f" 2 %; more than {bound:.0%} in an hour is an alert, for it harms the sender's reputation. Of fewer than"
        f" {few:g} recipients it says nothing (too few).",
        f"max((({refused_by_each} or {all_by_each} * 0) / ({all_by_each} >= {few:g})) or ({all_by_each} > 0) * 0 - 1)",
        legend="highest",
        also=(f"({refused} or on () {all_} * 0) / ({all_} >= {few:g})", "all"),
        unit="percentunit",
        thresholds=levels((None, meaning.DELIVERED), (bound, meaning.HARD)),
        mappings=[meaning.values(**{"-1": ("too few", "text")})],
        nothing="no mail",
        decimals=1,
    )

    def over_time(when: str = "") -> str:
        refused, all_ = share("1h", when)
        return f"{refused} / ({all_} >= {few:g})"

    before = {
        "matcher": {"id": "byName", "options": "a week ago"},
        "properties": [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
            {"id": "custom.lineWidth", "value": 1},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }
    graph = lines(
        "Hard-bounce ratio, of an hour",
        "Share of recipients that were refused for good in the hour before. Normal: under 2 %, and as a week ago"
        f" (dashed, grey). The red line is the alert's ({bound:.0%}). There is a gap where an hour had fewer than"
        f" {few:g} recipients. If it rises, look which codes and providers do, below.",
        (over_time(), "hard bounces"),
        (over_time("offset 1w"), "a week ago"),
        unit="percentunit",
        overrides=[*meaning.colours(**{"hard bounces": meaning.HARD, "a week ago": "gray"}), before],
        limit=(bound, "red"),
        interval="15m",
    )
    return tile, graph


def top_codes(queries: Queries, *, story: bool = False, title: str = "Top codes") -> Panel:
    """The codes with most bounces, with their meaning.

    Args:
        queries: The dashboard's queries.
        story: Whether to show the meaning and the remedy in full.
        title: The panel's title.
    """
    labels = "kind, code, reason"
    counted = queries.count("mail_bounces", RANGE, labels)
    total = queries.count("mail_bounces", RANGE)
    most = f"topk(15, {counted} > 0)"

    def with_texts(query: str) -> str:
        named = meaning.numbered(or_none(query, "kind", "code", "reason"), "meaning")
        return f'label_replace({named}, "remedy", "$1", "meaning", "(.+)")' if story else named

    by_code = link("This code", CODES, code="${__value.raw}")
    by_reason = link("This reason", CODES, reason="${__value.raw}")
    texts = (
        [
            Column("meaning", "Meaning", mapping=meaning.meanings(), text=True),
            Column("remedy", "What to do", mapping=meaning.remedies(), text=True),
        ]
        if story
        else [Column("meaning", "Meaning", mapping=meaning.titles(), text=True)]
    )
    return table(
        title,
        "The codes that recipients were refused or deferred with, most first, fifteen at most, in the time that is"
        " shown. A soft one counts at the first deferral. A click on a code or reason opens its story; `x` is a code"
        " that is not registered. Normal: 5.1.1 and 4.2.2 lead; 5.7 among the first is a matter of reputation.",
        {"recipients": with_texts(most), "share": with_texts(f"{most} / on () group_left () ({total} > 0)")},
        [
            Column("code", "Code", 70, link=by_code),
            Column("kind", "Kind", 50, mapping=meaning.KINDS, cell="text"),
            texts[0],
            Column("reason", "Reason", 120, link=by_reason),
            *texts[1:],
            Column("recipients", "Count", 75),
            Column("share", "Share", 95, unit="percentunit", cell="gauge", colour=meaning.NEUTRAL),
        ],
        sort="Count",
    )


def top_bars(
    queries: Queries,
    label: str,
    title: str,
    text: str,
    *,
    metric: str = "mail_bounces",
    leads_to: str | None = None,
    exemplars: bool = False,
    **labels: str,
) -> Panel:
    """Counts by a label: the nine values with most in the time range shown, and the rest.

    Args:
        queries: The dashboard's queries.
        label: `code`, `provider` or `reason`.
        title, text: What it shows, in a few words and in sentences.
        metric: The metric to count.
        leads_to: The dashboard that a click opens.
        exemplars: Whether to show exemplars as dots.
        labels: Only count series with these values of labels.
    """
    most, rest = queries.top(metric, label, **labels)
    colours = {"code": meaning.CODES, "provider": meaning.PROVIDERS, "reason": meaning.REASONS}
    value = f"${{__field.labels.{label}}}"
    return bars(
        title,
        text,
        (most, f"{{{{{label}}}}}"),
        (rest, "all others"),
        overrides=colours[label],
        exemplars=exemplars,
        links=[link(f"This {label}", leads_to, **{label: value})] if leads_to else [],
    )


def providers(queries: Queries, thresholds: Thresholds, title: str) -> Panel:
    """Which providers accept mail, and which refuse it."""
    by = "provider"
    few, bound = thresholds["ratio_recipients"], thresholds["provider_refusal_ratio"]
    hard = queries.count("mail_bounces", RANGE, by, kind="hard")
    soft = queries.count("mail_bounces", RANGE, by, kind="soft")
    delivered = queries.count("mail_recipients", RANGE, by, outcome="delivered")
    refused = queries.count("mail_bounces", RANGE, by)
    policy = queries.count("mail_bounces", RANGE, by, kind="hard", **{"class": "5.7"})
    none = f"{queries.count('mail_recipients', RANGE, by)} * 0"
    both = f"(({delivered}) + ({refused} or {none}))"
    return table(
        title,
        "What providers did with recipients in the time that is shown. Refusals are hard and soft bounces among all,"
        f" of at least {few:g} recipients: normal is under 10 %; an alert tells of {bound:.0%} in an hour. A click on a"
        " provider opens its page.",
        {
            "delivered": or_none(delivered, by),
            "hard": f"{hard} or {none}",
            "policy": f"{policy} or {none}",
            "soft": f"{soft} or {none}",
            "ratio": f"({refused} or {none}) / ({both} >= {few:g})",
        },
        [
            Column("provider", "Provider", link=link("This provider", PROVIDERS, provider="${__value.raw}")),
            Column("delivered", "Delivered", 105),
            Column("hard", "Hard", 50, cell="text", colour=meaning.HARD),
            Column("policy", "5.7.x", 55, cell="text", colour=meaning.POLICY),
            Column("soft", "Soft", 50, cell="text", colour=meaning.SOFT),
            Column(
                "ratio",
                "Refusals",
                95,
                unit="percentunit",
                cell="gauge",
                thresholds=levels((None, meaning.DELIVERED), (0.1, meaning.SOFT), (bound, meaning.HARD)),
            ),
        ],
        sort="Delivered",
    )
