"""A block gives the same entries as its lines one by one, and ordinary mail counts as the ledger would count it."""

from __future__ import annotations

import random
import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache

import pytest
from bouncemeter.blocks import Block, read_lines
from bouncemeter.event import Entry
from bouncemeter.plugin import BlockReader, parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.facts import Counts, Fact
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.memory import MAX_AGE
from bouncemeter_exporter.counting.ordinary import OrdinaryMail
from bouncemeter_exporter.counting.senders import SenderGroups
from bouncemeter_exporter.reporting.report import Report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bench.traffic import START, traffic
from tests.parsers.test_lowering import lines, mutated

CLOCK = 1_796_000_000.0
MTAS = ("postfix", "exim")


def reader(mta: str) -> BlockReader:
    found = parser(mta).reader(lambda: CLOCK)
    assert isinstance(found, BlockReader)
    return found


def one_by_one(mta: str, text: Iterable[str]) -> Block:
    return read_lines(text, parser(mta).reader(lambda: CLOCK))


def pieces(text: list[str], chance: random.Random, size: int) -> Iterator[list[str]]:
    place = 0
    while place < len(text):
        end = place + chance.randint(1, size)
        yield text[place:end]
        place = end


def joined(text: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in text)


def same_entries(mta: str, text: list[str]) -> None:
    alone, together = one_by_one(mta, text), reader(mta).block(joined(text))
    assert list(together) == alone.entries
    assert (together.events, together.other, together.unparsed) == (alone.events, alone.other, alone.unparsed)


def test_a_field_without_its_quotes_ends_a_block_s_usual_line_too() -> None:
    line = "2024-03-01 12:00:07 1abcDE-000000005vi-0004 => cyd@dest.example R=r T=t H=mx.dest.example [192.0.2.1]"
    same_entries("exim", [f"{line} {name}=1h2m3s DT=0.1s" for name in ("CV", "DN", "SNI", "QT", "C", "H", "F", "X")])


def test_a_filter_s_line_that_looks_like_the_mail_server_s_is_none() -> None:
    start = "2026-01-02T04:13:36.100000+00:00 mailhost"
    forms = ["removed", "client=mx.test[192.0.2.1]", "from=<a@src.test>, size=1, nrcpt=1 (queue active)"]
    forms += ["to=<a@dest.test>, relay=none, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)"]
    programs = ["pmg-smtp-filter", "postfix/qmgr", "other"]
    same_entries("postfix", [f"{start} {program}[2010]: C0202: {form}" for program in programs for form in forms])


class Both:
    """Passes counts on to several `Counts`, and keeps the number of recipients counted without an entry."""

    def __init__(self, *counts: Counts) -> None:
        self.counts, self.ordinary = counts, 0

    def count(self, entry: Entry, facts: Sequence[Fact]) -> None:
        for each in self.counts:
            each.count(entry, facts)

    def count_ordinary(self, mail: OrdinaryMail) -> None:
        self.ordinary += len(mail.deliveries)
        for each in self.counts:
            each.count_ordinary(mail)


def totals(counters: Counters, name: str) -> dict[tuple[str, ...], int]:
    """A counter by mta, kind and class."""
    found = Tally[tuple[str, ...]]()
    for labels, number in counters.counters()[name].values.items():
        found[labels[0], *labels[-2:]] += number
    return dict(+found)


SENDERS = SenderGroups({"news": {"domains": [".1.sender.example", "2.sender.example"]}, "bob": {"accounts": ["Bob"]}})


def same_numbers(
    mta: str,
    text: list[str],
    chance: random.Random,
    size: int,
    *,
    late: bool = True,
    ordered: bool = True,
    max_age: float = MAX_AGE,
) -> int:
    """Compare the counts and, unless lines are too late for that, the number of remembered messages. Return the number
    of recipients counted without an entry. An outcome that comes before the line with the sender is of a sender, and
    has a delay, only for who reads both together."""
    alone, together = [(Counters(), Report(), Ledger(max_age, senders=True)) for _ in range(2)]
    for counters, *_ in (alone, together):
        counters.name_senders(SENDERS)
    both = Both(*together[:2])
    read = reader(mta)
    for entry in one_by_one(mta, text).entries:
        facts = alone[2].facts(entry)
        for each in alone[:2]:
            each.count(entry, facts)
    for piece in pieces(text, chance, size):
        together[2].count(read.block(joined(piece)), both)
    assert totals(alone[0], "bounces_by_sender") == totals(alone[0], "bounces_by_class")
    for name, numbers in alone[0].numbers().items():
        if name == "bounces_by_sender" and not ordered:
            continue
        if name.startswith("delay") and not late:  # no delay without a valid arrival time, such as 31 November
            continue
        assert dict(together[0].numbers()[name]) == pytest.approx(dict(numbers)), name
    for ledger in (alone[2], together[2]):
        ledger.memory.forget_old()
    assert together[2].memory.waiting == alone[2].memory.waiting
    assert len(together[2].memory) == len(alone[2].memory) or not late
    counts = {"event": 0, "other": 0, "unparsed": 0}
    found, expected = (each[1].as_json(counts, 0) for each in (together, alone))
    for name in ("senders", "accounts", "delays", "slowest") if not ordered else ():
        del found[name], expected[name]
    assert found == expected
    return both.ordinary


@pytest.mark.parametrize("mta", MTAS)
def test_fixture_logs_give_the_same_entries_in_a_block(mta: str) -> None:
    same_entries(mta, lines(mta))


@pytest.mark.parametrize("mta", MTAS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**64))
def test_mutated_lines_give_the_same_entries_in_a_block(mta: str, seed: int) -> None:
    chance = random.Random(seed)
    known = [*lines(mta), *day(mta, 300, seed % 20)]
    text = [
        mutated(line, known, chance).replace("\n", "\\n") if chance.random() < 0.5 else line
        for line in chance.choices(known, k=60)
    ]
    same_entries(mta, text)
    # Stamps jump by minutes or days: what is too old depends on when the ledger looks.
    same_numbers(mta, text, chance, 60, late=False, max_age=1e12)


def day(mta: str, number: int, seed: int, pause: float = 0.5) -> list[str]:
    """Lines of traffic, from two servers if the format has hosts, with an average pause of seconds between messages."""
    return [*_day(mta, number, seed, pause)]


@cache
def _day(mta: str, number: int, seed: int, pause: float) -> list[str]:
    stamp = {"postfix": "%b %e %H:%M:%S", "exim": "%Y-%m-%d %H:%M:%S"}[mta]
    found = []
    for moment, line in traffic(mta, lambda _: pause, seed):
        shown = (START + timedelta(seconds=moment)).strftime(stamp)
        found.append(f"{shown} {told_apart(line.replace('mx1', f'mx{seed % 2}'))}")
        if len(found) == number:
            return found
    raise AssertionError


def told_apart(line: str) -> str:
    """A line with senders of several domains and accounts."""
    line = re.sub(r"\blist(\d+)@", r"list@\1.", line)
    line = re.sub(r"(client=client\d*0\.example\[[^]]+\])$", r"\1, sasl_method=PLAIN, sasl_username=bob", line)
    return re.sub(r"(<= .+ H=client\d*0\.example .+ P=esmtps) ", r"\1 A=plain:bob ", line)


@pytest.mark.slow
@pytest.mark.parametrize("mta", MTAS)
@pytest.mark.parametrize(("seed", "size"), [(1, 20_000), (2, 3000), (3, 400), (4, 60), (5, 1)])
def test_a_day_of_mail_is_counted_the_same(mta: str, seed: int, size: int) -> None:
    chance = random.Random(seed)
    both = [*day(mta, 10_000, seed), *day(mta, 10_000, seed + 100)]
    if seed > 2:  # mix messages of two servers, and of the same queue ID
        both = sorted([*both, *day(mta, 10_000, seed)], key=lambda line: line[:15] if mta == "postfix" else line[:19])
    ordinary = same_numbers(mta, both, chance, size)
    assert ordinary > 2500 or size < 3000


@pytest.mark.parametrize("mta", MTAS)
def test_bounces_of_every_group_of_senders_are_counted(mta: str) -> None:
    counters, ledger, read = Counters(), Ledger(senders=True), reader(mta)
    counters.name_senders(SENDERS)
    for piece in pieces(day(mta, 20_000, 1), random.Random(1), 4000):
        ledger.count(read.block(joined(piece)), counters)
    by_sender = Tally[str]()
    for labels, number in counters.bounces_by_sender.values.items():
        by_sender[labels[1]] += number
    assert min(by_sender[name] for name in SENDERS.names) > 20
    assert by_sender.total() == sum(counters.bounces.values.values())


@pytest.mark.parametrize("mta", MTAS)
@pytest.mark.parametrize("seed", range(8))
def test_mail_out_of_order_is_counted_the_same(mta: str, seed: int) -> None:
    """Lines come some places too early or too late, doubled, or never."""
    chance = random.Random(seed)
    places = []
    for place, line in enumerate(day(mta, 4000, seed)):
        times = chance.choices((0, 1, 2), (1, 50, 1))[0]
        places += [(place + chance.choice((0, 0, 0, 1, 5, 40)), line) for _ in range(times)]
    same_numbers(mta, [line for _, line in sorted(places)], chance, chance.choice((50, 500, 5000)), ordered=False)


@pytest.mark.parametrize("mta", MTAS)
def test_half_a_year_within_a_block_is_counted_the_same(mta: str) -> None:
    """Old messages are forgotten in time, and not before."""
    assert same_numbers(mta, day(mta, 4000, 7, pause=25_000.0), random.Random(1), 4000) > 300
