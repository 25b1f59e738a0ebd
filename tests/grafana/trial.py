"""A trial of all alerts: weeks of traffic of many kinds of servers, with incidents in it, evaluated by promtool.

    python -m tests.grafana.trial WEEKS [SEED] [KIND ...]

It prints, for each kind of server, the alerts that fired outside of any incident, and for each kind of incident how
many were told and after how many minutes. An incident is told if an alert that is about it fires within its time.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.grafana.simulated import DAY, LOG, MTA, Rate, Server, by_day, firing
from tests.servers.programs import use_unpacked

WEEK = 7 * DAY
EVERY = "2m"
"""How often rules are evaluated: less often than on a real Prometheus, to save time."""

POLICY = frozenset({"MailPolicyBounceFlood", "MailPolicyBounceFloodByProvider", "MailPolicyBounceTrickle"})


def at_night(noon: float, recipients: float) -> Rate:
    """An ordinary day, and a newsletter at two in the night, sent in twenty minutes."""
    return lambda minute: by_day(noon)(minute) + (recipients * 3 if 120 <= minute % DAY < 140 else 0)


def weekly(noon: float, recipients: float) -> Rate:
    """Working days, quiet Sundays, and a newsletter on Tuesdays from ten o'clock for an hour."""

    def rate(minute: float) -> float:
        newsletter = recipients if DAY + 600 <= minute % WEEK < DAY + 660 else 0
        return by_day(noon)(minute) * (0.3 if minute % WEEK >= 6 * DAY else 1) + newsletter

    return rate


def monthly(noon: float, recipients: float) -> Rate:
    """An ordinary day, and invoices for three hours from nine o'clock on, once in thirty days."""
    return lambda minute: (
        by_day(noon)(minute) + (recipients / 3 if 540 <= (minute - 12 * DAY) % (30 * DAY) < 720 else 0)
    )


def growing(noon: float) -> Rate:
    """A shop that doubles its traffic in four weeks, with a week of holidays."""

    def rate(minute: float) -> float:
        holiday = 0.2 if 15 * DAY <= minute < 22 * DAY else 1
        return by_day(noon)(minute) * (1 + minute / (4 * WEEK)) * holiday

    return rate


USUAL = {("5.1", "google"): 0.01, ("5.1", "other"): 0.01, ("5.7", "google"): 0.002, ("5.7", "other"): 0.001}
LISTS = {("5.1", "other"): 0.02, ("5.1", "google"): 0.02, ("5.7", "google"): 0.004, ("5.7", "microsoft"): 0.004}
FORWARDS = {
    ("5.1", "other"): 0.02,
    ("5.7 auth", "google"): 0.05,
    ("5.7 auth", "microsoft"): 0.03,
    ("5.7", "other"): 0.02,
}

KINDS: dict[str, tuple[Rate, dict[tuple[str, str], float]]] = {
    "ten a day": (by_day(0.8), USUAL),
    "shop": (by_day(60), USUAL),
    "growing": (growing(200), USUAL),
    "mailing lists": (by_day(400), LISTS),
    "newsletter at night": (at_night(60, 5000), USUAL | {("5.7", "other"): 0.012}),
    "newsletter weekly": (weekly(100, 20_000), USUAL),
    "invoices monthly": (monthly(40, 8000), USUAL),
    "forwarder": (by_day(300), FORWARDS),
    "a million a day": (by_day(70_000), USUAL),
}


class Incident(NamedTuple):
    """Something that happened.

    Attributes:
        name: What.
        begin, end: The minutes in which it happened.
        told_by: The alerts that are about it.
    """

    name: str
    begin: int
    end: int
    told_by: frozenset[str]


Happen = Callable[[Server, int, Rate], Incident]


def refusals(
    name: str, last: int, share: float, least: float, reason: str = "policy", told_by: frozenset[str] = POLICY
) -> Happen:
    """An incident of further refusals with 5.7.x: a share of the traffic, and so many in a minute at least."""

    def happen(server: Server, begin: int, rate: Rate) -> Incident:
        code = "5.7.26" if reason == "authentication" else "5.7.1"
        for minute in range(begin, begin + last):
            number = server.poisson(max(least, share * rate(minute) / 60))
            server.refuse(minute, "5.7", "google", number, reason, code)
        return Incident(name, begin, begin + last, told_by)

    return happen


def listing(server: Server, begin: int, rate: Rate) -> Incident:
    """A blocklist names the server: a fifth of its mail is refused for hours."""
    for minute in range(begin, begin + 360):
        number = server.poisson(max(0.3, 0.2 * rate(minute) / 60))
        server.refuse(minute, "5.7", "microsoft", number, "blocklisted")
        if number:
            hits = f'mail_blocklist_hits_total{{{MTA},blocklist="spamhaus",provider="microsoft"}}'
            server.happens[hits][minute] += number
    return Incident("listing", begin, begin + 360, POLICY | {"MailBlocklisted", "MailAuthenticationRefusals"})


def backlog(server: Server, begin: int, rate: Rate) -> Incident:
    """Mail waits: more and more for eight hours."""
    (name,) = (key for key in server.gauges if key.startswith("mail_deferred_recipients"))
    for minute in range(begin, begin + 480):
        server.gauges[name][minute] += 300 + 2 * (minute - begin) + rate(720) * 0.5 * (minute - begin) / 60
    return Incident("backlog", begin, begin + 480, frozenset({"MailBacklogGrowing", "MailBacklogOld"}))


def silence(server: Server, begin: int, _: Rate) -> Incident:
    """Nothing is logged any more for six hours."""
    for happened in server.happens.values():
        happened[begin : begin + 360] = [0.0] * 360
    return Incident("log silent", begin, begin + 360, frozenset({"MailLogSilent"}))


def outage(server: Server, begin: int, _: Rate) -> Incident:
    """The exporter is down for an hour, and then counts what it missed."""
    server.restart(begin, 60, keeps=True)
    return Incident("exporter down", begin, begin + 60, frozenset({"BouncemeterDown"}))


def unread(server: Server, begin: int, _: Rate) -> Incident:
    """An upgrade of the mail server: some of its lines cannot be read."""
    for result, number in (("event", 30), ("unparsed", 3)):
        for minute in range(begin, begin + 180):
            server.happens[f'bouncemeter_lines_total{{{LOG},mta="postfix",result="{result}"}}'][minute] += number
    return Incident("lines unread", begin, begin + 180, frozenset({"BouncemeterLinesUnparsed"}))


AUTHENTICATION = POLICY | {"MailAuthenticationRefusals"}
INCIDENTS: dict[str, Happen] = {
    "blast": refusals("blast of 40 s", 1, 0, 300),
    "flood": refusals("flood", 60, 0.4, 4),
    "slow flood": refusals("slow flood", DAY, 0.05, 0.05),
    "one provider": refusals("one provider of many", 180, 0.15, 1),
    "DKIM": refusals("key rotation breaks DKIM", 360, 0.3, 0.3, "authentication", AUTHENTICATION),
    "hijack": refusals("hijacked account at night", 45, 0.5, 12),
    "listing": listing,
    "backlog": backlog,
    "silence": silence,
    "outage": outage,
    "unread": unread,
}
WHEN = {"hijack": 180, "silence": 600, "DKIM": 480, "listing": 480, "slow flood": 60}
"""The minute of the day at which an incident begins; others begin at any time."""


def incidents(server: Server, rate: Rate, days: int, chance: random.Random) -> list[Incident]:
    """Let something happen every second day, from the third on: working days only for what needs traffic."""
    found, names = [], list(INCIDENTS)
    chance.shuffle(names)
    for number, day in enumerate(range(2, days - 1, 2)):
        name = names[number % len(names)]
        needs_history = name == "silence" and (day < 8 or rate(WHEN["silence"]) < 60)
        too_small = name in ("one provider", "DKIM", "listing", "slow flood") and rate(720) < 20
        if needs_history or too_small or (name == "silence" and day % 7 >= 5):
            continue
        begin = day * DAY + WHEN.get(name, chance.randrange(0, DAY - 500))
        found.append(INCIDENTS[name](server, begin, rate))
    return found


class Result(NamedTuple):
    """What a trial of one server gave: false alarms by name; minutes until each incident was told, None if never."""

    false: Counter[str]
    told: dict[str, list[int | None]]


AFTER = 400
"""Minutes after an incident in which alerts about it may still fire: the longest window is of six hours."""


def trial(kind: str, weeks: float, seed: int) -> Result:
    """Try all alerts on one server."""
    rate, shares = KINDS[kind]
    days = round(weeks * 7)
    server = Server(days * DAY, rate, shares, seed)
    happened = incidents(server, rate, days, random.Random(f"{kind} {seed}"))
    minutes = sorted(
        {*range(10, days * DAY, 10), *(each.begin + late for each in happened for late in range(0, 60, 2))}
    )
    with tempfile.TemporaryDirectory() as folder:
        fired = firing(Path(folder), server, [minute for minute in minutes if minute % 2 == 0], EVERY)
    false: Counter[str] = Counter()
    before: set[str] = set()
    for minute, names in sorted(fired.items()):
        explained = any(each.begin <= minute <= each.end + AFTER for each in happened)
        if not explained:
            false.update(names - before)
        before = names
    told: dict[str, list[int | None]] = defaultdict(list)
    for each in happened:
        moments = [m for m in fired if each.begin <= m <= each.end + 30 and fired[m] & each.told_by]
        told[each.name].append(round(min(moments) - each.begin) if moments else None)
    return Result(false, told)


def main(weeks: float, seed: int, kinds: list[str]) -> None:
    """Try all kinds of servers, two at a time, and print the table."""
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(kinds, pool.map(lambda kind: trial(kind, weeks, seed), kinds), strict=True))
    print(f"{weeks:g} weeks of each server, seed {seed}\n\n| server | false alarms | which |\n|---|---|---|")
    for kind, result in results.items():
        which = ", ".join(f"{name} {number}" for name, number in result.false.most_common())
        print(f"| {kind} | {result.false.total()} | {which} |")
    print("\n| incident | told | minutes until told: median, most |\n|---|---|---|")
    told: dict[str, list[int | None]] = defaultdict(list)
    for kind, result in results.items():
        for name, delays in result.told.items():
            told[name] += delays
            if None in delays:
                print(f"<!-- missed: {name} of {kind} -->")
    for name, delays in told.items():
        known = sorted(each for each in delays if each is not None)
        shown = f"{known[len(known) // 2]}, {known[-1]}" if known else "-"
        print(f"| {name} | {len(known)} of {len(delays)} | {shown} |")
    whole = [each for delays in told.values() for each in delays]
    print(f"| all | {len(whole) - whole.count(None)} of {len(whole)} | |")


if __name__ == "__main__":
    use_unpacked()
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, sys.argv[3:] or list(KINDS))
