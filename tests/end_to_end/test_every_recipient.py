"""Thousands of messages through real servers: every counter equals what the test's own servers know to have happened.

A recipient's fate is decided by its name, and no two messages have the same recipient. What each of them got, attempt
by attempt, is written down by the server that answered; from that, and from nothing in the log, follows the truth.
"""

from __future__ import annotations

import re
import smtplib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.exim import Exim
from tests.servers.exporter import Exporter
from tests.servers.net import wait_until
from tests.servers.postfix import Postfix
from tests.servers.smtp import DROP, FateServer, Filter, Truth

Json = dict[str, Any]
Message = tuple[str, list[str]]
"""Sender and recipients."""

SENDER = "sender@src.test"


Classes = Counter[tuple[str, str]]
"""Messages by kind and class."""


def bounced_messages(messages: Iterable[list[str]], truth: Truth, held: Iterable[str], drop: str) -> Classes:
    """How many messages a recipient bounced of, by kind and class: each message once.

    Args:
        messages: The recipients of each message.
        truth: The answers of the last server.
        held: Recipients that a filter deferred before, with its code 4.3.0.
        drop: The class of a connection that breaks off, which has no reply.
    """
    bounces = {recipient: [("soft", "4.3")] for recipient in held}
    for answer in truth.answers:
        found = bounces.setdefault(answer.recipient, [])
        code_class = drop if answer.reply == DROP else answer.code.rpartition(".")[0]
        if answer.outcome == "bounced":
            found.append(("hard", code_class))
        elif answer.outcome == "deferred" and not found:
            found.append(("soft", code_class))
    return Classes(each for names in messages for each in {each for name in names for each in bounces.get(name, ())})


@dataclass
class Expected:
    """What must have been counted."""

    delivered: int
    bounced: int
    expired: int
    soft: int
    notifications: dict[str, int]

    @property
    def ended(self) -> dict[str, int]:
        """Recipients by outcome."""
        return {"delivered": self.delivered, "bounced": self.bounced, "expired": self.expired}


def expected(truth: Truth, filter_: Filter, notified: set[str], elsewhere: int = 0) -> Expected:
    """What follows from the servers' own books.

    Args:
        truth: The answers of the last server.
        filter_: The filter before it. What it deferred and never handed on expired.
        notified: Recipients of mail with the empty sender.
        elsewhere: Recipients that were delivered on the way, to a mailbox, each deferred before.
    """
    held, handed_on = filter_.handler.held, filter_.handler.handed_on
    ended = {"delivered": elsewhere, "bounced": 0, "expired": len(held - handed_on)}
    soft, notifications = set(held) | {f"mailbox {number}" for number in range(elsewhere)}, Counter[str]()
    for recipient, outcomes in truth.lives().items():
        if recipient == SENDER:
            continue  # mail about a failure
        last = {"deferred": "expired"}.get(outcomes[-1], outcomes[-1])
        if recipient in notified:
            notifications[last] += 1
            continue
        ended[last] += 1
        if "deferred" in outcomes:
            soft.add(recipient)
    # The server saw the empty sender of mail about a failure.
    notifications["delivered"] += truth.senders.count("<>") - notifications["delivered"]
    return Expected(**ended, soft=len(soft), notifications=dict(+notifications))


class Page:
    """The metrics of an exporter's page, as sums over labels."""

    def __init__(self, text: str) -> None:
        self.series = [
            (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
            for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
        ]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        wanted = labels.items()
        return sum(value for each, found, value in self.series if each == name and wanted <= found.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """A metric's sums by one label, without zeros."""
        found = Counter[str]()
        for each, labels, value in self.series:
            if each == name and value:
                found[labels[label]] += int(value)
        return dict(found)


def check(page: Page, report: Json, truth: Expected, messages: Classes) -> None:
    """Every number that speaks of recipients, and of the messages that they belong to."""
    series = [each for each in page.series if each[0] == "mail_bounced_messages_total" and each[2]]
    assert {(labels["kind"], labels["class"]): value for _, labels, value in series} == messages
    assert {(row["kind"], row["class"]): row["messages"] for row in report["classes"]} == messages
    ended = {name: number for name, number in truth.ended.items() if number}
    assert page.by("mail_recipients_total", "outcome") == ended
    assert page.by("mail_delivery_delay_seconds_count", "outcome") == ended
    bounces = {"soft": truth.soft, "hard": truth.bounced}
    assert page.by("mail_bounces_total", "kind") == bounces
    assert page.by("mail_bounces_by_class_total", "kind") == bounces
    assert page.by("mail_notifications_total", "outcome") == truth.notifications
    assert page.sum("mail_deferred_recipients") == 0
    assert page.sum("mail_deferred_oldest_seconds") == 0
    assert page.sum("bouncemeter_lines_total", result="unparsed") == 0
    assert page.sum("bouncemeter_ledger_evicted_total") == 0
    assert report["recipients"] == {**truth.ended, "waiting": 0}
    assert report["bounces"] == bounces
    assert report["notifications"] == sum(truth.notifications.values())
    assert sum(row["recipients"] for row in report["codes"]) == truth.soft + truth.bounced
    assert sum(row["delivered"] for row in report["providers"]) == truth.delivered


def send(port: int, messages: list[Message]) -> None:
    """Submit messages over a few connections at a time."""

    def some(part: list[Message]) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=300) as client:
            for sender, recipients in part:
                client.sendmail(sender, recipients, "Subject: test\n\nHello.\n")

    parts = [messages[start::4] for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, parts))


def singles(numbers: dict[str, int], domain: str = "dest.test") -> list[Message]:
    """One message for each recipient of each fate."""
    return [
        (SENDER, [f"{fate}-{number}-{domain[0]}@{domain}"])
        for fate, count in numbers.items()
        for number in range(count)
    ]


def mixed(count: int, domain: str = "dest.test") -> list[Message]:
    """Messages to several recipients of different fates."""
    fates = ("ok", "unknown", "grey", "full", "greyhard", "ok")
    return [
        (SENDER, [f"{fate}-m{number}x{place}@{domain}" for place, fate in enumerate(fates)]) for number in range(count)
    ]


@pytest.mark.needs("postfix")
@pytest.mark.slow
def test_postfix_and_four_thousand_messages(server_dir: Path, report: Callable[..., Json]) -> None:
    lifetime = 45
    fates = {"ok": 2600, "unknown": 300, "blocked": 100, "multi": 100, "bare": 50, "forge": 50, "grey": 150, "four": 60}
    fates |= {"greyhard": 50, "data": 80, "datasoft": 80, "forgeok": 20, "forgesoft": 20, "drop": 20}
    pairs = range(40)
    aliases = "".join(f"fork{n}: ok-f{n}@dest.test, unknown-f{n}@dest.test, grey-f{n}@dest.test\n" for n in pairs)
    virtual = "".join(f"/^pair{n}@virtual.test$/ ok-v{n}@dest.test, unknown-v{n}@dest.test\n" for n in pairs)
    (server_dir / "virtual").write_text(virtual)
    settings = f"virtual_alias_maps = regexp:{server_dir}/virtual\nvirtual_alias_domains = virtual.test\n"
    with FateServer() as server:
        postfix = Postfix(server_dir, server.port, settings, aliases=aliases, lifetime=f"{lifetime}s")
        postfix.add_filter()
        with Filter(postfix.filter, postfix.back) as filter_, postfix:
            messages = singles(fates) + mixed(100)
            messages += [(SENDER, [f"fork{n}@local.test", f"pair{n}@virtual.test"]) for n in pairs]
            nulls = {f"{fate}-n{n}@dest.test" for fate in ("ok", "unknown", "grey") for n in range(30)}
            messages += [("", [recipient]) for recipient in sorted(nulls)]
            filtered = singles({"ok": 150, "unknown": 40, "grey": 30, "held": 20, "full": 5}, "filtered.test")
            filtered += [(SENDER, [f"ok-g{n}@dest.test", f"held-g{n}@dest.test"]) for n in range(20)]
            lasting = singles({"full": 40, "baresoft": 10}, "lasting.test")
            with Exporter("--from-start", postfix.log) as exporter:
                send(postfix.port, messages)
                send(postfix.filtered, filtered)
                send(postfix.port, lasting)
                assert len(messages) + len(filtered) + len(lasting) >= 4000
                wait_until(lambda: postfix.queued() == 0, lifetime + 600, f"mail is queued; see {postfix.log}", 0.3)
                exporter.wait_until_read(postfix.log)
                truth = expected(server.truth, filter_, nulls)
                page = Page(exporter.page())
    assert len(filter_.handler.handed_on | filter_.handler.held) == 285
    assert truth.expired >= 100 + 5 + 50 + 20
    attempts = page.by("mail_delivery_attempts_total", "outcome")
    answered = Counter(answer.outcome for answer in server.truth.answers)
    answered["delivered"] += len(filter_.handler.handed_on) + len(pairs)  # each fork is forwarded once
    answered["deferred"] += len(filter_.handler.held)
    assert {name: attempts.get(name, 0) for name in answered} == answered
    groups = [recipients for sender, recipients in [*messages, *filtered, *lasting] if sender]
    groups += [[f"{fate}-v{n}@dest.test" for fate in ("ok", "unknown")] for n in pairs]
    groups += [[f"{fate}-f{n}@dest.test" for fate in ("ok", "unknown", "grey")] for n in pairs]
    bounced = bounced_messages(groups, server.truth, filter_.handler.held, drop="4.4")
    check(page, report(postfix.log), truth, bounced)


@pytest.mark.needs("exim")
@pytest.mark.slow
def test_exim_and_fifteen_hundred_messages(server_dir: Path, report: Callable[..., Json]) -> None:
    fates = {"ok": 700, "unknown": 120, "blocked": 60, "multi": 60, "bare": 20, "forgeexim": 20, "grey": 60, "four": 25}
    fates |= {"greyhard": 30, "data": 30, "datasoft": 30}
    pairs = range(40)
    aliases = "".join(f"pair{n}: ok-v{n}@dest.test, unknown-v{n}@dest.test, grey-v{n}@dest.test\n" for n in pairs)
    aliases += "team: ann@local.test, bob@local.test\n"
    with FateServer() as server, Exim(server_dir, server.port, aliases=aliases, lifetime=2) as exim:
        messages = singles(fates) + mixed(50, "expire.test")
        messages += [(SENDER, [f"pair{n}@alias.test"]) for n in pairs]
        messages += [(SENDER, ["team@alias.test"])] * 20 + [(SENDER, ["ann@local.test"])] * 20
        nulls = {f"{fate}-n{n}@dest.test" for fate in ("ok", "grey") for n in range(30)}
        messages += [("", [recipient]) for recipient in sorted(nulls)]
        messages += singles({"ok": 100, "unknown": 30, "grey": 30, "held": 10}, "filtered.test")
        messages += singles({"full": 30, "baresoft": 10, "drop": 5}, "expire.test")
        assert len(messages) >= 1500
        with Filter(exim.filter, exim.back) as filter_, Exporter("--from-start", exim.log) as exporter:
            exim.open_mailboxes(closed=True)
            send(exim.port, messages)
            exim.run_queue()
            exim.open_mailboxes()
            exim.drain()
            boxes = "".join(each.read_text() for each in (server_dir / "mailboxes").iterdir())
            truth = expected(server.truth, filter_, nulls, elsewhere=boxes.count("\nSubject: test\n"))
            exporter.wait_until_read(exim.log)
            page = Page(exporter.page())
    assert len(filter_.handler.handed_on | filter_.handler.held) == 170
    assert truth.expired >= 50 + 45
    groups = [recipients for sender, recipients in messages if sender]
    groups += [[f"{fate}-v{n}@dest.test" for fate in ("ok", "unknown", "grey")] for n in pairs]
    bounced = bounced_messages(groups, server.truth, filter_.handler.held, drop="4.0")
    bounced["soft", "4.0"] += 40  # to mailboxes that were closed at first
    check(page, report(exim.log), truth, bounced)
