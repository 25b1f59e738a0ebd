"""A day of mail as Prometheus would have seen it. The exporter's own code counts a log minute by minute. The samples
and the results of the rules go into the storage of a real Prometheus.

`make demo` makes a day with incidents and serves it, so that you can look at the dashboards.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest import mock

from bouncemeter_exporter.counting.counters import Counters, Labels, Numbers
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.senders import SenderGroups
from bouncemeter_exporter.grafana.rules import Rules, as_prometheus, rules
from bouncemeter_exporter.serving.metrics import MailCollector, take_snapshot
from bouncemeter_exporter.sources.log import LogReader
from bouncemeter_exporter.sources.source import Source

from tests.bench.traffic import Recipient, attempts, traffic
from tests.servers.exporter import Exporter
from tests.servers.prometheus import Prometheus

CONFIG = """
[senders.newsletter]
domains = ["news.sender.example"]

[senders.shop]
domains = ["shop.sender.example"]
"""
"""The exporter's configuration."""

HOUR, DAY, WEEK = 3600, 86400, 604800
INSTANCE, SOURCE = "mx1.example.org:19525", "/var/log/mail.log"

Reply = tuple[str, str]
"""An enhanced code and the words that come with it."""

UNKNOWN = ("5.1.1", "550-5.1.1 The email account that you tried to reach does not exist. Please try double-checking it")
FULL = ("4.2.2", "452 4.2.2 The recipient's inbox is out of storage space.")
GREYLISTED = ("4.7.1", "450 4.7.1 <{to}>: Recipient address rejected: Greylisted, see http://postgrey.example/help")
SILENT = ("4.4.1", "")
UNAUTHENTICATED = ("5.7.26", "550-5.7.26 This mail has been blocked because the sender is unauthenticated.")
LISTED = (
    "5.7.1",
    "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus; see https://www.spamhaus.org/query/",
)
LIMITED = ("4.7.28", "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP.")
UNEXPECTED = ("4.7.0", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume")
DENIED = ("5.4.1", "550 5.4.1 Recipient address rejected: Access denied. [AM7EUR03FT.prod.protection.outlook.com]")
BUSY = ("4.3.2", "451 4.3.2 Please try again later")


class Destination(NamedTuple):
    """Where mail goes, and what usually happens to it there.

    Attributes:
        domain: The domain of the addresses.
        relay: Name and address of the server.
        weight: Its part of the mail, relative to the others.
        refused, deferred: Shares of recipients.
        hard, soft: The replies, all equally likely.
    """

    domain: str
    relay: str
    weight: float
    refused: float
    deferred: float
    hard: Sequence[Reply]
    soft: Sequence[Reply]


DESTINATIONS = [
    Destination(
        "gmail.com",
        "gmail-smtp-in.l.google.com[142.250.102.26]",
        38,
        0.009,
        0.015,
        [UNKNOWN] * 29 + [UNAUTHENTICATED],
        [FULL, FULL, LIMITED],
    ),
    Destination(
        "outlook.com",
        "outlook-com.olc.protection.outlook.com[52.101.8.42]",
        22,
        0.01,
        0.02,
        [UNKNOWN] * 20 + [DENIED] * 9 + [LISTED],
        [BUSY, FULL],
    ),
    Destination("yahoo.com", "mta5.am0.yahoodns.net[67.195.228.94]", 9, 0.012, 0.04, [UNKNOWN], [UNEXPECTED, FULL]),
    Destination("icloud.com", "mx01.mail.icloud.com[17.57.155.25]", 6, 0.006, 0.01, [UNKNOWN], [FULL]),
    Destination("gmx.de", "mx00.gmx.net[212.227.15.10]", 6, 0.008, 0.02, [UNKNOWN], [FULL, BUSY]),
    Destination(
        "customer.example",
        "mx.customer.example[198.51.100.7]",
        12,
        0.015,
        0.12,
        [UNKNOWN] * 9 + [("5.2.2", "552 5.2.2 <{to}>: mailbox full")],
        [GREYLISTED, GREYLISTED, SILENT],
    ),
    Destination("school.example", "mail.school.example[203.0.113.9]", 7, 0.012, 0.15, [UNKNOWN], [GREYLISTED]),
]


class Incident(NamedTuple):
    """Something goes wrong: one destination answers differently for a while.

    Attributes:
        begin, end: Its start and end, in seconds since the epoch.
        domain: The destination.
        share: The share of its mail that gets the reply.
        reply: The reply, a refusal for good or for now.
    """

    begin: float
    end: float
    domain: str
    share: float
    reply: Reply


class World:
    """The mail of one Postfix server.

    Args:
        hourly: Messages per hour at the busiest time; at night it is a tenth.
        incidents: What goes wrong.
        height: The busiest time of a day, in seconds since the epoch.
    """

    def __init__(self, hourly: float, incidents: Sequence[Incident] = (), height: float = 13 * HOUR) -> None:
        self.hourly, self.incidents, self.height = hourly, incidents, height

    def pause(self, now: float) -> float:
        """Seconds between two messages, on average."""
        hours = ((now - self.height) / HOUR + 12) % 24 - 12
        load = 0.1 + 0.9 * max(0.0, math.cos(math.pi * hours / 16))
        return HOUR / (self.hourly * load)

    def fate(self, chance: random.Random, now: float) -> Recipient:
        """The recipient of mail that arrives now, and what happens to it."""
        (destination,) = chance.choices(DESTINATIONS, [each.weight for each in DESTINATIONS])
        end, deferrals = "sent", 0
        drawn = chance.random()
        if drawn < destination.refused:
            end = "bounced"
        elif drawn < destination.refused + destination.deferred:
            deferrals = chance.choice((1, 1, 1, 2, 3))
        hard, soft = chance.choice(destination.hard), chance.choice(destination.soft)
        for each in self.incidents:
            if each.begin <= now < each.end and each.domain == destination.domain and chance.random() < each.share:
                if each.reply[0][0] == "5":
                    end, deferrals, hard = "bounced", 0, each.reply
                else:
                    deferrals, soft = max(1, math.ceil(math.log2((each.end - now) / 600 + 1))), each.reply
        to = f"user{chance.randrange(100000)}@{destination.domain}"
        return Recipient(to, destination.relay, end, attempts(chance, now, deferrals), soft, hard)


class Replay:
    """Counts a log as it grows, and gives what a scrape per minute would show.

    Args:
        log: The file to write the lines to.
        world: The mail.
    """

    def __init__(self, log: Path, world: World) -> None:
        self.world, self._log = world, log
        self._reader = LogReader("day")
        self._counters, self._ledger = Counters(), Ledger(senders=True)
        self._counters.name_senders(SenderGroups(tomllib.loads(CONFIG)["senders"]))
        self._counters.announce("postfix")
        self._source = SimpleNamespace(name=SOURCE, offset=0, size=0, up=True, dropped=0)
        self._collector = MailCollector(self._shown, cast("list[Source]", [self._source]), lambda: True)
        self._seed = 0

    def run(self, begin: int, end: int) -> Iterator[tuple[str, float, int]]:
        """The series, value and time of every sample from `begin` to `end`. Mail on its way at the end is dropped."""
        self._seed += 1
        lines = traffic("postfix", self.world.pause, self._seed, self.world.fate, begin)
        moment, line = next(lines)
        for scrape in range(begin, end, 60):
            due = []
            while moment < scrape:
                stamp = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
                due.append(f"{stamp} {_by_sender(line)}")
                moment, line = next(lines)
            text = "".join(f"{each}\n" for each in due)
            self._ledger.count(self._reader.read(text), self._counters)
            with self._log.open("a") as file:
                self._source.size += file.write(text)
            self._source.offset = self._source.size
            with mock.patch("time.time", return_value=float(scrape)):
                for family in self._collector.collect():
                    for sample in family.samples:
                        yield series(sample.name, sample.labels), sample.value, scrape
            yield series("up", {}), 1.0, scrape

    def _shown(self) -> Any:
        name = self._source.name
        counts = self._reader.counts
        lines: dict[Labels, float] = {(name, "postfix", result): number for result, number in counts.items()}
        numbers: Numbers = {**self._counters.numbers(), "lines": lines, "dropped": {}}
        return take_snapshot(self._counters, self._ledger.memory, cast("list[Source]", [self._source]), numbers)


def _by_sender(line: str) -> str:
    """A line with the senders of `CONFIG`: the newsletter's a quarter, the shop's another one."""
    return re.sub(r"=<list(1?)(\d)@sender", lambda found: f"=<list@{'shop' if found[1] else 'news'}.sender", line)


def series(name: str, labels: dict[str, str]) -> str:
    """A series with the labels that Prometheus adds at a scrape."""
    chosen = {"job": "bouncemeter", "instance": INSTANCE, **labels}
    written = ",".join(f'{label}="{value}"' for label, value in chosen.items())
    return f"{name}{{{written}}}"


def store(base: Path, samples: Iterable[tuple[str, float, float]], block: str = "54h") -> None:
    """Write samples into the storage of a Prometheus that is not running, in blocks of a length: promtool reads all
    samples once for each block."""
    with tempfile.NamedTemporaryFile("w", dir=base, suffix=".om") as file:
        file.writelines(f"{name} {value} {moment}\n" for name, value, moment in samples)
        file.write("# EOF\n")
        file.flush()
        command = ["promtool", "tsdb", "create-blocks-from", "--quiet", f"--max-block-duration={block}"]
        command += ["openmetrics", file.name, str(base / "data")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def evaluate(base: Path, begin: int, end: int, step: int = 30, only: str = ".+") -> None:
    """Store the results of the rules, as if Prometheus had evaluated them all along: each recording rule after the
    rules that it uses, then `ALERTS`. `only` is a pattern for the names of the rules."""
    waiting = [each for each in _at_once(rules({})) if re.fullmatch(only, each.get("record") or each["alert"])]
    names = [each["record"] for each in waiting if "record" in each]
    while waiting:
        ready = [each for each in waiting if not any(name in each["expr"] for name in names)]
        assert ready, f"rules depend on each other: {names}"
        waiting = [each for each in waiting if each not in ready]
        names = [each["record"] for each in waiting if "record" in each]
        with Prometheus(base, 1) as prometheus:
            found = [
                sample
                for each in ready
                for sample in _evaluated(prometheus, each, begin, end, 300 if "interval" in each else step)
            ]
        if found:
            store(base, sorted(found, key=itemgetter(2)))


def _at_once(found: Rules) -> Rules:
    """The rules in a form that can be evaluated for a whole time at once. What is usual leaves out what alerted, which
    depends on what was usual before; here it leaves out all that reaches the floor of its limit."""
    floors = {
        each["record"].replace(":limit", ":quiet"): each["expr"].rpartition(", ")[2].removesuffix(")")
        for each in found
        if ":limit" in each.get("record", "")
    }
    changed = []
    for each in found:
        name, expr = each.get("record", ""), each["expr"]
        if ":quiet" in name:
            expr = expr.partition("\nunless")[0]
            expr += f" < {floors[name]}" if name in floors else ""
        elif name == "job:bouncemeter:known":
            expr = expr.partition("\nor")[0]
        changed.append({**each, "expr": expr})
    return changed


def _evaluated(
    prometheus: Prometheus, rule: dict[str, Any], begin: int, end: int, step: int
) -> Iterator[tuple[str, float, float]]:
    # As in a real Prometheus, not at the full minute, where a graph's bars begin.
    answer = prometheus.ask("query_range", query=rule["expr"], start=str(begin + 7), end=str(end), step=str(step))
    for each in answer["result"]:
        labels = {name: value for name, value in each["metric"].items() if name != "__name__"}
        if "record" in rule:
            yield from ((series(rule["record"], labels), float(value), moment) for moment, value in each["values"])
            continue
        name = series("ALERTS", labels | rule["labels"] | {"alertname": rule["alert"], "alertstate": "firing"})
        (minutes,) = re.findall(r"\d+", rule["for"])
        since = before = -math.inf
        for moment, _ in each["values"]:
            since, before = (moment if moment - before > step else since), moment
            if moment - since >= 60 * int(minutes):
                yield name, 1.0, moment


def incidents(now: int) -> list[Incident]:
    """A bad afternoon: Yahoo limits us, then DKIM breaks and Google refuses, then a blocklist lists our address."""
    return [
        Incident(now - 2.5 * HOUR, now + 2 * HOUR, "yahoo.com", 0.85, UNEXPECTED),
        Incident(now - 1.2 * HOUR, now + HOUR, "gmail.com", 0.35, UNAUTHENTICATED),
        Incident(now - 0.8 * HOUR, now - 0.3 * HOUR, "outlook.com", 0.1, LISTED),
    ]


@contextlib.contextmanager
def served(base: Path, world: World, now: int, hours: int = 30, before: int = 0) -> Iterator[Prometheus]:
    """A Prometheus that has hours of mail up to now, and scrapes an exporter that has read the same log.

    Args:
        base: An empty folder.
        world: The mail.
        now: The present, in seconds since the epoch.
        hours: How many hours up to now Prometheus has.
        before: How many hours it has from a week ago.
    """
    replay = Replay(base / "mail.log", world)
    if before:
        store(base, replay.run(now - WEEK - before * HOUR, now - WEEK + HOUR))
    store(base, replay.run(now - hours * HOUR, now))
    if before:
        evaluate(base, now - WEEK - before * HOUR, now - WEEK + HOUR)
    evaluate(base, now - hours * HOUR, now)
    (base / "bouncemeter.rules.yml").write_text(as_prometheus(rules({})))
    (base / "bouncemeter.toml").write_text(CONFIG)
    with Exporter("--config", base / "bouncemeter.toml", "--from-start", base / "mail.log") as exporter:
        more = (
            f"        labels: {{instance: '{INSTANCE}'}}\n"
            "    metric_relabel_configs:\n"
            f"      - {{source_labels: [source], regex: .+, target_label: source, replacement: {SOURCE}}}\n"
            "rule_files: [bouncemeter.rules.yml]\n"
        )
        with Prometheus(base, exporter.port, "15s", more) as prometheus:
            yield prometheus


def main() -> None:
    """Make a day with incidents, and serve it until the user stops it."""
    base = Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp(prefix="bouncemeter-day-"))
    base.mkdir(parents=True, exist_ok=True)
    print(f"Making a day of mail in {base} (about a minute) ...", flush=True)
    now = int(time.time()) // 60 * 60
    with served(base, World(3000, incidents(now), height=now - 3 * HOUR), now, before=9) as prometheus:
        print(f"Prometheus is at http://127.0.0.1:{prometheus.port}; stop it with Control-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(60)


if __name__ == "__main__":
    main()
