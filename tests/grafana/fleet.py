"""How fast the dashboards are on a fleet: ten exporters with 500 series each, on a real Prometheus.

`make fleet` makes a day of samples, and thirty days of what the recording rules keep; asks every query of every panel;
and prints how long each page takes.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from bouncemeter_exporter.counting.counters import CLASSES
from bouncemeter_exporter.grafana.dashboards import dashboards
from bouncemeter_exporter.grafana.dashboards.queries import FROM_ZERO
from bouncemeter_exporter.grafana.rules import with_defaults

from tests.grafana.day import DAY, HOUR, store
from tests.servers.programs import use_unpacked
from tests.servers.prometheus import Prometheus

PROVIDERS = ("google", "microsoft", "yahoo", "apple", "gmx", "orange", "laposte", "proofpoint", "other")
ANSWERS = [
    ("hard", "5.1", "5.1.1", "unknown-recipient"),
    ("hard", "5.1", "5.1.10", "unknown-recipient"),
    ("hard", "5.2", "5.2.1", "disabled"),
    ("hard", "5.2", "5.2.2", "mailbox-full"),
    ("hard", "5.3", "5.3.4", "size"),
    ("hard", "5.4", "5.4.1", "unknown-recipient"),
    ("hard", "5.4", "5.4.4", "dns"),
    ("hard", "5.5", "5.5.0", "protocol"),
    ("hard", "5.7", "5.7.1", "policy"),
    ("hard", "5.7", "5.7.1", "blocklisted"),
    ("hard", "5.7", "5.7.1", "spam"),
    ("hard", "5.7", "5.7.26", "authentication"),
    ("hard", "5.7", "5.7.25", "authentication"),
    ("hard", "5.7", "5.7.606", "reputation"),
    ("soft", "4.2", "4.2.1", "rate"),
    ("soft", "4.2", "4.2.2", "mailbox-full"),
    ("soft", "4.3", "4.3.2", "busy"),
    ("soft", "4.4", "4.4.1", "network"),
    ("soft", "4.4", "4.4.2", "network"),
    ("soft", "4.7", "4.7.0", "reputation"),
    ("soft", "4.7", "4.7.1", "greylisted"),
    ("soft", "4.7", "4.7.28", "rate"),
]
BUCKETS = ("1", "2", "5", "10", "30", "60", "120", "300", "600", "1800", "3600", "14400", "86400", "432000", "+Inf")

TICK = 300
"""Seconds between two samples of recorded increases."""

Labels = dict[str, str]
Series = tuple[str, Labels, float]
"""A metric, its labels, and how often it counts in an hour."""


class Period(NamedTuple):
    """A time to look at.

    Attributes:
        name: How it is called.
        seconds: Its length.
        bar: The time between two points of a graph.
        recorded: The value of the variable.
    """

    name: str
    seconds: int
    bar: int
    recorded: str


PERIODS = (Period("6 h", 6 * HOUR, 300, ".+"), Period("24 h", DAY, 300, ".+"), Period("24 h, recorded", DAY, 300, ".*"))
MONTH = Period("30 d, recorded", 30 * DAY, HOUR, ".*")


def counters(chance: random.Random) -> list[Series]:
    """The counters of one exporter."""
    mta = {"mta": "postfix"}
    answers = [dict(zip(("kind", "class", "code", "reason"), each, strict=True)) for each in ANSWERS]
    codes = dict.fromkeys(each[1:3] for each in ANSWERS)
    lines = (("event", 4000.0), ("other", 12000.0), ("unparsed", 1.0))
    ends = (("delivered", 300.0), ("bounced", 30.0), ("expired", 1.0))
    of_answers = [
        *((answer | {"provider": provider}, "mail_bounces_total") for answer in answers for provider in PROVIDERS),
        *((answer | {"stage": stage}, "mail_rejections_total") for answer in answers for stage in ("connect", "rcpt")),
    ]
    return [
        *((name, mta | own, chance.choice((0.05, 0.3, 1.0, 4.0, 12.0))) for own, name in of_answers),
        *(
            ("mail_recipients_total", mta | {"outcome": outcome, "provider": provider}, hourly)
            for provider, (outcome, hourly) in product(PROVIDERS, ends)
        ),
        *(
            (name, mta | {"kind": str(kind), "class": cls}, 5.0)
            for name in ("mail_bounces_by_class_total", "mail_bounced_messages_total")
            for kind, cls in CLASSES
        ),
        *(
            ("mail_delivery_attempts_total", mta | {"outcome": outcome, "class": cls, "code": code}, 9.0)
            for (cls, code), outcome in product(codes, ("bounced", "deferred"))
        ),
        *(
            ("mail_blocklist_hits_total", mta | {"blocklist": name, "provider": provider}, 0.5)
            for name, provider in product(("spamhaus", "barracuda", "spamcop"), PROVIDERS)
        ),
        *(
            ("mail_delivery_delay_seconds_bucket", mta | {"outcome": outcome, "le": le}, 200.0)
            for outcome, le in product(("delivered", "bounced"), BUCKETS)
        ),
        *(
            ("bouncemeter_lines_total", mta | {"source": "/var/log/mail.log", "result": result}, hourly)
            for result, hourly in lines
        ),
        *((name, {}, 0.0) for name in ("bouncemeter_series_dropped_total", "bouncemeter_ledger_evicted_total")),
    ]


def gauges(chance: random.Random, now: float) -> list[Series]:
    """The gauges of one exporter, with their values."""
    mta = {"mta": "postfix"}
    found: list[Series] = []
    for provider, (kind, cls, code, _) in product(PROVIDERS, ANSWERS):
        if kind == "soft" and provider != "other":
            found.append(
                ("mail_deferred_recipients", mta | {"class": cls, "code": code, "provider": provider}, chance.random())
            )
    source = {"source": "/var/log/mail.log"}
    return [
        *found,
        ("mail_deferred_oldest_seconds", mta, 9000),
        ("bouncemeter_last_event_timestamp_seconds", mta, now),
        ("bouncemeter_build_info", {"version": "1"}, 1),
        ("bouncemeter_source_up", source, 1),
        ("bouncemeter_state_writable", {}, 1),
        ("bouncemeter_source_size_bytes", source, 1e9),
        ("bouncemeter_source_offset_bytes", source, 1e9),
        ("bouncemeter_ledger_entries", {}, 300),
        ("up", {}, 1),
    ]


class Fleet:
    """Exporters that count at random.

    Args:
        exporters: How many.
        scrape: Seconds between two scrapes.
        now: When they end.
        detailed: Whether to keep every scrape of the counters that rules record.
    """

    def __init__(self, exporters: int, scrape: int, now: int, *, detailed: bool = True) -> None:
        self.scrape, self.detailed, self._chance = scrape, detailed, random.Random(1)
        self._counters: list[list[Any]] = []
        self._gauges: list[tuple[str, float]] = []
        for number in range(1, exporters + 1):
            ours = {"job": "bouncemeter", "instance": f"mx{number}.example.org:19525"}
            self._gauges += [(_named(name, ours | own), value) for name, own, value in gauges(self._chance, now)]
            for name, own, hourly in counters(self._chance):
                metric = name.removesuffix("_total")
                recorded = _named(f"series:{metric}:increase5m", ours | own) if metric in FROM_ZERO else ""
                self._counters.append([_named(name, ours | own), recorded, hourly * scrape / HOUR, 0.0, 0.0])
        self.series = len(self._counters) + len(self._gauges)

    def samples(self, begin: int, end: int) -> Iterator[tuple[str, float, int]]:
        """The samples of some hours."""
        drawn = self._chance.random
        for moment in range(begin, end, self.scrape):
            for counter in self._counters:
                name, recorded, mean, total, before = counter
                counter[3] = total = total + int(mean) + (drawn() < mean % 1)
                if self.detailed or not recorded:
                    yield name, total, moment
                if recorded and moment % TICK == 0:
                    if total > before:
                        yield recorded, total - before, moment
                    counter[4] = total
            for name, value in self._gauges:
                yield name, value, moment


def _named(name: str, labels: Labels) -> str:
    written = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{written}}}"


def timed(prometheus: Prometheus, now: int, period: Period) -> Iterator[tuple[str, str, float]]:
    """The page, the panel and the seconds of every query of every panel. The panel has no name if its row is closed."""
    for page in dashboards(with_defaults({})).values():
        folded = [(each, "") for row in page["panels"] for each in row.get("panels", [])]
        for panel, title in [*((each, each["title"]) for each in page["panels"]), *folded]:
            bar = max(period.bar, 60 * int(panel.get("interval", "0m").removesuffix("m")))
            windows = {
                "$__rate_interval": f"{bar + 30}s",
                "$__interval_ms": f"{bar * 1000}",
                "$__interval": f"{bar}s",
                "$__range": f"{period.seconds}s",
                "$recorded": period.recorded,
            }
            for target in panel.get("targets", []):
                query = target["expr"]
                for name, value in windows.items():
                    query = query.replace(name, value)
                query = re.sub(r"\$[a-z]+", ".+", query)
                begin = time.perf_counter()
                if target["instant"]:
                    prometheus.ask("query", query=query, time=f"{now}")
                else:
                    since, step = f"{now - period.seconds}", f"{bar}"
                    prometheus.ask("query_range", query=query, start=since, end=f"{now}", step=step)
                yield page["title"], title, time.perf_counter() - begin


def report(prometheus: Prometheus, now: int, period: Period) -> float:
    """Print how long each page takes, its queries one after another. Gives the slowest query's seconds."""
    found = list(timed(prometheus, now, period))
    for page in dict.fromkeys(each[0] for each in found):
        _, panel, slowest = max((each for each in found if each[0] == page), key=lambda each: each[2])
        total = sum(each[2] for each in found if each[0] == page and each[1])
        print(
            f"{period.name:15} {page:20} {total:6.2f} s   slowest {slowest:5.2f} s ({panel or 'in a closed row'})",
            flush=True,
        )
    return max(each[2] for each in found)


def main() -> None:
    """Make a day and a month of a fleet, and print how long the pages take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exporters", type=int, default=10)
    parser.add_argument("--scrape", type=int, default=30, help="seconds between two scrapes of the day")
    parser.add_argument("--days", type=int, default=30, help="days of recorded series; 0 leaves them out")
    chosen = parser.parse_args()
    use_unpacked()
    now = int(time.time()) // HOUR * HOUR
    for days, periods in ((1, PERIODS), (chosen.days, (MONTH._replace(seconds=chosen.days * DAY),))):
        fleet = Fleet(chosen.exporters, chosen.scrape if days == 1 else TICK, now, detailed=days == 1)
        if not days:
            continue
        with tempfile.TemporaryDirectory(prefix="bouncemeter-fleet-") as folder:
            for begin in range(now - days * DAY, now, 2 * HOUR if days == 1 else DAY):
                length = 2 * HOUR if days == 1 else DAY
                store(Path(folder), fleet.samples(begin, begin + length), f"{length // HOUR}h")
            print(f"{fleet.series} series, {days} days", flush=True)
            with Prometheus(Path(folder), 1) as prometheus:
                for period in periods:
                    report(prometheus, now, period)


if __name__ == "__main__":
    main()
