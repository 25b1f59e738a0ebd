"""Codes and reasons: what a code or class means, where it comes from, and what to do."""

from __future__ import annotations

from typing import Any

from bouncemeter_exporter.grafana.dashboards import meaning, shared
from bouncemeter_exporter.grafana.dashboards.pages import Folded, link
from bouncemeter_exporter.grafana.dashboards.pages import dashboard as page
from bouncemeter_exporter.grafana.dashboards.panels import bars, lines, sized, stat
from bouncemeter_exporter.grafana.dashboards.queries import RANGE, Queries, or_none
from bouncemeter_exporter.grafana.dashboards.tables import Column, table
from bouncemeter_exporter.grafana.dashboards.variables import CLASS, CODE, KIND, PROVIDER, REASON, SERVERS

__all__ = ["dashboard"]


def dashboard(_: shared.Thresholds) -> dict[str, Any]:
    """The page."""
    q = Queries("mta", "provider", "kind", "class", "code", "reason")
    return page(
        shared.CODES,
        "Codes and reasons",
        "What does a code or class mean, since when does it come, from whom, and what is to be done?",
        [*SERVERS, PROVIDER, KIND, CLASS, CODE, REASON],
        [
            [
                sized(6, 4, recipients(q)),
                sized(4, 4, share(q)),
                sized(4, 4, last_ten_minutes(q)),
                sized(3, 4, different(q)),
                sized(4, 4, waiting(q)),
                sized(3, 4, shared.alerts_firing()),
            ],
            [sized(24, 9, shared.top_codes(q, story=True, title="What it means, and what to do"))],
            [sized(8, 8, by_code(q)), sized(8, 8, by_provider(q)), sized(8, 8, by_reason(q))],
            [sized(24, 9, reasons(q))],
            Folded("Attempts and waiting mail", [[sized(12, 8, attempts(q)), sized(12, 8, waiting_by_code(q))]]),
        ],
    )


def recipients(q: Queries) -> dict[str, Any]:
    return stat(
        "Recipients",
        "Recipients that bounced with what is selected, in the time that is shown: hard ones when refused for good,"
        " soft ones at the first deferral. Beside it, how many messages it was.",
        q.count("mail_bounces", RANGE),
        legend="recipients",
        also=(q.count("mail_bounced_messages", RANGE), "messages"),
        colour=meaning.NEUTRAL,
        decimals=0,
    )


def share(q: Queries) -> dict[str, Any]:
    all_ = Queries("mta", "provider").count("mail_bounces", RANGE)
    return stat(
        "Share",
        "How much of all bounces is what is selected, in the time that is shown. All, if nothing is selected.",
        f"{q.count('mail_bounces', RANGE)} / ({all_} > 0)",
        unit="percentunit",
        colour=meaning.NEUTRAL,
        nothing="no mail",
        decimals=1,
    )


def last_ten_minutes(q: Queries) -> dict[str, Any]:
    return stat(
        "Last 10 min",
        "Recipients that bounced with what is selected in the last ten minutes: whether it still goes on.",
        q.count_now("mail_bounces", "10m"),
        colour=meaning.NEUTRAL,
        decimals=0,
    )


def different(q: Queries) -> dict[str, Any]:
    return stat(
        "Providers",
        "How many providers bounced mail with what is selected, in the time that is shown. One: it is about that"
        " provider. Many: it is about you, or your recipients.",
        f"count({q.count('mail_bounces', RANGE, 'provider')} > 0)",
        unit="none",
        colour=meaning.NEUTRAL,
    )


def waiting(q: Queries) -> dict[str, Any]:
    return stat(
        "Waiting",
        "Recipients whose mail waits now, with a code that is selected as its last answer.",
        shared.waiting_query(q),
        colour=meaning.WAITING,
        nothing="unknown",
        decimals=0,
        links=[link("Queue and exporter", shared.QUEUE)],
    )


def by_code(q: Queries) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "code",
        "By code, count per bar",
        "Since when, and how much: the nine codes with most in the time that is shown, and the rest. Dots are examples"
        " of messages, with the queue ID for `bouncemeter trace`.",
        leads_to=shared.CODES,
        exemplars=True,
    )


def by_provider(q: Queries) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "provider",
        "By provider, count per bar",
        "Who answers so: the nine providers with most in the time that is shown, and the rest.",
        leads_to=shared.PROVIDERS,
    )


def by_reason(q: Queries) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "reason",
        "By reason, count per bar",
        "Why: the reason is told from the provider's own code, the enhanced code and the reply's words, in this order.",
        leads_to=shared.CODES,
    )


def reasons(q: Queries) -> dict[str, Any]:
    most = or_none(f"topk(15, {q.count('mail_bounces', RANGE, 'kind, reason')} > 0)", "kind", "reason")
    for reason, number in meaning.REASON_NUMBERS.items():
        most = f'label_replace({most}, "meaning", "{number}", "reason", "{reason}")'
    most = f'label_replace({most}, "remedy", "$1", "meaning", "(.+)")'
    return table(
        "Reasons",
        "Why recipients were refused or deferred, most first, and what to do. A click opens the reason's story.",
        {"recipients": most},
        [
            Column("reason", "Reason", 130, link=link("This reason", shared.CODES, reason="${__value.raw}")),
            Column("kind", "Kind", 60, mapping=meaning.KINDS, cell="text"),
            Column("meaning", "Meaning", mapping=meaning.reason_meanings(), text=True),
            Column("remedy", "What to do", mapping=meaning.reason_remedies(), text=True),
            Column("recipients", "Recipients", 110),
        ],
        sort="Recipients",
    )


def attempts(q: Queries) -> dict[str, Any]:
    refused = q.per_bar("mail_delivery_attempts", "code", outcome="!delivered")
    return bars(
        "Attempts by code, count per bar",
        "Every attempt that was refused or deferred, as the log has it: a recipient that is tried twenty times counts"
        " twenty times here and once above. The ten codes with most at each time.",
        (or_none(f"topk(10, {refused})", "code"), "{{code}}"),
        overrides=meaning.CODES,
    )


def waiting_by_code(q: Queries) -> dict[str, Any]:
    return lines(
        "Waiting by code",
        "Recipients that wait, by the code of their last answer: the ten codes with most.",
        (or_none(f"topk(10, sum by (code) ({q.select('mail_deferred_recipients')}))", "code"), "{{code}}"),
        unit="locale",
        overrides=meaning.CODES,
        stacked=True,
    )
