"""The counts of `report` and their JSON: totals, soft and hard bounces, codes, reasons, providers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bouncemeter.event import EnhancedCode, Entry, Event, Outcome, StepKind
from bouncemeter.knowledge.codes import explain, label
from bouncemeter.knowledge.reasons import reason_of

from bouncemeter_exporter.counting.facts import Fact, FactKind
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.ordinary import OrdinaryMail
from bouncemeter_exporter.records import Redactor, rfc3339
from bouncemeter_exporter.reporting.breakdown import BREAKDOWNS, MAX_NAMES, Breakdown, text_of

__all__ = ["MAX_CODES", "TOP", "CodeRow", "Report", "Summary", "class_rows", "compared", "provider_rows", "reason_rows"]

TOP = 10
"""Rows of a table that are shown, unless somebody asks for more or fewer."""

MAX_CODES = 1000
"""Different codes that are counted separately; any further code is folded into its class (`5.7.x`)."""

Row = dict[str, Any]


@dataclass(slots=True)
class CodeRow:
    """One code's counts.

    Attributes:
        recipients: Recipients that bounced with it: soft at the first deferral, hard at the end.
        attempts: Attempts that failed with it.
        reasons: The reasons behind it, each with its number of recipients.
    """

    code: EnhancedCode
    recipients: int = 0
    attempts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Report:
    """Counts entries and facts for a summary."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.recipients: Counter[str] = Counter()
        self.bounces: Counter[str] = Counter()
        self.rejections = 0
        self.notifications = 0
        self.breakdown = Breakdown()
        self._codes: dict[str, CodeRow] = {}
        self._classes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._providers: dict[str, Counter[str]] = defaultdict(Counter)
        self._reasons: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._first: float | None = None
        self._last: float | None = None

    def count(self, entry: Entry, facts: Sequence[Fact]) -> None:
        """Count an entry of a log and the facts that the ledger concludes from it."""
        self._extend_period(entry.time)
        if not isinstance(entry, Event):
            if entry.what is StepKind.ARRIVED:
                self.breakdown.arrival(entry.peer)
            return
        if entry.outcome is Outcome.REJECTED:
            self.rejections += 1
            self.breakdown.rejection(entry)
            return
        self.attempts[entry.outcome] += 1
        if entry.outcome is not Outcome.DELIVERED:
            self._row(facts[0].event.code if facts else entry.code).attempts += 1
        for fact in facts:
            self._fact(fact)

    def count_ordinary(self, mail: OrdinaryMail) -> None:
        """Count ordinary mail."""
        self.breakdown.ordinary(mail)
        self.attempts[Outcome.DELIVERED] += len(mail.deliveries)
        self.recipients[Outcome.DELIVERED] += len(mail.deliveries)
        for provider, number in Counter(mail.providers()).items():
            self._providers[provider][Outcome.DELIVERED] += number
        for time in mail.rows.span() or ():
            self._extend_period(time)

    @property
    def folds(self) -> bool:
        """Whether codes or names may have been folded. Which ones depends on the order of the entries."""
        return len(self._codes) >= MAX_CODES or self.breakdown.folds

    def merge(self, other: Report) -> None:
        """Add the counts of another report, in which nothing is folded."""
        self.breakdown.merge(other.breakdown)
        self.attempts += other.attempts
        self.recipients += other.recipients
        self.bounces += other.bounces
        self.rejections += other.rejections
        self.notifications += other.notifications
        for name, row in other._codes.items():
            mine = self._codes.setdefault(name, CodeRow(row.code))
            mine.recipients += row.recipients
            mine.attempts += row.attempts
            mine.reasons += row.reasons
        for name_of_class, counts in other._classes.items():
            self._classes[name_of_class].update(counts)
        for provider, counts in other._providers.items():
            self._providers[provider].update(counts)
        for reason, counts in other._reasons.items():
            self._reasons[reason].update(counts)
        self._extend_period(other._first)
        self._extend_period(other._last)

    def _extend_period(self, time: float | None) -> None:
        """Extend the report's period to a time in the logs."""
        if time is not None:
            if self._first is None or time < self._first:
                self._first = time
            if self._last is None or time > self._last:
                self._last = time

    def _fact(self, fact: Fact) -> None:
        if fact.kind is FactKind.NOTIFICATION:
            self.notifications += fact.outcome is not Outcome.DEFERRED
            return
        if fact.kind is FactKind.ENDED:
            self.recipients[fact.outcome] += 1
        if (kind := fact.bounce) is not None:
            self.bounces[kind] += 1
            self.breakdown.bounce(fact, kind)
            by_class = self._classes[kind, label(fact.event.code)[0]]
            by_class["recipients"] += 1
            by_class["messages"] += fact.first
            row = self._row(fact.event.code)
            row.recipients += 1
            reason = reason_of(fact.event) or "other"
            row.reasons[reason] += 1
            self._reasons[reason, fact.provider][kind] += 1
        elif fact.outcome is Outcome.DELIVERED:
            self.breakdown.delivery(fact)
        column = kind or fact.outcome
        if column is not Outcome.EXPIRED:
            self._providers[fact.provider][column] += 1

    def _row(self, code: EnhancedCode) -> CodeRow:
        name = text_of(code)
        if (known := self._codes.get(name)) is not None:
            return known
        if len(self._codes) >= MAX_CODES:
            name = label(code)[1]
        return self._codes.setdefault(name, CodeRow(code))

    def codes(self) -> list[Row]:
        """Codes by number of recipients, most first."""
        rows = sorted(self._codes.items(), key=lambda item: (-item[1].recipients, -item[1].attempts, item[0]))
        return [
            {
                "code": name,
                "kind": row.code.kind,
                "recipients": row.recipients,
                "attempts": row.attempts,
                "reason": min(
                    row.reasons, key=lambda each: (-row.reasons[each], each), default=explain(row.code).reason
                ),
                "meaning": explain(row.code).meaning,
            }
            for name, row in rows
        ]

    def as_json(self, lines: Mapping[str, int], waiting: int, top: int = TOP, hidden: Redactor | None = None) -> Row:
        """The report as `report --format json` prints it.

        Args:
            lines: Lines by result.
            waiting: Recipients that wait at the end of the logs.
            top: Rows of each table of `Breakdown`.
            hidden: What hides addresses and accounts.
        """
        return {
            "lines": {"read": sum(lines.values()), **lines},
            "attempts": {name: self.attempts[name] for name in ("delivered", "deferred", "bounced", "expired")},
            "recipients": {
                **{name: self.recipients[name] for name in ("delivered", "bounced", "expired")},
                "waiting": waiting,
            },
            "bounces": {name: self.bounces[name] for name in ("soft", "hard")},
            "rejections": self.rejections,
            "notifications": self.notifications,
            "classes": class_rows(self._classes),
            "codes": self.codes(),
            "reasons": reason_rows(self._reasons),
            "providers": provider_rows(self._providers),
            "from": rfc3339(self._first),
            "to": rfc3339(self._last),
            **self.breakdown.as_json(top, hidden),
        }


def class_rows(classes: Mapping[tuple[str, str], Mapping[str, int]]) -> list[Row]:
    """Classes by number of recipients, most first, each with the number of messages that these belong to.

    Args:
        classes: By kind and class, the `recipients` and the `messages`.
    """
    rows = [
        {"class": code_class, "kind": kind, "recipients": row["recipients"], "messages": row["messages"]}
        for (kind, code_class), row in classes.items()
    ]
    return sorted(rows, key=lambda row: (-row["recipients"], row["class"], row["kind"]))


def provider_rows(providers: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Providers by number of recipients, most first.

    Args:
        providers: By provider, the recipients `delivered`, `soft` and `hard`.
    """
    rows = [
        {"provider": name, "delivered": row["delivered"], "soft": row["soft"], "hard": row["hard"]}
        for name, row in providers.items()
    ]
    return sorted(rows, key=lambda row: (-(row["delivered"] + row["soft"] + row["hard"]), row["provider"]))


def reason_rows(reasons: Mapping[tuple[str, str], Mapping[str, int]]) -> list[Row]:
    """Reasons and who gave them, by number of recipients, most first.

    Args:
        reasons: By reason and provider, the recipients `soft` and `hard`.
    """
    rows = [
        {"reason": reason, "provider": provider, "soft": row["soft"], "hard": row["hard"]}
        for (reason, provider), row in reasons.items()
    ]
    return sorted(rows, key=lambda row: (-(row["soft"] + row["hard"]), row["reason"], row["provider"]))


class Summary(NamedTuple):
    """A summary of logs: the counts, the ledger with the recipients that wait, the lines by result, and the counts of
    another period to compare with."""

    report: Report
    ledger: Ledger
    lines: Counter[str]
    before: Report | None = None

    def as_json(self, top: int = TOP, hidden: Redactor | None = None) -> Row:
        """The summary as `report --format json` prints it; see `Report.as_json`."""
        found = self.report.as_json(self.lines, self.ledger.memory.waiting.total(), top, hidden)
        return found if self.before is None else compared(found, self.before, hidden)


_COMPARED = {
    "codes": ("code", "kind"),
    "reasons": ("reason", "provider"),
    "providers": ("provider",),
    **{table: (key,) for table, key in BREAKDOWNS.items()},
    "rejection_reasons": ("reason", "stage", "code"),
    "client_networks": ("network",),
    "clients": ("client",),
}
"""The tables whose rows are compared, each with the keys of what a row is about."""


def compared(found: Row, before: Report, hidden: Redactor | None = None) -> Row:
    """A report beside that of another period: each row of a table has the number before, and whether it is new.

    Args:
        found: The report in its JSON form.
        before: The other period's counts.
        hidden: What hides addresses and accounts.
    """
    then = before.as_json({}, 0, MAX_NAMES, hidden)
    for table, keys in _COMPARED.items():
        known = {tuple(row[key] for key in keys): _size(row) for row in then[table]}
        for row in found[table]:
            row["before"] = known.get(tuple(row[key] for key in keys), 0)
            row["new"] = not row["before"] and bool(_size(row))
    kept = ("attempts", "recipients", "bounces", "rejections", "notifications", "arrivals", "from", "to")
    del then["recipients"]["waiting"]
    return found | {"compared_with": {name: then[name] for name in kept}}


def _size(row: Row) -> int:
    """What is compared of a row: recipients that bounced, or rejections."""
    if "recipients" in row:
        return int(row["recipients"])
    return int(row.get("rejections", row.get("messages", 0)) or row.get("soft", 0) + row.get("hard", 0))
