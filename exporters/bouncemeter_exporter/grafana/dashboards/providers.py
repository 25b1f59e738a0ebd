"""Providers: who accepts our mail, who refuses it, and how?"""

from __future__ import annotations

from typing import Any

from bouncemeter_exporter.grafana.dashboards import meaning, shared
from bouncemeter_exporter.grafana.dashboards.pages import dashboard as page
from bouncemeter_exporter.grafana.dashboards.pages import link
from bouncemeter_exporter.grafana.dashboards.panels import levels, lines, sized, stat
from bouncemeter_exporter.grafana.dashboards.queries import RANGE, SERVER, Queries, or_none
from bouncemeter_exporter.grafana.dashboards.tables import Column, table
from bouncemeter_exporter.grafana.dashboards.variables import PROVIDER, SERVERS

__all__ = ["dashboard"]

CLICKED_PROVIDER = "${__field.labels.provider}"


def dashboard(thresholds: shared.Thresholds) -> dict[str, Any]:
    """The page."""
    q = Queries("mta", "provider")
    return page(
        shared.PROVIDERS,
        "Providers",
        "Which provider refuses or delays our mail, since when, and with which words?",
        [*SERVERS, PROVIDER],
        [
            [
                sized(4, 4, delivered(q)),
                sized(4, 4, refusing(q, thresholds)),
                sized(4, 4, shared.hard_ratio(q, thresholds)[0]),
                sized(4, 4, shared.policy(q, thresholds)),
                sized(4, 4, shared.waiting(q, thresholds)),
                sized(4, 4, shared.alerts_firing()),
            ],
            [
                sized(12, 9, shared.providers(q, thresholds, "Who takes and who refuses")),
                sized(12, 9, ratio(q, thresholds)),
            ],
            [sized(15, 11, answers(q)), sized(9, 11, blocklists(q))],
            [sized(12, 9, hard(q)), sized(12, 9, soft(q))],
            [sized(12, 9, policy(q, thresholds)), sized(12, 9, waiting(q))],
            [sized(24, 9, week_ago(q, thresholds))],
        ],
    )


def delivered(q: Queries) -> dict[str, Any]:
    return stat(
        "Delivered",
        "Recipients whose mail was taken, in the time that is shown. Normal: it follows the day.",
        q.count("mail_recipients", RANGE, outcome="delivered"),
        colour=meaning.DELIVERED,
        decimals=0,
    )


def refusals(q: Queries, window: str, thresholds: shared.Thresholds, by: str = "provider") -> str:
    """The share of recipients that each provider refused or deferred, for providers with enough recipients."""
    bounced, delivered = (
        q.count("mail_bounces", window, by),
        q.count("mail_recipients", window, by, outcome="delivered"),
    )
    return f"{bounced} / (({bounced}) + ({delivered} or {bounced} * 0) >= {thresholds['ratio_recipients']:g})"


def refusing(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    bound = thresholds["provider_refusal_ratio"]
    each = refusals(q, "1h", thresholds, f"{SERVER}, provider")
    return stat(
        "Refusing us",
        f"Providers that refused or deferred at least {bound:.0%} of {thresholds['ratio_recipients']:g} recipients or"
        " more of one server in the last hour. Normal: none. If one does so for a quarter of an hour, an alert tells.",
        f"count(count by (provider) ({each} >= {bound:g})) or on () vector(0)",
        unit="none",
        thresholds=levels((None, meaning.DELIVERED), (1, meaning.HARD)),
        mappings=[meaning.values(**{"0": ("none", meaning.DELIVERED)})],
    )


def ratio(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    bound = thresholds["provider_refusal_ratio"]
    return lines(
        "Refusals of an hour, by provider",
        "Share of recipients that a provider refused or deferred in the hour before: the ten with the highest, of at"
        f" least {thresholds['ratio_recipients']:g} recipients. Normal: under 10 %. The dashed line is the alert's.",
        (or_none(f"topk(10, {refusals(q, '1h', thresholds)})", "provider"), "{{provider}}"),
        unit="percentunit",
        overrides=meaning.PROVIDERS,
        limit=(bound, "red"),
        maximum=1,
        interval="15m",
        links=[link("This provider", shared.PROVIDERS, provider=CLICKED_PROVIDER)],
    )


def week_ago(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    by, few = "provider", thresholds["ratio_recipients"]

    def counted(when: str) -> tuple[str, str, str]:
        all_ = q.count("mail_recipients", RANGE, by, when)
        refused = f"({q.count('mail_bounces', RANGE, by, when, kind='hard')} or {all_} * 0)"
        return all_, refused, f"{refused} / ({all_} >= {few:g})"

    (all_, refused, ratio), (all_before, refused_before, ratio_before) = counted(""), counted("offset 1w")
    return table(
        "Now, and a week ago",
        "What each provider refused for good in the time that is shown, and in the same time a week ago: recipients,"
        f" hard bounces, and their share of at least {few:g} recipients. Normal: alike. A share that has grown at one"
        " provider is its doing, at all of them yours.",
        {
            "recipients": or_none(all_, by),
            "recipients before": all_before,
            "hard": refused,
            "hard before": refused_before,
            "share": ratio,
            "share before": ratio_before,
            "growth": f"{ratio} - {ratio_before}",
        },
        [
            Column("provider", "Provider", link=link("This provider", shared.PROVIDERS, provider="${__value.raw}")),
            Column("recipients", "Recipients", 95),
            Column("recipients before", "A week ago", 95),
            Column("hard", "Hard bounces", 130, cell="text", colour=meaning.HARD),
            Column("hard before", "Hard a week ago", 130),
            Column("share", "Share", 75, unit="percentunit"),
            Column("share before", "Share a week ago", 140, unit="percentunit"),
            Column(
                "growth",
                "Change",
                85,
                unit="percentunit",
                cell="text",
                thresholds=levels((None, meaning.DELIVERED), (0.01, meaning.SOFT), (0.05, meaning.HARD)),
            ),
        ],
        sort="Hard bounces",
    )


def hard(q: Queries) -> dict[str, Any]:
    return _bars(q, "Hard bounces by provider, count per bar", "Who refuses for good", "hard")


def soft(q: Queries) -> dict[str, Any]:
    return _bars(q, "Soft bounces by provider, count per bar", "Who defers", "soft")


def _bars(q: Queries, title: str, text: str, kind: str) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "provider",
        title,
        f"{text}: the nine providers with most in the time that is shown, and the rest. Normal: each in proportion to"
        " what it gets.",
        leads_to=shared.PROVIDERS,
        kind=kind,
    )


def answers(q: Queries) -> dict[str, Any]:
    by = ("provider", "kind", "code", "reason")
    most = or_none(f"topk(15, {q.count('mail_bounces', RANGE, ', '.join(by))} > 0)", *by)
    return table(
        "Answers of the providers",
        "Provider, code and reason of recipients that were refused or deferred, most first, fifteen at most: select a"
        " provider above to see more of it.",
        {"recipients": meaning.numbered(most, "meaning")},
        [
            Column("provider", "Provider", 95, link=link("This provider", shared.PROVIDERS, provider="${__value.raw}")),
            Column("code", "Code", 80, link=link("This code", shared.CODES, code="${__value.raw}")),
            Column("kind", "Kind", 65, mapping=meaning.KINDS, cell="text"),
            Column("meaning", "Meaning", mapping=meaning.titles(), text=True),
            Column("reason", "Reason", 120, link=link("This reason", shared.CODES, reason="${__value.raw}")),
            Column("recipients", "Recipients", 140, cell="gauge", colour=meaning.NEUTRAL),
        ],
        sort="Recipients",
    )


def policy(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    flood = thresholds["policy_flood"]
    counted = q.count("mail_bounces", "10m", "provider", **{"class": "5.7"})
    return lines(
        "5.7.x of ten minutes, by provider",
        f"Recipients refused with 5.7.x in the ten minutes before: the ten providers with most. From {flood:g} on, and"
        " far above the usual, an alert tells. Normal: far below.",
        (or_none(f"topk(10, {counted})", "provider"), "{{provider}}"),
        unit="locale",
        overrides=meaning.PROVIDERS,
        limit=(flood, "red"),
        links=[link("This provider", shared.PROVIDERS, provider=CLICKED_PROVIDER)],
    )


def blocklists(q: Queries) -> dict[str, Any]:
    by = ("blocklist", "provider")
    return table(
        "Blocklists that they name",
        "Replies that name a blocklist, in the time that is shown, at every attempt. Normal: none. Stop the cause"
        " first, then ask the list for removal.",
        {"replies": or_none(f"topk(15, {q.count('mail_blocklist_hits', RANGE, ', '.join(by))} > 0)", *by)},
        [Column("blocklist", "Blocklist"), Column("provider", "Provider"), Column("replies", "Replies", 90)],
        sort="Replies",
    )


def waiting(q: Queries) -> dict[str, Any]:
    return lines(
        "Waiting by provider",
        "Recipients that wait for another attempt: the ten providers with most. Normal: level. One that rises alone has"
        " trouble, or limits your rate.",
        (or_none(f"topk(10, sum by (provider) ({q.select('mail_deferred_recipients')}))", "provider"), "{{provider}}"),
        unit="locale",
        overrides=meaning.PROVIDERS,
        stacked=True,
        links=[link("This provider", shared.PROVIDERS, provider=CLICKED_PROVIDER)],
    )
