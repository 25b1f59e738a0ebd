"""Scripted lives of addresses, whose truth is known: the list says of each what to do, and why."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bouncemeter.knowledge.reasons import reasons
from bouncemeter.plugin import parser
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.reporting import suppression
from bouncemeter_exporter.reporting.suppression import Suppression, Thresholds
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import LOGS, Run

REPLIES = {
    "unknown": ("5.1.1", "550 5.1.1 No such user here"),
    "disabled": ("5.2.1", "550 5.2.1 The account is disabled"),
    "moved": ("5.1.6", "551 5.1.6 The mailbox has moved"),
    "domain": ("5.1.2", "550 5.1.2 Domain not found"),
    "fullhard": ("5.2.2", "552 5.2.2 The mailbox is full"),
    "full": ("4.2.2", "452 4.2.2 The mailbox is full"),
    "softunknown": ("4.1.1", "450 4.1.1 User unknown for now"),
    "down": ("4.4.1", "451 4.4.1 Connection timed out"),
    "policy": ("5.7.1", "550 5.7.1 Refused by our policy"),
    "listed": ("5.7.1", "554 5.7.1 Client blocked using zen.spamhaus.org"),
    "spf": ("5.7.26", "550 5.7.26 Unauthenticated mail: SPF and DKIM fail"),
    "spam": ("5.7.1", "554 5.7.1 Message rejected as spam"),
    "grey": ("4.7.1", "450 4.7.1 Greylisted, try again later"),
    "rate": ("4.7.28", "421 4.7.28 Unusual rate of mail"),
}
"""What a server says, by a word, with the code."""

START = datetime(2026, 11, 1, tzinfo=UTC)


class Life:
    """A log of Postfix, in which each message is one of a day."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._number = 0

    def add(self, address: str, *words: str, after: str = "", sender: str = "news@src.test") -> Life:
        """Add a message to an address for each word: `ok`, a word of `REPLIES`, or several with `+`, in their order.

        Args:
            address: The recipient.
            words: What becomes of each message.
            after: The address before aliases.
            sender: The sender.
        """
        for word in words:
            self._number += 1
            queue_id, moment = f"A{self._number:06X}", START + timedelta(days=self._number)
            self._line(moment, "smtpd", f"{queue_id}: client=pc.src.test[192.0.2.9]")
            self._line(moment, "qmgr", f"{queue_id}: from=<{sender}>, size=1, nrcpt=1 (queue active)")
            for place, each in enumerate(word.split("+")):
                self._outcome(moment + timedelta(minutes=place + 1), queue_id, address, after, each)
            if word.split("+")[-1] not in ("full", "softunknown", "down", "grey", "rate"):
                self._line(moment + timedelta(hours=1), "qmgr", f"{queue_id}: removed")
        return self

    def _outcome(self, moment: datetime, queue_id: str, address: str, after: str, word: str) -> None:
        if word == "expired":
            self._line(moment, "qmgr", f"{queue_id}: from=<news@src.test>, status=expired, returned to sender")
            return
        code, reply = REPLIES.get(word, ("2.0.0", ""))
        status = {"2": "sent", "4": "deferred", "5": "bounced"}[code[0]]
        said = f"host mx.dest.test[192.0.2.1] said: {reply} (in reply to RCPT TO command)" if reply else "250 ok"
        to = f"to=<{address}>, {f'orig_to=<{after}>, ' if after else ''}relay=mx.dest.test[192.0.2.1]:25"
        self._line(moment, "smtp", f"{queue_id}: {to}, delay=1, delays=0/0/0/1, dsn={code}, status={status} ({said})")

    def _line(self, moment: datetime, program: str, text: str) -> None:
        self.lines.append(f"{moment.isoformat()} mx1 postfix/{program}[1]: {text}\n")


def advice(lines: list[str], size: int = 100_000, thresholds: Thresholds | None = None) -> dict[str, tuple[str, str]]:
    """The verdict and the reason of each address, with the log read in blocks of some lines."""
    reader, ledger, found = parser("postfix").reader(), Ledger(), Suppression()
    for start in range(0, len(lines), size):
        ledger.count(reader.block("".join(lines[start : start + size])), found)  # type: ignore[attr-defined]
    made = found.advice(thresholds or Thresholds())
    return {each.address: (str(each.verdict), each.bounce.reason) for each in made}


LIVES: dict[str, tuple[tuple[str, ...], tuple[str, str] | None]] = {
    "unknown": (("unknown",), ("remove", "user_unknown")),
    "disabled": (("ok", "disabled"), ("remove", "user_disabled")),
    "moved": (("moved",), ("remove", "user_moved")),
    "domain": (("domain",), ("remove", "domain_unknown")),
    "back": (("unknown", "ok"), None),
    "gone-after-all": (("unknown", "ok", "unknown"), ("remove", "user_unknown")),
    "then-policy": (("unknown", "policy"), ("remove", "user_unknown")),
    "full-three-times": (("full", "full", "full"), ("pause", "mailbox_full")),
    "full-twice": (("full", "full"), ("keep", "mailbox_full")),
    "full-then-fine": (("full", "full", "full", "ok"), None),
    "full-for-good": (("fullhard",), ("pause", "mailbox_full")),
    "full-until-it-expired": (("full+full+expired",), ("pause", "mailbox_full")),
    "full-and-unknown": (("fullhard", "unknown"), ("remove", "user_unknown")),
    "waited-and-came": (("full+full+ok",), None),
    "soft-unknown": (("softunknown",) * 3, ("pause", "user_unknown")),
    "down": (("down",) * 3, ("pause", "connection")),
    "down-once": (("down+down+down+down",), ("keep", "connection")),
    "down-until-it-expired": (("down+expired",), ("keep", "connection")),
    "policy": (("policy",) * 5, ("keep", "policy")),
    "listed": (("listed",) * 5, ("keep", "blocklisted")),
    "spf": (("spf",) * 5, ("keep", "authentication")),
    "spam": (("spam",) * 5, ("keep", "spam_content")),
    "grey": (("grey",) * 5, ("keep", "greylisted")),
    "rate": (("rate",) * 5, ("keep", "rate_limited")),
    "mixed": (("full", "down", "policy", "full"), ("pause", "mailbox_full")),
    "innocent-but-twice": (("full", "policy", "policy", "down"), ("keep", "connection")),
    "fine": (("ok", "ok"), None),
}
"""What becomes of an address's messages, and what to do: None if it is not listed."""


def lives() -> Life:
    life = Life()
    for name, (words, _) in LIVES.items():
        life.add(f"{name}@dest.test", *words)
    return life


EXPECTED = {f"{name}@dest.test": truth for name, (_, truth) in LIVES.items() if truth is not None}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100_000])
def test_each_address_has_the_verdict_that_its_life_deserves(size: int) -> None:
    assert advice(lives().lines, size) == EXPECTED


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_the_order_of_other_lives_does_not_matter(chance: Any, size: int) -> None:
    """Lives side by side: the messages of each stay in their order."""
    names = [name for name, (words, _) in LIVES.items() for _ in words]
    chance.shuffle(names)
    life, left = Life(), {name: list(words) for name, (words, _) in LIVES.items()}
    for name in names:
        life.add(f"{name}@dest.test", left[name].pop(0))
    assert advice(life.lines, size) == EXPECTED


def test_thresholds_decide() -> None:
    lines = Life().add("u@x.test", "unknown").add("f@x.test", "full", "full", "full").lines
    assert advice(lines, thresholds=Thresholds(hard=2))["u@x.test"] == ("keep", "user_unknown")
    assert advice(lines, thresholds=Thresholds(soft=4))["f@x.test"] == ("keep", "mailbox_full")
    assert advice(lines, thresholds=Thresholds(soft=3, days=1.9))["f@x.test"] == ("pause", "mailbox_full")
    assert advice(lines, thresholds=Thresholds(soft=3, days=2.1))["f@x.test"] == ("keep", "mailbox_full")


def test_an_address_is_the_one_that_was_written_to() -> None:
    life = (
        Life()
        .add("real@dest.test", "unknown", after="Alias@dest.test")
        .add("other@dest.test", "ok", after="alias@DEST.test")
    )
    assert advice(life.lines) == {}
    assert advice(life.lines[:4]) == {"Alias@dest.test": ("remove", "user_unknown")}


@pytest.mark.parametrize("order", [("ok", "unknown"), ("unknown", "ok")])
def test_a_group_is_not_gone_with_one_of_its_members(order: tuple[str, str]) -> None:
    life = Life().add("ann@dest.test", order[0], after="team@src.test")
    life.add("bob@dest.test", order[1], after="team@src.test")
    lines = [line.replace("A000002", "A000001").replace("-11-03T", "-11-02T") for line in life.lines]
    lines = [line for line in lines if "removed" not in line and "smtpd" not in line and "qmgr" not in line]
    assert advice([*life.lines[:2], *lines]) == {}


def test_mail_with_the_empty_sender_says_nothing() -> None:
    assert advice(Life().add("stranger@dest.test", "unknown", sender="").lines) == {}


def test_a_filter_on_this_host_is_no_delivery() -> None:
    lines = Life().add("a@dest.test", "unknown").lines
    filtered = (
        "2026-12-01T00:00:01+00:00 mx1 postfix/smtpd[1]: BBBBB1: client=pc.src.test[192.0.2.9]\n"
        "2026-12-01T00:00:02+00:00 mx1 postfix/smtpd[1]: BBBBB2: client=localhost[127.0.0.1]\n"
        "2026-12-01T00:00:03+00:00 mx1 postfix/smtp[1]: BBBBB1: to=<a@dest.test>, relay=127.0.0.1[127.0.0.1]:10024,"
        " delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as BBBBB2)\n"
        "2026-12-01T00:00:03+00:00 mx1 postfix/qmgr[1]: BBBBB1: removed\n"
    )
    assert advice([*lines, *filtered.splitlines(keepends=True)]) == {"a@dest.test": ("remove", "user_unknown")}


def test_a_delivery_that_another_log_tells_later_lifts_what_came_before_it() -> None:
    life = Life().add("a@dest.test", "unknown", "ok")
    bounced, delivered = life.lines[:4], life.lines[4:]
    assert advice([*delivered, *bounced]) == {}
    assert advice([*delivered, *bounced], 1) == {}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "MAX_ADDRESSES", 10)
    life = Life()
    for number in range(25):
        life.add(f"u{number}@dest.test", "unknown")
    found = advice(life.lines)
    assert len(found) <= 10
    assert "u24@dest.test" in found


def test_every_reason_says_something_of_the_address() -> None:
    assert {each.address for each in reasons().values()} == {"gone", "full", "unreachable", "innocent"}


EXCHANGE = [LOGS / "exchange" / name for name in ("MSGTRK2026112409-1.LOG", "SEND20261124-1.log")]
EXIM = """\
2026-11-24 10:00:00 1xVsuB-0001DU-2a <= news@src.test H=pc.src.test [192.0.2.9] P=esmtp S=1
2026-11-24 10:00:01 1xVsuB-0001DU-2a ** gone@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1]: SMTP error from remote\
 mail server after RCPT TO:<gone@dest.test>: 550 5.1.1 User unknown
2026-11-24 10:00:01 1xVsuB-0001DU-2a ** back@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1]: SMTP error from remote\
 mail server after RCPT TO:<back@dest.test>: 550 5.1.1 User unknown
2026-11-24 10:00:02 1xVsuB-0001DU-2a Completed
2026-11-24 11:00:00 1xVsuB-0001DU-2b <= news@src.test H=pc.src.test [192.0.2.9] P=esmtp S=1
2026-11-24 11:00:01 1xVsuB-0001DU-2b => back@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1] C="250 ok"
2026-11-24 11:00:02 1xVsuB-0001DU-2b Completed
"""


def listed(bouncemeter: Run, *words: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(bouncemeter("suppress", "--format", "json", *words).stdout)
    return found


def test_exim_is_understood(bouncemeter: Run, tmp_path: Path) -> None:
    log = tmp_path / "mainlog"
    log.write_text(EXIM)
    (row,) = listed(bouncemeter, log)
    assert (row["address"], row["verdict"], row["messages"]) == ("gone@dest.test", "remove", 1)


def test_exchange_is_understood(bouncemeter: Run) -> None:
    found = {row["address"]: (row["verdict"], row["reason"]) for row in listed(bouncemeter, *EXCHANGE)}
    assert found == {
        "nobody@dest.example": ("remove", "user_unknown"),
        "gone@contoso.example": ("remove", "user_unknown"),
        "full@dest.example": ("pause", "mailbox_full"),  # until the server gave up
        '"odd; name"@contoso.example': ("keep", "policy"),
        "bo@contoso.example": ("keep", "policy"),
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "mail.log"
    found.write_text("".join(lives().lines))
    return found


def test_a_row_has_the_evidence(bouncemeter: Run, log: Path) -> None:
    rows = {row["address"]: row for row in listed(bouncemeter, log)}
    assert {address: (row["verdict"], row["reason"]) for address, row in rows.items()} == EXPECTED
    row = rows["full-three-times@dest.test"]
    assert (row["code"], row["kind"], row["provider"], row["messages"]) == ("4.2.2", "soft", "other", 3)
    first, last = (datetime.fromisoformat(row[key]) for key in ("first", "last"))
    assert last - first == timedelta(days=2)
    assert "452 4.2.2 The mailbox is full" in row["reply"]


def test_files_hold_what_their_readers_take(bouncemeter: Run, log: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(bouncemeter("suppress", "--format", "csv", log).stdout)))
    assert {row["address"]: (row["verdict"], row["reason"]) for row in rows} == EXPECTED
    removed = {address for address, (verdict, _) in EXPECTED.items() if verdict == "remove"}
    paused = {address for address, (verdict, _) in EXPECTED.items() if verdict == "pause"}
    assert set(bouncemeter("suppress", "--format", "list", log).stdout.split()) == removed | paused
    assert set(bouncemeter("suppress", "--format", "list", "--verdict", "remove", log).stdout.split()) == removed
    table = dict(line.split("\t") for line in bouncemeter("suppress", "--format", "postfix", log).stdout.splitlines())
    assert table.keys() == removed | paused
    assert table["unknown@dest.test"] == "REJECT 5.1.1 user_unknown, 1 bounced"


def test_a_hostile_text_is_no_formula_and_no_line_of_its_own(bouncemeter: Run, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    life = Life()
    for address in ('=cmd|"/c calc"!A1@x.test', '"a b"@x.test', "*@x.test", "#a@x.test", "plain@x.test"):
        life.add(address, "unknown")
    log.write_text("".join(life.lines).replace("host mx.dest.test[192.0.2.1] said", "=HYPERLINK(1)\x1b\u2028 said"))
    rows = list(csv.reader(io.StringIO(bouncemeter("suppress", "--format", "csv", log).stdout)))
    assert len(rows) == 6
    assert not [cell for row in rows[1:] for cell in row if cell.startswith("=")]
    done = bouncemeter("suppress", "--format", "postfix", log)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["plain@x.test"]
    assert bouncemeter("suppress", "--format", "list", log).stdout == "plain@x.test\n"
    assert "4 addresses have characters that such a list cannot hold" in done.stderr


def test_nothing_is_no_error(bouncemeter: Run, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text("".join(Life().add("fine@x.test", "ok").lines))
    done = bouncemeter("suppress", log)
    assert "0 to remove, 0 to pause, 0 to keep" in done.stdout
    assert bouncemeter("suppress", "--soft", "0", log, check=False).returncode == 2
