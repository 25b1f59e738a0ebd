"""Mail bounces: is this normal, what is refused, and by whom?"""

from __future__ import annotations

from typing import Any

from bouncemeter_exporter.grafana.dashboards import meaning, shared
from bouncemeter_exporter.grafana.dashboards.pages import Folded, link
from bouncemeter_exporter.grafana.dashboards.pages import dashboard as page
from bouncemeter_exporter.grafana.dashboards.panels import bars, levels, lines, sized, stat
from bouncemeter_exporter.grafana.dashboards.queries import RANGE, SERVER, Queries, or_none
from bouncemeter_exporter.grafana.dashboards.tables import Column, table
from bouncemeter_exporter.grafana.dashboards.variables import PROVIDER, SERVERS

__all__ = ["dashboard"]

POLICY = {"class": "5.7"}


def dashboard(thresholds: shared.Thresholds) -> dict[str, Any]:
    """The page."""
    q = Queries("mta", "provider")
    ratio, ratio_graph = shared.hard_ratio(q, thresholds)
    return page(
        shared.MAIL,
        "Mail bounces",
        "Is mail bouncing more than it should, what is refused, and by whom?",
        [*SERVERS, PROVIDER],
        [
            [sized(6, 3, ended(q)), sized(6, 3, refused(q)), sized(6, 3, deferred(q)), sized(6, 3, ratio)],
            [
                sized(6, 3, shared.policy(q, thresholds)),
                sized(6, 3, shared.waiting(q, thresholds)),
                sized(6, 3, shared.alerts_firing()),
                sized(6, 3, shared.exporter_up()),
            ],
            [sized(12, 8, bounces(q)), sized(12, 8, ratio_graph)],
            [sized(12, 7, policy_graph(q, thresholds)), sized(12, 7, delivered(q))],
            [sized(13, 11, shared.top_codes(q)), sized(11, 11, shared.providers(q, thresholds, "Providers"))],
            [sized(12, 9, by_provider(q)), sized(12, 9, by_code(q))],
            [sized(24, 8, shared.alerts_that_fired())],
            Folded(
                "By mail server",
                [
                    [sized(24, 8, servers(q, thresholds))],
                    [sized(12, 8, ratio_by_server(q, thresholds)), sized(12, 8, bounces_by_server(q))],
                ],
            ),
            Folded("Senders", [[sized(12, 9, by_sender(q, thresholds)), sized(12, 9, senders(q))]]),
            Folded("Mail that our own servers refused", [[sized(12, 8, rejections(q)), sized(12, 8, rejected_for(q))]]),
            Folded("Blocklists", [[sized(24, 8, blocklists(q, thresholds))]]),
        ],
    )


def ended(q: Queries) -> dict[str, Any]:
    return stat(
        "Recipients",
        "Recipients whose mail came to its end in the time that is shown: delivered, refused for good or given up. Each"
        " recipient of each message counts once. None at all, where there usually are some, means that mail is stuck or"
        " the log is silent.",
        q.count("mail_recipients", RANGE),
        colour=meaning.NEUTRAL,
        decimals=0,
    )


def refused(q: Queries) -> dict[str, Any]:
    return stat(
        "Hard bounces",
        "Recipients that were refused for good in the time that is shown. Some always are: addresses die. Whether they"
        " are many is told by the ratio. Below, how many messages it was.",
        q.count("mail_bounces", RANGE, kind="hard"),
        legend="recipients",
        also=(q.count("mail_bounced_messages", RANGE, kind="hard"), "messages"),
        colour=meaning.HARD,
        decimals=0,
        links=[link("Hard bounces by code", shared.CODES, kind="hard")],
    )


def deferred(q: Queries) -> dict[str, Any]:
    return stat(
        "Soft bounces",
        "Recipients that were deferred at least once in the time that is shown, each counted at its first deferral."
        " Most are delivered later: greylisting, full mailboxes, limits of rate.",
        q.count("mail_bounces", RANGE, kind="soft"),
        colour=meaning.SOFT,
        decimals=0,
        links=[link("Soft bounces by code", shared.CODES, kind="soft")],
    )


def bounces(q: Queries) -> dict[str, Any]:
    return bars(
        "Bounces, count per bar",
        "Recipients that bounced: deferred for the first time (soft), refused for good (hard), and of those the ones"
        " refused for policy (5.7). Normal: it follows the traffic. A bar that stands out deserves a look at the codes"
        " of that time.",
        (or_none(q.per_bar("mail_bounces", kind="soft")), "soft"),
        (or_none(q.per_bar("mail_bounces", kind="hard", **{"class": "!5.7"})), "hard"),
        (or_none(q.per_bar("mail_bounces", kind="hard", **POLICY)), "hard 5.7"),
        overrides=meaning.OUTCOMES,
    )


def policy_graph(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    return lines(
        "5.7.x of ten minutes, by server",
        "Recipients refused with 5.7.x in the ten minutes before. The dashed line is where the alert begins"
        f" ({thresholds['policy_flood']:g}, and more than {thresholds['policy_flood_factor']:g} times the usual)."
        " Normal: far below. If it rises: who refuses, and with which reason, stands in the tables below.",
        (
            or_none(f"topk(9, {q.count('mail_bounces', '10m', SERVER, **POLICY)})", "instance"),
            shared.BY_SERVER,
        ),
        unit="locale",
        overrides=[meaning.shades(meaning.POLICY, ".+ .+"), *meaning.colours(none="gray")],
        limit=(thresholds["policy_flood"], "red"),
        links=[link("Codes of class 5.7", shared.CODES, **POLICY)],
    )


def delivered(q: Queries) -> dict[str, Any]:
    return lines(
        "Recipients per minute",
        "What became of recipients, each at its end. Normal: it follows the day. If nothing ends any more while mail"
        " comes in, the queue grows: see Queue and exporter.",
        (or_none(q.per_minute("mail_recipients", outcome="delivered")), "delivered"),
        (or_none(q.per_minute("mail_recipients", outcome="bounced")), "bounced"),
        (or_none(q.per_minute("mail_recipients", outcome="expired")), "expired"),
        unit="mpm",
        overrides=meaning.OUTCOMES,
        interval="5m",
    )


def by_provider(q: Queries) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "provider",
        "Hard bounces by provider, count per bar",
        "Who refused for good: the nine providers with most in the time that is shown, and the rest. Normal: each in"
        " proportion to what it gets. One that alone stands out refuses you, not your recipients.",
        leads_to=shared.PROVIDERS,
        kind="hard",
    )


def by_code(q: Queries) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "code",
        "Bounces by code, count per bar",
        "What they were refused or deferred with: the nine codes with most in the time that is shown, and the rest."
        " Orange is soft, red is hard, purple is 5.7. Dots are messages; their queue ID leads to `bouncemeter trace`.",
        leads_to=shared.CODES,
        exemplars=True,
    )


def servers(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    few, bound = thresholds["ratio_recipients"], thresholds["hard_bounce_ratio"]
    all_ = q.count("mail_recipients", RANGE, SERVER)
    none = f"{all_} * 0"
    hard = f"({q.count('mail_bounces', RANGE, SERVER, kind='hard')} or {none})"
    return table(
        "Mail servers",
        "Each mail server in the time that is shown, with the labels of its target: recipients, those refused for good,"
        " and those refused for policy. Normal: the same shares on all. One that stands out has a sender, or an"
        " address, of bad repute.",
        {
            "recipients": all_,
            "hard": hard,
            "policy": f"{q.count('mail_bounces', RANGE, SERVER, kind='hard', **POLICY)} or {none}",
            "messages": q.count("mail_bounced_messages", RANGE, SERVER, kind="hard", **POLICY),
            "ratio": f"{hard} / ({all_} >= {few:g})",
        },
        [
            Column("instance", "Instance"),
            Column("mta", "Mail server", 110),
            Column("job", "Job", 110),
            Column("recipients", "Recipients", 100),
            Column("hard", "Hard", 70, cell="text", colour=meaning.HARD),
            Column("policy", "5.7.x", 70, cell="text", colour=meaning.POLICY),
            Column("messages", "5.7.x messages", 125),
            Column(
                "ratio",
                "Hard ratio",
                120,
                unit="percentunit",
                cell="gauge",
                thresholds=levels((None, meaning.DELIVERED), (bound, meaning.HARD)),
            ),
        ],
        sort="Hard",
    )


def ratio_by_server(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    few, bound = thresholds["ratio_recipients"], thresholds["hard_bounce_ratio"]
    refused, all_ = (
        q.count("mail_bounces", "1h", SERVER, kind="hard"),
        q.count("mail_recipients", "1h", SERVER),
    )
    return lines(
        "Hard-bounce ratio by server",
        "As above, of each server: the ten with the highest. The alert looks at each alone.",
        (or_none(f"topk(10, {refused} / ({all_} >= {few:g}))", "instance"), shared.BY_SERVER),
        unit="percentunit",
        overrides=meaning.SERVERS,
        limit=(bound, "red"),
        interval="15m",
    )


def bounces_by_server(q: Queries) -> dict[str, Any]:
    return bars(
        "Hard bounces by server, count per bar",
        "Which servers' mail is refused for good: the ten with most at each time. One that stands out has a sender, or"
        " an address, of bad repute.",
        (
            or_none(f"topk(10, {q.per_bar('mail_bounces', SERVER, kind='hard')})", "instance"),
            shared.BY_SERVER,
        ),
        overrides=meaning.SERVERS,
    )


def by_sender(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    counted = q.count("mail_bounces_by_sender", "10m", "sender", kind="hard", sender="!other")
    return lines(
        "Hard bounces of ten minutes, by sender",
        "Recipients refused for good in the ten minutes before, by the senders that the configuration names"
        f" (`[senders.NAME]`): the ten with most. From {thresholds['sender_flood']:g} on one server on, and far above"
        " the usual, an alert tells. Normal: far below. None if no sender is named.",
        (or_none(f"topk(10, {counted})", "sender"), "{{sender}}"),
        unit="locale",
        overrides=meaning.SERVERS,
        limit=(thresholds["sender_flood"], "red"),
    )


def senders(q: Queries) -> dict[str, Any]:
    def counted(**labels: str) -> str:
        return q.count("mail_bounces_by_sender", RANGE, "sender", **labels)

    return table(
        "Senders",
        "Whose mail bounced in the time that is shown: the senders that the configuration names (`[senders.NAME]`), and"
        " all others. 5.1 are addresses that do not exist, 5.7 refusals for policy. Normal: each in proportion to what"
        " it sends. A sender with many 5.1 has an old list; one with many 5.7 harms all others.",
        {
            "hard": or_none(counted(kind="hard"), "sender"),
            "addresses": counted(kind="hard", **{"class": "5.1"}),
            "policy": counted(kind="hard", **POLICY),
            "soft": counted(kind="soft"),
        },
        [
            Column("sender", "Sender"),
            Column("hard", "Hard", 80, cell="text", colour=meaning.HARD),
            Column("addresses", "5.1.x", 80),
            Column("policy", "5.7.x", 80, cell="text", colour=meaning.POLICY),
            Column("soft", "Soft", 80, cell="text", colour=meaning.SOFT),
        ],
        sort="Hard",
    )


def rejections(q: Queries) -> dict[str, Any]:
    return bars(
        "Our refusals by stage, count per bar",
        "Mail that our own servers refused, by stage of the dialogue. Not bounces: it is others' mail. Normal: much of"
        " it, at connect and rcpt. Refusals at data are the filter's.",
        (or_none(q.per_bar("mail_rejections", "stage"), "stage"), "{{stage}}"),
        overrides=meaning.categories("connect", "helo", "mail", "rcpt", "data"),
    )


def rejected_for(q: Queries) -> dict[str, Any]:
    return shared.top_bars(
        q,
        "reason",
        "Our refusals by reason, count per bar",
        "Why our own servers refused: the nine reasons with most in the time that is shown, and the rest. Normal:"
        " relaying, unknown recipients, blocklists. If good mail is among it, your own rules are too strict.",
        metric="mail_rejections",
    )


def blocklists(q: Queries, thresholds: shared.Thresholds) -> dict[str, Any]:
    return bars(
        "Blocklists named, count per bar",
        "Replies of other servers that name a blocklist, at every attempt. Normal: none, or single ones of small lists."
        f" {thresholds['blocklist_hits']:g} of one list in half an hour is an alert: stop the cause, then ask the list"
        " for removal.",
        (or_none(f"topk(10, {q.per_bar('mail_blocklist_hits', 'blocklist')})", "blocklist"), "{{blocklist}}"),
        overrides=meaning.SERVERS,
        links=[link("The reason blocklisted", shared.CODES, reason="blocklisted")],
    )
