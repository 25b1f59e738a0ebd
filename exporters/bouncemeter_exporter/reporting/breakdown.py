"""Who and when: a report's counts by hour, sender, account, recipient domain, relay and client, and example replies.

Names come from the mail itself, so there may be very many. Each table has at most `MAX_NAMES` of them; any further one
is counted as `other`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_network
from itertools import repeat
from typing import Any

from bouncemeter.event import EnhancedCode, Event, Kind, Outcome
from bouncemeter.knowledge.codes import label
from bouncemeter.knowledge.reasons import reason_of
from bouncemeter.patterns import compiled

from bouncemeter_exporter.counting.counters import DELAY_BUCKETS
from bouncemeter_exporter.counting.facts import Fact
from bouncemeter_exporter.counting.ordinary import OrdinaryMail, domains_of
from bouncemeter_exporter.records import Redactor, rfc3339

__all__ = ["BREAKDOWNS", "MAX_NAMES", "Breakdown", "text_of"]

MAX_NAMES = 100_000
"""Names in one table."""

MAX_REPLIES = 3
"""Replies that are shown of each code and provider."""

MAX_KEPT = 20
"""Of the latest replies of a code and provider, those among which the ones to show are looked for."""

MAX_ABOUT = 2000
"""Codes and providers of which replies are kept."""

MAX_REPLY = 1000
"""Characters of a reply that are kept."""

AT_ONCE = 1000
"""Facts that are counted together, by columns: one by one would cost twice as much."""

OTHER = "other"
LOCAL = "(local)"
"""An address without a domain, and this host."""

BREAKDOWNS = {
    "senders": "sender",
    "accounts": "account",
    "recipient_domains": "domain",
    "relays": "relay",
}
"""The tables of recipients by outcome, each with the key of a row's name."""

_COLUMNS = ("delivered", "soft", "hard")
_HOUR = 3600

Row = dict[str, Any]

text_of: Callable[[EnhancedCode], str] = lru_cache(maxsize=4096)(str)
"""A code as a text. The same few codes come again and again."""


_Reply = tuple[float, str, str, str]
"""A reply's time, queue ID, text and recipient."""

_VARIABLE = compiled(r"(?<!\S)[^\s0-9@]*+[0-9@]\S*+")
"""A word with a digit or an address. Replies that differ in such words alone are alike."""


@dataclass(slots=True)
class _Names:
    """Recipients with one outcome, by names as the log has them."""

    senders: Counter[str | None] = field(default_factory=Counter)
    accounts: Counter[str | None] = field(default_factory=Counter)
    recipient_domains: Counter[str | None] = field(default_factory=Counter)
    relays: Counter[str | None] = field(default_factory=Counter)

    def counters(self) -> dict[str, Counter[str | None]]:
        """The counters by their names in the report."""
        return {name: getattr(self, name) for name in BREAKDOWNS}


@dataclass(slots=True)
class Breakdown:
    """Counts by who and when.

    Attributes:
        arrivals: Messages that were accepted into the queue, by client; a message that a filter hands back arrives
            again.
        hours: Recipients by the hour in which they ended or were deferred first, in seconds since 1970 UTC, and by
            column; and rejections.
        names: Recipients by column and name.
        delays: Delivered recipients by recipient domain: the sum of their delays in milliseconds.
        longest: The longest of these delays.
        delivered_within: Delivered recipients by the index of the upper bound of their delay in `DELAY_BUCKETS`.
        rejections: Rejections by reason, stage and code.
        networks: Rejections by the client's network and the reason.
        replies: By code and provider, the latest replies, and some more.
    """

    arrivals: Counter[str | None] = field(default_factory=Counter)
    hours: Counter[tuple[int, str]] = field(default_factory=Counter)
    names: dict[str, _Names] = field(default_factory=lambda: {column: _Names() for column in _COLUMNS})
    delays: Counter[str] = field(default_factory=Counter)
    longest: dict[str, int] = field(default_factory=dict)
    delivered_within: Counter[int] = field(default_factory=Counter)
    rejections: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    networks: Counter[tuple[str, str]] = field(default_factory=Counter)
    replies: dict[tuple[str, str], list[_Reply]] = field(default_factory=dict)
    _facts: dict[str, list[Fact]] = field(default_factory=lambda: {column: [] for column in _COLUMNS})

    # --- counting -----------------------------------------------------------------------------------------------

    def arrival(self, peer: str | None) -> None:
        """Count a message that was accepted into the queue, by the client that handed it over."""
        _add(self.arrivals, peer)

    def rejection(self, event: Event) -> None:
        """Count a rejection."""
        reason = reason_of(event) or OTHER
        if event.time is not None:
            self.hours[_hour(event.time), "rejected"] += 1
        _add(self.rejections, (reason, event.stage or "data", text_of(event.code)), (OTHER, "data", OTHER))
        _add(self.networks, (_network(event.relay or ""), reason), (OTHER, reason))

    def bounce(self, fact: Fact, kind: Kind) -> None:
        """Count a recipient that bounced."""
        self._recipient(fact, kind)
        self._reply(fact.event, fact.provider)

    def delivery(self, fact: Fact) -> None:
        """Count a recipient that was delivered."""
        self._recipient(fact, Outcome.DELIVERED)

    def _recipient(self, fact: Fact, column: str) -> None:
        facts = self._facts[column]
        facts.append(fact)
        if len(facts) >= AT_ONCE:
            self._count_facts()

    def _count_facts(self) -> None:
        """Count the facts that were only collected so far."""
        for column, facts in self._facts.items():
            names, events = self.names[column], [fact.event for fact in facts]
            self.hours.update((_hour(each.time), column) for each in events if each.time is not None)
            _add_all(names.senders, _senders(fact.sender for fact in facts if fact.sender))
            _add_all(names.accounts, [fact.account for fact in facts if fact.account])
            _add_all(names.recipient_domains, _domains(each.recipient for each in events if each.recipient is not None))
            _add_all(names.relays, [each.relay for each in events if each.relay])
        ended = [fact for fact in self._facts[Outcome.DELIVERED] if fact.event.recipient is not None]
        self._delays(_domains(fact.event.recipient or "" for fact in ended), [fact.delay for fact in ended])
        for facts in self._facts.values():
            facts.clear()

    def ordinary(self, mail: OrdinaryMail) -> None:
        """Count the deliveries of ordinary mail."""
        if not mail.queue_ids:
            return
        self._count_facts()
        columns, first, names = mail.rows.reader.columns, mail.first, self.names[Outcome.DELIVERED]
        _add_all(self.arrivals, [first[each][columns.peer] for each in mail.queue_ids])
        for hour, number in mail.periods(_HOUR).items():
            if hour is not None:
                self.hours[hour * _HOUR, Outcome.DELIVERED] += number
        queue_ids, senders, accounts = mail.texts(columns.queue_id), mail.senders(), mail.accounts()
        _add_all(names.senders, _senders(map(senders.get, queue_ids)))
        if accounts:
            _add_all(names.accounts, list(map(accounts.get, queue_ids)))
        domains = [each or LOCAL for each in mail.domains()]
        _add_all(names.recipient_domains, domains)
        _add_all(names.relays, mail.texts(columns.relay))
        self._delays(domains, mail.delays())

    def _delays(self, domains: Sequence[str], delays: Sequence[float | None]) -> None:
        sums, longest = self.delays, self.longest
        for name, seconds in zip(domains, delays, strict=True):
            if seconds is not None:
                domain = name if name in sums or len(sums) < MAX_NAMES else OTHER
                milliseconds = int(seconds * 1000 + 0.5)
                sums[domain] += milliseconds
                if milliseconds > longest.get(domain, -1):
                    longest[domain] = milliseconds
        known = [seconds for seconds in delays if seconds is not None]
        self.delivered_within.update(map(bisect_left, repeat(DELAY_BUCKETS), known))

    def _reply(self, event: Event, provider: str) -> None:
        text = event.text
        if not text:
            return
        about = text_of(event.code), provider
        if about not in self.replies and len(self.replies) >= MAX_ABOUT:
            about = label(event.code)[1], provider
        known = self.replies.setdefault(about, [])
        known.append((event.time or 0.0, event.queue_id or "", text[:MAX_REPLY], event.recipient or ""))
        if len(known) > 3 * MAX_KEPT:
            _keep_latest(known)

    # --- several reports ----------------------------------------------------------------------------------------

    @property
    def folds(self) -> bool:
        """Whether a name may have been counted as `other`. Which ones depends on the order of the entries."""
        self._count_facts()
        sizes = [len(each) for names in self.names.values() for each in names.counters().values()]
        sizes += [len(self.delays), len(self.arrivals), len(self.rejections), len(self.networks)]
        return max(sizes) >= MAX_NAMES or len(self.replies) >= MAX_ABOUT

    def merge(self, other: Breakdown) -> None:
        """Add the counts of another part of the logs, in which no name is folded."""
        self._count_facts()
        other._count_facts()
        self.arrivals.update(other.arrivals)
        self.hours.update(other.hours)
        self.delays.update(other.delays)
        self.delivered_within.update(other.delivered_within)
        self.rejections.update(other.rejections)
        self.networks.update(other.networks)
        for column, names in other.names.items():
            for name, counts in names.counters().items():
                self.names[column].counters()[name].update(counts)
        for domain, milliseconds in other.longest.items():
            self.longest[domain] = max(milliseconds, self.longest.get(domain, 0))
        for about, replies in other.replies.items():
            self.replies.setdefault(about, []).extend(replies)
            _keep_latest(self.replies[about])

    # --- as JSON ------------------------------------------------------------------------------------------------

    def as_json(self, top: int, hidden: Redactor | None = None) -> Row:
        """The tables, each most first, with at most `top` rows; the hours are all there, in their order.

        Args:
            top: Rows of a table.
            hidden: What hides addresses and accounts.
        """
        self._count_facts()
        clients = _renamed(self.arrivals, _relay)
        return {
            "arrivals": self.arrivals.total(),
            "hours": self._hours(),
            "delays": self._delays_within(),
            **{name: self._table(name, top, hidden) for name in BREAKDOWNS},
            "slowest": self._slowest(top),
            "clients": [{"client": name, "messages": number} for name, number in _most(clients, top)],
            "rejection_reasons": [
                {"reason": reason, "stage": stage, "code": code, "rejections": number}
                for (reason, stage, code), number in _most(self.rejections, top)
            ],
            "client_networks": self._networks(top),
            "replies": self._replies(top, hidden),
        }

    def _hours(self) -> list[Row]:
        """Every hour from the first to the last, in which anything happened or nothing; only the former if the logs
        cover more than a year."""
        hours = sorted({hour for hour, _ in self.hours})
        if hours and (hours[-1] - hours[0]) // _HOUR < 24 * 366:
            hours = list(range(hours[0], hours[-1] + _HOUR, _HOUR))
        columns = (*_COLUMNS, "rejected")
        return [{"hour": rfc3339(hour), **{name: self.hours[hour, name] for name in columns}} for hour in hours]

    def _delays_within(self) -> list[Row]:
        bounds = (*DELAY_BUCKETS, None)
        return [
            {"within_seconds": bound, "recipients": self.delivered_within[place]}
            for place, bound in enumerate(bounds)
            if self.delivered_within
        ]

    def _table(self, name: str, top: int, hidden: Redactor | None) -> list[Row]:
        found = [self.names[column].counters()[name] for column in _COLUMNS]
        delivered, soft, hard = (_renamed(each, _RENAMED[name]) for each in found)
        shown = hidden.address if hidden and name in ("senders", "accounts") else str
        order = sorted(
            {*delivered, *soft, *hard}, key=lambda each: (-(soft[each] + hard[each]), -delivered[each], each)
        )
        return [
            {BREAKDOWNS[name]: shown(each), "delivered": delivered[each], "soft": soft[each], "hard": hard[each]}
            for each in order[:top]
        ]

    def _slowest(self, top: int) -> list[Row]:
        delivered = self.names[Outcome.DELIVERED].recipient_domains
        means = {name: total / (delivered[name] or 1) / 1000 for name, total in self.delays.items()}
        order = sorted(means, key=lambda name: (-means[name], name))
        return [
            {
                "domain": name,
                "delivered": delivered[name],
                "mean_seconds": round(means[name], 3),
                "longest_seconds": self.longest[name] / 1000,
            }
            for name in order[:top]
        ]

    def _networks(self, top: int) -> list[Row]:
        totals, reasons = Counter[str](), dict[str, Counter[str]]()
        for (network, reason), number in self.networks.items():
            totals[network] += number
            reasons.setdefault(network, Counter())[reason] += number
        return [
            {"network": network, "rejections": number, "reason": _most(reasons[network], 1)[0][0]}
            for network, number in _most(totals, top)
        ]

    def _replies(self, top: int, hidden: Redactor | None) -> list[Row]:
        """Replies of class 5.7 first, then other hard ones, then soft ones; of each the latest first."""
        for known in self.replies.values():
            _keep_latest(known)
        order = sorted(self.replies, key=lambda about: (self.replies[about][0], about), reverse=True)
        order.sort(key=lambda about: (not about[0].startswith("5.7."), not about[0].startswith("5.")))
        return [
            {
                "code": code,
                "provider": provider,
                "replies": [
                    {
                        "time": rfc3339(time or None),
                        "queue_id": queue_id or None,
                        "text": hidden.text(text, recipient) if hidden else text,
                    }
                    for time, queue_id, text, recipient in _unlike(self.replies[code, provider])
                ],
            }
            for code, provider in order[:top]
        ]


def _add(counts: Counter[Any], name: Any, other: Any = OTHER) -> None:  # noqa: ANN401
    counts[name if name in counts or len(counts) < MAX_NAMES else other] += 1


def _add_all(counts: Counter[str | None], names: Sequence[str | None]) -> None:
    if len(counts) + len(names) < MAX_NAMES:
        counts.update(names)
    else:
        for name in names:
            _add(counts, name)


def _renamed(counts: Mapping[str | None, int], rename: Callable[[str], str]) -> Counter[str]:
    """Counts with other names. What has no name is left out."""
    found = Counter[str]()
    for name, number in counts.items():
        if name is not None:
            found[rename(name)] += number
    return found


def _most(counts: Mapping[Any, int], top: int) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]


def _keep_latest(known: list[_Reply]) -> None:
    """Sort replies, latest first, and keep `MAX_KEPT` of them."""
    known.sort(reverse=True)
    del known[MAX_KEPT:]


def _unlike(known: list[_Reply]) -> list[_Reply]:
    """The latest replies that are not alike."""
    found: dict[str, _Reply] = {}
    for each in known:
        found.setdefault(_VARIABLE.sub("", each[2]), each)
    return list(found.values())[:MAX_REPLIES]


def _hour(time: float) -> int:
    """The beginning of an hour."""
    return int(time // _HOUR) * _HOUR


def _domains(addresses: Iterable[str]) -> list[str]:
    """The domains of addresses; an address of this host has none."""
    return [each or LOCAL for each in domains_of(addresses)]


def _relay(relay: str) -> str:
    """The name of a relay or client without its address and port; of a nameless one, the address."""
    if not relay:
        return LOCAL
    if relay[0] in "|/":
        return "(file or command)"
    # A client may call itself anything, in round brackets before its address.
    name = relay.partition("[")[0].partition("(")[0].strip().lower()
    if name not in ("", "unknown"):
        return name
    addresses = _ADDRESS.findall(relay)
    return addresses[-1] if addresses else name or relay


_RENAMED: dict[str, Callable[[str], str]] = {
    "senders": str.lower,
    "accounts": str.lower,
    "recipient_domains": str,
    "relays": _relay,
}
"""What makes a name for the report of a name in the log."""


def _senders(addresses: Iterable[str | None]) -> list[str | None]:
    return [_sender(each) if each and "=" in each else each for each in addresses]


def _sender(address: str) -> str:
    """A sender, without the recipient that mailing systems write into it: `news+ann=dest.test@src.test`."""
    local, _, domain = address.rpartition("@")
    if signed := _BATV.fullmatch(local):
        return f"{signed[1]}@{domain}"
    return f"{_VERP.split(local, maxsplit=1)[0]}*@{domain}" if "=" in local else address


_BATV = re.compile(r"(?:prvs|btv1)==?[0-9A-Za-z]+=+([^=]+)")
"""A sender with a signature that keeps forged bounces out (BATV)."""

_VERP = re.compile(r"[-+=]")


@lru_cache(maxsize=16384)
def _network(client: str) -> str:
    """The network of a client: 256 addresses of IPv4, or the /48 of IPv6."""
    found = _ADDRESS.findall(client)
    try:
        return str(ip_network((found[-1], 48 if ":" in found[-1] else 24), strict=False))
    except (IndexError, ValueError):
        return "unknown"


_ADDRESS = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]")
