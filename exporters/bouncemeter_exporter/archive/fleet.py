"""A fleet's report, from the entries of its logs and the facts about its recipients in Spark."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bouncemeter.knowledge.codes import label
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from bouncemeter_exporter.archive.entries import SERVER, code_of
from bouncemeter_exporter.archive.facts import WAITING
from bouncemeter_exporter.counting.facts import FactKind
from bouncemeter_exporter.counting.memory import MAX_AGE
from bouncemeter_exporter.records import rfc3339
from bouncemeter_exporter.reporting.report import class_rows, provider_rows, reason_rows

__all__ = ["report"]


def report(entries: DataFrame, recipients: DataFrame) -> dict[str, Any]:
    """The numbers of `bouncemeter report --format json` that Spark can add up: attempts, recipients, bounces,
    rejections, notifications, classes, codes, reasons, providers, and the time from the first to the last entry.

    Args:
        entries: The entries of the logs.
        recipients: What `recipients` makes of them; it is computed once here.
    """
    outcome = F.when(F.col("entry") == "event", F.col("outcome"))
    first, last = F.min(F.unix_micros("time")).alias("first"), F.max(F.unix_micros("time")).alias("last")
    counted = (
        entries.groupBy(*SERVER, outcome.alias("outcome")).agg(F.count("*").alias("number"), first, last).collect()
    )
    attempts = Counter[str]()
    for row in counted:
        attempts[row["outcome"] or ""] += row["number"]
    by = ("fact", "outcome", "kind", "code", "reason", "provider")
    rows = (
        recipients.where(~_forgotten(counted))
        .groupBy(*by)
        .agg(F.count("*").alias("number"), F.sum(F.col("first").cast("int")).alias("first"))
        .collect()
    )
    ended, bounced = _of(rows, FactKind.ENDED), [row for row in rows if row["kind"] is not None]
    soft_or_hard = Counter[str]()
    for row in bounced:
        soft_or_hard[row["kind"]] += row["number"]
    ends = Counter[str]()
    for row in ended:
        ends[row["outcome"]] += row["number"]
    return {
        "attempts": {name: attempts[name] for name in ("delivered", "deferred", "bounced", "expired")},
        "recipients": {
            **{name: ends[name] for name in ("delivered", "bounced", "expired")},
            "waiting": sum(row["number"] for row in _of(rows, WAITING)),
        },
        "bounces": {name: soft_or_hard[name] for name in ("soft", "hard")},
        "rejections": attempts["rejected"],
        "notifications": sum(row["number"] for row in _of(rows, FactKind.NOTIFICATION) if row["outcome"] != "deferred"),
        "classes": class_rows(_classes(bounced)),
        "codes": _codes(bounced),
        "reasons": reason_rows(_reasons(bounced)),
        "providers": provider_rows(_providers([*bounced, *(row for row in ended if row["outcome"] == "delivered")])),
        "from": _moment(min((row["first"] for row in counted if row["first"] is not None), default=None)),
        "to": _moment(max((row["last"] for row in counted if row["last"] is not None), default=None)),
    }


def _forgotten(counted: list[Row]) -> Column:
    """Whether a fact is of a recipient that waits at a server that fell silent long before the others."""
    latest: dict[tuple[str, str | None], int] = {}
    for row in counted:
        if row["last"] is not None and row["outcome"] != "rejected":
            server = row["mta"], row["server"]
            latest[server] = max(latest.get(server, row["last"]), row["last"])
    limit = max(latest.values(), default=0) - 2 * MAX_AGE * 1e6
    silent = [server for server, last in latest.items() if last < limit]
    found = F.lit(False)  # noqa: FBT003
    for mta, host in silent:
        found = found | ((F.col("mta") == mta) & F.col("host").eqNullSafe(F.lit(host)))
    return (F.col("fact") == WAITING) & found


def _of(rows: list[Row], fact: str) -> list[Row]:
    return [row for row in rows if row["fact"] == fact]


def _moment(microseconds: int | None) -> str | None:
    return rfc3339(None if microseconds is None else microseconds / 1e6)


def _classes(bounced: list[Row]) -> dict[tuple[str, str], Counter[str]]:
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in bounced:
        counts = found.setdefault((row["kind"], label(code_of(row["code"]))[0]), Counter())
        counts["recipients"] += row["number"]
        counts["messages"] += row["first"]
    return found


def _codes(bounced: list[Row]) -> list[dict[str, Any]]:
    recipients, reasons = Counter[str](), dict[str, Counter[str]]()
    for row in bounced:
        recipients[row["code"]] += row["number"]
        reasons.setdefault(row["code"], Counter())[row["reason"] or "other"] += row["number"]
    made = [
        {
            "code": code,
            "kind": code_of(code).kind,
            "recipients": number,
            "reason": min(reasons[code], key=lambda each: (-reasons[code][each], each)),
        }
        for code, number in recipients.items()
    ]
    return sorted(made, key=lambda row: (-row["recipients"], row["code"]))


def _reasons(bounced: list[Row]) -> dict[tuple[str, str], Counter[str]]:
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in bounced:
        found.setdefault((row["reason"] or "other", row["provider"]), Counter())[row["kind"]] += row["number"]
    return found


def _providers(rows: list[Row]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["provider"], Counter())[row["kind"] or "delivered"] += row["number"]
    return found
