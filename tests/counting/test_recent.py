"""The last day: what enters it, what leaves it, and how large it may become."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bouncemeter.blocks import read_lines
from bouncemeter.plugin import parser
from bouncemeter.stamps import Stamps
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.recent import DAY, MAX_CODES, MAX_REFUSALS, SLOT, Recent
from bouncemeter_exporter.serving.state import State

from tests.bench.traffic import START, traffic

NOON = 1_795_608_000.0
"""25 November 2026, 12:00 UTC."""


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(moment: float, code: str = "5.7.1", queue_id: str = "4A1B2C3D4E", status: str = "bounced") -> str:
    stamp = datetime.fromtimestamp(moment, UTC).isoformat()
    return (
        f"{stamp} mx1 postfix/smtp[1]: {queue_id}: to=<ann@dest.example>, relay=mx.google.com[192.0.2.1]:25, delay=1,"
        f" delays=0/0/0/1, dsn={code}, status={status} (host mx.google.com[192.0.2.1] said: 550 {code} no)"
    )


def count(clock: Clock, *lines: str, catching_up: bool = False) -> Counters:
    counters, ledger, read = Counters(clock), Ledger(clock=clock), parser("postfix").reader(clock)
    counters.catching_up = catching_up
    ledger.count(read_lines(list(lines), read), counters)
    counters.recent.texts()
    return counters


def test_what_happened_is_there_by_kind_and_code(clock: Clock) -> None:
    day = count(
        clock,
        refusal(NOON - 60),
        refusal(NOON - 4000, "4.2.2", "4A1B2C3D4F", "deferred"),
        refusal(NOON - 4000, "2.0.0", "4A1B2C3D50", "sent"),
        f"{datetime.fromtimestamp(NOON, UTC).isoformat()} mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from"
        " a.test[192.0.2.9]: 554 5.7.1 <b@c.test>: Relay access denied; from=<a@a.test> to=<b@c.test> proto=ESMTP",
    ).recent.day
    now = int(NOON // SLOT)
    assert day.outcomes(now - DAY) == {"hard": 1, "soft": 1, "delivered": 1, "rejected": 1}
    assert day.outcomes(now - 12) == {"hard": 1, "rejected": 1}
    assert day.codes(now - DAY) == {
        ("hard", "5.7.1", "spam_content", "google"): 1,
        ("soft", "4.2.2", "mailbox_full", "google"): 1,
        ("rejected", "5.7.1", "relay_denied", "other"): 1,
    }
    (only,) = day.refusals
    assert only == (NOON - 60, "postfix", "4A1B2C3D4E", "5.7.1", "spam_content", "google")


def test_what_is_older_than_a_day_does_not_enter(clock: Clock) -> None:
    day = count(clock, refusal(NOON - 86400 - SLOT), refusal(NOON - 86400 + SLOT, queue_id="4A1B2C3D4F")).recent.day
    assert day.outcomes(0) == {"hard": 1}
    assert len(day.refusals) == 1


def test_the_future_counts_as_now(clock: Clock) -> None:
    day = count(clock, refusal(NOON + 7200)).recent.day
    assert list(day.slots) == [int(NOON // SLOT)]
    assert day.refusals[0].time == NOON


def test_a_line_without_a_time_is_of_now_unless_it_was_there_before(clock: Clock) -> None:
    line = refusal(NOON).partition(" mx1 ")[2]
    assert count(clock, line).recent.day.outcomes(0) == {"hard": 1}
    assert count(clock, line, catching_up=True).recent.day.outcomes(0) == {}


def test_time_takes_everything_out_again(clock: Clock) -> None:
    counters = count(clock, *(refusal(NOON - 600 * each, queue_id=f"4A1B2C3D{each:02}") for each in range(10)))
    before = counters.recent.day
    clock.now += 86400 - 600 * 5
    counters.recent.texts()
    assert counters.recent.day.outcomes(0).total() == len(counters.recent.day.refusals) == 5
    clock.now += 86400
    assert counters.recent.texts() == {}
    assert before.outcomes(0).total() == 10  # what was shown stays as it was


def test_a_remote_server_cannot_make_it_grow(clock: Clock) -> None:
    recent = Recent(clock)
    for number in range(5000):
        slot = recent.slot(NOON)
        assert slot is not None
        slot.add(("hard", f"5.7.{number % 50}", f"reason {number}", "other"))
        recent.refused(NOON, ("postfix", f"A{number}", "5.7.1", "policy", "other"))
    recent.texts()
    (slot,) = recent.day.slots.values()
    assert slot.outcomes == {"hard": 5000}
    assert slot.codes.total() == 5000
    assert len(slot.codes) <= MAX_CODES + 50
    assert len(recent.day.refusals) == MAX_REFUSALS


def test_only_well_formed_queue_ids_are_kept(clock: Clock) -> None:
    counters, ledger = Counters(clock), Ledger(clock=clock)
    for entry in parser("exim").reader(clock)(
        "2026-11-25 11:59:00 1xVsuB-0001DU-2n ** a@b.test R=r T=t H=mx.b.test [192.0.2.1]: 550 5.7.1 no"
    ):
        counters.count(entry, ledger.facts(entry))
    counters.recent.texts()
    assert [each.queue_id for each in counters.recent.day.refusals] == ["1xVsuB-0001DU-2n"]
    assert "@" not in "".join(counters.recent.texts().values())


def test_it_survives_a_restart_and_rows_that_have_gone_are_deleted(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    counters = count(clock, *(refusal(NOON - 4000 * each, queue_id=f"4A1B2C3D{each:02}") for each in range(20)))
    for later in (0.0, 40_000.0, 200_000.0):
        clock.now = NOON + later
        state = State(path, print)
        counters.recent.texts()
        day = counters.recent.day
        state.commit(counters.numbers(), {"log": {"a": "1"}}, {}, [], counters.recent.texts())
        state.close()
        state = State(path, print)
        assert state.positions == {"log": {"a": "1"}}
        assert len(state.recent) == len(day.slots) + bool(day.refusals)
        counters = Counters(clock)
        counters.restore(state.numbers)
        counters.recent.restore(state.recent)
        assert counters.recent.day == day
        state.close()
    assert day == ({}, ())


@pytest.mark.parametrize("mta", ["postfix", "exim"])
@pytest.mark.parametrize("size", [7, 400, 20_000])
def test_blocks_give_the_same_as_single_lines(mta: str, size: int) -> None:
    stamp = {"postfix": "%b %e %H:%M:%S", "exim": "%Y-%m-%d %H:%M:%S"}[mta]
    text = []
    for moment, line in traffic(mta, lambda _: 20.0, 3):
        text.append((START + timedelta(seconds=moment)).strftime(f"{stamp} {line}\n"))
        if len(text) == 20_000:
            break
    clock = Clock((START + timedelta(seconds=moment)).timestamp())
    alone, together = Counters(clock), Counters(clock)
    for counters, step in ((alone, 0), (together, size)):
        ledger, read = Ledger(clock=clock), parser(mta).reader(clock)
        if not step:
            for each in text:
                for entry in read(each.removesuffix("\n")):
                    counters.count(entry, ledger.facts(entry))
        for place in range(0, len(text) if step else 0, step or 1):
            ledger.count(read.block("".join(text[place : place + step])), counters)  # type: ignore[attr-defined]
        counters.recent.texts()
    assert together.recent.day == alone.recent.day
    assert len(alone.recent.day.slots) > 150


@pytest.mark.parametrize("stamp", ["%b %e %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f+02:00"])
def test_stamps_are_counted_by_period_as_one_by_one(stamp: str) -> None:
    chance, stamps = random.Random(1), Stamps(lambda: NOON)
    for spread in (100, 1000, 40_000, 200_000):
        start = datetime.fromtimestamp(NOON - 300_000, UTC)
        some = [(start + timedelta(seconds=chance.random() * spread)).strftime(stamp) for _ in range(300)]
        for each in (some, [*some, "Feb 31 00:00:00"]):
            found = stamps.periods(each, SLOT)
            times = [stamps.seconds(text) for text in each]
            assert found == Counter(None if time is None else int(time // SLOT) for time in times)
    assert stamps.periods([], SLOT) == {}
